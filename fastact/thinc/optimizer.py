"""Thinc's Optimizer, with each parameter updated in one call, and the way it takes to a model's updates."""

# No `from __future__ import annotations` here: Thinc's registry reads the annotations of `Adam`.

import math
from typing import Any

import numpy as np
from thinc.api import Adam as thinc_Adam
from thinc.api import Model, Optimizer
from thinc.optimizers import ADAM_DEFAULTS, FloatOrSeq

from .. import backends, settings
from ..checks import ARRAYS
from ..nn import portable

# Below this bound on the norm, squares that underflow in float32 would count, as they do in Thinc.
_LEAST_CLIP = 1e-15


class FusedOptimizer(Optimizer):  # type: ignore[misc]
    """Thinc's Optimizer, which updates a parameter in two passes over its memory.

    Clipping, L2, Adam or SGD, the moving average and the zeroing of the gradient are Thinc's to within
    float32's rounding.  Thinc's own steps run for RAdam, and for arrays other than plain C-contiguous ones of
    float32 that share no memory.

    All state is in Thinc's attributes, so an optimiser may change its class between this one and Thinc's at
    any step: see `exchange` and `give_back`.
    """

    __slots__ = ()

    def __call__(
        self, key: tuple[int, str], weights: Any, gradient: Any, *, lr_scale: float = 1.0
    ) -> tuple[Any, Any]:
        """Update `weights` in place and set `gradient` to zero; returns both."""
        beta1, beta2, clip = self.b1, self.b2, self.grad_clip
        adam = 0 < beta1 < 1 and 0 < beta2 < 1
        if (
            self.use_radam
            or not (adam or beta2 == 0)
            or (clip and not clip >= _LEAST_CLIP)
            or type(weights) not in ARRAYS
            or weights.dtype.char != "f"
            or weights.size == 0
        ):
            return super().__call__(key, weights, gradient, lr_scale=lr_scale)  # type: ignore[no-any-return]
        count = self.nr_update[key] + 1
        rate = lr_scale * self.learn_rate
        decay, shrink = (0.0, rate * self.L2) if self.L2_is_weight_decay else (self.L2, 0.0)
        mean = square = average = None
        new_share = 0.0
        if adam:
            mean, square = self.mom1.get(key), self.mom2.get(key)
            mean = np.zeros(weights.size, np.float32) if mean is None else mean
            square = np.zeros(weights.size, np.float32) if square is None else square
            rate *= math.sqrt(1 - portable.power(beta2, count)) / (1 - portable.power(beta1, count))
        if self.averages is not None:
            average = self.averages.get(key)
            average = np.zeros(weights.shape, np.float32) if average is None else average
            new_share = 1 - min((1 + count) / (10 + count), 0.9999)
        updated = backends.active().update_parameter(
            weights,
            gradient,
            mean,
            square,
            average,
            clip or 0.0,
            decay,
            rate,
            beta1,
            beta2,
            self.eps,
            shrink,
            new_share,
            settings.threads_and_mode(),
        )
        if not updated:
            return super().__call__(key, weights, gradient, lr_scale=lr_scale)  # type: ignore[no-any-return]
        self.nr_update[key] = count
        if adam:
            self.mom1[key], self.mom2[key] = mean, square
        if self.averages is not None:
            self.averages[key] = average
        return weights, gradient


def exchange(optimizer: Any) -> bool:
    """Make an optimiser of Thinc's a `FusedOptimizer`; returns whether it was one of Thinc's own class."""
    if type(optimizer) is not Optimizer:
        return False
    optimizer.__class__ = FusedOptimizer
    return True


def give_back(optimizer: Any) -> None:
    """Make a `FusedOptimizer` one of Thinc's class again."""
    if type(optimizer) is FusedOptimizer:
        optimizer.__class__ = Optimizer


class UpdatedModel(Model):  # type: ignore[misc]
    """A Thinc model whose parameters are updated by a `FusedOptimizer`.

    The caller's optimiser has that class during `finish_update` alone, so it may be pickled or copied as
    before.  This serves any optimiser, whenever it is made: `spacy train` makes one that only
    `finish_update` gets to see.
    """

    __slots__ = ()

    def finish_update(self, optimizer: Any) -> None:
        """Update the parameters with their gradients, and set those to zero."""
        exchanged = exchange(optimizer)
        try:
            super().finish_update(optimizer)
        finally:
            if exchanged:
                give_back(optimizer)


def fuse_updates(model: Any) -> bool:
    """Make a model, the root of its nodes, an `UpdatedModel`; returns whether it was of Thinc's own class."""
    if type(model) is not Model:
        return False
    model.__class__ = UpdatedModel
    return True


def restore_updates(model: Any) -> None:
    """Make an `UpdatedModel` one of Thinc's class again."""
    if type(model) is UpdatedModel:
        model.__class__ = Model


def Adam(
    learn_rate: FloatOrSeq = ADAM_DEFAULTS["learn_rate"],
    *,
    L2: FloatOrSeq = ADAM_DEFAULTS["L2"],
    beta1: FloatOrSeq = ADAM_DEFAULTS["beta1"],
    beta2: FloatOrSeq = ADAM_DEFAULTS["beta2"],
    eps: FloatOrSeq = ADAM_DEFAULTS["eps"],
    grad_clip: FloatOrSeq = ADAM_DEFAULTS["grad_clip"],
    L2_is_weight_decay: bool = bool(ADAM_DEFAULTS["L2_is_weight_decay"]),
    use_averages: bool = True,
) -> Optimizer:
    """Thinc's Adam as a `FusedOptimizer`.

    Registered as "fastact.Adam.v1".  Arguments are those of Thinc's "Adam.v1".
    """
    optimizer = thinc_Adam(
        learn_rate,
        L2=L2,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        grad_clip=grad_clip,
        L2_is_weight_decay=L2_is_weight_decay,
        use_averages=use_averages,
    )
    exchange(optimizer)
    return optimizer
