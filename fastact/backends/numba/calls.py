"""The operations for nopython code: what the functions of this backend do, on the calling thread alone.

The arguments are those of the C kernels in csrc/api/fastact.h without dtype, threads and precision.  Arrays
are as kernels take them; an empty one stands for NULL.  A function that can fail returns a status of that
header.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math

import numpy as np

from .activations import _activation_backward_cells, _activation_cells, _grad_slopes_cells, _slope_sums_cells
from .blocks import BLOCK_COLUMNS, BLOCK_ROWS, CELL, CUT
from .compile import compiled
from .gather import _TABLES_AT_ONCE, _grad_weight_cells, _grad_x_cells, _max_cell_outputs
from .layer_norm import _CUTS, _MIN_CUT_ROWS, _layer_norm_backward_cells, _layer_norm_cells
from .linear import MAXOUT, _grad_bias_cells, _linear_cells, _max_outputs
from .losses import _count_used, _cross_entropy_cells, _sum
from .maximum import _cell_size, _maxout_backward_cells, _maxout_cells, argmax_fits
from .optim import _max_norm_cells
from .product import DOT_ROWS, count_product_cells, product_cells
from .vectors import GATHER_VECTORS, VECTOR_BYTES

OK, BAD_ARGMAX, BAD_LABEL = 0, 3, 4


@compiled
def _count(length, size):
    """The number of cells of `size` that cover `length`."""
    return (length + size - 1) // size


@compiled
def linear_maxout(rows, in_features, out_features, pieces, x, weight, bias, y, argmax):
    cells = _count(out_features, _max_outputs(pieces)) * _count(rows, BLOCK_ROWS)
    flat, flat_bias = weight.reshape(out_features * pieces, in_features), bias.reshape(bias.size)
    unused, parameters = np.empty((0, 0), x.dtype), np.empty(0, x.dtype)
    _linear_cells(x, flat, pieces, flat_bias, MAXOUT, parameters, y, unused, argmax, DOT_ROWS, 0, cells)
    return OK


@compiled
def linear_maxout_backward(
    rows, in_features, out_features, pieces,
    grad_y, x, weight, argmax, grad_x, grad_weight, grad_bias, accumulate,
):  # fmt: skip
    if not argmax_fits(argmax, pieces):
        return BAD_ARGMAX
    if grad_x.size:
        columns = _TABLES_AT_ONCE * GATHER_VECTORS * VECTOR_BYTES // x.itemsize
        cells = _count(in_features, columns) * _count(rows, BLOCK_ROWS)
        _grad_x_cells(grad_y, weight, argmax, grad_x, 0, cells)
    if grad_weight.size or grad_bias.size:
        cells = _count(out_features, _max_cell_outputs(pieces))
        _grad_weight_cells(grad_y, x, argmax, pieces, grad_weight, grad_bias, accumulate != 0, 0, cells)
    return OK


@compiled
def maxout(outer, pieces, inner, z, y, argmax):
    rows, count = _cell_size(inner)
    _maxout_cells(z, y, argmax, 0, _count(outer, rows) * _count(inner, count))


@compiled
def maxout_backward(outer, pieces, inner, grad_y, argmax, grad_z):
    if not argmax_fits(argmax, pieces):
        return BAD_ARGMAX
    rows, count = _cell_size(inner)
    _maxout_backward_cells(grad_y, argmax, grad_z, 0, _count(outer, rows) * _count(inner, count))
    return OK


@compiled
def _parameters(parameter, slope):
    """The slopes, or the one parameter, rounded to the dtype."""
    return slope if slope.size else np.full(1, parameter).astype(slope.dtype)


@compiled
def activation(rows, features, code, parameter, slope, slopes, z, y):
    parameters = _parameters(parameter, slope)
    _activation_cells(code, parameters, z.reshape(z.size), y.reshape(y.size), 0, _count(z.size, CELL))


@compiled
def activation_backward(
    rows, features, code, parameter, slope, slopes, grad_y, saved, grad_z, grad_slope, accumulate
):
    flat_grad, flat_saved = grad_y.reshape(grad_y.size), saved.reshape(saved.size)
    cells = _count(saved.size, CELL)
    if grad_slope.size == 1:
        totals = np.empty(cells)
        _slope_sums_cells(flat_grad, flat_saved, totals, 0, cells)
        total = np.empty(1, grad_slope.dtype)
        total[0] = totals.sum()
        grad_slope[0] = total[0] + grad_slope[0] if accumulate else total[0]
    elif grad_slope.size:
        columns = _count(grad_slope.size, CUT)
        _grad_slopes_cells(grad_y, saved, grad_slope, accumulate != 0, 0, columns)
    parameters = _parameters(parameter, slope)
    _activation_backward_cells(code, parameters, flat_grad, flat_saved, grad_z.reshape(grad_z.size), 0, cells)
    return OK


@compiled
def linear_activation(
    rows, in_features, out_features, code, parameter, slope, slopes, x, weight, bias, y, saved
):
    cells = _count(out_features, BLOCK_COLUMNS) * _count(rows, BLOCK_ROWS)
    parameters = _parameters(parameter, slope)
    unused = np.empty((0, 0), np.uint8)
    _linear_cells(x, weight, 1, bias, code, parameters, y, saved, unused, DOT_ROWS, 0, cells)
    return OK


@compiled
def linear_activation_backward(
    rows, in_features, out_features, code, parameter, slope, slopes,
    grad_y, x, weight, saved, grad_x, grad_weight, grad_bias, grad_slope, accumulate,
):  # fmt: skip
    grad_z = np.empty_like(grad_y)
    activation_backward(
        rows, out_features, code, parameter, slope, slopes, grad_y, saved, grad_z, grad_slope, accumulate
    )
    if grad_x.size:
        cells = count_product_cells(rows, in_features, out_features)
        product_cells(grad_z, False, weight, grad_x, False, 0, cells)
    if grad_weight.size:
        cells = count_product_cells(out_features, in_features, rows)
        product_cells(grad_z, True, x, grad_weight, accumulate != 0, 0, cells)
    if grad_bias.size:
        _grad_bias_cells(grad_z, grad_bias, accumulate != 0, 0, _count(out_features, CUT))
    return OK


@compiled
def layer_norm(rows, features, eps, x, weight, bias, y, saved):
    if rows:
        cell = max(1, CELL // features)
        _layer_norm_cells(cell, x, weight, bias, eps, y, saved, 0, _count(rows, cell))


@compiled
def _add_up(sums, part, grad, accumulate):
    """grad = the sum over the cells of sums[:, part], rounded to grad's dtype once, += with `accumulate`."""
    for i in range(grad.size):
        total = 0.0
        for cell in range(len(sums)):
            total += sums[cell, part, i]
        rounded = grad.dtype.type(total)
        grad[i] = rounded + grad[i] if accumulate else rounded


@compiled
def layer_norm_backward(rows, features, grad_y, x, weight, saved, grad_x, grad_weight, grad_bias, accumulate):
    cell = min(CUT, max(_MIN_CUT_ROWS, _count(rows, _CUTS)))
    cells = _count(rows, cell)
    sums = np.empty((cells, 2, features if grad_weight.size or grad_bias.size else 0))
    if cells:
        _layer_norm_backward_cells(cell, grad_y, x, weight, saved, grad_x, sums, 0, cells)
    _add_up(sums, 0, grad_weight, accumulate)
    _add_up(sums, 1, grad_bias, accumulate)


@compiled
def _share(size):
    """A power of 2 by which `size` finite numbers can be multiplied so that their sum does not overflow."""
    share = 1.0
    while size >= 1 / share:
        share *= 0.5
    return share


@compiled
def softmax_cross_entropy(rows, classes, logits, labels, label_smoothing, ignore_index, grad, loss):
    loss[0] = 0.0
    used = _count_used(labels, ignore_index, classes)
    if used < 0:
        return BAD_LABEL
    if grad.size:
        share = _share(rows)
        cell, count = max(1, CELL // classes), max(used, 1)
        terms = np.empty(rows)
        _cross_entropy_cells(
            cell,
            logits,
            labels,
            ignore_index,
            label_smoothing / classes,
            1 - label_smoothing,
            1 / count,
            share,
            grad,
            terms,
            0,
            _count(rows, cell),
        )
        loss[0] = _sum(terms) / count / share
    return OK


@compiled
def mse(size, y, target, grad):
    total, factor = 0.0, grad.dtype.type(2 / max(size, 1))
    for start in range(0, size, CUT):
        partial = 0.0
        for i in range(start, min(start + CUT, size)):
            off = grad.dtype.type(y[i] - target[i])
            partial += off * off
            grad[i] = off * factor
        total += partial
    return total / max(size, 1)


@compiled
def binary_cross_entropy(size, logits, target, grad):
    total, share, count = 0.0, _share(size), max(size, 1)
    for start in range(0, size, CUT):
        partial = 0.0
        for i in range(start, min(start + CUT, size)):
            z, t = np.float64(logits[i]), np.float64(target[i])
            e = math.exp(-abs(z))
            above = 1.0 if z > 0 else 0.0
            partial += math.log1p(e) * share + z * share * (above - t)
            grad[i] = ((1.0 if z > 0 else e) / (1 + e) - t) / count
        total += partial
    return total / count / share


@compiled
def huber(size, y, target, delta, grad):
    loss, count = math.inf, max(size, 1)
    for share in (1.0, _share(size)):
        if loss == math.inf:
            total, limit = 0.0, delta * share
            for start in range(0, size, CUT):
                partial = 0.0
                for i in range(start, min(start + CUT, size)):
                    off = np.float64(y[i]) * share - np.float64(target[i]) * share
                    distance = abs(off)
                    partial += (
                        delta * (distance - limit / 2) if distance > limit else 0.5 * off * (off / share)
                    )
                    off = -limit if off < -limit else limit if off > limit else off
                    grad[i] = off * (1 / count / share)
                total += partial
            loss = total / count / share
    return loss


@compiled
def max_norm(rows, in_features, max_norm, weight):
    if rows and in_features:
        flat = weight.reshape(weight.size)
        _max_norm_cells(1, in_features, weight.dtype.type(max_norm), flat, 0, rows)
