"""Linear + activation, forward and backward: products, the activation on each block of the forward's."""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np

from ...activations import Activation
from ...settings import Precision
from . import pool
from .activations import activate, activation_backward, parameters_of
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, CUT, count_cells, or_empty, own, split_evenly
from .compile import compiled
from .product import DOT_ROWS, column_sums_cells, preactivations, product_cells, tile_buffers

Array = np.ndarray[Any, Any]


@compiled
def _linear_activation_cells(x, weight, bias, code, parameters, y, z, dot_rows, first, last):
    """Cells as in _linear_maxout_cells, with one piece; z may be empty."""
    rows, out_features = y.shape
    _, outputs = split_evenly(out_features, BLOCK_COLUMNS)
    row_blocks, block_rows = split_evenly(rows, BLOCK_ROWS)
    buffers = tile_buffers(block_rows, outputs, x.shape[1], x)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = preactivations(x, row, stop - row, weight, 1, output, count, bias, buffers, dot_rows)
        for n in range(row, stop):
            at = (n - row) * step
            for j in range(count):
                parameter = np.float64(parameters[(output + j) % parameters.size])
                y[n, output + j] = activate(code, parameter, np.float64(buffers[0][at + j]))
            if z.size:
                for j in range(count):
                    z[n, output + j] = buffers[0][at + j]


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
        count_cells((out_features, BLOCK_COLUMNS), (len(x), BLOCK_ROWS)),
        2.0 * y.size * in_features,
        threads,
        own(x),
        own(weight),
        or_empty(bias, x, 1),
        act.code,
        parameters_of(act, x.dtype),
        y,
        or_empty(z, x, 2),
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
        cells = count_cells((in_features, BLOCK_COLUMNS), (len(x), BLOCK_ROWS))
        pool.run(product_cells, cells, work, threads, grad_z, False, own(weight), grad_x, False)
    if grad_weight is not None:
        cells = count_cells((in_features, BLOCK_COLUMNS), (out_features, BLOCK_ROWS))
        pool.run(product_cells, cells, work, threads, grad_z, True, own(x), grad_weight, accumulate)
    if grad_bias is not None:
        cells = count_cells((out_features, CUT))
        pool.run(column_sums_cells, cells, float(grad_z.size), threads, grad_z, grad_bias, accumulate)
