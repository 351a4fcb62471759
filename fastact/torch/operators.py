"""How an operator is registered with PyTorch, and the shortest way to run one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad

from .. import settings

_lib: Any = torch.library.Library("fastact", "DEF")  # type: ignore[no-untyped-call]


def define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """The operator of a schema: `kernel` for CPU tensors, `fake` to check arguments and shape the results.

    Tensors that live elsewhere go to `fake` as well, for its check of the device to say what is wrong.
    """
    name = schema.partition("(")[0]
    _lib.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.fastact, name).default
    names = [argument.name for argument in operator._schema.arguments]

    def checked_fake(*args: Any) -> Any:
        tensors = [(name, arg) for name, arg in zip(names, args, strict=True) if isinstance(arg, Tensor)]
        for name, tensor in tensors:
            if tensor.device.type not in ("cpu", "meta") or tensor.layout is not torch.strided:
                got = f"a {tensor.layout} tensor on {tensor.device}"
                raise TypeError(f"{name}: got {got}, wanted a torch.strided one on the CPU")
            if tensor.device != tensors[0][1].device:
                raise TypeError(f"{name}: got a tensor on {tensor.device}, wanted {tensors[0][1].device}")
        return fake(*args)

    _lib.impl(name, kernel, "CPU")
    _lib.impl(name, checked_fake, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastact::{name}", checked_fake, lib=_lib)
    return operator


def define_autocast(operator: Any) -> None:
    """Under autocast: float32 inputs, the tier "medium" unless one is given, and y in the autocast dtype."""
    names = [argument.name for argument in operator._schema.arguments]

    def cast(name: str, value: Any) -> Any:
        if name == "precision":
            return "medium" if value is None else value
        low = isinstance(value, Tensor) and value.is_floating_point() and value.dtype is not torch.float64
        return value.float() if low else value

    def kernel(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            result = operator(*map(cast, names, args))
        y, *rest = result if isinstance(result, tuple) else (result,)
        if y.dtype is torch.float32:  # float64 stays, as it does in PyTorch's own operators
            y = y.to(dtype)
        return (y, *rest) if rest else y

    _lib.impl(operator.name().partition("::")[2], kernel, "AutocastCPU")


# Past an operator's autograd kernel to its device's.
_below_autograd = torch._C._AutoDispatchBelowAutograd


def define_autograd(operator: Any, function: Any) -> None:
    """Where autograd records, `function`, whose first argument is what to run."""

    def below(*args: Any) -> Any:
        with _below_autograd():
            return operator(*args)

    def kernel(*args: Any) -> Any:
        if not _records(args):
            return below(*args)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(f"{operator.name()} has no derivative under a torch.func transform")
        return function.apply(below, *args)

    _lib.impl(operator.name().partition("::")[2], kernel, "Autograd")


class OperatorFunction(Function):
    """What the operators' autograd formulas share: they have a first derivative in reverse mode, no other."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("fastact has no derivatives in forward mode")


def check_first_derivative(operator: Any) -> None:
    """Called by a backward: it has no derivative, which with create_graph=True would silently be zero."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{operator.name()} has no second derivative: call backward() or autograd.grad() "
            "without create_graph=True"
        )


def _records(args: tuple[Any, ...]) -> bool:
    """Whether autograd has to hear of an operation: it wants a gradient, or is in forward mode.

    What traces an operation symbolically may want a gradient later.
    """
    if forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for arg in args:
            if arg.requires_grad if isinstance(arg, Tensor) else isinstance(arg, torch.fx.Proxy):
                return True
    return False


_PLAIN_TYPES = (Tensor, nn.Parameter)
_strided = torch.strided
_compiles = torch.compiler.is_compiling
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transform = torch._C._functorch.peek_interpreter_stack
_tracer = torch._C._get_tracing_state
_autocasts = torch._C._is_any_autocast_enabled
_profiles = torch._C._autograd._profiler_enabled


def is_plain(tensors: tuple[Any, ...]) -> bool:
    """Whether the dispatcher would find nothing else to do than autograd and the CPU kernel.

    Then both may be called at once, which saves some microseconds.  Whatever else may want to see an
    operator sees one: compilers and tracers, profilers, modes, torch.func, autocast, subclasses, and tensors
    that are more, or less, than memory of this machine's.  Their dispatch keys would tell of most, in twice
    the time.
    """
    if (
        _compiles()
        or _function_modes()
        or _dispatch_modes()
        or _transform() is not None
        or _tracer() is not None
        or _autocasts()
        or _profiles()
    ):
        return False
    try:
        for tensor in tensors:
            if type(tensor) in _PLAIN_TYPES:
                if not tensor.is_cpu or tensor.layout is not _strided or tensor.is_neg():
                    return False
                if not tensor.data_ptr():  # empty, or a zero that has no memory
                    return False
            elif tensor is not None:
                return False
    except RuntimeError:  # data_ptr(), of a wrapper around other tensors
        return False
    return True


def execute(
    operator: Any,
    function: Any,
    kernel: Callable[..., Any],
    tensors: tuple[Tensor | None, ...],
    arguments: tuple[Any, ...],
    save: bool,
) -> Any:
    """The results of an operation by the shortest way; it saves what a backward takes if one may follow."""
    records = _records(tensors)
    if not is_plain(tensors):
        return operator(*arguments, save or records)
    if records:
        return function.apply(kernel, *arguments, True)
    return kernel(*arguments, save)


def recorded_tier(precision: str | None) -> str | None:
    """The tier to record with an operator, so that its backward takes the forward's.

    Compiled code asks for the tier in force each time it runs, in the forward and in the backward.  A graph
    that `make_fx` traces keeps what is recorded here.
    """
    if precision is None and not torch.compiler.is_compiling():
        return settings.get_float32_matmul_precision()
    return precision
