"""Memory layouts of inputs, and of arrays to write into."""

from __future__ import annotations

import numpy as np
import pytest

# ---- to write into: of a shape and dtype, filled with 99


def strided(shape, dtype):
    """A writeable array that is neither C- nor Fortran-contiguous."""
    return np.full(tuple(2 * n for n in shape), 99, dtype)[tuple(slice(None, None, -2) for _ in shape)]


def contiguous(shape, dtype):
    return np.full(shape, 99, dtype)


def fortran(shape, dtype):
    return np.full(shape, 99, dtype, order="F")


OUT_LAYOUTS = pytest.mark.parametrize("layout", [contiguous, strided, fortran])

# ---- inputs: the values of an array in another layout


def backwards(a):
    return np.ascontiguousarray(a[..., ::-1])[..., ::-1]


def transposed(a):
    return np.asfortranarray(a)


def spaced(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def misaligned(a):
    buffer = np.empty(a.nbytes + 1, np.uint8)[1:]
    view = buffer.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def memory_mapped(a):
    return a.view(np.memmap)


INPUT_LAYOUTS = pytest.mark.parametrize(
    "layout", [backwards, transposed, spaced, read_only, misaligned, memory_mapped]
)
