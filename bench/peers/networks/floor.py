"""The floor: the time of fastact's kernels alone, which no driver of them can go below.

A step is a list of calls on arrays that are there already: a product forward and backward for each layer,
the loss, and Adam.  The floor is the sum of each call's shortest time, less that of the same call on empty
arrays, which is what Python and the checks of arguments take.  Dropout is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastact
from fastact import activations, backends

from ...networks import Array, Layer, Network, NetworkProblem
from ...timing import Sample, shortest
from .base import NetworkContender
from .fastact_sequential import require_c

ROUNDS = 7


class _Kernels:
    """The calls of a network's kernels: those of inference, of a training forward, and so on."""

    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        c, dtype, last = backends.get("c"), problem.dtype, len(problem.weights) - 1
        self._problem = problem
        self.infer: list[Callable[[], Any]] = []
        self.forward: list[Callable[[], Any]] = []
        self.backward: list[Callable[[], Any]] = []  # the last layer first
        self.parameters: list[fastact.Parameter] = []
        x, grad_x = problem.x, None  # the first layer's input needs no gradient
        for i, layer in enumerate(problem.network.layers):
            weight, bias = (
                self._parameter(array, layer) for array in (problem.weights[i], problem.biases[i])
            )
            y, grad_y = (np.zeros((problem.network.rows, layer.out_features), dtype) for _ in range(2))
            arrays, grads = (x, weight.data, bias.data), (grad_x, weight.grad, bias.grad)
            if layer.pieces > 1:
                argmax = np.zeros(y.shape, np.uint8)
                self.infer.append(partial(c.linear_maxout, *arrays, y, None, threads))
                self.forward.append(partial(c.linear_maxout, *arrays, y, argmax, threads))
                backward, saved = c.linear_maxout_backward, (argmax, *grads)
            else:
                name = "identity" if i == last else "tanh"  # their backward needs y alone
                act = activations.resolve(name, layer.out_features, dtype, {})
                self.infer.append(partial(c.linear_activation, *arrays, act, y, None, threads))
                self.forward.append(self.infer[i])
                backward, saved = c.linear_activation_backward, (y, act, *grads, None)
            self.backward.insert(0, partial(backward, grad_y, x, weight.data, *saved, False, threads))
            x, grad_x = y, grad_y
        self.logits, self.grad_logits = y, grad_y
        self.loss = partial(fastact.softmax_cross_entropy, y, problem.labels)

    def _parameter(self, array: Array, layer: Layer) -> fastact.Parameter:
        grouped = (layer.out_features, layer.pieces, *array.shape[1:])
        data = array.copy() if layer.pieces == 1 else array.reshape(grouped).copy()
        parameter = fastact.Parameter(data, "")
        parameter.grad = np.zeros_like(data)
        self.parameters.append(parameter)
        return parameter

    def start_training(self, learning_rate: float) -> None:
        for parameter, array in zip(self.parameters, self._problem.parameters(), strict=True):
            parameter.data[...] = array.reshape(parameter.data.shape)
        self.update = fastact.Adam(self.parameters, lr=learning_rate).step

    def step(self) -> list[Callable[[], Any]]:
        """The calls of a training step."""
        return [*self.forward, self.loss, *self.backward, self.update]


class Floor(NetworkContender):
    """The calls in their order are a forward or a step, which is checked like those of the others."""

    @classmethod
    def require(cls) -> None:
        require_c()

    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        require_c()
        fastact.set_num_threads(threads)
        nothing = Network(0, (0,) * len(problem.network.features), problem.network.pieces)
        self._kernels = _Kernels(problem, threads)
        self._idle = _Kernels(NetworkProblem(nothing, problem.dtype.name), threads)

    def forward(self) -> Array:
        for call in self._kernels.infer:
            call()
        return self._kernels.logits

    def start_training(self, learning_rate: float) -> None:
        self._kernels.start_training(learning_rate)
        self._idle.start_training(learning_rate)

    def step(self) -> float:
        for call in self._kernels.forward:
            call()
        loss, self._kernels.grad_logits[...] = self._kernels.loss()
        for call in (*self._kernels.backward, self._kernels.update):
            call()
        return float(loss)

    def shortest(self, mode: str) -> Sample:
        """The floor of "forward" or, once training was started, of "step"."""
        work, idle = (
            each.infer if mode == "forward" else each.step() for each in (self._kernels, self._idle)
        )
        seconds = sum(
            max(0.0, shortest(call, ROUNDS) - shortest(empty, ROUNDS))
            for call, empty in zip(work, idle, strict=True)
        )
        microseconds = float(f"{1e6 * seconds:.5g}")
        return Sample(microseconds, microseconds, microseconds, ROUNDS, 1)
