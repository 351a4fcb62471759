# mypy: disable-error-code="no-any-return"
"""Networks of piecewise-linear layers: which pieces win, and the linear map around a sample.

Around almost every input such a network is linear, as long as the same piece wins in each group and each
ReLU stays on its side of 0.  The inputs with the same winners and the same sides form one region, which is
convex.

These functions take a `Layer`: `Maxout`, `Linear` and `Activation` with identity, relu, leaky_relu or prelu,
`PReLU`, `Dropout` (the identity here), and a `Sequential` or a `Residual` of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import checks, ops
from ..activations import ActivationName, Parameters, canonical
from .activation import Activation, PReLU
from .dropout import Dropout
from .layer import Layer, array_of, check_layer
from .linear import Linear
from .maxout import Maxout
from .residual import Residual, fold, joined
from .sequential import add_place, place_of

Array = np.ndarray[Any, Any]

_RESOLUTION = 1e-12  # of t: far more than rounding moves a boundary

_PIECEWISE_LINEAR: tuple[ActivationName, ...] = ("identity", "relu", "leaky_relu", "prelu")


def piece_usage(model: Layer, x: Array) -> dict[str, Array]:
    """The share of the rows of x for which each piece of each maxout layer wins.

        usage = fastact.piece_usage(model, x)
        never = usage["0"] == 0          # the pieces of model[0] that win for no row of x

    Args:
        model: any model; only its `Maxout` layers count.
        x: (..., in_features), at least one row.

    Returns:
        For each maxout layer, by its place in the model ("0"; "1.0" in a nested `Sequential`, "1.layer" in a
        `Residual`; "" if the model is one itself), an array (out_features, pieces) of float64, whose rows sum
        to 1.

    Raises:
        TypeError: model is not a Layer, or x is not an array or has the wrong dtype.
        ValueError: x has no rows, or its shape does not fit.
    """
    check_layer("model", model)
    checks.check_array("x", x)
    if x.size == 0:
        raise ValueError(f"x: got shape {x.shape}, wanted at least one row")
    usage = {}

    def pass_layer(name: str, layer: Layer, x: Array) -> Array:
        try:
            if not isinstance(layer, Maxout):
                return layer(x)
            y, argmax = _winners(layer, x)
        except Exception as error:
            if name:
                add_place(error, name, layer)
            raise
        rows = argmax.reshape(-1, layer.out_features)
        usage[name] = np.stack([np.mean(rows == k, axis=0) for k in range(layer.pieces)], axis=-1)
        return y

    fold(model, x, pass_layer, joined)
    return usage


def linear_region(model: Layer, x: Array) -> tuple[Array, Array]:
    """The linear map that the network computes in the region of one sample.

        weight, bias = fastact.linear_region(model, x)
        model(x) ≈ weight @ x + bias              # and the same for every other input of that region

    The winners are those of the model's own forward.  Their weights are multiplied in float64.

    Args:
        model: piecewise-linear layers.
        x: (in_features,), one sample.

    Returns:
        weight (out_features, in_features), which is also the gradient of the outputs with respect to x,
        and bias (out_features,), rounded to the dtype of x.

    Raises:
        TypeError: model is not a Layer, or x is not an array or has the wrong dtype.
        ValueError: x is not one sample, its size does not fit, or a layer is not piecewise linear.
    """
    check_layer("model", model)
    _check_sample("x", x)
    model(x)  # raises the forward's errors where the sample does not fit
    with np.errstate(under="ignore"):
        start = _Affine(np.eye(x.size), np.zeros(x.size), x)
        weight, bias, _ = fold(model, start, _compose, _add_affine)
        return weight.astype(x.dtype), bias.astype(x.dtype)


class _Affine(NamedTuple):
    """The linear map from the sample to a layer's x in float64, and that x."""

    weight: Array
    bias: Array
    x: Array


def _compose(name: str, layer: Layer, before: _Affine) -> _Affine:
    """The map after the layer."""
    weight, bias, x = before
    if isinstance(layer, Maxout):
        y, argmax = _winners(layer, x)
        affine, shift = _affine(layer)
        units = np.arange(layer.out_features)
        affine, shift = affine[units, argmax], shift[units, argmax]
        return _Affine(affine @ weight, affine @ bias + shift, y)
    if isinstance(layer, Linear):
        x, _ = ops.linear_activation(x, *layer._arrays(), "identity", precision=layer._tier())
        affine, shift = _affine(layer)
        weight, bias = affine @ weight, affine @ bias + shift
    if (activation := _activation(name, layer)) is not None:
        kind, keywords = activation
        y = ops.activation(x, kind, **keywords)
        grads = ops.activation_backward(np.ones_like(x), x, kind, **keywords)
        slope = grads[0] if isinstance(grads, tuple) else grads
        weight, bias, x = slope[:, np.newaxis] * weight, slope * bias, y
    return _Affine(weight, bias, x)


def _add_affine(name: str, layer: Residual, before: _Affine, inside: _Affine) -> _Affine:
    weight, bias, x = before
    return _Affine(weight + inside.weight, bias + inside.bias, joined(name, layer, x, inside.x))


def region_boundaries(model: Layer, start: Array, end: Array) -> Array:
    """The points where the straight line from one sample to another passes from region to region.

        t = fastact.region_boundaries(model, a, b)
        len(t) + 1                                # the number of regions on the line
        a + t[0] * (b - a)                        # the first point on a boundary

    They are computed, not sampled, in float64.  Along the line the value of each layer is piecewise linear,
    and its kinks are found exactly, so that no region is missed.

    Args:
        model: piecewise-linear layers.
        start, end: (in_features,), two samples.

    Returns:
        t, float64, ascending, 0 < t < 1.  Boundaries closer together than 1e-12 count as one.

    Raises:
        TypeError: model is not a Layer, or a sample is not an array or has the wrong dtype.
        ValueError: start or end is not one sample, its size does not fit, or a layer is not piecewise linear.
    """
    check_layer("model", model)
    _check_sample("start", start)
    _check_sample("end", end)
    checks.check_array("end", end, start.dtype)
    checks.check_shape("end", end.shape, start.shape)
    model(start)  # as in `linear_region`
    with np.errstate(under="ignore"):
        values = np.stack([start, end]).astype(np.float64)
        return fold(model, _Line(np.array([0.0, 1.0]), values), _bend, _add_lines).t[1:-1]


class _Line(NamedTuple):
    """A layer's x along the line: points t, and the values (points, features) there, linear between them."""

    t: Array
    values: Array


def _bend(name: str, layer: Layer, line: _Line) -> _Line:
    """The line after the layer, with a point at each kink."""
    t, values = line
    if isinstance(layer, Maxout):
        affine, shift = _affine(layer)
        z = np.einsum("ni,jki->njk", values, affine, optimize=True) + shift
        t, z = _refine(t, z, _switches(t, z))
        return _Line(t, z.max(axis=-1))
    if isinstance(layer, Linear):
        affine, shift = _affine(layer)
        values = values @ affine.T + shift
    if (activation := _activation(name, layer)) is not None:
        kind, keywords = activation
        if "slope" in keywords:
            keywords = {"slope": keywords["slope"].astype(np.float64)}
        if kind != "identity":
            sides = np.stack([np.zeros_like(values), values], axis=-1)
            t, values = _refine(t, values, _switches(t, sides))
        values = ops.activation(values, kind, **keywords)
    return _Line(t, values)


def _add_lines(name: str, layer: Residual, line: _Line, inside: _Line) -> _Line:
    return _Line(inside.t, _at(*line, inside.t) + inside.values)


def _switches(t: Array, z: Array) -> Array:
    """The t, between the points given, at which another piece of a unit becomes the largest.

    z (points, units, pieces) is linear between the points.  The winner at the left end of an interval is
    followed by the piece that overtakes it first.  Each winner has a larger slope than the one before it, so
    pieces - 1 steps find all.
    """
    left, rise = z[:-1], np.diff(z, axis=0)  # (intervals, units, pieces)
    largest = left == left.max(axis=-1, keepdims=True)
    winner = np.where(largest, rise, -np.inf).argmax(axis=-1)[..., np.newaxis]  # of a tie, the steepest
    found = []
    for _ in range(z.shape[-1] - 1):
        gain = rise - np.take_along_axis(rise, winner, -1)
        gap = np.take_along_axis(left, winner, -1) - left
        where = np.divide(gap, gain, out=np.full_like(gap, np.inf), where=gain > 0)
        overtaker = where.argmin(axis=-1)[..., np.newaxis]
        fraction = np.take_along_axis(where, overtaker, -1)
        inside = fraction < 1
        interval, _, _ = np.nonzero(inside)
        found.append(t[interval] + fraction[inside] * np.diff(t)[interval])
        winner = np.where(inside, overtaker, winner)
    return np.concatenate(found) if found else np.empty(0)


def _refine(t: Array, values: Array, new: Array) -> tuple[Array, Array]:
    """t merged with the new points, and the values (points, ...) there by linear interpolation."""
    new = np.sort(new)
    new = new[np.diff(new, prepend=0) > _RESOLUTION]
    right = np.searchsorted(t, new)
    new = new[np.minimum(new - t[right - 1], t[right] - new) > _RESOLUTION]
    finer = np.sort(np.concatenate([t, new]))
    return finer, _at(t, values, finer)


def _at(t: Array, values: Array, finer: Array) -> Array:
    """The values (points, ...) at the points of `finer`, by linear interpolation."""
    right = np.clip(np.searchsorted(t, finer), 1, len(t) - 1)
    share = (finer - t[right - 1]) / (t[right] - t[right - 1])
    share = share.reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(values[right - 1] * (1 - share) + values[right] * share)


def _winners(layer: Maxout, x: Array) -> tuple[Array, Array]:
    return ops.linear_maxout(x, *layer._arrays(), precision=layer._tier())


def _affine(layer: Linear | Maxout) -> tuple[Array, Array]:
    """The weight and the bias in float64."""
    weight, bias = layer._arrays()
    shift = np.zeros(weight.shape[:-1]) if bias is None else bias.astype(np.float64)
    return weight.astype(np.float64), shift


def _activation(name: str, layer: Layer) -> tuple[ActivationName, Parameters] | None:
    """The element-wise part of a layer that is not a Maxout; None for a layer without one."""
    if isinstance(layer, Dropout):
        return None
    if isinstance(layer, PReLU):
        return "prelu", {"slope": array_of("slope", layer.slope)}
    if isinstance(layer, Linear) and (kind := canonical(layer.activation)) in _PIECEWISE_LINEAR:
        return kind, layer.keywords()
    if isinstance(layer, Activation) and (kind := canonical(layer.name)) in _PIECEWISE_LINEAR:
        return kind, layer.keywords
    raise ValueError(f"model: got {place_of(name, layer)}, wanted layers that are piecewise linear")


def _check_sample(name: str, x: Any) -> None:
    checks.check_array(name, x)
    if x.ndim != 1:
        raise ValueError(f"{name}: got shape {x.shape}, wanted one sample, (in_features,)")
