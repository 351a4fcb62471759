"""Interleaved timing: every contender in every round, in rotating order."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SAMPLE_SECONDS = 0.01  # a sample is at least this long: thousands of times the clock's resolution
MIN_ROUNDS, MAX_ROUNDS = 5, 51
LONG_ROUND_SECONDS, MIN_LONG_ROUNDS = 4.0, 3  # a round that takes longer is made so often

Call = Callable[[], Any]


class Sample(NamedTuple):
    """Microseconds a call: quantiles over the rounds of a run, and how many calls made a round."""

    p20: float
    p50: float
    p80: float
    rounds: int
    calls: int


def summarise(seconds: list[float], calls: int) -> Sample:
    """The quantiles of `seconds`, one figure a round, each the mean of `calls` calls."""
    p20, p50, p80 = (float(f"{1e6 * value:.5g}") for value in np.percentile(seconds, [20, 50, 80]))
    return Sample(p20, p50, p80, len(seconds), calls)


def _elapsed(call: Call, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def _calls_per_sample(call: Call) -> int:
    once = _elapsed(call, 1)
    if once < SAMPLE_SECONDS:  # the first call may have been slow for reasons of its own
        once = min(once, _elapsed(call, 1))
    return max(1, math.ceil(SAMPLE_SECONDS / max(once, 1e-7)))


def rounds_for(seconds: float, budget: float) -> int:
    """How many rounds of `seconds` fit into `budget` seconds, within the limits."""
    fewest = MIN_ROUNDS if seconds < LONG_ROUND_SECONDS else MIN_LONG_ROUNDS
    return min(MAX_ROUNDS, max(fewest, int(budget / max(seconds, 1e-9))))


def interleaved(calls: dict[str, Call], budget: float, pause: float = 0.0) -> dict[str, Sample]:
    """Time each of `calls` within about `budget` seconds in all, some rounds at the least.

    A drifting clock or a busy neighbour meets all alike, since each round has one sample of each and
    starts with another one.  `pause` seconds come before each sample, so that the threads of
    the last contender, which wait for more work in a busy loop, have gone to sleep.
    """
    names = list(calls)
    repeats = {name: _calls_per_sample(calls[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}

    def one_round(first: int) -> None:
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            if repeats[name] > 1:
                calls[name]()  # brings its data back into the cache
            seconds[name].append(_elapsed(calls[name], repeats[name]))

    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        one_round(0)
        rounds = rounds_for(time.perf_counter() - started, budget)
        for number in range(1, rounds):
            one_round(number % len(names))
    finally:
        if collecting:
            gc.enable()
    return {name: summarise(seconds[name], repeats[name]) for name in names}
