"""Initial weights: each initialiser takes a weight's shape and returns a random array.

The shape is (out_features, in_features), or (out_features, pieces, in_features) for maxout, and fan_in is
its last number.  Numbers are drawn in float64 and then rounded: a seed gives the same weights in float32 and
float64.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import numpy as np

from .. import checks

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

# Quoted, because naming numpy.random imports it, and that takes longer than all of this package.
Seed: TypeAlias = "np.random.Generator | int | None"


def _normal(shape: Shape, std: float, rng: Seed, dtype: Any) -> Array:
    dtype, generator = checks.check_float_dtype(dtype), checks.check_rng(rng)
    values = generator.standard_normal(shape)
    with np.errstate(all="ignore"):
        values *= std
        return values.astype(dtype, copy=False)


def _fan_in(shape: Shape) -> int:
    return max(shape[-1], 1)  # without inputs there is nothing to scale, and nothing to divide by


def he_normal(shape: Shape, rng: Seed = None, dtype: Any = np.float32, negative_slope: float = 0.0) -> Array:
    """Normal with variance 2 / ((1 + negative_slope²) fan_in), for ReLU, leaky ReLU and PReLU.

    Keeps the variance of a forward pass through ReLUs the same from layer to layer (He et al. 2015,
    "Delving Deep into Rectifiers", equations 10 and 15).

    Args:
        shape: the weight's, fan_in last.
        rng: a `np.random.Generator`, or a seed, as `np.random.default_rng` takes it.
        dtype: of the result, float32 or float64.
        negative_slope: the activation's slope below zero; 0 for a ReLU.

    Returns:
        A new array of `shape` and `dtype`.

    Raises:
        TypeError: shape is not a tuple or list of ints, dtype not float32 or float64, rng not what
            `np.random.default_rng` takes, or negative_slope not a number.
        ValueError: shape is empty, has a negative size or more numbers than memory can hold, or
            negative_slope is not finite.
    """
    shape = checks.check_sizes("shape", shape)
    slope = checks.check_finite("negative_slope", negative_slope)
    return _normal(shape, math.sqrt(2 / _fan_in(shape)) / math.hypot(1, slope), rng, dtype)


def lecun_normal(shape: Shape, rng: Seed = None, dtype: Any = np.float32) -> Array:
    """Normal with variance 1 / fan_in, for SELU (Klambauer et al. 2017); arguments as for `he_normal`."""
    shape = checks.check_sizes("shape", shape)
    return _normal(shape, math.sqrt(1 / _fan_in(shape)), rng, dtype)


def glorot_uniform(shape: Shape, rng: Seed = None, dtype: Any = np.float32) -> Array:
    """Uniform between ±sqrt(6 / (fan_in + fan_out)), for linear, sigmoid and tanh layers.

    A compromise between keeping the variance of the forward and of the backward pass (Glorot & Bengio
    2010, equation 16).  fan_out is the first number of the shape; arguments as for `he_normal`.
    """
    shape = checks.check_sizes("shape", shape)
    dtype, generator = checks.check_float_dtype(dtype), checks.check_rng(rng)
    limit = math.sqrt(6 / max(shape[0] + shape[-1], 1))
    return generator.uniform(-limit, limit, shape).astype(dtype, copy=False)


def maxout_normal(shape: Shape, rng: Seed = None, dtype: Any = np.float32) -> Array:
    """Normal with the standard deviation `maxout_std`; `pieces` is the middle number of the shape.

    Keeps the mean square of a forward pass through maxout layers the same from layer to layer.
    Arguments as for `he_normal`.  Raises ValueError if the shape has no such number.
    """
    shape = checks.check_sizes("shape", shape)
    if len(shape) != 3:
        raise ValueError(f"shape: got {shape}, wanted (out_features, pieces, in_features)")
    return _normal(shape, maxout_std(shape[-1], shape[1]), rng, dtype)


def maxout_std(fan_in: int, pieces: int) -> float:
    """sqrt(c / fan_in), c = 1 / E[m²], m the largest of `pieces` independent standard normal numbers.

    For the reason see Tseran & Montúfar 2023, "Expected gradients of maxout networks and consequences to
    parameter initialization" (arXiv 2301.06956), who list c for 2 to 5 pieces.

    Raises TypeError where fan_in or pieces is not an int, ValueError where fan_in is negative, pieces
    below 1, or either too large for the size of an array.
    """
    fan_in = checks.check_size("fan_in", fan_in)
    pieces = checks.check_size("pieces", pieces, 1)
    return math.sqrt(1 / (_second_moment_of_max(pieces) * max(fan_in, 1)))


@functools.cache
def _second_moment_of_max(pieces: int) -> float:
    """E[m²] by quadrature: the largest m of K normal numbers has the density K φ(m) Φ(m)^(K-1).

    The trapezoid rule on [-12, 12] gives it to about 15 digits: for a smooth integrand that vanishes at
    both ends, its error falls faster than any power of the step.
    """
    step = 1 / 32
    total = 0.0
    for i in range(-12 * 32, 12 * 32 + 1):
        m = i * step
        density = math.exp(-0.5 * m * m) / math.sqrt(2 * math.pi)
        below = 0.5 * math.erfc(-m / math.sqrt(2))
        total += m * m * pieces * density * below ** (pieces - 1)
    return total * step
