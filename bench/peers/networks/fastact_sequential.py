"""fastact's own layers, on the C backend: `Sequential`, `softmax_cross_entropy`, `Adam`; and frozen."""

from __future__ import annotations

from typing import Any

import fastact

from ...networks import Array, NetworkProblem
from ..base import NotAvailable
from .base import NetworkContender


def require_c() -> None:
    """Choose the C backend for the process; raises NotAvailable without it."""
    try:
        fastact.set_backend("c")
    except ImportError as error:
        raise NotAvailable(f"the c backend is not there ({error})") from error


def build(problem: NetworkProblem) -> fastact.Sequential:
    """The network, with any parameters."""
    layers: list[fastact.Layer] = []
    shares, last = problem.drop_shares(), len(problem.weights) - 1
    for i, (in_features, out_features, pieces) in enumerate(problem.network.layers):
        if shares[i]:
            layers.append(fastact.Dropout(shares[i], rng=i))
        if pieces > 1:
            layers.append(fastact.Maxout(in_features, out_features, pieces, dtype=problem.dtype))
        else:
            activation = "identity" if i == last else "tanh"
            layers.append(
                fastact.Linear(in_features, out_features, activation=activation, dtype=problem.dtype)
            )
    return fastact.Sequential(*layers)


class FastactC(NetworkContender):
    @classmethod
    def require(cls) -> None:
        require_c()

    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        require_c()  # another contender may have chosen another backend since
        fastact.set_num_threads(threads)
        self._problem = problem
        self._x, self._labels = problem.x, problem.labels
        self._model = build(problem)
        self._take_parameters()

    def _take_parameters(self) -> None:
        for parameter, array in zip(self._model.parameters(), self._problem.parameters(), strict=True):
            parameter.data[...] = array.reshape(parameter.data.shape)

    def forward(self) -> Array:
        return self._model(self._x)

    def start_training(self, learning_rate: float) -> None:
        self._take_parameters()
        self._optimizer = fastact.Adam(self._model.parameters(), lr=learning_rate)

    def step(self) -> float:
        logits = self._model(self._x, training=True)
        loss, grad = fastact.softmax_cross_entropy(logits, self._labels)
        self._model.backward(grad, needs_input_grad=False)
        self._optimizer.step()
        return loss


class FrozenC(FastactC):
    modes = ("forward",)

    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        super().__init__(problem, threads)
        self._frozen: Any = fastact.freeze(self._model)

    def forward(self) -> Array:
        y: Array = self._frozen(self._x)
        return y
