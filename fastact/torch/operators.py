"""How an operator is registered with PyTorch, and how a call skips the dispatcher where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.utils.flop_counter import register_flop_formula

from .. import settings

_lib: Any = torch.library.Library("fastact", "DEF")  # type: ignore[no-untyped-call]


def define(
    schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], flops: Callable[..., int]
) -> Any:
    """The operator of a schema: `kernel` for CPU tensors, `fake` to check arguments and shape the results.

    `flops` counts the operator's floating-point operations; it gets shapes in place of tensors.

    Where `kernel` or `fake` returns None for a tensor, the operator returns an empty tensor: a schema can't
    say that a result may be missing.  Tensors on other devices and of other layouts go to `fake`, whose
    check says what is wrong.
    """
    name = schema.partition("(")[0]
    _lib.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.fastact, name).default
    names = _argument_names(operator)

    def checked_kernel(*args: Any) -> Any:
        for name, arg in zip(names, args, strict=True):
            if isinstance(arg, Tensor) and not arg.data_ptr() and arg.numel():
                raise ValueError(f"{name}: got a tensor whose storage was freed, wanted one with memory")
        return _without_none(kernel(*args), args[0])

    def checked_fake(*args: Any) -> Any:
        check_placement(names, args)
        return _without_none(fake(*args), args[0])

    _lib.impl(name, checked_kernel, "CPU")
    _lib.impl(name, checked_fake, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastact::{name}", checked_fake, lib=_lib)
    register_flop_formula(getattr(torch.ops.fastact, name))(flops)
    return operator


def _argument_names(operator: Any) -> list[str]:
    return [argument.name for argument in operator._schema.arguments]


def check_placement(names: list[str], args: tuple[Any, ...]) -> None:
    """Raise TypeError unless every tensor is strided and on the CPU, or all are on "meta"."""
    tensors = [(name, arg) for name, arg in zip(names, args, strict=False) if isinstance(arg, Tensor)]
    for name, tensor in tensors:
        if tensor.is_nested:
            raise TypeError(f"{name}: got a nested tensor, wanted a torch.strided one on the CPU")
        if tensor.device.type not in ("cpu", "meta") or tensor.layout is not torch.strided:
            got = f"a {tensor.layout} tensor on {tensor.device}"
            raise TypeError(f"{name}: got {got}, wanted a torch.strided one on the CPU")
        if tensor.device != tensors[0][1].device:
            raise TypeError(f"{name}: got a tensor on {tensor.device}, wanted {tensors[0][1].device}")


def _without_none(results: Any, like: Tensor) -> Any:
    if isinstance(results, Tensor):
        return results
    return tuple([like.new_empty(0) if result is None else result for result in results])


def define_autocast(operator: Any) -> None:
    """Under autocast: float32 inputs, the tier "medium" unless one is given, and y in the autocast dtype."""
    names = _argument_names(operator)

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


# Within this context a call skips the operator's autograd kernel and runs that of the device.
_below_autograd = torch._C._AutoDispatchBelowAutograd


def define_autograd(forward: Forward, operator: Any, both: bool) -> None:
    """Register an autograd kernel: `forward.function` where autograd records, else `operator` alone."""

    def run(*args: Any) -> Any:
        with _below_autograd():
            return forward.dispatch(*args)

    def kernel(*args: Any) -> Any:
        if _exports_to_onnx():
            return forward.decompose(args, both)
        if not _records(args):
            with _below_autograd():
                return operator(*args)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(f"{operator.name()} has no derivative under a torch.func transform")
        return forward.function.apply(run, *args, both)

    _lib.impl(operator.name().partition("::")[2], kernel, "Autograd")


class Forward:
    """The forward of an operation, as two operators, whose results do not depend on the grad mode.

    `name` returns y; `name`_`saved` returns (y, saved), where `saved` is what a backward needs besides the
    inputs.  A traced graph holds the operator that was called, and runs it with and without gradients.

    Args:
        name, saved, arguments: as the schemas have them.
        kernel: called as kernel(*arguments, save) with CPU tensors; returns y, and `saved` or None.
        fake: called in the same way with tensors without values.
        flops: as for `define`.
        function: a subclass of `OperatorFunction`.  Its forward is given a function like `kernel`, the
            arguments, and whether to return `saved` as well.
        decomposition: called in the same way as `kernel`; it computes the same by PyTorch's own operators.
    """

    def __init__(
        self,
        name: str,
        saved: str,
        arguments: str,
        kernel: Callable[..., Any],
        fake: Callable[..., Any],
        flops: Callable[..., int],
        function: Any,
        decomposition: Callable[..., Any],
    ) -> None:
        self.kernel, self.fake, self.function = kernel, fake, function
        self.decomposition = decomposition
        self.names = [argument.split()[1] for argument in arguments.split(", ")]
        self.operator = define(
            f"{name}({arguments}) -> Tensor",
            lambda *args: kernel(*args, False)[0],
            lambda *args: fake(*args, False)[0],
            flops,
        )
        self.saving_operator = define(
            f"{name}_{saved}({arguments}) -> (Tensor, Tensor)",
            lambda *args: kernel(*args, True),
            lambda *args: fake(*args, True),
            flops,
        )
        for operator, both in ((self.operator, False), (self.saving_operator, True)):
            define_autograd(self, operator, both)
            define_autocast(operator)

    def dispatch(self, *args: Any) -> Any:
        """The results of `kernel`, computed by way of the dispatcher."""
        *arguments, save = args
        return self.saving_operator(*arguments) if save else (self.operator(*arguments), None)

    def decompose(self, arguments: tuple[Any, ...], both: bool) -> Any:
        """y, or (y, saved) with `both`, by PyTorch's own operators."""
        if _tracer() is None and not _autocasts():  # else sizes are not numbers, or dtypes are not final
            self.fake(*arguments, both)  # checks the arguments
        y, saved = self.decomposition(*arguments, both)
        return (y, saved) if both else y


class OperatorFunction(Function):
    """The base of the autograd formulas: a first derivative in reverse mode, and no other derivative."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("fastact has no derivatives in forward mode")


def check_first_derivative(name: str) -> None:
    """Raise RuntimeError in a backward under create_graph=True, whose derivative would silently be zero."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{name} has no second derivative: call backward() or autograd.grad() without create_graph=True"
        )


def _records(args: tuple[Any, ...]) -> bool:
    """Whether autograd must record an operation: an argument wants a gradient, or forward mode is on.

    An argument of a symbolic trace counts as one that wants a gradient, since it may want one later.
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
_exports_to_onnx = torch.onnx.is_in_onnx_export


def is_plain(tensors: tuple[Any, ...]) -> bool:
    """Whether the dispatcher would do nothing but call autograd and the CPU kernel.

    Then both may be called directly, which saves some microseconds.  A call is not plain under compilers,
    tracers, profilers, modes, torch.func and autocast, nor with subclasses of Tensor, nor with tensors that
    are not simply memory of this machine.  Dispatch keys would tell of most of these, in twice the time.
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
                if not tensor.is_cpu or tensor.layout is not _strided or tensor.is_neg() or tensor.is_nested:
                    return False
                if not tensor.data_ptr():  # empty, or a zero that has no memory
                    return False
            elif tensor is not None:
                return False
    except RuntimeError:  # data_ptr() of a tensor that wraps others
        return False
    return True


def execute(
    forward: Forward, tensors: tuple[Tensor | None, ...], arguments: tuple[Any, ...], both: bool
) -> Any:
    """y, or (y, saved) with `both`: computed by the kernel directly if the call is plain, else dispatched."""
    if not is_plain(tensors):
        operator = forward.saving_operator if both else forward.operator
        for name, tensor in zip(forward.names, tensors, strict=False):
            if tensor is not None and not hasattr(tensor, "__torch_function__"):  # proxies of fx have it too
                kind = type(tensor).__name__
                raise TypeError(f"{name}: got {kind}, wanted a torch.Tensor: try torch.as_tensor(...)")
        check_placement(forward.names, arguments)  # a subclass may fail before the operator's own check
        if _exports_to_onnx():
            return forward.decompose(arguments, both)
        return operator(*arguments)
    if _records(tensors):
        return forward.function.apply(forward.kernel, *arguments, both)
    y, saved = forward.kernel(*arguments, both)
    return (y, saved) if both else y


def run_backward(
    operator: Any,
    kernel: Callable[..., Any],
    tensors: tuple[Tensor | None, ...],
    arguments: tuple[Any, ...],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The gradients, None for each that is not needed: by the kernel directly, or dispatched."""
    if is_plain(tensors):
        return kernel(*arguments)
    grads = operator(*arguments)
    return tuple([grad if need else None for grad, need in zip(grads, needs, strict=True)])


def recorded_tier(precision: str | None) -> str | None:
    """The tier to record with an operator, so that its backward takes the forward's.

    Compiled code asks for the tier in force each time it runs, in the forward and in the backward.  A graph
    that `make_fx` traces keeps what is recorded here.
    """
    if precision is None and not torch.compiler.is_compiling():
        return settings.get_float32_matmul_precision()
    return precision
