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

import contextlib
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
    """

    def __init__(self, data: Array, name: str, decay: bool = True, max_norm: float | None = None) -> None:
        self.data = data
        self.grad: Array | None = None
        self.name = name
        self.decay = decay
        self.max_norm = max_norm

    def grad_out(self) -> Array:
        """The array to write or add a gradient to: `grad`, or zeros where there is none yet."""
        return np.zeros_like(self.data) if self.grad is None else self.grad

    def __repr__(self) -> str:
        no_decay = "" if self.decay else ", decay=False"
        bound = "" if self.max_norm is None else f", max_norm={self.max_norm!r}"
        return f"Parameter({self.name!r}, {self.data.shape}, {self.data.dtype}{no_decay}{bound})"


class Layer:
    """What all layers share.  A subclass has `_forward`, `_backward` and `_describe`."""

    _saved: Any = None  # what `_forward` kept for `_backward`

    def __call__(self, x: Array, training: bool = False) -> Array:
        """The layer's output.

        Args:
            x: (..., in_features), of the layer's dtype.
            training: keep what `backward` needs, and drop out; else nothing in the layer changes.

        Raises:
            TypeError, ValueError: x is no array, of another dtype, or of a shape that does not fit.
        """
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
            needs_input_grad: False, for what stands first in a model, saves the time that grad_x takes.

        Returns:
            The gradient with respect to x, or None where it is not needed.

        Raises:
            RuntimeError: no training forward came before, or its backward has run already; so it is for a
                layer that stands in two places of a forward.
            TypeError, ValueError: grad_y is no array, or of another dtype or shape.
        """
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

        Raises ValueError where two parameters have one name.
        """
        return {name: parameter.data.copy() for name, parameter in self._by_name().items()}

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


def _check_size(name: str, value: Any, smallest: int = 0, largest: int | None = None) -> int:
    size = checks.check_int(name, value)
    if size < smallest or (largest is not None and size > largest):
        upwards = "or more" if largest is None else f"to {largest}"
        raise ValueError(f"{name}: got {value}, wanted {smallest} {upwards}")
    return size


def _check_dtype(dtype: Any) -> np.dtype[Any]:
    got: Any = dtype
    with contextlib.suppress(TypeError):  # where it names none
        got = None if dtype is None else np.dtype(dtype)  # None would be float64
    if got not in (np.float32, np.float64):
        raise TypeError(f"dtype: got {got}, wanted float32 or float64")
    return got


def _weight(
    shape: tuple[int, ...],
    initialise: Callable[..., Array],
    rng: np.random.Generator | int | None,
    dtype: np.dtype[Any],
) -> Parameter:
    data = initialise(shape, np.random.default_rng(rng), dtype)
    if not isinstance(data, np.ndarray):
        raise TypeError(f"init: returned {type(data).__name__}, wanted a numpy.ndarray")
    if data.shape != shape or data.dtype != dtype:
        raise ValueError(f"init: returned {data.dtype} {data.shape}, wanted {dtype} {shape}")
    return Parameter(np.ascontiguousarray(data), "weight")


def _data(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.data


def _grad_out(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.grad_out()


def _set_grads(parameters: Iterable[Parameter | None], grads: Iterable[Array]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        if parameter is not None:
            parameter.grad = grad


def _check_grad(grad_y: Any, like: Array) -> None:
    checks.check_array("grad_y", grad_y, like.dtype)
    checks.check_shape("grad_y", grad_y.shape, like.shape)


class _Product(Layer):
    """What `Linear` and `Maxout` share: a weight, a bias, and a product with its precision tier."""

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool, precision: str | None) -> None:
        self.in_features = _check_size("in_features", in_features)
        self.out_features = _check_size("out_features", out_features)
        checks.check_flag("bias", bias)
        self.precision = None if precision is None else settings.check_precision(precision)

    def _tier(self) -> str:
        return self.precision or settings.get_float32_matmul_precision()

    def _describe_product(self) -> list[str]:
        """What `repr` shows beside the sizes: what is not as by default."""
        parts = [] if self.bias is not None else ["bias=False"]
        if self.precision is not None:
            parts.append(f"precision={self.precision!r}")
        if self.weight.data.dtype != np.float32:
            parts.append(f"dtype={self.weight.data.dtype}")
        return parts


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
        TypeError, ValueError: a size, the number of pieces, bias, the precision or the dtype is none.
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
        self.pieces = _check_size("pieces", pieces, 1, checks.MAX_PIECES)
        dtype = _check_dtype(dtype)
        shape = (self.out_features, self.pieces, self.in_features)
        self.weight = _weight(shape, init, rng, dtype)
        self.bias = Parameter(np.zeros(shape[:2], dtype), "bias", decay=False) if bias else None

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x, self.weight.data.dtype)
        tier = self._tier()
        y, argmax = ops.linear_maxout(
            x, self.weight.data, _data(self.bias), return_argmax=training, precision=tier
        )
        return y, (x, argmax, tier)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, argmax, tier = saved
        grad_x, *grads = ops.linear_maxout_backward(
            grad_y,
            x,
            self.weight.data,
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
    """He's for ReLU and its smooth kin, LeCun's for selu, Glorot's for linear, sigmoid and tanh."""
    if activation in ("linear", "sigmoid", "tanh"):
        return init.glorot_uniform
    if activation == "selu":
        return init.lecun_normal
    if activation == "leaky_relu":
        return partial(init.he_normal, negative_slope=keywords.get("negative_slope", 0.01))
    if activation == "prelu":
        return partial(init.he_normal, negative_slope=float(np.mean(keywords["slope"])))
    return init.he_normal


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
        init: a function (shape, rng, dtype) -> array for the weight.  By default `init.glorot_uniform` for
            linear, sigmoid and tanh, `init.lecun_normal` for selu, `init.he_normal` for the others.
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
        TypeError, ValueError: a size, bias, the activation, one of its keywords, the precision or the
            dtype is none.
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
        dtype = _check_dtype(dtype)
        self.activation = activation
        self.slope = None
        if activation == "prelu":
            self.slope = _slope(keywords.pop("slope", 0.25), self.out_features, dtype)
        self._constants = keywords
        activations.resolve(activation, self.out_features, dtype, self.keywords())
        initialise = init or _default_init(activation, self.keywords())
        self.weight = _weight((self.out_features, self.in_features), initialise, rng, dtype)
        self.bias = Parameter(np.zeros(self.out_features, dtype), "bias", decay=False) if bias else None

    def keywords(self) -> dict[str, Any]:
        """The activation's keywords, a learned slope among them."""
        return self._constants if self.slope is None else {**self._constants, "slope": self.slope.data}

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x, self.weight.data.dtype)
        tier = self._tier()
        y, saved = ops.linear_activation(
            x,
            self.weight.data,
            _data(self.bias),
            self.activation,
            return_saved=training,
            precision=tier,
            **self.keywords(),
        )
        return y, (x, saved, tier)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        x, kept, tier = saved
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
            self.weight.data,
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
        TypeError, ValueError: the name or a keyword is none.
    """

    def __init__(self, name: str, **keywords: Any) -> None:
        if name == "prelu":
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
        slope: where it starts.
        dtype: float32 or float64.

    Attributes:
        slope: (features,).

    Raises:
        TypeError, ValueError: the number of features or the dtype is none.
    """

    def __init__(self, features: int = 1, slope: float = 0.25, *, dtype: Any = np.float32) -> None:
        features = _check_size("features", features, 1)
        self.slope = _slope(np.full(features, slope), features, _check_dtype(dtype))

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x, self.slope.data.dtype)
        return ops.activation(x, "prelu", slope=self.slope.data), x

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        _check_grad(grad_y, saved)
        grad_x, self.slope.grad = ops.activation_backward(
            grad_y,
            saved,
            "prelu",
            out=(None, self.slope.grad_out()),
            accumulate=accumulate,
            slope=self.slope.data,
        )
        return grad_x

    def _describe(self) -> list[str]:
        dtype = self.slope.data.dtype
        return [f"{self.slope.data.size}"] + ([] if dtype == np.float32 else [f"dtype={dtype}"])


class Dropout(Layer):
    """In training, multiplies each number by 0 with probability p (Srivastava et al. 2014).

    Args:
        p: the share to drop, 0 <= p < 1.
        rescale: divide what is kept by 1 - p while training ("inverted" dropout), so that inference is
            the identity.  False rescales neither there nor in inference, as Goodfellow et al. 2013
            treat their input layer.
        rng: a `np.random.Generator` or a seed; `.rng` is the generator that a checkpoint has to save for
            a resumed run to be the same.

    Raises:
        TypeError: p is no number, or rescale no bool.  ValueError: p is not in [0, 1).
    """

    def __init__(
        self, p: float = 0.5, rescale: bool = True, *, rng: np.random.Generator | int | None = None
    ) -> None:
        self.p = checks.check_number("p", p)
        if not 0 <= self.p < 1:
            raise ValueError(f"p: got {p}, wanted 0 <= p < 1")
        self.rescale = checks.check_flag("rescale", rescale)
        self.rng = np.random.default_rng(rng)

    def _apply(self, x: Array, keep: Array) -> Array:
        y = np.asarray(np.multiply(x, keep))
        if self.rescale:
            y *= 1 / (1 - self.p)
        return y

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        checks.check_array("x", x)
        if not training:
            return x, ()
        keep = np.greater_equal(self.rng.random(x.shape, np.float32), self.p)
        return self._apply(x, keep), (keep, x.dtype)

    def _backward(self, grad_y: Array, saved: Any, accumulate: bool, needs_input_grad: bool) -> Array | None:
        keep, dtype = saved
        checks.check_array("grad_y", grad_y, dtype)
        checks.check_shape("grad_y", grad_y.shape, keep.shape)
        return self._apply(grad_y, keep)

    def _describe(self) -> list[str]:
        return [f"{self.p:g}"] + ([] if self.rescale else ["rescale=False"])


class Sequential(Layer):
    """Layers one after the other.

    Args:
        *layers: each layer once; a Sequential may be among them.

    Attributes:
        layers: they, as a tuple.

    Raises:
        TypeError: one is no Layer.  ValueError: one is there twice.
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
        count = sum(parameter.data.size for parameter in self.parameters())
        return "\n".join(["Sequential(", *lines, f")  # {count:,} parameters"])
