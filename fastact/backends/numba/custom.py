"""The kernels of a user's own activation, made from scalar functions for arrays of one dtype, and their call.

A kernel computes each element in float64 and rounds once.  With `vectorised`, exponentials and logarithms
are those of `scalar_math`, which LLVM vectorises; without it they are the C library's, as the NumPy backend
wants.
"""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, cfunc, config, from_dtype, njit, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from .scalar_math import ScalarMath, VectorMath, inlined

Function = Callable[..., Any]


class Kernels:
    """The kernels of an activation.

    Args:
        functions: forward, derivative and, for a learned slope, slope_derivative: each with its argument's
            name, a function of z or y, and of the parameter or the slope if `takes_parameter`.
        takes_parameter, learned: whether there is a second argument, and whether that is a slope.
        dtype: float32 or float64.
        vectorised: as above.

    Attributes:
        forward, backward, add_slope_terms: functions over flat arrays:
                forward(parameter, slope, z, y),
                backward(parameter, slope, grad_y, saved, grad_z),
                add_slope_terms(parameter, slope, grad_y, saved, sums),
            where slope repeats along the others; with one element it is for all, and without a slope unused.
        struct: the addresses in a struct fa_custom of csrc/api/fastact.h; none unless kernels are vectorised.
        address: of that struct.

    Raises:
        TypeError: Numba cannot compile a function, or it may raise, or its result is not a real number.
    """

    def __init__(
        self,
        functions: dict[str, Function],
        takes_parameter: bool,
        learned: bool,
        dtype: np.dtype[Any],
        vectorised: bool,
    ) -> None:
        of_two = {
            name: _of_two(_scalar(name, function, 1 + takes_parameter, vectorised), takes_parameter)
            for name, function in functions.items()
        }
        self.forward = _forward(of_two["forward"], learned)
        self.backward = _backward(of_two["derivative"], learned)
        self.add_slope_terms: Any = _add_slope_terms(of_two["slope_derivative"]) if learned else None
        self._callbacks: list[Any] = []
        if vectorised:
            real = from_dtype(dtype)
            self._callbacks += [
                _forward_callback(self.forward, real),
                _backward_callback(self.backward, real),
            ]
            if learned:
                self._callbacks.append(_backward_callback(self.add_slope_terms, real))
            for name, callback in zip(functions, self._callbacks, strict=True):
                if _may_raise(callback):
                    raise TypeError(f"{name}: it may raise an exception, for which a kernel has no place")
        addresses = [callback.address for callback in self._callbacks]
        self.struct = np.array(addresses + [0] * (not learned) if addresses else [], np.uintp)
        self.address = self.struct.ctypes.data


def _scalar(name: str, function: Function, arguments: int, vectorised: bool) -> Any:
    """The function `name` as one that kernels inline."""
    compiled = inlined(function, pipeline_class=VectorMath if vectorised else ScalarMath)
    try:
        compiled.compile((types.float64,) * arguments)
    except (NumbaError, NotImplementedError, AssertionError) as error:
        raise TypeError(f"{name}: Numba cannot compile it: {_shortened(error)}") from error
    (result,) = (overload.signature.return_type for overload in compiled.overloads.values())
    if not isinstance(result, types.Float | types.Integer | types.Boolean):
        raise TypeError(f"{name}: got a result of Numba's type {result}, wanted a real number")
    return compiled


def _shortened(error: Exception) -> str:
    """The first lines of Numba's message that say something, on one line."""
    boilerplate = ("Failed in nopython mode pipeline", "During: ", "There are ", "- Of which", "^", "- - ")
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(boilerplate)]
    text = " ".join(said[:3])
    return text if len(text) <= 240 else f"{text[:237]}..."


def _may_raise(callback: Any) -> bool:
    """Whether the optimised code can raise, by what it calls to make the exception."""
    optimised = config.OPT > 0 and not config.DEBUGINFO_DEFAULT
    return optimised and "@numba_unpickle" in callback.inspect_llvm()


# ---- the loops, over functions of (z or y, parameter or slope)


def _of_two(function: Any, takes_parameter: bool) -> Any:
    if takes_parameter:
        return function

    def without_parameter(value, parameter):
        return function(value)

    return inlined(without_parameter)


def _loop(kernel: Function) -> Any:
    return njit(kernel, nogil=True, error_model="numpy", forceinline=True)


def _forward(function: Any, learned: bool) -> Any:
    def forward(parameter, slope, z, y):
        if learned and slope.size > 1:
            for row in range(0, z.size, slope.size):
                for j in range(slope.size):
                    y[row + j] = function(np.float64(z[row + j]), np.float64(slope[j]))
        else:
            number = np.float64(slope[0]) if learned else parameter
            for i in range(z.size):
                y[i] = function(np.float64(z[i]), number)

    return _loop(forward)


def _backward(function: Any, learned: bool) -> Any:
    def backward(parameter, slope, grad_y, saved, grad_z):
        if learned and slope.size > 1:
            for row in range(0, saved.size, slope.size):
                for j in range(slope.size):
                    derivative = function(np.float64(saved[row + j]), np.float64(slope[j]))
                    grad_z[row + j] = np.float64(grad_y[row + j]) * derivative
        else:
            number = np.float64(slope[0]) if learned else parameter
            for i in range(saved.size):
                grad_z[i] = np.float64(grad_y[i]) * function(np.float64(saved[i]), number)

    return _loop(backward)


def _add_slope_terms(function: Any) -> Any:
    def add_slope_terms(parameter, slope, grad_y, saved, sums):
        if slope.size > 1:
            for row in range(0, saved.size, slope.size):
                for j in range(slope.size):
                    derivative = function(np.float64(saved[row + j]), np.float64(slope[j]))
                    sums[row + j] += np.float64(grad_y[row + j]) * derivative
        else:
            number = np.float64(slope[0])
            for i in range(saved.size):
                sums[i] += np.float64(grad_y[i]) * function(np.float64(saved[i]), number)

    return _loop(add_slope_terms)


# ---- for C: slope (n), or one for all if slope_step is 0


def _forward_callback(forward: Any, real: Any) -> Any:
    def callback(parameter, slope, slope_step, z, y, n):
        forward(parameter, carray(slope, n if slope_step else 1), carray(z, n), carray(y, n))

    pointer = types.CPointer(real)
    signature = types.void(types.float64, pointer, types.int64, pointer, pointer, types.int64)
    return cfunc(signature, error_model="numpy")(callback)


def _backward_callback(backward: Any, real: Any) -> Any:
    def callback(parameter, slope, slope_step, grad_y, saved, result, n):
        slopes = carray(slope, n if slope_step else 1)
        backward(parameter, slopes, carray(grad_y, n), carray(saved, n), carray(result, n))

    pointer = types.CPointer(real)
    signature = types.void(types.float64, pointer, types.int64, pointer, pointer, pointer, types.int64)
    return cfunc(signature, error_model="numpy")(callback)


# ---- for this backend: the struct with the parameter behind it

FORWARD, BACKWARD, ADD_SLOPE_TERMS, _PARAMETER = range(4)  # the places in the table of `table_of`


def table_of(kernels: Kernels, parameter: float) -> np.ndarray[Any, Any]:
    """What `call_kernel` takes the address of."""
    return np.append(kernels.struct, np.array([parameter]).view(np.uintp))


@intrinsic  # type: ignore[misc]
def call_kernel(_context, table, place, slopes, slope_at, slope_step, arrays, start, n):
    """Call the kernel at a place of the table at an address, for n elements of flat arrays, a tuple."""

    def codegen(context, builder, signature, arguments):
        table, place, slopes, slope_at, slope_step, arrays, start, n = arguments
        byte, double, word = ir.IntType(8).as_pointer(), ir.DoubleType(), n.type

        def pointer(kind, array, at):
            elements = make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(elements, [at]), byte)

        entries = builder.inttoptr(table, word.as_pointer())
        kernel, parameter = (builder.load(builder.gep(entries, [at])) for at in (place, word(_PARAMETER)))
        values = [
            builder.bitcast(parameter, double),
            pointer(signature.args[2], slopes, slope_at),
            slope_step,
            *(
                pointer(kind, builder.extract_value(arrays, i), start)
                for i, kind in enumerate(signature.args[5])
            ),
            n,
        ]
        kernel_type = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(kernel, kernel_type.as_pointer()), values)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(integer, integer, slopes, integer, integer, arrays, integer, integer), codegen
