"""pytest-benchmark suites: forward, forward + backward, a training step, and frozen inference.

    pytest bench/ --shapes main

Here contenders are timed one after the other.  `python -m fastact bench` interleaves them: quote its figures.
The group of a benchmark is its shape and mode, so that contenders stand beside each other.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench import peers
from bench.measure import MODES, check, right_results
from bench.peers.base import NotAvailable
from bench.problem import Problem
from bench.shapes import Shape

pytestmark = [
    pytest.mark.filterwarnings("default"),  # peers' own warnings are no failures
    pytest.mark.benchmark(max_time=0.2, min_rounds=3, warmup=True, warmup_iterations=3),
]


@pytest.fixture(scope="module")
def problem(shape: Shape) -> Problem:
    return Problem(shape)


def _run(benchmark: Any, problem: Problem, where: str, mode: str, group: str) -> None:
    try:
        kind = peers.load(where)
        contender = kind(problem, 1)
    except NotAvailable as error:
        pytest.skip(str(error))
    check(where, contender, {mode: right_results(problem, kind.roundoff, (mode,))[mode]})
    benchmark.group = f"{group}, {problem.shape}"
    benchmark(getattr(contender, mode))


@pytest.mark.parametrize("mode", MODES["layers"])
@pytest.mark.parametrize("name", peers.LAYERS)
def test_layer(benchmark: Any, problem: Problem, name: str, mode: str) -> None:
    _run(benchmark, problem, peers.LAYERS[name], mode, mode)


@pytest.mark.parametrize("name", peers.FROZEN)
def test_frozen(benchmark: Any, problem: Problem, name: str) -> None:
    _run(benchmark, problem, peers.FROZEN[name], "forward", "frozen")
