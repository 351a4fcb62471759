"""Inference with weights that are packed once: `freeze`.

    frozen = fastact.freeze(model)    # a copy: later changes of the model do not show
    y = frozen(x)                     # y alone; nothing in `frozen` changes, any number of threads at once

Everything is fixed when a layer is frozen: weights, precision tier, backend, and for the C backend the
instruction set.  A pickle holds the weights as they are in the layers; loading it packs them anew, for
the CPU and the backend found there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import activations, backends, checks, outputs, settings
from ..activations import Activation
from ..backends import BackendName
from ..settings import Precision
from .activation import Activation as ActivationLayer
from .activation import PReLU
from .dropout import Dropout
from .layer import Layer
from .linear import Linear
from .maxout import Maxout
from .sequential import Sequential

Array = np.ndarray[Any, Any]

_IDENTITY = activations.resolve("identity", 1, np.dtype(np.float32), {})
_ARRAY = np.ndarray
_empty = np.empty
_requested_threads = settings.requested_threads


class Step(NamedTuple):
    """One operation of a frozen model: a product, then an activation, or the activation alone.

    weight is (out_features, pieces, in_features) for maxout, (out_features, in_features) for a linear
    layer, None where there is no product.
    """

    text: str  # the layer's repr
    weight: Array | None
    bias: Array | None
    act: Activation
    tier: Precision


class Frozen:
    """A layer or model for inference alone, made by `freeze`: y = frozen(x).

    Threads may share it.  It can be pickled and copied.  What it is made of is checked and copied: a damaged
    pickle raises TypeError or ValueError where it is loaded.

    Attributes:
        in_features, out_features: the sizes of x's and y's last axes; None where any will do.
        dtype: float32 or float64; None where both will do.
        backend: the one it runs on.
    """

    def __init__(self, steps: tuple[Step, ...], backend: BackendName | None) -> None:
        if not isinstance(steps, tuple):
            raise TypeError(f"steps: got {type(steps).__name__}, wanted a tuple of Steps")
        module: Any = backends.get(backend)
        self._steps = steps = tuple(_own_step(i, step) for i, step in enumerate(steps))
        self._asked = backend
        self.backend = backend or backends.get_backend()
        self.in_features, self.out_features = _features(steps)
        self.dtype = _dtype(steps)
        packed = self.dtype is not None and hasattr(module, "freeze")
        # x (rows, in_features), y (rows, out_features), threads
        if packed:
            self._run = module.freeze(steps, 1 if self.in_features is None else self.in_features, self.dtype)
        else:
            self._run = _Steps(steps, module, {"dot_rows": 0} if self.backend == "numba" else {})

    def __call__(self, x: Array, *, out: Array | None = None) -> Array:
        """The model's output.

        Args:
            x: (..., in_features), of the model's dtype.
            out: an array to write y to, which must not overlap x.

        Returns:
            y (..., out_features), of x's dtype, the same bits on any number of threads; on float32 kernels a
            row has the same bits in any batch.  On AMX a large batch runs on its tiles.

        Raises:
            TypeError, ValueError: x or out is not an array, or its dtype or shape does not fit.
        """
        if (  # what needs no further look
            out is None
            and type(x) is _ARRAY
            and x.ndim == 2
            and x.shape[1] == self.in_features
            and x.dtype == self.dtype
            and x.flags.carray
        ):
            y: Array = _empty((x.shape[0], self.out_features), self.dtype)
            self._run(x, y, _requested_threads())
            return y
        return self._checked(x, out)

    def _checked(self, x: Any, out: Any) -> Array:
        checks.check_array("x", x, self.dtype)
        shape = x.shape
        if self.in_features is not None:
            if x.ndim == 0 or x.shape[-1] != self.in_features:
                raise ValueError(f"x: got shape {x.shape}, wanted (..., {self.in_features})")
            shape = (*x.shape[:-1], self.out_features)
        arrays = outputs.output_arrays(out, ("y",), (True,), (shape,), (x.dtype,), (x,))
        self._run(_rows(x, self.in_features), _rows(arrays[0], self.out_features), _requested_threads())
        delivered: Array = outputs.deliver(out, arrays)[0]
        return delivered

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self._steps, self._asked)

    def __repr__(self) -> str:
        end = f")  # on {self.backend}"
        texts = [step.text for step in self._steps]
        if len(texts) == 1:
            return f"Frozen({texts[0]}{end}"
        return "\n".join(["Frozen(", *(f"  {i}: {text}" for i, text in enumerate(texts)), end])


def _rows(value: Any, features: int | None) -> Array:
    """`value` as a C-contiguous (rows, features); where any number will do, rows of one."""
    return checks.contiguous_rows(value.reshape(-1, 1) if features is None else value)


class _Steps:
    """The steps, one after the other, with the functions of a backend that packs nothing.

    `product` are keywords for its products, which make them treat a row alike in any batch.
    """

    def __init__(self, steps: tuple[Step, ...], backend: Any, product: dict[str, int]) -> None:
        self._steps = steps
        self._backend = backend
        self._product = product

    def __call__(self, x: Array, y: Array, threads: int) -> None:
        if not y.size:  # then hidden layers may have elements, too many of them
            return
        if not self._steps:
            y[...] = x
        for i, step in enumerate(self._steps):
            last = i == len(self._steps) - 1
            to = y if last else _empty((len(x), _width(step, x.shape[1])), x.dtype)
            if step.weight is None:
                self._backend.activation(x, step.act, to, threads)
            elif step.weight.ndim == 3:
                self._backend.linear_maxout(
                    x, step.weight, step.bias, to, None, threads, step.tier, **self._product
                )
            else:
                self._backend.linear_activation(
                    x, step.weight, step.bias, step.act, to, None, threads, step.tier, **self._product
                )
            x = to


def _width(step: Step, in_features: int) -> int:
    return in_features if step.weight is None else len(step.weight)


def _wanted(step: Step) -> int | None:
    """How many features a step wants; None where any number will do."""
    if step.weight is not None:
        return int(step.weight.shape[-1])
    slope = step.act.slope
    return None if slope is None or slope.size == 1 else slope.size


def _features(steps: tuple[Step, ...]) -> tuple[int | None, int | None]:
    first = features = None
    for step in steps:
        wanted = _wanted(step)
        if wanted is not None:
            if features is not None and wanted != features:
                raise ValueError(f"model: {step.text} gets {features} features, wants {wanted}")
            first = wanted if first is None else first
            features = _width(step, wanted)
    return first, features


def _dtype(steps: tuple[Step, ...]) -> np.dtype[Any] | None:
    dtype = None
    for step in steps:
        parameter = step.act.slope if step.weight is None else step.weight
        if parameter is not None:
            if dtype is not None and parameter.dtype != dtype:
                raise TypeError(f"model: {step.text} is of {parameter.dtype}, layers before it of {dtype}")
            dtype = parameter.dtype
    return dtype


def _own_step(i: int, step: Any) -> Step:
    """`step` with copies of its arrays, checked like a call's arguments."""
    if not isinstance(step, Step):
        raise TypeError(f"steps[{i}]: got {type(step).__name__}, wanted a Step")
    text, weight, bias, act, tier = step
    if not isinstance(text, str):
        raise TypeError(f"steps[{i}]: text: got {type(text).__name__}, wanted a str")
    try:
        settings.check_precision(tier)
        if weight is None:
            if bias is not None:
                raise ValueError(f"bias: got {type(bias).__name__} without a weight, wanted None")
            return Step(text, None, None, _own_activation(act, None), tier)
        sizes = checks.MAXOUT_WEIGHT if np.ndim(weight) == 3 else checks.LINEAR_WEIGHT
        _check_parameters(sizes, weight, bias)
        act = _own_activation(act, weight)
        if weight.ndim == 3 and act != _IDENTITY:
            raise ValueError(f"act: got {act.name} after a maximum, wanted identity")
        return Step(text, _copy(weight), None if bias is None else _copy(bias), act, tier)
    except (TypeError, ValueError) as error:
        raise type(error)(f"steps[{i}] ({text}): {error}") from None


def _own_activation(act: Any, weight: Array | None) -> Activation:
    """`act`, made anew from its name and its parameter or slope, of which a copy is taken."""
    if not isinstance(act, Activation):
        raise TypeError(f"act: got {type(act).__name__}, wanted an Activation")
    name, code, saves, parameter, slope = act
    if slope is not None:
        checks.check_array("slope", slope)
    features, dtype = 1, np.dtype(np.float32)
    if weight is not None:
        features, dtype = len(weight), weight.dtype
    elif slope is not None:
        features, dtype = slope.size, slope.dtype
    keywords: dict[str, Any] = {} if slope is None else {"slope": slope}
    if name == "gelu_tanh":
        name, keywords = "gelu", {"approximate": "tanh"}
    elif name in ("leaky_relu", "elu"):
        keywords[{"leaky_relu": "negative_slope", "elu": "alpha"}[name]] = parameter
    own = activations.resolve(name, features, dtype, keywords)
    if own[1:4] != (code, saves, parameter):
        raise ValueError(f"act: got {tuple(act[:4])}, wanted {own[:4]}")
    return own


def _check_parameters(sizes: tuple[str, ...], weight: Any, bias: Any) -> None:
    """weight is an array of `sizes`, and bias None or an array that fits."""
    checks.check_array("weight", weight)
    checks.check_forward(sizes, np.empty((0, *weight.shape[-1:]), weight.dtype), weight, bias)


def _copy(value: Array) -> Array:
    return np.array(value, order="C")


def _steps(layer: Layer, precision: Precision | None) -> list[Step]:
    kind = type(layer)
    if isinstance(layer, Sequential) and kind is Sequential:
        return [step for inner in layer.layers for step in _steps(inner, precision)]
    if kind is Dropout:
        return []
    if isinstance(layer, Linear | Maxout) and kind in (Linear, Maxout):
        sizes = checks.MAXOUT_WEIGHT if isinstance(layer, Maxout) else checks.LINEAR_WEIGHT
        try:  # what was put in place of a parameter's data
            weight, bias = layer._arrays()
            _check_parameters(sizes, weight, bias)
        except (TypeError, ValueError) as error:
            raise type(error)(f"model: {kind.__name__}: {error}") from None
        act = _IDENTITY
        if isinstance(layer, Linear):
            act = activations.resolve(layer.activation, len(weight), weight.dtype, layer.keywords())
        return [Step(repr(layer), weight, bias, act, precision or layer._tier())]
    if isinstance(layer, PReLU) and kind is PReLU:
        slope = layer.slope.data
        checks.check_array("model: PReLU: slope", slope)
        act = activations.resolve("prelu", slope.size, slope.dtype, {"slope": slope})
        return [Step(repr(layer), None, None, act, "highest")]
    if isinstance(layer, ActivationLayer) and kind is ActivationLayer:
        act = activations.resolve(layer.name, 1, np.dtype(np.float32), layer.keywords)
        return [Step(repr(layer), None, None, act, "highest")]
    raise TypeError(
        f"model: got {kind.__name__}, wanted Maxout, Linear, Activation, PReLU, Dropout or a Sequential of "
        "these: what else a class computes, freeze can't know"
    )


def freeze(model: Layer, precision: Precision | None = None, *, backend: BackendName | None = None) -> Frozen:
    """A copy of a layer or model for inference alone, its weights packed once: y = frozen(x).

    Dropout is gone, no argmax is kept, and nothing of the copy changes any more: what happens to the model's
    parameters later does not show.  On the C backend it holds the weights twice: packed, and as they were,
    for pickles.

    Args:
        model: a Maxout, Linear, Activation, PReLU, Dropout, or a Sequential of these.
        precision: the float32 precision tier of every layer; by default each layer's own, else the one in
            force now.
        backend: "c", "numba" or "numpy"; by default the one in force now.  A pickle says the same where it
            is loaded.

    Returns:
        A `Frozen`, to call with x (..., in_features).

    Raises:
        TypeError: model is something else, an instance of a subclass included, or its layers differ in dtype.
        ValueError: an unknown precision or backend, or a layer does not take the features that it gets, or
            its parameters do not fit each other.
        ImportError: the backend can't load.
    """
    if precision is not None:
        settings.check_precision(precision)
    return Frozen(tuple(_steps(model, precision)), backend)
