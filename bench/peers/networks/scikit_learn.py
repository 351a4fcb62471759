"""scikit-learn's MLPClassifier: a step is `partial_fit` on the batch, a forward `predict_proba`.

`partial_fit` is its only public step.  It includes the checks of the batch, the labels as one-hot rows, the
penalty's norm, and the check that the new weights are finite; `predict_proba` includes the softmax.
"""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from ...networks import BETA2, EPS, Array, NetworkProblem
from ..base import NotAvailable
from .base import NetworkContender


class ScikitLearn(NetworkContender):
    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        rows, features, pieces, dropout = problem.network
        if pieces > 1 or dropout:
            raise NotAvailable("it has neither maxout nor dropout")
        if features[-1] == 2:
            raise NotAvailable("it has one logistic output for two classes")
        self._problem = problem
        self._model = MLPClassifier(
            features[1:-1], activation="tanh", solver="adam", alpha=0, batch_size=rows, shuffle=False
        )
        self._model.partial_fit(problem.x, problem.labels, classes=np.arange(features[-1]))
        self._take_parameters()

    def _take_parameters(self) -> None:
        self._model.coefs_ = [weight.T.copy() for weight in self._problem.weights]
        self._model.intercepts_ = [bias.copy() for bias in self._problem.biases]

    def forward(self) -> Array:
        shares: Array = self._model.predict_proba(self._problem.x)
        return shares

    def logits(self) -> Array:
        return np.log(self.forward())

    def start_training(self, learning_rate: float) -> None:
        self._take_parameters()
        self._model.set_params(learning_rate_init=learning_rate)
        del self._model._optimizer  # partial_fit then makes a new one, with averages of zero

    def step(self) -> float:
        self._model.partial_fit(self._problem.x, self._problem.labels)
        return float(self._model.loss_)

    def loss_error(self, learning_rate: float, steps: int) -> float:
        """Its Adam adds eps to the square root before that is divided by sqrt(1 - beta2^t).

        An update g / (|g| + eps) of a parameter then differs by at most eps / |g| / sqrt(1 - beta2^t), and
        the loss, to first order, by the learning rate times |g| times as much.
        """
        a_parameter = sum(EPS / (1 - BETA2**t) ** 0.5 for t in range(1, steps))
        return learning_rate * self._problem.network.parameters * a_parameter
