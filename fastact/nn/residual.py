"""A layer with a connection around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .. import checks
from ..settings import Precision
from . import network
from .layer import Array, Layer, Sizes, check_layer
from .sequential import add_place, has_known_forward, leaves, sizes_of, title

State = TypeVar("State")


class Residual(Layer):
    """A layer with a connection around it: y = x + layer(x) (He et al. 2016).

        block = fa.Sequential(fa.LayerNorm(64), fa.Linear(64, 64, activation="relu"), fa.Linear(64, 64))
        model = fa.Sequential(fa.Linear(784, 64), fa.Residual(block), fa.Linear(64, 10))

    Args:
        layer: a layer that returns an array of x's shape and dtype; often a `Sequential`.

    Attributes:
        layer: the layer.

    Raises:
        TypeError: layer is not a Layer, or it returns another dtype than it takes.
        ValueError: layer returns another number of features than it takes.

    The sizes of a layer of your own are not known; a forward checks what it returns.
    """

    _contents = "layer"
    layer: Any  # Any, so that a type checker lets the layer's own attributes pass

    def __init__(self, layer: Layer) -> None:
        check_layer("layer", layer)
        self.layer = layer
        takes, returns, x_dtype, y_dtype = self._ends()
        got = f"layer: got {title(layer)}, which"
        if takes is not None and returns is not None and takes != returns:
            raise ValueError(
                f"{got} returns {returns} features for {takes}, wanted one that keeps their number"
            )
        if x_dtype is not None and y_dtype is not None and x_dtype != y_dtype:
            raise TypeError(f"{got} returns {y_dtype} for {x_dtype}, wanted one that keeps the dtype")

    def _ends(self) -> tuple[int | None, int | None, np.dtype[Any] | None, np.dtype[Any] | None]:
        """The features that the layer takes and returns, and both dtypes; None for what is not known."""
        takes = returns = x_dtype = y_dtype = None
        known = True  # no layer of unknown sizes so far
        for _, layer in leaves(self.layer):
            sizes = sizes_of(layer)
            if sizes is None:
                known, returns, y_dtype = False, None, None
                continue
            if sizes.takes is not None:
                takes = sizes.takes if known and takes is None else takes
                returns = sizes.returns
            if sizes.dtype is not None:
                x_dtype = sizes.dtype if known and x_dtype is None else x_dtype
                y_dtype = sizes.dtype
        return takes, returns, x_dtype, y_dtype

    def _sizes(self) -> Sizes:
        takes, returns, x_dtype, y_dtype = self._ends()
        features = returns if takes is None else takes  # y has the shape of x, whatever the layer is
        return Sizes(features, features, y_dtype if x_dtype is None else x_dtype)

    def _parts(self) -> tuple[list[network.Part], list[Layer]] | None:
        found = network.parts_of(self.layer)
        if found is None:
            return None
        parts, layers = found
        return [(network.BRANCH, self, ()), *parts, (network.SUM, self, ())], [self, *layers]

    def _from_tape(self, x: Array, y: Array, nothing: None, tier: Precision, factor: float) -> Any:
        return x.shape, x.dtype

    def _children(self) -> tuple[tuple[str, Layer], ...]:
        return (("layer", self.layer),)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x)
        try:
            y = self.layer(x, training)
        except Exception as error:
            add_place(error, "layer", self.layer)
            raise
        return self._sum(x, y), (x.shape, x.dtype)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        shape, dtype = saved
        checks.check_array("grad_y", grad_y, dtype)
        checks.check_shape("grad_y", grad_y.shape, shape)
        try:
            grad = self.layer.backward(grad_y, accumulate, needs_input_grad)
        except Exception as error:
            add_place(error, "layer", self.layer)
            raise
        if not needs_input_grad:
            return None
        return self._sum(grad_y, grad, ("layer's backward", "grad_y"))

    def _sum(self, x: Array, y: Any, names: tuple[str, str] = ("layer", "x")) -> Array:
        """x + y, where y is what the layer returned for x, or its backward for grad_y."""
        returned, given = names
        if type(y) not in checks.ARRAYS:
            raise TypeError(f"{returned}: returned {type(y).__name__}, wanted a numpy.ndarray")
        if y.dtype != x.dtype:
            raise TypeError(f"{returned}: returned dtype {y.dtype}, wanted {x.dtype} to match {given}")
        if y.shape != x.shape:
            raise ValueError(f"{returned}: returned shape {y.shape}, wanted {x.shape} to match {given}")
        total = np.empty(x.shape, x.dtype)
        with np.errstate(all="ignore"):  # as in the kernels, overflow gives infinity
            np.add(x, y, out=total)
        return total

    def __repr__(self) -> str:
        kind, lines = type(self).__name__, repr(self.layer).split("\n")
        if len(lines) == 1:
            return f"{kind}({lines[0]})"
        return "\n".join([f"{kind}(", *(f"  {line}" for line in lines), ")"])


def fold(
    model: Layer,
    state: State,
    pass_layer: Callable[[str, Layer, State], State],
    join: Callable[[str, Residual, State, State], State],
    name: str = "",
) -> State:
    """Pass `state` through the layers of a model in order, as x passes; returns the last state.

    The layer inside a `Residual` gets the state of the `Residual`.  Then `join` has both states, that one and
    the state after the layer inside.  A class with a forward of its own is one layer.
    """
    for path, layer in leaves(model, name):
        if isinstance(layer, Residual) and has_known_forward(layer):
            inside = fold(layer.layer, state, pass_layer, join, f"{path}.layer" if path else "layer")
            state = join(path, layer, state, inside)
        else:
            state = pass_layer(path, layer, state)
    return state


def joined(name: str, layer: Residual, x: Array, y: Array) -> Array:
    """The output of the `Residual` called `name` in a model; an error names its place."""
    try:
        return layer._sum(x, y)
    except (TypeError, ValueError) as error:
        if name:
            add_place(error, name, layer)
        raise
