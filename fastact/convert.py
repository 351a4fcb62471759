"""Maxout weights converted between fastact's order of axes and those of other libraries.

| order         | used by                                      | weight             | bias            |
|---------------|----------------------------------------------|--------------------|-----------------|
| "thinc"       | Thinc's Maxout, and fastact itself           | (out, pieces, in)  | (out, pieces)   |
| "torch"       | PyTorch's Linear, then view(-1, out, pieces) | (out * pieces, in) | (out * pieces,) |
| "piece_major" | PyTorch's Linear, then view(-1, pieces, out) | (pieces * out, in) | (pieces * out,) |
| "keras"       | Keras 1 MaxoutDense                          | (pieces, in, out)  | (pieces, out)   |
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .checks import check_int, check_type, shown, unknown_name

Array = np.ndarray[Any, Any]


class _Order(NamedTuple):
    axes: str  # the weight's: o for out_features, p for pieces, i for in_features; a bias has them without i
    flat: bool = False  # whether the first two axes are merged into one


_FASTACT = "opi"
_ORDERS = {
    "thinc": _Order("opi"),
    "torch": _Order("opi", flat=True),
    "piece_major": _Order("poi", flat=True),
    "keras": _Order("pio"),
}
ORDERS = tuple(_ORDERS)


def _order(name: str) -> _Order:
    if not isinstance(name, str) or name not in _ORDERS:
        raise unknown_name("order", name, ORDERS)
    return _ORDERS[name]


def _check_ndim(name: str, value: Any, ndim: int) -> None:
    check_type(name, value)
    if value.ndim != ndim:
        raise ValueError(f"{name}: got shape {value.shape}, wanted {ndim} axes")


def _check_bias(bias: Array, shape: tuple[int, ...]) -> None:
    _check_ndim("bias", bias, len(shape))
    if bias.shape != shape:
        raise ValueError(f"bias: got shape {bias.shape}, wanted {shape} to match weight")


def _arranged(value: Array, axes: str, wanted: str) -> Array:
    """A C-contiguous copy of `value`, whose axes are `axes`, with the axes in the `wanted` order."""
    return np.array(value.transpose([axes.index(axis) for axis in wanted]), order="C")


def to_fastact(
    order: str, weight: Array, bias: Array | None = None, pieces: int | None = None
) -> tuple[Array, Array | None]:
    """The weight and bias of another library's maxout layer, in fastact's order.

    Args:
        order: a name of the table in `fastact.convert`.
        weight, bias: arrays in that order; the bias may be None.
        pieces: linear units per output.  A flat order ("torch", "piece_major") needs it; for the others it is
            optional, and has to match the weight.

    Returns:
        weight (out_features, pieces, in_features) and bias (out_features, pieces) or None, new arrays of
        the same dtype.

    Raises:
        TypeError: weight or bias is not an array, or pieces is not an int.
        ValueError: the order is unknown, shapes do not agree, or pieces does not divide the number of units.
    """
    axes, flat = _order(order)
    _check_ndim("weight", weight, 2 if flat else 3)
    if pieces is not None:
        pieces = check_int("pieces", pieces)
    if flat:
        units, in_features = weight.shape
        if pieces is None or pieces < 1 or units % pieces:
            raise ValueError(f"pieces: got {shown(pieces)}, wanted a divisor of the {units} units of weight")
        lengths = {"o": units // pieces, "p": pieces, "i": in_features}
        bias_shape: tuple[int, ...] = (units,)
    else:
        lengths = dict(zip(axes, weight.shape, strict=True))
        if pieces not in (None, lengths["p"]):
            raise ValueError(f"pieces: got {shown(pieces)}, wanted {lengths['p']} to match weight")
        bias_shape = tuple(lengths[axis] for axis in axes if axis != "i")
    if bias is not None:
        _check_bias(bias, bias_shape)
        bias_axes = axes.replace("i", "")
        bias = _arranged(bias.reshape([lengths[axis] for axis in bias_axes]), bias_axes, "op")
    return _arranged(weight.reshape([lengths[axis] for axis in axes]), axes, _FASTACT), bias


def from_fastact(order: str, weight: Array, bias: Array | None = None) -> tuple[Array, Array | None]:
    """The inverse of `to_fastact`: fastact's weight and bias in another library's order.

    Args:
        order: a name of the table in `fastact.convert`.
        weight: (out_features, pieces, in_features).
        bias: (out_features, pieces), or None.

    Returns:
        weight and bias, new arrays of the same dtype, with the shapes of the table.

    Raises:
        TypeError: weight or bias is not an array.
        ValueError: the order is unknown, or shapes do not agree.
    """
    axes, flat = _order(order)
    _check_ndim("weight", weight, 3)
    out_features, pieces, in_features = weight.shape
    if bias is not None:
        _check_bias(bias, (out_features, pieces))
        bias = _arranged(bias, "op", axes.replace("i", ""))
        bias = bias.reshape(-1) if flat else bias
    weight = _arranged(weight, _FASTACT, axes)
    return weight.reshape(out_features * pieces, in_features) if flat else weight, bias
