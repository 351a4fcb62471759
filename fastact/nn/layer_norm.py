# mypy: disable-error-code="no-any-return"
"""Layer normalisation as a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks, ops
from ..settings import Precision
from . import network
from .layer import Array, Layer, Parameter, Sizes, array_of, data_of, describe_dtype
from .product import grad_out, set_grads

_EPS = 1e-5


class LayerNorm(Layer):
    """Layer normalisation of the last axis (Ba, Kiros & Hinton 2016), as `torch.nn.LayerNorm`.

        y = (x - mean) / sqrt(variance + eps) * weight + bias

    The mean and the variance are those of each row, with a division by `features`, in training and in
    inference alike.

    Args:
        features: the size of x's and y's last axes, at least 1.
        eps: added to the variance; 0 or more.
        bias: whether the layer has a bias, which starts at 0.
        dtype: float32 or float64.

    Attributes:
        weight: (features,); it starts at 1.
        bias: (features,), or None.

    Raises:
        TypeError: features is not an int, eps is not a number, bias not a bool, or dtype not float32 or
            float64.
        ValueError: features is below 1, or eps is negative or not finite.
    """

    _step = network.LAYER_NORM, ("eps", "weight", "bias")

    def __init__(
        self, features: int, eps: float = _EPS, bias: bool = True, *, dtype: Any = np.float32
    ) -> None:
        features = checks.check_size("features", features, 1)
        dtype = checks.check_float_dtype(dtype)
        self.eps = checks.check_not_negative("eps", eps, checks.LARGEST[dtype.char])
        has_bias = checks.check_flag("bias", bias)
        self.weight = Parameter(np.ones(features, dtype), "weight", decay=False)
        self.bias = Parameter(np.zeros(features, dtype), "bias", decay=False) if has_bias else None

    def _sizes(self) -> Sizes | None:
        weight = data_of(self.weight)
        return None if weight is None or weight.ndim != 1 else Sizes(weight.size, weight.size, weight.dtype)

    def _arrays(self) -> tuple[Array, Array | None]:
        """The weight and the bias."""
        return array_of("weight", self.weight), None if self.bias is None else array_of("bias", self.bias)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        weight, bias = self._arrays()
        checks.check_array("x", x, weight.dtype)
        y, saved = ops.layer_norm(x, weight, bias, self.eps, return_saved=training)
        return y, (x, saved)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, kept = saved
        weight, _ = self._arrays()
        grad_x, *grads = ops.layer_norm_backward(
            grad_y,
            x,
            weight,
            kept,
            needs=(needs_input_grad, True, self.bias is not None),
            out=(None, self.weight.grad_out(), grad_out(self.bias)),
            accumulate=accumulate,
        )
        set_grads((self.weight, self.bias), grads)
        return grad_x

    def _from_tape(self, x: Array, y: Array, saved: Array, tier: Precision, factor: float) -> Any:
        return x, saved

    def _describe(self) -> list[str]:
        parts = [f"{np.size(self.weight.data)}"]
        if self.eps != _EPS:
            parts.append(f"eps={self.eps!r}")
        if self.bias is None:
            parts.append("bias=False")
        return parts + describe_dtype(self.weight)
