"""One layer's inputs, what float64 makes of them, and how far float32 may be from that."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .shapes import Shape

Array = np.ndarray[Any, Any]

LEARNING_RATE = 0.1
FLOAT32_ROUNDOFF = 2.0**-24
BFLOAT16_ROUNDOFF = 2.0**-8
TWO_PARTS_ROUNDOFF = 2.0**-16  # of two bfloat16 parts


class Problem:
    """Inputs of one layer; every contender gets the same arrays.

    x (rows, in_features), weight (out_features, pieces, in_features), bias (out_features, pieces),
    grad_y and target (rows, out_features), all float32.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows, in_features, out_features, pieces = shape
        self.shape = shape
        self.x = rng.standard_normal((rows, in_features), dtype=np.float32)
        self.weight = rng.standard_normal((out_features, pieces, in_features), dtype=np.float32)
        self.weight /= np.float32(in_features**0.5)
        self.bias = rng.standard_normal((out_features, pieces), dtype=np.float32)
        self.grad_y = rng.standard_normal((rows, out_features), dtype=np.float32)
        self.target = rng.standard_normal((rows, out_features), dtype=np.float32)


class Interval(NamedTuple):
    """A float64 result and, element by element, how far from it a right answer may be."""

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


def _gamma(terms: int, roundoff: float) -> float:
    """Higham's gamma: the relative error bound of a sum of `terms` products, in any order."""
    return terms * FLOAT32_ROUNDOFF / (1 - terms * FLOAT32_ROUNDOFF) + 2 * (roundoff - FLOAT32_ROUNDOFF)


class Truth:
    """The layer in float64, with error bounds for arithmetic of any summation order.

    Where two pieces are so near that rounding may choose either, both choices are right, so that
    element's whole contribution to a gradient counts as allowed error.

    `roundoff` is that of a product's operands as the arithmetic units see them: float32's, or bfloat16's.
    """

    def __init__(self, problem: Problem, roundoff: float = FLOAT32_ROUNDOFF) -> None:
        rows, in_features, out_features, pieces = problem.shape
        self._shape = problem.shape
        self._roundoff = roundoff
        self._x = problem.x.astype(np.float64)
        self._weight = problem.weight.reshape(-1, in_features).astype(np.float64)
        bias = problem.bias.reshape(-1).astype(np.float64)
        z = (self._x @ self._weight.T + bias).reshape(rows, out_features, pieces)
        size = (np.abs(self._x) @ np.abs(self._weight).T + np.abs(bias)).reshape(z.shape)
        error = _gamma(in_features + 1, roundoff) * size
        self._argmax = z.argmax(axis=2)
        best = z.max(axis=2)
        # pieces that may win: within the two errors of the best
        rivals = ((z + error) >= (best - error.max(axis=2))[..., None]).sum(axis=2)
        self._unsure = rivals > 1
        self.y = Interval(best, error.max(axis=2))

    def gradients(self, grad_y: Interval) -> tuple[Interval, Interval, Interval]:
        """grad_x, grad_weight and grad_bias for a grad_y that is itself uncertain."""
        rows, in_features, out_features, pieces = self._shape
        size = np.abs(grad_y.value) + grad_y.error
        doubt = grad_y.error + np.where(self._unsure, size, 0)
        won = self._argmax[..., None] == np.arange(pieces)
        grad_z = np.where(won, grad_y.value[..., None], 0).reshape(rows, -1)
        # any piece of a group may have won where there is doubt
        allowed_x = _gamma(out_features, self._roundoff) * size + 2 * doubt
        allowed_w = _gamma(rows, self._roundoff) * size + doubt
        largest = np.abs(self._weight).reshape(out_features, pieces, in_features).max(axis=1)
        weight_error = np.repeat((allowed_w.T @ np.abs(self._x))[:, None], pieces, axis=1)
        bias_error = np.repeat(allowed_w.sum(axis=0)[:, None], pieces, axis=1)
        return (
            Interval(grad_z @ self._weight, allowed_x @ largest),
            Interval((grad_z.T @ self._x).reshape(weight_error.shape), weight_error),
            Interval(grad_z.sum(axis=0).reshape(bias_error.shape), bias_error),
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
