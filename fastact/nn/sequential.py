# mypy: disable-error-code="no-any-return"
"""Layers one after the other, and where in a model a layer is."""

from __future__ import annotations

import contextlib
import operator
import sys
from collections.abc import Iterable, Iterator
from typing import Any, overload

import numpy as np

from .. import checks
from .layer import Array, Layer, Parameter, Sizes, check_layer
from .network import Part, parts_of, runs_of

_PACKAGE = __name__.partition(".")[0] + "."


class Sequential(Layer):
    """Layers one after the other.

        len(model), model[0], model[-1]    # as in a list
        for layer in model: ...
        model[:2]                          # a Sequential of the same layers, not of copies

    A layer takes as many features as the layer before it returns, of the same dtype.  The constructor checks
    this for the layers of this package; the sizes of a layer of your own are not known.

    Args:
        *layers: each layer once; a Sequential may be among them.

    Attributes:
        layers: the layers, a tuple; assign another to change them.

    Raises:
        TypeError: an argument is not a Layer, or neighbours differ in dtype.
        ValueError: a layer appears twice, or neighbours differ in out_features and in_features.
    """

    _contents = "layers"
    _plan: _Plan | None = None  # see `_planned`
    layers: tuple[Any, ...]  # Any, so that a type checker lets a layer's own attributes pass

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            check_layer(f"layers[{i}]", layer)
        self.layers = layers
        seen: dict[int, str] = {}
        for name, layer in _nested(self):
            if id(layer) in seen:
                places = f"{path_of(seen[id(layer)])} and {path_of(name)}"
                raise ValueError(f"{title(layer)} appears twice, as {places}, wanted each layer once")
            seen[id(layer)] = name
        check_neighbours(leaves(self))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...  # as in `layers`
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(*self.layers[index])
        i, count = checks.check_int("index", index), len(self.layers)
        if not -count <= i < count:
            raise IndexError(f"index: got {checks.shown(index)}, wanted {-count} to {count - 1}")
        return self.layers[i]

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        plan = self._planned()
        tapes, start = [], 0
        for run, stop in plan.runs:
            done = run.forward(x, training) if run is not None else None
            x, tape = done if done is not None else (self._forward_one_by_one(x, training, start, stop), None)
            # the attributes of known layers that have run one by one, to see that they stay the same
            attributes = run.attributes() if training and run is not None and tape is None else None
            tapes.append((start, stop, tape, attributes))
            start = stop
        return x, (plan, tapes)

    def _forward_one_by_one(self, x: Array, training: bool, start: int, stop: int) -> Array:
        for i in range(start, stop):
            try:
                x = self.layers[i](x, training)
            except Exception as error:
                add_place(error, f"{i}", self.layers[i])
                raise
        return x

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        plan, tapes = saved
        if not plan.holds(self):
            raise RuntimeError(
                f"{type(self).__name__}: got other layers than in the training forward; a backward needs a "
                "training forward of the layers of now"
            )
        first = -1 if needs_input_grad else plan.first
        if len(tapes) == 1 and (tape := tapes[0][2]) is not None:
            done = tape.run.backward(tape, grad_y, accumulate, needs_input_grad)
            if done is not None:
                return done[0]
        grads = self._grads() if self._may_fail(plan, tapes) else []
        grad: Any = grad_y
        try:
            for start, stop, tape, _ in reversed(tapes):
                done = None
                if tape is not None and stop > first:
                    done = tape.run.backward(tape, grad, accumulate, start > first)
                    if done is None:
                        tape.run.unpack(tape)
                if done is not None:
                    (grad,) = done
                else:
                    grad = self._backward_one_by_one(grad, accumulate, start, stop, first)
        except BaseException:  # gradients that some layers have written already are again what they were
            for parameter, before, values in grads:
                parameter.grad = before
                if isinstance(before, np.ndarray) and before.flags.writeable:
                    before[...] = values
            raise
        return grad

    def _may_fail(self, plan: _Plan, tapes: Any) -> bool:
        """Whether a layer may raise after another one has written gradients.

        A layer of your own may.  Those of this package do not if nothing has changed since the forward, and
        arrays fit.
        """
        for (run, _), (_, _, tape, attributes) in zip(plan.runs, tapes, strict=False):
            if run is None or tape is not None or attributes is None:
                return True
            if any(map(operator.is_not, run.attributes(), attributes)):
                return True
        return not all(map(_fits, self.parameters()))

    def _grads(self) -> list[tuple[Parameter, Any, Any]]:
        """Each parameter with its gradient and a copy of it."""
        return [(parameter, parameter.grad, _copy(parameter.grad)) for parameter in self.parameters()]

    def _backward_one_by_one(
        self, grad: Array | None, accumulate: bool, start: int, stop: int, first: int
    ) -> Array | None:
        for i in range(stop - 1, start - 1, -1):
            layer = self.layers[i]
            if i < first:
                layer._saved = None
                for _, inner in _nested(layer):
                    inner._saved = None
                continue
            try:
                grad = layer.backward(grad, accumulate, i > first)
            except Exception as error:
                add_place(error, f"{i}", layer)
                raise
        return grad

    def _planned(self) -> _Plan:
        """The layers in runs, which are made anew after a change of `layers` here or in a layer inside."""
        if self._plan is None or not self._plan.holds(self):
            self._plan = _Plan(self)
        return self._plan

    def _parts(self) -> tuple[list[Part], list[Layer]] | None:
        parts: list[Part] = []
        layers: list[Layer] = [self]
        for layer in self.layers:
            found = parts_of(layer)
            if found is None:
                return None
            parts += found[0]
            layers += found[1]
        return parts, layers

    def _saved_one_by_one(self) -> Any:
        return self._planned(), [(0, len(self.layers), None, None)]

    def _children(self) -> tuple[tuple[str, Layer], ...]:
        return tuple((f"{i}", layer) for i, layer in enumerate(self.layers))

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


def _fits(parameter: Parameter) -> bool:
    """Whether a backward can write to the parameter's gradient."""
    data, grad = parameter.data, parameter.grad
    if type(data) not in checks.ARRAYS or grad is None or type(grad) not in checks.ARRAYS:
        return False
    shaped = grad.shape == data.shape and grad.dtype == data.dtype
    return shaped and grad.flags.writeable and not np.may_share_memory(grad, data)


def _copy(grad: Any) -> Any:
    return grad.copy() if isinstance(grad, np.ndarray) else grad


class _Plan:
    """The layers of a `Sequential` in runs, for as long as they stay the same.

    `runs` holds the runs, each with the index after its last layer.  `first` is the index of the first layer
    with a parameter: the layers before it need no backward where grad_x is not needed.  The plan has no
    reference to the model, whose memory is therefore freed with the last reference of a caller's.
    """

    __slots__ = ("_inside", "_layers", "first", "runs")

    def __init__(self, model: Sequential) -> None:
        model.layers = tuple(model.layers)  # a list could change unseen
        for _, layer in _nested(model):
            if isinstance(layer, Sequential):
                layer.layers = tuple(layer.layers)
        self._layers = model.layers
        # for each layer that contains others: its attributes, the one with the layers inside, its value
        self._inside = [
            (vars(layer), layer._contents, vars(layer)[layer._contents])
            for _, layer in _nested(model)
            if layer._contents is not None
        ]
        self.runs = runs_of(model.layers)
        self.first = next(
            (i for i, layer in enumerate(model.layers) if layer.parameters()), len(model.layers)
        )

    def holds(self, model: Sequential) -> bool:
        """Whether the layers in `model`, and in the layers inside it, are those of the plan."""
        if not self._inside:
            return model.layers is self._layers
        same = all(attributes[name] is value for attributes, name, value in self._inside)
        return same and model.layers is self._layers


# ---- the layers of a model


def leaves(model: Layer, name: str = "") -> Iterator[tuple[str, Layer]]:
    """The layers in order, each with its name as in `named_parameters`: "1.0" inside a nested Sequential.

    A Sequential whose class has a forward of its own is one layer.
    """
    if isinstance(model, Sequential) and has_known_forward(model):
        for i, layer in enumerate(model.layers):
            yield from leaves(layer, f"{name}.{i}" if name else f"{i}")
    else:
        yield name, model


def has_known_forward(layer: Layer) -> bool:
    """Whether the layer's class inherits its forward from this package, rather than from a user's class."""
    kind = type(layer)
    module = str(getattr(kind._forward, "__module__", ""))
    return module.startswith(_PACKAGE) and kind.__call__ is Layer.__call__


def sizes_of(layer: Layer) -> Sizes | None:
    """`Layer._sizes`, and None for a layer whose class has a forward of its own."""
    return layer._sizes() if has_known_forward(layer) else None


def check_neighbours(layers: Iterable[tuple[str, Layer]]) -> None:
    """Each layer takes the number of features (ValueError) and the dtype (TypeError) that it gets.

    A layer whose sizes are not known ends the check, which begins anew after it.
    """
    features: tuple[int, str] | None = None  # how many, and the layer that returns them
    dtype: tuple[np.dtype[Any], str] | None = None
    for name, layer in layers:
        sizes = sizes_of(layer)
        if sizes is None:
            features = dtype = None
            continue
        takes, returns, own = sizes
        place = place_of(name, layer)
        if takes is not None:
            if features is not None and takes != features[0]:
                raise ValueError(
                    f"{place}: in_features: got {takes}, wanted {features[0]} to match {features[1]}"
                )
            features = (returns, place) if returns is not None else None
        if own is not None:
            if dtype is not None and own != dtype[0]:
                raise TypeError(f"{place}: dtype: got {own}, wanted {dtype[0]} to match {dtype[1]}")
            dtype = (own, place)


def _nested(layer: Layer, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """All layers inside `layer` with their names; those inside a `Sequential` or a `Residual` follow it."""
    for name, child in layer._children():
        yield f"{prefix}{name}", child
        yield from _nested(child, f"{prefix}{name}.")


# ---- the place of a layer in a message


def place_of(name: str, layer: Layer) -> str:
    """E.g. "layers[1].layers[0], Linear(240, 10)" for the layer called "1.0"; "Linear(240, 10)" for ""."""
    return f"{path_of(name)}, {title(layer)}" if name else title(layer)


def add_place(error: Exception, name: str, layer: Layer) -> None:
    """Add the place of the layer called `name` to an error that it raised.

    The place precedes the message of an error of this package.  Other errors keep their message, and get the
    place as a note on Python 3.11 and later.
    """
    if _is_own(error):
        text = str(error).removeprefix(f"{type(layer).__name__}: ")
        error.args = (_placed(name, layer, text),)
    elif sys.version_info >= (3, 11):
        with contextlib.suppress(Exception):  # a caller's exception may not let itself be changed
            notes = getattr(error, "__notes__", [])
            if notes and _begins_inside(layer, notes[-1]):
                notes[-1] = _placed(name, layer, notes[-1])
            else:
                error.add_note(place_of(name, layer))


def _placed(name: str, layer: Layer, text: str) -> str:
    """`text` after the place of the layer; a place inside the layer is joined to it."""
    if _begins_inside(layer, text):
        return f"{path_of(name)}.{text}"
    return f"{place_of(name, layer)}: {text}"


def _begins_inside(layer: Layer, text: str) -> bool:
    """Whether the text begins with the place of a layer inside `layer`."""
    paths = [path_of(name) for name, _ in layer._children()]
    return text.startswith(tuple(f"{path}{end}" for path in paths for end in (", ", ".")))


def _is_own(error: Exception) -> bool:
    """Whether code of this package raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return type(error) in (TypeError, ValueError, RuntimeError, MemoryError) and module.startswith(_PACKAGE)


def path_of(name: str) -> str:
    """E.g. "layers[1].layer.layers[0]" for the layer called "1.layer.0"; "" for the model itself."""
    return name and ".".join(f"layers[{part}]" if part.isdecimal() else part for part in name.split("."))


def title(layer: Layer) -> str:
    """The layer in a message: its repr, or the name of a `Sequential` or a `Residual`, whose repr is long."""
    contains = isinstance(layer, Sequential) or layer._children()
    return type(layer).__name__ if contains else checks.shown(layer)
