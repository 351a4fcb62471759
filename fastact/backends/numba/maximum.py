"""Linear + maxout forward, and maxout by itself, forward and backward."""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ...settings import Precision
from ..numpy import check_argmax
from . import pool
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, CELL, count_cells, lanes_of, own, split_evenly
from .compile import compiled
from .product import DOT_ROWS, preactivations, tile_buffers
from .vectors import maximum_of_vectors

Array = np.ndarray[Any, Any]


@compiled
def maximum_of(z, at, step, pieces, y, y_at, argmax, argmax_at):
    """Of the `pieces` values z[at + k * step] the first NaN, else the first largest."""
    best, index = z[at], 0
    for k in range(1, pieces):
        value = z[at + k * step]
        if best == best and not value <= best:
            best, index = value, k
    y[y_at] = best
    argmax[argmax_at] = index


@compiled
def maximum_row(z, at, step, pieces, count, y, y_at, argmax, argmax_at):
    """Of the `pieces` values z[at + k * step + i], i < count, the first NaN, else the first largest.

    All arrays are flat.  y and argmax take it and its index from y_at and argmax_at on.
    """
    lanes = lanes_of(z)
    whole = count // lanes * lanes
    for i in range(0, whole, lanes):
        maximum_of_vectors(z, at + i, step, pieces, y, y_at + i, argmax, argmax_at + i)
    for i in range(whole, count):
        maximum_of(z, at + i, step, pieces, y, y_at + i, argmax, argmax_at + i)


@compiled
def _linear_maxout_cells(x, weight, pieces, bias, y, argmax, dot_rows, first, last):
    """Cells are (blocks of outputs) x (blocks of rows); argmax may be empty."""
    rows, out_features = y.shape
    _, outputs = split_evenly(out_features, max(1, BLOCK_COLUMNS // pieces))
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    buffers = tile_buffers(block_rows, outputs * pieces, x.shape[1], x)
    flat_y = y.reshape(y.size)
    keep = argmax.size > 0
    flat_argmax = argmax.reshape(argmax.size) if keep else np.empty(outputs, np.uint8)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = preactivations(x, row, stop - row, weight, pieces, output, count, bias, buffers, dot_rows)
        for n in range(row, stop):
            at = n * out_features + output
            tile_at = (n - row) * step
            argmax_at = at if keep else 0
            maximum_row(buffers[0], tile_at, count, pieces, count, flat_y, at, flat_argmax, argmax_at)


@compiled
def _maxout_grid(inner):
    """Rows, and values of a row, in a cell of a bare maxout over (outer, pieces, inner)."""
    return max(1, CELL // max(1, inner)), max(1, min(inner, CELL))


@compiled
def _maxout_cells(z, y, argmax, first, last):
    """Cells are blocks of (outer, inner), as _maxout_grid has them; argmax may be empty."""
    outer, pieces, inner = z.shape
    flat = z.reshape(z.size)
    flat_y = y.reshape(y.size)
    rows, count = _maxout_grid(inner)
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
                    maximum_of(flat, at + i, inner, pieces, flat_y, y_at + i, flat_argmax, argmax_at + i)
            else:
                maximum_row(flat, at, inner, pieces, width, flat_y, y_at, flat_argmax, argmax_at)


@compiled
def _maxout_backward_cells(grad_y, argmax, grad_z, first, last):
    outer, pieces, inner = grad_z.shape
    rows, count = _maxout_grid(inner)
    across = (inner + count - 1) // count
    for cell in range(first, last):
        row, start = cell // across * rows, cell % across * count
        stop = min(start + count, inner)
        for o in range(row, min(row + rows, outer)):
            for k in range(pieces):
                for i in range(start, stop):
                    grad_z[o, k, i] = 0
            for i in range(start, stop):
                k = min(np.int64(argmax[o, i]), pieces - 1)  # another thread may write there
                grad_z[o, k, i] = grad_y[o, i]


def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    argmax: Array | None,
    threads: int = 0,
    precision: Precision = "highest",
    *,
    dot_rows: int = DOT_ROWS,
) -> None:
    """As in `Backend`; up to `dot_rows` rows, sums are in another order than those of more rows."""
    out_features, pieces, in_features = weight.shape
    units = out_features * pieces
    pool.run(
        _linear_maxout_cells,
        count_cells((out_features, max(1, BLOCK_COLUMNS // pieces)), (len(x), BLOCK_ROWS)),
        2.0 * len(x) * in_features * units,
        threads,
        own(x),
        own(weight).reshape(units, in_features),
        pieces,
        np.empty(0, x.dtype) if bias is None else own(bias).reshape(units),
        y,
        np.empty((0, 0), np.uint8) if argmax is None else argmax,
        dot_rows,
    )


def _maxout_cell_count(outer: int, inner: int) -> int:
    rows, count = _maxout_grid.py_func(inner)
    return count_cells((outer, rows), (inner, count))


def maxout(z: Array, y: Array, argmax: Array | None, threads: int = 0) -> None:
    outer, _, inner = z.shape
    pool.run(
        _maxout_cells,
        _maxout_cell_count(outer, inner),
        float(z.size),
        threads,
        own(z),
        y,
        np.empty((0, 0), np.uint8) if argmax is None else argmax,
    )


def maxout_backward(grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
    outer, pieces, inner = grad_z.shape
    check_argmax(argmax, pieces)
    cells = _maxout_cell_count(outer, inner)
    pool.run(_maxout_backward_cells, cells, float(grad_z.size), threads, own(grad_y), own(argmax), grad_z)
