"""Products: blocks packed into panels and multiplied by the micro-tile, or dot products for a row or two.

A block of the result, BLOCK_ROWS x BLOCK_COLUMNS (MC x NC), is summed in a buffer.  For each depth block
(KC), rows of the left operand and panels of the right one are copied to buffers, and micro-tiles (MR x NR)
pass over them.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from functools import partial

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
from .compile import compiled
from .vectors import TILE_ROWS, copy_elements, multiply_micro_tile, transpose_square

# Up to this many rows, use dot products on unpacked weights; packing would not pay off.
# bench/tuning: numba-dot-rows
DOT_ROWS = 2


@compiled
def _pack_columns(source, row, depth, column, columns, width, panels):
    """Pack source[row : row + depth, column : column + columns] to panels (columns / width, depth, width)."""
    flat = source.reshape(source.size)
    whole = columns // width * width
    for d in range(depth):
        at = (row + d) * source.shape[1] + column
        for first in range(0, whole, width):
            copy_elements(flat, at + first, panels, first * depth + d * width, width)
        copy_elements(flat, at + whole, panels, whole * depth + d * width, columns - whole)


@compiled
def _unit_starts(weight, pieces, output, outputs):
    """The index at which each unit begins in the flat weight, of the outputs [output, output + outputs).

    weight is (out_features * pieces, in_features).  The units are ordered (pieces, outputs), so that the
    maximum compares contiguous rows of outputs.  The last unit is repeated to fill a panel.
    """
    units = outputs * pieces
    starts = np.empty(round_up(units, panel_width(weight)), np.int64)
    for place in range(starts.size):
        unit = min(place, units - 1)
        starts[place] = ((output + unit % outputs) * pieces + unit // outputs) * weight.shape[1]
    return starts


@compiled
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


@compiled
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


@partial(compiled, reassociate=True)
def _dot(a, b):
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled
def _add_dots(x, row, rows, weight, starts, units, sums, step):
    """Add x[row : row + rows] @ weight.T to the block `sums`, its rows `step` apart.

    The units of unpacked weight begin at `starts`.
    """
    in_features = weight.shape[1]
    flat = weight.reshape(weight.size)
    for u in range(units):
        for r in range(rows):
            for first in range(0, in_features, SUBTOTAL):
                stop = min(first + SUBTOTAL, in_features)
                sums[r * step + u] += _dot(x[row + r, first:stop], flat[starts[u] + first : starts[u] + stop])


@compiled
def block_buffers(rows, columns, depth, like):
    """Buffers for one block: its sums, their subtotal, rows of the left operand, panels of the right one.

    All are padded to whole micro-tiles.
    """
    rows = round_up(rows, TILE_ROWS)
    columns = round_up(columns, panel_width(like))
    sums = new_buffer(rows * columns, like)
    subtotal = new_buffer(sums.size if depth > SUBTOTAL else 0, like)
    return sums, subtotal, new_buffer(rows * CUT, like), new_buffer(columns * CUT, like)


@compiled
def preactivations(x, row, rows, weight, pieces, output, outputs, bias, buffers, dot_rows):
    """Compute the pre-activations of a block to buffers[0], (rows, pieces, outputs); return its row step.

    weight is (out_features * pieces, in_features), bias flat of that length, or empty.
    """
    sums, subtotal, left, panels = buffers
    in_features = weight.shape[1]
    starts = _unit_starts(weight, pieces, output, outputs)
    step = starts.size
    bias_row = np.zeros(step, x.dtype)
    if bias.size:
        for k in range(pieces):
            for j in range(outputs):
                bias_row[k * outputs + j] = bias[(output + j) * pieces + k]
    for r in range(rows):
        copy_elements(bias_row, 0, sums, r * step, step)
    if rows <= dot_rows:
        _add_dots(x, row, rows, weight, starts, outputs * pieces, sums, step)
        return step
    for start in range(0, in_features, CUT):
        depth = min(CUT, in_features - start)
        copy_rows(x, row, rows, start, depth, left, depth)
        _pack_units(weight, starts, start, depth, panels)
        _multiply_block(left, rows, depth, 1, panels, step, start, depth, in_features, sums, subtotal, step)
    return step


@compiled
def product_cells(a, transposed, b, out, accumulate, first, last):
    """out (rows, columns) = a @ b, of a (rows, depth) or, transposed, (depth, rows); b is (depth, columns).

    Cells are (blocks of columns) x (blocks of rows).
    """
    rows, columns = out.shape
    _, block_columns = split_evenly(columns, BLOCK_COLUMNS)
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    sums, subtotal, left, panels = block_buffers(block_rows, block_columns, len(b), b)
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
