"""Error bounds: how far a result may be from the float64 one, and why.

Products.  Their bounds are those of bench/accuracy/bounds.py.

Activations.  The computed y is to be the exact y of a z moved by at most ULPS eps, itself off by at most
ULPS eps: |error| <= ULPS eps (|y| + |z y'|).  The derivative is a sum of terms of the size of 1, and is to be
off by at most DERIVATIVE_ULPS eps of 1.  Exponentials may underflow to zero.

Tiers.  How far a product of two rounded numbers may be off, relative to it: a bfloat16 has 8 significant
bits, so rounding to one is off by 2^-8 at most, to a sum of two by 2^-16, of three by nothing; and "high"
leaves out the product of the second parts, "highest" those of weight 2^-24.
"""

from __future__ import annotations

import numpy as np

from bench.accuracy.bounds import CUT as CUT
from bench.accuracy.bounds import gamma as gamma
from bench.accuracy.bounds import sum_bound as sum_bound

ULPS = 8
DERIVATIVE_ULPS = 8
TIER_LOSS = {"highest": 2.0**-22, "high": 2.0**-14, "medium": 2.0**-7 + 2.0**-16}
TINY = float(np.finfo(np.float32).tiny)  # bfloat16 units flush what is below


def tier_bound(magnitude, terms: int, tier: str, backend: str, largest_factor: float):
    """`sum_bound` plus a tier's loss; the products of the parts make up to 6 sums of as many terms."""
    flushed = TINY * (6 * terms + 6) * (1 + largest_factor)
    return sum_bound(magnitude, 6 * terms, np.float32, backend) + TIER_LOSS[tier] * magnitude + flushed


def activation_bound(z, y, slope_at_z, dtype):
    """The bound of y = activation(z), from the float64 y and y'."""
    info = np.finfo(dtype)
    scale = np.abs(y) + np.abs(z * slope_at_z)
    return float(ULPS * info.eps) * scale + float(ULPS * info.tiny)


def derivative_bound(grad_y, dtype):
    """The bound of grad_y * y'."""
    info = np.finfo(dtype)
    return float(DERIVATIVE_ULPS * info.eps) * np.abs(grad_y) + float(ULPS * info.tiny)


def assert_within(actual, expected, bound):
    """Every element of `actual` is finite and within `bound` of the float64 `expected`."""
    error = np.abs(np.asarray(actual, np.float64) - expected)
    outside = ~(error <= bound)
    if outside.any():
        where = np.unravel_index(np.argmax(np.where(outside, error, -1)), error.shape)
        allowed = np.broadcast_to(bound, error.shape)[where]
        raise AssertionError(
            f"{outside.sum()} of {outside.size} elements outside the bound; at {tuple(map(int, where))} "
            f"got {actual[where]}, wanted {expected[where]} within {allowed}"
        )


def assert_same_bits(actual, expected):
    """Two results, arrays or tuples of them, do not differ in a single bit."""
    if not isinstance(actual, tuple):
        actual, expected = (actual,), (expected,)
    for a, b in zip(actual, expected, strict=True):
        if a is None or b is None:
            assert a is b
            continue
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.tobytes() != b.tobytes():
            np.testing.assert_array_equal(a, b)  # says where, unless only a zero's sign or a NaN differs
            raise AssertionError("the bits of a zero's sign or of a NaN differ")
