"""Maxout without a product: the largest value along a dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import backends, checks
from . import decompositions, flops
from .operators import Forward, OperatorFunction, check_first_derivative, define, execute, is_plain
from .tensors import NUMPY_DTYPES, as_contiguous, as_tensor, check_float, check_tensor, thread_count


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
        check_first_derivative(_maxout.operator.name())
        tensors: tuple[Any, ...] = (grad_y, *ctx.saved_tensors)
        run: Any = _maxout_backward_cpu if is_plain(tensors) else _maxout_backward
        return None, run(*tensors, ctx.pieces, ctx.dim), None, None


_maxout = Forward(
    "maxout",
    "argmax",
    "Tensor z, int dim",
    _maxout_cpu,
    _maxout_fake,
    flops.no_product,
    _MaxoutFunction,
    decompositions.maxout,
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
        TypeError: z is of another dtype or not on the CPU.
        ValueError: dim is out of range, or there are not 1 to 256 pieces along it.
    """
    return execute(_maxout, (z,), (z, dim), return_argmax)
