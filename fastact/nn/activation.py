# mypy: disable-error-code="no-any-return"
"""Activations as layers, without a product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import activations, checks, ops
from ..activations import AnyActivation, FixedName, Parameters
from ..custom import CustomActivation
from ..settings import Precision
from . import network
from .layer import Array, Layer, Parameter, Sizes, array_of, check_grad, data_of, describe_dtype

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Activation(Layer):
    """An activation, element by element.

    Args:
        name: a name of the table in `fastact.activations`, or a `CustomActivation` without a slope.  For
            "prelu", whose slope is learned, use `PReLU`.
        **keywords: the activation's own.

    Raises:
        TypeError, ValueError: `name` or a keyword is unknown, of the wrong type or out of range.
    """

    slope = None
    _step = network.ACTIVATION, ("name", "keywords", "slope")

    def __init__(self, name: FixedName | CustomActivation, **keywords: Unpack[Parameters]) -> None:
        if isinstance(name, str) and name == "prelu":  # type: ignore[comparison-overlap]
            raise ValueError("name: got 'prelu', wanted the layer PReLU, which learns its slope")
        if activations.learns_slope(name):
            raise ValueError(f"name: got {name!r}, whose slope is learned: give it to a Linear")
        self.name: FixedName | CustomActivation = name
        self.keywords = keywords
        activations.resolve(name, 1, np.dtype(np.float32), keywords)

    def _sizes(self) -> Sizes:
        return Sizes()

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        if type(x) not in checks.ARRAYS or x.dtype not in checks.FLOATS:
            checks.check_array("x", x)
        y = ops.activation(x, self.name, **self.keywords)
        return y, self._kept(x, y)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        check_grad(grad_y, saved)
        return ops.activation_backward(grad_y, saved, self.name, **self.keywords)  # type: ignore[return-value]

    def _from_tape(self, x: Array, y: Array, nothing: None, tier: Precision, factor: float) -> Any:
        return self._kept(x, y)

    def _kept(self, x: Array, y: Array) -> Array:
        """What backward needs of the two."""
        return x if activations.saves_z(self.name) else y

    def _describe(self) -> list[str]:
        return [repr(self.name), *(f"{key}={value!r}" for key, value in self.keywords.items())]


class PReLU(Layer):
    """x where it is positive, else slope · x, with a slope that is learned (He et al. 2015).

    Args:
        features: 1 for one slope, or the size of x's last axis for one slope per feature.
        slope: its initial value: a number, or `features` numbers.
        dtype: float32 or float64.

    Attributes:
        slope: (features,).

    Raises:
        TypeError: features is not an int, slope is not real numbers, or dtype not float32 or float64.
        ValueError: features is below 1, or slope is not finite or has the wrong length.
    """

    _name = "prelu"
    _keywords: ClassVar[Parameters] = {}
    _step = network.ACTIVATION, ("_name", "_keywords", "slope")

    def __init__(
        self, features: int = 1, slope: float | list[float] | Array = 0.25, *, dtype: Any = np.float32
    ) -> None:
        features = checks.check_size("features", features, 1)
        self.slope = new_slope(slope, features, checks.check_float_dtype(dtype))
        self.slope.data = np.full(features, self.slope.data)

    def _sizes(self) -> Sizes | None:
        slope = data_of(self.slope)
        if slope is None:
            return None
        features = None if slope.size == 1 else slope.size
        return Sizes(features, features, slope.dtype)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        slope = array_of("slope", self.slope)
        if type(x) not in checks.ARRAYS or x.dtype != slope.dtype:
            checks.check_array("x", x, slope.dtype)
        if slope.size != 1 and x.shape[-1:] != slope.shape:
            raise ValueError(f"x: got shape {x.shape}, wanted (..., {slope.size}) to match slope")
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

    def _from_tape(self, x: Array, y: Array, nothing: None, tier: Precision, factor: float) -> Any:
        return x

    def _describe(self) -> list[str]:
        return [f"{np.size(self.slope.data)}", *describe_dtype(self.slope)]


def new_slope(
    values: Any, features: int, dtype: np.dtype[Any], activation: AnyActivation = "prelu"
) -> Parameter:
    """The slope of an activation, shared or one per feature; as He et al. 2015 do, it does not decay."""
    slope = Parameter(checks.finite_numbers("slope", values, dtype), "slope", decay=False)
    activations.resolve(activation, features, dtype, {"slope": slope.data})
    return slope
