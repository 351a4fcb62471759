"""Functions of numbers whose last bit depends on the C library, but not where results are to be reproducible."""

from __future__ import annotations

import decimal
import math

from .. import settings

# Beyond a double's 17 digits, so that rounding to a double is all that counts.
_CONTEXT = decimal.Context(prec=40)
_PI = decimal.Decimal("3.141592653589793238462643383279502884197")


def power(base: float, exponent: int) -> float:
    """base ** exponent, exponent >= 0."""
    if exponent == 0 or not settings.get_reproducible():
        return base**exponent  # type: ignore[no-any-return]  # a negative exponent could give an int
    return float(_CONTEXT.power(decimal.Decimal(base), exponent))


def cos_pi(x: float) -> float:
    """The cosine of pi x, 0 <= x <= 1."""
    if not settings.get_reproducible():
        return math.cos(math.pi * x)
    with decimal.localcontext(_CONTEXT):
        angle = _PI * decimal.Decimal(x)
        term = total = decimal.Decimal(1)
        for n in range(2, 48, 2):  # the Taylor series, to pi^46 / 46! < 1e-34
            term *= -angle * angle / (n * (n - 1))
            total += term
    return float(total)
