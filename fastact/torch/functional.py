"""The operators as functions: linear + maxout, bare maxout, linear + activation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import activations, backends, checks, settings
from . import flops
from .operators import (
    Forward,
    OperatorFunction,
    check_first_derivative,
    define,
    execute,
    is_plain,
    recorded_tier,
    run_backward,
)
from .tensors import (
    NUMPY_DTYPES,
    addresses_of,
    as_array,
    as_contiguous,
    as_rows,
    as_tensor,
    check_dtype,
    check_float,
    check_linear,
    check_tensor,
    fake_gradients,
    new_tensor,
    thread_count,
)

# ---- linear + maxout

_MAXOUT_WEIGHT = ("out_features", "pieces", "in_features")


def _check_linear_maxout(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[int, ...]:
    shape = check_linear(x, weight, bias, _MAXOUT_WEIGHT)
    if not 1 <= (pieces := weight.shape[1]) <= checks.MAX_PIECES:
        checks.check_pieces(pieces)
    return shape


def _linear_maxout_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    shape = _check_linear_maxout(x, weight, bias)
    out_features, pieces, in_features = weight.shape
    y = new_tensor(shape, x.dtype)
    argmax = new_tensor(shape, torch.uint8) if save else None
    threads, tier = thread_count(), settings.precision_in_force(precision)
    backend = backends.active()
    if hasattr(backend, "linear_maxout_at") and (addresses := addresses_of((x, weight, bias, y, argmax))):
        rows = shape[0] if len(shape) == 2 else math.prod(shape[:-1])
        dtype = NUMPY_DTYPES[x.dtype]
        backend.linear_maxout_at(dtype, rows, in_features, out_features, pieces, *addresses, threads, tier)
    else:
        backend.linear_maxout(
            as_rows(x),
            as_contiguous(weight),
            None if bias is None else as_contiguous(bias),
            as_rows(y),
            None if argmax is None else as_rows(argmax),
            threads,
            tier,
        )
    return y, argmax


def _linear_maxout_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    shape = _check_linear_maxout(x, weight, bias)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8) if save else None


def _check_linear_maxout_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the gradients."""
    shape = _check_linear_maxout(x, weight)
    check_tensor("grad_y", grad_y, x.dtype, shape)
    check_tensor("argmax", argmax, torch.uint8, shape)
    return x.shape, weight.shape, weight.shape[:2]


def _linear_maxout_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor, needs: list[bool], precision: str | None
) -> tuple[Tensor | None, ...]:
    shapes = _check_linear_maxout_backward(grad_y, x, weight, argmax)
    out_features, pieces, in_features = weight.shape
    dtype = x.dtype
    grads = tuple(
        [new_tensor(shape, dtype) if need else None for shape, need in zip(shapes, needs, strict=True)]
    )
    threads, tier = thread_count(), settings.precision_in_force(precision)
    backend: Any = backends.active()
    addresses = None
    if hasattr(backend, "linear_maxout_backward_at"):
        addresses = addresses_of((grad_y, x, weight, argmax, *grads))
    if addresses:
        rows = math.prod(x.shape[:-1])
        backend.linear_maxout_backward_at(
            NUMPY_DTYPES[dtype], rows, in_features, out_features, pieces, *addresses, threads, tier
        )
    else:
        grad_x, grad_weight, grad_bias = grads
        backend.linear_maxout_backward(
            as_rows(grad_y),
            as_rows(x),
            as_contiguous(weight),
            as_rows(argmax),
            None if grad_x is None else as_rows(grad_x),
            None if grad_weight is None else as_array(grad_weight),
            None if grad_bias is None else as_array(grad_bias),
            False,
            threads,
            tier,
        )
    return grads


def _linear_maxout_backward_fake(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor, needs: list[bool], precision: str | None
) -> tuple[Tensor | None, ...]:
    return fake_gradients(_check_linear_maxout_backward(grad_y, x, weight, argmax), needs, x)


_linear_maxout_backward = define(
    "linear_maxout_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor argmax, bool[3] needs, "
    "str? precision) -> (Tensor, Tensor, Tensor)",
    _linear_maxout_backward_cpu,
    _linear_maxout_backward_fake,
    flops.products_backward,
)


# Functions with a separate `setup_context` look up the signature of `forward` at every call: 45 us.
class _LinearMaxoutFunction(OperatorFunction):
    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Any],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        precision: str | None,
        both: bool,
    ) -> Any:
        ctx.precision = precision = recorded_tier(precision)
        y, argmax = run(x, weight, bias, precision, True)
        ctx.save_for_backward(x, weight, argmax)
        ctx.set_materialize_grads(False)
        if not both:
            return y
        ctx.mark_non_differentiable(argmax)
        return y, argmax

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 6
        check_first_derivative(_linear_maxout.operator)
        needs = ctx.needs_input_grad[1:4]
        tensors = (grad_y, *ctx.saved_tensors)
        arguments = (*tensors, needs, ctx.precision)
        grads = run_backward(_linear_maxout_backward, _linear_maxout_backward_cpu, tensors, arguments, needs)
        return None, *grads, None, None


_linear_maxout = Forward(
    "linear_maxout",
    "argmax",
    "Tensor x, Tensor weight, Tensor? bias, str? precision",
    _linear_maxout_cpu,
    _linear_maxout_fake,
    flops.product,
    _LinearMaxoutFunction,
)


def linear_maxout(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    return_argmax: bool = False,
    precision: str | None = None,
) -> Any:
    """Linear units in groups of `pieces`, and of each group the largest (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        x: (..., in_features), float32 or float64, on the CPU.
        weight: (out_features, pieces, in_features), the dtype of x; 1 to 256 pieces.
        bias: (out_features, pieces), the dtype of x, or None.
        return_argmax: return the index of the winning piece as well.
        precision: the float32 precision tier, "highest", "high" or "medium"; None for fastact's own
            setting.  The backward takes the same.

    Returns:
        y (..., out_features), the dtype of x; with `return_argmax` also argmax, uint8 of the same shape.
        Only y has a gradient.

    Raises:
        TypeError: a tensor is of another dtype or not on the CPU.
        ValueError: shapes do not agree, pieces is not in 1 to 256, or precision is no tier.
    """
    return execute(_linear_maxout, (x, weight, bias), (x, weight, bias, precision), return_argmax)


# ---- bare maxout


def _check_maxout(z: Tensor, dim: int) -> tuple[int, tuple[int, ...]]:
    """`dim` from the front, and the shape of y."""
    check_float("z", z)
    shape = tuple(z.shape)
    dim = checks.check_axis(dim, len(shape))
    checks.check_pieces(shape[dim])
    return dim, shape[:dim] + shape[dim + 1 :]


def _maxout_cpu(z: Tensor, dim: int, save: bool) -> tuple[Tensor, Tensor | None]:
    dim, shape = _check_maxout(z, dim)
    blocks = checks.as_blocks(as_contiguous(z), dim)
    flat = (blocks.shape[0], blocks.shape[2])
    y = np.empty(shape, blocks.dtype)
    argmax = np.empty(shape, np.uint8) if save else None
    backends.active().maxout(
        blocks,
        y.reshape(flat),
        None if argmax is None else argmax.reshape(flat),
        thread_count(),
    )
    return torch.from_numpy(y), as_tensor(argmax)


def _maxout_fake(z: Tensor, dim: int, save: bool) -> tuple[Tensor, Tensor | None]:
    _, shape = _check_maxout(z, dim)
    return z.new_empty(shape), z.new_empty(shape, dtype=torch.uint8) if save else None


def _check_maxout_backward(
    grad_y: Tensor, argmax: Tensor, pieces: int, dim: int
) -> tuple[int, tuple[int, ...]]:
    """`dim` from the front, and the shape of grad_z."""
    check_float("grad_y", grad_y)
    shape = tuple(grad_y.shape)
    check_tensor("argmax", argmax, torch.uint8, shape)
    checks.check_pieces(pieces)
    dim = checks.check_axis(dim, len(shape) + 1)
    return dim, (*shape[:dim], pieces, *shape[dim:])


def _maxout_backward_cpu(grad_y: Tensor, argmax: Tensor, pieces: int, dim: int) -> Tensor:
    dim, shape = _check_maxout_backward(grad_y, argmax, pieces, dim)
    grad_z = np.empty(shape, NUMPY_DTYPES[grad_y.dtype])
    blocks = checks.as_blocks(grad_z, dim)
    flat = (blocks.shape[0], blocks.shape[2])
    backends.active().maxout_backward(
        as_contiguous(grad_y).reshape(flat), as_contiguous(argmax).reshape(flat), blocks, thread_count()
    )
    return torch.from_numpy(grad_z)


def _maxout_backward_fake(grad_y: Tensor, argmax: Tensor, pieces: int, dim: int) -> Tensor:
    return grad_y.new_empty(_check_maxout_backward(grad_y, argmax, pieces, dim)[1])


_maxout_backward = define(
    "maxout_backward(Tensor grad_y, Tensor argmax, int pieces, int dim) -> Tensor",
    _maxout_backward_cpu,
    _maxout_backward_fake,
    flops.no_product,
)


class _MaxoutFunction(OperatorFunction):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], z: Tensor, dim: int, both: bool) -> Any:
        y, argmax = run(z, dim, True)
        ctx.dim, ctx.pieces = dim, z.shape[dim]
        ctx.save_for_backward(argmax)
        ctx.set_materialize_grads(False)
        if not both:
            return y
        ctx.mark_non_differentiable(argmax)
        return y, argmax

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 4
        check_first_derivative(_maxout.operator)
        tensors: tuple[Any, ...] = (grad_y, *ctx.saved_tensors)
        run: Any = _maxout_backward_cpu if is_plain(tensors) else _maxout_backward
        return None, run(*tensors, ctx.pieces, ctx.dim), None, None


_maxout = Forward(
    "maxout", "argmax", "Tensor z, int dim", _maxout_cpu, _maxout_fake, flops.no_product, _MaxoutFunction
)


def maxout(z: Tensor, dim: int = -1, *, return_argmax: bool = False) -> Any:
    """The largest value along `dim`.

    Args:
        z: float32 or float64, on the CPU; 1 to 256 pieces along `dim`.
        dim: the dimension of the pieces.
        return_argmax: return the index of the winner as well.

    Returns:
        y, of z's shape without `dim`; with `return_argmax` also argmax, uint8 of the same shape.  The
        lowest index of a tie wins, and the first NaN if there is one.  Only y has a gradient.

    Raises:
        TypeError: z is of another dtype or not on the CPU.  ValueError: a bad dim or number of pieces.
    """
    return execute(_maxout, (z,), (z, dim), return_argmax)


# ---- linear + activation

# An activation and its keywords in a schema; None stands for a keyword's default.
_ACTIVATION = "str activation, Tensor? slope, float? negative_slope, float? alpha, str? approximate"


def _array_without_values(value: Tensor) -> checks.Array:
    return np.empty(tuple(value.shape), NUMPY_DTYPES[value.dtype])


def _check_linear_activation(
    array: Callable[[Tensor], checks.Array],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    slope: Tensor | None,
    negative_slope: float | None,
    alpha: float | None,
    approximate: str | None,
) -> tuple[tuple[int, ...], activations.Activation]:
    """The shape of y, and the activation with `array(slope)`."""
    shape = check_linear(x, weight, bias, ("out_features", "in_features"))
    keywords: dict[str, Any] = {"negative_slope": negative_slope, "alpha": alpha, "approximate": approximate}
    if slope is not None:
        check_dtype("slope", slope, x.dtype)
        keywords["slope"] = array(slope)
    elif activation == "prelu":
        raise TypeError(f"slope: got None, wanted a tensor of {x.dtype}")
    given = {key: value for key, value in keywords.items() if value is not None}
    return shape, activations.resolve(activation, weight.shape[0], NUMPY_DTYPES[x.dtype], given)


def _check_saves_z(act: activations.Activation) -> None:
    if act.saves != "z":
        raise ValueError(f"activation: got {act.name!r}, wanted one whose backward needs z")


def _linear_activation_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, *activation: Any
) -> tuple[Tensor, Tensor | None]:
    *keywords, precision, save = activation
    shape, act = _check_linear_activation(as_array, x, weight, bias, *keywords)
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
    shape, act = _check_linear_activation(_array_without_values, x, weight, bias, *keywords)
    if save:
        _check_saves_z(act)
    return x.new_empty(shape), x.new_empty(shape) if save else None


def _check_linear_activation_backward(
    array: Callable[[Tensor], checks.Array],
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    saved: Tensor,
    *keywords: Any,
) -> tuple[tuple[tuple[int, ...], ...], activations.Activation]:
    """The shapes of the gradients, and the activation."""
    shape, act = _check_linear_activation(array, x, weight, None, *keywords)
    check_tensor("grad_y", grad_y, x.dtype, shape)
    check_tensor("saved", saved, x.dtype, shape)
    slope = keywords[1]
    return (x.shape, weight.shape, weight.shape[:1], () if slope is None else slope.shape), act


def _linear_activation_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *activation: Any
) -> tuple[Tensor | None, ...]:
    *keywords, needs, precision = activation
    shapes, act = _check_linear_activation_backward(as_array, grad_y, x, weight, saved, *keywords)
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
    shapes, _ = _check_linear_activation_backward(_array_without_values, grad_y, x, weight, saved, *keywords)
    return fake_gradients(shapes, needs, x)


_linear_activation_backward = define(
    f"linear_activation_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor saved, {_ACTIVATION}, "
    "bool[4] needs, str? precision) -> (Tensor, Tensor, Tensor, Tensor)",
    _linear_activation_backward_cpu,
    _linear_activation_backward_fake,
    flops.products_backward,
)


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
        ctx.precision = precision = recorded_tier(precision)
        save = both or ctx.name in activations.SAVES_Z
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
        check_first_derivative(_linear_activation.operator)
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
)


def linear_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "relu",
    *,
    slope: Tensor | None = None,
    negative_slope: float | None = None,
    alpha: float | None = None,
    approximate: str | None = None,
    precision: str | None = None,
) -> Any:
    """A linear layer and its activation in one pass: y = activation(x @ weight.T + bias).

    Args:
        x: (..., in_features), float32 or float64, on the CPU.
        weight: (out_features, in_features), the dtype of x.
        bias: (out_features,), the dtype of x, or None.
        activation: a name of the table in `fastact.activations`.
        slope, negative_slope, alpha, approximate: the keyword that the activation takes; the table
            tells its default.  A PReLU's slope has one value or out_features, and a gradient.
        precision: as for `linear_maxout`.

    Returns:
        y (..., out_features), the dtype of x.

    Raises:
        TypeError: a tensor is of another dtype or not on the CPU, or the activation does not take a keyword.
        ValueError: shapes do not agree, the activation is unknown, or a keyword's value is bad.
    """
    arguments = (x, weight, bias, activation, slope, negative_slope, alpha, approximate, precision)
    return execute(_linear_activation, (x, weight, bias, slope), arguments, False)
