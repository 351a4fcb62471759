"""How compiled code reaches the kernels and the settings, and when cached code may be used.

Compiled code names the kernels; their addresses, other ones in each process, are registered with LLVM by
name.  Every function that calls one keeps a `Stamp` among its constants, which Numba saves beside the machine
code and loads before that code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic

from .. import __version__, backends, settings
from ..backends import BackendName

_SETTINGS = "fastact_settings"
_TYPES = {"int": types.int32, "int64_t": types.int64, "double": types.float64, "void": types.void}


class StaleCacheError(OSError):
    """Cached code was compiled for another backend or version; Numba compiles anew after an OSError."""


class Stamp:
    """What compiled code depends on: the backend in force, this room, the kernels."""

    def __init__(self, default: BackendName, used: BackendName) -> None:
        self.facts = (default, used, _digest(used))

    def __reduce__(self) -> tuple[Any, ...]:
        return _checked, self.facts


@functools.cache
def stamp(default: BackendName, used: BackendName) -> Stamp:
    """The stamp of a call compiled for the backend `used`, where `default` is in force."""
    return Stamp(default, used)


def _checked(default: BackendName, used: BackendName, digest: str) -> Stamp:
    """The stamp of cached code, whose kernels have an address now; StaleCacheError where it may not run."""
    try:
        fits = default == backends.get_backend() and digest == _digest(used)
    except ImportError as error:  # the backend can't load here
        raise StaleCacheError(str(error)) from error
    if not fits:
        raise StaleCacheError("fastact: the code was compiled for another backend or version")
    return stamp(default, used)


@functools.cache
def _digest(backend: BackendName) -> str:
    """A digest of what is compiled into a caller; registers the symbols that its code needs."""
    room = importlib.resources.files(__package__)
    files = [file for file in room.iterdir() if file.name.endswith(".py")]
    files.append(importlib.resources.files("fastact") / "activations.py")
    facts = sorted((file.name, file.read_bytes()) for file in files)
    if backend == "c":
        kernels: Any = sorted((name, str(_ctype(name))) for name in _register_kernels())
    else:
        from ..backends.numba.compile import room_stamp

        kernels = room_stamp()
    return hashlib.sha256(repr((__version__, facts, kernels)).encode()).hexdigest()


@functools.cache
def _register_kernels() -> tuple[str, ...]:
    """Register the kernels of C, whose names are returned, and the settings that they are called with."""
    from ..backends.c import ffi, lib
    from .table import FUNCTIONS

    llvm.add_symbol(_SETTINGS, settings.DEFAULTS.ctypes.data)
    names = tuple({f"fa_{function.kernel}" for function in FUNCTIONS})
    for name in names:
        llvm.add_symbol(_symbol(name), int(ffi.cast("uintptr_t", ffi.addressof(lib, name))))
    return names


def _symbol(name: str) -> str:
    return f"fastact_{name}"  # a name of its own, whatever else the process has loaded


def _ctype(name: str) -> Any:
    from ..backends.c import ffi, lib

    return ffi.typeof(getattr(lib, name))


@functools.cache
def c_kernel(name: str) -> Any:
    """The function `name` of csrc/api/fastact.h for nopython code: arrays, or None, stand for pointers."""
    _register_kernels()
    ctype = _ctype(name)
    result = _TYPES[ctype.result.cname]
    wanted = [None if each.kind == "pointer" else _TYPES[each.cname] for each in ctype.args]

    def typed(given: tuple[Any, ...]) -> Any:
        arguments = [ours or theirs for ours, theirs in zip(wanted, given, strict=True)]

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            lowered = [_lowered(context, builder, *each) for each in zip(sig.args, values, strict=True)]
            of = ir.FunctionType(context.get_value_type(result), [value.type for value in lowered])
            if result is types.void:
                of = ir.FunctionType(ir.VoidType(), of.args)
            function = cgutils.get_or_insert_function(builder.module, of, _symbol(name))
            returned = builder.call(function, lowered)
            return context.get_dummy_value() if result is types.void else returned

        return signature(result, *arguments), codegen

    return _intrinsic(name, len(wanted), typed)


def _lowered(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """An argument as C takes it: a number, or the address of an array's elements."""
    pointer = cgutils.voidptr_t
    if isinstance(kind, types.NoneType):
        return ir.Constant(pointer, None)
    if isinstance(kind, types.Array):
        return builder.bitcast(context.make_array(kind)(context, builder, value).data, pointer)
    return value


class Address:
    """A kernel of Numba, compiled for the types of its arguments; LLVM knows its address by `symbol`."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        from ..backends.numba import calls

        self.facts = (name, arguments)
        self.symbol = _symbol(f"{name}_{hashlib.sha256(repr(arguments).encode()).hexdigest()}")
        kernel = getattr(calls, name)
        kernel.compile(arguments)
        compiled = kernel.overloads[arguments]
        self.result = compiled.signature.return_type
        llvm.add_symbol(self.symbol, compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))

    def __reduce__(self) -> tuple[Any, ...]:
        return address, self.facts


@functools.cache
def address(name: str, arguments: tuple[Any, ...]) -> Address:
    """The function `name` of backends/numba/calls.py, for arguments of these types."""
    return Address(name, arguments)


@functools.cache
def numba_kernel(name: str, count: int) -> Any:
    """The function `name` of backends/numba/calls.py, of `count` arguments, for nopython code.

    Called as it is, Numba would link its code into the caller and optimise it there again, for a second.
    """

    def typed(given: tuple[Any, ...]) -> Any:
        arguments = tuple(types.unliteral(kind) for kind in given)
        kernel = address(name, arguments)

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            _keep(context, builder, kernel)
            of = context.call_conv.get_function_type(sig.return_type, sig.args)
            function = cgutils.get_or_insert_function(builder.module, of, kernel.symbol)
            status, returned = context.call_conv.call_function(
                builder, function, sig.return_type, sig.args, values
            )
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return returned

        return signature(kernel.result, *arguments), codegen

    return _intrinsic(name, count, typed)


def _intrinsic(name: str, count: int, typed: Any) -> Any:
    """The intrinsic `name` of `count` arguments; typed(their types) is its signature and its generator."""
    names = ", ".join(f"argument{i}" for i in range(count))
    namespace: dict[str, Any] = {"typed": typed}
    exec(f"def {name}(typing_context, {names}): return typed(({names}))", namespace)
    return intrinsic(namespace[name])


def _keep(context: Any, builder: Any, mark: Any) -> None:
    """Keep `mark` among the constants of the function that is compiled."""
    context.declare_env_global(builder.module, context.get_env_name(context.fndesc))
    if mark not in context.environment.consts:
        context.environment.consts.append(mark)


@functools.cache
def stamped(mark: Stamp) -> Any:
    """A function for nopython code that keeps `mark` with the code of its caller."""

    @intrinsic
    def keep(typing_context: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            _keep(context, builder, mark)
            return context.get_dummy_value()

        return types.none(), codegen

    return keep


@intrinsic
def default(typing_context: Any, index: Any) -> Any:
    """settings.DEFAULTS[index], read when the code runs."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        int32 = ir.IntType(32)
        of = ir.ArrayType(int32, len(settings.DEFAULTS))
        memory = builder.module.globals.get(_SETTINGS)
        if memory is None:
            memory = cgutils.add_global_variable(builder.module, of, _SETTINGS)
        return builder.load(builder.gep(memory, [int32(0), builder.trunc(values[0], int32)]))

    return types.int32(types.int64), codegen
