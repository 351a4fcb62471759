"""Optimisers, clipping and bounds of norms: they change arrays in place, so the arrays are their `out`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from support.tolerance import gamma

import fastact as fa
from fastact import backends
from fastact.backends.interface import Update

from ..bounds import assert_close, assert_equal, finite
from ..case import Case, Option, Result, Results
from ..draw import Array, Draw

ROUNDINGS = 16  # of u times the size of what a step adds


def filled(out: Any, values: tuple[Array | None, ...]) -> list[Any]:
    """Copies of `values`, in the arrays of `out` where those are as an optimiser takes them."""
    given = out if isinstance(out, tuple) else (out,) * len(values)
    found: list[Any] = []
    for array, value in zip(given, values, strict=True):
        if value is None:
            found.append(None)
        elif array is None or not array.flags.carray:
            found.append(np.array(value, order="C"))
        else:
            array[...] = value
            found.append(array)
    return found


class Drawn:
    """A parameter, its gradient, and the arrays of the state."""

    def __init__(self, draw: Draw, states: int) -> None:
        shape = draw.rows()
        if draw.chance(0.002):
            shape = draw.choice(((3, 70001), (500, 1000), (1000, 17)))
        if draw.chance(0.1):
            shape = draw.shape(draw.choice((1, 3)))
        self.bounded = draw.kind in ("normal", "integers")
        numbers = draw.moderate if self.bounded else draw.numbers
        self.arrays = {"data": numbers(*shape), "grad": numbers(*shape)}
        for i in range(states):
            state = numbers(*shape)
            self.arrays[f"state{i}"] = np.abs(state) if i == 1 else state
        self.max_norm = draw.choice((None, None, 0.5, 20.0))
        self.decay = draw.chance(0.8)
        self.shape = shape
        names = [name for name in self.arrays if name != "grad"]
        self.results = tuple(Result(name, shape, draw.dtype) for name in names)

    def wide(self) -> dict[str, Array]:
        return {name: a.astype(np.float64) for name, a in self.arrays.items()}

    def parameter(self, data: Array, grad: Array) -> Any:
        made = fa.Parameter(data, "weight", decay=self.decay, max_norm=self.max_norm)
        made.grad = grad
        return made


def limited(data: Array, allowed: Array, max_norm: float | None, dtype: Any) -> tuple[Array, Array]:
    """The exact data below the bound of its norms, and the bound of the error."""
    if max_norm is None or not data.size:
        return data, allowed
    norm = np.sqrt(np.square(data).sum(axis=-1, keepdims=True))
    off = np.sqrt(np.square(allowed).sum(axis=-1, keepdims=True))
    scale = np.minimum(1, max_norm / np.maximum(norm, 1e-300))
    relative = gamma(min(data.shape[-1], 600) + ROUNDINGS, dtype) + 2 * off / np.maximum(norm, 1e-300)
    near = norm + off >= max_norm * (1 - 1e-3)
    return data * scale, allowed + np.where(near, np.abs(data * scale) * relative, 0)


def sgd(draw: Draw) -> Case:
    drawn = Drawn(draw, 1)
    momentum, weight_decay = draw.choice((0.0, 0.9)), draw.choice((0.0, 0.01))
    nesterov, lr = bool(momentum) and draw.chance(0.5), draw.choice((0.1, 1e-3))

    def call(data: Array, grad: Array, state0: Array, out: Any = None) -> Any:
        data, velocity = filled(out, (data, state0))
        optimizer = fa.SGD([drawn.parameter(data, grad)], lr, momentum, nesterov, weight_decay)
        optimizer._velocity[0] = velocity
        optimizer.step()
        return data, velocity

    wide = drawn.wide()
    reference: Any = backends.get("numpy")
    update = Update(wide["data"], wide["grad"], drawn.decay, None)
    before = drawn.wide()
    reference.sgd((), lambda: [update], [wide["state0"]], lr, momentum, nesterov, weight_decay)
    u = ROUNDINGS * float(np.finfo(draw.dtype).eps) / 2
    size = (
        np.abs(before["grad"]) + weight_decay * np.abs(before["data"]) + momentum * np.abs(before["state0"])
    )
    allowed = u * (np.abs(before["data"]) + lr * (1 + momentum) * size)
    exact, allowed = limited(wide["data"], allowed, drawn.max_norm, draw.dtype)

    def check(option: Option, results: Results, backend: str) -> None:
        if drawn.bounded:
            assert_close("data", results[0], exact, allowed)
            assert_close("velocity", results[1], wide["state0"], u * size)

    return Case(call, drawn.arrays, check, drawn.results, work=20 * wide["data"].size, calls=2)


def _adam(draw: Draw, kind: Any) -> Case:
    drawn = Drawn(draw, 2)
    decoupled = kind is fa.AdamW
    weight_decay = draw.choice((0.0, 0.01)) if not decoupled else draw.choice((0.01, 0.5))
    steps, lr, eps = draw.choice((0, 1, 10)), 0.01, 1e-8
    beta1, beta2 = draw.choice(((0.9, 0.999), (0.5, 0.9), (0.0, 0.0)))

    def call(data: Array, grad: Array, state0: Array, state1: Array, out: Any = None) -> Any:
        data, mean, square = filled(out, (data, state0, state1))
        optimizer = kind([drawn.parameter(data, grad)], lr, beta1, beta2, eps, weight_decay)
        optimizer._mean[0], optimizer._square[0], optimizer.steps = mean, square, steps
        optimizer.step()
        return data, mean, square

    before, wide = drawn.wide(), drawn.wide()
    rate, unbias = lr / (1 - beta1 ** (steps + 1)), 1 / (1 - beta2 ** (steps + 1)) ** 0.5
    coupled, keep = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    reference: Any = backends.get("numpy")
    update = Update(wide["data"], wide["grad"], drawn.decay, None)
    arrays = [wide["state0"]], [wide["state1"]]
    reference.adam((), lambda: [update], *arrays, rate, beta1, beta2, unbias, eps, coupled, keep)
    u = float(np.finfo(draw.dtype).eps) / 2
    g_size = np.abs(before["grad"]) + coupled * np.abs(before["data"])
    g_off = 3 * u * g_size
    mean_off = ROUNDINGS * u * (beta1 * np.abs(before["state0"]) + g_size)
    square_off = ROUNDINGS * u * (beta2 * before["state1"] + g_size**2) + 2 * g_size * g_off
    root = np.sqrt(wide["state1"]) * unbias
    root_off = unbias * np.minimum(
        np.sqrt(square_off), square_off / np.maximum(np.sqrt(wide["state1"]), 1e-300)
    )
    root_off += ROUNDINGS * u * (root + eps)
    lowest = np.maximum(root + eps - root_off, eps / 2)
    allowed = ROUNDINGS * u * (np.abs(before["data"]) + rate * np.abs(wide["state0"]) / lowest)
    allowed += rate * (mean_off / lowest + np.abs(wide["state0"]) * root_off / (lowest * (root + eps)))
    exact, allowed = limited(wide["data"], allowed, drawn.max_norm, draw.dtype)

    def check(option: Option, results: Results, backend: str) -> None:
        if drawn.bounded:
            assert_close("data", results[0], exact, allowed)
            assert_close("mean", results[1], wide["state0"], mean_off)
            assert_close("square", results[2], wide["state1"], square_off)

    return Case(call, drawn.arrays, check, drawn.results, work=30 * wide["data"].size, calls=2)


def adam(draw: Draw) -> Case:
    return _adam(draw, fa.Adam)


def adamw(draw: Draw) -> Case:
    return _adam(draw, fa.AdamW)


def clip_grad_norm(draw: Draw) -> Case:
    shapes = [draw.rows() for _ in range(draw.choice((1, 2, 3)))]
    inputs = {f"grad{i}": draw.numbers(*shape) for i, shape in enumerate(shapes)}
    bound = draw.choice((0.1, 1.0, 10.0, math.inf))
    results = [Result(name, array.shape, draw.dtype) for name, array in inputs.items()]
    wide = [array.astype(np.float64) for array in inputs.values()]
    reference: Any = backends.get("numpy")
    norm = reference.clip_grad_norm([array.copy() for array in wide], bound)
    scale = bound / (norm + 1e-6)
    u = 4 * float(np.finfo(draw.dtype).eps)

    def call(out: Any = None, **grads: Array) -> Any:
        arrays, parameters = filled(out, tuple(grads.values())), []
        for array in arrays:
            parameter = fa.Parameter(np.zeros(array.shape, array.dtype), "weight")
            parameter.grad = array
            parameters.append(parameter)
        return fa.clip_grad_norm_(parameters, bound), *arrays

    def check(option: Option, results: Results, backend: str) -> None:
        assert_close("norm", np.asarray(np.float64(results[0])), np.asarray(norm), 1e-12 * norm)
        for name, grad, before in zip(inputs, results[1:], wide, strict=True):
            exact = before if scale >= 1 else before * scale
            near = abs(scale - 1) < 1e-9
            allowed = u * np.abs(exact) + float(np.finfo(draw.dtype).smallest_subnormal)
            assert_close(name, grad, exact, np.where(near, np.inf, allowed), finite(exact))

    work = 20 * sum(map(math.prod, shapes))
    return Case(call, inputs, check, results, work=work)


def max_norm(draw: Draw) -> Case:
    shape = draw.rows() if draw.chance(0.8) else draw.shape(3)
    weight, bound = draw.numbers(*shape), draw.choice((0.1, 1.0, 10.0))

    def call(weight: Array, out: Any = None) -> Any:
        (array,) = filled(out, (weight,))
        fa.max_norm_(array, bound)
        return (array,)

    expected = weight.astype(np.float64)
    backends.get("numpy").max_norm(expected, bound)
    relative = gamma(min(shape[-1], 600) + ROUNDINGS, draw.dtype)

    def check(option: Option, results: Results, backend: str) -> None:
        allowed = relative * np.abs(expected) + 4 * float(np.finfo(draw.dtype).smallest_subnormal)
        # beside much larger numbers, one that is small rounds as a denormal of the row
        assert_close("weight", results[0], expected, allowed, finite(expected))
        within = np.sqrt(np.square(weight.astype(np.float64)).sum(axis=-1)) <= bound * (1 - relative)
        assert_equal("weight", results[0][within], weight[within])

    result = Result("weight", shape, draw.dtype)
    return Case(call, {"weight": weight}, check, (result,), work=20 * weight.size)


def update_parameter(draw: Draw) -> Case:
    """The step of a backend that Thinc's optimiser calls."""
    shape = draw.rows()
    bounded = draw.kind in ("normal", "integers")
    numbers = draw.moderate if bounded else draw.numbers
    adam, averages = draw.chance(0.7), draw.chance(0.7)
    inputs: dict[str, Array | None] = {"data": numbers(*shape), "grad": numbers(*shape)}
    size = math.prod(shape)
    inputs["mean"] = numbers(size) if adam else None
    inputs["square"] = np.abs(numbers(size)) if adam else None
    inputs["average"] = numbers(*shape) if averages else None
    max_norm, decay, shrink = (draw.choice((0.0, value)) for value in (1.0, 0.01, 0.001))
    factors = (max_norm, decay, 0.01, 0.9, 0.999, 1e-8, shrink, 0.3)
    names = [name for name, array in inputs.items() if array is not None]
    results = tuple(Result(name, inputs[name].shape, draw.dtype) for name in names)  # type: ignore[union-attr]

    def call(out: Any = None, **arrays: Array | None) -> Any:
        given = dict(zip(names, out if isinstance(out, tuple) else (None,) * len(names), strict=True))
        copies = filled(tuple(given.get(name) for name in arrays), tuple(arrays.values()))
        if not backends.active().update_parameter(*copies, *factors, fa.settings.threads_and_mode()):
            raise AssertionError("update_parameter: refused arrays that it takes")
        return tuple(array for array in copies if array is not None)

    wide = {n: None if a is None else a.astype(np.float64) for n, a in inputs.items()}
    before = {n: np.zeros(1) if a is None else np.abs(a.reshape(-1)) for n, a in wide.items()}
    backends.get("numpy").update_parameter(*wide.values(), *factors)
    u = ROUNDINGS * float(np.finfo(draw.dtype).eps) / 2 + 2 * gamma(64, np.float64)
    norm_off = gamma(min(size, 600) + ROUNDINGS, draw.dtype) if max_norm else 0.0

    def check(option: Option, results: Results, backend: str) -> None:
        if not bounded:
            return
        got = dict(zip(names, results, strict=True))
        g = before["grad"] + decay * before["data"]
        if adam:  # mean and square follow g, the data a quotient of the two
            for name, size_of, old in (("mean", g, before["mean"]), ("square", g * g, before["square"])):
                allowed = (u + 3 * norm_off) * (old + size_of)
                assert_close(name, got[name], wide[name], allowed)
        else:
            allowed = (u + norm_off) * (before["data"] + 0.01 * g)
            assert_close("data", got["data"].reshape(-1), wide["data"].reshape(-1), allowed)  # type: ignore[union-attr]
        assert_equal("grad", got["grad"], np.zeros(shape, draw.dtype))

    return Case(call, inputs, check, results, work=30 * size)


OPERATIONS = {
    "SGD": (sgd, 2.0),
    "Adam": (adam, 2.0),
    "AdamW": (adamw, 1.0),
    "clip_grad_norm_": (clip_grad_norm, 1.5),
    "max_norm_": (max_norm, 1.5),
    "update_parameter": (update_parameter, 1.0),
}
