"""Times networks of Linears in PyTorch, before and after `accelerate`: `python -m bench.torch_networks`.

One process; the model as it is and its accelerated copy take turns in short runs, and the least time of each
counts.  A training step is forward, mean squared error, backward and Adam(fused=True); a forward alone is
without gradients.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import fastact.torch
from fastact import backends
from fastact.cli.arguments import positive
from fastact.torch import chain

from . import records, threads

RUN_SECONDS = 0.002  # a run of calls: short, so that some runs are undisturbed


class Case(NamedTuple):
    """A network, and how many times as fast its accelerated copy is wanted to be."""

    sizes: tuple[int, ...]
    rows: int
    trains: bool = True
    wanted: float = 1.0
    last: bool = False  # whether an activation follows the last Linear too

    def __str__(self) -> str:
        what = "step" if self.trains else "forward"
        return f"{'-'.join(map(str, self.sizes))}{' tanh' if self.last else ''}, {self.rows} rows, {what}"


GOALS = (
    Case((24, 8, 2), 200, wanted=1.2),
    Case((8, 64, 64, 4), 256, wanted=1.8),
    Case((8, 64, 64, 4), 1, wanted=1.1),
    Case((784, 256, 256, 10), 128, wanted=1.85),
    Case((376, 256, 256, 17), 256, wanted=2.0),
    Case((8, 64, 64, 4), 1, trains=False, wanted=1.2),
)
NETWORKS = ((24, 8, 8, 8, 2), (8, 64, 64, 64, 4), (784, 256, 256, 256, 10), (376, 256, 256, 256, 17))
# The first Linears of each network, with an activation after the last one and without.
DEPTHS = tuple(
    Case(sizes[: depth + 1], rows, trains, last=last)
    for sizes, several in zip(NETWORKS, (200, 256, 128, 256), strict=True)
    for depth in (1, 2, 3, 4)
    for last in (False, True)
    for rows in (1, several)
    for trains in (True, False)
    if depth > 1 or last
)


def network(case: Case) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for in_features, out_features in itertools.pairwise(case.sizes):
        layers += [nn.Linear(in_features, out_features), nn.Tanh()]
    return nn.Sequential(*(layers if case.last else layers[:-1]))


def call_of(model: nn.Sequential, case: Case) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(case.rows, case.sizes[0], generator=generator)
    target = torch.randn(case.rows, case.sizes[-1], generator=generator)
    if not case.trains:

        def forward() -> Any:
            with torch.no_grad():
                return model(x)

        return forward
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(model(x), target).backward()
        optimizer.step()

    return step


def least(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The least microseconds a call of each within that time, from short runs that take turns."""
    counts = {}
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        for _ in range(5):
            call()
        counts[name] = max(1, round(RUN_SECONDS * 5 / (time.perf_counter() - started)))
    found = dict.fromkeys(calls, float("inf"))
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for name, call in calls.items():
            call()  # brings its code and data into the cache
            started = time.perf_counter()
            for _ in range(counts[name]):
                call()
            found[name] = min(found[name], (time.perf_counter() - started) / counts[name])
    return {name: round(1e6 * value, 2) for name, value in found.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.torch_networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=positive, default=1, help="of both (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each network (%(default)s)")
    parser.add_argument(
        "--always", action="store_true", help="chains that are too small for gradients run too"
    )
    parser.add_argument("--goals", action="store_true", help="only the networks with a goal")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "us"))

    if options.always:
        chain.RECORDED_COST = 0.0
    threads.pin(options.threads)
    torch.set_num_threads(options.threads)
    found: dict[str, dict[str, float]] = {}
    print(f"{'us':42}{'eager':>10}{'accelerated':>13}{'ratio':>8}{'wanted':>8}")
    for case in GOALS if options.goals else GOALS + DEPTHS:
        model = network(case)
        accelerated = copy.deepcopy(model)
        fastact.torch.accelerate(accelerated)
        calls = {"eager": call_of(model, case), "accelerated": call_of(accelerated, case)}
        times = found[str(case)] = least(calls, options.seconds)
        eager, ours = times["eager"], times["accelerated"]
        note = "" if eager >= case.wanted * ours else "  <"
        print(f"{case!s:42}{eager:10.1f}{ours:13.1f}{eager / ours:8.2f}{case.wanted:8.2f}{note}", flush=True)
    records.save(options.out, {"backend": backends.get_backend(), "threads": options.threads, "us": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
