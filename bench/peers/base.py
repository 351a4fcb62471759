"""What every contender offers."""

from __future__ import annotations

from typing import Any, ClassVar

from ..problem import FLOAT32_ROUNDOFF, Problem


class NotInstalled(Exception):
    """A contender can't run here; the message says what is lacking."""


class Contender:
    """One way to compute a linear + maxout layer, as its users would write it.

    The constructor converts a problem's arrays, compiles and packs whatever may be kept between calls;
    the methods are what is timed.  Results come in the library's own arrays: anything that
    `numpy.asarray` takes, with the pieces of an output next to each other.
    """

    roundoff: ClassVar[float] = FLOAT32_ROUNDOFF  # of the inputs, as its arithmetic sees them

    @classmethod
    def require(cls) -> None:
        """Raise NotInstalled where this machine lacks something that an import does not show."""

    def __init__(self, problem: Problem, threads: int) -> None:
        raise NotImplementedError

    def forward(self) -> Any:
        """y (rows, out_features)."""
        raise NotImplementedError

    def forward_backward(self) -> tuple[Any, Any, Any]:
        """(grad_x, grad_weight, grad_bias), after a forward, for the problem's grad_y."""
        raise NotImplementedError

    def step(self) -> tuple[Any, Any]:
        """A training step, and (weight, bias) after it: forward, mean squared error against target,
        backward down to grad_x, plain gradient descent."""
        raise NotImplementedError
