"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..settings import Precision
from . import network
from .layer import Array, Layer, Sizes


class Dropout(Layer):
    """In training, multiplies each number by 0 with probability p (Srivastava et al. 2014).

    A forked process has a copy of `rng`, so workers forked from one process draw equal masks, as they draw
    equal numbers from every NumPy generator.  Give each worker its own generator:

        layer.rng = np.random.default_rng([seed, worker])

    Args:
        p: the probability of dropping a number, 0 <= p < 1.
        rescale: divide the numbers that are kept by 1 - p while training ("inverted" dropout), so that
            inference is the identity.  False rescales in neither, as Goodfellow et al. 2013 do with their
            input layer.
        rng: a `np.random.Generator` or a seed.  The attribute `rng` is the generator; save it in checkpoints,
            so that a resumed run draws the same masks.

    Raises:
        TypeError: p is not a number, rescale is not a bool, or `np.random.default_rng` does not take rng.
        ValueError: p is not in [0, 1).
    """

    _step = network.DROPOUT, ("p", "rescale", "rng")

    def __init__(
        self, p: float = 0.5, rescale: bool = True, *, rng: np.random.Generator | int | None = None
    ) -> None:
        self.p = checks.check_below_one("p", p)
        self.rescale = checks.check_flag("rescale", rescale)
        self.rng = checks.check_rng(rng)

    def _sizes(self) -> Sizes:
        return Sizes()

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x)
        if not training:
            return x, ()
        p = checks.check_below_one("p", self.p)
        scale = 1 / (1 - p) if checks.check_flag("rescale", self.rescale) else None
        keep = np.greater_equal(self.rng.random(x.shape, np.float32), p)
        return _masked(x, keep, scale), (keep, scale, x.dtype)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        keep, scale, dtype = saved
        checks.check_array("grad_y", grad_y, dtype)
        checks.check_shape("grad_y", grad_y.shape, keep.shape)
        return _masked(grad_y, keep, scale)

    def _from_tape(self, x: Array, y: Array, keep: Array, tier: Precision, factor: float) -> Any:
        return keep.view(np.bool_), factor, x.dtype

    def _describe(self) -> list[str]:
        return [f"{self.p:g}"] + ([] if self.rescale else ["rescale=False"])


def _masked(x: Array, keep: Array, scale: float | None) -> Array:
    """x where keep is true, times `scale` unless that is None, and 0 elsewhere."""
    with np.errstate(all="ignore"):  # as in the kernels, overflow gives infinity and underflow 0
        y = np.asarray(np.multiply(x, keep))
        if scale is not None:
            y *= scale
    return y
