"""PyTorch, eager and compiled: linear, then view and max, or an activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ..problem import BFLOAT16_ROUNDOFF, LEARNING_RATE, Problem
from ..shapes import MAXOUT
from .base import Contender

Tensor = torch.Tensor
Layer = Callable[[Tensor, Tensor, Tensor], Tensor]


def layers(problem: Problem) -> tuple[Layer, Layer]:
    """The layer for inference and the one for training, as functions of x, weight and bias."""
    rows, _, out_features, pieces, activation = problem.shape

    def infer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # amax is faster than max, which finds the index as well
        return F.linear(x, weight, bias).view(rows, out_features, pieces).amax(-1)

    def train(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias).view(rows, out_features, pieces).max(-1).values

    def activated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return function(F.linear(x, weight, bias))

    if activation == MAXOUT:
        return infer, train
    function: Callable[[Tensor], Tensor] = getattr(F, activation)
    return activated, activated


class Eager(Contender):
    precision: ClassVar[str] = "highest"

    def __init__(self, problem: Problem, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(self.precision)  # the process's: all in one table have the same
        self._infer, self._train = (self._prepare(layer) for layer in layers(problem))
        self._x = torch.from_numpy(problem.x).requires_grad_()
        self._weight = torch.from_numpy(problem.weight.copy()).requires_grad_()
        self._bias = torch.from_numpy(problem.bias.copy()).requires_grad_()
        self._grad_y = torch.from_numpy(problem.grad_y)
        self._target = torch.from_numpy(problem.target)
        self._optimizer = torch.optim.SGD([self._weight, self._bias], lr=LEARNING_RATE, fused=True)

    def _prepare(self, function: Any) -> Any:
        return function

    def forward(self) -> Tensor:
        with torch.no_grad():
            y: Tensor = self._infer(self._x, self._weight, self._bias)
        return y

    def forward_backward(self) -> tuple[Tensor, Tensor, Tensor]:
        y = self._train(self._x, self._weight, self._bias)
        grad_x, grad_weight, grad_bias = torch.autograd.grad(
            y, (self._x, self._weight, self._bias), self._grad_y
        )
        return grad_x, grad_weight, grad_bias

    def step(self) -> tuple[Tensor, Tensor]:
        self._optimizer.zero_grad()
        self._x.grad = None
        loss = F.mse_loss(self._train(self._x, self._weight, self._bias), self._target)
        loss.backward()
        loss.item()
        self._optimizer.step()
        return self._weight.detach(), self._bias.detach()


class Compiled(Eager):
    def __init__(self, problem: Problem, threads: int) -> None:
        torch.compiler.reset()  # one function may be compiled for few shapes only
        super().__init__(problem, threads)

    def _prepare(self, function: Any) -> Any:
        return torch.compile(function, dynamic=False)


class EagerMedium(Eager):
    precision = "medium"
    roundoff = BFLOAT16_ROUNDOFF


class CompiledMedium(Compiled):
    precision = "medium"
    roundoff = BFLOAT16_ROUNDOFF
