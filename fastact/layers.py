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

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import activations, checks, init, ops, settings
from .state import check_loadable

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


def _weight(
    shape: tuple[int, ...],
    initialise: Callable[..., Array],
    rng: np.random.Generator | int | None,
    dtype: np.dtype[Any],
) -> Parameter:
    """A new parameter; its data is a copy, since an initialiser may return one array for several layers."""
    checks.check_sizes("weight", shape)
    generator = checks.check_rng(rng)
    if not callable(initialise):
        raise TypeError(f"init: got {checks.shown(initialise)}, wanted a function (shape, rng, dtype)")
    data = initialise(shape, generator, dtype)
    if type(data) not in checks.ARRAYS:
        raise TypeError(f"init: returned {type(data).__name__}, wanted a numpy.ndarray")
    if data.shape != shape or data.dtype != dtype:
        raise ValueError(f"init: returned {data.dtype} {data.shape}, wanted {dtype} {shape}")
    return Parameter(np.array(data, order="C"), "weight")


def _grad_out(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.grad_out()


def _set_grads(parameters: Iterable[Parameter | None], grads: Iterable[Array]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        if parameter is not None:
            parameter.grad = grad


def _check_grad(grad_y: Any, like: Array) -> None:
    checks.check_array("grad_y", grad_y, like.dtype)
    checks.check_shape("grad_y", grad_y.shape, like.shape)


def _describe_dtype(parameter: Parameter) -> list[str]:
    """What `repr` shows of the dtype of a layer: nothing by default, or without an array."""
    dtype = getattr(parameter.data, "dtype", np.float32)
    return [] if dtype == np.float32 else [f"dtype={dtype}"]


class _Product(Layer):
    """What `Linear` and `Maxout` share: a weight, a bias, and a product with its precision tier."""

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool, precision: str | None) -> None:
        self.in_features = checks.check_size("in_features", in_features)
        self.out_features = checks.check_size("out_features", out_features)
        checks.check_flag("bias", bias)
        self.precision = None if precision is None else settings.check_precision(precision)

    def _arrays(self) -> tuple[Array, Array | None]:
        """The weight and the bias."""
        return array_of("weight", self.weight), None if self.bias is None else array_of("bias", self.bias)

    def _tier(self) -> str:
        return self.precision or settings.get_float32_matmul_precision()

    def _describe_product(self) -> list[str]:
        """What `repr` shows beside the sizes: what is not as by default."""
        parts = [] if self.bias is not None else ["bias=False"]
        if self.precision is not None:
            parts.append(f"precision={self.precision!r}")
        return parts + _describe_dtype(self.weight)


class Maxout(_Product):
    """`pieces` linear units for each output, and of these the largest (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        in_features, out_features: the sizes of x's and y's last axes.
        pieces: linear units for each output, 1 to 256.
        bias: whether there is one; it starts at 0.
        init: a function (shape, rng, dtype) -> array for the weight; `init.maxout_normal` by default.
        precision: the float32 precision tier, else the one in force at each forward.
        rng: a `np.random.Generator` or a seed for the weight.
        dtype: float32 or float64.

    Attributes:
        weight: (out_features, pieces, in_features).
        bias: (out_features, pieces), or None.

    Raises:
        TypeError, ValueError: a size, `pieces`, `bias`, `init`, `precision`, `rng` or `dtype` is of the wrong
            type or out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        bias: bool = True,
        *,
        init: Callable[..., Array] = init.maxout_normal,
        precision: str | None = None,
        rng: np.random.Generator | int | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(in_features, out_features, bias, precision)
        self.pieces = checks.check_size("pieces", pieces, 1, checks.MAX_PIECES)
        dtype = checks.check_float_dtype(dtype)
        shape = (self.out_features, self.pieces, self.in_features)
        self.weight = _weight(shape, init, rng, dtype)
        self.bias = Parameter(np.zeros(shape[:2], dtype), "bias", decay=False) if bias else None

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        weight, bias = self._arrays()
        checks.check_array("x", x, weight.dtype)
        tier = self._tier()
        y, argmax = ops.linear_maxout(x, weight, bias, return_argmax=training, precision=tier)
        return y, (x, argmax, tier)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, argmax, tier = saved
        weight, _ = self._arrays()
        grad_x, *grads = ops.linear_maxout_backward(
            grad_y,
            x,
            weight,
            argmax,
            needs=(needs_input_grad, True, self.bias is not None),
            out=(None, self.weight.grad_out(), _grad_out(self.bias)),
            accumulate=accumulate,
            precision=tier,
        )
        _set_grads((self.weight, self.bias), grads)
        return grad_x

    def _describe(self) -> list[str]:
        sizes = [f"{self.in_features}", f"{self.out_features}", f"pieces={self.pieces}"]
        return sizes + self._describe_product()


def _default_init(activation: str, keywords: dict[str, Any]) -> Callable[..., Array]:
    """The initialisation that the table of activations names, with a slope below zero if it has one."""
    row = activations.TABLE[activation]
    chosen: Callable[..., Array] = getattr(init, row.init)
    values = {**row.defaults, **keywords}
    slope = values.get("slope", values.get("negative_slope"))
    return chosen if slope is None else partial(chosen, negative_slope=float(np.mean(slope)))


def _slope(values: Any, features: int, dtype: np.dtype[Any]) -> Parameter:
    """A PReLU's slope, one or one a feature; He et al. 2015 start it at 0.25 and do not decay it."""
    slope = Parameter(checks.finite_numbers("slope", values, dtype), "slope", decay=False)
    activations.resolve("prelu", features, dtype, {"slope": slope.data})
    return slope


class Linear(_Product):
    """A linear layer and its activation, in one pass: y = activation(x @ weight.T + bias).

    Args:
        in_features, out_features: the sizes of x's and y's last axes.
        bias: whether there is one; it starts at 0.
        activation: a name of the table in `fastact.activations`.
        init: a function (shape, rng, dtype) -> array for the weight.  By default the function
            that the table in `fastact.activations` names: `init.glorot_uniform` for linear and those
            like sigmoid and tanh, `init.lecun_normal` for selu, `init.he_normal` for those like relu.
        precision: the float32 precision tier, else the one in force at each forward.
        rng: a `np.random.Generator` or a seed for the weight.
        dtype: float32 or float64.
        **keywords: the activation's own.  For "prelu", `slope` is where the learned slope starts: a
            number (0.25) for a shared one, or out_features numbers.

    Attributes:
        weight: (out_features, in_features).
        bias: (out_features,), or None.
        slope: (1,) or (out_features,) for "prelu", else None.

    Raises:
        TypeError, ValueError: a size, `bias`, `activation` or one of its keywords, `init`, `precision`, `rng`
            or `dtype` is of the wrong type or out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        *,
        init: Callable[..., Array] | None = None,
        precision: str | None = None,
        rng: np.random.Generator | int | None = None,
        dtype: Any = np.float32,
        **keywords: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias, precision)
        dtype = checks.check_float_dtype(dtype)
        self.activation = activation
        self.slope = None
        if isinstance(activation, str) and activation == "prelu":
            self.slope = _slope(keywords.pop("slope", 0.25), self.out_features, dtype)
        self._constants = keywords
        activations.resolve(activation, self.out_features, dtype, self.keywords())
        initialise = _default_init(activation, self.keywords()) if init is None else init
        self.weight = _weight((self.out_features, self.in_features), initialise, rng, dtype)
        self.bias = Parameter(np.zeros(self.out_features, dtype), "bias", decay=False) if bias else None

    def keywords(self) -> dict[str, Any]:
        """The activation's keywords, a learned slope among them."""
        if self.slope is None:
            return self._constants
        return {**self._constants, "slope": array_of("slope", self.slope)}

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        weight, bias = self._arrays()
        checks.check_array("x", x, weight.dtype)
        tier = self._tier()
        y, saved = ops.linear_activation(
            x,
            weight,
            bias,
            self.activation,
            return_saved=training,
            precision=tier,
            **self.keywords(),
        )
        return y, (x, saved, tier)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, kept, tier = saved
        weight, _ = self._arrays()
        parameters = [self.weight, self.bias]
        needs = [needs_input_grad, True, self.bias is not None]
        out = [None, self.weight.grad_out(), _grad_out(self.bias)]
        if self.slope is not None:
            parameters.append(self.slope)
            needs.append(True)
            out.append(self.slope.grad_out())
        grad_x, *grads = ops.linear_activation_backward(
            grad_y,
            x,
            weight,
            kept,
            self.activation,
            needs=tuple(needs),
            out=tuple(out),
            accumulate=accumulate,
            precision=tier,
            **self.keywords(),
        )
        _set_grads(parameters, grads)
        return grad_x

    def _describe(self) -> list[str]:
        parts = [f"{self.in_features}", f"{self.out_features}"]
        if self.activation != "linear":
            parts.append(f"activation={self.activation!r}")
        parts += [f"{key}={value!r}" for key, value in self._constants.items()]
        return parts + self._describe_product()


class Activation(Layer):
    """An activation by itself, element by element: a name of `fastact.activations` and its keywords.

    "prelu", whose slope is learned, has a layer of its own: `PReLU`.

    Raises:
        TypeError, ValueError: the name is unknown, or a keyword unknown, of the wrong type or out of range.
    """

    def __init__(self, name: str, **keywords: Any) -> None:
        if isinstance(name, str) and name == "prelu":
            raise ValueError("name: got 'prelu', wanted the layer PReLU, which learns its slope")
        self.name = name
        self.keywords = keywords
        self._saves = activations.resolve(name, 1, np.dtype(np.float32), keywords).saves

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = ops.activation(x, self.name, **self.keywords)
        return y, y if self._saves == "y" else x

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        _check_grad(grad_y, saved)
        return ops.activation_backward(grad_y, saved, self.name, **self.keywords)

    def _describe(self) -> list[str]:
        return [repr(self.name), *(f"{key}={value!r}" for key, value in self.keywords.items())]


class PReLU(Layer):
    """x where it is positive, else slope · x, with a slope that is learned (He et al. 2015).

    Args:
        features: 1 for one slope, or the size of x's last axis for one slope a feature.
        slope: where it starts: a number, or `features` numbers.
        dtype: float32 or float64.

    Attributes:
        slope: (features,).

    Raises:
        TypeError: features is not an int, slope not of real numbers, or dtype not float32 or float64.
        ValueError: features is below 1, or slope not finite or of another length.
    """

    def __init__(
        self, features: int = 1, slope: float | list[float] | Array = 0.25, *, dtype: Any = np.float32
    ) -> None:
        features = checks.check_size("features", features, 1)
        self.slope = _slope(slope, features, checks.check_float_dtype(dtype))
        self.slope.data = np.full(features, self.slope.data)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        slope = array_of("slope", self.slope)
        checks.check_array("x", x, slope.dtype)
        return ops.activation(x, "prelu", slope=slope), x

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        _check_grad(grad_y, saved)
        grad_x, self.slope.grad = ops.activation_backward(
            grad_y,
            saved,
            "prelu",
            out=(None, self.slope.grad_out()),
            accumulate=accumulate,
            slope=array_of("slope", self.slope),
        )
        return grad_x

    def _describe(self) -> list[str]:
        return [f"{np.size(self.slope.data)}", *_describe_dtype(self.slope)]


class Dropout(Layer):
    """In training, multiplies each number by 0 with probability p (Srivastava et al. 2014).

    A forked process copies `rng` as it is, so that workers forked from one process draw equal masks, as they
    draw equal numbers from every NumPy generator.  Give each worker a generator of its own:

        layer.rng = np.random.default_rng([seed, worker])

    Args:
        p: the share to drop, 0 <= p < 1.
        rescale: divide what is kept by 1 - p while training ("inverted" dropout), so that inference is
            the identity.  False rescales neither there nor in inference, as Goodfellow et al. 2013
            treat their input layer.
        rng: a `np.random.Generator` or a seed; `.rng` is the generator that a checkpoint has to save for
            a resumed run to be the same.

    Raises:
        TypeError: p is not a number, rescale not a bool, or rng not what `np.random.default_rng` takes.
        ValueError: p is not in [0, 1).
    """

    def __init__(
        self, p: float = 0.5, rescale: bool = True, *, rng: np.random.Generator | int | None = None
    ) -> None:
        self.p = checks.check_below_one("p", p)
        self.rescale = checks.check_flag("rescale", rescale)
        self.rng = checks.check_rng(rng)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x)
        if not training:
            return x, ()
        p = checks.check_below_one("p", self.p)
        scale = 1 / (1 - p) if checks.check_flag("rescale", self.rescale) else None
        keep = np.greater_equal(self.rng.random(x.shape, np.float32), p)
        return _kept(x, keep, scale), (keep, scale, x.dtype)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        keep, scale, dtype = saved
        checks.check_array("grad_y", grad_y, dtype)
        checks.check_shape("grad_y", grad_y.shape, keep.shape)
        return _kept(grad_y, keep, scale)

    def _describe(self) -> list[str]:
        return [f"{self.p:g}"] + ([] if self.rescale else ["rescale=False"])


def _kept(x: Array, keep: Array, scale: float | None) -> Array:
    """x where keep is true, times `scale` unless that is None, and 0 elsewhere."""
    with np.errstate(all="ignore"):  # as in the kernels, what leaves the range of the dtype is infinite or 0
        y = np.asarray(np.multiply(x, keep))
        if scale is not None:
            y *= scale
    return y


class Sequential(Layer):
    """Layers one after the other.

    Args:
        *layers: each layer once; a Sequential may be among them.

    Attributes:
        layers: they, as a tuple.

    Raises:
        TypeError: one is not a Layer.  ValueError: one is there twice.
    """

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
