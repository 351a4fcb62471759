"""The operations by name: for each, a function that draws a case, and its share of the cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..case import Case
from ..draw import Draw
from . import adapters, elementwise, inspection, losses, models, products, refused, rest, training

OPERATIONS: dict[str, tuple[Callable[[Draw], Case], float]] = {}
for _module in (products, elementwise, losses, training, rest, models, inspection, adapters, refused):
    OPERATIONS |= _module.OPERATIONS


def operation_of(seed: int, number: int, names: Sequence[str]) -> str:
    """The operation of case `number`."""
    total = sum(OPERATIONS[name][1] for name in names)
    # Weyl's sequence: shares are kept over any range of cases
    place = (0.6180339887498949 * (number + 1) + 0.7548776662466927 * seed) % 1.0 * total
    for name in names:
        place -= OPERATIONS[name][1]
        if place < 0:
            return name
    return names[-1]
