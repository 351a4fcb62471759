"""The layers that are measured, each with its batch: sizes, and what follows the product."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .networks import NETWORKS, Network

MAXOUT = "maxout"
ACTIVATIONS = ("relu", "gelu")  # gelu: the exact one, with erf


class Shape(NamedTuple):
    """A linear layer and its activation on a batch: maxout of `pieces`, or one of ACTIVATIONS."""

    rows: int
    in_features: int
    out_features: int
    pieces: int = 1
    activation: str = MAXOUT

    def __str__(self) -> str:
        """ "1024x288x96x3" for maxout, "128x784x256:relu" for another activation."""
        if self.activation == MAXOUT:
            return "x".join(str(size) for size in self[:4])
        return f"{'x'.join(str(size) for size in self[:3])}:{self.activation}"

    @property
    def layer(self) -> str:
        """The layer's name: "maxout" or, for example, "linear relu"."""
        return MAXOUT if self.activation == MAXOUT else f"linear {self.activation}"

    @property
    def units(self) -> int:
        """Linear units: one for each piece of each output."""
        return self.out_features * self.pieces

    @property
    def dense_flop(self) -> int:
        """Floating-point operations of one dense product of x with all the weights."""
        return 2 * self.rows * self.in_features * self.units

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape written "1024x288x96x3" or "128x784x256:relu"; raises ValueError for any other text."""
        size, activations = r"[1-9]\d*", "|".join(ACTIVATIONS)
        found = re.fullmatch(rf"({size})x({size})x({size})(?:x({size})|:({activations}))", text)
        if found is None:
            raise ValueError(
                f"shape: got {text!r}, wanted rows x in_features x out_features and pieces or an activation "
                f"({', '.join(ACTIVATIONS)}), as in 1024x288x96x3 or 128x784x256:relu"
            )
        rows, in_features, out_features = (int(number) for number in found.groups()[:3])
        return cls(rows, in_features, out_features, int(found[4] or 1), found[5] or MAXOUT)


# Layers in use: spaCy's tagger at two batch sizes; the two hidden layers of Goodfellow et al. 2013 for MNIST;
# large layers; one row at a time, as in serving; a layer that is all overhead.
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

# Linear + ReLU and linear + GELU: one row at a time, a layer that is all overhead, MNIST's first hidden
# layer, few features, spaCy's width, and large layers.
LINEAR_SIZES = (
    (1, 2048, 2048),
    (1, 784, 256),
    (8, 32, 32),
    (128, 784, 256),
    (256, 64, 64),
    (1024, 288, 96),
    (1024, 512, 512),
    (1024, 1024, 1024),
)
LINEAR = tuple(Shape(*sizes, activation=name) for name in ACTIVATIONS for sizes in LINEAR_SIZES)

# Sizes that no block size divides: remainders of rows, lanes, depth and pieces.
ODD = (
    Shape(97, 131, 57, 3),
    Shape(15, 288, 96, 3),
    Shape(256, 256, 1, 3),
    Shape(256, 1, 256, 3),
    Shape(128, 256, 96, 7),
    Shape(128, 256, 96, 9),
    Shape(128, 256, 96, 16),
)

# Sweeps: one size grows, the others stay.
ROWS = tuple(Shape(2**i, 288, 96, 3) for i in range(11))
FEATURES = tuple(Shape(256, 2**i, 2**i, 2) for i in range(4, 11))
PIECES = tuple(Shape(256, 288, 96, pieces) for pieces in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16))

GROUPS: dict[str, Sequence[Shape | Network]] = {
    "main": MAIN,
    "linear": LINEAR,
    "odd": ODD,
    "rows": ROWS,
    "features": FEATURES,
    "pieces": PIECES,
    "networks": NETWORKS,
}
SWEEPS = {"rows", "features", "pieces"}  # groups that only the pictures need
TABULATED = (*MAIN, *LINEAR, *ODD)  # shapes of a machine's tables
QUICK = (
    Shape(1024, 288, 96, 3),
    Shape(100, 240, 240, 5),
    Shape(1, 1024, 1024, 2),
    Shape(8, 32, 32, 2),
    Shape(128, 784, 256, activation="relu"),
    Shape(8, 32, 32, activation="gelu"),
)


def groups_of(shape: Shape | Network) -> list[str]:
    """The names of the groups that `shape` is in."""
    return [name for name, shapes in GROUPS.items() if shape in shapes]


def is_sweep(shape: Shape | Network) -> bool:
    """Whether `shape` is in a sweep and in no other group."""
    return bool(groups_of(shape)) and SWEEPS.issuperset(groups_of(shape))


def select(words: list[str]) -> list[Shape | Network]:
    """The shapes and networks that `words` name, each once: groups, or one as its `parse` takes it.

    Raises ValueError for any other word.
    """
    chosen: list[Shape | Network] = []
    for word in words:
        if word in GROUPS:
            chosen += GROUPS[word]
        elif word[:1].isdigit():
            chosen.append(Network.parse(word) if "-" in word else Shape.parse(word))
        else:
            raise ValueError(f"shapes: got {word!r}, wanted one of {', '.join(GROUPS)}, a shape or a network")
    return list(dict.fromkeys(chosen))
