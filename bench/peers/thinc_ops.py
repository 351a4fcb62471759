"""Thinc: the operations of its Maxout layer, called as that layer calls them."""

from __future__ import annotations

from typing import Any

from thinc.api import get_ops

from ..problem import LEARNING_RATE, Array, Problem
from .base import Contender


class ThincOps(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        self._ops: Any = get_ops("cpu")
        self._shape = problem.shape
        self._x, self._grad_y, self._target = problem.x, problem.grad_y, problem.target
        self._weight = problem.weight.reshape(problem.shape.units, -1).copy()
        self._bias = problem.bias.reshape(-1).copy()

    def _forward(self) -> tuple[Array, Array]:
        z = self._ops.gemm(self._x, self._weight, trans2=True)
        z += self._bias
        y, which = self._ops.maxout(z.reshape(len(z), self._shape.out_features, self._shape.pieces))
        return y, which

    def _backward(self, grad_y: Array, which: Array) -> tuple[Array, Array, Array]:
        grad_z = self._ops.backprop_maxout(grad_y, which, self._shape.pieces).reshape(len(grad_y), -1)
        grad_bias = grad_z.sum(axis=0)
        grad_weight = self._ops.gemm(grad_z, self._x, trans1=True)
        return self._ops.gemm(grad_z, self._weight), grad_weight, grad_bias

    def forward(self) -> Array:
        return self._forward()[0]

    def forward_backward(self) -> tuple[Array, Array, Array]:
        return self._backward(self._grad_y, self._forward()[1])

    def step(self) -> tuple[Array, Array]:
        y, which = self._forward()
        residual = y - self._target
        float((residual * residual).mean())
        _, grad_weight, grad_bias = self._backward(residual * (2 / residual.size), which)
        self._weight -= LEARNING_RATE * grad_weight
        self._bias -= LEARNING_RATE * grad_bias
        return self._weight, self._bias
