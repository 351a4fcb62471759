"""Maxout by itself, forward and backward, and the maximum over pieces that linear + maxout shares."""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ...checks import UINT8
from ..numpy import argmax_error
from . import pool
from .arguments import as_carray, or_empty
from .blocks import CELL, lanes_of
from .compile import compiled, inlined
from .vectors import maximum_vector

Array = np.ndarray[Any, Any]


@inlined
def _maximum_scalar(z, at, step, pieces, y, y_at, argmax, argmax_at):
    """y[y_at], argmax[argmax_at] = the winner of z[at + k * step], k < pieces, and its k.

    The winner is the first NaN, else the first of the largest.  All arrays are flat.
    """
    best, index = z[at], 0
    for k in range(1, pieces):
        value = z[at + k * step]
        if best == best and not value <= best:
            best, index = value, k
    y[y_at] = best
    argmax[argmax_at] = index


@inlined
def maximum_row(z, at, step, pieces, count, y, y_at, argmax, argmax_at):
    """`_maximum_scalar` for `count` neighbours: of z[at + k * step + i] for each i < count."""
    lanes = lanes_of(z)
    if count < lanes:
        for i in range(count):
            _maximum_scalar(z, at + i, step, pieces, y, y_at + i, argmax, argmax_at + i)
    else:
        for place in range(0, count, lanes):
            i = min(place, count - lanes)  # the last vector covers some neighbours again
            maximum_vector(z, at + i, step, pieces, y, y_at + i, argmax, argmax_at + i)


@inlined
def _cell_size(inner):
    """The size of a cell, along outer and along inner, of a maxout over (outer, pieces, inner)."""
    return max(1, CELL // max(1, inner)), max(1, min(inner, CELL))


@compiled
def _maxout_cells(z, y, argmax, first, last):
    """Cells are blocks of (outer, inner), of the size that _cell_size gives; argmax may be empty."""
    outer, pieces, inner = z.shape
    flat = z.reshape(z.size)
    flat_y = y.reshape(y.size)
    rows, count = _cell_size(inner)
    across = (inner + count - 1) // count
    keep = argmax.size > 0
    flat_argmax = argmax.reshape(argmax.size) if keep else np.empty(count, np.uint8)
    narrow = inner < lanes_of(z)
    for cell in range(first, last):
        row, start = cell // across * rows, cell % across * count
        width = min(count, inner - start)
        for o in range(row, min(row + rows, outer)):
            at, y_at = o * pieces * inner + start, o * inner + start
            argmax_at = y_at if keep else 0
            if narrow:
                for i in range(inner):
                    _maximum_scalar(flat, at + i, inner, pieces, flat_y, y_at + i, flat_argmax, argmax_at + i)
            else:
                maximum_row(flat, at, inner, pieces, width, flat_y, y_at, flat_argmax, argmax_at)


@compiled
def argmax_fits(argmax, pieces):
    """Whether every value is below `pieces`."""
    flat = argmax.reshape(argmax.size)
    largest = np.uint8(0)
    for i in range(flat.size):
        largest = max(largest, flat[i])
    return flat.size == 0 or largest < pieces


def check_argmax(argmax: Array, pieces: int) -> None:
    """Raise ValueError where a value of the C-contiguous argmax is not below `pieces`."""
    if not argmax_fits(argmax, pieces):
        raise argmax_error(argmax, pieces)


@compiled
def _maxout_backward_cells(grad_y, argmax, grad_z, first, last):
    outer, pieces, inner = grad_z.shape
    rows, count = _cell_size(inner)
    across = (inner + count - 1) // count
    for cell in range(first, last):
        row, start = cell // across * rows, cell % across * count
        stop = min(start + count, inner)
        for o in range(row, min(row + rows, outer)):
            for k in range(pieces):
                for i in range(start, stop):
                    grad_z[o, k, i] = 0
            for i in range(start, stop):
                k = min(np.int64(argmax[o, i]), pieces - 1)  # another thread may write to argmax
                grad_z[o, k, i] = grad_y[o, i]


def _count_cells(outer: int, inner: int) -> int:
    rows, count = _cell_size.py_func(inner)
    return pool.count_cells((outer, rows), (inner, count))


def maxout(z: Array, y: Array, argmax: Array | None, threads: int = 0) -> None:
    outer, _, inner = z.shape
    pool.run(
        _maxout_cells,
        _count_cells(outer, inner),
        float(z.size),
        threads,
        as_carray(z),
        y,
        or_empty(argmax, UINT8, 2),
    )


def maxout_backward(grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
    outer, pieces, inner = grad_z.shape
    argmax = as_carray(argmax)
    check_argmax(argmax, pieces)
    cells = _count_cells(outer, inner)
    pool.run(
        _maxout_backward_cells,
        cells,
        float(grad_z.size),
        threads,
        as_carray(grad_y),
        argmax,
        grad_z,
    )
