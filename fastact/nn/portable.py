"""Functions of numbers whose last bit depends on the C library, unless results are to be reproducible."""

from __future__ import annotations

import decimal
import math

from .. import settings

# Beyond a double's 17 digits, so that rounding to a double is all that counts.
_CONTEXT = decimal.Context(prec=40)
_PI = decimal.Decimal("3.141592653589793238462643383279502884197")


def power(base: float, exponent: float) -> float:
    """base ** exponent, base >= 0."""
    if exponent == 0 or not settings.get_reproducible():
        return float(base**exponent)
    return float(_CONTEXT.power(decimal.Decimal(base), decimal.Decimal(exponent)))


def cos_pi(x: float) -> float:
    """The cosine of pi x, 0 <= x <= 1."""
    if not settings.get_reproducible():
        return math.cos(math.pi * x)
    with decimal.localcontext(_CONTEXT):
        angle = _PI * (decimal.Decimal("0.5") - decimal.Decimal(x))  # the sine of this angle
        term = total = angle
        for n in range(3, 38, 2):  # the Taylor series, to (pi / 2)^37 / 37! < 1e-35
            term *= -angle * angle / (n * (n - 1))
            total += term
    return float(total)
