# mypy: disable-error-code="no-any-return"
"""A linear layer with its activation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import activations, checks, ops
from ..activations import AnyActivation, Parameters
from ..custom import CustomActivation
from ..settings import Precision
from . import init, network
from .activation import new_slope
from .layer import Array, Parameter, array_of
from .product import Product, grad_out, new_weight, set_grads

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _default_init(activation: AnyActivation, keywords: Parameters) -> Callable[..., Array]:
    """The initialiser in the table of activations, with the activation's slope below 0 if it has one."""
    chosen: Callable[..., Array] = getattr(init, activations.initialiser(activation))
    if isinstance(activation, CustomActivation):
        return chosen
    values = {**activations.defaults_of(activation), **keywords}
    slope = values.get("slope", values.get("negative_slope"))
    return chosen if slope is None else partial(chosen, negative_slope=float(np.mean(slope)))


class Linear(Product):
    """A linear layer and its activation, in one pass: y = activation(x @ weight.T + bias).

    Args:
        in_features, out_features: the sizes of x's and y's last axes.
        bias: whether the layer has a bias, which starts at 0.
        activation: a name of the table in `fastact.activations`, or a `CustomActivation`.
        init: a function (shape, rng, dtype) -> array for the weight.  By default the function
            that the table in `fastact.activations` names: `init.glorot_uniform` for identity and for
            activations like sigmoid and tanh, `init.lecun_normal` for selu, `init.he_normal` for those like
            relu, and for a `CustomActivation`.
        precision: the float32 precision tier; by default the one in force at each forward.
        rng: a `np.random.Generator` or a seed for the weight.
        dtype: float32 or float64.
        **keywords: the activation's own.  For "prelu", and a `CustomActivation` with a slope, `slope` is the
            initial value of the learned slope: a number (0.25, or the custom activation's) for one shared
            slope, or out_features numbers.

    Attributes:
        weight: (out_features, in_features).
        bias: (out_features,), or None.
        slope: (1,) or (out_features,) for an activation that learns one, else None.

    Raises:
        TypeError, ValueError: a size, `bias`, `activation` or one of its keywords, `init`, `precision`, `rng`
            or `dtype` is of the wrong type or out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: AnyActivation = "identity",
        *,
        init: Callable[..., Array] | None = None,
        precision: Precision | None = None,
        rng: np.random.Generator | int | None = None,
        dtype: Any = np.float32,
        **keywords: Unpack[Parameters],
    ) -> None:
        if isinstance(bias, str):
            cure = f"try activation={checks.shown(bias)}"
            raise TypeError(f"bias: got {checks.shown(bias)}, wanted True or False: {cure}")
        super().__init__(in_features, out_features, bias, precision)
        dtype = checks.check_float_dtype(dtype)
        self.activation: AnyActivation = activation
        self.slope = None
        if activations.learns_slope(activation):
            start = activation.initial_slope if isinstance(activation, CustomActivation) else 0.25
            self.slope = new_slope(keywords.pop("slope", start), self.out_features, dtype, activation)
        self._constants = keywords
        activations.resolve(activation, self.out_features, dtype, self.keywords())
        initialise = _default_init(activation, self.keywords()) if init is None else init
        self.weight = new_weight((self.out_features, self.in_features), initialise, rng, dtype)
        self.bias = Parameter(np.zeros(self.out_features, dtype), "bias", decay=False) if bias else None

    _step = network.LINEAR, ("precision", "weight", "bias", "activation", "_constants", "slope")

    def keywords(self) -> Parameters:
        """The activation's keywords, with the learned slope if it has one."""
        if self.slope is None:
            return self._constants
        return {**self._constants, "slope": array_of("slope", self.slope)}

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        weight, bias = self._arrays()
        if type(x) not in checks.ARRAYS or x.dtype != weight.dtype or x.shape[-1:] != weight.shape[-1:]:
            self._check_x(x, weight)
        tier = self._tier()
        y, saved = ops.linear_activation(
            x,
            weight,
            bias,
            self.activation,
            return_saved=training,
            precision=tier,
            **self.keywords(),
        )
        return y, (x, saved, tier)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, kept, tier = saved
        weight, _ = self._arrays()
        parameters = [self.weight, self.bias]
        needs = [needs_input_grad, True, self.bias is not None]
        out = [None, self.weight.grad_out(), grad_out(self.bias)]
        if self.slope is not None:
            parameters.append(self.slope)
            needs.append(True)
            out.append(self.slope.grad_out())
        grad_x, *grads = ops.linear_activation_backward(
            grad_y,
            x,
            weight,
            kept,
            self.activation,
            needs=tuple(needs),
            out=tuple(out),
            accumulate=accumulate,
            precision=tier,
            **self.keywords(),
        )
        set_grads(parameters, grads)
        return grad_x

    def _from_tape(self, x: Array, y: Array, z: Array | None, tier: Precision, factor: float) -> Any:
        return x, y if z is None else z, tier

    def _describe(self) -> list[str]:
        parts = [f"{self.in_features}", f"{self.out_features}"]
        if activations.canonical(self.activation) != "identity":
            parts.append(f"activation={self.activation!r}")
        parts += [f"{key}={value!r}" for key, value in self._constants.items()]
        return parts + self._describe_product()
