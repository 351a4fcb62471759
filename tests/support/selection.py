"""Which cases of a parametrized test run: all of them with --full, else a part that keeps every pair.

The factors of a test are its fixtures and `parametrize` marks of two levels or more: backend (with its
instruction set), dtype, shape, and so on.  With three factors or more, a case runs if the sum of the
indices of its levels is divisible by d, which is 1 + the sum of (levels - 1) over all factors but the two
largest.  Every pair of levels is kept: beside it, the other factors make at least d consecutive sums, one
of which is divisible by d.  So a fault that depends on two factors at most is found.

A number made of the test's name is added to the sum, so that tests of the same factors keep different
cases: another is likely to run what one leaves out, e.g. a shape in float64 on AVX2.

Of the shapes, those of OTHER_NEIGHBOURS run with --full alone.  So do tests, and single cases, that have the
mark `full`.

The number of threads is not a factor.  Two threads run where the work is enough for a team.  Elsewhere
the case of two threads is that of one thread again, and never runs.
"""

from __future__ import annotations

import zlib

import pytest

from support.shapes import OTHER_NEIGHBOURS, Shape

# Multiplications of a forward product that two threads share: csrc/engine/threads.c, backends/numba/pool.py.
TEAM_WORK = {"numpy": float("inf"), "numba": 2_000_000, "c": 524_288}


def kept(items: list, full: bool) -> list:
    """The items of one test function, in their order, that are to run."""
    if not full:
        items = [
            item for item in items if not isinstance(item, pytest.Item) or not item.get_closest_marker("full")
        ]
    if not all(hasattr(item, "callspec") for item in items):
        return items  # without parameters
    items = [item for item in items if not _repeats_one_thread(item.callspec.params)]
    if full or not items:
        return items
    items = [item for item in items if _sizes(item.callspec.params) not in OTHER_NEIGHBOURS]
    factors = [column for column in _factors(items) if max(column) > 0]
    if len(factors) < 3:
        return items
    divisor = 1 + sum(sorted(max(column) for column in factors)[:-2])
    first = zlib.crc32(items[0].originalname.encode())
    threads = (item.callspec.params.get("threads", 1) for item in items)
    sums = map(sum, zip(threads, *factors, strict=True))
    return [item for item, total in zip(items, sums, strict=True) if (first + total) % divisor == 0]


def _sizes(params: dict) -> tuple[int, ...]:
    """Rows, inputs and outputs of a case that has a Shape."""
    shape = params.get("shape")
    return shape[:3] if isinstance(shape, Shape) else ()


def _repeats_one_thread(params: dict) -> bool:
    """Whether a case of several threads has too little work for them."""
    variant = params.get("backend", params.get("compiled"))
    if variant is None or params.get("threads", 1) == 1:
        return False
    backend, shape = variant.partition("-")[0], params.get("shape")
    if not isinstance(shape, Shape):  # the test's own inputs are large enough
        return backend == "numpy"
    return shape.rows * shape.in_features * shape.out_features * shape.pieces < TEAM_WORK[backend]


def _factors(items: list) -> list[list[int]]:
    """For each factor but threads, the index of its level in each item."""
    marks = [mark.args[0] for mark in items[0].iter_markers("parametrize")]
    together = [names.replace(",", " ").split() if isinstance(names, str) else list(names) for names in marks]
    alone = set(items[0].callspec.params).difference(*together) - {"threads"}
    factors = []
    for names in (*together, *([name] for name in sorted(alone))):
        levels: dict[tuple[int, ...], int] = {}
        of_items = [tuple(id(item.callspec.params[name]) for name in names) for item in items]
        factors.append([levels.setdefault(level, len(levels)) for level in of_items])
    return factors
