"""The backward of linear + maxout: gathers, which are sums over the winners alone.

A gather sums rows of a table that stays in the L1 cache.  For grad_x the table holds weights, and argmax says
which of its rows to sum.  For grad_weight the table holds rows of x, and a word of 64 bits for each unit says
in which of them the unit is the winner.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ...settings import Precision
from ..numpy import check_argmax
from . import pool
from .arguments import as_carray, or_empty
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, SUBTOTAL, copy_rows, lanes_of, new_buffer, split_evenly, store
from .compile import compiled, inlined
from .product import FEW_ROWS, add_rows_in_place
from .vectors import (
    GATHER_VECTORS,
    TABLE_VECTORS,
    VECTOR_BYTES,
    copy_elements,
    gather_by_argmax,
    gather_by_bits,
    sum_scaled_rows,
)

Array = np.ndarray[Any, Any]

# Tables of weights, for grad_x.
_TABLE_BYTES = 32 * 1024  # a table stays in L1
_TABLE_OUTPUTS = 32  # upper limit: a larger table sums more terms at once.  bench/tuning: numba-table-outputs
_MIN_TABLE_OUTPUTS = 8  # lower limit, even for many pieces, so that there are few partial sums
_TABLES_AT_ONCE = 4  # tables filled together, so that rows of weights are read in long runs
_SUBTOTAL_OUTPUTS = 256  # most outputs in a subtotal of grad_x, for accuracy
_MIN_SUBTOTAL_OUTPUTS = 64  # least outputs in a subtotal, even for many pieces

# Tables of rows of x, for grad_weight.
_TABLE_ROWS = 64  # as many as the bits of a word
_MIN_CELL_OUTPUTS = 16  # even for many pieces, since each cell reads all of x

# Above this many pieces each table has few terms of a sum, so a subtotal takes fewer tables, for accuracy.
# bench/tuning: numba-many-pieces
_MANY_PIECES = 8


@inlined
def _table_width(columns, like, limit):
    """The number of tables that hold `columns`, and the vectors in a row of each, at most `limit`."""
    lanes = lanes_of(like)
    return split_evenly((columns + lanes - 1) // lanes, limit)


@inlined
def _fill_tables(weight, row, rows, column, columns, width, tables):
    """Copy weight[row : row + rows, column : column + columns] to tables (columns / width, rows, width)."""
    flat = weight.reshape(weight.size)
    for r in range(rows):
        at = (row + r) * weight.shape[1] + column
        for first in range(0, columns, width):
            copy_elements(flat, at + first, tables, first * rows + r * width, min(width, columns - first))


@inlined
def _few_rows_cells(flat_grad, weight, pieces, argmax, grad_x, block_columns, first, last):
    """`_grad_x_cells` for few rows: the winners are read where they are.  Cells are blocks of columns."""
    rows, in_features = grad_x.shape
    out_features = argmax.shape[1]
    flat_weight, flat_grad_x = weight.reshape(weight.size), grad_x.reshape(grad_x.size)
    starts = np.empty(rows * out_features, np.int64)
    for n in range(rows):
        for j in range(out_features):
            winner = min(np.int64(argmax[n, j]), pieces - 1)  # another thread may write to argmax
            starts[n * out_features + j] = (j * pieces + winner) * in_features
    buffers = new_buffer(rows * block_columns, weight), new_buffer(rows * block_columns, weight)
    for cell in range(first, last):
        column = cell * block_columns
        width = min(block_columns, in_features - column)
        totals = add_rows_in_place(
            flat_weight[column:], starts, out_features, flat_grad, out_features, out_features,
            buffers, rows, width,
        )  # fmt: skip
        for n in range(rows):
            copy_elements(totals, n * width, flat_grad_x, n * in_features + column, width)


@compiled
def _grad_x_cells(grad_y, weight, pieces, argmax, grad_x, first, last):
    """Cells are (blocks of columns) x (blocks of rows); weight is (out_features * pieces, in_features)."""
    rows, in_features = grad_x.shape
    out_features = grad_y.shape[1]
    flat_grad, flat_argmax = grad_y.reshape(grad_y.size), argmax.reshape(argmax.size)
    flat_grad_x = grad_x.reshape(grad_x.size)
    table_count, vectors = _table_width(in_features, weight, GATHER_VECTORS)
    width = vectors * lanes_of(weight)
    _, tables_at_once = split_evenly(table_count, _TABLES_AT_ONCE)
    block_columns = tables_at_once * width
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    outputs = min(_TABLE_OUTPUTS, _TABLE_BYTES // max(1, pieces * width * weight.itemsize))
    outputs = min(max(1, out_features), max(_MIN_TABLE_OUTPUTS, outputs))
    subtotal_outputs = min(_SUBTOTAL_OUTPUTS, 128 * _MANY_PIECES // max(1, pieces))
    subtotal_outputs = max(_MIN_SUBTOTAL_OUTPUTS, subtotal_outputs)
    if rows <= FEW_ROWS:
        _few_rows_cells(flat_grad, weight, pieces, argmax, grad_x, block_columns, first, last)
        return
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
                    gather_by_argmax(
                        table, pieces, flat_argmax, flat_grad, n * out_features + output, count, vectors,
                        sums, start * block_rows + (n - row) * width,
                    )  # fmt: skip
            end = output + count
            if end == out_features or end // subtotal_outputs > output // subtotal_outputs:
                for n in range(row, stop):
                    for start in range(0, columns, width):
                        sums_at = start * block_rows + (n - row) * width
                        at = n * in_features + column + start
                        store(sums, sums_at, flat_grad_x, at, min(width, columns - start), added)
                sums[:] = 0
                added = True
        if not added:
            grad_x[:] = 0


@inlined
def _find_winners(grad_y, argmax, row, rows, output, winner_bits, scale, sums):
    """Find the winner of each row and output, for rows [row, row + rows) and the outputs from `output` on.

    Bit r of winner_bits[j, k] is set if piece k is the winner of output j in row r.  scale[j, r] is grad_y of
    that row and output, and sums[j, k] the sum of grad_y over the rows in which piece k is the winner.
    """
    outputs = len(winner_bits)
    last = winner_bits.shape[1] - 1
    winner_bits[:] = 0
    sums[:] = 0
    for r in range(rows):
        bit = np.uint64(1) << np.uint64(r)
        for j in range(outputs):
            k = min(np.int64(argmax[row + r, output + j]), last)  # another thread may write to argmax
            grad = grad_y[row + r, output + j]
            winner_bits[j, k] |= bit
            scale[j, r] = grad
            sums[j, k] += grad


@inlined
def _gather_units(x, start, stop, winner_bits, count, scale, table, tables, vectors, sums):
    """Add to each unit of `count` outputs grad_y times x over the rows of [start, stop) that it wins.

    winner_bits is (blocks, outputs, pieces), scale flat of (blocks, outputs, _TABLE_ROWS), a block being
    _TABLE_ROWS rows; sums is flat of (tables, outputs, pieces, `vectors` vectors).
    """
    _, outputs, pieces = winner_bits.shape
    width = vectors * lanes_of(x)
    for t in range(tables):
        columns = min(width, x.shape[1] - t * width)
        for b, row in enumerate(range(start, stop, _TABLE_ROWS)):
            copy_rows(x, row, min(_TABLE_ROWS, stop - row), t * width, columns, table, width)
            for j in range(count):
                scale_at = (b * outputs + j) * _TABLE_ROWS
                for k in range(pieces):
                    bits = winner_bits[b, j, k]
                    if bits:
                        at = ((t * outputs + j) * pieces + k) * width
                        gather_by_bits(table, bits, scale, scale_at, vectors, sums, at)


@inlined
def _few_rows_units(x, winner_bits, scale, flat_grad, at, accumulate):
    """The units of grad_weight from `at` on, for at most FEW_ROWS rows, whose winners are in one block."""
    outputs, pieces = winner_bits.shape
    rows, in_features = x.shape
    flat_x = x.reshape(x.size)
    starts, scales = np.empty(FEW_ROWS, np.int64), np.empty(FEW_ROWS, flat_x.dtype)
    for j in range(outputs):
        for k in range(pieces):
            terms = 0
            for r in range(rows):
                if winner_bits[j, k] >> np.uint64(r) & np.uint64(1):
                    starts[terms], scales[terms] = r * in_features, scale[j * _TABLE_ROWS + r]
                    terms += 1
            unit = at + (j * pieces + k) * in_features
            sum_scaled_rows(flat_x, starts, 0, scales, 0, terms, in_features, flat_grad, unit, accumulate)


@inlined
def _max_cell_outputs(pieces):
    """Most outputs of a cell of grad_weight."""
    return max(_MIN_CELL_OUTPUTS, BLOCK_COLUMNS // pieces)


@compiled
def _grad_weight_cells(grad_y, x, argmax, pieces, grad_weight, grad_bias, accumulate, first, last):
    """Cells are blocks of outputs.  grad_weight (units, in_features) or grad_bias (units,) may be empty."""
    rows, in_features = x.shape
    out_features = grad_y.shape[1]
    _, outputs = split_evenly(out_features, _max_cell_outputs(pieces))
    tables, vectors = _table_width(in_features if grad_weight.size else 0, x, TABLE_VECTORS)
    width = vectors * lanes_of(x)
    subtotal_rows = SUBTOTAL if pieces <= _MANY_PIECES else SUBTOTAL // 2
    blocks = max(1, min(subtotal_rows // _TABLE_ROWS, (rows + _TABLE_ROWS - 1) // _TABLE_ROWS))

    few = rows <= FEW_ROWS
    flat_grad = grad_weight.reshape(grad_weight.size)
    table = new_buffer(0 if few else _TABLE_ROWS * width, x)
    totals = new_buffer(0 if few else tables * outputs * pieces * width, x)
    subtotals = new_buffer(totals.size if rows > blocks * _TABLE_ROWS else 0, x)  # after the first rows
    bias_sums = np.empty((outputs, pieces), x.dtype)
    partial = np.empty((outputs, pieces), x.dtype)
    winner_bits = np.empty((blocks, outputs, pieces), np.uint64)
    scale = new_buffer(blocks * outputs * _TABLE_ROWS, x)

    for cell in range(first, last):
        output = cell * outputs
        count = min(outputs, out_features - output)
        totals[:] = 0
        bias_sums[:] = 0
        for start in range(0, rows, blocks * _TABLE_ROWS):
            stop = min(start + blocks * _TABLE_ROWS, rows)
            for b, row in enumerate(range(start, stop, _TABLE_ROWS)):
                block_scale = scale.reshape(blocks, outputs, _TABLE_ROWS)[b]
                _find_winners(
                    grad_y, argmax, row, min(_TABLE_ROWS, rows - row), output,
                    winner_bits[b, :count], block_scale, partial[:count],
                )  # fmt: skip
                for j in range(count):
                    for k in range(pieces):
                        bias_sums[j, k] += partial[j, k]
            if not few:
                subtotals[:] = 0
                sums = subtotals if start else totals
                _gather_units(x, start, stop, winner_bits, count, scale, table, tables, vectors, sums)
                if start:
                    store(subtotals, 0, totals, 0, totals.size, True)
        if few and grad_weight.size:
            at = output * pieces * in_features
            _few_rows_units(x, winner_bits[0, :count], scale, flat_grad, at, accumulate)
        elif grad_weight.size:
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
    grad_y, x, argmax = as_carray(grad_y), as_carray(x), as_carray(argmax)
    if grad_x is not None:
        block_columns = _TABLES_AT_ONCE * GATHER_VECTORS * VECTOR_BYTES // x.itemsize
        pool.run(
            _grad_x_cells,
            pool.count_cells((in_features, block_columns), (len(x), BLOCK_ROWS)),
            work,
            threads,
            grad_y,
            as_carray(weight).reshape(units, in_features),
            pieces,
            argmax,
            grad_x,
        )
    if (grad_weight is not None and grad_weight.size) or grad_bias is not None:
        pool.run(
            _grad_weight_cells,
            pool.count_cells((out_features, _max_cell_outputs.py_func(pieces))),
            work,
            threads,
            grad_y,
            x,
            argmax,
            pieces,
            np.empty((0, 0), x.dtype) if grad_weight is None else grad_weight.reshape(units, in_features),
            or_empty(grad_bias, x.dtype, 2).reshape(-1),
            accumulate,
        )
