"""ExecuTorch: the layer exported from PyTorch and lowered to XNNPACK; max is ExecuTorch's own kernel."""

from __future__ import annotations

from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime

from ..problem import Problem
from .base import Contender
from .pytorch_frozen import Layer


class ExecuTorch(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        if portable_lib._threadpool_get_thread_count() != threads:  # at first the cores of the machine
            portable_lib._unsafe_reset_threadpool(threads)
        self._inputs = [torch.from_numpy(problem.x)]
        exported = torch.export.export(Layer(problem).eval(), tuple(self._inputs))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        self._program: Any = Runtime.get().load_program(lowered.to_executorch().buffer)
        self._method = self._program.load_method("forward")

    def forward(self) -> Any:
        return self._method.execute(self._inputs)[0]
