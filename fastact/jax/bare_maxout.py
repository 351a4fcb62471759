"""Maxout without a product: the largest value along an axis."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from jax import Array

from .. import checks, settings
from ..checks import UINT8
from .arrays import as_array
from .operation import Needs, Operation
from .targets import Result, call


class _Options(NamedTuple):
    both: bool
    axis: int  # from the front
    threads: int


class _Maxout(Operation):
    """Of z alone."""

    name, first = "maxout", "z"

    def results(self, options: _Options, operands: list[Any]) -> list[Result]:
        (z,) = operands
        shape = z.shape[: options.axis] + z.shape[options.axis + 1 :]
        return [(shape, z.dtype), (shape, UINT8)]

    def forward(self, options: _Options, operands: list[Any], save: bool) -> tuple[Array, Any]:
        (z,) = operands
        blocks = _as_blocks(z, options.axis)
        flat = (blocks.shape[0], blocks.shape[2])
        results = [(flat, z.dtype), (flat, UINT8)][: 1 + save]
        y, *argmax = call("maxout", results, [blocks], threads=options.threads)
        shape = z.shape[: options.axis] + z.shape[options.axis + 1 :]
        return y.reshape(shape), argmax[0].reshape(shape) if save else None

    def backward(
        self, options: _Options, operands: list[Any], saved: Array, grad_y: Array, needs: Needs
    ) -> list[Array | None]:
        (z,) = operands
        outer, pieces, inner = blocks = _as_blocks(z, options.axis).shape
        (grad_z,) = call(
            "maxout_backward",
            [(blocks, z.dtype)],
            [grad_y.reshape(outer, inner), saved.reshape(outer, inner)],
            pieces=pieces,
            threads=options.threads,
        )
        return [grad_z.reshape(z.shape)]

    def fold(self, options: _Options, operands: list[Any], dims: list[Any]) -> tuple[Any, list[Any], int]:
        (dim,) = dims
        axis = options.axis + (dim <= options.axis)
        return options._replace(axis=axis), operands, dim - (dim > axis)


_maxout = _Maxout()


def _as_blocks(z: Array, axis: int) -> Array:
    return z.reshape(math.prod(z.shape[:axis]), z.shape[axis], math.prod(z.shape[axis + 1 :]))


def maxout(z: Array, axis: int = -1, *, return_argmax: bool = False) -> Any:
    """The largest value along `axis`.

    Args:
        z: float32 or float64; 1 to 256 pieces along `axis`.
        axis: the axis of the pieces.
        return_argmax: return the index of the winner as well.

    Returns:
        y, of z's shape without `axis`; with `return_argmax` also argmax, uint8 of the same shape.  The lowest
        index of a tie wins, and the first NaN if there is one.  Only y has a gradient.

    Raises:
        TypeError: z is not an array, or of another dtype or not on the CPU, or return_argmax is not a bool.
        ValueError: axis is out of range, or there are not 1 to 256 pieces along it.
    """
    z = as_array("z", z)
    checks.check_dtype("z", z.dtype)
    axis = checks.check_axis(axis, z.ndim)
    checks.check_pieces(z.shape[axis])
    both = checks.check_flag("return_argmax", return_argmax)
    return _maxout(_Options(both, axis, settings.threads_and_mode_of_context()), z)
