# mypy: disable-error-code="no-any-return"
"""Activations as layers of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import activations, checks, ops
from ..activations import FixedName, Parameters
from .layer import Array, Layer, Parameter, array_of, check_grad, describe_dtype

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Activation(Layer):
    """An activation by itself, element by element: a name of `fastact.activations` and its keywords.

    "prelu", whose slope is learned, has a layer of its own: `PReLU`.

    Raises:
        TypeError, ValueError: the name is unknown, or a keyword unknown, of the wrong type or out of range.
    """

    def __init__(self, name: FixedName, **keywords: Unpack[Parameters]) -> None:
        if isinstance(name, str) and name == "prelu":  # type: ignore[comparison-overlap]
            raise ValueError("name: got 'prelu', wanted the layer PReLU, which learns its slope")
        self.name: FixedName = name
        self.keywords = keywords
        self._saves = activations.resolve(name, 1, np.dtype(np.float32), keywords).saves

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = ops.activation(x, self.name, **self.keywords)
        return y, y if self._saves == "y" else x

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        check_grad(grad_y, saved)
        return ops.activation_backward(grad_y, saved, self.name, **self.keywords)

    def _describe(self) -> list[str]:
        return [repr(self.name), *(f"{key}={value!r}" for key, value in self.keywords.items())]


class PReLU(Layer):
    """x where it is positive, else slope · x, with a slope that is learned (He et al. 2015).

    Args:
        features: 1 for one slope, or the size of x's last axis for one slope a feature.
        slope: where it starts: a number, or `features` numbers.
        dtype: float32 or float64.

    Attributes:
        slope: (features,).

    Raises:
        TypeError: features is not an int, slope not of real numbers, or dtype not float32 or float64.
        ValueError: features is below 1, or slope not finite or of another length.
    """

    def __init__(
        self, features: int = 1, slope: float | list[float] | Array = 0.25, *, dtype: Any = np.float32
    ) -> None:
        features = checks.check_size("features", features, 1)
        self.slope = new_slope(slope, features, checks.check_float_dtype(dtype))
        self.slope.data = np.full(features, self.slope.data)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        slope = array_of("slope", self.slope)
        checks.check_array("x", x, slope.dtype)
        return ops.activation(x, "prelu", slope=slope), x

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        check_grad(grad_y, saved)
        grad_x, self.slope.grad = ops.activation_backward(
            grad_y,
            saved,
            "prelu",
            out=(None, self.slope.grad_out()),
            accumulate=accumulate,
            slope=array_of("slope", self.slope),
        )
        return grad_x

    def _describe(self) -> list[str]:
        return [f"{np.size(self.slope.data)}", *describe_dtype(self.slope)]


def new_slope(values: Any, features: int, dtype: np.dtype[Any]) -> Parameter:
    """A PReLU's slope, one or one a feature; He et al. 2015 start it at 0.25 and do not decay it."""
    slope = Parameter(checks.finite_numbers("slope", values, dtype), "slope", decay=False)
    activations.resolve("prelu", features, dtype, {"slope": slope.data})
    return slope
