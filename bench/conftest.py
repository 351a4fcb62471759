"""The option `--shapes` of `pytest bench/`, and one thread for every library, set before it loads."""

from __future__ import annotations

import os

import pytest

from bench import shapes, threads

for name in threads.HINDRANCES:
    os.environ.pop(name, None)
os.environ.update(threads.process_environment(1))
threads.pin(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shapes",
        nargs="+",
        default=[str(shape) for shape in shapes.QUICK],
        help=f"{', '.join(shapes.GROUPS)}, or a shape as 1024x288x96x3 or 128x784x256:relu (default: six)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shape" in metafunc.fixturenames:
        try:
            chosen = shapes.select(metafunc.config.getoption("--shapes"))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
        metafunc.parametrize("shape", chosen, ids=str, scope="module")
