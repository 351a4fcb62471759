"""Activations, forward and backward.

float64 is held against mpmath, float32 against the float64 kernel of the same backend and ISA.  A derivative
is a sum of terms of the size of 1, and its error is relative to those times grad_y.  They are the derivative
itself where no terms cancel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastact as fa
from fastact import activations, backends

from .figures import Array, Figure, Pair, evaluated, in_u, in_ulps, mp, worst

TABLES = 2.0**-30  # largest error of the tables in csrc/kernels/coefficients.h
_CHUNK = 1 << 16  # numbers that fit into L2
_UNDERFLOW = 1024  # a float64 factor may be rounded to the smallest subnormal before up to 2^10 multiplies it

_SCALE, _ALPHA = mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")


def _phi(z: Any) -> Any:
    return mp.erfc(-z / mp.sqrt(2)) / 2 if abs(z) < 1000 else mp.mpf(z > 0)  # mpmath overflows there


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + mp.exp(-z))


def _softplus(z: Any) -> Any:
    return mp.log1p(mp.exp(z))


def _tanh_exponent(z: Any) -> Any:
    return 2 * mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3)


def _gelu_tanh_slope(z: Any) -> Any:
    s, minus = _sigmoid(_tanh_exponent(z)), _sigmoid(-_tanh_exponent(z))
    return s + z * s * minus * 2 * mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf("0.044715") * z**2)


def _hardsigmoid(z: Any) -> Any:
    return min(max(z + 3, 0), 6) / 6


def _between(low: int, high: int) -> Callable[[Any], Any]:
    return lambda x: mp.mpf(low < x < high)


def _silu_slope(z: Any) -> Any:
    return _sigmoid(z) * (1 + z * _sigmoid(-z))


def _mish_slope(z: Any) -> Any:
    return mp.tanh(_softplus(z)) + z * _sigmoid(z) / mp.cosh(_softplus(z)) ** 2


def _gelu_slope(z: Any) -> Any:
    return _phi(z) + z * mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


Formula = Callable[[Any], Any]
# {label: (y of z, dy/dz of what the forward saves)}; prelu's formula is leaky_relu's
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "identity": (lambda z: z, lambda y: mp.mpf(1)),
    "relu": (lambda z: max(z, mp.mpf(0)), lambda y: mp.mpf(y > 0)),
    "leaky_relu": (lambda z: z if z > 0 else z / 4, lambda z: mp.mpf(1) if z > 0 else mp.mpf("0.25")),
    "elu": (lambda z: z if z > 0 else mp.expm1(z), lambda z: mp.mpf(1) if z > 0 else mp.exp(z)),
    "selu": (
        lambda z: _SCALE * (z if z > 0 else _ALPHA * mp.expm1(z)),
        lambda z: _SCALE * (1 if z > 0 else _ALPHA * mp.exp(z)),
    ),
    "gelu": (lambda z: z * _phi(z), _gelu_slope),
    "gelu_tanh": (lambda z: z * _sigmoid(_tanh_exponent(z)), _gelu_tanh_slope),
    "silu": (lambda z: z * _sigmoid(z), _silu_slope),
    "softplus": (_softplus, _sigmoid),
    "mish": (lambda z: z * mp.tanh(_softplus(z)), _mish_slope),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "tanh": (mp.tanh, lambda y: 1 - y * y),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: 1 / (1 + abs(z)) ** 2),
    "hardswish": (
        lambda z: z * _hardsigmoid(z),
        lambda z: mp.mpf(z > 0) if abs(z) >= 3 else (2 * z + 3) / 6,
    ),
    "hardsigmoid": (_hardsigmoid, lambda z: mp.mpf(abs(z) < 3) / 6),
    "hardtanh": (lambda z: min(max(z, mp.mpf(-1)), mp.mpf(1)), _between(-1, 1)),
    "relu6": (lambda z: min(max(z, mp.mpf(0)), mp.mpf(6)), _between(0, 6)),
    "logsigmoid": (lambda z: -_softplus(-z), lambda z: _sigmoid(-z)),
}
# {label: (the activation, its keywords)}
ACTIVATIONS: dict[str, tuple[Any, dict[str, Any]]] = {label: (label, {}) for label in FORMULAS} | {
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.25}),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
}
# whose derivative has terms that cancel
_CANCELLING = ("gelu", "gelu_tanh", "silu", "mish", "hardswish")
_WITHIN_ONE = ("sigmoid", "tanh")  # whose y, which their backward takes, is at most 1 in magnitude

# {label: (the activation, its formula)}, of formulas as a user would write them
CUSTOM: dict[str, tuple[fa.CustomActivation, Formula]] = {
    "custom silu": (
        fa.custom_activation("silu", lambda z: z / (1 + math.exp(-z)), lambda z: 1.0),
        FORMULAS["silu"][0],
    ),
    "custom softplus": (
        fa.custom_activation(
            "softplus", lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), lambda z: 1.0
        ),
        FORMULAS["softplus"][0],
    ),
}
_CUSTOM_RANGE = 700.0  # beyond it exp in float64 overflows, as the user's formula has it


def _saves_y(label: str) -> bool:
    return activations.TABLE[ACTIVATIONS[label][0]].saves == "y"


# ---- samples


def points() -> Array:
    """float64 inputs: dense where the activations bend, sparse over all magnitudes."""
    rng = np.random.default_rng(20130218)
    magnitudes = np.concatenate([np.geomspace(1e-300, 1e300, 150), np.geomspace(1e-3, 800, 300)])
    bent = rng.uniform(-45, 45, 300)
    return np.concatenate([magnitudes, -magnitudes, bent, rng.uniform(-3, 3, 300)])


def chunks(step: int) -> Iterator[Array]:
    """Every step-th float32, the first and the last ones of each binade among them; not NaN."""
    binades = np.arange(512, dtype=np.uint32) << 23
    yield _numbers(np.concatenate([*(binades + np.uint32(k) for k in range(3)), binades - np.uint32(1)]))
    for start in range(0, 1 << 32, _CHUNK * step):
        stop = min(start + _CHUNK * step, 1 << 32)
        yield _numbers(np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32))


def _numbers(bits: Array) -> Array:
    values = bits.view(np.float32)
    return values[~np.isnan(values)]


def below_powers_of_two(z: Array, exact: Array, step: int) -> Array:
    """Every 16th of the floats beside those of z whose result `exact` is up to a tenth below a power of two.

    There an error relative to the result is the most ULP.  From 2^-10 to 2^7, where activations bend.
    """
    fraction, _ = np.frexp(np.abs(exact))
    near = z[(fraction > 0.9) & (np.abs(z) > 2.0**-10) & (np.abs(z) < 2.0**7)]
    bits = near.view(np.uint32)[:, np.newaxis] + np.arange(0, step, 16, dtype=np.uint32)
    return bits.reshape(-1).view(np.float32)


# ---- figures


def _worse(old: Figure | None, new: Figure) -> Figure:
    return new if old is None or new.error > old.error else old


def _forward32(label: str, activation: Any, keywords: dict[str, Any], step: int) -> Figure:
    def error(z: Array) -> tuple[Figure, Array]:
        exact = fa.activation(z.astype(np.float64), activation, **keywords)
        got = in_ulps(fa.activation(z, activation, **keywords), (exact, np.zeros(1)))
        return worst(f"{label} forward", "ulp", got, z), exact

    found = None
    for z in chunks(step):
        figure, exact = error(z)
        found = _worse(found, figure)
        near = below_powers_of_two(z, exact, step) if step > 16 else z[:0]
        if near.size:
            found = _worse(found, error(near)[0])
    assert found is not None
    return found


def _backward32(label: str, step: int) -> Figure:
    activation, keywords = ACTIVATIONS[label]
    rng, found = np.random.default_rng(0), None
    for saved in chunks(step):
        saved = saved[np.abs(saved) <= 1] if label in _WITHIN_ONE else saved
        grad_y = rng.standard_normal(saved.size).astype(np.float32)
        got = fa.activation_backward(grad_y, saved, activation, **keywords)
        grad64 = grad_y.astype(np.float64)
        exact = fa.activation_backward(grad64, saved.astype(np.float64), activation, **keywords)
        terms = np.abs(exact) + (np.abs(grad64) if label in _CANCELLING else 0)
        error = in_u(got, (exact, np.zeros(1)), terms, TABLES * np.abs(grad64), underflow=2)
        found = _worse(found, worst(f"{label} backward", "u", error, saved))
    assert found is not None
    return found


@functools.cache
def _exact_forward(label: str) -> Pair:
    return evaluated(FORMULAS[label][0], points())


def _saved(label: str) -> Array:
    x = points()
    return x[np.abs(x) <= 1] if label in _WITHIN_ONE else x


@functools.cache
def _exact_slope(label: str) -> Pair:
    return evaluated(FORMULAS[label][1], _saved(label))


def _forward64(label: str) -> Figure:
    activation, keywords = ACTIVATIONS[label]
    z = points()
    y = fa.activation(z, activation, **keywords)
    return worst(f"{label} forward", "ulp", in_ulps(y, _exact_forward(label), _UNDERFLOW), z)


def _backward64(label: str) -> Figure:
    activation, keywords = ACTIVATIONS[label]
    saved = _saved(label)
    grad_y = 2.0 ** np.random.default_rng(0).integers(-3, 3, saved.size)  # so that the product is exact
    got = fa.activation_backward(grad_y, saved, activation, **keywords)
    high, low = _exact_slope(label)
    error = in_u(got, (grad_y * high, grad_y * low), grad_y)
    return worst(f"{label} backward", "u", error, saved)


def _custom64(label: str) -> Figure:
    activation, formula = CUSTOM[label]
    z = points()
    z = z[np.abs(z) < _CUSTOM_RANGE]
    error = in_ulps(fa.activation(z, activation), evaluated(formula, z), _UNDERFLOW)
    return worst(f"{label} forward", "ulp", error, z)


def _custom32(label: str, step: int) -> Figure:
    return _forward32(label, CUSTOM[label][0], {}, step)


def measure(dtype: np.dtype[Any], step: int) -> Iterator[Figure]:
    """The figures of a dtype, float32 of every step-th number, with the backend in force."""
    single = dtype == np.float32
    for label, (activation, keywords) in ACTIVATIONS.items():
        yield _forward32(label, activation, keywords, step) if single else _forward64(label)
        yield _backward32(label, step) if single else _backward64(label)
    if backends.get_backend() == "numba":  # which compiles them for C as well
        for label in CUSTOM:
            yield _custom32(label, step) if single else _custom64(label)
