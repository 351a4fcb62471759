"""The layers for Flax NNX.

model = nnx.Sequential(Maxout(784, 240, pieces=5, rngs=rngs), nnx.Linear(240, 10, rngs=rngs))
y = model(x)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..activations import ActivationName, Parameters
from ..settings import Precision
from .parameters import checked_precision, linear_parameters, maxout_parameters
from .products import linear_activation, linear_maxout

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _param(value: Array | None) -> Any:
    return None if value is None else nnx.Param(value)


def _value(param: Any) -> Array | None:
    return None if param is None else param[...]


class Maxout(nnx.Module):
    """`linear_maxout` with `weight` (out_features, pieces, in_features), and `bias` or None."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        *,
        use_bias: bool = True,
        precision: Precision | None = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.precision = checked_precision(precision)
        weight, bias = maxout_parameters(
            rngs.params(), in_features, out_features, pieces, use_bias, param_dtype
        )
        self.weight, self.bias = _param(weight), _param(bias)

    def __call__(self, x: Array) -> Array:
        return linear_maxout(x, self.weight[...], _value(self.bias), precision=self.precision)


class LinearActivation(nnx.Module):
    """`linear_activation` with `weight` (out_features, in_features), `bias` or None, a PReLU's `slope`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: ActivationName = "relu",
        *,
        use_bias: bool = True,
        precision: Precision | None = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **keywords: Unpack[Parameters],
    ) -> None:
        self.precision, self.activation = checked_precision(precision), activation
        rest: dict[str, Any] = dict(keywords)
        weight, slope, bias = linear_parameters(
            rngs.params(), in_features, out_features, activation, rest, use_bias, param_dtype
        )
        self.keywords = rest
        self.weight, self.slope, self.bias = _param(weight), _param(slope), _param(bias)

    def __call__(self, x: Array) -> Array:
        slope = {} if self.slope is None else {"slope": self.slope[...]}
        return linear_activation(
            x,
            self.weight[...],
            _value(self.bias),
            self.activation,
            precision=self.precision,
            **self.keywords,
            **slope,
        )
