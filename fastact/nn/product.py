"""The base of `Linear` and `Maxout`: a weight, a bias, and a product with its precision tier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import checks, settings
from ..settings import Precision
from .layer import Array, Layer, Parameter, Sizes, array_of, data_of, describe_dtype


def new_weight(
    shape: tuple[int, ...],
    initialise: Callable[..., Array],
    rng: np.random.Generator | int | None,
    dtype: np.dtype[Any],
) -> Parameter:
    """A new parameter with a copy of the initialiser's array, which it may return for several layers."""
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


def grad_out(parameter: Parameter | None) -> Array | None:
    """The array to write a parameter's gradient to; None without a parameter."""
    return None if parameter is None else parameter.grad_out()


def set_grads(parameters: Iterable[Parameter | None], grads: Iterable[Array | None]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        if parameter is not None:
            parameter.grad = grad


class Product(Layer):
    """The base of `Linear` and `Maxout`: a weight, a bias, and a product with its precision tier."""

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool, precision: Precision | None) -> None:
        self.in_features = checks.check_size("in_features", in_features)
        self.out_features = checks.check_size("out_features", out_features)
        checks.check_flag("bias", bias)
        self.precision = None if precision is None else settings.check_precision(precision)

    def _arrays(self) -> tuple[Array, Array | None]:
        """The weight and the bias."""
        return array_of("weight", self.weight), None if self.bias is None else array_of("bias", self.bias)

    def _sizes(self) -> Sizes | None:
        weight = data_of(self.weight)
        return (
            None if weight is None or weight.ndim < 2 else Sizes(weight.shape[-1], len(weight), weight.dtype)
        )

    def _check_x(self, x: Any, weight: Array) -> None:
        """x fits the weight.  With data of another size, `ops` decides which is wrong."""
        checks.check_array("x", x, weight.dtype)
        if weight.shape[-1:] == (self.in_features,):
            checks.check_last_axis("x", x.shape, weight.shape)

    def _tier(self) -> Precision:
        return self.precision or settings.get_float32_matmul_precision()

    def _describe_product(self) -> list[str]:
        """The arguments beside the sizes that differ from their defaults, for `repr`."""
        parts = [] if self.bias is not None else ["bias=False"]
        if self.precision is not None:
            parts.append(f"precision={self.precision!r}")
        return parts + describe_dtype(self.weight)
