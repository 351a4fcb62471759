"""Custom activations, module-level variables so that pickles find them, and their formulas in NumPy."""

from __future__ import annotations

import math
from math import expm1
from typing import Any, NamedTuple

import numba
import numpy as np

import fastact as fa


def _swish_derivative(z, beta):
    s = 1 / (1 + math.exp(-beta * z))
    return s + beta * z * s * (1 - s)


def _swish_slope_derivative(z, beta):
    s = 1 / (1 + math.exp(-beta * z))
    return z * z * s * (1 - s)


swish2 = fa.custom_activation(
    "swish2", lambda z: z / (1 + math.exp(-2 * z)), numba.njit(lambda z: _swish2_derivative(z))
)
_swish2_derivative = numba.njit(lambda z: (1 + (1 + 2 * z) * math.exp(-2 * z)) / (1 + math.exp(-2 * z)) ** 2)
swish = fa.custom_activation(
    "swish", lambda z, beta: z / (1 + np.exp(-beta * z)), _swish_derivative, parameter=1.5
)
learned_swish = fa.custom_activation(
    "learned_swish",
    lambda z, beta: z / (1 + math.exp(-beta * z)),
    _swish_derivative,
    slope=1.0,
    slope_derivative=_swish_slope_derivative,
)
squash = fa.custom_activation("squash", lambda z: np.tanh(z), lambda y: 1 - y * y, saves="y")
softplus = fa.custom_activation(
    "softplus", lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), lambda z: 1 / (1 + math.exp(-z))
)
bent = fa.custom_activation(
    "bent", lambda z: z if z > 0 else 0.5 * expm1(z), lambda z: 1.0 if z > 0 else 0.5 * math.exp(z)
)
logarithm = fa.custom_activation(
    "logarithm",
    lambda z: math.copysign(np.log(1 + abs(z)), z),
    lambda z: 1 / (1 + abs(z)),
)


class Case(NamedTuple):
    activation: Any
    forward: Any  # (z, p) -> y
    derivative: Any  # (z, y, p) -> dy/dz
    slope_derivative: Any = None  # (z, y, p) -> dy/dp
    default: float = 0.0  # p where no keyword gives it
    parameter: float | None = None  # a keyword

    def __str__(self):
        return f"{self.activation.name}{'' if self.parameter is None else self.parameter}"

    @property
    def learned(self):
        return self.slope_derivative is not None

    def keywords(self, features, dtype):
        """The keywords of a call; slopes are one per feature."""
        if self.learned:
            return {"slope": np.linspace(0.5, 2, features).astype(dtype)}
        return {} if self.parameter is None else {"parameter": self.parameter}

    def number(self, features, dtype):
        """p as float64."""
        if self.learned:
            return self.keywords(features, dtype)["slope"].astype(np.float64)
        return self.default if self.parameter is None else self.parameter


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _swish_terms(z, y, p):
    s = _sigmoid(p * z)
    return s + p * z * s * (1 - s)


_SWISH = (lambda z, p: z * _sigmoid(p * z), _swish_terms)
CASES = (
    Case(swish2, *_SWISH, default=2.0),
    Case(swish, *_SWISH, default=1.5),
    Case(swish, *_SWISH, parameter=0.75),
    Case(learned_swish, *_SWISH, lambda z, y, p: z**2 * _sigmoid(p * z) * _sigmoid(-p * z)),
    Case(squash, lambda z, p: np.tanh(z), lambda z, y, p: 1 - y * y),
    Case(softplus, lambda z, p: np.logaddexp(z, 0), lambda z, y, p: _sigmoid(z)),
    Case(
        bent,
        lambda z, p: np.where(z > 0, z, 0.5 * np.expm1(np.minimum(z, 0))),
        lambda z, y, p: np.where(z > 0, 1, 0.5 * np.exp(np.minimum(z, 0))),
    ),
    Case(logarithm, lambda z, p: np.sign(z) * np.log(1 + abs(z)), lambda z, y, p: 1 / (1 + abs(z))),
)
