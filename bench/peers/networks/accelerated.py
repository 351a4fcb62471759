"""PyTorch after `fastact.torch.accelerate`, on the C backend."""

from __future__ import annotations

from typing import Any

from torch import nn

import fastact.torch

from ...networks import NetworkProblem
from .fastact_sequential import require_c
from .pytorch import Eager


class Accelerated(Eager):
    @classmethod
    def require(cls) -> None:
        require_c()

    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        require_c()
        fastact.set_num_threads(threads)
        super().__init__(problem, threads)

    def _prepare(self, module: nn.Sequential) -> Any:
        fastact.torch.accelerate(module)
        return module
