"""The C backend: the functions of `reference.py` over the extension `fastact._native`.

Nothing else imports the extension.  cffi releases the GIL while a kernel runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._native import ffi, lib  # type: ignore[import-not-found]
from .activations import Activation
from .reference import argmax_error

Array = np.ndarray[Any, Any]

_FLOAT, _DOUBLE, _BYTE = ffi.typeof("float[]"), ffi.typeof("double[]"), ffi.typeof("uint8_t[]")
_TYPE = {"f": _FLOAT, "d": _DOUBLE, "B": _BYTE}
_PRECISION = {"highest": lib.FA_HIGHEST, "high": lib.FA_HIGH, "medium": lib.FA_MEDIUM}
_from_buffer = ffi.from_buffer
_NULL, _VOID, _cast = ffi.NULL, ffi.typeof("void *"), ffi.cast


def _pointer(array: Array | None) -> Any:
    return _NULL if array is None else _from_buffer(_TYPE[array.dtype.char], array)


def _check(status: int, argmax: Array | None = None, pieces: int = 0) -> None:
    """Raise what a driver's status other than FA_OK says."""
    if status:
        if status == lib.FA_BAD_ARGMAX and argmax is not None:
            raise argmax_error(argmax, pieces)
        raise MemoryError("fastact: no memory for packed operands")


# ---- the instruction set


def isa() -> str:
    """The instruction set in force."""
    return str(ffi.string(lib.fa_isa()).decode())


def isas() -> tuple[str, ...]:
    """Every instruction set that this build has kernels for, best first."""
    return tuple(ffi.string(lib.fa_isa_name(i)).decode() for i in range(lib.fa_isa_count()))


def supported_isas() -> tuple[str, ...]:
    """Those that this CPU runs."""
    return tuple(name for i, name in enumerate(isas()) if lib.fa_isa_supported(i))


def set_isa(name: str) -> None:
    """Force an instruction set for the whole process; ValueError for one that is unknown or unsupported."""
    if lib.fa_set_isa(name.encode()) != lib.FA_OK:
        known = "which this CPU lacks" if name in isas() else "which is unknown"
        raise ValueError(f"isa: got {name!r}, {known}, wanted one of {', '.join(supported_isas())}")


if "FASTACT_ISA" in os.environ:
    try:
        set_isa(os.environ["FASTACT_ISA"])
    except ValueError as error:
        raise ValueError(f"FASTACT_ISA: {error}") from None


def why_no_amx() -> str | None:
    """Why the tile unit of AMX can't be used, or None where it can."""
    reason = lib.fa_why_no_amx()
    return None if reason == ffi.NULL else str(ffi.string(reason).decode())


def tier_units() -> dict[str, str]:
    """For each precision tier what large float32 products run on: "float32", "AVX512-BF16" or "AMX-BF16"."""
    return {tier: str(ffi.string(lib.fa_tier_unit(code)).decode()) for tier, code in _PRECISION.items()}


def has_openmp() -> bool:
    """Whether the extension was built with OpenMP; without it every operation runs on one thread."""
    return bool(lib.fa_has_openmp())


def max_threads() -> int:
    """How many threads an operation uses where nobody asked for a number."""
    return int(lib.fa_max_threads())


# ---- operations

_LINEAR_MAXOUT = {"f": lib.fa_linear_maxout_f32, "d": lib.fa_linear_maxout_f64}
_LINEAR_MAXOUT_BACKWARD = {"f": lib.fa_linear_maxout_backward_f32, "d": lib.fa_linear_maxout_backward_f64}
_MAXOUT = {"f": lib.fa_maxout_f32, "d": lib.fa_maxout_f64}
_MAXOUT_BACKWARD = {"f": lib.fa_maxout_backward_f32, "d": lib.fa_maxout_backward_f64}
_LINEAR_ACTIVATION = {"f": lib.fa_linear_activation_f32, "d": lib.fa_linear_activation_f64}
_LINEAR_ACTIVATION_BACKWARD = {
    "f": lib.fa_linear_activation_backward_f32,
    "d": lib.fa_linear_activation_backward_f64,
}
_MSE = {"f": lib.fa_mse_f32, "d": lib.fa_mse_f64}
_SGD = {"f": lib.fa_sgd_f32, "d": lib.fa_sgd_f64}
_ADAM = {"f": lib.fa_adam_f32, "d": lib.fa_adam_f64}
_MAX_NORM = {"f": lib.fa_max_norm_f32, "d": lib.fa_max_norm_f64}
_ACTIVATION = {"f": lib.fa_activation_f32, "d": lib.fa_activation_f64}
_ACTIVATION_BACKWARD = {"f": lib.fa_activation_backward_f32, "d": lib.fa_activation_backward_f64}


def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    argmax: Array | None,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    char = x.dtype.char
    real = _TYPE[char]
    out_features, pieces, in_features = weight.shape
    status = _LINEAR_MAXOUT[char](
        len(x),
        in_features,
        out_features,
        pieces,
        _from_buffer(real, x),
        _from_buffer(real, weight),
        _NULL if bias is None else _from_buffer(real, bias),
        _from_buffer(real, y),
        _NULL if argmax is None else _from_buffer(_BYTE, argmax),
        threads,
        _PRECISION[precision],
    )
    if status:
        _check(status)


def linear_maxout_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    argmax: Array,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    accumulate: bool = False,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    char = x.dtype.char
    real = _TYPE[char]
    out_features, pieces, in_features = weight.shape
    status = _LINEAR_MAXOUT_BACKWARD[char](
        len(x),
        in_features,
        out_features,
        pieces,
        _from_buffer(real, grad_y),
        _from_buffer(real, x),
        _from_buffer(real, weight),
        _from_buffer(_BYTE, argmax),
        _NULL if grad_x is None else _from_buffer(real, grad_x),
        _NULL if grad_weight is None else _from_buffer(real, grad_weight),
        _NULL if grad_bias is None else _from_buffer(real, grad_bias),
        accumulate,
        threads,
        _PRECISION[precision],
    )
    if status:
        _check(status, argmax, pieces)


# The same two on memory that is no array's, a tensor's say: addresses, 0 for None.


def linear_maxout_at(
    dtype: np.dtype[Any],
    rows: int,
    in_features: int,
    out_features: int,
    pieces: int,
    x: int,
    weight: int,
    bias: int,
    y: int,
    argmax: int,
    threads: int,
    precision: str,
) -> None:
    status = _LINEAR_MAXOUT[dtype.char](
        rows,
        in_features,
        out_features,
        pieces,
        _cast(_VOID, x),
        _cast(_VOID, weight),
        _cast(_VOID, bias) if bias else _NULL,
        _cast(_VOID, y),
        _cast(_VOID, argmax) if argmax else _NULL,
        threads,
        _PRECISION[precision],
    )
    if status:
        _check(status)


def linear_maxout_backward_at(
    dtype: np.dtype[Any],
    rows: int,
    in_features: int,
    out_features: int,
    pieces: int,
    grad_y: int,
    x: int,
    weight: int,
    argmax: int,
    grad_x: int,
    grad_weight: int,
    grad_bias: int,
    threads: int,
    precision: str,
) -> None:
    status = _LINEAR_MAXOUT_BACKWARD[dtype.char](
        rows,
        in_features,
        out_features,
        pieces,
        _cast(_VOID, grad_y),
        _cast(_VOID, x),
        _cast(_VOID, weight),
        _cast(_VOID, argmax),
        _cast(_VOID, grad_x),
        _cast(_VOID, grad_weight),
        _cast(_VOID, grad_bias),
        False,
        threads,
        _PRECISION[precision],
    )
    if status:
        values = ffi.buffer(_cast(_VOID, argmax), rows * out_features)
        _check(status, np.frombuffer(values, np.uint8), pieces)


def maxout(z: Array, y: Array, argmax: Array | None, threads: int = 0) -> None:
    _check(_MAXOUT[z.dtype.char](*z.shape, _pointer(z), _pointer(y), _pointer(argmax), threads))


def maxout_backward(grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
    run = _MAXOUT_BACKWARD[grad_y.dtype.char]
    status = run(*grad_z.shape, _pointer(grad_y), _pointer(argmax), _pointer(grad_z), threads)
    _check(status, argmax, grad_z.shape[1])


def _activation_arguments(act: Activation) -> tuple[Any, ...]:
    if act.slope is None:
        return act.code, act.parameter, _NULL, 0
    return act.code, act.parameter, _pointer(act.slope), act.slope.size


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None,
    act: Activation,
    y: Array,
    z: Array | None,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    out_features, in_features = weight.shape
    status = _LINEAR_ACTIVATION[x.dtype.char](
        x.shape[0],
        in_features,
        out_features,
        *_activation_arguments(act),
        _pointer(x),
        _pointer(weight),
        _pointer(bias),
        _pointer(y),
        _pointer(z),
        threads,
        _PRECISION[precision],
    )
    _check(status)


def linear_activation_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    saved: Array,
    act: Activation,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    grad_slope: Array | None,
    accumulate: bool = False,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    out_features, in_features = weight.shape
    status = _LINEAR_ACTIVATION_BACKWARD[x.dtype.char](
        x.shape[0],
        in_features,
        out_features,
        *_activation_arguments(act),
        _pointer(grad_y),
        _pointer(x),
        _pointer(weight),
        _pointer(saved),
        _pointer(grad_x),
        _pointer(grad_weight),
        _pointer(grad_bias),
        _pointer(grad_slope),
        accumulate,
        threads,
        _PRECISION[precision],
    )
    _check(status)


def _activation_shape(z: Array, act: Activation) -> tuple[int, ...]:
    """The shape (rows, features), which matters for a slope alone."""
    return (1, z.size) if act.slope is None else z.shape


def activation(z: Array, act: Activation, y: Array, threads: int = 0) -> None:
    char = z.dtype.char
    real = _TYPE[char]
    rows, features = _activation_shape(z, act)
    code, parameter, slope, slopes = _activation_arguments(act)
    _ACTIVATION[char](
        rows,
        features,
        code,
        parameter,
        slope,
        slopes,
        _from_buffer(real, z),
        _from_buffer(real, y),
        threads,
    )


def activation_backward(
    grad_y: Array,
    saved: Array,
    act: Activation,
    grad_z: Array,
    grad_slope: Array | None = None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    char = grad_y.dtype.char
    real = _TYPE[char]
    rows, features = _activation_shape(grad_y, act)
    code, parameter, slope, slopes = _activation_arguments(act)
    status = _ACTIVATION_BACKWARD[char](
        rows,
        features,
        code,
        parameter,
        slope,
        slopes,
        _from_buffer(real, grad_y),
        _from_buffer(real, saved),
        _from_buffer(real, grad_z),
        _NULL if grad_slope is None else _from_buffer(real, grad_slope),
        accumulate,
        threads,
    )
    if status:
        _check(status)


# ---- losses


def mse(y: Array, target: Array, grad: Array, threads: int = 0) -> float:
    char = y.dtype.char
    real = _TYPE[char]
    loss: float = _MSE[char](
        y.size, _from_buffer(real, y), _from_buffer(real, target), _from_buffer(real, grad), threads
    )
    return loss


# ---- optimisers


def _rows_and_columns(data: Array) -> tuple[int, int]:
    columns = data.shape[-1] if data.ndim else 1
    return data.size // columns if columns else 0, columns


def sgd(
    data: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float,
    nesterov: bool,
    decay: float,
    max_norm: float,
    threads: int = 0,
) -> None:
    char = data.dtype.char
    real = _TYPE[char]
    _SGD[char](
        *_rows_and_columns(data),
        lr,
        momentum,
        nesterov,
        decay,
        max_norm,
        _from_buffer(real, grad),
        _NULL if velocity is None else _from_buffer(real, velocity),
        _from_buffer(real, data),
        threads,
    )


def adam(
    data: Array,
    grad: Array,
    mean: Array,
    square: Array,
    rate: float,
    beta1: float,
    beta2: float,
    unbias: float,
    eps: float,
    decay: float,
    max_norm: float,
    threads: int = 0,
) -> None:
    char = data.dtype.char
    real = _TYPE[char]
    _ADAM[char](
        *_rows_and_columns(data),
        rate,
        beta1,
        beta2,
        unbias,
        eps,
        decay,
        max_norm,
        _from_buffer(real, grad),
        _from_buffer(real, mean),
        _from_buffer(real, square),
        _from_buffer(real, data),
        threads,
    )


def max_norm(data: Array, max_norm: float, threads: int = 0) -> None:
    _MAX_NORM[data.dtype.char](*_rows_and_columns(data), max_norm, _pointer(data), threads)


# ---- frozen layers

_FREEZE = {"f": lib.fa_freeze_f32, "d": lib.fa_freeze_f64}
_FREE_FROZEN = {"f": lib.fa_free_frozen_f32, "d": lib.fa_free_frozen_f64}
_RUN_FROZEN = {"f": lib.fa_run_frozen_f32, "d": lib.fa_run_frozen_f64}
_FROZEN = {"f": "struct fa_frozen_f32 *[]", "d": "struct fa_frozen_f64 *[]"}


def freeze(
    steps: Sequence[Any], in_features: int, dtype: np.dtype[Any]
) -> Callable[[Array, Array, int], None]:
    """Pack the steps of a frozen model, at least one; returns run(x, y, threads).

    x is (rows, in_features), y (rows, out_features), both C-contiguous and of `dtype`.
    """
    char = dtype.char
    real, run_frozen, layers = _TYPE[char], _RUN_FROZEN[char], []
    for step in steps:
        weight = step.weight
        out_features, pieces = in_features, 0
        if weight is not None:
            out_features, pieces = len(weight), weight.shape[1] if weight.ndim == 3 else 1
        layer = _FREEZE[char](
            in_features,
            out_features,
            pieces,
            _pointer(weight),
            _pointer(step.bias),
            *_activation_arguments(step.act),
            _PRECISION[step.tier],
        )
        if layer == _NULL:
            _check(lib.FA_NO_MEMORY)
        layers.append(ffi.gc(layer, _FREE_FROZEN[char]))
        in_features = out_features
    count = len(layers)
    pointers = ffi.new(_FROZEN[char], layers)

    # the layers and, for some tiers, the arrays that they point to live as long as this function
    def run(x: Array, y: Array, threads: int, owners: Any = (layers, steps)) -> None:
        status = run_frozen(
            pointers, count, x.shape[0], _from_buffer(real, x), _from_buffer(real, y), threads
        )
        if status:
            _check(status)

    return run
