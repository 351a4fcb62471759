"""NumPy, one operation after the other.  In float64 it is what the other contenders are checked against."""

from __future__ import annotations

import numpy as np

from ...networks import BETA1, BETA2, EPS, Array, NetworkProblem
from .base import NetworkContender


class NumpyPlain(NetworkContender):
    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        self._problem = problem
        self._layers, self._drop_shares = problem.network.layers, problem.drop_shares()
        self._rows = np.arange(problem.network.rows)
        self._take_parameters()

    def _take_parameters(self) -> None:
        self._weights = [weight.copy() for weight in self._problem.weights]
        self._biases = [bias.copy() for bias in self._problem.biases]

    def _activate(self, i: int, z: Array) -> Array:
        """The output of a hidden layer."""
        pieces = self._layers[i].pieces
        return np.tanh(z) if pieces == 1 else z.reshape(len(z), -1, pieces).max(axis=-1)

    def _saved(self, i: int, z: Array, y: Array) -> Array:
        """What the backward of a hidden layer needs: y of tanh, the argmax of maxout."""
        pieces = self._layers[i].pieces
        return y if pieces == 1 else z.reshape(len(z), -1, pieces).argmax(axis=-1)[..., None]

    def _activate_backward(self, i: int, grad_y: Array, saved: Array) -> Array:
        if self._layers[i].pieces == 1:
            return grad_y * (1 - saved * saved)
        grad_z = np.zeros((*grad_y.shape, self._layers[i].pieces), grad_y.dtype)
        np.put_along_axis(grad_z, saved, grad_y[..., None], axis=-1)
        return grad_z.reshape(len(grad_y), -1)

    def forward(self) -> Array:
        x, last = self._problem.x, len(self._weights) - 1
        for i in range(last):
            x = self._activate(i, x @ self._weights[i].T + self._biases[i])
        return x @ self._weights[last].T + self._biases[last]

    def start_training(self, learning_rate: float) -> None:
        self._take_parameters()
        self._learning_rate, self._steps = learning_rate, 0
        self._means = [np.zeros_like(each) for each in (*self._weights, *self._biases)]
        self._squares = [np.zeros_like(each) for each in self._means]
        self._rng = np.random.default_rng(1)

    def step(self) -> float:
        x, last = self._problem.x, len(self._weights) - 1
        inputs, masks, saved = [], [], []
        for i in range(last + 1):
            masks.append(self._mask(x, self._drop_shares[i]))
            if masks[i] is not None:
                x = x * masks[i]
            inputs.append(x)
            z = x @ self._weights[i].T + self._biases[i]
            if i < last:
                x = self._activate(i, z)
                saved.append(self._saved(i, z, x))
        loss, grad = self._cross_entropy(z)
        grad_weights: list[Array] = []
        grad_biases: list[Array] = []
        for i in range(last, -1, -1):
            if i < last:
                grad = self._activate_backward(i, grad, saved[i])
            grad_weights.insert(0, grad.T @ inputs[i])
            grad_biases.insert(0, grad.sum(axis=0))
            if i:
                grad = grad @ self._weights[i]
                if masks[i] is not None:
                    grad *= masks[i]
        self._adam([*grad_weights, *grad_biases])
        return loss

    def _mask(self, x: Array, share: float) -> Array | None:
        if share == 0:
            return None
        return (self._rng.random(x.shape, np.float32) >= share) / x.dtype.type(1 - share)

    def _cross_entropy(self, logits: Array) -> tuple[float, Array]:
        labels = self._problem.labels
        logits = logits - logits.max(axis=1, keepdims=True)
        grad = np.exp(logits)
        total = grad.sum(axis=1, keepdims=True)
        loss = np.mean(np.log(total[:, 0]) - logits[self._rows, labels])
        grad /= total
        grad[self._rows, labels] -= 1
        return float(loss), grad / len(grad)

    def _adam(self, grads: list[Array]) -> None:
        self._steps += 1
        rate = self._learning_rate / (1 - BETA1**self._steps)
        unbias = 1 / (1 - BETA2**self._steps) ** 0.5
        parameters = (*self._weights, *self._biases)
        for parameter, grad, mean, square in zip(parameters, grads, self._means, self._squares, strict=True):
            mean *= BETA1
            mean += (1 - BETA1) * grad
            square *= BETA2
            square += (1 - BETA2) * grad * grad
            parameter -= rate * mean / (np.sqrt(square) * unbias + EPS)
