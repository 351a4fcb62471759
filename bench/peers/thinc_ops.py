"""Thinc: the operations of its Maxout, Relu and Gelu layers, called as those layers call them."""

from __future__ import annotations

from typing import Any

from thinc.api import get_ops

from ..problem import Array, Problem
from ..shapes import MAXOUT
from .base import OnArrays


class ThincOps(OnArrays):
    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        self._ops: Any = get_ops("cpu")

    def _forward(self) -> tuple[Array, Array]:
        z = self._ops.gemm(self._x, self._weight, trans2=True)
        z += self._bias
        if self._activation == MAXOUT:
            y, which = self._ops.maxout(z.reshape(self._grouped))
            return y, which
        if self._activation == "relu":
            y = self._ops.relu(z)
            return y, y
        return self._ops.gelu(z), z

    def _backward(self, grad_y: Array, saved: Array) -> tuple[Array, Array, Array]:
        if self._activation == MAXOUT:
            grad_z = self._ops.backprop_maxout(grad_y, saved, self._grouped[2]).reshape(len(grad_y), -1)
        else:
            grad_z = getattr(self._ops, f"backprop_{self._activation}")(grad_y, saved)
        grad_bias = grad_z.sum(axis=0)
        grad_weight = self._ops.gemm(grad_z, self._x, trans1=True)
        return self._ops.gemm(grad_z, self._weight), grad_weight, grad_bias
