"""The functional API: checked NumPy arrays in, arrays out.

Everything a caller may get wrong is caught here, before anything is written; the backends see
only C-contiguous arrays of one dtype whose shapes agree.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import activations, backends, settings

Array = np.ndarray[Any, Any]
Needs = tuple[bool, ...]

MAX_PIECES = 256  # an argmax is one byte
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_UINT8 = np.dtype(np.uint8)


# ---- checks


def _check_array(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> None:
    """`value` is an array of `dtype`, or of a supported float type where `dtype` is None."""
    if type(value) not in activations.ARRAYS:
        raise TypeError(f"{name}: got {type(value).__name__}, wanted a numpy.ndarray")
    if dtype is None:
        if value.dtype not in _FLOATS:
            raise TypeError(f"{name}: got dtype {value.dtype}, wanted float32 or float64")
    elif value.dtype != dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted {dtype}")


def _check_shape(name: str, value: Array, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"{name}: got shape {value.shape}, wanted {shape}")


def _check_weight(weight: Any, dtype: np.dtype[Any], dims: str) -> None:
    _check_array("weight", weight, dtype)
    if weight.ndim != dims.count(",") + 1:
        raise ValueError(f"weight: got shape {weight.shape}, wanted ({dims})")


def _check_x(x: Array, in_features: int) -> None:
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ValueError(f"x: got shape {x.shape}, wanted (..., {in_features}) to match weight")


def _check_pieces(pieces: int) -> None:
    if not 1 <= pieces <= MAX_PIECES:
        raise ValueError(f"pieces: got {pieces}, wanted 1 to {MAX_PIECES}")


def _check_argmax(argmax: Any, shape: tuple[int, ...], pieces: int) -> None:
    _check_array("argmax", argmax, _UINT8)
    _check_shape("argmax", argmax, shape)
    if pieces < MAX_PIECES and argmax.size and (largest := int(argmax.max())) >= pieces:
        raise ValueError(f"argmax: got the value {largest}, wanted 0 to {pieces - 1}")


def _check_axis(axis: Any, ndim: int) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"axis: got {axis!r}, wanted an int")
    if ndim == 0:
        raise ValueError("axis: got an array without axes, wanted one of at least 1")
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis: got {axis}, wanted {-ndim} to {ndim - 1}")
    return int(axis) % ndim


def _contiguous(value: Array) -> Array:
    """`value` itself where a kernel can read it, else a C-contiguous, aligned copy."""
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else np.array(value, order="C")


def _rows(value: Array, features: int) -> Array:
    """`value` (..., features) as a C-contiguous (rows, features)."""
    if value.ndim != 2:
        value = value.reshape(math.prod(value.shape[:-1]), features)
    return _contiguous(value)


def _check_needs(needs: Any, names: tuple[str, ...]) -> Needs:
    if not isinstance(needs, tuple | list) or len(needs) != len(names):
        raise ValueError(f"needs: got {needs!r}, wanted {len(names)} booleans for ({', '.join(names)})")
    for need in needs:
        if not isinstance(need, bool | np.bool_):
            raise TypeError(f"needs: got {need!r}, wanted booleans for ({', '.join(names)})")
    return tuple(bool(need) for need in needs)


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


def _overlap(a: Array, b: Array) -> bool:
    return np.may_share_memory(a, b) and np.shares_memory(a, b)


def _same_memory(a: Array, b: Array) -> bool:
    return (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.shape == b.shape
        and a.strides == b.strides
    )


def _outputs(
    out: Any,
    names: tuple[str, ...],
    wanted: Needs,
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[np.dtype[Any], ...],
    inputs: tuple[Array | None, ...],
    *,
    accumulate: bool = False,
    in_place: tuple[Array, ...] = (),
) -> list[Array | None]:
    """The C-contiguous arrays to write, one a result, None where a result is not wanted.

    They are new, or the caller's own from `out`; a strided one of the caller's is stood in for by
    a copy, which `_deliver` writes back.  All are checked before the first is made.  No array of
    `out` may overlap one of `inputs`; the first may be one of `in_place`, but not overlap it in part.
    """
    if out is None and not accumulate:
        return [
            np.empty(shape, dtype) if want else None
            for want, shape, dtype in zip(wanted, shapes, dtypes, strict=True)
        ]
    given = _check_out(out, names)
    earlier: list[Array] = []
    for i, (name, array) in enumerate(zip(names, given, strict=True)):
        if not wanted[i]:
            continue
        label = f"out[{i}] ({name})"
        if array is None:
            if accumulate and name not in ("grad_x", "grad_z"):
                raise ValueError(f"accumulate: got True and no {label}, wanted an array to add to")
            continue
        _check_array(label, array, dtypes[i])
        _check_shape(label, array, shapes[i])
        if not array.flags.writeable:
            raise ValueError(f"{label}: got a read-only array, wanted a writeable one")
        forbidden = [other for other in in_place if i > 0 or not _same_memory(array, other)]
        if any(other is not None and _overlap(array, other) for other in (*inputs, *forbidden)):
            raise ValueError(f"{label}: got an array that overlaps an input, wanted one that does not")
        if any(_overlap(array, other) for other in earlier):
            raise ValueError(f"{label}: got an array that overlaps another of out, wanted separate ones")
        earlier.append(array)
    arrays: list[Array | None] = []
    for i, array in enumerate(given):
        if not wanted[i]:
            arrays.append(None)
        elif array is None:
            arrays.append(np.empty(shapes[i], dtypes[i]))
        else:
            arrays.append(_contiguous(array))
    return arrays


def _deliver(out: Any, arrays: list[Array | None]) -> tuple[Any, ...]:
    """The results as the caller sees them: strided arrays of `out` get their values here."""
    if out is None:
        return tuple(arrays)
    results: list[Array | None] = []
    for given, array in zip(out if isinstance(out, tuple) else (out,), arrays, strict=True):
        if given is None or array is None or given is array:
            results.append(array)
        else:
            given[...] = array
            results.append(given)
    return tuple(results)


def _tier(precision: str | None) -> str:
    return (
        settings.get_float32_matmul_precision() if precision is None else settings.check_precision(precision)
    )


def _backend(name: str | None) -> Any:
    return backends.active() if name is None else backends.get(name)


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
        precision: the float32 precision tier for this call only.

    Returns:
        y (..., out_features), the dtype of x, and argmax, uint8 of the same shape: the index of the
        winning piece, the lowest one of a tie and the first NaN if there is one.

    Raises:
        TypeError: an argument is no array, or of another dtype.
        ValueError: shapes do not agree, or pieces is not in 1 to 256.
    """
    run = _backend(backend)
    _check_array("x", x)
    dtype = x.dtype
    _check_weight(weight, dtype, "out_features, pieces, in_features")
    out_features, pieces, in_features = weight.shape
    _check_pieces(pieces)
    _check_x(x, in_features)
    if bias is not None:
        _check_array("bias", bias, dtype)
        _check_shape("bias", bias, (out_features, pieces))
    tier = _tier(precision)
    shape = (*x.shape[:-1], out_features)
    arrays = _outputs(
        out,
        ("y", "argmax"),
        (True, return_argmax),
        (shape, shape),
        (dtype, _UINT8),
        (x, weight, bias),
    )
    y, argmax = arrays
    run.linear_maxout(
        _rows(x, in_features),
        _contiguous(weight),
        None if bias is None else _contiguous(bias),
        _rows(y, out_features),  # type: ignore[arg-type]
        None if argmax is None else _rows(argmax, out_features),
        settings.requested_threads(),
        tier,
    )
    return _deliver(out, arrays)


_GRADS = ("grad_x", "grad_weight", "grad_bias")


def linear_maxout_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    argmax: Array,
    *,
    needs: Needs = (True, True, True),
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
    run = _backend(backend)
    _check_array("x", x)
    dtype = x.dtype
    _check_weight(weight, dtype, "out_features, pieces, in_features")
    out_features, pieces, in_features = weight.shape
    _check_pieces(pieces)
    _check_x(x, in_features)
    shape = (*x.shape[:-1], out_features)
    _check_array("grad_y", grad_y, dtype)
    _check_shape("grad_y", grad_y, shape)
    _check_argmax(argmax, shape, pieces)
    wanted = _check_needs(needs, _GRADS)
    tier = _tier(precision)
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
    run.linear_maxout_backward(
        _rows(grad_y, out_features),
        _rows(x, in_features),
        _contiguous(weight),
        _rows(argmax, out_features),
        None if grad_x is None else _rows(grad_x, in_features),
        grad_weight,
        grad_bias,
        accumulate,
        settings.requested_threads(),
        tier,
    )
    return _deliver(out, arrays)


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
    run = _backend(backend)
    _check_array("z", z)
    axis = _check_axis(axis, z.ndim)
    _check_pieces(z.shape[axis])
    shape = z.shape[:axis] + z.shape[axis + 1 :]
    arrays = _outputs(out, ("y", "argmax"), (True, return_argmax), (shape, shape), (z.dtype, _UINT8), (z,))
    y, argmax = arrays
    blocks = _blocks(_contiguous(z), axis)
    flat = (blocks.shape[0], blocks.shape[2])
    run.maxout(
        blocks,
        y.reshape(flat),  # type: ignore[union-attr]
        None if argmax is None else argmax.reshape(flat),
        settings.requested_threads(),
    )
    return _deliver(out, arrays)


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
    run = _backend(backend)
    _check_array("grad_y", grad_y)
    if isinstance(pieces, bool) or not isinstance(pieces, int | np.integer):
        raise TypeError(f"pieces: got {pieces!r}, wanted an int")
    pieces = int(pieces)
    _check_pieces(pieces)
    _check_argmax(argmax, grad_y.shape, pieces)
    axis = _check_axis(axis, grad_y.ndim + 1)
    shape = (*grad_y.shape[:axis], pieces, *grad_y.shape[axis:])
    arrays = _outputs(out, ("grad_z",), (True,), (shape,), (grad_y.dtype,), (grad_y, argmax))
    blocks = _blocks(arrays[0], axis)  # type: ignore[arg-type]
    flat = (blocks.shape[0], blocks.shape[2])
    run.maxout_backward(
        _contiguous(grad_y).reshape(flat),
        _contiguous(argmax).reshape(flat),
        blocks,
        settings.requested_threads(),
    )
    return _deliver(out, arrays)[0]


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
    run = _backend(backend)
    _check_array("x", x)
    dtype = x.dtype
    _check_weight(weight, dtype, "out_features, in_features")
    out_features, in_features = weight.shape
    _check_x(x, in_features)
    if bias is not None:
        _check_array("bias", bias, dtype)
        _check_shape("bias", bias, (out_features,))
    act = activations.resolve(activation, out_features, dtype, parameters)
    tier = _tier(precision)
    saves_z = act.saves == "z"
    if out is not None and not saves_z:
        given = _check_out(out, ("y", "saved"))
        if given[1] is not None and given[1] is not given[0]:
            raise ValueError(f"out[1] (saved): {activation} saves y, wanted None or out[0]")
        out = (given[0], None)
    shape = (*x.shape[:-1], out_features)
    arrays = _outputs(
        out,
        ("y", "saved"),
        (True, saves_z and return_saved),
        (shape, shape),
        (dtype, dtype),
        (x, weight, bias, parameters.get("slope")),
    )
    y, z = arrays
    run.linear_activation(
        _rows(x, in_features),
        _contiguous(weight),
        None if bias is None else _contiguous(bias),
        act,
        _rows(y, out_features),  # type: ignore[arg-type]
        None if z is None else _rows(z, out_features),
        settings.requested_threads(),
        tier,
    )
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
    run = _backend(backend)
    _check_array("x", x)
    dtype = x.dtype
    _check_weight(weight, dtype, "out_features, in_features")
    out_features, in_features = weight.shape
    _check_x(x, in_features)
    act = activations.resolve(activation, out_features, dtype, parameters)
    shape = (*x.shape[:-1], out_features)
    for name, array in (("grad_y", grad_y), ("saved", saved)):
        _check_array(name, array, dtype)
        _check_shape(name, array, shape)
    names, shapes = _GRADS, (x.shape, weight.shape, weight.shape[:1])
    if act.slope is not None:
        names, shapes = (*names, "grad_slope"), (*shapes, parameters["slope"].shape)  # type: ignore[assignment]
    wanted = (True,) * len(names) if needs is None else _check_needs(needs, names)
    tier = _tier(precision)
    arrays = _outputs(
        out,
        names,
        wanted,
        shapes,
        (dtype,) * len(names),
        (grad_y, x, weight, saved, parameters.get("slope")),
        accumulate=accumulate,
    )
    grad_x, grad_weight, grad_bias = arrays[:3]
    grad_slope = arrays[3] if act.slope is not None else None
    run.linear_activation_backward(
        _rows(grad_y, out_features),
        _rows(x, in_features),
        _contiguous(weight),
        _rows(saved, out_features),
        act,
        None if grad_x is None else _rows(grad_x, in_features),
        grad_weight,
        grad_bias,
        None if grad_slope is None else grad_slope.reshape(-1),
        accumulate,
        settings.requested_threads(),
        tier,
    )
    return _deliver(out, arrays)


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
    run = _backend(backend)
    _check_array("z", z)
    features = z.shape[-1] if z.ndim else 1
    act = activations.resolve(activation, features, z.dtype, parameters)
    arrays = _outputs(out, ("y",), (True,), (z.shape,), (z.dtype,), (parameters.get("slope"),), in_place=(z,))
    y = arrays[0]
    run.activation(_rows(z, features), act, _rows(y, features), settings.requested_threads())  # type: ignore[arg-type]
    return _deliver(out, arrays)[0]


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
    run = _backend(backend)
    _check_array("grad_y", grad_y)
    dtype = grad_y.dtype
    _check_array("saved", saved, dtype)
    _check_shape("saved", saved, grad_y.shape)
    features = grad_y.shape[-1] if grad_y.ndim else 1
    act = activations.resolve(activation, features, dtype, parameters)
    names, shapes = ("grad_z",), (grad_y.shape,)
    if act.slope is not None:
        names, shapes = ("grad_z", "grad_slope"), (grad_y.shape, parameters["slope"].shape)  # type: ignore[assignment]
    arrays = _outputs(
        out,
        names,
        (True,) * len(names),
        shapes,
        (dtype,) * len(names),
        (parameters.get("slope"),),
        accumulate=accumulate,
        in_place=(grad_y, saved),
    )
    grad_slope = arrays[1] if act.slope is not None else None
    run.activation_backward(
        _rows(grad_y, features),
        _rows(saved, features),
        act,
        _rows(arrays[0], features),  # type: ignore[arg-type]
        None if grad_slope is None else grad_slope.reshape(-1),
        accumulate,
        settings.requested_threads(),
    )
    results = _deliver(out, arrays)
    return results if act.slope is not None else results[0]
