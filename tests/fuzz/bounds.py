"""Bounds of errors where inputs may be anything: NaN, infinities, the largest numbers.

The bounds of finite numbers are those of tests/support/tolerance.py.  A result that is not finite in float64
has to be the same in the dtype.  Nothing is asked of a sum whose terms' magnitudes come near the largest
number: it may overflow on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from support.tolerance import sum_bound, tier_bound

from fastact import backends

Array = np.ndarray[Any, Any]

NEAR_LARGEST = 0.99  # tiers may overflow within 1% of the largest number


def finite(a: Array) -> Array:
    """|a| in float64, 0 for what is not finite."""
    wide = np.abs(a.astype(np.float64))
    return np.where(np.isfinite(wide), wide, 0)


def assert_close(name: str, actual: Array, exact: Array, allowed: Any, magnitude: Any = 0.0) -> None:
    """Each element of `actual` is within `allowed` of the float64 `exact`, or not finite as that is.

    `magnitude` is the size of the sums on the way to a result.
    """
    if actual.shape != np.shape(exact):
        raise AssertionError(f"{name}: got shape {actual.shape}, wanted {np.shape(exact)}")
    wide = np.asarray(actual, np.float64)
    with np.errstate(all="ignore"):
        close = np.abs(wide - exact) <= allowed
        close = close | (wide == exact) | (np.isnan(wide) & np.isnan(exact))
        close |= np.logical_not(magnitude < NEAR_LARGEST * float(np.finfo(actual.dtype).max))
    if not np.all(close):
        at = np.unravel_index(int(np.argmin(close)), close.shape)
        bound = np.broadcast_to(allowed, close.shape)[at]
        raise AssertionError(
            f"{name}{list(map(int, at))}: got {actual[at]!r}, wanted {exact[at]!r} within {bound:.3g}; "
            f"{np.count_nonzero(~close)} of {close.size} are outside"
        )


def assert_equal(name: str, actual: Any, wanted: Any) -> None:
    """Two arrays or numbers are equal, every NaN being the same."""
    a, b = np.asarray(actual), np.asarray(wanted)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise AssertionError(f"{name}: got {a.dtype} {a.shape}, wanted {b.dtype} {b.shape}")
    differ = a != b
    if a.dtype.kind == "f":
        differ &= ~(np.isnan(a) & np.isnan(b))
    if differ.any():
        at = np.unravel_index(int(np.argmax(differ)), differ.shape)
        raise AssertionError(f"{name}{list(map(int, at))}: got {a[at]!r}, wanted {b[at]!r}")


def of_sum(magnitude: Array, terms: int, dtype: Any, backend: str, tier: str, *factors: Array) -> Any:
    """The bound of a sum of products, at a tier of precision too."""
    if backend != "c" or dtype != np.float32 or backends.get("c").tier_units()[tier] == "float32":  # type: ignore[attr-defined]
        return sum_bound(magnitude, terms, dtype, backend)
    largest = max((finite(factor).max(initial=0) for factor in factors), default=0.0)
    return tier_bound(magnitude, terms, tier, backend, largest)
