"""The steps of the optimisers, the bound on norms, and the clipping of gradients."""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..interface import Update
from ..numpy import can_update, clip_scale, clipped_norm, total_norm, vector_norm
from . import pool
from .blocks import CELL, CUT
from .compile import compiled

Array = np.ndarray[Any, Any]

_ELEMENT_WORK = 10  # floating-point operations that take as long as one element, roughly


@compiled
def _limit_extreme_norm(data, start, stop, max_norm):
    """`_limit_norm` if squares or the scale overflow or underflow: it computes with data / 2**exponent."""
    largest = 0.0
    for i in range(start, stop):
        largest = max(largest, abs(float(data[i])))
    if largest == 0:
        return
    exponent = math.frexp(largest)[1] if largest < np.inf else 0
    exponent = min(max(exponent, -1022), 1022)
    factor, total = math.ldexp(1.0, -exponent), 0.0
    for i in range(start, stop):
        total += (data[i] * factor) ** 2
    norm = math.sqrt(total)
    if math.ldexp(norm, exponent) <= max_norm:
        return
    quotient = max_norm / norm
    scale = math.ldexp(quotient, -exponent)
    for i in range(start, stop):
        # a subnormal scale has fewer bits, so scale twice instead
        data[i] = data[i] * scale if scale >= 2.0**-1022 else data[i] * factor * quotient


@compiled
def _limit_norm(data, start, stop, max_norm):
    """Scale data[start:stop] down to the norm `max_norm` if its norm is larger; a NaN makes all of it NaN."""
    total = 0.0
    for first in range(start, stop, CUT):
        partial = 0.0
        for i in range(first, min(first + CUT, stop)):
            partial += data[i] * data[i]
        total += partial
    extreme = total < np.finfo(data.dtype).tiny * (stop - start) or total == np.inf
    norm = math.sqrt(total)
    if norm <= max_norm and not extreme:
        return
    scale = 1.0 if extreme else max_norm / norm
    if extreme or scale < 2.0**-1022:
        _limit_extreme_norm(data, start, stop, max_norm)
    else:
        for i in range(start, stop):
            data[i] *= scale


@compiled
def _sgd_cells(rows, length, coefficients, nesterov, grad, velocity, data, first, last):
    """`coefficients`: as unpacked below, of data's dtype.  A cell is `rows` rows of `length`."""
    lr, momentum, decay, max_norm = coefficients
    for cell in range(first, last):
        start, stop = cell * rows * length, min((cell + 1) * rows * length, len(data))
        if momentum == 0:
            for i in range(start, stop):
                g = grad[i]
                if decay != 0:
                    g += decay * data[i]
                data[i] -= lr * g
        else:
            for i in range(start, stop):
                g = grad[i]
                if decay != 0:
                    g += decay * data[i]
                velocity[i] = momentum * velocity[i] + g
                data[i] -= lr * (g + momentum * velocity[i] if nesterov else velocity[i])
        if max_norm < np.inf:
            for at in range(start, stop, length):
                _limit_norm(data, at, at + length, max_norm)


@compiled
def _adam_cells(rows, length, coefficients, grad, mean, square, data, first, last):
    """`coefficients`: as unpacked below, of data's dtype.  A cell is `rows` rows of `length`."""
    rate, old_mean, new_mean, old_square, new_square, unbias, eps, decay, keep, max_norm = coefficients
    for cell in range(first, last):
        start, stop = cell * rows * length, min((cell + 1) * rows * length, len(data))
        for i in range(start, stop):
            g = grad[i]
            if decay != 0:
                g += decay * data[i]
            new = new_mean * g
            mean[i] = new + old_mean * mean[i] if old_mean != 0 else new
            new = new_square * g * g
            square[i] = new + old_square * square[i] if old_square != 0 else new
            data[i] = keep * data[i] - rate * mean[i] / (math.sqrt(square[i]) * unbias + eps)
        if max_norm < np.inf:
            for at in range(start, stop, length):
                _limit_norm(data, at, at + length, max_norm)


@compiled
def _max_norm_cells(rows, length, max_norm, data, first, last):
    for row in range(first * rows, min(last * rows, len(data) // length)):
        _limit_norm(data, row * length, (row + 1) * length, max_norm)


@compiled
def _square_cells(sums, data, first, last):
    """sums[cell] = the sum of the squares of a cell of data, in float64."""
    for cell in range(first, last):
        total = 0.0
        for start in range(cell * CELL, min((cell + 1) * CELL, len(data)), CUT):
            partial = 0.0
            for i in range(start, min(start + CUT, len(data))):
                partial += np.float64(data[i]) * np.float64(data[i])
            total += partial
        sums[cell] = total


@compiled
def _shrink_cells(factor, data, first, last):
    for i in range(first * CELL, min(last * CELL, len(data))):
        data[i] = factor * np.float64(data[i])


@compiled
def _finish_cells(coefficients, averages, keeps_nan, average, grad, data, first, last):
    """The end of `update_parameter`; `coefficients`: as unpacked below, of data's dtype."""
    shrink, new_share = coefficients
    for i in range(first * CELL, min(last * CELL, len(data))):
        if shrink != 0:
            data[i] -= shrink * data[i]
        if averages:
            average[i] += new_share * (data[i] - average[i])
        grad[i] = 0 * grad[i] if keeps_nan else 0


@np.errstate(over="ignore")
def _rounded(dtype: np.dtype[Any], *values: float) -> tuple[Any, ...]:
    """`values` rounded to `dtype`, as kernels take them; those beyond its range become infinite, as in C."""
    return tuple(map(dtype.type, values))


def _grid(data: Array) -> tuple[int, int, int]:
    """The rows of a cell, the length of a row, and the number of cells.

    A row, whose norm may be bounded, is in one cell.
    """
    length = data.shape[-1] if data.ndim else 1
    rows = max(1, CELL // max(length, 1))
    return rows, length, pool.count_cells((data.size, max(1, rows * length)))


def _infinite(max_norm: float | None) -> float:
    return math.inf if max_norm is None else max_norm


def sgd(
    parameters: Sequence[Any],
    checked: Callable[[], Sequence[Update]],
    velocity: Sequence[Array],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    threads: int = 0,
) -> None:
    for (data, grad, decay, max_norm), old in zip(checked(), velocity, strict=False):
        rows, length, cells = _grid(data)
        factors = (lr, momentum, weight_decay if decay else 0.0, _infinite(max_norm))
        coefficients = _rounded(data.dtype, *factors)
        flat = (array.reshape(-1) for array in (grad, old, data))
        arguments = (rows, length, coefficients, nesterov, *flat)
        pool.run(_sgd_cells, cells, float(_ELEMENT_WORK * data.size), threads, *arguments)


def adam(
    parameters: Sequence[Any],
    checked: Callable[[], Sequence[Update]],
    mean: Sequence[Array],
    square: Sequence[Array],
    rate: float,
    beta1: float,
    beta2: float,
    unbias: float,
    eps: float,
    weight_decay: float,
    keep: float,
    threads: int = 0,
) -> None:
    averages = (beta1, 1 - beta1, beta2, 1 - beta2)
    for (data, grad, decay, max_norm), m, s in zip(checked(), mean, square, strict=False):
        rows, length, cells = _grid(data)
        decays = (weight_decay, keep) if decay else (0.0, 1.0)
        factors = (rate, *averages, unbias, eps, *decays, _infinite(max_norm))
        coefficients = _rounded(data.dtype, *factors)
        flat = (array.reshape(-1) for array in (grad, m, s, data))
        arguments = (rows, length, coefficients, *flat)
        pool.run(_adam_cells, cells, float(_ELEMENT_WORK * data.size), threads, *arguments)


def update_parameter(
    data: Any,
    grad: Any,
    mean: Any,
    square: Any,
    average: Any,
    max_norm: float,
    decay: float,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    shrink: float,
    new_share: float,
    threads: int = 0,
) -> bool:
    numbers = (max_norm, decay, rate, beta1, beta2, eps, shrink, new_share)
    if not can_update((data, grad, mean, square, average), numbers):
        return False
    if decay:
        with np.errstate(all="ignore"):
            grad += decay * data
    if max_norm:
        norm = clipped_norm(grad.dtype, _sum_squares(grad, threads))
        if norm >= max_norm:
            _run_over(_shrink_cells, grad, threads, max_norm / norm)
    updates = [Update(data, grad, False, None)]
    if mean is None:
        sgd(updates, lambda: updates, [grad], rate, 0.0, False, 0.0, threads)
    else:
        beta1, beta2 = map(float, _rounded(data.dtype, beta1, beta2))
        adam(updates, lambda: updates, [mean], [square], rate, beta1, beta2, 1.0, eps, 0.0, 1.0, threads)
    coefficients = _rounded(data.dtype, shrink, new_share)
    averages, average = average is not None, (data if average is None else average).reshape(-1)
    flat_grad = grad.reshape(-1)
    _run_over(_finish_cells, data, threads, coefficients, averages, mean is None, average, flat_grad)
    return True


def max_norm(data: Array, max_norm: float, threads: int = 0) -> None:
    rows, length, cells = _grid(data)
    (bound,) = _rounded(data.dtype, max_norm)
    pool.run(
        _max_norm_cells,
        cells,
        float(_ELEMENT_WORK * data.size),
        threads,
        rows,
        length,
        bound,
        data.reshape(-1),
    )


def _run_over(kernel: Callable[..., None], data: Array, threads: int, *arguments: Any) -> None:
    """`kernel` over all cells of data, the last of its arguments."""
    cells, work = pool.count_cells((data.size, CELL)), float(_ELEMENT_WORK * data.size)
    pool.run(kernel, cells, work, threads, *arguments, data.reshape(-1))


def _sum_squares(data: Array, threads: int) -> float:
    sums = np.empty(pool.count_cells((data.size, CELL)))
    _run_over(_square_cells, data, threads, sums)
    return float(sums.sum())


def _vector_norm(data: Array, threads: int) -> float:
    total = _sum_squares(data, threads)
    if total == math.inf or total < np.finfo(np.float64).tiny * data.size:
        return vector_norm(data)  # squares overflow or underflow
    return math.sqrt(total)


def clip_grad_norm(grads: list[Array], max_norm: float, threads: int = 0) -> float:
    norm = total_norm([_vector_norm(grad, threads) for grad in grads])
    scale = clip_scale(norm, max_norm)
    for grad in grads if not scale >= 1 else ():
        _run_over(_shrink_cells, grad, threads, scale)
    return norm
