"""Exponentials and logarithms that LLVM can vectorise, and the pass that puts them into a user's function.

Numba calls the C library for `math.exp` and its kin, one number at a time, and a loop with such a call has
no vector form.  These functions have no branch, so a loop over them has one.  Their error is below 3 ULP, or
below 1e-306.
A fused multiply-add is written out where one is wanted: LLVM forms none by itself, so a number has the same
bits in a vector and in the rest of a loop.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import functools
import math
import operator
from types import ModuleType
from typing import Any

import numpy as np
from llvmlite import ir as llvm
from numba import njit, types
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.errors import UnsupportedError
from numba.core.ir_utils import find_const, get_definition, guard, mk_unique_var
from numba.core.untyped_passes import IRProcessing
from numba.extending import intrinsic

# ---- what LLVM has and Python has not


@intrinsic  # type: ignore[misc]
def _bits(_context, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], llvm.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic  # type: ignore[misc]
def _from_bits(_context, bits):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], llvm.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic  # type: ignore[misc]
def fma(_context, a, b, c):
    """a * b + c, rounded once."""

    def codegen(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), codegen


@intrinsic  # type: ignore[misc]
def _at_most(_context, x, limit):
    """The smaller one, x if it is NaN: without a branch, so that it is one instruction."""

    def codegen(context, builder, signature, arguments):
        x, limit = arguments
        return builder.select(builder.fcmp_ordered("<", limit, x), limit, x)

    return types.float64(types.float64, types.float64), codegen


def inlined(function: Any, **options: Any) -> Any:
    """A function that is compiled into its callers."""
    return njit(function, nogil=True, error_model="numpy", forceinline=True, **options)


# ---- the functions.  Comparisons let a NaN pass

_LOG2_E = 1 / math.log(2)
_LN2 = (float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56"))
_LN2_HIGH, _LN2_LOW = _LN2
_ROUND = 1.5 * 2.0**52  # x + _ROUND is rounded to an integer, which the low bits hold
_ROUND_BITS = int(np.float64(_ROUND).view(np.int64))
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, within 1.1e-16: Chebyshev's interpolation (mpmath.chebyfit)
_E2, _E3, _E4, _E5, _E6 = (
    0.5000000000000001,
    0.16666666666666669,
    0.04166666666662413,
    0.008333333333330062,
    0.0013888888917213717,
)
_E7, _E8, _E9, _E10, _E11 = (
    0.00019841269863053618,
    2.4801521295954376e-05,
    2.7557268459997064e-06,
    2.7620088445409746e-07,
    2.510038549551032e-08,
)
_SQRT_HALF_BITS = int(np.float64(math.sqrt(0.5)).view(np.int64))
# the coefficients of fdlibm's e_log.c (Sun Microsystems 1993)
_L1, _L2, _L3, _L4 = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
)
_L5, _L6, _L7 = 1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01
_SMALLEST = float(np.finfo(np.float64).tiny)


@inlined
def _reduce(x):
    """n as an integer, and exp(r) - 1 for x = n ln 2 + r, |r| <= ln(2) / 2."""
    shifted = fma(x, _LOG2_E, _ROUND)
    n = shifted - _ROUND
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, x))
    r2 = r * r
    r4 = r2 * r2
    low = fma(fma(_E5, r, _E4), r2, fma(_E3, r, _E2))
    high = fma(fma(_E11, r, _E10), r4, fma(fma(_E9, r, _E8), r2, fma(_E7, r, _E6)))
    return _bits(shifted) - _ROUND_BITS, fma(fma(high, r4, low), r2, r)


@inlined
def _power_of_2(n):
    """2^n for -1022 <= n <= 1023."""
    return _from_bits((n + 1023) << 52)


@inlined
def _exp(x):
    """0 for x < -708, where exp(x) is nearly below the normal numbers."""
    x = float(x)
    n, p = _reduce(_at_most(x, 710.0))
    y = (1.0 + p) * _power_of_2(n - 1) * 2.0  # 2^n may overflow
    return 0.0 if x < -708.0 else y


@inlined
def _expm1(x):
    x = float(x)
    n, p = _reduce(_at_most(x, 710.0))
    half_power = _power_of_2(n - 1)
    y = fma(half_power, p, half_power - 0.5) * 2.0
    return -1.0 if x < -40.0 else y


@inlined
def _log_of_product(k, m, error):
    """log(2^k (m + error)) for sqrt(1/2) <= m < sqrt(2), and an error of m below its last place."""
    f = (m - 1.0) + error
    s = f / (2.0 + f)
    w = s * s
    w2 = w * w
    low = fma(fma(_L4, w, _L3), w2, fma(_L2, w, _L1))
    p = fma(fma(_L7, w2, fma(_L6, w, _L5)), w2 * w2, low)
    half = 0.5 * f * f
    return fma(k, _LN2_HIGH, f - (half - fma(s, half + p * w, k * _LN2_LOW)))


@inlined
def _log(x):
    x = float(x)
    is_small = x < _SMALLEST
    bits = _bits(x * 2.0**54 if is_small else x)
    k = (bits - _SQRT_HALF_BITS) >> 52
    y = _log_of_product(float(k) - (54.0 if is_small else 0.0), _from_bits(bits - (k << 52)), 0.0)
    y = x if x == np.inf else y
    y = -np.inf if x == 0 else y
    return y if x >= 0 else np.nan


@inlined
def _log1p(x):
    x = float(x)
    u = 1.0 + x
    bits = _bits(u)
    k = (bits - _SQRT_HALF_BITS) >> 52
    error = (x - (u - 1.0)) * _power_of_2(-k)  # the rounding error of u; 0 for large u
    error = 0.0 if u > 2.0**60 else error
    y = _log_of_product(float(k), _from_bits(bits - (k << 52)), error)
    y = x if x == np.inf else y
    y = -np.inf if u == 0 else y
    return y if u >= 0 else np.nan


@inlined
def _tanh(x):
    x = float(x)
    e = _expm1(2.0 * _at_most(abs(x), 22.0))  # tanh is 1 from there on
    y = e / (e + 2.0)
    return -y if x < 0 else y


_VECTORISED = {
    math.exp: _exp,
    np.exp: _exp,
    math.expm1: _expm1,
    np.expm1: _expm1,
    math.log: _log,
    np.log: _log,
    math.log1p: _log1p,
    np.log1p: _log1p,
    math.tanh: _tanh,
    np.tanh: _tanh,
}


# ---- the compiler of a user's function


def _named(func_ir: Any, value: Any) -> Any:
    """The object that a value of Numba's representation names: a global, or an attribute of a module."""
    if isinstance(value, ir.Global | ir.FreeVar):
        return value.value
    if isinstance(value, ir.Expr) and value.op == "getattr":
        module = guard(get_definition, func_ir, value.value)
        if isinstance(module, ir.Global | ir.FreeVar) and isinstance(module.value, ModuleType):
            return getattr(module.value, value.attr, None)
    return None


@functools.cache
def _called(function: Any, compiler: Any) -> Any:
    """A function that the user has given to Numba, and that the user's own calls, compiled as that one is."""
    return inlined(function, pipeline_class=compiler)


@functools.cache
def _reciprocal_power(n: int) -> Any:
    """z -> z ** -n, which is infinite at 0; Numba's own raises there, and has no vector form."""

    def reciprocal_power(z):
        return 1.0 / z**n

    return inlined(reciprocal_power)


class _Replace(FunctionPass):  # type: ignore[misc]
    """Replaces what a user's function calls by functions that do not raise, and have a vector form."""

    compiler: Any
    functions: dict[Any, Any]

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            if any(True for _ in block.find_insts(ir.Raise)):
                raise UnsupportedError("it raises an exception, for which a kernel has no place")
            for assignment in list(block.find_insts(ir.Assign)):
                value = assignment.value
                if isinstance(value, ir.Expr) and value.op == "binop" and value.fn is operator.pow:
                    self.replace_power(state.func_ir, block, assignment)
                    continue
                new = self.replacement(_named(state.func_ir, value))
                if new is not None:
                    assignment.value = ir.Global(new.__name__, new, assignment.loc)
                    state.func_ir._definitions[assignment.target.name] = [assignment.value]
        return True

    def replacement(self, named: Any) -> Any:
        if isinstance(named, Dispatcher):
            return _called(named.py_func, self.compiler)
        found = [new for function, new in self.functions.items() if named is function]
        return found[0] if found else None

    def replace_power(self, func_ir: Any, block: Any, assignment: Any) -> None:
        power, loc = assignment.value, assignment.loc
        exponent = guard(find_const, func_ir, power.rhs)
        if type(exponent) is int and exponent < 0:
            function = _reciprocal_power(-exponent)
            variable = ir.Var(block.scope, mk_unique_var("reciprocal_power"), loc)
            named = ir.Global(function.__name__, function, loc)
            block.body.insert(block.body.index(assignment), ir.Assign(named, variable, loc))
            assignment.value = ir.Expr.call(variable, [power.lhs], (), loc)
            func_ir._definitions[variable.name] = [named]
            func_ir._definitions[assignment.target.name] = [assignment.value]


class _Compiler(CompilerBase):  # type: ignore[misc]
    replace: type[_Replace]

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(self.replace, IRProcessing)
        passes.finalize()
        return [passes]


class ScalarMath(_Compiler):
    """Numba's compiler for a function that does not raise."""


class VectorMath(_Compiler):
    """`ScalarMath` with the functions of this module in place of the C library's."""


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[misc]
class _ReplaceCalls(_Replace):
    _name = "fastact_replace_calls"
    compiler, functions = ScalarMath, {}


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[misc]
class _ReplaceCallsAndMath(_Replace):
    _name = "fastact_replace_calls_and_math"
    compiler, functions = VectorMath, _VECTORISED


ScalarMath.replace, VectorMath.replace = _ReplaceCalls, _ReplaceCallsAndMath
