"""Linear + maxout: one kernel for the product, the bias and the maximum of each group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import backends, settings
from ..checks import MAXOUT_WEIGHT
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
    addresses_of,
    as_array,
    as_contiguous,
    as_rows,
    check_forward,
    check_tensor,
    fake_gradients,
    fake_shape,
    new_tensor,
    real_shape,
    thread_count,
)


def _linear_maxout_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    shape = check_forward(MAXOUT_WEIGHT, x, weight, bias, real_shape)
    out_features, pieces, in_features = weight.shape
    y = new_tensor(shape, x.dtype)
    argmax = new_tensor(shape, torch.uint8) if save else None
    threads, tier = thread_count(), settings.precision_in_force(precision)
    backend: Any = backends.active()
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
    shape = check_forward(MAXOUT_WEIGHT, x, weight, bias, fake_shape)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8) if save else None


def _check_linear_maxout_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor, rule: ShapeRule
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the gradients."""
    shape = check_forward(MAXOUT_WEIGHT, x, weight, None, rule)
    check_tensor("grad_y", grad_y, x.dtype, shape)
    check_tensor("argmax", argmax, torch.uint8, shape)
    return x.shape, weight.shape, weight.shape[:2]


def _linear_maxout_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor, needs: list[bool], precision: str | None
) -> tuple[Tensor | None, ...]:
    shapes = _check_linear_maxout_backward(grad_y, x, weight, argmax, real_shape)
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
    shapes = _check_linear_maxout_backward(grad_y, x, weight, argmax, fake_shape)
    return fake_gradients(shapes, needs, x)


_linear_maxout_backward = define(
    "linear_maxout_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor argmax, bool[3] needs, "
    "str? precision) -> (Tensor, Tensor, Tensor)",
    _linear_maxout_backward_cpu,
    _linear_maxout_backward_fake,
    flops.products_backward,
)


# No separate `setup_context`: PyTorch would look up the signature of `forward` at every call, 45 us.
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
        check_first_derivative(_linear_maxout.operator.name())
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
    decompositions.linear_maxout,
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
        ValueError: shapes do not agree, pieces is not in 1 to 256, or precision is not a tier.
    """
    return execute(_linear_maxout, (x, weight, bias), (x, weight, bias, precision), return_argmax)
