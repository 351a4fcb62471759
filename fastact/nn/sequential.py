# mypy: disable-error-code="no-any-return"
"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .layer import Array, Layer, Parameter


class Sequential(Layer):
    """Layers one after the other.

    Args:
        *layers: each layer once; a Sequential may be among them.

    Attributes:
        layers: they, as a tuple.

    Raises:
        TypeError: one is not a Layer.  ValueError: one is there twice.
    """

    layers: tuple[Any, ...]  # Any, so that a type checker lets a layer's own attributes pass

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{i}]: got {type(layer).__name__}, wanted a Layer")
        self.layers = layers
        seen: set[int] = set()
        for layer in self._leaves():
            if id(layer) in seen:
                raise ValueError(f"{layer!r} is there twice, wanted each layer once")
            seen.add(id(layer))
        # what stands before the first parameter needs no backward where grad_x is not needed
        self._first = next((i for i, layer in enumerate(layers) if layer.parameters()), len(layers))

    def _leaves(self) -> Iterator[Layer]:
        for layer in self.layers:
            if isinstance(layer, Sequential):
                yield from layer._leaves()
            else:
                yield layer

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        for layer in self.layers:
            x = layer(x, training)
        return x, ()

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        grad: Any = grad_y
        for i in range(len(self.layers) - 1, -1, -1):
            if needs_input_grad or i >= self._first:
                grad = self.layers[i].backward(grad, accumulate, needs_input_grad or i > self._first)
            else:
                self.layers[i]._saved = None
        return grad

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for i, layer in enumerate(self.layers):
            for name, parameter in layer.named_parameters():
                yield f"{i}.{name}", parameter

    def __repr__(self) -> str:
        lines = [
            f"  {i}: {line}" if j == 0 else f"  {line}"
            for i, layer in enumerate(self.layers)
            for j, line in enumerate(repr(layer).split("\n"))
        ]
        count = sum(np.size(parameter.data) for parameter in self.parameters())
        return "\n".join(["Sequential(", *lines, f")  # {count:,} parameters"])
