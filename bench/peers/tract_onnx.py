"""tract, float32: the same graph as ONNX Runtime's.  It has one thread."""

from __future__ import annotations

import tempfile
from typing import Any

import tract

from ..problem import Problem
from .base import Contender
from .onnx_runtime import layer_graph


class Tract(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(layer_graph(problem).SerializeToString())
            file.flush()
            model: Any = tract.onnx().load(file.name)
        self._model = model.into_model().into_runnable()
        self._x = tract.Tensor.from_numpy(problem.x)

    def forward(self) -> Any:
        return self._model.run([self._x])[0].to_numpy()
