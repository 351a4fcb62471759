"""Adapters whose frameworks are installed: the bits of fastact's own functions.

A framework is imported by the first case that needs it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from support import linear_maxout as of_maxout

import fastact as fa
from fastact import activations

from ..bounds import assert_equal
from ..case import Case, Option, Results
from ..draw import Array, Draw

NAMES = [name for name in activations.NAMES if name != "prelu"]
CALL_WORK = 400_000  # a framework's own work in a call, in multiply-adds
JAX_SHAPES = ((3, 4, 5, 2), (17, 33, 16, 3), (1, 97, 3, 5), (0, 3, 2, 2))  # XLA compiles each


def _checked_by(wanted: Any) -> Any:
    """A check: the results equal those of `wanted`, called once for each backend."""

    def check(option: Option, results: Results, backend: str) -> None:
        for i, (got, other) in enumerate(zip(results, wanted(), strict=True)):
            assert_equal(f"results[{i}]", np.asarray(got), np.asarray(other))

    return check


def _inputs(draw: Draw, shape: tuple[int, int, int, int]) -> dict[str, Array | None]:
    rows, in_features, out_features, pieces = shape
    return {
        "x": draw.numbers(rows, in_features),
        "weight": draw.numbers(out_features, pieces, in_features),
        "bias": draw.numbers(out_features, pieces),
        "grad_y": draw.numbers(rows, out_features),
    }


def _maxout_of(x: Any, weight: Any, bias: Any, grad_y: Any) -> tuple[Any, ...]:
    """y and the gradients, of fastact's own functions."""
    y, argmax = fa.linear_maxout(x, weight, bias)
    return (y, *fa.linear_maxout_backward(grad_y, x, weight, argmax))


def torch_maxout(draw: Draw) -> Case:
    import torch

    import fastact.torch as ft

    inputs = _inputs(draw, draw.product())

    def call(**arrays: Array) -> Any:
        tensors = [torch.from_numpy(np.array(array)).requires_grad_() for array in arrays.values()]
        y = ft.linear_maxout(*tensors[:3])
        y.backward(tensors[3].detach())
        return tuple(tensor.detach().numpy() for tensor in (y, *(each.grad for each in tensors[:3])))

    return Case(call, inputs, _checked_by(lambda: _maxout_of(**inputs)), work=CALL_WORK, calls=2, leaks=False)


def torch_activation(draw: Draw) -> Case:
    import torch

    import fastact.torch as ft

    rows, in_features, out_features, _ = draw.product()
    name = draw.choice(NAMES)
    inputs: dict[str, Array | None] = {
        "x": draw.numbers(rows, in_features),
        "weight": draw.numbers(out_features, in_features),
        "bias": draw.numbers(out_features),
        "grad_y": draw.numbers(rows, out_features),
    }

    def call(**arrays: Array) -> Any:
        tensors = [torch.from_numpy(np.array(array)).requires_grad_() for array in arrays.values()]
        y = ft.linear_activation(*tensors[:3], name)
        y.backward(tensors[3].detach())
        return tuple(tensor.detach().numpy() for tensor in (y, *(each.grad for each in tensors[:3])))

    def wanted() -> tuple[Any, ...]:
        x, weight, bias, grad_y = (np.asarray(array) for array in inputs.values())
        y, saved = fa.linear_activation(x, weight, bias, name)
        return (y, *fa.linear_activation_backward(grad_y, x, weight, saved, name))

    return Case(call, inputs, _checked_by(wanted), work=CALL_WORK, calls=2, leaks=False)


def thinc_ops(draw: Draw) -> Case:
    from fastact.thinc import FastactOps

    ops, (rows, outputs, _, pieces) = FastactOps(), draw.product()
    outputs = max(1, outputs)
    inputs: dict[str, Array | None] = {
        "x": draw.numbers(rows, outputs, pieces),
        "grad_y": draw.numbers(rows, outputs),
    }

    def call(x: Array, grad_y: Array) -> Any:
        x, grad_y = np.array(x), np.array(grad_y)  # others are Thinc's own
        y, which = ops.maxout(x)
        grad_x = ops.backprop_maxout(grad_y, which, pieces)
        return y, which, grad_x, ops.gelu(grad_y), ops.relu(grad_y)

    def wanted() -> tuple[Any, ...]:
        x, grad_y = np.asarray(inputs["x"]), np.asarray(inputs["grad_y"])
        y, argmax = fa.maxout(x)
        grad_x = fa.maxout_backward(grad_y, argmax, pieces)
        return y, argmax.astype(np.int32), grad_x, fa.gelu(grad_y), fa.relu(grad_y)

    return Case(call, inputs, _checked_by(wanted), work=CALL_WORK, calls=4, leaks=False)


def jax_maxout(draw: Draw) -> Case:
    import jax
    import jax.numpy as jnp

    import fastact.jax as fj

    inputs = _inputs(draw, draw.choice(JAX_SHAPES))
    x, weight, bias, grad_y = (np.array(array) for array in inputs.values())
    argmax = fa.linear_maxout(x, weight, bias)[1]

    def call(**arrays: Array) -> Any:
        with jax.enable_x64(True):
            x, weight, bias, grad_y = (jnp.asarray(np.array(array)) for array in arrays.values())
            y, backward = jax.vjp(fj.linear_maxout, x, weight, bias)
            return tuple(np.asarray(result) for result in (y, *backward(grad_y)))

    def check(option: Option, results: Results, backend: str) -> None:
        if draw.kind in (
            "normal",
            "integers",
        ):  # XLA asks for each gradient by itself, in an order of its own
            of_maxout.assert_forward(x, weight, bias, results[0], argmax, "c")
            of_maxout.assert_backward(grad_y, x, weight, argmax, results[1:], "c")

    return Case(call, inputs, check, work=20 * CALL_WORK, calls=2, leaks=False)


def sklearn_classifier(draw: Draw) -> Case:
    """Fit and predict twice: the same bits, probabilities that sum to 1."""
    from fastact.sklearn import MaxoutClassifier

    rows, features = draw.choice((12, 33, 97)), draw.choice((1, 3, 17))
    x, y = draw.rng.standard_normal((rows, features)).astype(draw.dtype), np.arange(rows) % 3
    seed = int(draw.rng.integers(1000))

    def call(x: Array, y: Array) -> Any:
        model = MaxoutClassifier((8,), max_iter=2, random_state=seed).fit(np.array(x), np.array(y))
        return model.predict_proba(np.array(x)), model.predict(np.array(x))

    def check(option: Option, results: Results, backend: str) -> None:
        np.testing.assert_allclose(results[0].sum(axis=1), 1, atol=1e-5)
        assert_equal("predict", results[1], results[0].argmax(axis=1))

    return Case(call, {"x": x, "y": y}, check, work=100 * CALL_WORK, calls=3, leaks=False)


_ALL = {
    "torch_maxout": (torch_maxout, 0.2, "torch"),
    "torch_activation": (torch_activation, 0.2, "torch"),
    "thinc_ops": (thinc_ops, 0.2, "thinc"),
    "jax_maxout": (jax_maxout, 0.05, "jax"),
    "sklearn_classifier": (sklearn_classifier, 0.02, "sklearn"),
}
OPERATIONS = {
    name: (make, share)
    for name, (make, share, framework) in _ALL.items()
    if importlib.util.find_spec(framework) is not None
}
