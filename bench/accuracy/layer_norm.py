"""Layer norm in extended precision, and how far results may be from it.

A computed mean m is off by h.  The deviations d = x - m are rounded once, the mean of d corrects them, and
sums go through the roundings that bounds.py counts; g stands for gamma of these and of a few more.  So

    |error of x - mean|  <=  g (2 |x - mean| + s + 3 h),          s² = variance
    |error of variance|  <=  g (3 s² + 5 h²)

and a few of the smallest subnormal number more, for what underflows.  The other bounds follow these through
the formulas of `fa.layer_norm` and `fa.layer_norm_backward`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import fastact as fa
from fastact import backends

from .bounds import gamma, roundings_of_sum, sum_bound
from .figures import Array, Figure, worst

LONG = np.longdouble
OTHER_ROUNDINGS = 8  # of a term, beside those of its sum
EPS = 1e-5
# (rows, features): more than a block of 1024 elements, and several cuts of the rows
SIZES = ((9, 3), (9, 97), (4, 1100), (1500, 6))
MOMENTS = ((0.5, 1), (1e4, 1), (-3e6, 1), (1, 1e-6), (0, 1e-20), (0, 1e-42), (1e12, 1e11))  # mean, deviation


class Result(NamedTuple):
    """An exact result and the error bound of each element."""

    exact: Array
    bound: Array


def _sum_gamma(terms: int, dtype: Any, backend: str) -> float:
    """gamma of a sum of `terms` and of some more roundings, and that of the extended result."""
    of_result = gamma(terms + 1 + OTHER_ROUNDINGS, LONG)
    return gamma(roundings_of_sum(terms, backend) + OTHER_ROUNDINGS, dtype) + of_result


def _mean(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1, keepdims=True))


class Moments(NamedTuple):
    """Of the rows: exact values, and bounds of the errors of computed ones."""

    mean: Array
    scale: Array  # 1 / sqrt(variance + eps)
    normal: Array  # (x - mean) * scale
    mean_bound: Array
    scale_bound: Array
    normal_bound: Array
    distance: Array  # mean |x - mean| at most, with the error of a mean that is rounded


def moments(x: Array, eps: float, backend: str) -> Moments:
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


def _underflow(dtype: Any) -> float:
    return 8 * float(np.finfo(dtype).smallest_subnormal)


def forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, backend: str
) -> tuple[Result, Result]:
    """y and saved."""
    m, u = moments(x, eps, backend), float(np.finfo(x.dtype).eps) / 2
    w = LONG(1) if weight is None else weight.astype(LONG)
    b = LONG(0) if bias is None else bias.astype(LONG)
    bound = abs(w) * m.normal_bound + 4 * u * (abs(w * m.normal) + abs(b))
    tiny = _underflow(x.dtype)
    return (
        Result(m.normal * w + b, bound + tiny * (1 + abs(w))),
        Result(
            np.concatenate([m.mean, m.scale], -1), np.concatenate([m.mean_bound + tiny, m.scale_bound], -1)
        ),
    )


def backward(
    grad_y: Array, x: Array, weight: Array | None, eps: float, backend: str
) -> tuple[Result, Result, Result]:
    """grad_x, grad_weight and grad_bias."""
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
    rows = _sum_gamma(len(x), x.dtype, backend)
    bound = (abs(gy) * (m.normal_bound + rows * abs(m.normal))).sum(axis=0)
    underflow = _underflow(x.dtype) * (1 + abs(gy).sum(axis=0) + len(x))
    return (
        Result(grad_x, m.scale * inside + abs(grad_x) * relative + tiny),
        Result((gy * m.normal).sum(axis=0), bound + underflow),
        Result(gy.sum(axis=0), sum_bound(abs(gy).sum(axis=0), len(x), x.dtype, backend)),
    )


def measure(dtype: np.dtype[Any]) -> Iterator[Figure]:
    """The figures of a dtype, with the backend in force."""
    rng, backend = np.random.default_rng(0), backends.get_backend()
    names = ("y", "saved", "grad_x", "grad_weight", "grad_bias")
    shares: dict[str, list[Array]] = {name: [] for name in names}
    for mean, std in MOMENTS:
        for size in SIZES:
            x = (mean + std * rng.standard_normal(size)).astype(dtype)
            weight, bias = (rng.standard_normal(size[1]).astype(dtype) for _ in range(2))
            grad_y = rng.standard_normal(size).astype(dtype)
            y, saved = fa.layer_norm(x, weight, bias, EPS)
            got = y, saved, *fa.layer_norm_backward(grad_y, x, weight, saved)
            right = *forward(x, weight, bias, EPS, backend), *backward(grad_y, x, weight, EPS, backend)
            for name, actual, (exact, bound) in zip(names, got, right, strict=True):
                shares[name].append(np.ravel(abs(actual - exact) / bound))
    for name, found in shares.items():
        yield worst(f"layer_norm {name}", "bound", np.concatenate(found).astype(np.float64))
