"""The networks that are measured, each with its batch: sizes, hidden layers, dropout; and their inputs."""

from __future__ import annotations

import itertools
import re
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float64")
DROP_INPUT, DROP_HIDDEN = 0.2, 0.5  # as in `fastact.study.recipe`
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, the defaults of every contender


class Layer(NamedTuple):
    """A layer of a network: its linear units are out_features * pieces."""

    in_features: int
    out_features: int
    pieces: int

    @property
    def units(self) -> int:
        return self.out_features * self.pieces


class Network(NamedTuple):
    """A classifier on a batch: hidden layers of tanh, or of maxout, then a linear layer.

    `features` are the sizes of the input, of the output of each hidden layer, and of the logits.  `pieces`
    is 1 for tanh.  With `dropout`, training drops DROP_INPUT of the input and DROP_HIDDEN of each hidden
    layer's output; what it keeps, it divides by the share kept.
    """

    rows: int
    features: tuple[int, ...]
    pieces: int = 1
    dropout: bool = False

    def __str__(self) -> str:
        """ "256x8-64-64-4:tanh", or for maxout "100x784-240x5-240x5-10", with ":dropout" at the end."""
        first, *hidden, last = map(str, self.features)
        if self.pieces > 1:
            hidden = [f"{size}x{self.pieces}" for size in hidden]
        end = ":tanh" if self.pieces == 1 else ":dropout" if self.dropout else ""
        return f"{self.rows}x{'-'.join((first, *hidden, last))}{end}"

    @property
    def layers(self) -> list[Layer]:
        *hidden, last = itertools.pairwise(self.features)
        return [*(Layer(*sizes, self.pieces) for sizes in hidden), Layer(*last, 1)]

    @property
    def parameters(self) -> int:
        """The numbers in all weights and biases."""
        return sum(layer.units * (layer.in_features + 1) for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Those of the products of a forward."""
        return self.rows * sum(layer.units * layer.in_features for layer in self.layers)

    @classmethod
    def parse(cls, text: str) -> Network:
        """The network that `str` writes so; raises ValueError for any other text."""
        size = r"[1-9]\d*"
        found = re.fullmatch(
            rf"({size})x({size}(?:-{size})+-{size}):tanh"
            rf"|({size})x({size}(?:-{size}x{size})+-{size})(:dropout)?",
            text,
        )
        if found is not None:
            rows, sizes = found[1] or found[3], (found[2] or found[4]).split("-")
            pieces = {int(size.partition("x")[2] or 1) for size in sizes[1:-1]}
            features = tuple(int(size.partition("x")[0]) for size in sizes)
            network = cls(int(rows), features, max(pieces), found[5] is not None)
            if len(pieces) == 1 and str(network) == text:
                return network
        raise ValueError(
            f"network: got {text!r}, wanted rows x features, with tanh or with at least 2 pieces in each "
            "hidden layer, the same in all, as in 256x8-64-64-4:tanh or 100x784-240x5-240x5-10:dropout"
        )


# Small and middling networks with tanh, one row at a time, those of a controller with 376 sensors and 17
# motors; a small maxout network, and that of Goodfellow et al. 2013 for MNIST.
NETWORKS = (
    Network(200, (24, 8, 2)),
    Network(1, (8, 64, 64, 4)),
    Network(256, (8, 64, 64, 4)),
    Network(256, (8, 32, 32, 4), pieces=2),
    Network(128, (784, 256, 256, 10)),
    Network(256, (376, 256, 256, 17)),
    Network(100, (784, 240, 240, 10), pieces=5, dropout=True),
)
QUICK = (Network(200, (24, 8, 2)), Network(256, (8, 32, 32, 4), pieces=2))


class NetworkProblem:
    """A network's batch and initial parameters; every contender gets the same arrays.

    x (rows, in_features) and labels (rows,), integers; for each layer a weight (units, in_features) and a
    bias (units,), where the pieces of an output are neighbours.  The numbers are float32's in both dtypes.
    """

    def __init__(self, network: Network, dtype: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape, dtype=np.float32)

        self.network, self.dtype, self._seed = network, np.dtype(dtype), seed
        self.x = normal(network.rows, network.features[0]).astype(dtype)
        self.labels = rng.integers(max(1, network.features[-1]), size=network.rows)
        self.weights, self.biases = [], []
        for layer in network.layers:
            weight = normal(layer.units, layer.in_features) / np.float32(layer.in_features**0.5)
            self.weights.append(weight.astype(dtype))
            self.biases.append((normal(layer.units) / np.float32(8)).astype(dtype))

    def parameters(self) -> list[Array]:
        """The weight and the bias of each layer, in the order of the layers."""
        return [array for pair in zip(self.weights, self.biases, strict=True) for array in pair]

    def without_dropout(self) -> NetworkProblem:
        """The same arrays, for the network without dropout."""
        return NetworkProblem(self.network._replace(dropout=False), self.dtype.name, self._seed)

    def in_float64(self) -> NetworkProblem:
        """The same numbers in float64."""
        return NetworkProblem(self.network, "float64", self._seed)

    def drop_shares(self) -> list[float]:
        """The share of each layer's input that training drops."""
        if not self.network.dropout:
            return [0.0] * len(self.weights)
        return [DROP_INPUT] + [DROP_HIDDEN] * (len(self.weights) - 1)
