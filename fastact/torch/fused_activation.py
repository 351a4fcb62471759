"""Linear + activation: one kernel for the product, the bias and the activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import activations, backends, checks, settings
from ..checks import LINEAR_WEIGHT
from ..custom import CustomActivation, by_key
from . import decompositions, flops
from .operators import (
    Forward,
    OperatorFunction,
    check_first_derivative,
    define,
    execute,
    recorded_tier,
    run_backward,
)
from .tensors import (
    NUMPY_DTYPES,
    ShapeRule,
    as_array,
    as_contiguous,
    as_rows,
    as_tensor,
    check_dtype,
    check_forward,
    check_tensor,
    fake_gradients,
    fake_shape,
    real_shape,
    thread_count,
)

# An activation and its keywords in a schema; None is a keyword's default.  A custom activation is its key,
# and a parameter other than the default follows a colon.
_ACTIVATION = "str activation, Tensor? slope, float? negative_slope, float? alpha, str? approximate"


def _in_schema(activation: str | CustomActivation, parameter: float | None) -> str:
    if not isinstance(activation, CustomActivation):
        if parameter is not None:
            raise TypeError(f"parameter: {activation} is not a custom activation")
        return activation
    if parameter is None:
        return activation.key
    return f"{activation.key}:{checks.check_finite('parameter', parameter)!r}"


def _from_schema(activation: str) -> tuple[str | CustomActivation, float | None]:
    """What `_in_schema` was given; a name of no custom activation stays as it is.

    Raises ValueError for a custom activation that this process has not, or no longer.
    """
    key, colon, parameter = activation.partition(":")
    custom = by_key(key)
    if custom is None:
        if "#" in key:
            name = key.partition("#")[0]
            raise ValueError(
                f"activation: got the custom {name}, which is one of another process, or no longer exists"
            )
        return activation, None
    return custom, float(parameter) if colon else None


def _array_without_values(value: Tensor) -> checks.Array:
    return np.empty(tuple(value.shape), NUMPY_DTYPES[value.dtype])


# Arguments of a check for tensors with values, and for fake ones: the rule for shapes, and a slope's array.
_REAL = (real_shape, as_array)
_FAKE = (fake_shape, _array_without_values)
_Kind = tuple[ShapeRule, Callable[[Tensor], checks.Array]]


def _check_linear_activation(
    kind: _Kind,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    slope: Tensor | None,
    negative_slope: float | None,
    alpha: float | None,
    approximate: str | None,
) -> tuple[tuple[int, ...], activations.Activation]:
    """The shape of y, and the activation with its slope as an array."""
    rule, array = kind
    shape = check_forward(LINEAR_WEIGHT, x, weight, bias, rule)
    keywords: dict[str, Any] = {"negative_slope": negative_slope, "alpha": alpha, "approximate": approximate}
    if slope is not None:
        check_dtype("slope", slope, x.dtype)
        keywords["slope"] = array(slope)
    named, parameter = _from_schema(activation)
    if slope is None and activations.learns_slope(named):
        raise TypeError(f"slope: got None, wanted a tensor of {x.dtype}")
    keywords["parameter"] = parameter
    given = {key: value for key, value in keywords.items() if value is not None}
    return shape, activations.resolve(named, weight.shape[0], NUMPY_DTYPES[x.dtype], given)


def _check_saves_z(act: activations.Activation) -> None:
    if act.saves != "z":
        raise ValueError(f"activation: got {act.name!r}, wanted one whose backward needs z")


def _linear_activation_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, *activation: Any
) -> tuple[Tensor, Tensor | None]:
    *keywords, precision, save = activation
    shape, act = _check_linear_activation(_REAL, x, weight, bias, *keywords)
    if save:
        _check_saves_z(act)
    dtype = NUMPY_DTYPES[x.dtype]
    y = np.empty(shape, dtype)
    z = np.empty(shape, dtype) if save else None
    backends.active().linear_activation(
        as_rows(x),
        as_contiguous(weight),
        None if bias is None else as_contiguous(bias),
        act,
        checks.as_rows(y),
        checks.as_rows(z),
        thread_count(),
        settings.precision_in_force(precision),
    )
    return torch.from_numpy(y), as_tensor(z)


def _linear_activation_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, *activation: Any
) -> tuple[Tensor, Tensor | None]:
    *keywords, _, save = activation
    shape, act = _check_linear_activation(_FAKE, x, weight, bias, *keywords)
    if save:
        _check_saves_z(act)
    return x.new_empty(shape), x.new_empty(shape) if save else None


def _check_linear_activation_backward(
    kind: _Kind,
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    saved: Tensor,
    *keywords: Any,
) -> tuple[tuple[tuple[int, ...], ...], activations.Activation]:
    """The shapes of the gradients, and the activation."""
    shape, act = _check_linear_activation(kind, x, weight, None, *keywords)
    check_tensor("grad_y", grad_y, x.dtype, shape)
    check_tensor("saved", saved, x.dtype, shape)
    slope = keywords[1]
    return (x.shape, weight.shape, weight.shape[:1], () if slope is None else slope.shape), act


def _linear_activation_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *activation: Any
) -> tuple[Tensor | None, ...]:
    *keywords, needs, precision = activation
    shapes, act = _check_linear_activation_backward(_REAL, grad_y, x, weight, saved, *keywords)
    dtype = NUMPY_DTYPES[x.dtype]
    grads = [np.empty(shape, dtype) if need else None for shape, need in zip(shapes, needs, strict=True)]
    grad_x, grad_weight, grad_bias, grad_slope = grads
    backends.active().linear_activation_backward(
        as_rows(grad_y),
        as_rows(x),
        as_contiguous(weight),
        as_rows(saved),
        act,
        checks.as_rows(grad_x),
        grad_weight,
        grad_bias,
        None if grad_slope is None else grad_slope.reshape(-1),
        False,
        thread_count(),
        settings.precision_in_force(precision),
    )
    return tuple(map(as_tensor, grads))


def _linear_activation_backward_fake(
    grad_y: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *activation: Any
) -> tuple[Tensor | None, ...]:
    *keywords, needs, _ = activation
    shapes, _ = _check_linear_activation_backward(_FAKE, grad_y, x, weight, saved, *keywords)
    return fake_gradients(shapes, needs, x)


_linear_activation_backward = define(
    f"linear_activation_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor saved, {_ACTIVATION}, "
    "bool[4] needs, str? precision) -> (Tensor, Tensor, Tensor, Tensor)",
    _linear_activation_backward_cpu,
    _linear_activation_backward_fake,
    flops.products_backward,
)


def _saves_z(activation: str | CustomActivation) -> bool:
    if isinstance(activation, CustomActivation):
        return activation.saves == "z"
    return activation in activations.SAVES_Z


class _LinearActivationFunction(OperatorFunction):
    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Any],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *activation: Any,
    ) -> Any:
        *keywords, precision, both = activation
        ctx.name, slope, *ctx.keywords = keywords
        ctx.activation, _ = _from_schema(ctx.name)  # it lives as long as the graph
        ctx.precision = precision = recorded_tier(precision)
        save = both or _saves_z(ctx.activation)
        y, z = run(x, weight, bias, *keywords, precision, save)
        ctx.save_for_backward(x, weight, z if save else y, slope)
        ctx.set_materialize_grads(False)
        if not both:
            return y
        ctx.mark_non_differentiable(z)
        return y, z

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 11
        check_first_derivative(_linear_activation.operator.name())
        x, weight, saved, slope = ctx.saved_tensors
        needs = [ctx.needs_input_grad[i] for i in (1, 2, 3, 5)]
        grad_x, grad_weight, grad_bias, grad_slope = run_backward(
            _linear_activation_backward,
            _linear_activation_backward_cpu,
            (grad_y, x, weight, saved, slope),
            (grad_y, x, weight, saved, ctx.name, slope, *ctx.keywords, needs, ctx.precision),
            needs,
        )
        return None, grad_x, grad_weight, grad_bias, None, grad_slope, *(None,) * 5


_linear_activation = Forward(
    "linear_activation",
    "z",
    f"Tensor x, Tensor weight, Tensor? bias, {_ACTIVATION}, str? precision",
    _linear_activation_cpu,
    _linear_activation_fake,
    flops.product,
    _LinearActivationFunction,
    decompositions.linear_activation,
)


def linear_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | CustomActivation = "relu",
    *,
    slope: Tensor | None = None,
    negative_slope: float | None = None,
    alpha: float | None = None,
    approximate: str | None = None,
    parameter: float | None = None,
    precision: str | None = None,
) -> Any:
    """A linear layer and its activation in one pass: y = activation(x @ weight.T + bias).

    Args:
        x: (..., in_features), float32 or float64, on the CPU.
        weight: (out_features, in_features), the dtype of x.
        bias: (out_features,), the dtype of x, or None.
        activation: a name of the table in `fastact.activations`, or a `CustomActivation`, which lives in this
            process alone: no exported program takes it elsewhere.
        slope, negative_slope, alpha, approximate, parameter: the keyword that the activation takes; the table
            tells its default.  A slope has one value or out_features, and a gradient.
        precision: as for `linear_maxout`.

    Returns:
        y (..., out_features), the dtype of x.

    Raises:
        TypeError: a tensor is of another dtype or not on the CPU, or the activation does not take a keyword.
        ValueError: shapes do not agree, the activation is unknown, or a keyword's value is invalid.
    """
    name = _in_schema(activation, parameter)
    arguments = (x, weight, bias, name, slope, negative_slope, alpha, approximate, precision)
    return execute(_linear_activation, (x, weight, bias, slope), arguments, False)
