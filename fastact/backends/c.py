"""The C backend: the functions of `interface.Backend` over the extension `fastact._native`.

This module alone imports the extension.  The GIL is released while a kernel runs.  Memory stays safe where
another thread writes to an array meanwhile, or sets its shape: results are wrong, or ValueError is raised.
Resizing an array with refcheck=False is not safe, here as everywhere in NumPy; nor is setting a shape in a
Python without a GIL.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..activations import Activation
from ..checks import ARRAYS, label_error
from ..settings import REPRODUCIBLE, Precision, get_reproducible
from .custom import code_of
from .interface import HashTable, Update
from .numpy import argmax_error

Array = np.ndarray[Any, Any]

# Not `from .. import _native`: where the extension is absent, that raises no ModuleNotFoundError.
_native = importlib.import_module("fastact._native")
ffi, lib = _native.ffi, _native.lib

_umath = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]
_abi = lib.fa_numpy_abi(id(_umath._ARRAY_API))
if _abi not in (lib.FA_NUMPY_ABI_1, lib.FA_NUMPY_ABI_2):
    raise ImportError(
        f"fastact._native reads arrays of NumPy's ABI 1.9 or 2.0, and NumPy {np.__version__} has "
        f"{_abi >> 24}.{_abi & 0xFFFFFF}"
    )

_PRECISION: dict[Precision, int] = {"highest": lib.FA_HIGHEST, "high": lib.FA_HIGH, "medium": lib.FA_MEDIUM}
_DTYPE = {"f": lib.FA_FLOAT32, "d": lib.FA_FLOAT64}
_NULL, _VOID, _cast = ffi.NULL, ffi.typeof("void *"), ffi.cast


def _check(status: int, argmax: Array | None = None, pieces: int = 0) -> None:
    """Raise the error that a driver's status stands for; FA_OK stands for none."""
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
    """The instruction sets that this CPU supports, best first."""
    return tuple(name for i, name in enumerate(isas()) if lib.fa_isa_supported(i))


def set_isa(name: str, label: str = "isa") -> None:
    """Force an instruction set for the whole process.

    Raises ValueError for one that is unknown or unsupported; the message begins with `label`.
    """
    if lib.fa_set_isa(name.encode()) != lib.FA_OK:
        known = "which this CPU lacks" if name in isas() else "which is unknown"
        raise ValueError(f"{label}: got {name!r}, {known}, wanted one of {', '.join(supported_isas())}")


if "FASTACT_ISA" in os.environ:
    set_isa(os.environ["FASTACT_ISA"], "FASTACT_ISA")


def why_no_amx() -> str | None:
    """Why the tile unit of AMX can't be used, or None where it can."""
    reason = lib.fa_why_no_amx()
    return None if reason == ffi.NULL else str(ffi.string(reason).decode())


def tier_units() -> dict[Precision, str]:
    """What large float32 products run on at each precision tier: "float32", "AVX512-BF16" or "AMX-BF16"."""
    return {tier: str(ffi.string(lib.fa_tier_unit(code)).decode()) for tier, code in _PRECISION.items()}


def max_threads() -> int:
    """How many threads an operation uses where nobody asked for a number."""
    return int(lib.fa_max_threads())


# ---- operations: the functions of csrc/api/numpy.h

if lib.fa_add_functions(id(_native)) != lib.FA_OK:
    raise MemoryError("fastact: no memory for the functions of csrc/api/numpy.h")


def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    argmax: Array | None,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    status = _native.linear_maxout(x, weight, bias, y, argmax, threads, _PRECISION[precision])
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
    precision: Precision = "highest",
) -> None:
    status = _native.linear_maxout_backward(
        grad_y,
        x,
        weight,
        argmax,
        grad_x,
        grad_weight,
        grad_bias,
        accumulate,
        threads,
        _PRECISION[precision],
    )
    if status:
        _check(status, argmax, weight.shape[1])


# Variants of these two that take addresses, such as a tensor's; 0 stands for None.


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
    precision: Precision,
) -> None:
    status = lib.fa_linear_maxout(
        _DTYPE[dtype.char],
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
    precision: Precision,
) -> None:
    status = lib.fa_linear_maxout_backward(
        _DTYPE[dtype.char],
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
    _native.maxout(z, y, argmax, threads)


def maxout_backward(grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
    _check(_native.maxout_backward(grad_y, argmax, grad_z, threads), argmax, grad_z.shape[1])


def _code_of(act: Activation, dtype: np.dtype[Any]) -> int:
    """What the extension takes for a custom activation: the address of a struct fa_custom."""
    return code_of(act.custom, {}, dtype).code  # type: ignore[arg-type]


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None,
    act: Activation,
    y: Array,
    z: Array | None,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    status = _native.linear_activation(
        act.code if act.custom is None else _code_of(act, x.dtype),
        act.parameter,
        act.slope,
        x,
        weight,
        bias,
        y,
        z,
        threads,
        _PRECISION[precision],
    )
    if status:
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
    precision: Precision = "highest",
) -> None:
    status = _native.linear_activation_backward(
        act.code if act.custom is None else _code_of(act, grad_y.dtype),
        act.parameter,
        act.slope,
        grad_y,
        x,
        weight,
        saved,
        grad_x,
        grad_weight,
        grad_bias,
        grad_slope,
        accumulate,
        threads,
        _PRECISION[precision],
    )
    if status:
        _check(status)


def activation(z: Array, act: Activation, y: Array, threads: int = 0) -> None:
    code = act.code if act.custom is None else _code_of(act, z.dtype)
    _native.activation(code, act.parameter, act.slope, z, y, threads)


def activation_backward(
    grad_y: Array,
    saved: Array,
    act: Activation,
    grad_z: Array,
    grad_slope: Array | None = None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    status = _native.activation_backward(
        act.code if act.custom is None else _code_of(act, grad_y.dtype),
        act.parameter,
        act.slope,
        grad_y,
        saved,
        grad_z,
        grad_slope,
        accumulate,
        threads,
    )
    if status:
        _check(status)


# ---- a product alone


def matmul(
    x: Array,
    y: Array,
    trans1: bool,
    trans2: bool,
    out: Array,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    status = _native.matmul(x, y, trans1, trans2, out, threads, _PRECISION[precision])
    if status:
        _check(status)


def blas_addresses() -> tuple[int, int, int]:
    """The addresses of sgemm, saxpy and daxpy, as csrc/api/fastact.h declares them.

    saxpy and daxpy are those of the instruction set in force.
    """
    functions = ffi.addressof(lib, "fa_sgemm"), lib.fa_saxpy_in_force(), lib.fa_daxpy_in_force()
    sgemm, saxpy, daxpy = (int(_cast("uintptr_t", function)) for function in functions)
    return sgemm, saxpy, daxpy


# ---- layer norm


def layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    saved: Array | None,
    threads: int = 0,
) -> None:
    _native.layer_norm(eps, x, weight, bias, y, saved, threads)


def layer_norm_backward(
    grad_y: Array,
    x: Array,
    weight: Array | None,
    saved: Array,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    status = _native.layer_norm_backward(
        grad_y,
        x,
        weight,
        saved,
        grad_x,
        grad_weight,
        grad_bias,
        accumulate,
        threads,
    )
    if status:
        _check(status)


# ---- dropout


def dropout_keep(seed: int, p: float, keep: Array, threads: int = 0) -> None:
    _native.dropout_keep(seed, p, keep, threads)


# ---- hash embeddings


def hash_embed(ids: Array, tables: tuple[HashTable, ...], y: Array, keys: Array, threads: int = 0) -> None:
    _native.hash_embed(ids, tables, y, keys, threads)


def hash_embed_backward(grad_y: Array, keys: Array, tables: tuple[HashTable, ...], threads: int = 0) -> None:
    _native.hash_embed_backward(grad_y, keys, tables, threads)


# ---- losses


def softmax_cross_entropy(
    logits: Array, labels: Array, label_smoothing: float, ignore_index: int, grad: Array, threads: int = 0
) -> float:
    loss: float | None = _native.softmax_cross_entropy(
        logits, labels, label_smoothing, ignore_index, grad, threads
    )
    if loss is None:
        raise label_error(labels, logits.shape[-1], ignore_index)
    return loss


def mse(y: Array, target: Array, grad: Array, threads: int = 0) -> float:
    loss: float = _native.mse(y, target, grad, threads)
    return loss


def binary_cross_entropy_with_logits(logits: Array, target: Array, grad: Array, threads: int = 0) -> float:
    loss: float = _native.binary_cross_entropy(logits, target, grad, threads)
    return loss


def huber(y: Array, target: Array, delta: float, grad: Array, threads: int = 0) -> float:
    loss: float = _native.huber(y, target, delta, grad, threads)
    return loss


# ---- optimisers


def _check_updated(updated: bool) -> None:
    if not updated:
        raise ValueError("an array was changed by another thread during the call")


def sgd(
    parameters: Sequence[Any],
    checked: Callable[[], Sequence[Update]],
    velocity: Sequence[Array],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    threads: int = 0,
) -> None:
    arguments = (velocity, lr, momentum, nesterov, weight_decay, threads)
    if not _native.sgd(ARRAYS, parameters, *arguments):
        _check_updated(_native.sgd(ARRAYS, checked(), *arguments))


def adam(
    parameters: Sequence[Any],
    checked: Callable[[], Sequence[Update]],
    mean: Sequence[Array],
    square: Sequence[Array],
    rate: float,
    beta1: float,
    beta2: float,
    unbias: float,
    eps: float,
    weight_decay: float,
    keep: float,
    threads: int = 0,
) -> None:
    arguments = (mean, square, rate, beta1, beta2, unbias, eps, weight_decay, keep, threads)
    if not _native.adam(ARRAYS, parameters, *arguments):
        _check_updated(_native.adam(ARRAYS, checked(), *arguments))


def update_parameter(
    data: Any,
    grad: Any,
    mean: Any,
    square: Any,
    average: Any,
    max_norm: float,
    decay: float,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    shrink: float,
    new_share: float,
    threads: int = 0,
) -> bool:
    updated: bool = _native.update_parameter(
        ARRAYS,
        data,
        grad,
        mean,
        square,
        average,
        max_norm,
        decay,
        rate,
        beta1,
        beta2,
        eps,
        shrink,
        new_share,
        threads,
    )
    return updated


def max_norm(data: Array, max_norm: float, threads: int = 0) -> None:
    _native.max_norm(max_norm, data, threads)


def clip_grad_norm(grads: list[Array], max_norm: float, threads: int = 0) -> float:
    norm: float = _native.clip_grad_norm(grads, max_norm, threads)
    return norm


# ---- several layers in one call: see csrc/api/numpy.h

network_forward = _native.network_forward
network_backward = _native.network_backward
network_tape = _native.network_tape
facts_hold = _native.facts_hold
memory_holds = _native.memory_holds


# ---- handlers for JAX: see csrc/api/fastact.h

_XLA_HANDLERS = (
    "linear_maxout",
    "linear_maxout_backward",
    "maxout",
    "maxout_backward",
    "activation",
    "activation_backward",
    "linear_activation",
    "linear_activation_backward",
)


def xla_handlers() -> dict[str, int]:
    """The addresses of the handlers of XLA's FFI, by the name of their driver."""
    return {name: int(_cast("uintptr_t", ffi.addressof(lib, f"fa_xla_{name}"))) for name in _XLA_HANDLERS}


def set_xla_defaults(defaults: Array) -> None:
    """Give the handlers the defaults of `settings`, which they read at each call."""
    lib.fa_xla_set_defaults(_cast("int *", defaults.ctypes.data))


def precision_code(precision: Precision) -> int:
    """The number that stands for a tier in an attribute of a handler."""
    return int(_PRECISION[precision])


# ---- frozen layers


def _pointer(array: Array | None) -> Any:
    return _NULL if array is None else ffi.from_buffer(array)


# Without a weight, "layer" is an activation alone.
_FROZEN = {
    "layer": lib.FA_ACTIVATION,
    "layer norm": lib.FA_LAYER_NORM,
    "branch": lib.FA_BRANCH,
    "sum": lib.FA_SUM,
}


def freeze(
    steps: Sequence[Any], in_features: int, dtype: np.dtype[Any]
) -> Callable[[Array, Array, int], None]:
    """Pack the steps of a frozen model, at least one; returns run(x, y, threads).

    x is (rows, in_features), y (rows, out_features), both C-contiguous and of `dtype`.
    """
    mode = REPRODUCIBLE if get_reproducible() else 0
    depth, deepest = 0, 0  # of residuals inside each other
    for step in steps:
        depth += (step.kind == "branch") - (step.kind == "sum")
        deepest = max(deepest, depth)
    if deepest > lib.FA_MAX_BRANCHES:
        raise ValueError(
            f"model: got {deepest} residuals inside each other, wanted {lib.FA_MAX_BRANCHES} at most"
        )
    first = in_features
    frozen = []
    for step in steps:
        weight, kind = step.weight, _FROZEN[step.kind]
        out_features, pieces, parameter = in_features, 1, step.act.parameter
        if step.kind == "layer norm":
            parameter = step.eps
        elif weight is not None:
            kind, out_features = lib.FA_LINEAR, len(weight)
            if weight.ndim == 3:
                kind, pieces = lib.FA_MAXOUT, weight.shape[1]
        made = lib.fa_freeze(
            _DTYPE[dtype.char],
            kind,
            in_features,
            out_features,
            pieces,
            _pointer(weight),
            _pointer(step.bias),
            step.act.code if step.act.custom is None else _code_of(step.act, dtype),
            parameter,
            _pointer(step.act.slope),
            0 if step.act.slope is None else step.act.slope.size,
            mode,
            _PRECISION[step.tier],
        )
        if made == _NULL:
            _check(lib.FA_NO_MEMORY)
        frozen.append(ffi.gc(made, lib.fa_free_frozen))
        in_features = out_features
    count, number, last = len(frozen), dtype.num, in_features
    pointers = ffi.new("const struct fa_step *[]", frozen)
    address = int(ffi.cast("uintptr_t", pointers))

    # the frozen steps and, for some tiers, the arrays that they point to live as long as this function
    def run(x: Array, y: Array, threads: int, owners: Any = (pointers, frozen, steps)) -> None:
        if threads & ~mode & REPRODUCIBLE:
            raise RuntimeError(
                "model: got one frozen without reproducible results, wanted one frozen with them"
            )
        status = _native.run_frozen(address, count, number, first, last, x, y, threads)
        if status:
            _check(status)

    return run
