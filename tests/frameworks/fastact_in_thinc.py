"""A pytest plugin that runs Thinc's own tests with fastact's Ops, Maxout and layer norm."""

from typing import Any

import thinc.api
import thinc.backends
import thinc.layers.layernorm
from thinc.api import registry, set_current_ops

from fastact.thinc import FastactOps, Maxout
from fastact.thinc.layer_norm import layer_norm_forward

# The tests build their Ops and layers from these names, or from what is current or registered.
thinc.api.NumpyOps = thinc.backends.NumpyOps = FastactOps
thinc.api.Maxout = Maxout
registry.layers("Maxout.v1", func=Maxout)
thinc.layers.layernorm.forward = layer_norm_forward
set_current_ops(FastactOps())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which tests were given fastact's Ops, for the caller to see that the exchange worked."""
    for report in terminalreporter.stats.get("passed", []):
        if "fastact_ops" in report.keywords:
            terminalreporter.write_line(f"with fastact: {report.nodeid}")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and type(callspec.params.get("ops")) is FastactOps:
            item.add_marker("fastact_ops")
