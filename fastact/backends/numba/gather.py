"""The backward of linear + maxout: sums over the winners alone.

The rows of a table that a list of argmax names are gathered for the gradient of x, and those whose bits of a
word are set for the gradient of the weights.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ...settings import Precision
from ..numpy import check_argmax
from . import pool
from .blocks import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    CHUNK,
    copy_rows,
    count_cells,
    lanes_of,
    new_buffer,
    own,
    split_evenly,
    store,
)
from .compile import compiled
from .vectors import GATHER_VECTORS, VECTOR_BYTES, copy_line, gather_row, gather_set

Array = np.ndarray[Any, Any]

_SET = 64  # rows whose winners are bits of one word
_SET_VECTORS = 8  # of a row in a table of _SET rows: 32 KiB with AVX-512
_TABLE_BYTES = 32 * 1024  # a table of rows to gather from stays in L1
# Upper limit on outputs per gathered table.  Larger tables sum more terms at once and lose accuracy: 512
# outputs of 16 columns had up to 1.6 times the error of NumPy's product.  grad_x of 1000 x 16 x 640 x 1 takes
# 640 us with 512 outputs, 530 with 64 and 510 with 32.
_TABLE_OUTPUTS = 32
_GATHERED_OUTPUTS = 256  # whose sums have a total of their own in a gather: they are few partial sums
# More pieces leave a table a few terms of each sum, so fewer tables have a total of their own: as many as for
# one piece had up to 1.4 times the error of NumPy's product for grad_x at 16, 1.2 times for grad_weight.
_MANY_PIECES = 8
_TABLES = 4  # filled at a time, so that memory is read in long runs


@compiled
def _table_width(columns, like, limit):
    """Into how many tables, and of how many vectors, at most `limit`, to split `columns`."""
    lanes = lanes_of(like)
    return split_evenly((columns + lanes - 1) // lanes, limit)


@compiled
def _fill_tables(weight, row, rows, column, columns, width, tables):
    """weight[row : row + rows, column : column + columns] to flat tables (columns / width, rows, width)."""
    flat = weight.reshape(weight.size)
    for r in range(rows):
        at = (row + r) * weight.shape[1] + column
        for first in range(0, columns, width):
            copy_line(flat, at + first, tables, first * rows + r * width, min(width, columns - first))


@compiled
def _grad_x_cells(grad_y, weight, pieces, argmax, grad_x, first, last):
    """Cells are (blocks of columns) x (blocks of rows); weight is (out_features * pieces, in_features)."""
    rows, in_features = grad_x.shape
    out_features = grad_y.shape[1]
    flat_grad, flat_argmax = grad_y.reshape(grad_y.size), argmax.reshape(argmax.size)
    flat_grad_x = grad_x.reshape(grad_x.size)
    tables_in_all, vectors = _table_width(in_features, weight, GATHER_VECTORS)
    width = vectors * lanes_of(weight)
    _, block_columns = split_evenly(tables_in_all, _TABLES)
    block_columns *= width
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    # outputs whose units fill a table; at least 8, for few partial sums
    outputs = max(8, min(_TABLE_OUTPUTS, _TABLE_BYTES // max(1, pieces * width * weight.itemsize)))
    outputs = min(max(1, out_features), outputs)
    run = max(_GATHERED_OUTPUTS // 4, min(_GATHERED_OUTPUTS, 128 * _MANY_PIECES // max(1, pieces)))
    tables = new_buffer(outputs * pieces * block_columns, weight)
    sums = new_buffer(block_rows * block_columns, weight)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        columns = min(block_columns, in_features - column)
        stop = min(row + block_rows, rows)
        sums[:] = 0
        added = False
        for output in range(0, out_features, outputs):
            count = min(outputs, out_features - output)
            units = count * pieces
            _fill_tables(weight, output * pieces, units, column, columns, width, tables)
            for start in range(0, columns, width):
                table = tables[start * units : (start + width) * units]
                for n in range(row, stop):
                    gather_row(
                        table, pieces, flat_argmax, flat_grad, n * out_features + output, count, vectors,
                        sums, start * block_rows + (n - row) * width,
                    )  # fmt: skip
            end = output + count
            if end == out_features or end // run > output // run:
                for n in range(row, stop):
                    for start in range(0, columns, width):
                        sums_at = start * block_rows + (n - row) * width
                        at = n * in_features + column + start
                        store(sums, sums_at, flat_grad_x, at, min(width, columns - start), added)
                sums[:] = 0
                added = True
        if not added:
            grad_x[:] = 0


@compiled
def _find_winners(grad_y, argmax, row, rows, output, winner_bits, scale, sums):
    """Find which rows of a block each piece won, for the outputs from `output` on.

    Bit r of winner_bits[j, k] is set where piece k of output j won row r; scale[j, r] is the grad_y of the
    two, and sums[j, k] the sum of grad_y over the rows that the piece won.
    """
    outputs = len(winner_bits)
    last = winner_bits.shape[1] - 1
    winner_bits[:] = 0
    sums[:] = 0
    for r in range(rows):
        bit = np.uint64(1) << np.uint64(r)
        for j in range(outputs):
            k = min(np.int64(argmax[row + r, output + j]), last)  # another thread may write there
            grad = grad_y[row + r, output + j]
            winner_bits[j, k] |= bit
            scale[j, r] = grad
            sums[j, k] += grad


@compiled
def _grad_weight_cells(grad_y, x, argmax, pieces, grad_weight, grad_bias, accumulate, first, last):
    """Cells are blocks of outputs; grad_weight (.., in_features) or grad_bias may be empty, shape (0, ..)."""
    rows, in_features = x.shape
    out_features = grad_y.shape[1]
    _, outputs = split_evenly(out_features, max(16, BLOCK_COLUMNS // pieces))
    tables, vectors = _table_width(in_features if grad_weight.size else 0, x, _SET_VECTORS)
    width = vectors * lanes_of(x)
    chunk_rows = CHUNK if pieces <= _MANY_PIECES else CHUNK // 2
    blocks = max(1, min(chunk_rows // _SET, (rows + _SET - 1) // _SET))

    flat_grad = grad_weight.reshape(grad_weight.size)
    table = new_buffer(_SET * width, x)
    totals = new_buffer(tables * outputs * pieces * width, x)
    sums = new_buffer(totals.size if rows > blocks * _SET else 0, x)  # of rows after the first chunk
    bias_sums = np.empty((outputs, pieces), x.dtype)
    partial = np.empty((outputs, pieces), x.dtype)
    winner_bits = np.empty((blocks, outputs, pieces), np.uint64)
    scale = new_buffer(blocks * outputs * _SET, x)

    for cell in range(first, last):
        output = cell * outputs
        count = min(outputs, out_features - output)
        totals[:] = 0
        bias_sums[:] = 0
        for chunk in range(0, rows, blocks * _SET):
            stop = min(chunk + blocks * _SET, rows)
            for b, row in enumerate(range(chunk, stop, _SET)):
                block_scale = scale.reshape(blocks, outputs, _SET)[b]
                _find_winners(
                    grad_y, argmax, row, min(_SET, rows - row), output,
                    winner_bits[b, :count], block_scale, partial[:count],
                )  # fmt: skip
                bias_sums[:count] += partial[:count]
            chunk_sums = sums if chunk else totals
            sums[:] = 0
            for t in range(tables):
                columns = min(width, in_features - t * width)
                for b, row in enumerate(range(chunk, stop, _SET)):
                    copy_rows(x, row, min(_SET, rows - row), t * width, columns, table, width)
                    for j in range(count):
                        scale_at = (b * outputs + j) * _SET
                        for k in range(pieces):
                            if winner_bits[b, j, k]:
                                at = ((t * outputs + j) * pieces + k) * width
                                gather_set(
                                    table, winner_bits[b, j, k], scale, scale_at, vectors, chunk_sums, at
                                )
            if chunk:
                store(sums, 0, totals, 0, totals.size, True)
        if grad_weight.size:
            for unit in range(count * pieces):
                for t in range(tables):
                    at = (t * outputs * pieces + unit) * width
                    column = t * width
                    store(
                        totals, at, flat_grad, (output * pieces + unit) * in_features + column,
                        min(width, in_features - column), accumulate,
                    )  # fmt: skip
        if grad_bias.size:
            flat_sums = bias_sums.reshape(bias_sums.size)
            store(flat_sums, 0, grad_bias, output * pieces, count * pieces, accumulate)


def linear_maxout_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    argmax: Array,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    accumulate: bool = False,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    out_features, pieces, in_features = weight.shape
    check_argmax(argmax, pieces)
    units = out_features * pieces
    work = 2.0 * grad_y.size * in_features
    grad_y, x, argmax = own(grad_y), own(x), own(argmax)
    if grad_x is not None:
        block_columns = _TABLES * GATHER_VECTORS * VECTOR_BYTES // x.itemsize
        pool.run(
            _grad_x_cells,
            count_cells((in_features, block_columns), (len(x), BLOCK_ROWS)),
            work,
            threads,
            grad_y,
            own(weight).reshape(units, in_features),
            pieces,
            argmax,
            grad_x,
        )
    if (grad_weight is not None and grad_weight.size) or grad_bias is not None:
        pool.run(
            _grad_weight_cells,
            count_cells((out_features, max(16, BLOCK_COLUMNS // pieces))),
            work,
            threads,
            grad_y,
            x,
            argmax,
            pieces,
            np.empty((0, 0), x.dtype) if grad_weight is None else grad_weight.reshape(units, in_features),
            np.empty(0, x.dtype) if grad_bias is None else grad_bias.reshape(units),
            accumulate,
        )
