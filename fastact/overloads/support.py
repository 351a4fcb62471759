"""What the generated functions share in nopython code: memory that overlaps, a loss beyond the dtype."""

# Functions are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math

import numpy as np
from numba.extending import register_jitable


@register_jitable
def copy(source, target):
    """target[...] = source, of arrays of one shape, which Numba takes 3 seconds to compile."""
    for index in np.ndindex(source.shape):
        target[index] = source[index]


@register_jitable
def same_memory(a, b):
    """Whether two arrays of one dtype and number of axes are the same elements."""
    return a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides


@register_jitable
def span(array):
    """The address of the first byte of an array that has elements, and that past its last one."""
    low = high = np.intp(array.ctypes.data)
    for i in range(array.ndim):
        reach = (array.shape[i] - 1) * array.strides[i]
        low += min(reach, 0)
        high += max(reach, 0)
    return low, high + array.itemsize


@register_jitable
def contiguous_overlap(a, b):
    """Whether two C-contiguous arrays have a byte in common."""
    start, other = np.intp(a.ctypes.data), np.intp(b.ctypes.data)
    return start < other + b.size * b.itemsize and other < start + a.size * a.itemsize and a.size * b.size > 0


@register_jitable
def overlap(a, b):
    """Whether two arrays, of one axis at least, have a byte in common."""
    if a.size == 0 or b.size == 0:
        return False
    (low, high), (other_low, other_high) = span(a), span(b)
    if low >= other_high or other_low >= high:
        return False
    used = np.zeros(high - low, np.bool_)
    for index in np.ndindex(a.shape):
        at = np.intp(a.ctypes.data) - low
        for i in range(a.ndim):
            at += index[i] * a.strides[i]
        used[at : at + a.itemsize] = True
    for index in np.ndindex(b.shape):
        at = np.intp(b.ctypes.data) - low
        for i in range(b.ndim):
            at += index[i] * b.strides[i]
        if used[max(at, 0) : max(at + b.itemsize, 0)].any():
            return True
    return False


@register_jitable
def scaled_mse(y, target, grad, loss):
    """The loss of `mse`, and grad, where squares overflow or underflow; arrays are flat."""
    smallest = np.finfo(y.dtype).tiny / np.finfo(y.dtype).eps
    if y.size == 0 or smallest <= loss < math.inf:
        return loss
    half = 1.0 if loss < math.inf else 0.5  # halves of two numbers differ by a finite number
    largest = 0.0
    for i in range(y.size):
        off = np.float64(y[i]) * half - np.float64(target[i]) * half
        if half == 0.5:
            grad[i] = off * (2 / half / y.size)
        largest = max(largest, abs(off))
    if largest == 0 or largest == math.inf or math.isnan(loss):
        return loss
    total = 0.0
    for i in range(y.size):
        off = np.float64(y[i]) * half - np.float64(target[i]) * half
        total += (off / largest) ** 2
    return total / y.size * (largest / half) * (largest / half)
