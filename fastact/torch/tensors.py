"""Tensors as the backends take them: their checks, and the arrays or addresses of their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from cffi import FFI  # type: ignore[import-untyped]
from torch import Tensor

from .. import checks, settings

NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.uint8: np.dtype(np.uint8),
}
FLOATS = (torch.float32, torch.float64)


# ---- checks: the dtypes are PyTorch's, the rules for shapes are those of `fastact.checks`

ShapeRule = Callable[..., tuple[int, ...]]
real_shape: ShapeRule = checks.forward_shape  # remembers the shapes that it has seen
fake_shape: ShapeRule = checks.forward_shape.__wrapped__  # for symbolic sizes, which cannot be remembered


def check_float(name: str, value: Tensor) -> None:
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted torch.float32 or torch.float64")


def check_dtype(name: str, value: Tensor, dtype: torch.dtype) -> None:
    if value.dtype is not dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted {dtype}")


def check_tensor(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check_dtype(name, value, dtype)
    checks.check_shape(name, tuple(value.shape), shape)


def check_forward(
    sizes: tuple[str, ...], x: Tensor, weight: Tensor, bias: Tensor | None, rule: ShapeRule
) -> tuple[int, ...]:
    """The shape of y; `sizes` names the dimensions of weight, `rule` is `real_shape` or `fake_shape`."""
    dtype = x.dtype  # every call passes here: a function is called only to say what is wrong
    if dtype not in FLOATS:
        check_float("x", x)
    if weight.dtype is not dtype:
        check_dtype("weight", weight, dtype)
    number = NUMPY_DTYPES[dtype]
    if bias is None:
        return rule(sizes, tuple(x.shape), number, tuple(weight.shape), number)
    if bias.dtype is not dtype:
        check_dtype("bias", bias, dtype)
    return rule(sizes, tuple(x.shape), number, tuple(weight.shape), number, tuple(bias.shape), number)


# ---- tensors as the arrays, or the addresses, that a backend takes

_ffi = FFI()
_buffer, _cast, _VOID = _ffi.buffer, _ffi.cast, _ffi.typeof("void *")
_ndarray = np.ndarray


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.empty(shape, NUMPY_DTYPES[dtype]))  # 0.6 us; torch.empty takes 1.0


def addresses_of(tensors: tuple[Tensor | None, ...]) -> list[int] | None:
    """The address of each tensor, 0 for None; None if a tensor is not contiguous or not aligned."""
    addresses = []
    for tensor in tensors:
        if tensor is None:
            addresses.append(0)
        elif tensor.is_contiguous() and not (address := tensor.data_ptr()) & 7:
            addresses.append(address)
        else:
            return None
    return addresses


def as_array(value: Tensor) -> checks.Array:
    """The memory of a contiguous tensor as an array; of a copy for any other tensor.

    `value.numpy()` would forbid PyTorch to resize the storage from then on.  The array holds no reference:
    the caller keeps `value` alive while it uses the array.
    """
    if not value.is_contiguous():
        return value.contiguous().numpy(force=True)
    memory = _buffer(_cast(_VOID, value.data_ptr()), value.nbytes)
    return _ndarray(tuple(value.shape), NUMPY_DTYPES[value.dtype], memory)


def as_tensor(value: checks.Array | None) -> Tensor | None:
    return None if value is None else torch.from_numpy(value)


def as_contiguous(value: Tensor) -> checks.Array:
    return checks.contiguous(as_array(value))


def as_rows(value: Tensor) -> checks.Array:
    return checks.contiguous_rows(as_array(value))


def fake_gradients(shapes: tuple[tuple[int, ...], ...], needs: list[bool], x: Tensor) -> tuple[Any, ...]:
    return tuple(x.new_empty(shape) if need else None for shape, need in zip(shapes, needs, strict=True))


def thread_count() -> int:
    return settings.threads_and_mode(torch.get_num_threads())
