"""The activations, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import checks, settings
from ..activations import ActivationName, Approximate, Parameters
from .arrays import as_array, as_rows, as_vector, check_activation
from .operation import Needs, Operation
from .targets import Result, call

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Options(NamedTuple):
    activation: int
    parameter: float
    saves: str
    threads: int
    both: bool = False


class _Activation(Operation):
    """Of z and slope."""

    name, first = "activation", "z"

    def results(self, options: _Options, operands: list[Any]) -> list[Result]:
        z = operands[0]
        return [(z.shape, z.dtype)]

    def forward(self, options: _Options, operands: list[Any], save: bool) -> tuple[Array, Any]:
        z, slope = operands
        rows = as_rows(z)
        (y,) = call(
            "activation",
            [(rows.shape, z.dtype)],
            [rows, *as_vector(slope)],
            activation=options.activation,
            parameter=options.parameter,
            threads=options.threads,
        )
        y = y.reshape(z.shape)
        return y, z if options.saves == "z" else y

    def backward(
        self, options: _Options, operands: list[Any], saved: Array, grad_y: Array, needs: Needs
    ) -> list[Array | None]:
        z, slope = operands
        rows = as_rows(saved)
        results = [(rows.shape, z.dtype)]
        if slope is not None:
            results.append(((slope.size,), z.dtype))
        grad_z, *grad_slope = call(
            "activation_backward",
            results,
            [as_rows(grad_y), rows, *as_vector(slope)],
            activation=options.activation,
            parameter=options.parameter,
            threads=options.threads,
        )
        return [grad_z.reshape(z.shape), grad_slope[0].reshape(slope.shape) if grad_slope else None]

    def fold(
        self, options: _Options, operands: list[Any], dims: list[Any]
    ) -> tuple[Any, list[Any], int] | None:
        (z, slope), (dim, slope_dim) = operands, dims
        if slope_dim is not None:
            return None
        if slope is not None and slope.size != 1 and dim == z.ndim - 1:
            z, dim = jnp.moveaxis(z, dim, 0), 0
        return options, [z, slope], dim


_activation = _Activation()


def activation(z: Array, activation: ActivationName, **parameters: Unpack[Parameters]) -> Array:
    """y = activation(z), element by element.

    Args:
        z: float32 or float64, any shape; a PReLU slope per feature runs along its last axis.
        activation: a name of the table in `fastact.activations`.
        **parameters: the activation's own keywords, numbers but for a PReLU's slope, which has a gradient.

    Returns:
        y, of z's shape and dtype.

    Raises:
        TypeError: z is not an array, or of another dtype or not on the CPU, or the activation does not take a
            keyword.
        ValueError: the activation is unknown or a parameter is out of range.
    """
    z = as_array("z", z)
    checks.check_dtype("z", z.dtype)
    act, slope = check_activation(activation, z.shape[-1] if z.ndim else 1, z.dtype, dict(parameters))
    y: Array = _activation(
        _Options(act.code, act.parameter, act.saves, settings.threads_and_mode_of_context()), z, slope
    )
    return y


# Each of these is the function of `fastact` of that name, with a gradient.


def identity(z: Array) -> Array:
    """y = z."""
    return activation(z, "identity")


def relu(z: Array) -> Array:
    """y = max(z, 0), and dy/dz = 0 at z = 0."""
    return activation(z, "relu")


def leaky_relu(z: Array, negative_slope: float = 0.01) -> Array:
    """y = z where z > 0, else negative_slope * z."""
    return activation(z, "leaky_relu", negative_slope=negative_slope)


def prelu(z: Array, slope: Array) -> Array:
    """y = z where z > 0, else slope * z; slope has the shape (), (1,) or (features,), and a gradient."""
    return activation(z, "prelu", slope=slope)


def elu(z: Array, alpha: float = 1.0) -> Array:
    """y = z where z > 0, else alpha * (exp(z) - 1)."""
    return activation(z, "elu", alpha=alpha)


def selu(z: Array) -> Array:
    """y = scale * elu(z), with the constants of self-normalising networks."""
    return activation(z, "selu")


def gelu(z: Array, approximate: Approximate = "none") -> Array:
    """y = z * Phi(z), Phi the normal distribution function; approximate="tanh" for the formula with tanh."""
    return activation(z, "gelu", approximate=approximate)


def silu(z: Array) -> Array:
    """y = z * sigmoid(z)."""
    return activation(z, "silu")


def softplus(z: Array) -> Array:
    """y = log(1 + exp(z))."""
    return activation(z, "softplus")


def mish(z: Array) -> Array:
    """y = z * tanh(softplus(z))."""
    return activation(z, "mish")


def sigmoid(z: Array) -> Array:
    """y = 1 / (1 + exp(-z))."""
    return activation(z, "sigmoid")


def tanh(z: Array) -> Array:
    """y = tanh(z)."""
    return activation(z, "tanh")


def softsign(z: Array) -> Array:
    """y = z / (1 + abs(z))."""
    return activation(z, "softsign")


def hardswish(z: Array) -> Array:
    """y = z * min(max(z + 3, 0), 6) / 6."""
    return activation(z, "hardswish")


def hardsigmoid(z: Array) -> Array:
    """y = min(max(z + 3, 0), 6) / 6."""
    return activation(z, "hardsigmoid")


def hardtanh(z: Array) -> Array:
    """y = min(max(z, -1), 1)."""
    return activation(z, "hardtanh")


def relu6(z: Array) -> Array:
    """y = min(max(z, 0), 6)."""
    return activation(z, "relu6")


def logsigmoid(z: Array) -> Array:
    """y = log(sigmoid(z)) = -softplus(-z)."""
    return activation(z, "logsigmoid")
