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
from ...checks import UINT8
from ...settings import Precision
from . import pool
from .activations import activate_row, activation_backward, code_of, parameters_of
from .arguments import as_carray, or_empty
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, CUT, split_evenly, store
from .compile import compiled, inlined
from .maximum import maximum_row
from .product import DOT_ROWS, block_buffers, count_product_cells, is_packed, preactivations, product_cells
from .vectors import copy_elements, sum_scaled_rows

Array = np.ndarray[Any, Any]

MAXOUT = -1  # in place of an activation's code
_IDENTITY = resolve("identity", 1, np.dtype(np.float32), {})


@inlined
def _max_outputs(pieces):
    """Most outputs of a cell."""
    return max(1, BLOCK_COLUMNS // pieces)


@compiled
def _linear_cells(x, weight, pieces, bias, code, parameters, y, z, argmax, dot_rows, first, last):
    """The maximum over pieces if the code is MAXOUT, else the activation of one piece.

    weight is (out_features * pieces, in_features).  Cells are (blocks of outputs) x (blocks of rows); bias, z
    and argmax may be empty.
    """
    rows, out_features = y.shape
    _, outputs = split_evenly(out_features, _max_outputs(pieces))
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    packed = is_packed(block_rows, outputs * pieces, dot_rows)
    buffers = block_buffers(block_rows, outputs * pieces, x.shape[1], packed, x)
    sums, flat_y, flat_z = buffers[0], y.reshape(y.size), z.reshape(z.size)
    keep = argmax.size > 0
    flat_argmax = argmax.reshape(argmax.size) if keep else np.empty(outputs, np.uint8)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = preactivations(x, row, stop - row, weight, pieces, output, count, bias, buffers, packed)
        if code == MAXOUT:
            for n in range(row, stop):
                y_at = n * out_features + output
                argmax_at = y_at if keep else 0
                maximum_row(
                    sums, (n - row) * step, count, pieces, count, flat_y, y_at, flat_argmax, argmax_at
                )
        else:
            rows_at_once = stop - row if step == out_features else 1  # else they are apart
            count *= rows_at_once
            for n in range(row, stop, rows_at_once):
                at = (n - row) * step
                result = n * out_features + output
                activate_row(code, parameters, output, sums[at : at + count], flat_y[result : result + count])
                if z.size:
                    copy_elements(sums, at, flat_z, result, count)


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
    pool.run(
        _linear_cells,
        pool.count_cells((out_features, max(1, BLOCK_COLUMNS // pieces)), (len(x), BLOCK_ROWS)),
        2.0 * len(x) * weight.size,
        threads,
        as_carray(x),
        as_carray(weight).reshape(out_features * pieces, in_features),
        pieces,
        as_carray(or_empty(bias, x.dtype, 2)).reshape(-1),
        MAXOUT,
        or_empty(None, x.dtype, 1),
        y,
        or_empty(None, x.dtype, 2),
        or_empty(argmax, UINT8, 2),
        dot_rows,
    )


@compiled
def _grad_bias_cells(grad_z, grad_bias, accumulate, first, last):
    """grad_bias (out_features,) = the sum over the rows of grad_z.  A cell is CUT columns."""
    rows, out_features = grad_z.shape
    flat = grad_z.reshape(grad_z.size)
    total, starts = np.empty(CUT, grad_z.dtype), np.empty(CUT, np.int64)
    ones = np.ones(CUT, grad_z.dtype)
    for start in range(first * CUT, min(last * CUT, out_features), CUT):
        count = min(CUT, out_features - start)
        for row in range(0, max(1, rows), CUT):
            terms = min(CUT, rows - row)
            for i in range(terms):
                starts[i] = (row + i) * out_features + start
            sum_scaled_rows(flat, starts, 0, ones, 0, terms, count, total, 0, row > 0)
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
    code, _table = code_of(act, x.dtype)
    pool.run(
        _linear_cells,
        pool.count_cells((out_features, BLOCK_COLUMNS), (len(x), BLOCK_ROWS)),
        2.0 * y.size * in_features,
        threads,
        as_carray(x),
        as_carray(weight),
        1,
        as_carray(or_empty(bias, x.dtype, 1)),
        code,
        parameters_of(act, x.dtype),
        y,
        or_empty(z, x.dtype, 2),
        or_empty(None, UINT8, 2),
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
        cells = count_product_cells(len(x), in_features, out_features)
        pool.run(product_cells, cells, work, threads, grad_z, False, as_carray(weight), grad_x, False)
    if grad_weight is not None:
        cells = count_product_cells(out_features, in_features, len(x))
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
    right = as_carray(y.T if trans2 else y)
    cells = count_product_cells(*out.shape, len(right))
    work = 2.0 * out.size * len(right)
    pool.run(product_cells, cells, work, threads, as_carray(x), trans1, right, out, False)
