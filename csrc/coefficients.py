"""Fits the tables of kernels/math.inc.h: `python csrc/coefficients.py`; needs mpmath.

Each function is interpolated at Chebyshev nodes, in 60 digits; the largest relative error of the quantity
that the kernels need, found on a dense grid, is printed with its table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath import chop, cos, erfc, exp, expm1, linspace, log, log1p, lu_solve, matrix, mp, mpf, nstr, pi, polyval, sqrt

Number = Any
Function = Callable[[Number], Number]
mp.dps = 60


def nodes(count: int, low: Number, high: Number) -> list[Number]:
    """The Chebyshev nodes of [low, high]."""
    return [(low + high) / 2 + (high - low) / 2 * cos(pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def polynomial(f: Function, degree: int, low: Number, high: Number) -> list[Number]:
    """The coefficients, constant first, of the polynomial through f at the nodes."""
    xs = nodes(degree + 1, low, high)
    powers = matrix([[x**j for j in range(degree + 1)] for x in xs])
    return list(lu_solve(powers, matrix([f(x) for x in xs])))


def rational(f: Function, degree: int, high: Number, middle: Number) -> tuple[list[Number], list[Number]]:
    """P and Q of degrees `degree` and `degree + 1`, Q monic, with P / Q = f at the nodes of [0, high].

    The nodes are Chebyshev's in (x - middle) / (x + middle): f has its features near 0 and a long tail.
    """
    ts = nodes(2 * degree + 2, mpf(-1), (high - middle) / (high + middle))
    xs = [middle * (1 + t) / (1 - t) for t in ts]
    rows = [[x**j / f(x) for j in range(degree + 1)] + [-(x**j) for j in range(degree + 1)] for x in xs]
    solved = list(lu_solve(matrix(rows), matrix([x ** (degree + 1) for x in xs])))
    return solved[: degree + 1], [*solved[degree + 1 :], mpf(1)]


def value(coefficients: list[Number], x: Number) -> Number:
    return polyval(coefficients[::-1], x)


def show(name: str, coefficients: list[Number], error: Number | None = None) -> None:
    if error is not None:
        print(f"/* largest relative error {nstr(error, 2)} */")
    body = ", ".join(float(c).hex() for c in coefficients)
    print(f"static const double {name}[] = {{{body}}};")


def worst(f: Function, g: Function, low: Number, high: Number) -> Number:
    """The largest |f / g - 1| on [low, high], which the grid does not touch."""
    grid = linspace(low, high, 4001)
    return max(abs(f(x) / g(x) - 1) for x in grid if chop(x) not in (low, high, 0))


def show_exp(bits: int, degree: int) -> None:
    """q: exp(r) - 1 = r + r^2 q(r) for |r| <= ln(2) / 2."""
    high = log(2) / 2
    q = polynomial(lambda r: (expm1(r) - r) / r**2 if chop(r) else mpf(1) / 2, degree, -high, high)
    show(f"exp_q_f{bits}", q, worst(lambda r: r + r**2 * value(q, r), expm1, -high, high))


def show_log1p(bits: int, degree: int) -> None:
    """p: log(1 + e) = 2 s (1 + w p(w)) with s = e / (2 + e), w = s^2, for e in [0, 1]."""

    def log_ratio(w: Number) -> Number:
        s = sqrt(w)
        return (log((1 + s) / (1 - s)) / (2 * s) - 1) / w

    def fitted(e: Number) -> Number:
        s = e / (2 + e)
        return 2 * s * (1 + s**2 * value(p, s**2))

    p = polynomial(log_ratio, degree, mpf(0), mpf(1) / 9)
    show(f"log1p_p_f{bits}", p, worst(fitted, log1p, mpf(0), mpf(1)))


def show_tail(bits: int, degree: int, high: int, middle: int) -> None:
    """p / q = exp(a^2 / 2) Phi(-a) for a in [0, high]; all coefficients are positive, so nothing cancels."""

    def mills(a: Number) -> Number:
        return exp(a**2 / 2) * erfc(a / sqrt(2)) / 2

    p, q = rational(mills, degree, mpf(high), mpf(middle))
    assert min(*p, *q) > 0
    show(f"tail_p_f{bits}", p, worst(lambda a: value(p, a) / value(q, a), mills, mpf(0), mpf(high)))
    show(f"tail_q_f{bits}", q)


if __name__ == "__main__":
    for bits, exp_degree, log_degree, tail_degree, high, middle in ((32, 4, 4, 5, 15, 3), (64, 10, 9, 10, 39, 4)):
        show_exp(bits, exp_degree)
        show_log1p(bits, log_degree)
        show_tail(bits, tail_degree, high, middle)
