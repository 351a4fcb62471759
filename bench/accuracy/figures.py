"""What is measured: the largest error of a result, in a unit of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import mpmath
import numpy as np

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]  # a number as the sum of two, to twice the precision of float64

UNITS = {
    "ulp": "units in the last place (ULP) of the exact result",
    "u": "eps / 2 of the dtype, times the sum of the magnitudes of the result's terms",
    "bound": "the error bound of the element",
    "numpy": "the norm of the error of NumPy's product in the same dtype",
    "norm": "the norm of the result",
}

mp = mpmath.mp.clone() if hasattr(mpmath.mp, "clone") else mpmath.MPContext()
mp.dps = 60


class Figure(NamedTuple):
    """The largest error of a result in a sample."""

    name: str  # of the function and of its result
    unit: str  # a key of UNITS
    error: float
    where: str = ""  # the worst is, where a number says it


def in_two(numbers: Iterable[Any]) -> Pair:
    """mpmath's numbers as the sum of two arrays."""
    exact = list(numbers)
    first = np.array([float(x) for x in exact])
    return first, np.array([float(x - mp.mpf(f)) for x, f in zip(exact, first.tolist(), strict=True)])


def evaluated(formula: Callable[[Any], Any], arguments: Array) -> Pair:
    """`formula` of each number, to 60 digits."""
    return in_two(formula(mp.mpf(float(x))) for x in arguments)


def spacing(exact: Array, dtype: Any) -> Array:
    """The unit in the last place of each float64 of `exact` as a number of `dtype`, subnormal too."""
    info = np.finfo(dtype)
    _, exponent = np.frexp(exact)
    return np.asarray(np.ldexp(1.0, np.maximum(exponent, info.minexp + 1) - 1 - info.nmant))


def deviation(actual: Array, exact: Pair) -> Array:
    """The distance of each `actual` from `exact`.

    Where one of the two is not finite, it is 0 if both are NaN or the same infinity, else infinite.
    """
    high, low = exact
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs((np.ravel(actual).astype(np.float64) - np.ravel(high)) - np.ravel(low))
        same = np.ravel(actual) == np.ravel(high).astype(actual.dtype)
    same |= np.isnan(np.ravel(actual)) & np.isnan(np.ravel(high))
    off[~np.isfinite(off)] = np.inf
    off[same & ~np.isfinite(np.ravel(actual))] = 0
    return off


def in_ulps(actual: Array, exact: Pair, underflow: int = 0) -> Array:
    """The error of each number in ULP, beyond `underflow` of the smallest subnormal number."""
    tiny = float(np.finfo(actual.dtype).smallest_subnormal)
    off = np.maximum(deviation(actual, exact) - underflow * tiny, 0)
    return np.asarray(off / spacing(np.ravel(exact[0]), actual.dtype))


def in_u(
    actual: Array, exact: Pair, terms: Array | float, allowed: Array | float = 0.0, underflow: int = 1
) -> Array:
    """The error of each number in u times `terms`.

    Beyond what is `allowed`, and beyond `underflow` of the smallest subnormal number.  A result without terms
    has to be exact.
    """
    info = np.finfo(actual.dtype)
    off = deviation(actual, exact) - np.ravel(allowed) - underflow * float(info.smallest_subnormal)
    scale = float(info.eps) / 2 * np.broadcast_to(np.ravel(terms), off.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(off <= 0, 0.0, off / scale)
    errors[np.isnan(errors)] = np.inf
    return errors


def worst(name: str, unit: str, errors: Array, arguments: Array | None = None) -> Figure:
    """The figure of an array of errors; `arguments` are what the results are of."""
    if not errors.size:
        return Figure(name, unit, 0.0)
    at = int(np.argmax(errors))
    where = "" if arguments is None else f"{np.ravel(arguments)[at]!r}".partition("(")[2].rstrip(")")
    return Figure(name, unit, float(np.ravel(errors)[at]), where)
