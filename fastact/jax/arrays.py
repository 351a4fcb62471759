"""Arrays of JAX: their checks, and the forms that the handlers take."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import activations, checks
from ..activations import ActivationName
from ..custom import CustomActivation


def as_array(name: str, value: Any) -> Array:
    """`value` as an array of JAX; TypeError unless it is one, or NumPy's of floats, or stands for one."""
    if isinstance(value, jax.Array):
        return value
    if type(value) in checks.ARRAYS or isinstance(value, np.generic):
        checks.check_dtype(name, value.dtype)  # JAX has no arrays of objects, and says so without the name
        return jnp.asarray(value)
    if hasattr(value, "__jax_array__"):
        return jnp.asarray(value)
    raise TypeError(f"{name}: got {type(value).__name__}, wanted a jax.Array: try jnp.asarray(...)")


def check_forward(
    sizes: tuple[str, ...], x: Any, weight: Any, bias: Any
) -> tuple[Array, Array, Array | None]:
    """x, weight and bias as arrays of one dtype whose shapes agree; `sizes` names the axes of weight."""
    x, weight = as_array("x", x), as_array("weight", weight)
    if bias is None:
        checks.forward_shape(sizes, x.shape, x.dtype, weight.shape, weight.dtype)
        return x, weight, None
    bias = as_array("bias", bias)
    checks.forward_shape(sizes, x.shape, x.dtype, weight.shape, weight.dtype, bias.shape, bias.dtype)
    return x, weight, bias


def refuse_custom(activation: object) -> None:
    """TypeError for a custom activation: its kernel ends with this process, which XLA's code may outlive."""
    if isinstance(activation, CustomActivation):
        raise TypeError(
            f"activation: got {activation!r}, wanted a name; in JAX write such a function with jax.numpy"
        )


def check_activation(
    name: ActivationName, features: int, dtype: np.dtype[Any], keywords: dict[str, Any]
) -> tuple[activations.Activation, Array | None]:
    """An activation without its slope, and the slope as an array."""
    refuse_custom(name)
    slope = None
    if keywords.get("slope") is not None:
        slope = as_array("slope", keywords["slope"])
        keywords = {**keywords, "slope": np.empty(slope.shape, slope.dtype)}  # only its form is checked
    elif name == "prelu":
        raise TypeError("slope: got None, wanted a jax.Array")
    return activations.resolve(name, features, dtype, keywords)._replace(slope=None), slope


def as_rows(value: Array) -> Array:
    """`value` (..., features) as (rows, features), () as (1, 1)."""
    *rows, features = value.shape or (1,)
    return value.reshape(math.prod(rows), features)


def as_vector(slope: Array | None) -> list[Array]:
    """A slope as the operands of a handler: one vector, or none."""
    return [] if slope is None else [slope.reshape(-1)]


def aligned(operands: list[Array]) -> list[Array]:
    """The operands of a call, alike within a shard_map: all vary over the axes that any of them varies over.

    The gradient of an operand that was the same on all devices is then the sum of theirs.
    """
    varying = [jax.typeof(operand).manual_axis_type.varying for operand in operands]
    axes = frozenset().union(*varying)
    return [
        jax.lax.pcast(operand, tuple(axes - own), to="varying") if axes - own else operand
        for operand, own in zip(operands, varying, strict=True)
    ]
