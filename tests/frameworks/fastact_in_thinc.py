"""A pytest plugin that puts fastact's Ops and Maxout in the place of Thinc's, for Thinc's own tests."""

from typing import Any

import thinc.api
import thinc.backends
from thinc.api import registry, set_current_ops

from fastact.thinc import FastactOps, Maxout

# The tests build their Ops and layers from these names, or from what is current or registered.
thinc.api.NumpyOps = thinc.backends.NumpyOps = FastactOps
thinc.api.Maxout = Maxout
registry.layers("Maxout.v1", func=Maxout)
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
