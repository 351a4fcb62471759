"""Products: blocks packed into panels and multiplied by the register tile, or dots for a row or two."""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from functools import partial

import numpy as np

from .blocks import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    CHUNK,
    CUT,
    copy_rows,
    lanes_of,
    new_buffer,
    panel_width,
    round_up,
    split_evenly,
    store,
)
from .compile import compiled
from .vectors import TILE_ROWS, copy_line, multiply_tile, transpose_square

# Up to this many rows, use dot products on the unpacked weights; packing would not pay off.  1, 2 and 4 rows
# of 1024 x 1024 x 2 take 135, 180 and 300 us with dots, 305, 250 and 330 packed; of 288 x 96 x 3 they take
# 12, 15 and 22 us with dots, 17, 17 and 18 packed.
DOT_ROWS = 2


@compiled
def pack_columns(source, row, depth, column, columns, width, panels):
    """source[row : row + depth, column : column + columns] to panels (columns / width, depth, width)."""
    flat = source.reshape(source.size)
    whole = columns // width * width
    for d in range(depth):
        at = (row + d) * source.shape[1] + column
        for first in range(0, whole, width):
            copy_line(flat, at + first, panels, first * depth + d * width, width)
        copy_line(flat, at + whole, panels, whole * depth + d * width, columns - whole)


@compiled
def _unit_starts(weight, pieces, output, outputs):
    """Where the units of `outputs` outputs begin in the flat weight (out_features * pieces, in_features).

    They come in the order (pieces, outputs), so that a maximum runs over whole rows of outputs; the last
    one is repeated to fill a panel.
    """
    units = outputs * pieces
    starts = np.empty(round_up(units, panel_width(weight)), np.int64)
    for place in range(starts.size):
        unit = min(place, units - 1)
        starts[place] = ((output + unit % outputs) * pieces + unit // outputs) * weight.shape[1]
    return starts


@compiled
def _pack_units(weight, starts, column, depth, panels):
    """Columns [column, column + depth) of the units, to panels (units / width, depth, width)."""
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
def multiply_block(x, rows, row_step, depth_step, panels, columns, start, depth, total, tile, spare, step):
    """Add x @ panels, the terms [start, start + depth) of `total`, to the tile (rows, columns).

    TILE_ROWS rows of x take TILE_ROWS * depth elements; rows of the tile are `step` apart.  Each chunk
    after the first is summed in `spare`, and added when it is complete.
    """
    width = panel_width(tile)
    first_chunk = start < CHUNK
    if not first_chunk and start % CHUNK == 0:
        spare[: rows * step] = 0
    sums = tile if first_chunk else spare
    for column in range(0, columns, width):
        for row in range(0, rows, TILE_ROWS):
            sums_at = row * step + column
            multiply_tile(
                x, row * depth, rows - row, row_step, depth_step,
                panels, column * depth, depth, sums, sums_at, step,
            )  # fmt: skip
    stop = start + depth
    if not first_chunk and (stop == total or stop % CHUNK == 0):
        store(spare, 0, tile, 0, rows * step, True)


@partial(compiled, reassociate=True)
def _dot(a, b):
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled
def _add_dots(x, row, rows, weight, starts, units, tile, step):
    """Add x @ weight.T, of the units that begin at `starts` in flat weights, to the tile.

    Rows of the tile are `step` apart.
    """
    in_features = weight.shape[1]
    flat = weight.reshape(weight.size)
    for u in range(units):
        for r in range(rows):
            for first in range(0, in_features, CHUNK):
                stop = min(first + CHUNK, in_features)
                tile[r * step + u] += _dot(x[row + r, first:stop], flat[starts[u] + first : starts[u] + stop])


@compiled
def tile_buffers(rows, columns, depth, like):
    """Two tiles, a block of x and panels of weights, padded to whole register tiles."""
    rows = round_up(rows, TILE_ROWS)
    columns = round_up(columns, panel_width(like))
    tile = new_buffer(rows * columns, like)
    spare = new_buffer(tile.size if depth > CHUNK else 0, like)
    return tile, spare, new_buffer(rows * CUT, like), new_buffer(columns * CUT, like)


@compiled
def preactivations(x, row, rows, weight, pieces, output, outputs, bias, buffers, dot_rows):
    """The pre-activations of a block, (rows, pieces, outputs) in buffers[0]; returns the step of its rows.

    weight is (out_features * pieces, in_features), bias flat of that length, or empty.
    """
    tile, spare, block, panels = buffers
    in_features = weight.shape[1]
    starts = _unit_starts(weight, pieces, output, outputs)
    step = starts.size
    first = np.zeros(step, x.dtype)
    if bias.size:
        for k in range(pieces):
            for j in range(outputs):
                first[k * outputs + j] = bias[(output + j) * pieces + k]
    for r in range(rows):
        copy_line(first, 0, tile, r * step, step)
    if rows <= dot_rows:
        _add_dots(x, row, rows, weight, starts, outputs * pieces, tile, step)
        return step
    for column in range(0, in_features, CUT):
        depth = min(CUT, in_features - column)
        copy_rows(x, row, rows, column, depth, block, depth)
        _pack_units(weight, starts, column, depth, panels)
        multiply_block(block, rows, depth, 1, panels, step, column, depth, in_features, tile, spare, step)
    return step


@compiled
def product_cells(a, transposed, b, out, accumulate, first, last):
    """out (rows, columns) = a @ b, of a (rows, depth) or, transposed, (depth, rows); b is (depth, columns).

    Cells are (blocks of columns) x (blocks of rows).
    """
    rows, columns = out.shape
    _, block_columns = split_evenly(columns, BLOCK_COLUMNS)
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    tile, spare, block, panels = tile_buffers(block_rows, block_columns, len(b), b)
    flat_out = out.reshape(out.size)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        width = min(block_columns, columns - column)
        height = min(block_rows, rows - row)
        step = round_up(width, panel_width(b))
        tile[: height * step] = 0
        for start in range(0, len(b), CUT):
            depth = min(CUT, len(b) - start)
            if transposed:
                pack_columns(a, start, depth, row, height, TILE_ROWS, block)
            else:
                copy_rows(a, row, height, start, depth, block, depth)
            row_step, depth_step = (1, TILE_ROWS) if transposed else (depth, 1)
            pack_columns(b, start, depth, column, width, panel_width(b), panels)
            multiply_block(
                block, height, row_step, depth_step, panels, width, start, depth, len(b), tile, spare, step
            )
        for r in range(height):
            store(tile, r * step, flat_out, (row + r) * columns + column, width, accumulate)


@compiled
def column_sums_cells(a, out, accumulate, first, last):
    """out (columns,) = the sum over the rows of a; a cell is CUT columns."""
    total = np.empty(CUT, a.dtype)
    partial = np.empty(CUT, a.dtype)
    for start in range(first * CUT, min(last * CUT, out.size), CUT):
        count = min(CUT, out.size - start)
        total[:] = 0
        for row in range(0, len(a), CUT):
            partial[:] = 0
            for n in range(row, min(row + CUT, len(a))):
                for c in range(count):
                    partial[c] += a[n, start + c]
            total += partial
        store(total, 0, out, start, count, accumulate)
