"""What a network's logits and losses are in float64, and how far right ones may be from those."""

from __future__ import annotations

from typing import Any

import numpy as np

from .networks import Array, NetworkProblem
from .peers.networks.base import NetworkContender
from .peers.networks.numpy_plain import NumpyPlain

LEARNING_RATE, STEPS = 1e-3, 5  # of the steps that are checked


def log_softmax(logits: Any) -> Array:
    """log softmax(logits) in float64, which a number added to a row does not change."""
    array = np.asarray(logits, np.float64)
    array = array - array.max(axis=1, keepdims=True)
    return array - np.log(np.exp(array).sum(axis=1, keepdims=True))


def losses(contender: NetworkContender, steps: int) -> Array:
    """The losses of the first steps of training."""
    contender.start_training(LEARNING_RATE)
    return np.array([contender.step() for _ in range(steps)])


class NetworkTruth:
    """A network in float64, by NumPy, without dropout.

    An error is a multiple of its bound, and above 1 it is a mistake.  The bound is the square root of the
    dtype's epsilon, relative to the first loss or to the largest logarithm of a probability.  Rounding in
    sums of some hundred terms stays far below it.  A gradient that lacks a term, or an update that is not
    Adam's, is far above.
    """

    def __init__(self, problem: NetworkProblem) -> None:
        exact = NumpyPlain(problem.without_dropout().in_float64(), 1)
        self._bound = float(np.finfo(problem.dtype).eps) ** 0.5
        self._log_softmax = log_softmax(exact.forward())
        self._losses = losses(exact, STEPS)

    def forward_error(self, contender: NetworkContender) -> float:
        """The largest error of inference."""
        off = np.abs(log_softmax(contender.logits()) - self._log_softmax)
        return float(off.max() / np.abs(self._log_softmax).max() / self._bound)

    def step_error(self, contender: NetworkContender) -> float:
        """The largest error of a loss of a contender that trains without dropout."""
        off = np.abs(losses(contender, STEPS) - self._losses)
        allowed = self._bound * self._losses[0] + contender.loss_error(LEARNING_RATE, STEPS)
        return float(off.max() / allowed)

    def drops(self, contender: NetworkContender) -> bool:
        """Whether the losses of a contender that trains with dropout are others than without, and finite."""
        change = np.abs(losses(contender, STEPS) / self._losses - 1)
        return bool(self._bound < change.max() < np.inf)
