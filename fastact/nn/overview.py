"""A model as a table: `summary`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .layer import Array, Layer, array_of, check_layer
from .residual import Residual, fold, joined
from .sequential import add_place, sizes_of, title

_WIDTH = 80  # columns of the table

_State = tuple[Any, int | None]  # x and its features, None where they are not known


class Row(NamedTuple):
    """One layer of a `Summary`."""

    name: str  # as in `named_parameters`: "1.0" inside a nested Sequential, "" for the model itself
    layer: str  # its repr; "Residual" for the sum of a Residual, after the rows of the layers inside it
    output_shape: str  # e.g. "(100, 240)", without an input shape "(..., 240)", or "?" where it is not known
    parameters: int
    nbytes: int


class Summary(NamedTuple):
    """The layers of a model and their sizes, which print as a table of 80 columns.

    Attributes:
        rows: one for each layer, with `name`, `layer`, `output_shape`, `parameters` and `nbytes`.
        parameters: the count of numbers in all parameters.
        nbytes: the bytes that they take.
    """

    rows: tuple[Row, ...]
    parameters: int
    nbytes: int

    def __repr__(self) -> str:
        table = [("", "layer", "output shape", "parameters")]
        table += [(row.name, row.layer, row.output_shape, f"{row.parameters:,}") for row in self.rows]
        name, _, shape, count = (max(len(line[i]) for line in table) for i in range(4))
        width = max(_WIDTH - name - shape - count - 6, 12)  # of the layers' column
        lines = [
            f"{line[0]:<{name}}  {_cut(line[1], width):<{width}}  {line[2]:<{shape}}  {line[3]:>{count}}"
            for line in table
        ]
        total = f"{self.parameters:,} parameters, {self.nbytes:,} bytes"
        return "\n".join([*lines, f"{total:>{len(lines[0])}}"])


def summary(model: Layer, input_shape: tuple[int, ...] | None = None) -> Summary:
    """The layers of a model with their output shapes and numbers of parameters.

        print(fastact.summary(model, (100, 784)))

    Args:
        model: a layer, usually a `Sequential`; each layer of a nested one or in a `Residual` has its own row.
        input_shape: the shape of x, (..., in_features), with the batch.  The model runs once on zeros of this
            shape, with the dtype of its first parameter.  Without `input_shape` nothing runs, and the output
            shapes are those that the layers fix: (..., 240).

    Returns:
        A `Summary`, which prints as a table.

    Raises:
        TypeError: model is not a Layer, or input_shape is not a tuple or list of ints.
        ValueError: a size is negative, or the shape does not fit the model.
    """
    check_layer("model", model)
    x: Any = None
    if input_shape is not None:
        shape = checks.check_sizes("input_shape", input_shape)
        dtypes = (array_of(name, parameter).dtype for name, parameter in model.named_parameters())
        x = np.zeros(shape, next(dtypes, np.float32))
    rows: list[Row] = []

    def add_row(name: str, text: str, state: _State, arrays: list[Array]) -> _State:
        y, features = state
        output_shape = "?" if features is None else f"(..., {features})"
        if y is not None:
            output_shape = f"{np.shape(y)}"
        counts = sum(array.size for array in arrays), sum(array.nbytes for array in arrays)
        rows.append(Row(name, text, output_shape, *counts))
        return state

    def pass_layer(name: str, layer: Layer, state: _State) -> _State:
        x, features = state
        try:
            y = None if x is None else layer(x)
            arrays = [array_of(key, parameter) for key, parameter in layer.named_parameters()]
        except Exception as error:
            if name:
                add_place(error, name, layer)
            raise
        return add_row(name, checks.shown(layer), (y, _returned(layer, features)), arrays)

    def join(name: str, layer: Residual, state: _State, inside: _State) -> _State:
        x = state[0]
        y = None if x is None else joined(name, layer, x, inside[0])
        return add_row(name, title(layer), (y, _returned(layer, state[1])), [])

    start: _State = (x, None)
    fold(model, start, pass_layer, join)
    return Summary(tuple(rows), sum(row.parameters for row in rows), sum(row.nbytes for row in rows))


def _returned(layer: Layer, features: int | None) -> int | None:
    """The number of features that the layer returns for an x of `features`; None where it is not known."""
    sizes = sizes_of(layer)
    if sizes is None:
        return None
    return features if sizes.returns is None else sizes.returns


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
