"""The shapes that everything is measured on: (rows, in_features, out_features, pieces)."""

from __future__ import annotations

import re
from typing import NamedTuple


class Shape(NamedTuple):
    rows: int
    in_features: int
    out_features: int
    pieces: int

    def __str__(self) -> str:
        return "x".join(str(size) for size in self)

    @property
    def units(self) -> int:
        """Linear units: one a piece."""
        return self.out_features * self.pieces

    @property
    def dense_flop(self) -> int:
        """Floating-point operations of one dense product, x by all the weights."""
        return 2 * self.rows * self.in_features * self.units

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape written "1024x288x96x3"."""
        if re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text) is None:
            raise ValueError(
                f"shape: got {text!r}, wanted rows x in_features x out_features x pieces, as in 1024x288x96x3"
            )
        return cls(*map(int, text.split("x")))


# Layers in use: spaCy's tagger at two batch sizes, Goodfellow et al. 2013 for MNIST (first and second
# hidden layer); large layers; one row at a time, as in serving; a layer that is all overhead.
MAIN = (
    Shape(1024, 288, 96, 3),
    Shape(64, 288, 96, 3),
    Shape(100, 784, 240, 5),
    Shape(100, 240, 240, 5),
    Shape(1024, 1024, 1024, 2),
    Shape(1024, 1024, 512, 4),
    Shape(2048, 2048, 2048, 2),
    Shape(1, 1024, 1024, 2),
    Shape(8, 32, 32, 2),
)

# Sizes that divide by nothing: remainders of rows, lanes, depth and pieces.
ODD = (
    Shape(97, 131, 57, 3),
    Shape(15, 288, 96, 3),
    Shape(256, 256, 1, 3),
    Shape(256, 1, 256, 3),
    Shape(128, 256, 96, 7),
    Shape(128, 256, 96, 9),
    Shape(128, 256, 96, 16),
)

# One size grows, the others stay.
ROWS = tuple(Shape(2**i, 288, 96, 3) for i in range(11))
FEATURES = tuple(Shape(256, 2**i, 2**i, 2) for i in range(4, 11))
PIECES = tuple(Shape(256, 288, 96, pieces) for pieces in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16))

GROUPS = {"main": MAIN, "odd": ODD, "rows": ROWS, "features": FEATURES, "pieces": PIECES}
SWEEPS = {"rows", "features", "pieces"}  # the groups that only the pictures need
QUICK = (Shape(1024, 288, 96, 3), Shape(100, 240, 240, 5), Shape(1, 1024, 1024, 2), Shape(8, 32, 32, 2))


def groups_of(shape: Shape) -> list[str]:
    """The groups that `shape` is in."""
    return [name for name, shapes in GROUPS.items() if shape in shapes]


def is_sweep(shape: Shape) -> bool:
    """Whether `shape` is there only to show how the cost grows."""
    return bool(groups_of(shape)) and SWEEPS.issuperset(groups_of(shape))


def select(words: list[str]) -> list[Shape]:
    """The shapes that `words` name, each once: groups, or shapes such as "1024x288x96x3".

    Raises ValueError for any other word.
    """
    chosen: list[Shape] = []
    for word in words:
        if word in GROUPS:
            chosen += GROUPS[word]
        elif word[:1].isdigit():
            chosen.append(Shape.parse(word))
        else:
            raise ValueError(f"shapes: got {word!r}, wanted one of {', '.join(GROUPS)} or a shape")
    return list(dict.fromkeys(chosen))
