"""pytest-benchmark suites: the training step and the forward alone of whole networks.

    pytest bench/ --shapes networks

Here contenders are timed one after the other.  `python -m fastact bench` interleaves them: quote its figures.
The group of a benchmark is its network, dtype and mode, so that contenders stand beside each other.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench import peers
from bench.measure import NETWORK_MODES, TIMED_LEARNING_RATE, check_network
from bench.network_truth import NetworkTruth
from bench.networks import DTYPES, Network, NetworkProblem
from bench.peers.base import NotAvailable

pytestmark = [
    pytest.mark.filterwarnings("default"),  # peers' own warnings are no failures
    pytest.mark.benchmark(max_time=0.2, min_rounds=3, warmup=True, warmup_iterations=3),
]


@pytest.fixture(scope="module", params=DTYPES)
def problem(request: pytest.FixtureRequest, network: Network) -> NetworkProblem:
    return NetworkProblem(network, request.param)


@pytest.mark.parametrize("mode", NETWORK_MODES)
@pytest.mark.parametrize("name", [name for name in peers.NETWORKS if name != "floor"])
def test_network(benchmark: Any, problem: NetworkProblem, name: str, mode: str) -> None:
    try:
        kind = peers.load(peers.NETWORKS[name])
        contender = kind(problem, 1)
    except NotAvailable as error:
        pytest.skip(str(error))
    if mode not in kind.modes:
        pytest.skip(f"{name} does not train")
    check_network(name, contender, problem, NetworkTruth(problem), 1, mode)
    if mode == "step":
        contender.start_training(TIMED_LEARNING_RATE)
    benchmark.group = f"{mode}, {problem.network}, {problem.dtype}"
    benchmark(getattr(contender, mode))
