"""Exponentials and logarithms that LLVM can vectorise, and the pass that puts them into a user's function.

Numba calls the C library for `math.exp` and its kin, one number at a time, and a loop with such a call has
no vector form.  These functions have no branch, so a loop over them has one.  Their error is below 3 ULP.
A fused multiply-add is written out where one is wanted: LLVM forms none by itself, so a number has the same
bits in a vector and in the rest of a loop.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir as llvm
from numba import njit, types
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.ir_utils import get_definition, guard
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
def _fma(_context, a, b, c):
    """a * b + c, rounded once."""

    def codegen(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), codegen


def inlined(function: Any, **options: Any) -> Any:
    """A function that is compiled into its callers."""
    return njit(function, nogil=True, error_model="numpy", forceinline=True, **options)


# ---- the functions.  Comparisons let a NaN pass

_LOG2_E = 1 / math.log(2)
_LN2 = (float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56"))
_LN2_HIGH, _LN2_LOW = _LN2
_ROUND = 1.5 * 2.0**52  # x + _ROUND is rounded to an integer, which the low bits hold
_ROUND_BITS = int(np.float64(_ROUND).view(np.int64))
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13 = (1 / math.factorial(k) for k in range(2, 14))
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
    """n, the bits of n + _ROUND, and exp(r) - 1 for x = n ln 2 + r, |r| <= ln(2) / 2."""
    shifted = _fma(x, _LOG2_E, _ROUND)
    n = shifted - _ROUND
    r = _fma(n, -_LN2_LOW, _fma(n, -_LN2_HIGH, x))
    p = _fma(_E13, r, _E12)
    p = _fma(p, r, _E11)
    p = _fma(p, r, _E10)
    p = _fma(p, r, _E9)
    p = _fma(p, r, _E8)
    p = _fma(p, r, _E7)
    p = _fma(p, r, _E6)
    p = _fma(p, r, _E5)
    p = _fma(p, r, _E4)
    p = _fma(p, r, _E3)
    p = _fma(p, r, _E2)
    return n, _bits(shifted), _fma(p, r * r, r)


@inlined
def _power_of_2(n):
    """2^n for -1022 <= n <= 1023."""
    return _from_bits((n + 1023) << 52)


@inlined
def _exp(x):
    x = float(x)
    x = 710.0 if x > 710.0 else x
    x = -746.0 if x < -746.0 else x
    n, shifted, p = _reduce(x)
    half = _bits(n * 0.5 + _ROUND) - _ROUND_BITS  # 2^n may be out of the range of a normal number
    return (1.0 + p) * _power_of_2(half) * _power_of_2(shifted - _ROUND_BITS - half)


@inlined
def _expm1(x):
    x = float(x)
    x = 710.0 if x > 710.0 else x
    x = -50.0 if x < -50.0 else x
    _, shifted, p = _reduce(x)
    half_power = _power_of_2(shifted - _ROUND_BITS - 1)  # 2^n may overflow
    return _fma(half_power, p, half_power - 0.5) * 2.0


@inlined
def _log(x):
    x = float(x)
    is_small = x < _SMALLEST
    bits = _bits(x * 2.0**54 if is_small else x)
    k = (bits - _SQRT_HALF_BITS) >> 52  # x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2)
    f = _from_bits(bits - (k << 52)) - 1.0
    power = float(k) - (54.0 if is_small else 0.0)
    s = f / (2.0 + f)
    w = s * s
    p = _fma(_L7, w, _L6)
    p = _fma(p, w, _L5)
    p = _fma(p, w, _L4)
    p = _fma(p, w, _L3)
    p = _fma(p, w, _L2)
    p = _fma(p, w, _L1)
    half = 0.5 * f * f
    y = _fma(power, _LN2_HIGH, f - (half - _fma(s, half + p * w, power * _LN2_LOW)))
    y = x if x == np.inf else y
    y = -np.inf if x == 0 else y
    return y if x >= 0 else np.nan


@inlined
def _log1p(x):
    x = float(x)
    u = 1.0 + x
    y = _log(u) + (x - (u - 1.0)) / u  # the second term is the rounding error of u
    return _log(u) if u == 0 or x == np.inf else y


@inlined
def _tanh(x):
    x = float(x)
    a = abs(x)
    a = 22.0 if a > 22.0 else a  # tanh is 1 from there on
    e = _expm1(2.0 * a)
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


# ---- the pass


def _named(func_ir: Any, value: Any) -> Any:
    """The object that a value of Numba's representation names: a global, or an attribute of math or NumPy."""
    if isinstance(value, ir.Global | ir.FreeVar):
        return value.value
    if isinstance(value, ir.Expr) and value.op == "getattr":
        module = guard(get_definition, func_ir, value.value)
        if isinstance(module, ir.Global | ir.FreeVar) and module.value in (math, np):
            return getattr(module.value, value.attr, None)
    return None


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[misc]
class _Vectorise(FunctionPass):  # type: ignore[misc]
    """Replaces functions of `math` and NumPy by those of `_VECTORISED`."""

    _name = "fastact_vectorise"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        changed = False
        for block in state.func_ir.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                named = _named(state.func_ir, assignment.value)
                if not callable(named) or not any(named is function for function in _VECTORISED):
                    continue
                new = _VECTORISED[named]
                assignment.value = ir.Global(new.__name__, new, assignment.loc)
                state.func_ir._definitions[assignment.target.name] = [assignment.value]
                changed = True
        return changed


class VectorMath(CompilerBase):  # type: ignore[misc]
    """Numba's compiler with the functions of this module in place of the C library's."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_Vectorise, IRProcessing)
        passes.finalize()
        return [passes]
