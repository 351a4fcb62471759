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
from . import pool
from .arguments import as_carray, or_empty
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, SUBTOTAL, copy_rows, lanes_of, new_buffer, split_evenly, store
from .compile import compiled, inlined
from .maximum import check_argmax
from .product import FEW_ROWS, add_rows_in_place, sum_buffers
from .vectors import (
    BYTE_LANES,
    GATHER_VECTORS,
    TABLE_VECTORS,
    VECTOR_BYTES,
    copy_elements,
    equal_bits,
    gather_by_argmax,
    gather_by_bits,
    lowest_bit,
    sum_by_bits,
    sum_scaled_rows,
    transpose_square,
)

Array = np.ndarray[Any, Any]

# Tables of weights, for grad_x.
_TABLE_BYTES = 32 * 1024  # a table stays in L1
_TABLE_OUTPUTS = 32  # upper limit: a larger table sums more terms at once.  bench/tuning: numba-table-outputs
_MIN_TABLE_OUTPUTS = 8  # lower limit, even for many pieces, so that there are few partial sums
_TABLES_AT_ONCE = 4  # tables filled together, so that rows of weights are read in long runs
_SUBTOTAL_OUTPUTS = 256  # most outputs in a subtotal of grad_x, for accuracy
_MIN_SUBTOTAL_OUTPUTS = 64  # least outputs in a subtotal, even for many pieces

_FEW_OUTPUTS = 8  # up to so many outputs, weights are not copied to tables

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
def _fill_tables(weight, unit, units, column, columns, width, tables):
    """Copy `columns` columns of units of weight to tables (columns / width, units, width)."""
    flat = weight.reshape(weight.size)
    for u in range(units):
        at = (unit + u) * weight.shape[2] + column
        for first in range(0, columns, width):
            copy_elements(flat, at + first, tables, first * units + u * width, min(width, columns - first))


@inlined
def _few_terms_cells(flat_grad, weight, flat_argmax, grad_x, grid, first, last):
    """`_grad_x_cells` for few rows or few outputs: the winners are read where they are.

    `grid`: the columns of a cell, the blocks of rows, and the rows of a cell.
    """
    block_columns, row_blocks, block_rows = grid
    rows, in_features = grad_x.shape
    out_features, pieces, _ = weight.shape
    flat_weight, flat_grad_x = weight.reshape(weight.size), grad_x.reshape(grad_x.size)
    most_rows = min(FEW_ROWS, block_rows)
    starts = np.empty(most_rows * out_features, np.int64)
    buffers = sum_buffers(most_rows * block_columns, out_features, False, weight)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        columns = min(block_columns, in_features - column)
        stop = min(row + block_rows, rows)
        for r in range(row, stop, most_rows):
            count = min(most_rows, stop - r)
            at = r * out_features
            for n in range(count):
                for j in range(out_features):
                    place = n * out_features + j
                    winner = min(np.int64(flat_argmax[at + place]), pieces - 1)  # another thread may write
                    starts[place] = (j * pieces + winner) * in_features + column
            add_rows_in_place(
                flat_weight, starts, 0, out_features, flat_grad, at, out_features, out_features, buffers,
                count, columns, flat_grad_x, r * in_features + column, in_features, False,
            )  # fmt: skip


@compiled
def _grad_x_cells(grad_y, weight, argmax, grad_x, first, last):
    """Cells are (blocks of columns) x (blocks of rows)."""
    rows, in_features = grad_x.shape
    out_features, pieces, _ = weight.shape
    flat_grad, flat_argmax = grad_y.reshape(grad_y.size), argmax.reshape(argmax.size)
    flat_grad_x = grad_x.reshape(grad_x.size)
    table_count, vectors = _table_width(in_features, weight, GATHER_VECTORS)
    width = vectors * lanes_of(weight)
    _, tables_at_once = split_evenly(table_count, _TABLES_AT_ONCE)
    block_columns = tables_at_once * width
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    if rows <= FEW_ROWS or out_features <= _FEW_OUTPUTS:
        grid = block_columns, row_blocks, block_rows
        _few_terms_cells(flat_grad, weight, flat_argmax, grad_x, grid, first, last)
        return
    outputs = min(_TABLE_OUTPUTS, _TABLE_BYTES // (pieces * width * weight.itemsize))
    outputs = min(out_features, max(_MIN_TABLE_OUTPUTS, outputs))
    subtotal_outputs = min(_SUBTOTAL_OUTPUTS, 128 * _MANY_PIECES // pieces)
    subtotal_outputs = max(_MIN_SUBTOTAL_OUTPUTS, subtotal_outputs)
    tables = new_buffer(outputs * pieces * block_columns, weight)
    sums = new_buffer(block_rows * block_columns, weight)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        columns = min(block_columns, in_features - column)
        height = min(block_rows, rows - row)
        begins, added = True, False  # whether a subtotal begins, and whether grad_x has one
        for output in range(0, out_features, outputs):
            count = min(outputs, out_features - output)
            units = count * pieces
            _fill_tables(weight, output * pieces, units, column, columns, width, tables)
            end = output + count
            ends = end == out_features or end // subtotal_outputs > output // subtotal_outputs
            for start in range(0, columns, width):
                table = tables[start * units : (start + width) * units]
                sums_at, here = start * block_rows, min(width, columns - start)
                to, to_at, to_step = flat_grad_x, row * in_features + column + start, in_features
                direct = ends and here == width
                out, out_at, out_step = (to, to_at, to_step) if direct else (sums, sums_at, width)
                for n in range(height):
                    at = (row + n) * out_features + output
                    gather_by_argmax(
                        table, pieces, flat_argmax, flat_grad, at, count, vectors,
                        sums, sums_at + n * width, not begins, out, out_at + n * out_step, direct and added,
                    )  # fmt: skip
                if ends and not direct:
                    for n in range(height):
                        store(sums, sums_at + n * width, to, to_at + n * to_step, here, added)
            begins = ends
            added = added or ends


@inlined
def _transpose(source, starts, rows, columns, side, target, target_at):
    """Transpose rows of `source` that begin at `starts` to target (columns, _TABLE_ROWS), in squares.

    The last start is repeated for whole squares.
    """
    if columns < side:
        for c in range(columns):
            for r in range(rows):
                target[target_at + c * _TABLE_ROWS + r] = source[starts[r] + c]
        return
    for place in range(0, columns, side):
        c = min(place, columns - side)
        for r in range(0, rows, side):
            transpose_square(source, starts, r, c, target, target_at + c * _TABLE_ROWS + r, _TABLE_ROWS)


@inlined
def _find_winners(grad_y, argmax, row, rows, output, outputs, pieces, buffers, block_at):
    """Find the winner of each row and output, for rows [row, row + rows) and the outputs from `output` on.

    Bit r of winner_bits[block_at + j, k] is set if piece k is the winner of output j in row r.
    scale[block_at + j, r] is grad_y of that row and output.  Both are flat, with `pieces` and _TABLE_ROWS
    columns.
    """
    winner_bits, scale, winners, starts = buffers
    flat_grad, flat_argmax = grad_y.reshape(grad_y.size), argmax.reshape(argmax.size)
    for r in range(_TABLE_ROWS):
        starts[r] = (row + min(r, rows - 1)) * grad_y.shape[1] + output
    _transpose(flat_grad, starts, rows, outputs, lanes_of(grad_y), scale, block_at * _TABLE_ROWS)
    _transpose(flat_argmax, starts, rows, outputs, BYTE_LANES, winners, 0)
    inside = ~np.uint64(0) if rows == _TABLE_ROWS else (np.uint64(1) << np.uint64(rows)) - np.uint64(1)
    for j in range(outputs):
        for k in range(pieces):
            # another thread may write values beyond pieces - 1 to argmax
            bits = equal_bits(winners, j * _TABLE_ROWS, k, pieces - 1)
            winner_bits[(block_at + j) * pieces + k] = bits & inside


@inlined
def _gather_units(
    x, start, stop, pieces, outputs, count, buffers, table, tables, width, partial, out, out_at, accumulate
):
    """The units of `count` outputs: the sum of grad_y times x over the rows of [start, stop) that each wins.

    A block is _TABLE_ROWS rows, and has `outputs` outputs in winner_bits and scale of `_find_winners`.
    out[out_at :] is (units, in_features).
    """
    winner_bits, scale, _, _ = buffers
    in_features = x.shape[1]
    for t in range(tables):
        column = t * width
        columns = min(width, in_features - column)
        vectors = (columns + lanes_of(x) - 1) // lanes_of(x)
        step = vectors * lanes_of(x)
        for b, row in enumerate(range(start, stop, _TABLE_ROWS)):
            copy_rows(x, row, min(_TABLE_ROWS, stop - row), column, columns, table, step)
            ends = row + _TABLE_ROWS >= stop
            direct = ends and columns == step
            to = out if direct else partial
            to_at, to_step = (out_at + column, in_features) if direct else (0, step)
            for j in range(count):
                scale_at = (b * outputs + j) * _TABLE_ROWS
                for unit in range(j * pieces, (j + 1) * pieces):
                    bits = winner_bits[b * outputs * pieces + unit]
                    gather_by_bits(
                        table, bits, scale, scale_at, vectors, partial, unit * step, b > 0,
                        to, to_at + unit * to_step, direct and accumulate,
                    )  # fmt: skip
            if ends and not direct:
                for unit in range(count * pieces):
                    store(
                        partial, unit * step, out, out_at + unit * in_features + column, columns, accumulate
                    )


@inlined
def _few_rows_units(x, outputs, pieces, buffers, flat_grad, at, accumulate):
    """The units of grad_weight from `at` on, for at most FEW_ROWS rows, whose winners are in one block."""
    winner_bits, scale, _, _ = buffers
    in_features = x.shape[1]
    flat_x = x.reshape(x.size)
    starts, scales = np.empty(FEW_ROWS, np.int64), np.empty(FEW_ROWS, flat_x.dtype)
    for unit in range(outputs * pieces):
        bits, terms = winner_bits[unit], 0
        while bits:
            r = lowest_bit(bits)
            starts[terms], scales[terms] = r * in_features, scale[unit // pieces * _TABLE_ROWS + r]
            bits &= bits - np.uint64(1)
            terms += 1
        place = at + unit * in_features
        sum_scaled_rows(flat_x, starts, 0, scales, 0, terms, in_features, flat_grad, place, accumulate)


@inlined
def _max_cell_outputs(pieces):
    """Most outputs of a cell of grad_weight."""
    return max(_MIN_CELL_OUTPUTS, BLOCK_COLUMNS // pieces)


@compiled
def _grad_weight_cells(grad_y, x, argmax, pieces, grad_weight, grad_bias, accumulate, first, last):
    """Cells are blocks of outputs.  grad_weight or grad_bias may be empty."""
    rows, in_features = x.shape
    out_features = grad_y.shape[1]
    _, outputs = split_evenly(out_features, _max_cell_outputs(pieces))
    tables, vectors = _table_width(in_features if grad_weight.size else 0, x, TABLE_VECTORS)
    width = vectors * lanes_of(x)
    subtotal_rows = SUBTOTAL if pieces <= _MANY_PIECES else SUBTOTAL // 2
    blocks = max(1, min(subtotal_rows // _TABLE_ROWS, (rows + _TABLE_ROWS - 1) // _TABLE_ROWS))

    few, several = rows <= FEW_ROWS, rows > blocks * _TABLE_ROWS
    flat_grad, flat_grad_bias = grad_weight.reshape(grad_weight.size), grad_bias.reshape(grad_bias.size)
    table = new_buffer(0 if few else _TABLE_ROWS * width, x)
    partial = new_buffer(0 if few else outputs * pieces * width, x)
    totals = new_buffer(outputs * pieces * in_features if several and tables else 0, x)
    sums = totals if several else flat_grad
    bias_sums = np.empty(outputs * pieces, x.dtype)
    buffers = (
        np.empty(blocks * outputs * pieces, np.uint64),
        new_buffer(blocks * outputs * _TABLE_ROWS, x),
        np.empty(outputs * _TABLE_ROWS, np.uint8),
        np.empty(_TABLE_ROWS, np.int64),
    )
    for cell in range(first, last):
        output = cell * outputs
        count = min(outputs, out_features - output)
        at = output * pieces * in_features
        bias_sums[:] = 0
        for start in range(0, max(1, rows), blocks * _TABLE_ROWS):
            stop = min(start + blocks * _TABLE_ROWS, rows)
            for b, row in enumerate(range(start, max(1, stop), _TABLE_ROWS)):
                height = min(_TABLE_ROWS, rows - row)
                _find_winners(grad_y, argmax, row, height, output, count, pieces, buffers, b * outputs)
                for unit in range(count * pieces if grad_bias.size else 0):
                    scale_at = (b * outputs + unit // pieces) * _TABLE_ROWS
                    bits = buffers[0][b * outputs * pieces + unit]
                    bias_sums[unit] += sum_by_bits(buffers[1], scale_at, bits)
            if few and grad_weight.size:
                _few_rows_units(x, count, pieces, buffers, flat_grad, at, accumulate)
            elif not few:
                _gather_units(
                    x, start, stop, pieces, outputs, count, buffers, table, tables, width, partial,
                    sums, 0 if several else at, start > 0 if several else accumulate,
                )  # fmt: skip
        if several and grad_weight.size:
            store(totals, 0, flat_grad, at, count * pieces * in_features, accumulate)
        if grad_bias.size:
            store(bias_sums, 0, flat_grad_bias, output * pieces, count * pieces, accumulate)


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
    grad_y, x, argmax = as_carray(grad_y), as_carray(x), as_carray(argmax)
    check_argmax(argmax, pieces)
    work = 2.0 * grad_y.size * in_features
    if grad_x is not None:
        block_columns = _TABLES_AT_ONCE * GATHER_VECTORS * VECTOR_BYTES // x.itemsize
        pool.run(
            _grad_x_cells,
            pool.count_cells((in_features, block_columns), (len(x), BLOCK_ROWS)),
            work,
            threads,
            grad_y,
            as_carray(weight),
            argmax,
            grad_x,
        )
    if (grad_weight is not None and grad_weight.size) or grad_bias is not None:
        pool.run(
            _grad_weight_cells,
            pool.count_cells((out_features, max(_MIN_CELL_OUTPUTS, BLOCK_COLUMNS // pieces))),
            work,
            threads,
            grad_y,
            x,
            argmax,
            pieces,
            or_empty(grad_weight, x.dtype, 3),
            or_empty(grad_bias, x.dtype, 2),
            accumulate,
        )
