"""PyTorch with constant weights: frozen, then compiled with `mode="max-autotune"`; a C++ compiler is needed.

Inductor packs the weights, and times MKL's or oneDNN's product beside C++ templates of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config

from ..problem import Problem
from .base import Contender
from .pytorch import layers


class Layer(nn.Module):
    """The layer for inference as a module: its parameters are what freezing makes constant."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(problem.weight))
        self.bias = nn.Parameter(torch.from_numpy(problem.bias))
        self._infer = layers(problem)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self._infer(x, self.weight, self.bias)


def compile_frozen(module: nn.Module, x: Tensor, **how: Any) -> Any:
    """`module` compiled with constant weights, for inputs like `x`; `how` is for torch.compile.

    Freezing is a setting of the process while it compiles: a `torch.compiler.reset` after it would make the
    next call compile without.
    """
    settings = {
        "freezing": True,
        "autotune_local_cache": False,  # kernels are chosen anew, not as they were on a busy machine
        "autotune_num_choices_displayed": 0,
        "max_autotune_report_choices_stats": False,
    }
    compiled = torch.compile(module.eval(), dynamic=False, **how)
    with torch.no_grad(), config.patch(settings):
        compiled(x)
    return compiled


class Frozen(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        torch.compiler.reset()  # one function may be compiled for few shapes only
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self._x = torch.from_numpy(problem.x)
        self._model = compile_frozen(Layer(problem), self._x, mode="max-autotune")

    def forward(self) -> Tensor:
        with torch.no_grad():
            y: Tensor = self._model(self._x)
        return y
