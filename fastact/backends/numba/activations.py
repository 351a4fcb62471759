"""Element-wise activations, and the gradient of a slope.

They are computed in float64, and rounded once if the array is float32.  What the benchmark's layers use has
loops of its own, which LLVM turns into vector code: relu, and gelu of float32.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from ...activations import CUSTOM, SELU_ALPHA, SELU_SCALE, TABLE, Activation
from ..custom import kernels_of
from . import pool
from .arguments import as_carray
from .blocks import CELL, CUT, store
from .compile import CONTRACT, compiled
from .custom import ADD_SLOPE_TERMS, BACKWARD, FORWARD, call_kernel, table_of
from .scalar_math import fma
from .vectors import power_of_two

Array = np.ndarray[Any, Any]

_ELEMENT_WORK = 20  # floating-point operations that take as long as one element, roughly

_IDENTITY = TABLE["identity"].code
_RELU = TABLE["relu"].code
_LEAKY_RELU = TABLE["leaky_relu"].code
_PRELU = TABLE["prelu"].code
_ELU = TABLE["elu"].code
_SELU = TABLE["selu"].code
_GELU = TABLE["gelu"].code
_GELU_TANH = TABLE["gelu_tanh"].code
_SILU = TABLE["silu"].code
_SOFTPLUS = TABLE["softplus"].code
_MISH = TABLE["mish"].code
_SIGMOID = TABLE["sigmoid"].code
_TANH = TABLE["tanh"].code
_SOFTSIGN = TABLE["softsign"].code
_HARDSWISH = TABLE["hardswish"].code
_HARDSIGMOID = TABLE["hardsigmoid"].code
_HARDTANH = TABLE["hardtanh"].code
_RELU6 = TABLE["relu6"].code
_LOGSIGMOID = TABLE["logsigmoid"].code
_SQRT_HALF, _SQRT_HALF_REST = math.sqrt(0.5), -4.833646656726457e-17
_TWO_BY_SQRT_PI = 2 / math.sqrt(math.pi)
_TANH_GELU = math.sqrt(2 / math.pi)
# 2 sqrt(2 / pi) and 0.044715 times that, each in two parts
_LINEAR, _LINEAR_REST = 1.5957691216057308, -9.96930880911092e-17
_CUBIC, _CUBIC_REST = 0.07135481627260025, -6.175149918155315e-19
_LARGEST = np.finfo(np.float64).max


@compiled
def _sigmoid(z):
    e = math.exp(-abs(z))
    return (e if z < 0 else 1.0) / (1.0 + e)


@compiled
def _softplus(z):
    return (z if not z <= 0 else 0.0) + math.log1p(math.exp(-abs(z)))


@compiled
def _normal_cdf(z):
    """erfc(-z / sqrt 2) / 2.

    Half an ULP of the argument would become z^2 / 2 ULP of the result, so the argument has a rest.  From 40
    on the result is 0 or 1, and the rest of a large z would be larger than that.
    """
    z = -40.0 if z < -40.0 else 40.0 if z > 40.0 else z
    x = z * -_SQRT_HALF
    rest = fma(z, -_SQRT_HALF, -x) - z * _SQRT_HALF_REST
    return 0.5 * (math.erfc(x) - rest * _TWO_BY_SQRT_PI * math.exp(-x * x))


@compiled
def _gelu_logistic(z):
    """sigmoid(2 u) of u = sqrt(2 / pi) (z + 0.044715 z^3), for |z| <= 1e4.

    2 u, of up to 750 where the result is not 0, has a rest: half an ULP of it would become 375 ULP.
    """
    square = z * z
    cubic = _CUBIC * square
    cubic_rest = fma(_CUBIC, square, -cubic) + (_CUBIC * fma(z, z, -square) + _CUBIC_REST * square)
    factor = _LINEAR + cubic
    added = factor - _LINEAR
    factor_rest = (_LINEAR - (factor - added)) + (cubic - added) + (cubic_rest + _LINEAR_REST)
    twice = z * factor
    rest = fma(z, factor, -twice) + z * factor_rest
    s = _sigmoid(twice)
    return s + s * (1 - s) * rest


def _tail_ratio(x: float) -> float:
    """What the polynomial of `_gaussian_tail` approximates, for x from -1 to 1."""
    t = _LEAST_T + (1 - _LEAST_T) * (x + 1) / 2
    a = (1 / t - 1) / _TAIL_RATE
    return 0.5 * math.erfc(a * _SQRT_HALF) * math.exp(a * a / 2) / t


# The normal distribution's tail beyond a is exp(-a^2 / 2) t p(x), with t = 1 / (1 + _TAIL_RATE a), and p a
# polynomial in x, to which t is mapped linearly.  The relative error is below 2e-8 up to _TAIL_END.  Beyond,
# |z| times the tail is 0 in float32.
_TAIL_END, _TAIL_RATE = 15.0, 0.2
_LEAST_T = 1 / (1 + _TAIL_RATE * _TAIL_END)
_TAIL = tuple(chebyshev.cheb2poly(chebyshev.chebinterpolate(np.vectorize(_tail_ratio), 9)).tolist()[::-1])
_EXP = tuple(1 / math.factorial(n) for n in range(7, -1, -1))  # to 7e-9, up to half of ln 2
_LOG2_E, _LN_2 = 1 / math.log(2), math.log(2)
_SHIFT = 1.5 * 2.0**52  # a number of small magnitude plus _SHIFT is rounded to an integer
_NORMAL = 1 / math.sqrt(2 * math.pi)


@partial(compiled, fastmath=CONTRACT)
def _exp_and_tail(a):
    """exp(-a^2 / 2) and the normal distribution's tail beyond a, to 2e-8, for a from 0 to _TAIL_END."""
    exponent = -0.5 * a * a
    shifted = exponent * _LOG2_E + _SHIFT
    rest = exponent - (shifted - _SHIFT) * _LN_2
    e = 0.0
    for coefficient in _EXP:
        e = e * rest + coefficient
    e *= power_of_two(shifted)
    t = 1 / (1 + _TAIL_RATE * a)
    x = (t - _LEAST_T) * (2 / (1 - _LEAST_T)) - 1
    p = 0.0
    for coefficient in _TAIL:
        p = p * x + coefficient
    return e, e * t * p


@compiled
def _magnitude(z):
    a = abs(np.float64(z))
    return _TAIL_END if a > _TAIL_END else a


@compiled
def _gelu_row(z, y):
    """y = gelu(z) in float32: max(z, 0) - |z| tail(|z|)."""
    for i in range(z.size):
        value = z[i]
        a = _magnitude(value)
        _, tail = _exp_and_tail(a)
        y[i] = (value if not value <= 0 else 0.0) - a * tail


@compiled
def _gelu_backward_row(grad_y, z, grad_z):
    """As `_gelu_row`, of the derivative, which at z and at -z adds up to 1.

    From _TAIL_END on the derivative is 0 or 1 in float32, so an infinite grad_y makes NaN of the 0.
    """
    for i in range(z.size):
        value = z[i]
        a = _magnitude(value)
        e, tail = _exp_and_tail(a)
        left = 0.0 if a >= _TAIL_END else tail - a * _NORMAL * e
        grad_z[i] = np.float64(grad_y[i]) * (1.0 - left if value > 0 else left)


@compiled
def activate(code, parameter, z):
    """The activation of z; `parameter` is the negative slope, or alpha.

    A code without a formula gives NaN, which a test finds.
    """
    if code == _IDENTITY:
        return z
    if code == _RELU:
        return z if not z <= 0 else 0.0
    if code in (_LEAKY_RELU, _PRELU):
        return z if z > 0 else parameter * z
    if code == _ELU:
        return z if z > 0 else parameter * math.expm1(z)
    if code == _SELU:
        return SELU_SCALE * (z if z > 0 else SELU_ALPHA * math.expm1(z))
    if code == _SOFTPLUS:
        return _softplus(z)
    if code == _SIGMOID:
        return _sigmoid(z)
    if code == _TANH:
        return math.tanh(z)
    if code == _SOFTSIGN:
        return math.copysign(1.0, z) if math.isinf(z) else z / (1 + abs(z))
    if code == _HARDSWISH:
        return 0.0 if z <= -3 else z if z >= 3 else z * ((z + 3) / 6)
    if code == _HARDSIGMOID:
        return 0.0 if z <= -3 else 1.0 if z >= 3 else (z + 3) / 6
    if code == _HARDTANH:
        return -1.0 if z <= -1 else 1.0 if z >= 1 else z
    if code == _RELU6:
        return 0.0 if z <= 0 else 6.0 if z >= 6 else z
    if code == _LOGSIGMOID:
        return -_softplus(-z)
    if z == np.inf:
        return z
    z = -_LARGEST if z < -_LARGEST else z  # so that -inf * 0 is 0, the limit
    if code == _GELU:
        return z * _normal_cdf(z)
    if code == _GELU_TANH:
        return z * _gelu_logistic(
            -1e4 if z < -1e4 else 1e4 if z > 1e4 else z
        )  # 0.5 (1 + tanh u) = sigmoid(2 u)
    if code == _SILU:
        return z * _sigmoid(z)
    if code == _MISH:
        return z * math.tanh(_softplus(z))
    return math.nan


@compiled
def propagate(code, parameter, saved, grad):
    """grad_z from `saved`, which is y or z, and `grad`, which is grad_y.

    If the derivative is 0 on a whole side, an infinite grad gives 0 there, not NaN.  A code without a formula
    gives NaN, which a test finds.
    """
    if code == _IDENTITY:
        return grad
    if code == _RELU:
        return 0.0 if saved <= 0 else grad
    if code in (_LEAKY_RELU, _PRELU):
        return grad if saved > 0 else grad * parameter
    if code == _ELU:
        return grad * (1.0 if saved > 0 else parameter * math.exp(saved))
    if code == _SELU:
        return grad * (SELU_SCALE * (1.0 if saved > 0 else SELU_ALPHA * math.exp(saved)))
    if code == _SOFTPLUS:
        return grad * _sigmoid(saved)
    if code == _SIGMOID:
        return grad * (saved * (1 - saved))
    if code == _TANH:
        return grad * ((1 - saved) * (1 + saved))
    if code == _SOFTSIGN:
        return grad / ((1 + abs(saved)) * (1 + abs(saved)))
    if code == _HARDSWISH:
        return 0.0 if saved <= -3 else grad if saved >= 3 else grad * ((2 * saved + 3) / 6)
    if code == _HARDSIGMOID:
        return 0.0 if abs(saved) >= 3 else grad / 6
    if code == _HARDTANH:
        return 0.0 if abs(saved) >= 1 else grad
    if code == _RELU6:
        return 0.0 if saved <= 0 or saved >= 6 else grad
    if code == _LOGSIGMOID:
        return grad * _sigmoid(-saved)
    # beyond +-1e4 the derivative is 0 or 1, and infinities would make NaN of it
    z = -1e4 if saved < -1e4 else 1e4 if saved > 1e4 else saved
    if code == _GELU:
        return grad * (_normal_cdf(z) + z * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))
    if code == _GELU_TANH:
        u = 2 * _TANH_GELU * (z + 0.044715 * z * z * z)
        s = _sigmoid(u)
        return grad * (s + z * s * _sigmoid(-u) * 2 * _TANH_GELU * (1 + 3 * 0.044715 * z * z))
    if code == _SILU:
        return grad * (_sigmoid(z) * (1 + z * _sigmoid(-z)))
    if code == _MISH:
        q = _sigmoid(-z) ** 2  # exp(-2 softplus z), so 1 - tanh(softplus z)^2 = 4q / (1 + q)^2
        return grad * (math.tanh(_softplus(z)) + z * (4 * q / (1 + q) ** 2) * _sigmoid(z))
    return math.nan


@compiled
def _custom_row(place, code, slopes, first, arrays):
    """Run a kernel of the table at the address `code` on flat arrays; slopes repeat as for `activate_row`."""
    size, period = arrays[0].size, slopes.size
    if period == 1:
        call_kernel(code, place, slopes, 0, 0, arrays, 0, size)
        return
    start = 0
    while start < size:
        at = (first + start) % period
        count = min(period - at, size - start)
        call_kernel(code, place, slopes, at, 1, arrays, start, count)
        start += count


@compiled
def activate_row(code, parameters, first, z, y):
    """y = the activation of z, both flat; the parameter of element i is parameters[(first + i) % size].

    A code above CUSTOM is the address of a custom activation's table, and parameters are its slopes.
    """
    if code > CUSTOM:
        _custom_row(FORWARD, code, parameters, first, (z, y))
    elif code == _RELU:
        zero = y.dtype.type(0)
        for i in range(z.size):
            y[i] = z[i] if not z[i] <= 0 else zero
    elif code == _GELU and y.itemsize == 4:
        _gelu_row(z, y)
    else:
        for i in range(z.size):
            parameter = np.float64(parameters[(first + i) % parameters.size])
            y[i] = activate(code, parameter, np.float64(z[i]))


@compiled
def _propagate_row(code, parameters, first, grad_y, saved, grad_z):
    """grad_z of flat arrays; code and parameters as for `activate_row`."""
    if code > CUSTOM:
        _custom_row(BACKWARD, code, parameters, first, (grad_y, saved, grad_z))
    elif code == _RELU:
        zero = grad_z.dtype.type(0)
        for i in range(saved.size):
            grad_z[i] = zero if saved[i] <= 0 else grad_y[i]
    elif code == _GELU and saved.itemsize == 4:
        _gelu_backward_row(grad_y, saved, grad_z)
    else:
        for i in range(saved.size):
            parameter = np.float64(parameters[(first + i) % parameters.size])
            grad_z[i] = propagate(code, parameter, np.float64(saved[i]), np.float64(grad_y[i]))


@compiled
def _activation_cells(code, parameters, z, y, first, last):
    """y = activate(z); both are flat, and parameters (n,) repeats along them.  A cell is CELL elements."""
    start, stop = first * CELL, min(last * CELL, z.size)
    activate_row(code, parameters, start, z[start:stop], y[start:stop])


@compiled
def _activation_backward_cells(code, parameters, grad_y, saved, grad_z, first, last):
    start, stop = first * CELL, min(last * CELL, saved.size)
    _propagate_row(code, parameters, start, grad_y[start:stop], saved[start:stop], grad_z[start:stop])


@compiled
def _custom_slope_cells(code, slopes, grad_y, saved, terms, first, last):
    """The terms of a custom activation's slopes, added to `terms`; all are flat."""
    start, stop = first * CELL, min(last * CELL, saved.size)
    arrays = (grad_y[start:stop], saved[start:stop], terms[start:stop])
    _custom_row(ADD_SLOPE_TERMS, code, slopes, start, arrays)


@compiled
def _slope_term(grad_y, saved):
    """The term of one element in the gradient of its slope; a NaN counts as not above 0."""
    return 0.0 if saved > 0 else np.float64(grad_y) * saved


@compiled
def _grad_slopes_cells(grad_y, saved, grad_slope, accumulate, first, last):
    """grad_slope[c] = the sum of the terms of column c.  A cell is CUT columns."""
    total = np.empty(CUT)
    partial = np.empty(CUT)
    rounded = np.empty(CUT, grad_slope.dtype)
    for start in range(first * CUT, min(last * CUT, grad_slope.size), CUT):
        count = min(CUT, grad_slope.size - start)
        total[:] = 0
        for row in range(0, len(saved), CUT):
            partial[:] = 0
            for n in range(row, min(row + CUT, len(saved))):
                for c in range(count):
                    partial[c] += _slope_term(grad_y[n, start + c], saved[n, start + c])
            total += partial
        rounded[:] = total
        store(rounded, 0, grad_slope, start, count, accumulate)


@compiled
def _slope_sums_cells(grad_y, saved, totals, first, last):
    """totals[cell] = the sum of the terms of a cell: CELL elements of the flat grad_y and saved."""
    for cell in range(first, last):
        totals[cell] = 0
        stop = min((cell + 1) * CELL, saved.size)
        for start in range(cell * CELL, stop, CUT):
            partial = 0.0
            for i in range(start, min(start + CUT, stop)):
                partial += _slope_term(grad_y[i], saved[i])
            totals[cell] += partial


def code_of(act: Activation, dtype: np.dtype[Any]) -> tuple[int, Array | None]:
    """The code that `activate_row` takes, and the table that it is the address of, or None."""
    if act.custom is None:
        return act.code, None
    table = table_of(kernels_of(act.custom, dtype), act.parameter)
    return table.ctypes.data, table


@lru_cache
def _one_parameter(parameter: float, dtype: np.dtype[Any]) -> Array:
    return np.array([parameter], dtype)


def parameters_of(act: Activation, dtype: np.dtype[Any]) -> Array:
    """The slopes, or the one parameter, rounded to the dtype as NumPy does."""
    return _one_parameter(act.parameter, dtype) if act.slope is None else as_carray(act.slope)


def activation(z: Array, act: Activation, y: Array, threads: int = 0) -> None:
    code, _table = code_of(act, z.dtype)
    pool.run(
        _activation_cells,
        pool.count_cells((z.size, CELL)),
        float(_ELEMENT_WORK * z.size),
        threads,
        code,
        parameters_of(act, z.dtype),
        as_carray(z).reshape(z.size),
        y.reshape(y.size),
    )


def activation_backward(
    grad_y: Array,
    saved: Array,
    act: Activation,
    grad_z: Array,
    grad_slope: Array | None = None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    grad_y, saved = as_carray(grad_y), as_carray(saved)
    work = float(_ELEMENT_WORK * saved.size)
    cells = pool.count_cells((saved.size, CELL))
    code, _table = code_of(act, saved.dtype)
    parameters = parameters_of(act, saved.dtype)
    inputs = (grad_y.reshape(saved.size), saved.reshape(saved.size))
    if grad_slope is not None and act.custom is None:
        _grad_slope(grad_y, saved, grad_slope, accumulate, work, threads)
    elif grad_slope is not None:
        terms = np.zeros_like(saved)
        pool.run(
            _custom_slope_cells, cells, work, threads, code, parameters, *inputs, terms.reshape(saved.size)
        )
        _sum_terms(terms, grad_slope, accumulate)
    outputs = (grad_z.reshape(saved.size),)
    pool.run(_activation_backward_cells, cells, work, threads, code, parameters, *inputs, *outputs)


@np.errstate(all="ignore")
def _sum_terms(terms: Array, grad_slope: Array, accumulate: bool) -> None:
    """The sums of the columns, or of all, rounded once."""
    total = terms.sum(axis=None if grad_slope.size == 1 else 0, dtype=np.float64)
    np.add(np.asarray(total).astype(grad_slope.dtype), grad_slope if accumulate else 0, out=grad_slope)


@np.errstate(all="ignore")
def _grad_slope(
    grad_y: Array, saved: Array, grad_slope: Array, accumulate: bool, work: float, threads: int
) -> None:
    """Compute grad_slope, one or one for each column; one slope needs memory for one sum a cell, no more."""
    if grad_slope.size != 1:
        cells = pool.count_cells((grad_slope.size, CUT))
        pool.run(_grad_slopes_cells, cells, work, threads, grad_y, saved, grad_slope, accumulate)
        return
    totals = np.empty(pool.count_cells((saved.size, CELL)))
    flat = (array.reshape(saved.size) for array in (grad_y, saved))
    pool.run(_slope_sums_cells, len(totals), work, threads, *flat, totals)
    np.add(totals.sum().astype(grad_slope.dtype), grad_slope if accumulate else 0, out=grad_slope)
