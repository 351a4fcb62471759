# mypy: disable-error-code="no-any-return"
"""Layers: parameters, a forward pass, and a backward pass that leaves a gradient in each parameter.

    model = Sequential(Maxout(784, 240, pieces=5), Dropout(0.5), Linear(240, 10))
    y = model(x)                      # inference: changes nothing, any number of threads at once
    y = model(x, training=True)       # keeps what backward needs
    grad_x = model.backward(grad_y)   # overwrites each parameter's .grad

A training forward keeps x, and may keep the y that it returns, by reference: leave both unchanged until
backward has run.  A layer remembers its last training forward only, and a backward uses it up.  Outside
training a Dropout, like an empty Sequential, returns x itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import checks
from .checkpoint import check_loadable

Array = np.ndarray[Any, Any]


class Parameter:
    """An array that training changes.

    Attributes:
        data: the values, C-contiguous float32 or float64.  Change them in place.
        grad: the gradient that the last backward left, of data's shape and dtype; None before the first.
        name: what the layer calls it, e.g. "weight".
        decay: whether an optimiser's weight decay applies to it.
        max_norm: the largest Euclidean norm of each data[..., :] that an optimiser leaves, None for no bound:
            it scales down what is longer in the pass of its update (see `max_norm_`).

    Raises:
        TypeError: data is not a float array, name not a str, decay not a bool, or max_norm not a number.
        ValueError: max_norm is not above 0, or too large for data's dtype.
    """

    def __init__(self, data: Array, name: str, decay: bool = True, max_norm: float | None = None) -> None:
        checks.check_array("data", data)
        if not isinstance(name, str):
            raise TypeError(f"name: got {checks.shown(name)}, wanted a str")
        if max_norm is not None:
            max_norm = checks.check_positive("max_norm", max_norm, checks.LARGEST[data.dtype.char])
        self.data = data
        self.grad: Array | None = None
        self.name = name
        self.decay = checks.check_flag("decay", decay)
        self.max_norm = max_norm

    def grad_out(self) -> Array:
        """The array to write or add a gradient to: `grad`, or zeros where there is none yet."""
        return np.zeros_like(self.data) if self.grad is None else self.grad

    def __repr__(self) -> str:
        no_decay = "" if self.decay else ", decay=False"
        bound = "" if self.max_norm is None else f", max_norm={self.max_norm!r}"
        data = self.data
        values = f"{data.shape}, {data.dtype}" if isinstance(data, np.ndarray) else checks.shown(data)
        return f"Parameter({self.name!r}, {values}{no_decay}{bound})"


def array_of(name: str, parameter: Any) -> Array:
    """The data of a layer's parameter `name`, in whose place a caller may have put something else.

    Raises TypeError where it is not a parameter, or its data not a float array.
    """
    if not isinstance(parameter, Parameter):
        raise TypeError(f"{name}: got {type(parameter).__name__}, wanted a Parameter")
    checks.check_array(name, parameter.data)
    return parameter.data


class Layer:
    """What all layers share.  A subclass has `_forward`, `_backward` and `_describe`."""

    _saved: Any = None  # what `_forward` kept for `_backward`

    def __call__(self, x: Array, training: bool = False) -> Array:
        """The layer's output.

        Args:
            x: (..., in_features), of the layer's dtype.
            training: keep what `backward` needs, and drop out; else nothing in the layer changes.

        Raises:
            TypeError: x is not an array, or of another dtype, or training not a bool.
            ValueError: x is of a shape that does not fit.
        """
        if not checks.check_flag("training", training):
            return self._forward(x, False)[0]
        self._saved = None  # a forward that fails leaves nothing to go back through
        y, self._saved = self._forward(x, True)
        return y

    def backward(
        self, grad_y: Array, accumulate: bool = False, needs_input_grad: bool = True
    ) -> Array | None:
        """Go back through the last training forward: set each parameter's `.grad`, return grad_x.

        Args:
            grad_y: the gradient of the loss with respect to the output, of its shape and dtype.
            accumulate: add to `.grad` instead of overwriting it.
            needs_input_grad: False, for what stands first in a model, saves the time that grad_x takes.

        Returns:
            The gradient with respect to x, or None where it is not needed.

        Raises:
            RuntimeError: no training forward came before, or its backward has run already; so it is for a
                layer that stands in two places of a forward.
            TypeError: grad_y is not an array, or of another dtype, or a flag not a bool.
            ValueError: grad_y is of another shape.
        """
        accumulate = checks.check_flag("accumulate", accumulate)
        needs_input_grad = checks.check_flag("needs_input_grad", needs_input_grad)
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward without a training forward; each layer(x, training=True) "
                "allows one backward, and a layer may stand in one place of a forward only"
            )
        grad_x = self._backward(grad_y, self._saved, accumulate, needs_input_grad)
        self._saved = None
        return grad_x if needs_input_grad else None

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        """y, and what `_backward` needs of a training forward.  Changes nothing in the layer."""
        raise NotImplementedError

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        raise NotImplementedError

    def _describe(self) -> list[str]:
        """The arguments that `repr` shows."""
        raise NotImplementedError

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Each parameter with its name, that of a layer inside this one after where it is: "0.weight".

        Parameters and layers are found as attributes, and a `Sequential`'s layers; not in other lists.
        """
        for attribute, value in vars(self).items():
            if isinstance(value, Parameter):
                yield value.name, value
            elif isinstance(value, Layer) and attribute != "_saved":
                for name, parameter in value.named_parameters():
                    yield f"{attribute}.{name}", parameter

    def parameters(self) -> list[Parameter]:
        """The parameters, in the order of `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters()]

    def _by_name(self) -> dict[str, Parameter]:
        parameters = dict(self.named_parameters())
        if len(parameters) < len(self.parameters()):
            raise ValueError(
                f"{type(self).__name__}: got two parameters of one name, wanted names of their own"
            )
        return parameters

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter's values, by name.

        Raises ValueError where two parameters have one name, TypeError where data is not a float array.
        """
        return {name: array_of(name, parameter).copy() for name, parameter in self._by_name().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Set the parameters, in place, to what `state_dict` returned.

        Raises ValueError, and changes nothing, where entries are missing, unexpected, or of another shape
        or dtype, or a parameter is read-only; TypeError where one is not an array.  The message names them.
        """
        targets = {name: parameter.data for name, parameter in self._by_name().items()}
        check_loadable(targets, state)
        for name, target in targets.items():
            target[...] = state[name]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_saved"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._describe())})"


def check_grad(grad_y: Any, like: Array) -> None:
    checks.check_array("grad_y", grad_y, like.dtype)
    checks.check_shape("grad_y", grad_y.shape, like.shape)


def describe_dtype(parameter: Parameter) -> list[str]:
    """What `repr` shows of the dtype of a layer: nothing by default, or without an array."""
    dtype = getattr(parameter.data, "dtype", np.float32)
    return [] if dtype == np.float32 else [f"dtype={dtype}"]
