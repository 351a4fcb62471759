"""A pytest plugin that runs Thinc's own tests with fastact's Ops and Maxout, and accelerates each model."""

import functools
from typing import Any

import thinc.api
import thinc.backends
from thinc.api import Model, registry, set_current_ops

from fastact.thinc import FastactOps, Maxout, accelerate

# The tests build their Ops and layers from these names, or from what is current or registered.
thinc.api.NumpyOps = thinc.backends.NumpyOps = FastactOps
thinc.api.Maxout = Maxout
registry.layers("Maxout.v1", func=Maxout)
set_current_ops(FastactOps())

blocks = set()


def accelerated(method: Any) -> Any:
    """A method of a model that accelerates the model before it runs."""

    @functools.wraps(method)
    def call(model: Model, *args: Any, **kwargs: Any) -> Any:
        blocks.update(block.text for block in accelerate(model).blocks)
        return method(model, *args, **kwargs)

    return call


for name in ("initialize", "predict", "begin_update", "finish_update"):
    setattr(Model, name, accelerated(getattr(Model, name)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which tests had fastact's Ops, and the blocks, for the caller to see what was exchanged."""
    for report in terminalreporter.stats.get("passed", []):
        if "fastact_ops" in report.keywords:
            terminalreporter.write_line(f"with fastact: {report.nodeid}")
    for text in sorted(blocks):
        terminalreporter.write_line(f"block: {text}")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and type(callspec.params.get("ops")) is FastactOps:
            item.add_marker("fastact_ops")
