# mypy: disable-error-code="no-any-return"
"""Linear units and their maximum as a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks, ops
from ..settings import Precision
from . import init, network
from .layer import Array, Parameter
from .product import Product, grad_out, new_weight, set_grads


class Maxout(Product):
    """The largest of `pieces` linear units for each output (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        in_features, out_features: the sizes of x's and y's last axes.
        pieces: linear units for each output, 1 to 256.
        bias: whether the layer has a bias, which starts at 0.
        init: a function (shape, rng, dtype) -> array for the weight; `init.maxout_normal` by default.
        precision: the float32 precision tier; by default the one in force at each forward.
        rng: a `np.random.Generator` or a seed for the weight.
        dtype: float32 or float64.

    Attributes:
        weight: (out_features, pieces, in_features).
        bias: (out_features, pieces), or None.

    Raises:
        TypeError, ValueError: a size, `pieces`, `bias`, `init`, `precision`, `rng` or `dtype` is of the wrong
            type or out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        bias: bool = True,
        *,
        init: Callable[..., Array] = init.maxout_normal,
        precision: Precision | None = None,
        rng: np.random.Generator | int | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(in_features, out_features, bias, precision)
        self.pieces = checks.check_size("pieces", pieces, 1, checks.MAX_PIECES)
        dtype = checks.check_float_dtype(dtype)
        shape = (self.out_features, self.pieces, self.in_features)
        self.weight = new_weight(shape, init, rng, dtype)
        self.bias = Parameter(np.zeros(shape[:2], dtype), "bias", decay=False) if bias else None

    _step = network.MAXOUT, ("precision", "weight", "bias")

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        weight, bias = self._arrays()
        if type(x) not in checks.ARRAYS or x.dtype != weight.dtype or x.shape[-1:] != weight.shape[-1:]:
            self._check_x(x, weight)
        tier = self._tier()
        y, argmax = ops.linear_maxout(x, weight, bias, return_argmax=training, precision=tier)
        return y, (x, argmax, tier)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, argmax, tier = saved
        weight, _ = self._arrays()
        grad_x, *grads = ops.linear_maxout_backward(
            grad_y,
            x,
            weight,
            argmax,
            needs=(needs_input_grad, True, self.bias is not None),
            out=(None, self.weight.grad_out(), grad_out(self.bias)),
            accumulate=accumulate,
            precision=tier,
        )
        set_grads((self.weight, self.bias), grads)
        return grad_x

    def _from_tape(self, x: Array, y: Array, argmax: Array, tier: Precision, factor: float) -> Any:
        return x, argmax, tier

    def _describe(self) -> list[str]:
        sizes = [f"{self.in_features}", f"{self.out_features}", f"pieces={self.pieces}"]
        return sizes + self._describe_product()
