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
    call()
    return max(1, math.ceil(SAMPLE_SECONDS / max(_elapsed(call, 1), _elapsed(call, 1) / 2, 1e-9)))


def rounds_for(seconds: list[float], budget: float) -> int:
    """How many rounds of samples of these lengths fit into `budget` seconds, within the limits."""
    return min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget / max(sum(seconds), 1e-9))))


def interleaved(calls: dict[str, Call], budget: float, pause: float = 0.0) -> dict[str, Sample]:
    """Time each of `calls` within about `budget` seconds in all, `MIN_ROUNDS` rounds at the least.

    A drifting clock or a busy neighbour meets all alike, since each round has one sample of each and
    starts with another one.  `pause` seconds come before each sample, so that the threads of
    the last contender, which wait for more work in a busy loop, have gone to sleep.
    """
    names = list(calls)
    repeats = {name: _calls_per_sample(calls[name]) for name in names}
    lengths = [pause + (repeats[name] + 1) * _elapsed(calls[name], repeats[name]) for name in names]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds_for(lengths, budget)):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                time.sleep(pause)
                if repeats[name] > 1:
                    calls[name]()  # brings its data back into the cache
                seconds[name].append(_elapsed(calls[name], repeats[name]))
    finally:
        if collecting:
            gc.enable()
    return {name: summarise(seconds[name], repeats[name]) for name in names}
