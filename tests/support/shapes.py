"""Shapes of linear layers: every size in every place, and those that reach each path of the engine."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    rows: int
    in_features: int
    out_features: int
    pieces: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


SIZES = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 97, 100, 255, 256, 257, 300, 513)
PIECES = (1, 2, 3, 4, 5, 6, 7, 8, 9)


def _every_size_in_every_place(a: int, b: int) -> list[Shape]:
    """One shape a size; 5 and `b`, which have no factor in common with 21, choose the sizes beside it."""
    return [
        Shape(size, SIZES[(5 * i + a) % 21], SIZES[(b * i + 7) % 21], PIECES[(i + a) % 9])
        for i, size in enumerate(SIZES)
    ]


# The same sizes beside others, which run with --full.
_OTHERS = _every_size_in_every_place(11, 13)
OTHER_NEIGHBOURS = {shape[:3] for shape in _OTHERS}
SHAPES = _every_size_in_every_place(3, 8) + _OTHERS
# Every number of pieces, the largest too; 255 and 256 are the last that fit into the byte of an argmax.
SHAPES += [Shape(33, 17, 21, pieces) for pieces in (*PIECES, 16, 17, 32, 33, 255, 256)]
# Spread over threads or blocks: one row, one output, much depth, many rows.
SHAPES += [Shape(1, 300, 513, 2), Shape(513, 300, 1, 3), Shape(5, 2049, 7, 4), Shape(1500, 3, 2, 2)]
# More rows than stay in a cache beside packed weights; rows a power of two apart; few rows of much depth.
SHAPES += [Shape(600, 260, 50, 2), Shape(97, 1024, 32, 2), Shape(3, 4500, 6, 3)]
# Several depth blocks of a packed panel, on every instruction set.
SHAPES += [Shape(20, 7000, 5, 5)]
# Batch in lanes: whole vectors, some rows left over, one short of a vector; few outputs; blocks of weights.
SHAPES += [
    Shape(64, 96, 40, 3),
    Shape(100, 240, 33, 5),
    Shape(47, 65, 35, 1),
    Shape(150, 300, 5, 7),
    Shape(36, 1030, 70, 4),
]
