"""The option `--shapes` of `pytest bench/`, and one thread for every library, set before it loads."""

from __future__ import annotations

import os

import pytest

from bench import networks, shapes, threads

for name in threads.HINDRANCES:
    os.environ.pop(name, None)
os.environ.update(threads.process_environment(1))
threads.pin(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shapes",
        nargs="+",
        default=[str(shape) for shape in (*shapes.QUICK, *networks.QUICK)],
        help=f"{', '.join(shapes.GROUPS)}, a shape as 1024x288x96x3 or 128x784x256:relu, or a network as "
        "256x8-64-64-4:tanh (default: six shapes and two networks)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, kind in (("shape", shapes.Shape), ("network", networks.Network)):
        if name in metafunc.fixturenames:
            try:
                chosen = shapes.select(metafunc.config.getoption("--shapes"))
            except ValueError as error:
                raise pytest.UsageError(str(error)) from error
            wanted = [each for each in chosen if isinstance(each, kind)]
            metafunc.parametrize(name, wanted, ids=str, scope="module")
