"""Linear + maxout and linear + activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import settings
from ..activations import ActivationName, Parameters
from ..checks import LINEAR_WEIGHT, MAXOUT_WEIGHT, UINT8, check_flag
from ..settings import Precision
from .arrays import as_rows, as_vector, check_activation, check_forward
from .operation import Needs, Operation
from .targets import Result, call, precision_code

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Product(Operation):
    """An operation of x (..., in_features) and a weight (out_features, ..., in_features)."""

    first = "x"

    def fold(self, options: Any, operands: list[Any], dims: list[Any]) -> tuple[Any, list[Any], int] | None:
        x, dim = operands[0], dims[0]
        if any(other is not None for other in dims[1:]):
            return None
        if dim == x.ndim - 1:
            x, dim = jnp.moveaxis(x, dim, 0), 0
        return options, [x, *operands[1:]], dim


class _MaxoutOptions(NamedTuple):
    both: bool
    precision: int
    threads: int


class _LinearMaxout(_Product):
    """Of x, weight and bias."""

    name = "linear_maxout"

    def results(self, options: _MaxoutOptions, operands: list[Any]) -> list[Result]:
        x, weight, _ = operands
        shape = (*x.shape[:-1], weight.shape[0])
        return [(shape, x.dtype), (shape, UINT8)]

    def forward(self, options: _MaxoutOptions, operands: list[Any], save: bool) -> tuple[Array, Any]:
        x, weight, bias = operands
        rows = as_rows(x)
        shape = (rows.shape[0], weight.shape[0])
        y, *argmax = call(
            "linear_maxout",
            [(shape, x.dtype), (shape, UINT8)][: 1 + save],
            [rows, weight, *([] if bias is None else [bias])],
            precision=options.precision,
            threads=options.threads,
        )
        shape = (*x.shape[:-1], weight.shape[0])
        return y.reshape(shape), argmax[0].reshape(shape) if save else None

    def backward(
        self, options: _MaxoutOptions, operands: list[Any], saved: Array, grad_y: Array, needs: Needs
    ) -> list[Array | None]:
        x, weight, _ = operands
        rows = as_rows(x)
        shapes = (rows.shape, weight.shape, weight.shape[:2])
        grads = iter(
            call(
                "linear_maxout_backward",
                [(shape, x.dtype) for shape, need in zip(shapes, needs, strict=True) if need],
                [as_rows(grad_y), rows, weight, as_rows(saved)],
                needs=needs.bits(),
                precision=options.precision,
                threads=options.threads,
            )
        )
        grad_x, grad_weight, grad_bias = [next(grads) if need else None for need in needs]
        return [None if grad_x is None else grad_x.reshape(x.shape), grad_weight, grad_bias]


class _ActivationOptions(NamedTuple):
    both: bool
    activation: int
    parameter: float
    saves: str
    precision: int
    threads: int


class _LinearActivation(_Product):
    """Of x, weight, slope and bias."""

    name = "linear_activation"

    def results(self, options: _ActivationOptions, operands: list[Any]) -> list[Result]:
        x, weight, *_ = operands
        shape = (*x.shape[:-1], weight.shape[0])
        return [(shape, x.dtype), (shape, x.dtype)]

    def forward(self, options: _ActivationOptions, operands: list[Any], save: bool) -> tuple[Array, Any]:
        x, weight, slope, bias = operands
        rows = as_rows(x)
        y, *z = call(
            "linear_activation",
            [((rows.shape[0], weight.shape[0]), x.dtype)] * (1 + (save and options.saves == "z")),
            [rows, weight, *as_vector(slope), *([] if bias is None else [bias])],
            activation=options.activation,
            parameter=options.parameter,
            precision=options.precision,
            threads=options.threads,
        )
        shape = (*x.shape[:-1], weight.shape[0])
        y = y.reshape(shape)
        return y, z[0].reshape(shape) if z else y

    def backward(
        self, options: _ActivationOptions, operands: list[Any], saved: Array, grad_y: Array, needs: Needs
    ) -> list[Array | None]:
        x, weight, slope, _ = operands
        rows = as_rows(x)
        need_x, need_weight, need_slope, need_bias = needs
        ordered = Needs((need_x, need_weight, need_bias, need_slope))
        shapes = (rows.shape, weight.shape, weight.shape[:1], None if slope is None else (slope.size,))
        grads = iter(
            call(
                "linear_activation_backward",
                [(shape, x.dtype) for shape, need in zip(shapes, ordered, strict=True) if need],
                [as_rows(grad_y), rows, weight, as_rows(saved), *as_vector(slope)],
                activation=options.activation,
                needs=ordered.bits(),
                parameter=options.parameter,
                precision=options.precision,
                threads=options.threads,
            )
        )
        grad_x, grad_weight, grad_bias, grad_slope = [next(grads) if need else None for need in ordered]
        return [
            None if grad_x is None else grad_x.reshape(x.shape),
            grad_weight,
            None if grad_slope is None else grad_slope.reshape(slope.shape),
            grad_bias,
        ]


_linear_maxout = _LinearMaxout()
_linear_activation = _LinearActivation()


def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    return_argmax: bool = False,
    precision: Precision | None = None,
) -> Any:
    """Linear units in groups of `pieces`, and of each group the largest (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        x: (..., in_features), float32 or float64.
        weight: (out_features, pieces, in_features), the dtype of x; 1 to 256 pieces.
        bias: (out_features, pieces), the dtype of x, or None.
        return_argmax: return the index of the winning piece as well.
        precision: the float32 precision tier, "highest", "high" or "medium"; None for the one in force when
            the call is traced.  The backward takes the same.

    Returns:
        y (..., out_features), the dtype of x; with `return_argmax` also argmax, uint8 of the same shape.
        Only y has a gradient.

    Raises:
        TypeError: an argument is not an array, or of another dtype or not on the CPU, or return_argmax is not
            a bool.
        ValueError: shapes do not agree, pieces is not in 1 to 256, or precision is not a tier.
    """
    operands = check_forward(MAXOUT_WEIGHT, x, weight, bias)
    both = check_flag("return_argmax", return_argmax)
    options = _MaxoutOptions(both, precision_code(precision), settings.threads_and_mode_of_context())
    return _linear_maxout(options, *operands)


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    activation: ActivationName = "relu",
    *,
    precision: Precision | None = None,
    **parameters: Unpack[Parameters],
) -> Array:
    """A linear layer and its activation in one pass: y = activation(x @ weight.T + bias).

    Args:
        x: (..., in_features), float32 or float64.
        weight: (out_features, in_features), the dtype of x.
        bias: (out_features,), the dtype of x, or None.
        activation: a name of the table in `fastact.activations`.
        precision: as for `linear_maxout`.
        **parameters: the activation's own keywords, numbers but for a PReLU's slope.  The slope, an array of
            one value or of out_features, has a gradient.

    Returns:
        y (..., out_features), the dtype of x.

    Raises:
        TypeError: an argument is not an array, or of another dtype or not on the CPU, or the activation does
            not take a keyword.
        ValueError: shapes do not agree, the activation is unknown, or a keyword's value is invalid.
    """
    x, weight, bias = check_forward(LINEAR_WEIGHT, x, weight, bias)
    act, slope = check_activation(activation, len(weight), x.dtype, dict(parameters))
    options = _ActivationOptions(
        False,
        act.code,
        act.parameter,
        act.saves,
        precision_code(precision),
        settings.threads_and_mode_of_context(),
    )
    y: Array = _linear_activation(options, x, weight, slope, bias)
    return y
