"""Linear + maxout, forward, linear + activation, forward and backward, and the product alone.

A forward takes the maximum, or the activation, from each block of pre-activations while it is in cache.  The
backward of an activation computes grad_z, then two products and the sum of its rows.  The backward of
linear + maxout is in gather.py.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ...activations import Activation, resolve
from ...settings import Precision
from . import pool
from .activations import activate, activation_backward, parameters_of
from .arguments import as_carray, or_empty
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, CUT, split_evenly, store
from .compile import compiled
from .maximum import maximum_row
from .product import DOT_ROWS, block_buffers, preactivations, product_cells

Array = np.ndarray[Any, Any]

_IDENTITY = resolve("identity", 1, np.dtype(np.float32), {})


@compiled
def _max_outputs(pieces):
    """Most outputs of a cell."""
    return max(1, BLOCK_COLUMNS // pieces)


@compiled
def _linear_maxout_cells(x, weight, pieces, bias, y, argmax, dot_rows, first, last):
    """Cells are (blocks of outputs) x (blocks of rows); argmax may be empty."""
    rows, out_features = y.shape
    _, outputs = split_evenly(out_features, _max_outputs(pieces))
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    buffers = block_buffers(block_rows, outputs * pieces, x.shape[1], x)
    flat_y = y.reshape(y.size)
    keep = argmax.size > 0
    flat_argmax = argmax.reshape(argmax.size) if keep else np.empty(outputs, np.uint8)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = preactivations(x, row, stop - row, weight, pieces, output, count, bias, buffers, dot_rows)
        for n in range(row, stop):
            y_at = n * out_features + output
            argmax_at = y_at if keep else 0
            maximum_row(
                buffers[0], (n - row) * step, count, pieces, count, flat_y, y_at, flat_argmax, argmax_at
            )


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
    """As in `backends/numpy.py`; up to `dot_rows` rows, sums are in another order than those of more rows."""
    out_features, pieces, in_features = weight.shape
    units = out_features * pieces
    pool.run(
        _linear_maxout_cells,
        pool.count_cells((out_features, _max_outputs.py_func(pieces)), (len(x), BLOCK_ROWS)),
        2.0 * len(x) * in_features * units,
        threads,
        as_carray(x),
        as_carray(weight).reshape(units, in_features),
        pieces,
        as_carray(or_empty(bias, x.dtype, 2)).reshape(-1),
        y,
        or_empty(argmax, np.uint8, 2),
        dot_rows,
    )


@compiled
def _linear_activation_cells(x, weight, bias, code, parameters, y, z, dot_rows, first, last):
    """Cells are (blocks of outputs) x (blocks of rows); z may be empty."""
    rows, out_features = y.shape
    _, outputs = split_evenly(out_features, BLOCK_COLUMNS)
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    buffers = block_buffers(block_rows, outputs, x.shape[1], x)
    sums = buffers[0]
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = preactivations(x, row, stop - row, weight, 1, output, count, bias, buffers, dot_rows)
        for n in range(row, stop):
            at = (n - row) * step
            for j in range(count):
                parameter = np.float64(parameters[(output + j) % parameters.size])
                y[n, output + j] = activate(code, parameter, np.float64(sums[at + j]))
            if z.size:
                for j in range(count):
                    z[n, output + j] = sums[at + j]


@compiled
def _grad_bias_cells(grad_z, grad_bias, accumulate, first, last):
    """grad_bias (out_features,) = the sum over the rows of grad_z.  A cell is CUT columns."""
    total = np.empty(CUT, grad_z.dtype)
    partial = np.empty(CUT, grad_z.dtype)
    for start in range(first * CUT, min(last * CUT, grad_bias.size), CUT):
        count = min(CUT, grad_bias.size - start)
        total[:] = 0
        for row in range(0, len(grad_z), CUT):
            partial[:] = 0
            for n in range(row, min(row + CUT, len(grad_z))):
                for c in range(count):
                    partial[c] += grad_z[n, start + c]
            total += partial
        store(total, 0, grad_bias, start, count, accumulate)


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None,
    act: Activation,
    y: Array,
    z: Array | None,
    threads: int = 0,
    precision: Precision = "highest",
    *,
    dot_rows: int = DOT_ROWS,
) -> None:
    """As in `Backend`; `dot_rows` as in linear_maxout."""
    out_features, in_features = weight.shape
    pool.run(
        _linear_activation_cells,
        pool.count_cells((out_features, BLOCK_COLUMNS), (len(x), BLOCK_ROWS)),
        2.0 * y.size * in_features,
        threads,
        as_carray(x),
        as_carray(weight),
        as_carray(or_empty(bias, x.dtype, 1)),
        act.code,
        parameters_of(act, x.dtype),
        y,
        or_empty(z, x.dtype, 2),
        dot_rows,
    )


def linear_activation_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    saved: Array,
    act: Activation,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    grad_slope: Array | None,
    accumulate: bool = False,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    out_features, in_features = weight.shape
    work = 2.0 * grad_y.size * in_features
    grad_z = np.empty_like(grad_y)
    activation_backward(grad_y, saved, act, grad_z, grad_slope, accumulate, threads)
    if grad_x is not None:
        cells = pool.count_cells((in_features, BLOCK_COLUMNS), (len(x), BLOCK_ROWS))
        pool.run(product_cells, cells, work, threads, grad_z, False, as_carray(weight), grad_x, False)
    if grad_weight is not None:
        cells = pool.count_cells((in_features, BLOCK_COLUMNS), (out_features, BLOCK_ROWS))
        pool.run(product_cells, cells, work, threads, grad_z, True, as_carray(x), grad_weight, accumulate)
    if grad_bias is not None:
        cells = pool.count_cells((out_features, CUT))
        pool.run(_grad_bias_cells, cells, float(grad_z.size), threads, grad_z, grad_bias, accumulate)


def matmul(
    x: Array,
    y: Array,
    trans1: bool,
    trans2: bool,
    out: Array,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    if trans2 and not trans1:
        linear_activation(x, y, None, _IDENTITY, out, None, threads)
        return
    cells = pool.count_cells((out.shape[1], BLOCK_COLUMNS), (len(out), BLOCK_ROWS))
    right = as_carray(y.T if trans2 else y)
    pool.run(
        product_cells, cells, 2.0 * out.size * len(right), threads, as_carray(x), trans1, right, out, False
    )
