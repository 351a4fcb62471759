# mypy: disable-error-code="no-any-return"
"""Layers: parameters, a forward pass, and a backward pass that leaves a gradient in each parameter.

    model = Sequential(Maxout(784, 240, pieces=5), Dropout(0.5), Linear(240, 10))
    y = model(x)                      # inference: changes nothing, any number of threads at once
    y = model(x, training=True)       # saves what backward needs
    grad_x = model.backward(grad_y)   # overwrites each parameter's .grad

A training forward keeps x, and may keep the y that it returns, by reference: leave both unchanged until
backward has run.  A layer remembers its last training forward only, and a backward uses it up.  Outside
training a Dropout, like an empty Sequential, returns x itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .checkpoint import check_loadable
from .tape import Tape

Array = np.ndarray[Any, Any]


class Parameter:
    """An array that training changes.

    Attributes:
        data: the values, C-contiguous float32 or float64.  Change them in place.  `np.asarray(parameter)` is
            this array.
        grad: the gradient that the last backward left, of data's shape and dtype; None before the first.
        name: its name in the layer, e.g. "weight".
        decay: whether an optimiser's weight decay applies to it.
        max_norm: an upper bound of the Euclidean norm of each data[..., :], None for no bound.  Optimisers
            scale longer vectors down in the pass of their update (see `max_norm_`).

    Raises:
        TypeError: data is not a float array, name is not a str, decay not a bool, or max_norm not a number.
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
        """The array to write or add a gradient to: `grad`, or zeros before the first backward."""
        return np.zeros_like(self.data) if self.grad is None else self.grad

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The data, as `np.asarray` and `np.array` ask for it.

        NumPy 1 passes no `copy` and copies by itself; NumPy 2 passes False where a copy is forbidden.
        """
        data = self.data
        checks.check_type("data", data)
        if dtype is None or data.dtype == dtype:
            return data.copy() if copy else data
        if copy is False:
            raise ValueError(f"dtype: got {np.dtype(dtype)} for data of {data.dtype}, which needs a copy")
        return data.astype(dtype)

    def __repr__(self) -> str:
        no_decay = "" if self.decay else ", decay=False"
        bound = "" if self.max_norm is None else f", max_norm={self.max_norm!r}"
        data = self.data
        values = f"{data.shape}, {data.dtype}" if isinstance(data, np.ndarray) else checks.shown(data)
        return f"Parameter({self.name!r}, {values}{no_decay}{bound})"


def array_of(name: str, parameter: Any) -> Array:
    """The data of a layer's parameter `name`.

    Raises TypeError where a caller has replaced the parameter by something else, or its data by something
    that is not a float array.
    """
    if not isinstance(parameter, Parameter):
        raise TypeError(f"{name}: got {type(parameter).__name__}, wanted a Parameter")
    checks.check_array(name, parameter.data)
    return parameter.data


def data_of(parameter: Any) -> Array | None:
    """The data of a parameter, or None in the cases in which `array_of` raises."""
    data = parameter.data if isinstance(parameter, Parameter) else None
    return data if isinstance(data, checks.ARRAYS) and data.dtype in checks.FLOATS else None


class Sizes(NamedTuple):
    """The sizes and the dtype that a layer takes and returns; None for one that is not fixed."""

    takes: int | None = None  # features of x; where None, y has as many as x
    returns: int | None = None  # features of y
    dtype: np.dtype[Any] | None = None  # of x and y


class Layer:
    """The base of all layers.  A subclass defines `_forward`, `_backward` and `_describe`."""

    _contents: str | None = None  # the attribute with the layers inside this one
    _saved: Any = None  # saved by `_forward` for `_backward`, or the tape of a run that has it

    def __call__(self, x: Array, training: bool = False) -> Array:
        """The layer's output.

        Args:
            x: (..., in_features), of the layer's dtype.
            training: keep what `backward` needs, and drop out.  Inference changes nothing in the layer.

        Raises:
            TypeError: x is not an array or has the wrong dtype, or training is not a bool.
            ValueError: x has a shape that does not fit.

        Inside a `Sequential`, errors name the layer and its place: "layers[2], Linear(240, 10): x: got ...".
        """
        if training is not True and training is not False:
            training = checks.check_flag("training", training)
        if not training:
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
            needs_input_grad: False skips grad_x, which nobody needs of the first layer of a model.

        Returns:
            The gradient with respect to x, or None where it is not needed.

        Raises:
            RuntimeError: no training forward came before, or its backward has run already.  A layer that is
                used twice in a forward has one backward too.  Or the layers of a `Sequential` have changed
                since the forward.
            TypeError: grad_y is not an array or has the wrong dtype, or a flag is not a bool.
            ValueError: grad_y has the wrong shape.
            MemoryError: there is no memory to work in.  A backward that does not accumulate may be repeated;
                one that does may have added some of its gradients.
        """
        if accumulate is not False:
            accumulate = checks.check_flag("accumulate", accumulate)
        if needs_input_grad is not False:
            needs_input_grad = checks.check_flag("needs_input_grad", needs_input_grad)
        if type(self._saved) is Tape:
            self._saved.run.unpack(self._saved)
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward without a training forward; each layer(x, training=True) "
                "allows one backward, and a layer may stand in one place of a forward only"
            )
        grad_x = self._backward(grad_y, self._saved, accumulate, needs_input_grad)
        self._saved = None
        return grad_x if needs_input_grad else None

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        """y, and the arrays of a training forward that `_backward` needs.  Changes nothing in the layer."""
        raise NotImplementedError

    def _sizes(self) -> Sizes | None:
        """The sizes and the dtype that the layer takes and returns; None if they are not known."""
        return None

    def _children(self) -> tuple[tuple[str, Layer], ...]:
        """The layers inside a `Sequential` or a `Residual`, by name; none of another layer."""
        return ()

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        raise NotImplementedError

    def _saved_one_by_one(self) -> Any:
        """What `_forward` saves beside what the layers inside this one save themselves."""
        return ()

    def _describe(self) -> list[str]:
        """The arguments that `repr` shows."""
        raise NotImplementedError

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Each parameter with its name; inside another layer, the place comes first: "0.weight".

        Parameters and layers are found among the attributes and in a `Sequential`, not in lists or dicts.
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
                f"{type(self).__name__}: got two parameters of one name, wanted a different name for each"
            )
        return parameters

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter's values, by name.

        Raises ValueError where two parameters have the same name, TypeError where data is not a float array.
        """
        return {name: array_of(name, parameter).copy() for name, parameter in self._by_name().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Set the parameters, in place, to the values that `state_dict` returned.

        Raises ValueError where entries are missing, unexpected, or of the wrong shape or dtype, or where a
        parameter is read-only; TypeError where an entry is not an array.  The message names every such entry,
        and nothing is changed.
        """
        targets = {name: parameter.data for name, parameter in self._by_name().items()}
        check_loadable(targets, state)
        for name, target in targets.items():
            target[...] = state[name]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_saved", "_plan")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._describe())})"


def check_layer(name: str, value: Any) -> None:
    if isinstance(value, Layer):
        return
    cure = ""
    if isinstance(value, list | tuple):
        cure = ": try Sequential(*layers)"
    elif any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__):
        cure = ": for PyTorch's modules use fastact.torch"
    raise TypeError(f"{name}: got {type(value).__name__}, wanted a Layer of fastact{cure}")


def check_grad(grad_y: Any, like: Array) -> None:
    """grad_y has the shape and dtype of `like`, which is x or y."""
    checks.check_array("grad_y", grad_y, like.dtype)
    checks.check_shape("grad_y", grad_y.shape, like.shape)


def describe_dtype(parameter: Parameter) -> list[str]:
    """The dtype as `repr` shows it; nothing for float32, or where the data is not an array."""
    dtype = getattr(parameter.data, "dtype", np.float32)
    return [] if dtype == np.float32 else [f"dtype={dtype}"]
