"""Writes kernels/coefficients.h, the tables of the activations: run it after a change, then clang-format.
It needs mpmath.

Each function is interpolated at Chebyshev nodes, in 60 digits; the largest relative error of the quantity
that the kernels need, found on a dense grid, is written beside its table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import mpmath
import numpy as np
from mpmath import cos, erfc, exp, expm1, log, log1p, mp, mpf, pi, sqrt, tanh

Number = Any
Function = Callable[[Number], Number]
mp.dps = 60


def nodes(count: int, low: Number, high: Number) -> list[Number]:
    """The Chebyshev nodes of [low, high]."""
    return [(low + high) / 2 + (high - low) / 2 * cos(pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def polynomial(f: Function, degree: int, low: Number, high: Number) -> list[Number]:
    """The coefficients, constant first, of the polynomial through f at the nodes."""
    xs = nodes(degree + 1, low, high)
    powers = mpmath.matrix([[x**j for j in range(degree + 1)] for x in xs])
    return list(mpmath.lu_solve(powers, mpmath.matrix([f(x) for x in xs])))


def rational(f: Function, degree: int, high: Number, middle: Number) -> tuple[list[Number], list[Number]]:
    """P and Q of degrees `degree` and `degree + 1`, Q monic, with P / Q = f at the nodes of [0, high].

    The nodes are Chebyshev's in (x - middle) / (x + middle): f has its features near 0 and a long tail.
    """
    ts = nodes(2 * degree + 2, mpf(-1), (high - middle) / (high + middle))
    xs = [middle * (1 + t) / (1 - t) for t in ts]
    rows = [[x**j / f(x) for j in range(degree + 1)] + [-(x**j) for j in range(degree + 1)] for x in xs]
    solved = list(mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([x ** (degree + 1) for x in xs])))
    return solved[: degree + 1], [*solved[degree + 1 :], mpf(1)]


def value(coefficients: list[Number], x: Number) -> Number:
    return mpmath.polyval(coefficients[::-1], x)


def table(name: str, coefficients: list[Number]) -> str:
    body = ",\n".join(f"    {float(c).hex()}" for c in coefficients)
    return f"static const double {name}[] = {{\n{body},\n}};\n"


def comment(text: str, error: Number) -> str:
    return f"\n/* {text}; largest relative error {mpmath.nstr(error, 2)} */\n"


def worst(f: Function, g: Function, low: Number, high: Number) -> Number:
    """The largest |f / g - 1| at points inside [low, high] other than 0."""
    grid = mpmath.linspace(low, high, 4001)
    return max(abs(f(x) / g(x) - 1) for x in grid if mpmath.chop(x) not in (low, high, 0))


def write_coth(file: TextIO, bits: int, degree: int) -> None:
    high = log(2) / 2

    def rest(w: Number) -> Number:
        r = sqrt(w)
        return (r / tanh(r / 2) - 2) / w

    def fitted(r: Number) -> Number:
        c = 2 + r**2 * value(p, r**2)
        return 2 * r / (c - r)

    p = polynomial(rest, degree, mpf(0), high**2)
    error = worst(fitted, expm1, -high, high)
    text = "exp(r) - 1 = 2 r / (c - r), c = 2 + r^2 p(r^2), |r| <= ln(2) / 2"
    file.write(comment(text, error) + table(f"coth_p_f{bits}", p))


def write_log1p(file: TextIO, bits: int, degree: int) -> None:
    def log_ratio(w: Number) -> Number:
        s = sqrt(w)
        return (log((1 + s) / (1 - s)) / (2 * s) - 1) / w

    def fitted(e: Number) -> Number:
        s = e / (2 + e)
        return 2 * s * (1 + s**2 * value(p, s**2))

    p = polynomial(log_ratio, degree, mpf(0), mpf(1) / 9)
    error = worst(fitted, log1p, mpf(0), mpf(1))
    text = "log(1 + e) = 2 s (1 + w p(w)), s = e / (2 + e), w = s^2, 0 <= e <= 1"
    file.write(comment(text, error) + table(f"log1p_p_f{bits}", p))


def write_tail(file: TextIO, bits: int, degree: int, high: int, middle: int) -> None:
    def mills(a: Number) -> Number:
        return exp(a**2 / 2) * erfc(a / sqrt(2)) / 2

    p, q = rational(mills, degree, mpf(high), mpf(middle))
    assert min(*p, *q) > 0
    error = worst(lambda a: value(p, a) / value(q, a), mills, mpf(0), mpf(high))
    text = f"Phi(-a) = exp(-a^2 / 2) p(a) / q(a), 0 <= a <= {high}; all positive, so nothing cancels"
    file.write(comment(text, error) + table(f"tail_p_f{bits}", p) + table(f"tail_q_f{bits}", q))


def write_exp(file: TextIO, degree: int) -> None:
    def rest(r: Number) -> Number:
        return (expm1(r) - r) / r**2 if mpmath.chop(r) else mpf(1) / 2  # one node is 0 but for rounding

    high = log(2) / 2
    p = polynomial(rest, degree, -high, high)
    error = worst(lambda r: 1 + r + r**2 * value(p, r), exp, -high, high)
    file.write(comment("exp(r) = 1 + r + r^2 p(r), |r| <= ln(2) / 2", error) + table("exp_p", p))


def write_tanh(file: TextIO, degree: int, high: Number) -> None:
    def rest(w: Number) -> Number:
        z = sqrt(w)
        return (tanh(z) / z - 1) / w

    p = polynomial(rest, degree, mpf(0), high**2)
    error = worst(lambda z: z + z**3 * value(p, z**2), tanh, mpf(0), high)
    text = f"tanh(z) = z + z^3 p(z^2), |z| <= {mpmath.nstr(high, 2)}"
    file.write(comment(text, error) + table("tanh_p", p))


def write_half_exp(file: TextIO, degree: int) -> None:
    def rest(r: Number) -> Number:
        return expm1(-r / 2) / r if mpmath.chop(r) else mpf(-1) / 2

    high = mpf("0.76")  # ln 2, and what the square of a number's first bits leaves out
    p = polynomial(rest, degree, -high, high)
    error = worst(lambda r: 1 + r * value(p, r), lambda r: exp(-r / 2), -high, high)
    file.write(comment("exp(-r / 2) = 1 + r p(r), |r| <= 0.76", error) + table("half_exp_p", p))


def nearest_float(x: Number) -> Number:
    return mpf(float(np.float32(float(x))))


def center(f: Function, low: Number, high: Number) -> Number:
    """The float near the middle of [low, high] whose f is nearest to a float: it rounds c[0] least."""
    tries = [nearest_float((low + high) / 2 + (high - low) * i / 2048) for i in range(-300, 301)]
    return min(tries, key=lambda b: abs(nearest_float(f(b)) / f(b) - 1))


def pieces(
    f: Function, scale: Number, limit: list[Number], exact: Number = 0, size: Function | None = None
) -> tuple[str, Number]:
    """The polynomials of f on 16 intervals, those of 1 + scale a with four to each power of two.

    `limit` is b, c[0], ... of the last interval, which has no end; [] if a is never beyond it.  If f(0) = 0,
    b and c[0] of the first interval are 0, for relative accuracy.  Where c[0] is 0, the polynomial leaves out
    `exact` a, which the kernel adds.

    Returns the initialiser of a `struct pieces` and the largest error in units of size(a), by default |f(a)|.
    """
    degree, columns, error, size = 6, [], mpf(0), size or f
    for number in range(16):
        low, high = ((1 + mpf(i % 4) / 4) * 2 ** (i // 4) / scale - 1 / scale for i in (number, number + 1))
        if number == 0 and f(mpf(0)) == 0:
            slope = nearest_float(mpmath.diff(f, 0) - exact)  # exact if the derivative is a float
            rest = polynomial(lambda a, c=slope: (f(a) / a - exact - c) / a, degree - 2, low, high)
            column = [mpf(0), mpf(0), slope, *rest]
        elif number == 15 and limit:
            column = limit + [mpf(0)] * (degree + 2 - len(limit))
        else:
            b = center(f, low, high)
            rest = polynomial(lambda d, b=b: (f(b + d) - f(b)) / d, degree - 1, low - b, high - b)
            column = [b, nearest_float(f(b)), *rest]

        def fitted(a: Number, c: list[Number] = column) -> Number:
            return value(c[1:], a - c[0]) + (exact * a if c[1] == 0 else 0)

        grid = mpmath.linspace(low, high, 4001)[1:-1]
        error = max(error, *(abs((fitted(a) - f(a)) / size(a)) for a in grid))
        columns.append([nearest_float(c) for c in column])
    columns = columns[4:] + columns[:4]  # the last bits of the exponent of 1 are 11, of 2 are 00
    rows = [", ".join(f"{float(c).hex()}f" for c in row) for row in zip(*columns, strict=True)]
    body = "".join(f"{{{row}}},\n" for row in rows)
    return f"{{{float(scale).hex()}f, {{\n{body}}}}}", error


def write_pieces(file: TextIO, name: str, text: str, f: Function, scale: Number, limit: list[Number]) -> None:
    body, error = pieces(f, scale, limit)
    file.write(comment(text, error) + f"static const struct pieces {name} = {body};\n")


def write_mish(file: TextIO, scale: Number) -> None:
    def right(a: Number) -> Number:
        e = exp(-a)
        return 2 * a * e / (1 + 2 * e + 2 * e**2)

    def left(a: Number) -> Number:
        e = exp(-a)
        return a * (2 + e) / (2 + 2 * e + e**2)

    half = mpf(1) / 2
    sides = [  # the function tends to 0 on the right and to a on the left
        pieces(right, scale, [mpf(0)], size=lambda a: a * exp(a)),
        pieces(left, scale, [mpf(0), mpf(0), 1 - half], exact=half),
    ]
    bodies, errors = zip(*sides, strict=True)
    text = (
        "(max(z, 0) - mish(z)) exp(a), z = a and z = -a; on the left, where c[0] is 0, without a / 2; on the "
        "right beside a exp(a)"
    )
    file.write(comment(text, max(errors)))
    file.write(f"static const struct pieces mish_pieces[2] = {{{', '.join(bodies)}}};\n")


def write_all_pieces(file: TextIO) -> None:
    def mills(a: Number) -> Number:
        return exp(a**2 / 2) * erfc(a / sqrt(2)) / 2

    file.write(
        """
/* A function of a >= 0 on 16 intervals, those of 1 + scale a with four to each power of two, in the order of
 * the last bits of its exponent and the first two of its fraction: rows[0] is b, rows[1 + i] the coefficient
 * of (a - b)^i. */
struct pieces {
    float scale, rows[8][16];
};
"""
    )
    far, one = mpf("0.72"), mpf(1)  # exp(-13 / far) is a quarter of 2^-24
    write_pieces(file, "tanh_pieces", "tanh(a)", tanh, mpf("1.625"), [])
    write_pieces(file, "gelu_pieces", "a exp(a^2 / 2) Phi(-a)", lambda a: a * mills(a), one, [])
    text = "exp(a^2 / 2) Phi(-a) - a / sqrt(2 pi)"
    write_pieces(file, "gelu_slope_pieces", text, lambda a: mills(a) - a / sqrt(2 * pi), one, [])
    text = "-log(1 + exp(-a)) exp(a)"
    write_pieces(file, "softplus_pieces", text, lambda a: -log1p(exp(-a)) * exp(a), far, [mpf(20), -one])
    write_mish(file, far)


if __name__ == "__main__":
    with (Path(__file__).resolve().parents[1] / "kernels" / "coefficients.h").open("w") as file:
        file.write("/* Written by csrc/tools/coefficients.py; constant terms first. */\n")
        file.write("#ifndef FA_COEFFICIENTS_H\n#define FA_COEFFICIENTS_H\n")
        write_coth(file, 32, degree=2)
        write_coth(file, 64, degree=4)
        write_log1p(file, 64, degree=9)
        write_tail(file, 64, degree=10, high=39, middle=4)
        write_exp(file, degree=4)
        write_half_exp(file, degree=5)
        write_tanh(file, degree=4, high=mpf("0.55"))
        write_all_pieces(file)
        file.write("\n#endif\n")
