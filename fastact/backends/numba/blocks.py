"""Block sizes, and the helpers that cut arrays into blocks and copy them to buffers.

A block is copied to a buffer before it is used, so that its rows are contiguous in the cache.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import numpy as np

from .compile import compiled, inlined
from .vectors import TILE_VECTORS, VECTOR_BYTES, copy_elements

CUT = 128  # terms in one running sum, for accuracy; in a product, the depth block (KC)
SUBTOTAL = 1024  # terms whose partial sums are added up before they are added to the total, for accuracy
# The row block (MC), a multiple of TILE_ROWS.  The sums of a row block x column block stay in L2.
# bench/tuning: numba-block-rows
BLOCK_ROWS = 516
BLOCK_COLUMNS = 256  # the column block (NC): outputs times pieces, or columns of a gradient
CELL = 4096  # elements in a cell of an element-wise operation


@inlined
def split_evenly(total, limit):
    """The number of blocks of at most `limit` that hold `total`, and their size if they are even."""
    count = max(1, (total + limit - 1) // limit)
    return count, (total + count - 1) // count


@inlined
def lanes_of(array):
    """Elements of a vector register."""
    return VECTOR_BYTES // array.itemsize


@inlined
def panel_width(array):
    """Columns of a panel and of a micro-tile (NR)."""
    return TILE_VECTORS * lanes_of(array)


@inlined
def round_up(count, multiple):
    """The least multiple of `multiple` that is not below `count`."""
    return (count + multiple - 1) // multiple * multiple


@compiled
def new_buffer(count, like):
    """An array of `count` elements of like's dtype, aligned to a cache line, with any contents."""
    raw = np.empty(count + 64 // like.itemsize, like.dtype)
    skip = -raw.ctypes.data % 64 // raw.itemsize
    return raw[skip : skip + count]


@inlined
def copy_rows(source, row, rows, column, columns, block, step):
    """Copy source[row : row + rows, column : column + columns] to a flat block, its rows `step` apart."""
    flat = source.reshape(source.size)
    if columns == step == source.shape[1]:
        rows, columns = 1, rows * columns  # which is one long row
    for r in range(rows):
        copy_elements(flat, (row + r) * source.shape[1] + column, block, r * step, columns)


@compiled
def store(values, at, target, target_at, count, accumulate):
    """target[target_at :][:count] = values[at :][:count], or += with `accumulate`."""
    if accumulate:
        line = target[target_at : target_at + count]
        for i, value in enumerate(values[at : at + count]):
            line[i] += value
    else:
        copy_elements(values, at, target, target_at, count)
