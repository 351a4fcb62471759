"""The parameters that the layers of Flax and Equinox begin with, and the checks of their arguments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import activations, checks, init, settings
from .arrays import refuse_custom

# The functions of `fastact.init`, as scale, mode and distribution of a JAX initializer.
_INITIALIZERS: dict[str, tuple[float, Any, Any]] = {
    "he_normal": (2.0, "fan_in", "normal"),
    "lecun_normal": (1.0, "fan_in", "normal"),
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
}


def maxout_parameters(
    key: Array, in_features: int, out_features: int, pieces: int, use_bias: bool, dtype: Any
) -> tuple[Array, Array | None]:
    """weight (out_features, pieces, in_features) from `fastact.init.maxout_normal`'s distribution; bias 0."""
    checks.check_pieces(checks.check_int("pieces", pieces))
    out_features, in_features = _sizes(out_features, in_features)
    shape = (out_features, pieces, in_features)
    weight = jax.random.normal(key, shape, dtype) * init.maxout_std(in_features, pieces)
    return weight.astype(dtype), _bias(use_bias, shape[:2], dtype)


def linear_parameters(
    key: Array,
    in_features: int,
    out_features: int,
    activation: activations.ActivationName,
    keywords: dict[str, Any],
    use_bias: bool,
    dtype: Any,
) -> tuple[Array, Array | None, Array | None]:
    """weight (out_features, in_features) from the activation's initializer; bias 0; the slope of a PReLU.

    The slope is taken out of `keywords`: a number, or out_features of them; 0.25 unless given.
    """
    out_features, in_features = _sizes(out_features, in_features)
    refuse_custom(activation)
    slope = None
    if activation == "prelu":
        values = checks.finite_numbers("slope", keywords.pop("slope", 0.25), np.float64)
        activations.resolve(activation, out_features, values.dtype, keywords | {"slope": values})
        slope = jnp.asarray(values, dtype)
    else:
        activations.resolve(activation, out_features, np.dtype(np.float64), keywords)
    draw = jax.nn.initializers.variance_scaling(
        *_INITIALIZERS[activations.initialiser(activation)], in_axis=-1, out_axis=0
    )
    weight = draw(key, (out_features, in_features), dtype)
    return weight, slope, _bias(use_bias, (out_features,), dtype)


def checked_precision(precision: Any) -> settings.Precision | None:
    return None if precision is None else settings.check_precision(precision)


def _sizes(out_features: int, in_features: int) -> tuple[int, int]:
    return checks.check_size("out_features", out_features), checks.check_size("in_features", in_features)


def _bias(use_bias: bool, shape: tuple[int, ...], dtype: Any) -> Array | None:
    return jnp.zeros(shape, dtype) if checks.check_flag("use_bias", use_bias) else None
