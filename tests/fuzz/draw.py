"""What a case is drawn from: shapes, numbers and memory layouts.

The shapes and kinds of numbers are those of bench/bits.py, with small and awkward sizes favoured.
"""

from __future__ import annotations

import math
from typing import Any

from bench import bits  # first: it sets what NumPy's BLAS reads as it loads

import numpy as np  # isort: skip
from support import layouts  # isort: skip

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

SMALL = (0, 1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17)
AWKWARD = (*SMALL, 31, 32, 33, 48, 63, 64, 65, 97)
PIECES = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33)
MOST_TERMS = 60_000  # most multiply-adds of a product of small sizes


class Draw:
    """The numbers of one case: a dtype, a kind of numbers, and a generator."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.dtype = np.dtype(self.choice(("float32", "float32", "float32", "float64")))
        self.kind = self.choice(("normal", "normal", "normal", "integers", "wide", "special"))

    def choice(self, values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    @property
    def finite(self) -> bool:
        return self.kind != "special"

    @property
    def exact(self) -> bool:
        """Whether sums of products do not round."""
        return self.kind == "integers"

    def numbers(self, *shape: int) -> Array:
        """An array of this dtype and kind; now and then its rows overlap in memory."""
        case = bits.Case(self.dtype.name, 1, "highest", self.kind)
        if len(shape) == 2 and min(shape) > 0 and self.chance(0.05):
            line = bits.values(self.rng, case, shape[0] + shape[1] - 1)
            return np.lib.stride_tricks.sliding_window_view(line, shape[1])
        return bits.values(self.rng, case, *shape)

    def moderate(self, *shape: int) -> Array:
        """Finite numbers whose products neither overflow nor vanish, whatever the kind."""
        return np.asarray(self.rng.standard_normal(shape) * self.choice((1.0, 1.0, 30.0)), self.dtype)

    def some(self, share: float, *shape: int) -> Array | None:
        """`numbers` for a share of the cases, else None."""
        return self.numbers(*shape) if self.chance(share) else None

    def product(self) -> tuple[int, int, int, int]:
        """(rows, in_features, out_features, pieces): mostly small; some reach each path, few are large."""
        kind = self.rng.random()
        if kind < 0.0015:
            return self.choice(bits.LARGE_SHAPES)
        if kind < 0.02:
            return self.choice(bits.SHAPES)
        sizes, pieces = (SMALL, PIECES) if kind < 0.6 else (AWKWARD, (*PIECES, 255, 256))
        while True:
            shape = *(self.choice(sizes) for _ in range(3)), self.choice(pieces)
            if math.prod(shape) <= MOST_TERMS:
                return shape

    def lead(self, rows: int) -> tuple[int, ...]:
        return bits.draw_lead(self.rng, rows)

    def rows(self) -> tuple[int, int]:
        """(rows, features) of an element-wise operation."""
        kind = self.rng.random()
        if kind < 0.003:
            length, features = self.choice(bits.LENGTHS), self.choice((1, 3, 64, 300, 5000))
            return (max(1, length // features), features) if length else (0, features)
        sizes = SMALL if kind < 0.6 else AWKWARD
        return self.choice(sizes), self.choice(sizes)

    def shape(self, axes: int) -> tuple[int, ...]:
        """The shape of a small array of `axes` axes."""
        while True:
            shape = tuple(self.choice(AWKWARD) for _ in range(axes))
            if math.prod(shape) <= MOST_TERMS // 4:
                return shape

    def needs(self, count: int) -> tuple[bool, ...]:
        return tuple(self.chance(0.6) for _ in range(count))


def stepped(rng: Rng, a: Array) -> Array:
    """The values of `a` in an array with a step of -3 to 3 elements along each axis, in any order of axes."""
    order = rng.permutation(a.ndim)
    steps = rng.choice((-3, -2, -1, 1, 2, 3), a.ndim)
    wide = np.zeros(tuple(a.shape[axis] * abs(int(steps[axis])) for axis in order), a.dtype)
    view = wide.transpose(np.argsort(order))[(*(slice(None, None, int(step)) for step in steps), ...)]
    view[...] = a
    return view


def other_layout(rng: Rng, a: Array) -> Array:
    """The values of `a` in another layout."""
    kinds = [layouts.misaligned, layouts.read_only, layouts.memory_mapped]
    if a.ndim:
        kinds += [layouts.transposed, layouts.backwards, layouts.spaced, *3 * [lambda a: stepped(rng, a)]]
    return kinds[int(rng.integers(len(kinds)))](np.array(a, order="C"))


def writeable_layout(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """A strided, transposed or misaligned array to write to."""
    kind = rng.integers(3)
    if kind == 0:
        return layouts.fortran(shape, dtype)
    array = np.zeros(shape, dtype)
    return layouts.misaligned(array) if kind == 1 else stepped(rng, array)
