"""Products: blocks packed into panels and multiplied by the micro-tile, or few rows without packing.

A block of the result, BLOCK_ROWS x BLOCK_COLUMNS (MC x NC), is summed in a buffer.  For each depth block
(KC), rows of the left operand and panels of the right one are copied to buffers, and micro-tiles (MR x NR)
pass over them.

With few rows, a pass over the weights takes longer than the arithmetic.  Then weights are read once, where
they are: a forward takes dot products, a gradient adds up scaled rows.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import numpy as np

from .blocks import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    CUT,
    SUBTOTAL,
    copy_rows,
    lanes_of,
    new_buffer,
    panel_width,
    round_up,
    split_evenly,
    store,
)
from .compile import compiled, inlined
from .vectors import (
    DOT_TILE_ROWS,
    DOT_UNITS,
    TILE_ROWS,
    add_dot_tile,
    copy_elements,
    multiply_micro_tile,
    sum_scaled_rows,
    transpose_square,
)

# Up to this many rows, use dot products on unpacked weights; packing would not pay off.
# bench/tuning: numba-dot-rows
DOT_ROWS = 16
_DOT_COLUMNS = 8  # up to this many units dot products, whatever the rows: panels would be mostly padding
# Up to this many rows of a gather, or terms of a sum, rows of the other operand are scaled and added up in
# place; and up to this many rows of a dense product.  bench/tuning: numba-few-rows
FEW_ROWS = 16
_FEW_DENSE_ROWS = 8
_FEW_ROWS_COLUMNS = 1024  # the column block of few rows, whose sums stay in L1
_FEW_TERMS_ROWS = 64  # the row block of few terms
_TERMS_AT_ONCE = 4  # terms that are added up in registers before they are added to a row of sums


@inlined
def _pack_columns(source, row, depth, column, columns, width, panels):
    """Pack source[row : row + depth, column : column + columns] to panels (columns / width, depth, width)."""
    flat = source.reshape(source.size)
    whole = columns // width * width
    for d in range(depth):
        at = (row + d) * source.shape[1] + column
        for first in range(0, whole, width):
            copy_elements(flat, at + first, panels, first * depth + d * width, width)
        copy_elements(flat, at + whole, panels, whole * depth + d * width, columns - whole)


@inlined
def _unit_starts(weight, pieces, output, outputs):
    """The index at which each unit begins in the flat weight, of the outputs [output, output + outputs).

    weight is (out_features * pieces, in_features).  The units are ordered (pieces, outputs), so that the
    maximum compares contiguous rows of outputs.  The last unit is repeated to fill a panel.
    """
    units = outputs * pieces
    starts = np.empty(round_up(units, panel_width(weight)), np.int64)
    for k in range(pieces):
        for j in range(outputs):
            starts[k * outputs + j] = ((output + j) * pieces + k) * weight.shape[1]
    for place in range(units, starts.size):
        starts[place] = starts[units - 1]
    return starts


@inlined
def _pack_units(weight, starts, column, depth, panels):
    """Pack columns [column, column + depth) of the units to panels (units / width, depth, width)."""
    flat = weight.reshape(weight.size)
    lanes, width = lanes_of(weight), panel_width(weight)
    whole = depth // lanes * lanes
    for first in range(0, starts.size, lanes):
        target = first // width * width * depth + first % width
        for d in range(0, whole, lanes):
            transpose_square(flat, starts, first, column + d, panels, target + d * width, width)
        for i in range(lanes):
            for d in range(whole, depth):
                panels[target + d * width + i] = flat[starts[first + i] + column + d]


@inlined
def _multiply_block(
    left, rows, row_step, depth_step, panels, columns, start, depth, total_depth, sums, subtotal, step
):
    """Add left @ panels, the depth block [start, start + depth) of `total_depth`, to the block `sums`.

    `sums` is (rows, columns), its rows `step` apart; TILE_ROWS rows of `left` are TILE_ROWS * depth numbers.
    The first SUBTOTAL terms are summed in `sums`, later ones in `subtotal`, which is added to `sums` when it
    is complete.
    """
    width = panel_width(sums)
    direct = start < SUBTOTAL
    if not direct and start % SUBTOTAL == 0:
        subtotal[: rows * step] = 0
    target = sums if direct else subtotal
    for column in range(0, columns, width):
        for row in range(0, rows, TILE_ROWS):
            multiply_micro_tile(
                left, row * depth, rows - row, row_step, depth_step,
                panels, column * depth, depth, target, row * step + column, step,
            )  # fmt: skip
    stop = start + depth
    if not direct and (stop == total_depth or stop % SUBTOTAL == 0):
        store(subtotal, 0, sums, 0, rows * step, True)


@inlined
def _add_dots(x, row, rows, weight, starts, units, sums, step):
    """Add x[row : row + rows] @ weight.T to the block `sums`, its rows `step` apart.

    The units of unpacked weight begin at `starts`, which has whole tiles of them.
    """
    in_features = x.shape[1]
    flat_x, flat_weight = x.reshape(x.size), weight.reshape(weight.size)
    most = min(SUBTOTAL, CUT * lanes_of(weight))  # each lane has a running sum
    for start in range(0, in_features, most):
        depth = min(most, in_features - start)
        for u in range(0, units, DOT_UNITS):
            for r in range(0, rows, DOT_TILE_ROWS):
                add_dot_tile(
                    flat_x, (row + r) * in_features + start, rows - r, in_features,
                    flat_weight, start, starts, u, depth, sums, r * step + u, step,
                )  # fmt: skip


@inlined
def sum_buffers(count, terms, accumulate, like):
    """The two buffers of `add_rows_in_place` for `count` sums of `terms` terms; empty if it needs none."""
    count = count if accumulate or terms > CUT else 0
    return new_buffer(count, like), new_buffer(count, like)


@inlined
def add_rows_in_place(
    flat, starts, starts_at, starts_step, scales, scales_at, scales_step, terms, buffers,
    rows, columns, out, out_at, out_step, accumulate,
):  # fmt: skip
    """For each row n of out, (rows, columns): the sum of scaled rows of `flat`.

    Term i of row n is scales[scales_at + n * scales_step + i] times the columns from
    starts[starts_at + n * starts_step + i] on.  All arrays are flat; rows of `out` begin at out_at and are
    out_step apart.  With `accumulate`, the sums are added to `out`.
    """
    totals, partial = buffers
    direct = terms <= CUT and not accumulate
    to, to_at, to_step = (out, out_at, out_step) if direct else (partial, 0, columns)
    for first in range(0, max(1, terms), CUT):
        last = min(first + CUT, terms)
        for i in range(first, max(1, last), _TERMS_AT_ONCE):
            count = min(_TERMS_AT_ONCE, last - i)
            for n in range(rows):
                sum_scaled_rows(
                    flat, starts, starts_at + n * starts_step + i, scales, scales_at + n * scales_step + i,
                    count, columns, to, to_at + n * to_step, i > first,
                )  # fmt: skip
        if not direct:
            store(partial, 0, totals, 0, rows * columns, first > 0)
    if not direct:
        for n in range(rows):
            store(totals, n * columns, out, out_at + n * out_step, columns, accumulate)


@inlined
def block_buffers(rows, columns, depth, packed, like):
    """Buffers for one block: its sums, their subtotal, rows of the left operand, panels of the right one.

    All are padded to whole micro-tiles; what the padding holds is of no account.  If operands are not
    `packed`, there are sums alone.
    """
    rows = round_up(rows, TILE_ROWS)
    columns = round_up(columns, panel_width(like))
    sums = new_buffer(rows * columns, like)
    subtotal = new_buffer(sums.size if packed and depth > SUBTOTAL else 0, like)
    depth = min(CUT, depth) if packed else 0
    return sums, subtotal, new_buffer(rows * depth, like), new_buffer(columns * depth, like)


@inlined
def is_packed(rows, units, dot_rows):
    """Whether a block of `preactivations` is a product of packed operands, not of dot products."""
    return rows > dot_rows and units > _DOT_COLUMNS


@inlined
def preactivations(x, row, rows, weight, pieces, output, outputs, bias, buffers, packed):
    """Compute the pre-activations of a block to buffers[0], (rows, pieces, outputs); return its row step.

    weight is (out_features * pieces, in_features), bias flat of that length, or empty.  If operands are not
    `packed`, sums are dot products.
    """
    sums, subtotal, left, panels = buffers
    in_features = x.shape[1]
    starts = _unit_starts(weight, pieces, output, outputs)
    step = starts.size
    sums[:step] = 0
    if bias.size:
        for k in range(pieces):
            for j in range(outputs):
                sums[k * outputs + j] = bias[(output + j) * pieces + k]
    filled = 1
    while filled < rows:  # twice as many rows at each step
        count = min(filled, rows - filled)
        copy_elements(sums, 0, sums, filled * step, count * step)
        filled += count
    if not packed:
        _add_dots(x, row, rows, weight, starts, outputs * pieces, sums, step)
        return step
    for start in range(0, in_features, CUT):
        depth = min(CUT, in_features - start)
        copy_rows(x, row, rows, start, depth, left, depth)
        _pack_units(weight, starts, start, depth, panels)
        _multiply_block(left, rows, depth, 1, panels, step, start, depth, in_features, sums, subtotal, step)
    return step


@inlined
def _product_blocks(rows, columns, depth):
    """The number of blocks along the columns, the columns of a block, and the same of the rows."""
    most_columns, most_rows = BLOCK_COLUMNS, BLOCK_ROWS
    if depth <= FEW_ROWS:
        most_columns, most_rows = max(1, columns), _FEW_TERMS_ROWS
    elif rows <= _FEW_DENSE_ROWS:
        most_columns = _FEW_ROWS_COLUMNS
    return split_evenly(columns, most_columns) + split_evenly(rows, most_rows)


@compiled
def count_product_cells(rows, columns, depth):
    """The cells of `product_cells`, for a product of (rows, depth) and (depth, columns)."""
    column_blocks, _, row_blocks, _ = _product_blocks(rows, columns, depth)
    return column_blocks * row_blocks if rows * columns else 0


@inlined
def _few_terms_cells(a, transposed, b, out, accumulate, block_rows, first, last):
    """`product_cells` where b has few rows: each row of out is a sum of a few scaled rows of b."""
    rows, columns = out.shape
    flat, flat_out = b.reshape(b.size), out.reshape(out.size)
    starts, scales = np.empty(len(b), np.int64), np.empty(len(b), b.dtype)
    for d in range(len(b)):
        starts[d] = d * columns
    for r in range(first * block_rows, min(last * block_rows, rows)):
        for d in range(len(b)):
            scales[d] = a[d, r] if transposed else a[r, d]
        sum_scaled_rows(flat, starts, 0, scales, 0, len(b), columns, flat_out, r * columns, accumulate)


@inlined
def _few_rows_cells(a, transposed, b, out, accumulate, block_columns, first, last):
    """`product_cells` where out has few rows: b is read once, where it is."""
    rows, columns = out.shape
    flat, flat_out = b.reshape(b.size), out.reshape(out.size)
    depth = len(b)
    starts, scales = np.empty(depth, np.int64), np.empty(rows * depth, b.dtype)
    buffers = sum_buffers(rows * block_columns, depth, accumulate, b)
    for r in range(rows):
        for d in range(depth):
            scales[r * depth + d] = a[d, r] if transposed else a[r, d]
    for cell in range(first, last):
        column = cell * block_columns
        for d in range(depth):
            starts[d] = d * columns + column
        add_rows_in_place(
            flat, starts, 0, 0, scales, 0, depth, depth, buffers,
            rows, min(block_columns, columns - column), flat_out, column, columns, accumulate,
        )  # fmt: skip


@compiled
def product_cells(a, transposed, b, out, accumulate, first, last):
    """out (rows, columns) = a @ b, of a (rows, depth) or, transposed, (depth, rows); b is (depth, columns).

    Cells are (blocks of columns) x (blocks of rows), as many as `count_product_cells` says.
    """
    if first == last:
        return
    rows, columns = out.shape
    _, block_columns, row_blocks, block_rows = _product_blocks(rows, columns, len(b))
    if len(b) <= FEW_ROWS:
        _few_terms_cells(a, transposed, b, out, accumulate, block_rows, first, last)
        return
    if rows <= _FEW_DENSE_ROWS:
        _few_rows_cells(a, transposed, b, out, accumulate, block_columns, first, last)
        return
    sums, subtotal, left, panels = block_buffers(block_rows, block_columns, len(b), True, b)
    flat_out = out.reshape(out.size)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        width = min(block_columns, columns - column)
        height = min(block_rows, rows - row)
        step = round_up(width, panel_width(b))
        sums[: height * step] = 0
        for start in range(0, len(b), CUT):
            depth = min(CUT, len(b) - start)
            if transposed:
                _pack_columns(a, start, depth, row, height, TILE_ROWS, left)
            else:
                copy_rows(a, row, height, start, depth, left, depth)
            row_step, depth_step = (1, TILE_ROWS) if transposed else (depth, 1)
            _pack_columns(b, start, depth, column, width, panel_width(b), panels)
            _multiply_block(
                left, height, row_step, depth_step, panels, width, start, depth, len(b), sums, subtotal, step
            )
        for r in range(height):
            store(sums, r * step, flat_out, (row + r) * columns + column, width, accumulate)
