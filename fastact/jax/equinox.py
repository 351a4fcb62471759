"""The layers for Equinox, whose input is one example or any number of rows.

model = eqx.nn.Sequential([Maxout(784, 240, pieces=5, key=key1), eqx.nn.Linear(240, 10, key=key2)])
y = jax.vmap(model)(x)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from ..activations import ActivationName, Parameters
from ..settings import Precision
from .parameters import checked_precision, linear_parameters, maxout_parameters
from .products import linear_activation, linear_maxout

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Maxout(eqx.Module):
    """`linear_maxout` with `weight` (out_features, pieces, in_features), and `bias` or None."""

    weight: Array
    bias: Array | None
    precision: Precision | None = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        use_bias: bool = True,
        precision: Precision | None = None,
        dtype: Any = jnp.float32,
        *,
        key: Array,
    ) -> None:
        self.precision = checked_precision(precision)
        self.weight, self.bias = maxout_parameters(key, in_features, out_features, pieces, use_bias, dtype)

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        return linear_maxout(x, self.weight, self.bias, precision=self.precision)


class LinearActivation(eqx.Module):
    """`linear_activation` with `weight` (out_features, in_features), `bias` or None, a PReLU's `slope`."""

    weight: Array
    slope: Array | None
    bias: Array | None
    activation: ActivationName = eqx.field(static=True)
    keywords: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    precision: Precision | None = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: ActivationName = "relu",
        use_bias: bool = True,
        precision: Precision | None = None,
        dtype: Any = jnp.float32,
        *,
        key: Array,
        **keywords: Unpack[Parameters],
    ) -> None:
        rest: dict[str, Any] = dict(keywords)
        self.precision, self.activation = checked_precision(precision), activation
        self.weight, self.slope, self.bias = linear_parameters(
            key, in_features, out_features, activation, rest, use_bias, dtype
        )
        self.keywords = tuple(rest.items())

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        slope = {} if self.slope is None else {"slope": self.slope}
        return linear_activation(
            x,
            self.weight,
            self.bias,
            self.activation,
            precision=self.precision,
            **dict(self.keywords),
            **slope,
        )
