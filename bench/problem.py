"""One layer's inputs, its results in float64, and how far a right result may be from those."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .shapes import MAXOUT, Shape

Array = np.ndarray[Any, Any]

LEARNING_RATE = 0.1
FLOAT32_ROUNDOFF = 2.0**-24
BFLOAT16_ROUNDOFF = 2.0**-8
TWO_PARTS_ROUNDOFF = 2.0**-16  # of a number in two bfloat16 parts
ACTIVATION_ROUNDOFFS = 8  # errors of a float32 gelu in roundoffs of z: Thinc's erf alone has 3


class Problem:
    """Inputs of one layer; every contender gets the same arrays.

    x (rows, in_features), weight (units, in_features), bias (units,), grad_y and target
    (rows, out_features), all float32.  The pieces of an output are neighbours among the units.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows, in_features, out_features = shape[:3]
        self.shape = shape
        self.x = rng.standard_normal((rows, in_features), dtype=np.float32)
        self.weight = rng.standard_normal((shape.units, in_features), dtype=np.float32)
        self.weight /= np.float32(in_features**0.5)
        self.bias = rng.standard_normal(shape.units, dtype=np.float32)
        self.grad_y = rng.standard_normal((rows, out_features), dtype=np.float32)
        self.target = rng.standard_normal((rows, out_features), dtype=np.float32)


class Interval(NamedTuple):
    """A float64 result and, for each element, how far from it a right result may be."""

    value: Array
    error: Array

    def excess(self, got: Any) -> float:
        """The largest error of `got` as a multiple of what is allowed; above 1 it is wrong."""
        off = np.abs(np.asarray(got, np.float64).reshape(self.value.shape) - self.value)
        return float(np.max(off / (self.error + np.finfo(np.float32).tiny), initial=0))

    def norm_error(self, got: Any) -> float:
        """The norm of the error of `got` relative to the norm of the value."""
        off = np.asarray(got, np.float64).reshape(self.value.shape) - self.value
        return float(np.linalg.norm(off) / np.linalg.norm(self.value))


def exact(array: Array) -> Interval:
    """`array` as a result without an error."""
    value = array.astype(np.float64)
    return Interval(value, np.zeros_like(value))


def _gamma(terms: int, roundoff: float) -> float:
    """Higham's gamma: the relative error bound of a sum of `terms` products, in any order."""
    return terms * FLOAT32_ROUNDOFF / (1 - terms * FLOAT32_ROUNDOFF) + 2 * (roundoff - FLOAT32_ROUNDOFF)


def _maxout(z: Interval) -> tuple[Interval, Interval]:
    """y (rows, out_features) and dy/dz (rows, out_features, pieces).

    Where two pieces are so near that rounding may choose either, both choices are right.
    """
    best, largest_error = z.value.max(axis=2), z.error.max(axis=2)
    slope = (z.value.argmax(axis=2)[..., None] == np.arange(z.value.shape[2])).astype(float)
    rivals = z.value + z.error >= (best - largest_error)[..., None]
    unsure = rivals & (rivals.sum(axis=2) > 1)[..., None]
    return Interval(best, largest_error), Interval(slope, unsure.astype(float))


def _relu(z: Interval) -> tuple[Interval, Interval]:
    """y and dy/dz as for `_maxout`; where the sign of z is unsure, so is the slope."""
    unsure = np.abs(z.value) <= z.error
    y = Interval(np.maximum(z.value, 0)[..., 0], z.error[..., 0])
    return y, Interval((z.value > 0).astype(float), unsure.astype(float))


def _gelu(z: Interval) -> tuple[Interval, Interval]:
    """y and dy/dz as for `_maxout`.

    The slope of gelu is at most 1.13 and that of its derivative at most 0.8 in magnitude.
    """
    erf = np.frompyfunc(math.erf, 1, 1)
    cdf = 0.5 + 0.5 * np.asarray(erf(z.value * math.sqrt(0.5)), float)
    pdf = np.exp(-0.5 * z.value**2) / math.sqrt(2 * math.pi)
    rounding = ACTIVATION_ROUNDOFFS * FLOAT32_ROUNDOFF
    y = Interval(z.value * cdf, 1.13 * z.error + rounding * np.abs(z.value))
    slope = Interval(cdf + z.value * pdf, 0.8 * z.error + rounding)
    return Interval(y.value[..., 0], y.error[..., 0]), slope


_AFTER_PRODUCT = {MAXOUT: _maxout, "relu": _relu, "gelu": _gelu}


class Truth:
    """The layer in float64, with error bounds for arithmetic of any summation order.

    `roundoff` is that of a product's operands as the arithmetic units see them: float32's, or bfloat16's.
    """

    def __init__(self, problem: Problem, roundoff: float = FLOAT32_ROUNDOFF) -> None:
        rows, in_features, out_features, pieces, activation = problem.shape
        self._roundoff = roundoff
        self._x = problem.x.astype(np.float64)
        self._weight = problem.weight.astype(np.float64)
        z = self._x @ self._weight.T + problem.bias
        size = np.abs(self._x) @ np.abs(self._weight).T + np.abs(problem.bias)
        grouped = (rows, out_features, pieces)
        error = _gamma(in_features + 1, roundoff) * size
        self.y, self._slope = _AFTER_PRODUCT[activation](Interval(z.reshape(grouped), error.reshape(grouped)))

    def gradients(self, grad_y: Interval) -> tuple[Interval, Interval, Interval]:
        """grad_x, grad_weight and grad_bias for a grad_y that has an error itself."""
        rows, out_features = grad_y.value.shape
        value, error = grad_y.value[..., None], grad_y.error[..., None]
        grad_z = (value * self._slope.value).reshape(rows, -1)
        doubt = np.abs(value) * self._slope.error + error * (np.abs(self._slope.value) + self._slope.error)
        doubt = doubt.reshape(rows, -1) + FLOAT32_ROUNDOFF * np.abs(grad_z)
        size = np.abs(grad_z) + doubt
        error_x = _gamma(out_features, self._roundoff) * size + doubt
        error_weight = _gamma(rows, self._roundoff) * size + doubt
        return (
            Interval(grad_z @ self._weight, error_x @ np.abs(self._weight)),
            Interval(grad_z.T @ self._x, error_weight.T @ np.abs(self._x)),
            Interval(grad_z.sum(axis=0), error_weight.sum(axis=0)),
        )

    def updated(self, problem: Problem) -> tuple[Interval, Interval]:
        """weight and bias after one step of plain gradient descent on the mean squared error."""
        scale = 2 / self.y.value.size
        residual = self.y.value - problem.target
        rounding = FLOAT32_ROUNDOFF * (np.abs(self.y.value) + 4 * np.abs(residual))
        grad_y = Interval(scale * residual, scale * (self.y.error + rounding))
        _, grad_weight, grad_bias = self.gradients(grad_y)
        return _step(problem.weight, grad_weight), _step(problem.bias, grad_bias)


def _step(parameter: Array, grad: Interval) -> Interval:
    value = parameter - LEARNING_RATE * grad.value
    rounding = FLOAT32_ROUNDOFF * (np.abs(value) + 4 * LEARNING_RATE * np.abs(grad.value))
    return Interval(value, LEARNING_RATE * grad.error + rounding)
