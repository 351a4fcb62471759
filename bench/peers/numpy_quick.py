"""NumPy at its quickest: BLAS products of all the pre-activations, and one search for each winner.

The naive version, which looks for the maximum and for its index apart, is fastact's own reference.
"""

from __future__ import annotations

import numpy as np

from ..problem import LEARNING_RATE, Array, Problem
from .base import Contender


class QuickNumpy(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        self._shape = (problem.shape.rows, problem.shape.out_features, problem.shape.pieces)
        self._x, self._grad_y, self._target = problem.x, problem.grad_y, problem.target
        self._weight = problem.weight.reshape(problem.shape.units, -1).copy()
        self._bias = problem.bias.reshape(-1).copy()

    def _forward(self) -> tuple[Array, Array]:
        z = (self._x @ self._weight.T + self._bias).reshape(self._shape)
        # taking z at its argmax is up to twice as fast as z.max(), which would search again
        winner = z.argmax(axis=-1)[..., None]
        return np.take_along_axis(z, winner, -1)[..., 0], winner

    def _backward(self, grad_y: Array, winner: Array) -> tuple[Array, Array, Array]:
        grad_z = np.zeros(self._shape, grad_y.dtype)
        np.put_along_axis(grad_z, winner, grad_y[..., None], -1)
        flat = grad_z.reshape(len(grad_y), -1)
        return flat @ self._weight, flat.T @ self._x, flat.sum(axis=0)

    def forward(self) -> Array:
        return self._forward()[0]

    def forward_backward(self) -> tuple[Array, Array, Array]:
        return self._backward(self._grad_y, self._forward()[1])

    def step(self) -> tuple[Array, Array]:
        y, winner = self._forward()
        residual = y - self._target
        float(np.mean(residual * residual))  # the loss, which every loop looks at
        grad_y = residual * (2 / residual.size)
        _, grad_weight, grad_bias = self._backward(grad_y, winner)
        self._weight -= LEARNING_RATE * grad_weight
        self._bias -= LEARNING_RATE * grad_bias
        return self._weight, self._bias
