"""fastact, on each of its backends."""

from __future__ import annotations

from typing import Any, ClassVar

import fastact
from fastact import backends

from ..problem import BFLOAT16_ROUNDOFF, LEARNING_RATE, TWO_PARTS_ROUNDOFF, Array, Problem
from .base import Contender, NotInstalled


class _Fastact(Contender):
    backend: ClassVar[str]
    tier: ClassVar[str] = "highest"

    @classmethod
    def require(cls) -> None:
        try:
            backends.get(cls.backend)
        except ImportError as error:
            raise NotInstalled(f"the {cls.backend} backend is not there ({error})") from error

    def __init__(self, problem: Problem, threads: int) -> None:
        fastact.set_num_threads(threads)
        self._x, self._grad_y, self._target = problem.x, problem.grad_y, problem.target
        _, in_features, out_features, pieces = problem.shape
        self._layer: Any = fastact.Maxout(in_features, out_features, pieces=pieces, precision=self.tier)
        self._layer.load_state_dict({"weight": problem.weight, "bias": problem.bias})
        self._weight, self._bias = self._layer.weight.data, self._layer.bias.data
        self._optimizer = fastact.SGD(self._layer.parameters(), lr=LEARNING_RATE)

    def _forward(self) -> tuple[Array, Array]:
        return fastact.linear_maxout(
            self._x, self._weight, self._bias, backend=self.backend, precision=self.tier
        )

    def _backward(self, grad_y: Array, argmax: Array) -> tuple[Array, Array, Array]:
        return fastact.linear_maxout_backward(
            grad_y, self._x, self._weight, argmax, backend=self.backend, precision=self.tier
        )

    def forward(self) -> Array:
        return self._forward()[0]

    def forward_backward(self) -> tuple[Array, Array, Array]:
        return self._backward(self._grad_y, self._forward()[1])

    def step(self) -> tuple[Array, Array]:
        fastact.set_backend(self.backend)  # layers run on the process's choice
        _, grad_y = fastact.mse(self._layer(self._x, training=True), self._target)
        self._layer.backward(grad_y)
        self._optimizer.step()
        return self._weight, self._bias


class FastactC(_Fastact):
    backend = "c"


def _require_unit(tier: str) -> None:
    """Raise NotInstalled where a precision tier runs on the float32 kernels."""
    if fastact.get_config()["tier_units"][tier] == "float32":
        raise NotInstalled(f'this CPU has no unit for "{tier}": it runs as "highest"')


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
    """The specification, `fastact/reference.py`: product, bias, max, argmax; two dense products back."""

    backend = "numpy"


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
