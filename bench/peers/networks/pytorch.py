"""PyTorch, eager, compiled, and compiled with frozen weights; Adam is PyTorch's own, fused."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks import NetworkProblem
from ..pytorch_frozen import compile_frozen
from .base import NetworkContender


class Maxout(nn.Module):
    """A maxout layer as PyTorch's users write it."""

    def __init__(self, in_features: int, out_features: int, pieces: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features * pieces, dtype=dtype)
        self.shape = (-1, out_features, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).view(self.shape).max(-1).values


def build(problem: NetworkProblem) -> nn.Sequential:
    """The network, with any parameters."""
    dtype: torch.dtype = getattr(torch, problem.dtype.name)
    modules: list[nn.Module] = []
    shares, last = problem.drop_shares(), len(problem.weights) - 1
    for i, (in_features, out_features, pieces) in enumerate(problem.network.layers):
        if shares[i]:
            modules.append(nn.Dropout(shares[i]))
        if pieces > 1:
            modules.append(Maxout(in_features, out_features, pieces, dtype))
        else:
            modules.append(nn.Linear(in_features, out_features, dtype=dtype))
            if i < last:
                modules.append(nn.Tanh())
    return nn.Sequential(*modules)


class Eager(NetworkContender):
    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self._problem = problem
        self._x, self._labels = torch.from_numpy(problem.x), torch.from_numpy(problem.labels)
        self._module = build(problem).eval()
        self._take_parameters()
        self._model = self._prepare(self._module)

    def _prepare(self, module: nn.Sequential) -> Any:
        """What is called in place of the module."""
        return module

    def _take_parameters(self) -> None:
        with torch.no_grad():
            for parameter, array in zip(self._module.parameters(), self._problem.parameters(), strict=True):
                parameter.copy_(torch.from_numpy(array))

    def forward(self) -> Tensor:
        with torch.no_grad():
            y: Tensor = self._model(self._x)
        return y

    def start_training(self, learning_rate: float) -> None:
        self._take_parameters()
        self._module.train()
        self._optimizer = torch.optim.Adam(self._module.parameters(), lr=learning_rate, fused=True)

    def step(self) -> float:
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self._model(self._x), self._labels)
        loss.backward()
        self._optimizer.step()
        return loss.item()


class Compiled(Eager):
    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        torch.compiler.reset()  # one function may be compiled for few networks only
        super().__init__(problem, threads)

    def _prepare(self, module: nn.Sequential) -> Any:
        return torch.compile(module, dynamic=False)


class Frozen(Compiled):
    """Inference alone; its weights are constants of the compiled code."""

    modes = ("forward",)

    def _prepare(self, module: nn.Sequential) -> Any:
        return compile_frozen(module, self._x, mode="max-autotune")
