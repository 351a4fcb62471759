"""Error bounds of sums.

With the unit roundoff u = eps / 2, a sum of products in which every term goes through at most n roundings is
off by at most gamma_n = n u / (1 - n u) times the sum of the terms' magnitudes, in whatever order it is added
(Higham 2002, Accuracy and Stability, section 3.1).  The kernels cut every sum into partial sums of at most
CUT terms and add those one after the other, so a term goes through

    one rounding for its product and at most CUT - 1 in its partial sum,
    at most one for each partial sum,
    one for the bias, or for the array that the sum is added to.

NumPy promises no order, so the reference is held to n = terms + 1.  A product that underflows is off by
at most half the smallest subnormal number more.  The float64 result is itself off by its own bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CUT = 256


def gamma(n: int, dtype: Any) -> float:
    """The relative error of a term that goes through n roundings, at most."""
    u = float(np.finfo(dtype).eps) / 2
    return n * u / (1 - n * u)


def roundings_of_sum(terms: int, backend: str) -> int:
    """How many roundings a term of a sum of `terms` products goes through, at most."""
    in_order = terms + 1
    return in_order if backend == "numpy" else min(in_order, CUT + math.ceil(terms / CUT) + 1)


def sum_bound(magnitude: Any, terms: int, dtype: Any, backend: str) -> Any:
    """The bound of a sum of `terms` products whose magnitudes sum to `magnitude`."""
    underflow = (terms + 1) * float(np.finfo(dtype).smallest_subnormal)
    allowed = gamma(roundings_of_sum(terms, backend), dtype) + gamma(terms + 1, np.float64)
    return allowed * magnitude + underflow
