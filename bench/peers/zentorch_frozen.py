"""zentorch: AMD's backend of torch.compile, with constant weights; each release takes one of PyTorch."""

from __future__ import annotations

import torch
import zentorch  # noqa: F401  (registers the backend)

from ..problem import Problem
from .pytorch_frozen import Frozen, Layer, compile_frozen


class Zentorch(Frozen):
    def __init__(self, problem: Problem, threads: int) -> None:
        # without a reset, which would undo the freezing of `Frozen`: that has just had one
        torch.set_num_threads(threads)
        self._x = torch.from_numpy(problem.x)
        self._model = compile_frozen(Layer(problem), self._x, backend="zentorch")
