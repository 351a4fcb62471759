"""The objects that C reads of a network's steps, for adapters whose layers are objects of another package.

An adapter describes a step as (kind, `StepLayer`, ATTRIBUTES[kind]), with the arrays of its own layer in
`StepParameter`s, and passes `objects_of(...)` as the first argument of a call: see csrc/api/numpy.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .. import settings
from ..activations import Code
from ..backends.custom import code_of
from .network import ACTIVATION, DROPOUT, LAYER_NORM, LINEAR, MAXOUT, WINDOW

Array = np.ndarray[Any, Any]

# The attributes of the layer of each kind of step, in the order of csrc/api/numpy.h.
ATTRIBUTES = {
    LINEAR: ("precision", "weight", "bias", "activation", "keywords", "slope"),
    MAXOUT: ("precision", "weight", "bias"),
    ACTIVATION: ("activation", "keywords", "slope"),
    LAYER_NORM: ("eps", "weight", "bias"),
    DROPOUT: ("p", "factor", "keep"),
    WINDOW: ("window_size",),
}
MAX_BRANCHES, MAX_WINDOW = 16, 64  # as in csrc/api/fastact.h
TIERS = {tier: number for number, tier in enumerate(settings.PRECISIONS)}


class StepParameter:
    """A weight or a bias; `grad` is False where no gradient is needed."""

    __slots__ = ("data", "grad")

    def __init__(self, data: Array | None = None) -> None:
        self.data = data
        self.grad: Array | bool = False


class StepLayer:
    """The attributes of a step; those that its kind does not have stay as they are here.

    Attributes:
        activation: a key of the activations that `objects_of` was given.
        weight, bias: of a product or a layer normalisation; the bias may be None.
        eps: of a layer normalisation.
        p, factor, keep: of a dropout: the share that is dropped, what the rest is multiplied by, and either
            one byte for each number, 0 where it is dropped, or the seed of `dropout_keep`.
        window_size: of a window: the number of rows on each side.
    """

    precision = slope = None
    activation: Any = None
    keywords: ClassVar[dict[str, Any]] = {}
    weight: StepParameter | None = None
    bias: StepParameter | None = None
    eps = p = factor = 0.0
    keep: Array | int | None = None
    window_size = 0


def objects_of(codes: Mapping[Any, Code | None]) -> tuple[Any, ...]:
    """The first argument of a call, for `StepLayer`s whose `activation` is a key of `codes`.

    `codes` is a dict; its values are entries of `fastact.activations.CODES`.
    """
    return (
        StepParameter,
        np.random.Generator,
        np.ndarray,
        np.empty,
        *map(np.dtype, (np.float32, np.float64, np.uint8)),
        {None: -1},  # the tier of a layer: the one in force
        codes,
        code_of,
    )
