"""Arrays as kernels take them, so that Numba compiles each kernel for one kind of array."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def as_carray(array: Array) -> Array:
    """`array`, or a copy if it is read-only, misaligned or not C-contiguous.  For inputs only."""
    return array if array.flags.carray else np.array(array, order="C")


@functools.cache
def _empty(dtype: np.dtype[Any], dims: int) -> Array:
    return np.empty((0,) * dims, dtype)


def or_empty(array: Array | None, dtype: np.dtype[Any], dims: int) -> Array:
    """`array`, or an empty array of `dims` dimensions for None."""
    return _empty(dtype, dims) if array is None else array
