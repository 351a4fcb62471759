"""Gradients held against central differences: `check_gradient`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import checks, ops
from ..custom import CustomActivation
from .layer import Array, Layer, array_of

_EPS = float(np.finfo(np.float64).eps)
_STEPS = 8  # halved each time
_FIRST_STEP = 2.0**-6
_SHARE = 2.0**-10  # of a large number, times the first step: its first step
_COARSE = 4  # the first steps serve extrapolation alone: at a coarse step two values may agree by chance
_ROUNDINGS = 100  # of an output: a bound of its error, in units in its last place
_AGREEMENT = 1e-6  # a relative difference that is no error: a tenth of what has to be resolved
_RESOLUTION = 1e-5  # the largest relative tolerance of a difference that decides


class GradientCheck(NamedTuple):
    """What `check_gradient` has found right.

    Attributes:
        checked: numbers whose gradient agrees with central differences.
        skipped: numbers where these do not decide: a kink is too close, or the function is too rough there.
        largest: the largest relative difference of those that were checked.
    """

    checked: int
    skipped: int
    largest: float


class _Difference(NamedTuple):
    value: float
    error: float  # a bound of the error of `value`
    kink: bool  # the slopes on both sides differ


def check_gradient(
    function: Layer | CustomActivation | Callable[[Array], Array],
    x: Array,
    *,
    backward: Callable[[Array], Array] | None = None,
    points: int = 50,
    rng: np.random.Generator | int = 0,
    **keywords: Any,
) -> GradientCheck:
    """Hold the gradients of a layer, an activation or a function against central differences in float64.

        fa.check_gradient(MyLayer(4, 3, dtype=np.float64), x)    # grad_x and those of all parameters
        fa.check_gradient(fa.custom_activation("swish2", ...), x)
        fa.check_gradient(fa.silu, x, backward=lambda grad_y: fa.silu_backward(grad_y, x))

    The loss is the sum of the outputs, each times a random number.  Differences of 8 steps, each half of the
    one before, are extrapolated to a step of 0 (Ridders 1982), which gives their error too.  A gradient that
    is wrong by 1e-5 of itself or more is noticed.  Where the slopes on both sides differ, as relu's at 0,
    differences decide nothing, and the number is skipped.

    Args:
        function: a layer in training mode, which is copied and stays as it is; a `CustomActivation`; or a
            function x -> y.
        x: float64, any shape that the function takes.
        backward: of a function: grad_y -> grad_x, at this x.
        points: how many numbers of each array to check, chosen at random from larger arrays.
        rng: a `np.random.Generator` or a seed, for the loss and the choice.
        **keywords: those of a `CustomActivation`: parameter, or slope, whose gradient is checked too.

    Returns:
        A `GradientCheck`.

    Raises:
        AssertionError: a gradient has the wrong shape or dtype, or differs from central differences.  The
            message names the array, the place and both values.  Or no number could be checked.
        TypeError: x or a parameter is not a float64 array, or `backward` is given for a layer or an
            activation, or missing for a function, or an argument is of the wrong type.
        ValueError: points is below 1.
    """
    checks.check_array("x", x, np.dtype(np.float64))
    points = checks.check_size("points", points, 1)
    generator = checks.check_rng(rng)
    x = np.array(x, order="C")
    if isinstance(function, Layer | CustomActivation):
        if backward is not None:
            raise TypeError("backward: got a function, wanted None: a layer and an activation have their own")
        if isinstance(function, Layer):
            case = _of_layer(function, x, keywords)
        else:
            case = _of_activation(function, x, keywords)
    else:
        case = _of_function(function, x, backward, keywords)
    return _check(case, points, generator)


class _Case(NamedTuple):
    name: str
    arrays: dict[str, Array]  # what the outputs depend on; changed in place, and put back
    evaluate: Callable[[], Array]  # the outputs
    gradients: Callable[[Array], dict[str, Any]]  # grad_y -> the gradient of each array


def _of_layer(layer: Layer, x: Array, keywords: dict[str, Any]) -> _Case:
    if keywords:
        raise TypeError(f"{next(iter(keywords))}: a layer takes no keyword here")
    layer = copy.deepcopy(layer)
    arrays = {"x": x}
    for name, parameter in layer.named_parameters():
        data = array_of(name, parameter)
        if data.dtype != np.float64:
            raise TypeError(
                f"{name}: got dtype {data.dtype}, wanted float64: make the layer with dtype=np.float64"
            )
        arrays[name] = data

    def gradients(grad_y: Array) -> dict[str, Any]:
        run = copy.deepcopy(layer)
        run(x, training=True)
        grad_x = run.backward(grad_y)
        return {"x": grad_x} | {name: parameter.grad for name, parameter in run.named_parameters()}

    # a copy draws the same dropout each time
    return _Case(repr(layer), arrays, lambda: copy.deepcopy(layer)(x, training=True), gradients)


def _of_activation(activation: CustomActivation, x: Array, keywords: dict[str, Any]) -> _Case:
    arrays = {"x": x}
    if "slope" in activation.defaults:
        slope = keywords.get("slope", np.array([activation.initial_slope]))
        checks.check_array("slope", slope, x.dtype)
        arrays["slope"] = slope = np.array(slope, order="C")
        keywords = {**keywords, "slope": slope}

    def gradients(grad_y: Array) -> dict[str, Any]:
        saved = x if activation.saves == "z" else ops.activation(x, activation, **keywords)
        grads = ops.activation_backward(grad_y, saved, activation, **keywords)
        return dict(zip(arrays, grads if isinstance(grads, tuple) else (grads,), strict=True))

    return _Case(repr(activation), arrays, lambda: ops.activation(x, activation, **keywords), gradients)


def _of_function(function: Any, x: Array, backward: Any, keywords: dict[str, Any]) -> _Case:
    for name, value in (("function", function), ("backward", backward)):
        if not callable(value):
            wanted = (
                "a layer, a custom activation or a function" if name == "function" else "grad_y -> grad_x"
            )
            raise TypeError(f"{name}: got {checks.shown(value)}, wanted {wanted}")
    if keywords:
        raise TypeError(f"{next(iter(keywords))}: a function takes no keyword here, but may be a lambda")
    name = getattr(function, "__name__", type(function).__name__)
    return _Case(name, {"x": x}, lambda: np.array(function(x)), lambda grad_y: {"x": backward(grad_y)})


def _check(case: _Case, points: int, rng: np.random.Generator) -> GradientCheck:
    y = case.evaluate()
    checks.check_array(f"{case.name}: y", y, np.dtype(np.float64))
    grad_y: Array = np.asarray(rng.standard_normal(y.shape))
    gradients = case.gradients(grad_y.copy())
    checked, skipped, largest = 0, 0, 0.0
    for name, array in case.arrays.items():
        gradient = gradients[name]
        if isinstance(gradient, np.generic):
            gradient = np.asarray(gradient)
        if type(gradient) not in checks.ARRAYS or (gradient.shape, gradient.dtype) != (
            array.shape,
            array.dtype,
        ):
            got = checks.shown(gradient)
            if isinstance(gradient, np.ndarray):
                got = f"shape {gradient.shape} and dtype {gradient.dtype}"
            raise AssertionError(
                f"{case.name}: gradient of {name}: got {got}, wanted shape {array.shape} and dtype float64"
            )
        chosen = rng.permutation(array.size)[:points]
        wrong: list[tuple[float, str]] = []
        for flat in np.sort(chosen):
            place = tuple(int(i) for i in np.unravel_index(flat, array.shape))
            with np.errstate(all="ignore"):
                found = _difference(case, array, place, y, grad_y)
            given = float(gradient[place])
            size = max(abs(given), abs(found.value))
            tolerance = max(found.error, _AGREEMENT * size)
            distance = abs(given - found.value)
            if found.kink or not np.isfinite(found.value) or tolerance > _RESOLUTION * size > 0:
                skipped += 1
            elif distance <= tolerance:
                checked += 1
                largest = max(largest, distance / size if size else 0.0)
            else:
                relative = distance / size if size else distance
                at = f"{name}[{', '.join(map(str, place))}]" if place else name
                wrong.append(
                    (
                        relative,
                        f"at {at} = {array[place]:.6g} backward gives {given:.10g}, and central differences "
                        f"{found.value:.10g} +- {tolerance:.1g}: a relative difference of {relative:.2g}",
                    )
                )
        if wrong:
            raise AssertionError(
                f"{case.name}: gradient of {name}: wrong at {len(wrong)} of {len(chosen)} numbers; "
                f"{max(wrong)[1]}"
            )
    if skipped and not checked:
        raise AssertionError(
            f"{case.name}: central differences decide at none of {skipped} numbers: the function has kinks "
            "there, or is too rough; choose another x"
        )
    return GradientCheck(checked, skipped, largest)


def _difference(case: _Case, array: Array, place: tuple[int, ...], y: Array, grad_y: Array) -> _Difference:
    """The derivative of sum(grad_y * y) with respect to array[place]."""
    start = float(array[place])
    first = _FIRST_STEP * max(1.0, _SHARE * abs(start))
    changed = np.zeros(y.shape, bool)
    bends: list[float] = []  # the slope on the right less that on the left, for each step
    rows: list[list[float]] = []
    best, error, rounding = np.nan, np.inf, 0.0
    try:
        for k in range(_STEPS):
            step = first / 2**k
            array[place] = above = start + step
            y_above = case.evaluate()
            array[place] = below = start - step
            y_below = case.evaluate()
            changed |= y_above != y_below
            sizes = _EPS * np.abs(grad_y) * (np.abs(y_above) + np.abs(y_below))
            # an output that even the first step has not changed may still depend on x below its last place
            rounding = _ROUNDINGS * float(sizes[changed].sum()) / (above - below)
            rounding += float(sizes[~changed].sum()) / (2 * first)
            bends.append(
                float((grad_y * ((y_above - y) / (above - start) - (y - y_below) / (start - below))).sum())
            )
            # an entry extrapolates the one before it, and that of the step before: its error is a power of
            # the step higher by 2
            row = [float((grad_y * (y_above - y_below)).sum()) / (above - below)]
            if rows:
                for j, coarser in enumerate(rows[-1]):
                    row.append(row[j] + (row[j] - coarser) / (4.0 ** (j + 1) - 1))
                    estimate = max(abs(row[j + 1] - row[j]), abs(row[j + 1] - coarser)) + rounding
                    if k >= _COARSE and estimate < error:
                        best, error = row[j + 1], estimate
            rows.append(row)
    finally:
        array[place] = start
    # a smooth bend halves with the step
    kink = abs(bends[-1]) > 0.75 * abs(bends[-2]) and abs(bends[-1]) > 4 * rounding
    return _Difference(best, error, kink)
