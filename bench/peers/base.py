"""The methods that every contender has."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..problem import FLOAT32_ROUNDOFF, LEARNING_RATE, Array, Problem


class NotAvailable(Exception):
    """A contender that this machine or its library cannot run; the message says what is lacking."""


class Contender:
    """One way to compute a linear layer and its activation, as its users would write it.

    The constructor converts a problem's arrays, compiles, and packs whatever may be kept between calls;
    it raises NotAvailable where the library lacks the activation.  The methods are timed.  Results are the
    library's own arrays: anything that `numpy.asarray` takes, the pieces of an output next to each other.
    """

    roundoff: ClassVar[float] = FLOAT32_ROUNDOFF  # of the inputs, as its arithmetic sees them

    @classmethod
    def require(cls) -> None:
        """Raise NotAvailable where this machine lacks something that an import does not show."""

    def __init__(self, problem: Problem, threads: int) -> None:
        raise NotImplementedError

    def forward(self) -> Any:
        """y (rows, out_features), where no backward follows."""
        raise NotImplementedError

    def forward_backward(self) -> tuple[Any, Any, Any]:
        """(grad_x, grad_weight, grad_bias), after a forward, for the problem's grad_y."""
        raise NotImplementedError

    def step(self) -> tuple[Any, Any]:
        """A training step, and (weight, bias) after it: forward, mean squared error against target,
        backward down to grad_x, plain gradient descent."""
        raise NotImplementedError


class OnArrays(Contender):
    """A contender on NumPy arrays: subclasses say how a forward and a backward are computed."""

    def __init__(self, problem: Problem, threads: int) -> None:
        rows, _, out_features, pieces, self._activation = problem.shape
        self._grouped = (rows, out_features, pieces)
        self._x, self._grad_y, self._target = problem.x, problem.grad_y, problem.target
        self._weight, self._bias = problem.weight.copy(), problem.bias.copy()

    def _forward(self) -> tuple[Array, Any]:
        """y, and what the backward needs."""
        raise NotImplementedError

    def _backward(self, grad_y: Array, saved: Any) -> tuple[Array, Array, Array]:
        raise NotImplementedError

    def forward(self) -> Array:
        return self._forward()[0]

    def forward_backward(self) -> tuple[Array, Array, Array]:
        return self._backward(self._grad_y, self._forward()[1])

    def step(self) -> tuple[Array, Array]:
        y, saved = self._forward()
        residual = y - self._target
        float(np.mean(residual * residual))  # the loss, which every loop looks at
        _, grad_weight, grad_bias = self._backward(residual * (2 / residual.size), saved)
        self._weight -= LEARNING_RATE * grad_weight
        self._bias -= LEARNING_RATE * grad_bias
        return self._weight, self._bias
