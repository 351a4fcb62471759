"""OpenVINO: the same graph as ONNX Runtime's, in float32, and in bfloat16 where the CPU has it."""

from __future__ import annotations

from typing import Any, ClassVar

import openvino

from ..problem import BFLOAT16_ROUNDOFF, Problem
from .base import Contender, NotAvailable
from .onnx_runtime import layer_graph


class OpenVino(Contender):
    precision: ClassVar[str] = "f32"

    def __init__(self, problem: Problem, threads: int) -> None:
        core: Any = openvino.Core()
        model = core.read_model(layer_graph(problem).SerializeToString())
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._request.set_input_tensor(openvino.Tensor(problem.x, shared_memory=True))

    def forward(self) -> Any:
        self._request.infer()
        return self._request.get_output_tensor().data


class OpenVinoBf16(OpenVino):
    precision = "bf16"
    roundoff = 1.5 * BFLOAT16_ROUNDOFF  # the result is rounded as both operands are

    @classmethod
    def require(cls) -> None:
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NotAvailable("this CPU has no bfloat16 arithmetic")
