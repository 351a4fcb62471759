"""The functional API: checked NumPy arrays in, arrays out.

Everything a caller may get wrong is caught here, before anything is written; the backends see
only C-contiguous arrays of one dtype whose shapes agree.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from . import activations, backends, settings
from .activations import ARRAYS

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Needs = tuple[bool, ...]

MAX_PIECES = 256  # an argmax is one byte
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_UINT8 = np.dtype(np.uint8)
_empty = np.empty


# ---- checks


def _check_types(**values: Any) -> None:
    """Each of `values` is an array."""
    for name, value in values.items():
        if type(value) not in ARRAYS:
            raise TypeError(f"{name}: got {type(value).__name__}, wanted a numpy.ndarray")


def _check_dtype(name: str, got: np.dtype[Any], wanted: np.dtype[Any] | None = None) -> None:
    """An array's dtype is `wanted`, or a supported float type where that is None."""
    if wanted is None:
        if got not in _FLOATS:
            raise TypeError(f"{name}: got dtype {got}, wanted float32 or float64")
    elif got != wanted:
        raise TypeError(f"{name}: got dtype {got}, wanted {wanted}")


def _check_shape(name: str, got: Shape, wanted: Shape) -> None:
    if got != wanted:
        raise ValueError(f"{name}: got shape {got}, wanted {wanted}")


def _check_array(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> None:
    """`value` is an array of `dtype`, or of a supported float type where `dtype` is None."""
    if type(value) not in ARRAYS:
        _check_types(**{name: value})
    _check_dtype(name, value.dtype, dtype)


def _check_number(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name}: got {value!r}, wanted a number")
    return float(value)


def _contiguous(value: Array) -> Array:
    """`value` itself where a kernel can read it, else a C-contiguous, aligned copy."""
    flags = value.flags
    if flags.carray or (flags.c_contiguous and flags.aligned):  # `carray` is both, and writeable
        return value
    return np.array(value, order="C")


def _as_rows(value: Any) -> Any:
    """A C-contiguous `value` (..., features) as (rows, features), () as (1, 1); None as it is."""
    if value is None or value.ndim == 2:
        return value
    *rows, features = value.shape or (1,)
    return value.reshape(math.prod(rows), features)


def _rows(value: Array) -> Array:
    """`value` (..., features) as a C-contiguous (rows, features)."""
    rows: Array = _as_rows(_contiguous(value))
    return rows


def _operand(name: str, value: Any, dtype: np.dtype[Any], shape: Shape) -> Array:
    """`value`, which has to be of `dtype` and `shape`, as a kernel can read it."""
    if type(value) not in ARRAYS or value.dtype != dtype or value.shape != shape:
        _check_array(name, value, dtype)
        _check_shape(name, value.shape, shape)
    return _contiguous(value)


# A program has few different shapes, and passes each many times.
_once_each = functools.lru_cache(maxsize=1024)
_MAXOUT_WEIGHT = ("out_features", "pieces", "in_features")
_LINEAR_WEIGHT = ("out_features", "in_features")


@_once_each
def _forward_shape(
    sizes: tuple[str, ...],
    x: Shape,
    x_dtype: np.dtype[Any],
    weight: Shape,
    weight_dtype: np.dtype[Any],
    bias: Shape | None = None,
    bias_dtype: np.dtype[Any] | None = None,
) -> Shape:
    """x is (..., in_features), weight (sizes) and bias weight's but for in_features, of one dtype.

    Returns the shape of y.
    """
    _check_dtype("x", x_dtype)
    _check_dtype("weight", weight_dtype, x_dtype)
    if len(weight) != len(sizes):
        raise ValueError(f"weight: got shape {weight}, wanted ({', '.join(sizes)})")
    if not x or x[-1] != weight[-1]:
        raise ValueError(f"x: got shape {x}, wanted (..., {weight[-1]}) to match weight")
    if sizes is _MAXOUT_WEIGHT:
        _check_pieces(weight[1])
    if bias is not None and bias_dtype is not None:
        _check_dtype("bias", bias_dtype, x_dtype)
        _check_shape("bias", bias, weight[:-1])
    return (*x[:-1], weight[0])


def _check_forward(sizes: tuple[str, ...], x: Any, weight: Any, bias: Any) -> Shape:
    """`_forward_shape` of what have to be arrays, or no bias."""
    if type(x) not in ARRAYS or type(weight) not in ARRAYS:
        _check_types(x=x, weight=weight)
    if bias is None:
        return _forward_shape(sizes, x.shape, x.dtype, weight.shape, weight.dtype)
    if type(bias) not in ARRAYS:
        _check_types(bias=bias)
    return _forward_shape(sizes, x.shape, x.dtype, weight.shape, weight.dtype, bias.shape, bias.dtype)


@_once_each
def _check_backward_shapes(
    sizes: tuple[str, ...],
    x: Shape,
    x_dtype: np.dtype[Any],
    weight: Shape,
    weight_dtype: np.dtype[Any],
    grad_y: Shape,
    grad_y_dtype: np.dtype[Any],
    kept: Shape,
    kept_dtype: np.dtype[Any],
) -> None:
    """x and weight are as in the forward, grad_y and what that kept, argmax or saved, like y."""
    y = _forward_shape(sizes, x, x_dtype, weight, weight_dtype)
    _check_dtype("grad_y", grad_y_dtype, x_dtype)
    _check_shape("grad_y", grad_y, y)
    dtype = _UINT8 if sizes is _MAXOUT_WEIGHT else x_dtype
    _check_dtype(_kept(sizes), kept_dtype, dtype)
    _check_shape(_kept(sizes), kept, y)


def _kept(sizes: tuple[str, ...]) -> str:
    return "argmax" if sizes is _MAXOUT_WEIGHT else "saved"


def _check_backward(sizes: tuple[str, ...], grad_y: Any, x: Any, weight: Any, kept: Any) -> None:
    """`_check_backward_shapes` of what have to be arrays."""
    if (
        type(grad_y) not in ARRAYS
        or type(x) not in ARRAYS
        or type(weight) not in ARRAYS
        or type(kept) not in ARRAYS
    ):
        _check_types(grad_y=grad_y, x=x, weight=weight, **{_kept(sizes): kept})
    _check_backward_shapes(
        sizes,
        x.shape,
        x.dtype,
        weight.shape,
        weight.dtype,
        grad_y.shape,
        grad_y.dtype,
        kept.shape,
        kept.dtype,
    )


def _check_pieces(pieces: int) -> None:
    if not 1 <= pieces <= MAX_PIECES:
        raise ValueError(f"pieces: got {pieces}, wanted 1 to {MAX_PIECES}")


def _check_axis(axis: Any, ndim: int) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"axis: got {axis!r}, wanted an int")
    if ndim == 0:
        raise ValueError("axis: got an array without axes, wanted one of at least 1")
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis: got {axis}, wanted {-ndim} to {ndim - 1}")
    return int(axis) % ndim


def _check_needs(needs: Any, names: tuple[str, ...]) -> Needs:
    if not isinstance(needs, (tuple, list)) or len(needs) != len(names):
        raise ValueError(f"needs: got {needs!r}, wanted {len(names)} booleans for ({', '.join(names)})")
    for need in needs:
        if need is not True and need is not False and not isinstance(need, np.bool_):
            raise TypeError(f"needs: got {need!r}, wanted booleans for ({', '.join(names)})")
    return tuple(needs)


def _check_out(out: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if out is None:
        return (None,) * len(names)
    if len(names) == 1 and not isinstance(out, tuple):
        return (out,)
    if not isinstance(out, tuple):
        raise TypeError(f"out: got {type(out).__name__}, wanted a tuple ({', '.join(names)})")
    if len(out) != len(names):
        raise ValueError(f"out: got {len(out)} arrays, wanted {len(names)}: ({', '.join(names)})")
    return out


def _allocation(array: Array) -> int:
    """A number for the memory that `array` lies in, another one for other memory; 0 where it is unknown."""
    owner = array if array.base is None else array.base
    return id(owner) if type(owner) in ARRAYS and owner.flags.owndata else 0


def _same_memory(a: Array, b: Array) -> bool:
    return a is b or (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.shape == b.shape
        and a.strides == b.strides
    )


def _check_overlap(
    label: str, array: Array, inputs: Iterable[Array | None], in_place: Iterable[Array], earlier: list[Any]
) -> None:
    """`array` of `out` is apart from inputs and earlier arrays, and from what it may be, in part."""
    for other in inputs:
        if other is not None and _overlap(array, other):
            raise ValueError(f"{label}: got an array that overlaps an input, wanted one that does not")
    for other in in_place:
        if not _same_memory(array, other) and _overlap(array, other):
            raise ValueError(f"{label}: got an array that overlaps an input, wanted one that does not")
    for other in earlier:
        if other is not None and _overlap(array, other):
            raise ValueError(f"{label}: got an array that overlaps another of out, wanted separate ones")


def _overlap(a: Array, b: Array) -> bool:
    return np.may_share_memory(a, b) and np.shares_memory(a, b)


def _outputs(
    out: Any,
    names: tuple[str, ...],
    wanted: Needs,
    shapes: tuple[Shape, ...],
    dtypes: tuple[np.dtype[Any], ...],
    inputs: tuple[Array | None, ...],
    *,
    accumulate: bool = False,
    in_place: tuple[Array, ...] = (),
) -> list[Any]:
    """The C-contiguous arrays to write, one a result, None where a result is not wanted.

    They are the caller's own from `out`, new where it has None; a strided one of the caller's is stood in
    for by a copy, which `_deliver` writes back.  No array of `out` may overlap one of `inputs`; the first may
    be one of `in_place`, but not overlap it in part.
    """
    given = _check_out(out, names)
    # The memory of each, by which most arrays are known to be apart for less than NumPy's own answer costs.
    # What comes before the call of `_allocation` is its answer for most of them.
    taken = {
        id(other) if other.base is None and other.flags.owndata else _allocation(other)
        for other in (*inputs, *in_place)
        if other is not None
    }
    arrays: list[Any] = []
    for i, (array, want) in enumerate(zip(given, wanted, strict=True)):
        if not want:
            arrays.append(None)
        elif array is None:
            if accumulate and names[i] not in ("grad_x", "grad_z"):
                raise ValueError(f"accumulate: got True and no {_label(i, names)}, wanted an array to add to")
            arrays.append(_empty(shapes[i], dtypes[i]))
        else:
            if type(array) not in ARRAYS or array.dtype != dtypes[i] or array.shape != shapes[i]:
                _check_array(_label(i, names), array, dtypes[i])
                _check_shape(_label(i, names), array.shape, shapes[i])
            if not array.flags.writeable:
                raise ValueError(f"{_label(i, names)}: got a read-only array, wanted a writeable one")
            own = _allocation(array)
            if own in taken or 0 in taken or own == 0:
                apart, alike = (inputs, in_place) if i == 0 else ((*inputs, *in_place), ())
                earlier = [other for other, wanted_too in zip(given[:i], wanted, strict=False) if wanted_too]
                _check_overlap(_label(i, names), array, apart, alike, earlier)
            taken.add(own)
            arrays.append(_contiguous(array))
    return arrays


def _label(i: int, names: tuple[str, ...]) -> str:
    return f"out[{i}] ({names[i]})"


def _deliver(out: Any, arrays: list[Array | None]) -> tuple[Any, ...]:
    """The results as the caller sees them: strided arrays of `out` get their values here."""
    given = out if isinstance(out, tuple) else (out,)
    for i, array in enumerate(arrays):
        if given[i] is not array and given[i] is not None and array is not None:
            given[i][...] = array
            arrays[i] = given[i]
    return tuple(arrays)


# ---- linear + maxout


def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    out: tuple[Array | None, Array | None] | None = None,
    return_argmax: bool = True,
    backend: str | None = None,
    precision: str | None = None,
) -> tuple[Array, Array]:
    """Linear units in groups of `pieces`, and of each group the largest (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        x: (..., in_features), float32 or float64.
        weight: (out_features, pieces, in_features), the dtype of x; 1 to 256 pieces.
        bias: (out_features, pieces), the dtype of x, or None.
        out: arrays to write y and argmax to, either may be None; they must not overlap an input.
        return_argmax: False leaves argmax out, where no backward follows; None takes its place.
        backend: "c", "numba" or "numpy" for this call only.
        precision: the float32 precision tier for this call only; see `set_float32_matmul_precision`.

    Returns:
        y (..., out_features), the dtype of x, and argmax, uint8 of the same shape: the index of the
        winning piece, the lowest one of a tie and the first NaN if there is one.

    Raises:
        TypeError: an argument is no array, or of another dtype.
        ValueError: shapes do not agree, or pieces is not in 1 to 256.
    """
    run = backends.get(backend)
    shape = _check_forward(_MAXOUT_WEIGHT, x, weight, bias)
    dtype = x.dtype
    tier = settings.precision_in_force(precision)
    if out is None:
        y, argmax = _empty(shape, dtype), _empty(shape, _UINT8) if return_argmax else None
    else:
        names, wanted = ("y", "argmax"), (True, return_argmax)
        arrays = _outputs(out, names, wanted, (shape, shape), (dtype, _UINT8), (x, weight, bias))
        y, argmax = arrays
    rows, y_rows, winners = _contiguous(x), y, argmax
    if len(shape) != 2:
        rows, y_rows, winners = _as_rows(rows), _as_rows(y), _as_rows(argmax)
    run.linear_maxout(
        rows,
        _contiguous(weight),
        None if bias is None else _contiguous(bias),
        y_rows,
        winners,
        settings.requested_threads(),
        tier,
    )
    return (y, argmax) if out is None else _deliver(out, arrays)


_GRADS = ("grad_x", "grad_weight", "grad_bias")
_ALL = (True, True, True)


def linear_maxout_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    argmax: Array,
    *,
    needs: Needs = _ALL,
    out: tuple[Array | None, ...] | None = None,
    accumulate: bool = False,
    backend: str | None = None,
    precision: str | None = None,
) -> tuple[Any, Any, Any]:
    """The gradients of `linear_maxout`: only the winners get one, and only they cost anything.

        grad_x[n]         = sum over j of                    grad_y[n, j] * weight[j, argmax[n, j]]
        grad_weight[j, k] = sum over n with argmax[n, j] = k of  grad_y[n, j] * x[n]
        grad_bias[j, k]   = sum over n with argmax[n, j] = k of  grad_y[n, j]

    Args:
        grad_y: (..., out_features), the gradient of the loss with respect to y.
        x, weight: as the forward took them.
        argmax: as the forward returned it, uint8 (..., out_features).
        needs: which of (grad_x, grad_weight, grad_bias) to compute; the others come back as None.
        out: arrays to write the three to, each may be None; they must not overlap an input.
        accumulate: add the finished sums to the arrays of `out` for grad_weight and grad_bias
            (never for grad_x).
        backend, precision: as for `linear_maxout`; give the precision of the forward.

    Returns:
        grad_x (..., in_features), grad_weight (out_features, pieces, in_features) and
        grad_bias (out_features, pieces), in the dtype of x.

    Raises:
        TypeError: an argument is no array, or of another dtype.
        ValueError: shapes do not agree, or a value of argmax is not below pieces.
    """
    run = backends.get(backend)
    _check_backward(_MAXOUT_WEIGHT, grad_y, x, weight, argmax)
    dtype = x.dtype
    wanted = needs if needs is _ALL else _check_needs(needs, _GRADS)
    tier = settings.precision_in_force(precision)
    if out is None and not accumulate:
        grad_x = _empty(x.shape, dtype) if wanted[0] else None
        grad_weight = _empty(weight.shape, dtype) if wanted[1] else None
        grad_bias = _empty(weight.shape[:2], dtype) if wanted[2] else None
    else:
        arrays = _outputs(
            out,
            _GRADS,
            wanted,
            (x.shape, weight.shape, weight.shape[:2]),
            (dtype, dtype, dtype),
            (grad_y, x, weight, argmax),
            accumulate=accumulate,
        )
        grad_x, grad_weight, grad_bias = arrays
    grad_rows, rows, winners, grad_x_rows = _contiguous(grad_y), _contiguous(x), _contiguous(argmax), grad_x
    if x.ndim != 2:
        grad_rows, rows, winners = _as_rows(grad_rows), _as_rows(rows), _as_rows(winners)
        grad_x_rows = _as_rows(grad_x)
    run.linear_maxout_backward(
        grad_rows,
        rows,
        _contiguous(weight),
        winners,  # the backend checks its values
        grad_x_rows,
        grad_weight,
        grad_bias,
        accumulate,
        settings.requested_threads(),
        tier,
    )
    return (grad_x, grad_weight, grad_bias) if out is None else _deliver(out, arrays)


# ---- bare maxout


def maxout(
    z: Array,
    axis: int = -1,
    *,
    out: tuple[Array | None, Array | None] | None = None,
    return_argmax: bool = True,
    backend: str | None = None,
) -> tuple[Any, Any]:
    """The largest value along `axis`, and its index.

    Args:
        z: float32 or float64; 1 to 256 pieces along `axis`.
        axis: the axis of the pieces.
        out: arrays to write y and argmax to, either may be None.
        return_argmax: False leaves argmax out; None takes its place.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        y and argmax (uint8), of z's shape without `axis`.  The lowest index of a tie wins, and the
        first NaN if there is one, as in `np.max` and `np.argmax`.

    Raises:
        TypeError: z is no array, or of another dtype.  ValueError: a bad axis or number of pieces.
    """
    run = backends.get(backend)
    _check_array("z", z)
    axis = _check_axis(axis, z.ndim)
    _check_pieces(z.shape[axis])
    shape = z.shape[:axis] + z.shape[axis + 1 :]
    if out is None:
        y, argmax = _empty(shape, z.dtype), _empty(shape, _UINT8) if return_argmax else None
    else:
        names, wanted = ("y", "argmax"), (True, return_argmax)
        arrays = _outputs(out, names, wanted, (shape, shape), (z.dtype, _UINT8), (z,))
        y, argmax = arrays
    blocks = _blocks(_contiguous(z), axis)
    flat = (blocks.shape[0], blocks.shape[2])
    run.maxout(
        blocks,
        y.reshape(flat),
        None if argmax is None else argmax.reshape(flat),
        settings.requested_threads(),
    )
    return (y, argmax) if out is None else _deliver(out, arrays)


def _blocks(z: Array, axis: int) -> Array:
    """A C-contiguous z as (outer, pieces, inner)."""
    return z.reshape(math.prod(z.shape[:axis]), z.shape[axis], math.prod(z.shape[axis + 1 :]))


def maxout_backward(
    grad_y: Array,
    argmax: Array,
    pieces: int,
    axis: int = -1,
    *,
    out: Array | tuple[Array | None] | None = None,
    backend: str | None = None,
) -> Any:
    """The gradient of `maxout`: grad_y at each winner, 0 elsewhere.

    Args:
        grad_y: float32 or float64, the shape of y.
        argmax: as the forward returned it, uint8, the shape of y.
        pieces: the length of the axis that the maximum was taken over, 1 to 256.
        axis: where that axis is in grad_z.
        out: an array to write grad_z to.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        grad_z: grad_y's shape with an axis of `pieces` at `axis`.

    Raises:
        TypeError: an argument is no array, or of another dtype.
        ValueError: shapes do not agree, or a value of argmax is not below pieces.
    """
    run = backends.get(backend)
    _check_array("grad_y", grad_y)
    if isinstance(pieces, bool) or not isinstance(pieces, int | np.integer):
        raise TypeError(f"pieces: got {pieces!r}, wanted an int")
    pieces = int(pieces)
    _check_pieces(pieces)
    winners = _operand("argmax", argmax, _UINT8, grad_y.shape)  # the backend checks its values
    axis = _check_axis(axis, grad_y.ndim + 1)
    shape = (*grad_y.shape[:axis], pieces, *grad_y.shape[axis:])
    if out is None:
        grad_z = _empty(shape, grad_y.dtype)
    else:
        arrays = _outputs(out, ("grad_z",), (True,), (shape,), (grad_y.dtype,), (grad_y, argmax))
        (grad_z,) = arrays
    blocks = _blocks(grad_z, axis)
    flat = (blocks.shape[0], blocks.shape[2])
    run.maxout_backward(
        _contiguous(grad_y).reshape(flat),
        winners.reshape(flat),
        blocks,
        settings.requested_threads(),
    )
    return grad_z if out is None else _deliver(out, arrays)[0]


# ---- linear + activation


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    activation: str = "relu",
    *,
    out: tuple[Array | None, Array | None] | None = None,
    return_saved: bool = True,
    backend: str | None = None,
    precision: str | None = None,
    **parameters: Any,
) -> tuple[Any, Any]:
    """A linear layer and its activation in one pass: y = activation(x @ weight.T + bias).

    Args:
        x: (..., in_features), float32 or float64.
        weight: (out_features, in_features), the dtype of x.
        bias: (out_features,), the dtype of x, or None.
        activation: a name of the table in `fastact.activations`.
        out: arrays to write y and saved to, either may be None; where the activation saves y, the
            second has to be None or the first again.
        return_saved: False leaves saved out, where no backward follows; None takes its place.
        backend, precision: as for `linear_maxout`.
        **parameters: the activation's own keywords.

    Returns:
        y (..., out_features), and `saved`, what the backward needs: y itself or the
        pre-activation z, as the table says.

    Raises:
        TypeError: an argument is no array, or of another dtype, or a keyword is unknown.
        ValueError: shapes do not agree, or the activation is unknown.
    """
    run = backends.get(backend)
    shape = _check_forward(_LINEAR_WEIGHT, x, weight, bias)
    dtype = x.dtype
    act = activations.resolve(activation, shape[-1], dtype, parameters)
    tier = settings.precision_in_force(precision)
    saves_z = act.saves == "z"
    if out is None:
        y, z = _empty(shape, dtype), _empty(shape, dtype) if saves_z and return_saved else None
    else:
        names, wanted = ("y", "saved"), (True, saves_z and return_saved)
        if not saves_z:
            given = _check_out(out, names)
            if given[1] is not None and given[1] is not given[0]:
                raise ValueError(f"out[1] (saved): {activation} saves y, wanted None or out[0]")
            out = (given[0], None)
        inputs = (x, weight, bias, parameters.get("slope"))
        arrays = _outputs(out, names, wanted, (shape, shape), (dtype, dtype), inputs)
        y, z = arrays
    run.linear_activation(
        _rows(x),
        _contiguous(weight),
        None if bias is None else _contiguous(bias),
        act,
        _as_rows(y),
        _as_rows(z),
        settings.requested_threads(),
        tier,
    )
    if out is not None:
        y, z = _deliver(out, arrays)
    if not return_saved:
        return y, None
    return y, (z if saves_z else y)


def linear_activation_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    saved: Array,
    activation: str = "relu",
    *,
    needs: Needs | None = None,
    out: tuple[Array | None, ...] | None = None,
    accumulate: bool = False,
    backend: str | None = None,
    precision: str | None = None,
    **parameters: Any,
) -> tuple[Any, ...]:
    """The gradients of `linear_activation`.

    Args:
        grad_y: (..., out_features), the gradient of the loss with respect to y.
        x, weight, activation, **parameters: as the forward took them.
        saved: as the forward returned it.
        needs: which of (grad_x, grad_weight, grad_bias) to compute, for "prelu" also grad_slope; all,
            unless said otherwise.  The others come back as None.
        out: arrays to write them to, each may be None; they must not overlap an input.
        accumulate: add the finished sums to the arrays of `out`, grad_x excepted.
        backend, precision: as for `linear_maxout`; give the precision of the forward.

    Returns:
        grad_x (..., in_features), grad_weight (out_features, in_features), grad_bias
        (out_features,), and for "prelu" grad_slope, of the slope's shape.

    Raises:
        TypeError: an argument is no array, or of another dtype, or a keyword is unknown.
        ValueError: shapes do not agree, or the activation is unknown.
    """
    run = backends.get(backend)
    _check_backward(_LINEAR_WEIGHT, grad_y, x, weight, saved)
    dtype = x.dtype
    act = activations.resolve(activation, len(weight), dtype, parameters)
    names, shapes = _GRADS, (x.shape, weight.shape, weight.shape[:1])
    if act.slope is not None:
        names, shapes = (*names, "grad_slope"), (*shapes, parameters["slope"].shape)  # type: ignore[assignment]
    wanted = (True,) * len(names) if needs is None else _check_needs(needs, names)
    tier = settings.precision_in_force(precision)
    grads: Any
    if out is None and not accumulate:
        grads = [_empty(shape, dtype) if want else None for want, shape in zip(wanted, shapes, strict=True)]
    else:
        inputs = (grad_y, x, weight, saved, parameters.get("slope"))
        grads = _outputs(out, names, wanted, shapes, (dtype,) * len(names), inputs, accumulate=accumulate)
    grad_x, grad_weight, grad_bias = grads[:3]
    grad_slope = grads[3] if act.slope is not None else None
    run.linear_activation_backward(
        _rows(grad_y),
        _rows(x),
        _contiguous(weight),
        _rows(saved),
        act,
        _as_rows(grad_x),
        grad_weight,
        grad_bias,
        None if grad_slope is None else grad_slope.reshape(-1),
        accumulate,
        settings.requested_threads(),
        tier,
    )
    return tuple(grads) if out is None else _deliver(out, grads)


# ---- element-wise activations


def activation(
    z: Array,
    activation: str,
    *,
    out: Array | tuple[Array | None] | None = None,
    backend: str | None = None,
    **parameters: Any,
) -> Any:
    """y = activation(z), element by element.

    Args:
        z: float32 or float64, any shape; a PReLU slope per feature runs along its last axis.
        activation: a name of the table in `fastact.activations`.
        out: an array to write y to; it may be z itself.
        backend: "c", "numba" or "numpy" for this call only.
        **parameters: the activation's own keywords.

    Returns:
        y, of z's shape and dtype.

    Raises:
        TypeError: z is no array, or of another dtype, or a keyword is unknown.
        ValueError: the activation is unknown or a parameter's value is bad.
    """
    run = backends.get(backend)
    _check_array("z", z)
    features = z.shape[-1] if z.ndim else 1
    act = activations.resolve(activation, features, z.dtype, parameters)
    if out is None:
        y = _empty(z.shape, z.dtype)
    else:
        slope = parameters.get("slope")
        arrays = _outputs(out, ("y",), (True,), (z.shape,), (z.dtype,), (slope,), in_place=(z,))
        (y,) = arrays
    operand, result = _contiguous(z), y
    if act.slope is not None:
        operand, result = _as_rows(operand), _as_rows(y)
    run.activation(operand, act, result, settings.requested_threads())
    return y if out is None else _deliver(out, arrays)[0]


def activation_backward(
    grad_y: Array,
    saved: Array,
    activation: str,
    *,
    out: Any = None,
    accumulate: bool = False,
    backend: str | None = None,
    **parameters: Any,
) -> Any:
    """The gradient of `activation`: grad_z = grad_y * dy/dz.

    Args:
        grad_y: float32 or float64, the gradient of the loss with respect to y.
        saved: y or z, as the table in `fastact.activations` says, of grad_y's shape and dtype.
        activation, **parameters: as the forward took them.
        out: an array to write grad_z to, which may be grad_y or saved; for "prelu" a tuple (grad_z,
            grad_slope).
        accumulate: add grad_slope to its array of `out`.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        grad_z, of grad_y's shape and dtype; for "prelu" (grad_z, grad_slope).

    Raises:
        TypeError: an argument is no array, or of another dtype, or a keyword is unknown.
        ValueError: shapes do not agree, the activation is unknown or a parameter's value is bad.
    """
    run = backends.get(backend)
    _check_array("grad_y", grad_y)
    dtype = grad_y.dtype
    features = grad_y.shape[-1] if grad_y.ndim else 1
    kept = _operand("saved", saved, dtype, grad_y.shape)
    act = activations.resolve(activation, features, dtype, parameters)
    names, shapes = ("grad_z",), (grad_y.shape,)
    if act.slope is not None:
        names, shapes = ("grad_z", "grad_slope"), (grad_y.shape, parameters["slope"].shape)  # type: ignore[assignment]
    results: Any
    if out is None and act.slope is None:
        results = (_empty(grad_y.shape, dtype),)
    else:
        results = _outputs(
            out,
            names,
            (True,) * len(names),
            shapes,
            (dtype,) * len(names),
            (parameters.get("slope"),),
            accumulate=accumulate,
            in_place=(grad_y, saved),
        )
    grad, grad_z, grad_slope = _contiguous(grad_y), results[0], None
    if act.slope is not None:
        grad, kept, grad_z = _as_rows(grad), _as_rows(kept), _as_rows(grad_z)
        grad_slope = results[1].reshape(-1)
    run.activation_backward(
        grad,
        kept,
        act,
        grad_z,
        grad_slope,
        accumulate,
        settings.requested_threads(),
    )
    if out is not None:
        results = _deliver(out, results)
    return tuple(results) if act.slope is not None else results[0]
