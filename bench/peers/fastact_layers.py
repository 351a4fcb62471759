"""fastact, on each of its backends."""

from __future__ import annotations

from typing import Any, ClassVar

import fastact
from fastact import backends

from ..problem import BFLOAT16_ROUNDOFF, LEARNING_RATE, TWO_PARTS_ROUNDOFF, Array, Problem
from ..shapes import MAXOUT
from .base import NotAvailable, OnArrays


class _Fastact(OnArrays):
    backend: ClassVar[str]
    tier: ClassVar[str] = "highest"

    @classmethod
    def require(cls) -> None:
        try:
            backends.get(cls.backend)
        except ImportError as error:
            raise NotAvailable(f"the {cls.backend} backend is not there ({error})") from error

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        fastact.set_num_threads(threads)
        _, in_features, out_features, pieces, activation = problem.shape
        self._settings = {"backend": self.backend, "precision": self.tier}
        self._layer: Any
        if activation == MAXOUT:
            self._layer = fastact.Maxout(in_features, out_features, pieces=pieces, precision=self.tier)
        else:
            self._layer = fastact.Linear(
                in_features, out_features, activation=activation, precision=self.tier
            )
        weight, bias = self._layer.weight.data, self._layer.bias.data
        weight[...] = problem.weight.reshape(weight.shape)
        bias[...] = problem.bias.reshape(bias.shape)
        self._weight, self._bias = weight, bias
        self._optimizer = fastact.SGD(self._layer.parameters(), lr=LEARNING_RATE)

    def _forward(self, saves: bool = True) -> tuple[Array, Any]:
        arrays = (self._x, self._weight, self._bias)
        if self._activation == MAXOUT:
            return fastact.linear_maxout(*arrays, **self._settings)
        return fastact.linear_activation(*arrays, self._activation, return_saved=saves, **self._settings)

    def _backward(self, grad_y: Array, saved: Any) -> tuple[Array, Array, Array]:
        arrays = (grad_y, self._x, self._weight, saved)
        if self._activation == MAXOUT:
            return fastact.linear_maxout_backward(*arrays, **self._settings)
        return fastact.linear_activation_backward(*arrays, self._activation, **self._settings)

    def forward(self) -> Array:
        return self._forward(saves=False)[0]

    def step(self) -> tuple[Array, Array]:
        fastact.set_backend(self.backend)  # layers run on the process's choice
        _, grad_y = fastact.mse(self._layer(self._x, training=True), self._target)
        self._layer.backward(grad_y)
        self._optimizer.step()
        return self._weight, self._bias


class FastactC(_Fastact):
    backend = "c"


def _require_unit(tier: str) -> None:
    """Raise NotAvailable where a precision tier runs on the float32 kernels."""
    if fastact.get_config()["tier_units"][tier] == "float32":
        raise NotAvailable(f'this CPU has no unit for "{tier}": it runs as "highest"')


class _Tier(FastactC):
    """A precision tier, where this CPU has a unit for it."""

    @classmethod
    def require(cls) -> None:
        super().require()
        _require_unit(cls.tier)


class FastactHigh(_Tier):
    tier = "high"
    roundoff = TWO_PARTS_ROUNDOFF


class FastactMedium(_Tier):
    tier = "medium"
    roundoff = BFLOAT16_ROUNDOFF


class FastactNumba(_Fastact):
    backend = "numba"


class NaiveNumpy(_Fastact):
    """The reference backend, which is the specification: each operation in an array of its own."""

    backend = "numpy"

    def __init__(self, problem: Problem, threads: int) -> None:
        if problem.shape.activation == "gelu":
            raise NotAvailable("NumPy has no erf: the reference calls Python's for each number")
        super().__init__(problem, threads)


class _Frozen(_Fastact):
    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        fastact.set_backend(self.backend)
        self._frozen = fastact.freeze(self._layer)

    def forward(self) -> Array:
        y: Array = self._frozen(self._x)
        return y


class FrozenC(_Frozen):
    backend = "c"


class FrozenNumba(_Frozen):
    backend = "numba"


class FrozenBf16(FrozenC):
    """At the tier "medium", where this CPU has a bfloat16 unit for it."""

    roundoff = BFLOAT16_ROUNDOFF

    @classmethod
    def require(cls) -> None:
        super().require()
        _require_unit("medium")

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        self._frozen = fastact.freeze(self._layer, "medium")
