"""Inference with weights that are packed once: `freeze`.

    frozen = fastact.freeze(model)    # a copy, which later changes of the model do not affect
    y = frozen(x)                     # y alone; changes nothing, any number of threads at once

Everything is fixed when a layer is frozen: weights, precision tier, backend, and for the C backend the
instruction set.  A pickle holds unpacked weights; loading it packs them for the CPU and the backend found
there.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from .. import activations, backends, checks, outputs, settings
from ..activations import Activation
from ..backends import BackendName
from ..custom import CustomActivation
from ..settings import Precision
from .activation import Activation as ActivationLayer
from .activation import PReLU
from .dropout import Dropout
from .layer import Layer, array_of
from .layer_norm import LayerNorm
from .linear import Linear
from .maxout import Maxout
from .residual import Residual
from .sequential import Sequential, check_neighbours, leaves, path_of, place_of

Array = np.ndarray[Any, Any]

_IDENTITY = activations.resolve("identity", 1, np.dtype(np.float32), {})
_ARRAY = np.ndarray
_empty = np.empty
_threads_and_mode = settings.threads_and_mode


StepKind = Literal["layer", "layer norm", "branch", "sum"]


class Step(NamedTuple):
    """One operation of a frozen model.

    kind "layer" is a product, then an activation, or the activation alone.  weight is then (out_features,
    pieces, in_features) for maxout, (out_features, in_features) for a linear layer, and None for an
    activation alone.  The weight of a "layer norm" is (features,).  A "branch" and a "sum" stand before and
    after the steps inside a `Residual`, and have neither weight nor bias.
    """

    text: str  # the layer's repr
    weight: Array | None
    bias: Array | None
    act: Activation
    tier: Precision
    kind: StepKind = "layer"
    eps: float = 0.0  # of a layer norm


class Frozen:
    """A layer or model for inference alone, made by `freeze`: y = frozen(x).

    Threads may share a frozen model.  It can be pickled and copied.  Its steps are checked and copied, so
    loading a damaged pickle raises TypeError or ValueError.

    Attributes:
        in_features, out_features: the sizes of x's and y's last axes; None if any size is accepted.
        dtype: float32 or float64; None if both are accepted.
        backend: the name of the backend that it runs on.
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
            y (..., out_features), of x's dtype.  The bits are the same on any number of threads; on float32
            kernels, a row has the same bits in any batch.  On AMX a large batch runs on the tile unit.

        Raises:
            TypeError, ValueError: x or out is not an array, or its dtype or shape does not fit.
            RuntimeError: results are to be reproducible, and the model was frozen without that or on another
                backend than "c".
        """
        if (  # the usual call, which needs no further check
            out is None
            and type(x) is _ARRAY
            and x.ndim == 2
            and x.shape[1] == self.in_features
            and x.dtype == self.dtype
            and x.flags.carray
        ):
            y: Array = _empty((x.shape[0], self.out_features), self.dtype)
            self._run(x, y, _threads_and_mode())
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
        self._run(_rows(x, self.in_features), _rows(arrays[0], self.out_features), _threads_and_mode())
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
    """`value` as a C-contiguous (rows, features); rows of one number where `features` is None."""
    return checks.contiguous_rows(value.reshape(-1, 1) if features is None else value)


class _Steps:
    """Runs the steps one after the other on a backend that packs nothing.

    `product` holds keywords for the backend's products that give a row the same bits in any batch.
    """

    def __init__(self, steps: tuple[Step, ...], backend: Any, product: dict[str, int]) -> None:
        self._steps = steps
        self._backend = backend
        self._product = product

    def __call__(self, x: Array, y: Array, threads: int) -> None:
        if threads & settings.REPRODUCIBLE:
            backends.check_reproducible(backends.name_of(self._backend))
        if not y.size:  # hidden layers could still have elements, and need memory
            return
        if not self._steps:
            y[...] = x
        branches = []
        for i, step in enumerate(self._steps):
            last = i == len(self._steps) - 1
            if step.kind == "branch":
                branches.append(x)
                continue
            to = y if last else _empty((len(x), _width(step, x.shape[1])), x.dtype)
            if step.kind == "sum":
                with np.errstate(all="ignore"):  # as in the kernels, overflow gives infinity
                    np.add(branches.pop(), x, out=to)
            elif step.kind == "layer norm":
                self._backend.layer_norm(x, step.weight, step.bias, step.eps, to, None, threads)
            elif step.weight is None:
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
    return in_features if step.weight is None or step.kind != "layer" else len(step.weight)


def _wanted(step: Step) -> int | None:
    """The number of features that a step takes; None if any number is accepted."""
    if step.weight is not None:
        return int(step.weight.shape[-1])
    slope = step.act.slope
    return None if slope is None or slope.size == 1 else slope.size


def _features(steps: tuple[Step, ...]) -> tuple[int | None, int | None]:
    """The sizes of x's and y's last axes; `freeze` has checked a model's, a pickle may be damaged."""
    first = features = None
    branches: list[int | None] = []  # the features of each branch that has no sum yet
    for i, step in enumerate(steps):
        wanted = _wanted(step)
        if step.kind == "branch":
            branches.append(features)
        elif step.kind == "sum":
            if not branches:
                raise ValueError(f"steps[{i}] ({step.text}): got a sum without a branch")
            wanted = branches.pop()
            wanted = first if wanted is None else wanted  # no layer before the branch fixes the features
        if wanted is not None:
            if features is not None and wanted != features:
                raise ValueError(f"steps[{i}] ({step.text}): got {features} features, wanted {wanted}")
            first = wanted if first is None else first
            features = _width(step, wanted)
    if branches:
        raise ValueError(f"steps: got {len(branches)} branches without a sum")
    return first, features


def _dtype(steps: tuple[Step, ...]) -> np.dtype[Any] | None:
    """The dtype that all parameters have; None without parameters."""
    dtype = None
    for i, step in enumerate(steps):
        parameter = step.act.slope if step.weight is None else step.weight
        if parameter is not None:
            if dtype is not None and parameter.dtype != dtype:
                raise TypeError(f"steps[{i}] ({step.text}): got dtype {parameter.dtype}, wanted {dtype}")
            dtype = parameter.dtype
    return dtype


def _own_step(i: int, step: Any) -> Step:
    """`step` with copies of its arrays, checked like the arguments of a call."""
    if not isinstance(step, Step):
        raise TypeError(f"steps[{i}]: got {type(step).__name__}, wanted a Step")
    text, weight, bias, act, tier, kind, eps = step
    if not isinstance(text, str):
        raise TypeError(f"steps[{i}]: text: got {type(text).__name__}, wanted a str")
    try:
        settings.check_precision(tier)
        if not isinstance(kind, str) or kind not in get_args(StepKind):
            raise checks.unknown_name("kind", kind, get_args(StepKind))
        if kind == "layer norm":
            shift, eps = _checked_layer_norm(weight, bias, eps)
            own = None if shift is None else _copy(shift)
            return Step(text, _copy(weight), own, _own_activation(act, None), tier, kind, eps)  # type: ignore[arg-type]
        if kind != "layer" and weight is not None:
            raise ValueError(f"weight: got {type(weight).__name__} for a {kind}, wanted None")
        if weight is None:
            if bias is not None:
                raise ValueError(f"bias: got {type(bias).__name__} without a weight, wanted None")
            return Step(text, None, None, _own_activation(act, None), tier, kind)
        sizes = checks.MAXOUT_WEIGHT if np.ndim(weight) == 3 else checks.LINEAR_WEIGHT
        _check_parameters(sizes, weight, bias)
        act = _own_activation(act, weight)
        if weight.ndim == 3 and act != _IDENTITY:
            raise ValueError(f"act: got {act.name} after a maximum, wanted identity")
        return Step(text, _copy(weight), None if bias is None else _copy(bias), act, tier)
    except (TypeError, ValueError) as error:
        raise type(error)(f"steps[{i}] ({text}): {error}") from None


def _own_activation(act: Any, weight: Array | None) -> Activation:
    """A new activation with the name, the parameter and a copy of the slope of `act`."""
    if not isinstance(act, Activation):
        raise TypeError(f"act: got {type(act).__name__}, wanted an Activation")
    activation: str | CustomActivation
    activation, code, saves, parameter, slope, custom = act
    if slope is not None:
        checks.check_array("slope", slope)
    features, dtype = 1, np.dtype(np.float32)
    if weight is not None:
        features, dtype = len(weight), weight.dtype
    elif slope is not None:
        features, dtype = slope.size, slope.dtype
    keywords: dict[str, Any] = {} if slope is None else {"slope": slope}
    if custom is not None:
        if not isinstance(custom, CustomActivation):
            raise TypeError(f"custom: got {type(custom).__name__}, wanted a CustomActivation")
        activation = custom
        if "parameter" in custom.defaults:
            keywords["parameter"] = parameter
    elif activation == "gelu_tanh":
        activation, keywords = "gelu", {"approximate": "tanh"}
    elif activation in ("leaky_relu", "elu"):
        keywords["negative_slope" if activation == "leaky_relu" else "alpha"] = parameter
    own = activations.resolve(activation, features, dtype, keywords)
    if own[1:4] != (code, saves, parameter):
        raise ValueError(f"act: got {tuple(act[:4])}, wanted {own[:4]}")
    return own


def _check_parameters(sizes: tuple[str, ...], weight: Any, bias: Any) -> None:
    """weight is an array of `sizes`, and bias None or an array that fits."""
    checks.check_array("weight", weight)
    checks.check_forward(sizes, np.empty((0, *weight.shape[-1:]), weight.dtype), weight, bias)


def _checked_layer_norm(weight: Any, bias: Any, eps: Any) -> tuple[Array | None, float]:
    """The bias, which is None or fits the weight (features,), and eps as a float in range."""
    checks.check_array("weight", weight)
    if weight.ndim != 1 or weight.size == 0:
        raise ValueError(f"weight: got shape {weight.shape}, wanted (features,)")
    if bias is not None:
        checks.check_array("bias", bias, weight.dtype)
        checks.check_shape("bias", bias.shape, weight.shape)
    return bias, checks.check_not_negative("eps", eps, checks.LARGEST[weight.dtype.char])


def _copy(value: Array) -> Array:
    return np.array(value, order="C")


# subclasses compute something else
_KINDS = (Linear, Maxout, ActivationLayer, PReLU, Dropout, LayerNorm, Residual, Sequential)


def _check_kinds(model: Any, name: str = "") -> None:
    """The model, and every layer in it, is of a class whose computation is known."""
    if type(model) not in _KINDS:
        raise TypeError(
            f"model: {path_of(name)}{': ' if name else ''}got {type(model).__name__}, wanted Maxout, Linear, "
            "Activation, PReLU, Dropout, LayerNorm, Residual or a Sequential of these: the computation of "
            "others is not known"
        )
    for child, layer in model._children():
        _check_kinds(layer, f"{name}.{child}" if name else child)


def _steps(layer: Layer, name: str, precision: Precision | None) -> list[Step]:
    """The steps of the layer called `name` in a model: one, none for Dropout, and several for Residual.

    Errors name the layer.
    """
    if isinstance(layer, Residual):
        text, inside = type(layer).__name__, []
        for inner_name, inner in leaves(layer.layer, f"{name}.layer" if name else "layer"):
            inside += _steps(inner, inner_name, precision)
        branch = Step(f"{text}: branch", None, None, _IDENTITY, "highest", "branch")
        return [branch, *inside, branch._replace(text=f"{text}: sum", kind="sum")]
    try:
        return _steps_of_leaf(layer, precision)
    except (TypeError, ValueError) as error:  # a caller has replaced the data of a parameter
        raise type(error)(f"model: {place_of(name, layer)}: {error}") from None


def _steps_of_leaf(layer: Layer, precision: Precision | None) -> list[Step]:
    if isinstance(layer, Linear | Maxout):
        sizes = checks.MAXOUT_WEIGHT if isinstance(layer, Maxout) else checks.LINEAR_WEIGHT
        weight, bias = layer._arrays()
        _check_parameters(sizes, weight, bias)
        act = _IDENTITY
        if isinstance(layer, Linear):
            act = activations.resolve(layer.activation, len(weight), weight.dtype, layer.keywords())
        return [Step(repr(layer), weight, bias, act, precision or layer._tier())]
    if isinstance(layer, PReLU):
        slope = array_of("slope", layer.slope)
        act = activations.resolve("prelu", slope.size, slope.dtype, {"slope": slope})
        return [Step(repr(layer), None, None, act, "highest")]
    if isinstance(layer, ActivationLayer):
        act = activations.resolve(layer.name, 1, np.dtype(np.float32), layer.keywords)
        return [Step(repr(layer), None, None, act, "highest")]
    if isinstance(layer, LayerNorm):
        weight, bias = layer._arrays()
        _, eps = _checked_layer_norm(weight, bias, layer.eps)
        return [Step(repr(layer), weight, bias, _IDENTITY, "highest", "layer norm", eps)]
    return []


def freeze(model: Layer, precision: Precision | None = None, *, backend: BackendName | None = None) -> Frozen:
    """A copy of a layer or model for inference alone, its weights packed once: y = frozen(x).

    The copy has no dropout and saves no argmax, and nothing in it changes: later changes of the model's
    parameters do not affect it.  On the C backend it holds the weights twice: packed, and unpacked for
    pickles.

    Args:
        model: a Maxout, Linear, Activation, PReLU, Dropout, LayerNorm, Residual, or a Sequential of these.
        precision: the float32 precision tier of every layer; by default each layer's own, or the one in
            force now.
        backend: "c", "numba" or "numpy"; by default the one in force now.  A pickle that is loaded uses the
            same argument.

    Returns:
        A `Frozen`, to call with x (..., in_features).

    Raises:
        TypeError: model is anything else, such as an instance of a subclass, or its layers differ in dtype.
        ValueError: the precision or the backend is unknown, a layer does not take the features that the layer
            before it returns, or its parameters do not fit each other.
        ImportError: the backend cannot be loaded.
    """
    if precision is not None:
        settings.check_precision(precision)
    _check_kinds(model)
    steps = []
    for name, layer in leaves(model):
        steps += _steps(layer, name, precision)
    check_neighbours(leaves(model))  # as in Sequential, for the data of now
    return Frozen(tuple(steps), backend)
