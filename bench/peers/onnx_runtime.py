"""ONNX Runtime, float32: Gemm, then Reshape and ReduceMax, or an activation; the weights are constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..problem import Problem
from ..shapes import MAXOUT
from .base import Contender


def layer_graph(problem: Problem) -> onnx.ModelProto:
    """The layer as an ONNX model: input x, output y."""
    rows, in_features, out_features, pieces, activation = problem.shape
    constants = {"weight": problem.weight, "bias": problem.bias}
    if activation == MAXOUT:
        constants["shape"] = np.array([rows, out_features, pieces], np.int64)
        constants["axes"] = np.array([2], np.int64)
        after_product = [
            helper.make_node("Reshape", ["z", "shape"], ["groups"]),
            helper.make_node("ReduceMax", ["groups", "axes"], ["y"], keepdims=0),
        ]
    else:
        after_product = [helper.make_node(activation.capitalize(), ["z"], ["y"])]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["z"], transB=1), *after_product],
        problem.shape.layer,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, in_features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, out_features])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # version 20 of the operators is the first that has Gelu
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class OnnxRuntime(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            layer_graph(problem).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._y = np.empty((problem.shape.rows, problem.shape.out_features), np.float32)
        self._binding = self._session.io_binding()
        self._x = onnxruntime.OrtValue.ortvalue_from_numpy(problem.x)
        self._binding.bind_ortvalue_input("x", self._x)
        y = self._y
        self._binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def forward(self) -> Any:
        self._session.run_with_iobinding(self._binding)
        return self._y
