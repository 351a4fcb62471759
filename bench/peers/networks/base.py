"""The methods that every contender on networks has."""

from __future__ import annotations

from typing import Any, ClassVar

from ...networks import NetworkProblem


class NetworkContender:
    """One way to run and to train a network, as its users would write it.

    The constructor makes the network for inference; it raises NotAvailable where the library lacks something
    that the network needs.  `forward` and `step` are timed.  Every step ends with the loss as a Python float,
    which every training loop looks at.
    """

    modes: ClassVar[tuple[str, ...]] = ("forward", "step")

    @classmethod
    def require(cls) -> None:
        """Raise NotAvailable where this machine lacks something that an import does not show."""

    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        raise NotImplementedError

    def forward(self) -> Any:
        """The logits (rows, classes) in inference, as the library's own array; before any training."""
        raise NotImplementedError

    def logits(self) -> Any:
        """What `forward` returns as logits, up to a number that is the same for all logits of a row."""
        return self.forward()

    def start_training(self, learning_rate: float) -> None:
        """Begin with the problem's parameters, and with Adam at its step 0."""
        raise NotImplementedError

    def step(self) -> float:
        """A training step on the batch, and its loss: forward, softmax cross-entropy, backward, Adam."""
        raise NotImplementedError

    def loss_error(self, learning_rate: float, steps: int) -> float:
        """How far a right loss may be from the others' after some steps, beside rounding."""
        return 0.0
