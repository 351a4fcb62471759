"""Layer norm in extended precision, and how far results may be from it.

A computed mean m is off by h.  The deviations d = x - m are rounded once, the mean of d corrects them, and
sums go through the roundings that tolerance.py counts; g stands for gamma of these and of a few more.  So

    |error of x - mean|  <=  g (2 |x - mean| + s + 3 h),          s² = variance
    |error of variance|  <=  g (3 s² + 5 h²)

and a few of the smallest subnormal number more, for what underflows.  The other bounds follow these through
the formulas of `fa.layer_norm` and `fa.layer_norm_backward`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from support.tolerance import CUT, assert_within, gamma, sum_bound

LONG = np.longdouble
OTHER_ROUNDINGS = 8  # of a term, beside those of its sum


def _sum_gamma(terms, dtype, backend):
    """gamma of a sum of `terms` and of some more roundings, and that of the extended result."""
    in_order = terms + 1
    n = in_order if backend == "numpy" else min(in_order, CUT + math.ceil(terms / CUT) + 1)
    return gamma(n + OTHER_ROUNDINGS, dtype) + gamma(in_order + OTHER_ROUNDINGS, LONG)


def _mean(values):
    return values.mean(axis=-1, keepdims=True)


class Moments(NamedTuple):
    """Of the rows: exact values, and bounds of the errors of computed ones."""

    mean: np.ndarray
    scale: np.ndarray  # 1 / sqrt(variance + eps)
    normal: np.ndarray  # (x - mean) * scale
    mean_bound: np.ndarray
    scale_bound: np.ndarray
    normal_bound: np.ndarray
    distance: np.ndarray  # mean |x - mean| at most, with the error of a mean that is rounded


def moments(x, eps, backend):
    u, g = float(np.finfo(x.dtype).eps) / 2, _sum_gamma(x.shape[-1], x.dtype, backend)
    long = x.astype(LONG)
    mean = long[:, :1] + _mean(long - long[:, :1])
    deviations = long - mean
    mean, deviations = mean + _mean(deviations), deviations - _mean(deviations)
    variance = _mean(deviations**2)
    std, scale = np.sqrt(variance), 1 / np.sqrt(variance + LONG(eps))
    h = 2 * u * abs(mean) + g * (std + abs(deviations[:, :1])) + _underflow(x.dtype)
    relative = g * (3 * variance + 5 * h**2) * scale**2
    assert (relative < 0.5).all()
    relative += 4 * u  # (1 - q)^(-1/2) - 1 < q for q < 1/2; the square root, the quotient, the rounding
    deviation_bound = g * (2 * abs(deviations) + std + 3 * h) + _underflow(x.dtype)
    normal_bound = scale * (deviation_bound + abs(deviations) * (relative + 4 * u))
    return Moments(
        mean,
        scale,
        deviations * scale,
        2 * u * abs(mean) + g * (std + h),
        scale * relative,
        normal_bound,
        std + h,
    )


def _underflow(dtype):
    return 8 * float(np.finfo(dtype).smallest_subnormal)


def assert_forward(x, weight, bias, eps, y, saved, backend):
    m, u = moments(x, eps, backend), float(np.finfo(x.dtype).eps) / 2
    w = LONG(1) if weight is None else weight.astype(LONG)
    b = LONG(0) if bias is None else bias.astype(LONG)
    bound = abs(w) * m.normal_bound + 4 * u * (abs(w * m.normal) + abs(b))
    assert_within(y, m.normal * w + b, bound + _underflow(x.dtype) * (1 + abs(w)))
    tiny = _underflow(x.dtype)
    assert_within(
        saved, np.concatenate([m.mean, m.scale], -1), np.concatenate([m.mean_bound + tiny, m.scale_bound], -1)
    )


def assert_backward(grad_y, x, weight, eps, grads, backend):
    m, u = moments(x, eps, backend), float(np.finfo(x.dtype).eps) / 2
    g = _sum_gamma(x.shape[-1], x.dtype, backend)
    gy = grad_y.astype(LONG)
    weighted = gy if weight is None else gy * weight.astype(LONG)
    size, mean = _mean(abs(weighted)), _mean(weighted)
    tilt, products = _mean(weighted * m.normal), _mean(abs(weighted * m.normal))
    relative = m.scale_bound / m.scale + 4 * u
    grad_x = m.scale * (weighted - mean - m.normal * tilt)
    tilt_bound = (
        m.scale * _underflow(x.dtype) * (1 + size)
        + m.scale * g * 4 * (size * m.distance + _mean(abs(weighted) * abs(m.normal / m.scale)))
        + _mean(abs(weighted) * m.normal_bound)
        + (g + relative) * products
    )
    inside = 4 * u * (abs(weighted) + abs(mean) + abs(m.normal * tilt)) + g * size
    inside += abs(m.normal) * tilt_bound + (abs(tilt) + tilt_bound) * m.normal_bound
    tiny = _underflow(x.dtype) * (1 + m.scale) * (1 + size)
    assert_within(grads[0], grad_x, m.scale * inside + abs(grad_x) * relative + tiny)
    rows = _sum_gamma(len(x), x.dtype, backend)
    bound = (abs(gy) * (m.normal_bound + rows * abs(m.normal))).sum(axis=0)
    underflow = _underflow(x.dtype) * (1 + abs(gy).sum(axis=0) + len(x))
    assert_within(grads[1], (gy * m.normal).sum(axis=0), bound + underflow)
    assert_within(grads[2], gy.sum(axis=0), sum_bound(abs(gy).sum(axis=0), len(x), x.dtype, backend))
