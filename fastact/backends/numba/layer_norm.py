"""Layer norm and its gradients.

A row is computed in float64, in a buffer of its deviations from the mean, and rounded once if the array is
float32.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from . import pool
from .arguments import as_carray, or_empty
from .blocks import CELL, CUT
from .compile import REASSOCIATE, compiled

Array = np.ndarray[Any, Any]

_ELEMENT_WORK = 10  # floating-point operations that take as long as one element, roughly
# grad_weight and grad_bias are sums over cells of rows: _CUTS cells, so that several threads have some even
# of a small batch, but each of _MIN_CUT_ROWS to CUT rows.
_CUTS = 16
_MIN_CUT_ROWS = 8


@partial(compiled, fastmath=REASSOCIATE)
def _block_sum(values):
    total = 0.0
    for i in range(len(values)):  # an iteration over the values would not be vectorised
        total += values[i]
    return total


@partial(compiled, fastmath=REASSOCIATE)
def _block_dot(a, b):
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled
def _mean(values):
    total = 0.0
    for first in range(0, len(values), CUT):
        total += _block_sum(values[first : first + CUT])
    return total / len(values)


@compiled
def _mean_product(a, b):
    total = 0.0
    for first in range(0, len(a), CUT):
        total += _block_dot(a[first : first + CUT], b[first : first + CUT])
    return total / len(a)


@compiled
def _deviations(row, mean, deviations):
    """deviations = row - mean, less their own mean, the error of `mean`, which is returned."""
    for i in range(len(row)):
        deviations[i] = row[i] - mean
    correction = _mean(deviations)
    for i in range(len(row)):
        deviations[i] -= correction
    return correction


@compiled
def _layer_norm_cells(rows, x, weight, bias, eps, y, saved, first, last):
    """A cell is `rows` rows; weight, bias and saved may be empty."""
    features = x.shape[1]
    deviations = np.empty(features)
    for row in range(first * rows, min(last * rows, len(x))):
        mean = np.float64(x[row, 0])  # equal numbers have deviations of exactly 0 from their mean
        mean += _deviations(x[row], mean, deviations)
        mean += _deviations(x[row], mean, deviations)
        scale = 1 / np.sqrt(_mean_product(deviations, deviations) + eps)
        if saved.size:
            saved[row, 0] = mean
            saved[row, 1] = scale
        for i in range(features):
            value = deviations[i] * scale
            if weight.size:
                value *= weight[i]
            if bias.size:
                value += bias[i]
            y[row, i] = value


@compiled
def _layer_norm_backward_cells(rows, grad_y, x, weight, saved, grad_x, sums, first, last):
    """A cell is `rows` rows, with sums[cell] (2, features) of the terms of grad_weight and grad_bias.

    weight, grad_x and sums may be empty.
    """
    features = x.shape[1]
    normal = np.empty(features)
    g = np.empty(features)
    for cell in range(first, last):
        if sums.size:
            sums[cell] = 0
        for row in range(cell * rows, min((cell + 1) * rows, len(x))):
            scale = np.float64(saved[row, 1])
            _deviations(x[row], np.float64(saved[row, 0]), normal)
            for i in range(features):
                normal[i] *= scale
                g[i] = grad_y[row, i]
            if sums.size:
                for i in range(features):
                    sums[cell, 0, i] += g[i] * normal[i]
                    sums[cell, 1, i] += g[i]
            if grad_x.size:
                if weight.size:
                    for i in range(features):
                        g[i] *= weight[i]
                mean = _mean(g)
                tilt = _mean_product(g, normal)
                for i in range(features):
                    grad_x[row, i] = scale * (g[i] - mean - normal[i] * tilt)


def layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    saved: Array | None,
    threads: int = 0,
) -> None:
    if not len(x):  # a kernel would make a buffer of a row
        return
    rows = max(1, CELL // x.shape[1])
    pool.run(
        _layer_norm_cells,
        pool.count_cells((len(x), rows)),
        float(_ELEMENT_WORK * x.size),
        threads,
        rows,
        as_carray(x),
        as_carray(or_empty(weight, x.dtype, 1)),
        as_carray(or_empty(bias, x.dtype, 1)),
        eps,
        y,
        or_empty(saved, x.dtype, 2),
    )


@np.errstate(all="ignore")
def layer_norm_backward(
    grad_y: Array,
    x: Array,
    weight: Array | None,
    saved: Array,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    rows = min(CUT, max(_MIN_CUT_ROWS, -(-len(x) // _CUTS)))
    cells = pool.count_cells((len(x), rows))
    summed = grad_weight is not None or grad_bias is not None
    sums = np.empty((cells, 2, x.shape[1] if summed else 0))
    if cells:
        pool.run(
            _layer_norm_backward_cells,
            cells,
            float(_ELEMENT_WORK * x.size),
            threads,
            rows,
            as_carray(grad_y),
            as_carray(x),
            as_carray(or_empty(weight, x.dtype, 1)),
            as_carray(saved),
            or_empty(grad_x, x.dtype, 2),
            sums,
        )
    for grad, total in zip((grad_weight, grad_bias), sums.sum(axis=0), strict=True):
        if grad is not None:
            np.add(total.astype(grad.dtype), grad if accumulate else 0, out=grad)
