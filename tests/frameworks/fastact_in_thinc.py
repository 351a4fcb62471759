"""A pytest plugin that runs Thinc's own tests with fastact in it.

--fastact=ops puts fastact's Ops and Maxout in the place of Thinc's.  --fastact=accelerate accelerates each
model before its first forward.  Without the option Thinc is as it comes.  --only names a JSON file: a list of
the tests to run.  --outcomes names a JSON file to write:
{"outcomes": {test: "passed", "failed" or "skipped"}, "given": [test that was given fastact's Ops],
"exchanged": number of nodes that `accelerate` changed}.
"""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import thinc.api
import thinc.backends
from thinc.api import Model, NumpyOps, registry, set_current_ops

from fastact.thinc import FastactOps, Maxout, accelerate

found: dict[str, Any] = {"outcomes": {}, "given": [], "exchanged": 0}


def put_ops_in_place() -> None:
    """The tests build their Ops and layers from these names, or from what is current or registered."""
    FastactOps.name, NumpyOps.name = "numpy", "thinc"
    thinc.api.NumpyOps = thinc.backends.NumpyOps = FastactOps
    thinc.api.Maxout = Maxout
    registry.layers("Maxout.v1", func=Maxout)
    set_current_ops(FastactOps())


def accelerate_each_model() -> None:
    """Exchange the methods of `Model` through which every forward comes."""
    seen: dict[int, Model[Any, Any]] = {}  # keeps them alive, so that no other has the `id` of one

    def accelerated(method: Any) -> Any:
        @functools.wraps(method)
        def call(model: Model[Any, Any], *arguments: Any, **named: Any) -> Any:
            if id(model) not in seen:
                before = [(node, node._func, type(node.ops)) for node in model.walk()]
                accelerate(model)
                seen.update((id(node), node) for node, _, _ in before)
                found["exchanged"] += sum(
                    node._func is not forward or type(node.ops) is not kind for node, forward, kind in before
                )
            return method(model, *arguments, **named)

        return call

    for name in ("__call__", "begin_update", "predict"):
        setattr(Model, name, accelerated(getattr(Model, name)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fastact", choices=["ops", "accelerate"])
    parser.addoption("--only", type=Path)
    parser.addoption("--outcomes", type=Path)


def pytest_configure(config: pytest.Config) -> None:
    how = config.getoption("fastact")
    if how is not None:
        {"ops": put_ops_in_place, "accelerate": accelerate_each_model}[how]()


def name_of(nodeid: str) -> str:
    """A test's name, the same with Thinc's Ops and with fastact's."""
    return nodeid.replace("FastactOps", "NumpyOps")


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    if config.getoption("only"):
        wanted = set(json.loads(config.getoption("only").read_text()))
        items[:] = [item for item in items if name_of(item.nodeid) in wanted]
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and type(callspec.params.get("ops")) is FastactOps:
            found["given"].append(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Of a test's three phases, the first that is not passed counts."""
    name = name_of(report.nodeid)
    if found["outcomes"].get(name, "passed") == "passed":
        found["outcomes"][name] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("outcomes").write_text(json.dumps(found))
