"""Blocks of arrays: how a product is cut, and the buffers that its blocks are copied to.

A block is copied before it is used, so its rows lie one after the other in the cache.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compile import compiled
from .vectors import TILE_VECTORS, VECTOR_BYTES, copy_line

Array = np.ndarray[Any, Any]

CUT = 128  # terms in one running sum; adding the partial sums apart keeps the rounding error small
CHUNK = 1024  # terms whose partial sums have a total of their own
# A block of rows x BLOCK_COLUMNS stays in L2; a multiple of TILE_ROWS.  480 rows or more take 3 to 8% less
# time than 240, forward and grad_x, at 1024 x 1024 x 1024 x 2 and 1024 x 288 x 96 x 3; with 516, 1024 rows
# are two blocks, which two threads can share.
BLOCK_ROWS = 516
BLOCK_COLUMNS = 256
CELL = 4096  # elements in a cell of an element-wise operation


@compiled
def split_evenly(total, limit):
    """Into how many blocks of at most `limit`, and of what size, to split `total`, as evenly as can be."""
    count = max(1, (total + limit - 1) // limit)
    return count, (total + count - 1) // count


@compiled
def lanes_of(array):
    return VECTOR_BYTES // array.itemsize


@compiled
def panel_width(array):
    """Columns of a register tile."""
    return TILE_VECTORS * lanes_of(array)


@compiled
def round_up(count, multiple):
    return (count + multiple - 1) // multiple * multiple


@compiled
def new_buffer(count, like):
    """`count` zeros of like's dtype, aligned to a cache line."""
    raw = np.zeros(count + 64 // like.itemsize, like.dtype)
    skip = -raw.ctypes.data % 64 // raw.itemsize
    return raw[skip : skip + count]


@compiled
def copy_rows(source, row, rows, column, columns, block, step):
    """source[row : row + rows, column : column + columns] to a flat block whose rows are `step` apart."""
    flat = source.reshape(source.size)
    for r in range(rows):
        copy_line(flat, (row + r) * source.shape[1] + column, block, r * step, columns)


@compiled
def store(values, at, target, target_at, count, accumulate):
    """target[target_at :][:count] = values[at :][:count], or += where it accumulates."""
    if accumulate:
        line = target[target_at : target_at + count]
        for i, value in enumerate(values[at : at + count]):
            line[i] += value
    else:
        copy_line(values, at, target, target_at, count)


def own(array: Array) -> Array:
    """`array`, or a copy where it is read-only or misaligned: Numba would compile every kernel again."""
    return array if array.flags.carray else np.array(array)


def or_empty(array: Array | None, like: Array, dims: int) -> Array:
    """None as an empty array, so that a kernel is compiled once."""
    return np.empty((0,) * dims, like.dtype) if array is None else own(array)


def count_cells(*counts_and_limits: tuple[int, int]) -> int:
    return math.prod(-(-count // limit) for count, limit in counts_and_limits)
