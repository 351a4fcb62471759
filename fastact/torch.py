"""PyTorch: fused linear + maxout and linear + activation for CPU tensors, as functions and modules.

    layer = fastact.torch.Maxout(784, 240, pieces=5)
    report = fastact.torch.accelerate(model)  # a model that exists, in place; report.restore() undoes it

float32 and float64.  The kernels read and write the tensors' own memory; only what is not contiguous is
copied.  Each forward is a custom operator `torch.ops.fastact.*` with a fake kernel and an autograd
formula whose backward is a second operator, so `torch.compile` and `torch.export` take it whole; where
the dispatcher would find nothing else to do, it is left out (`_is_plain`).  A second derivative is an error,
and so is one in forward mode.  Under `torch.autocast("cpu")` an operator casts its inputs to float32, runs
at the precision tier "medium" and returns the autocast dtype.  It uses `torch.get_num_threads()` threads
unless fastact's own number is set.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad

from . import activations, backends, init, ops, settings

_NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.uint8: np.dtype(np.uint8),
}
_FLOATS = (torch.float32, torch.float64)


# ---- checks: what `fastact.ops` checks of arrays, of real and of fake tensors


def _check_float(name: str, value: Tensor) -> None:
    if value.dtype not in _FLOATS:
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted torch.float32 or torch.float64")


def _check_dtype(name: str, value: Tensor, dtype: torch.dtype) -> None:
    if value.dtype is not dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted {dtype}")


def _check(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    _check_dtype(name, value, dtype)
    if value.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, wanted {tuple(shape)}")


def _check_linear(x: Tensor, weight: Tensor, bias: Tensor | None, dims: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of y, for a weight of these dimensions."""
    dtype = x.dtype  # every call passes here: a function is called only to say what is wrong
    if dtype not in _FLOATS:
        _check_float("x", x)
    if weight.dtype is not dtype:
        _check_dtype("weight", weight, dtype)
    *units, in_features = weight.shape or (0,)
    if len(units) != len(dims) - 1:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, wanted ({', '.join(dims)})")
    *leading, features = x.shape or (None,)
    if features != in_features:
        raise ValueError(f"x: got shape {tuple(x.shape)}, wanted (..., {in_features}) to match weight")
    if bias is not None and (bias.dtype is not dtype or bias.shape != (*units,)):
        _check("bias", bias, dtype, (*units,))
    return (*leading, units[0])


_MAXOUT_WEIGHT = ("out_features", "pieces", "in_features")


def _check_linear_maxout(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[int, ...]:
    shape = _check_linear(x, weight, bias, _MAXOUT_WEIGHT)
    if not 1 <= (pieces := weight.shape[1]) <= ops.MAX_PIECES:
        ops._check_pieces(pieces)
    return shape


def _check_maxout(z: Tensor, dim: int) -> tuple[int, tuple[int, ...]]:
    """`dim` from the front, and the shape of y."""
    _check_float("z", z)
    shape = tuple(z.shape)
    dim = ops._check_axis(dim, len(shape))
    ops._check_pieces(shape[dim])
    return dim, shape[:dim] + shape[dim + 1 :]


# ---- tensors as the arrays, or the addresses, that a backend takes


def _new(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.empty(shape, _NUMPY_DTYPES[dtype]))  # 0.6 us; torch.empty takes 1.0


def _addresses(tensors: tuple[Tensor | None, ...]) -> list[int] | None:
    """Where each one's memory is, 0 for None; None where one is not contiguous, or not aligned."""
    addresses = []
    for tensor in tensors:
        if tensor is None:
            addresses.append(0)
        elif tensor.is_contiguous() and not (address := tensor.data_ptr()) & 7:
            addresses.append(address)
        else:
            return None
    return addresses


def _array(value: Tensor) -> ops.Array:
    return value.numpy(force=True)  # the memory of a CPU tensor, whether or not it requires a gradient


def _contiguous(value: Tensor) -> ops.Array:
    return ops._contiguous(_array(value))


def _rows(value: Tensor) -> ops.Array:
    return ops._rows(_array(value))


def _gradients(shapes: tuple[tuple[int, ...], ...], needs: list[bool], x: Tensor) -> tuple[Any, ...]:
    """A new tensor for each gradient that is needed."""
    dtype = x.dtype
    return tuple([_new(shape, dtype) if need else None for shape, need in zip(shapes, needs, strict=True)])


def _fake_gradients(shapes: tuple[tuple[int, ...], ...], needs: list[bool], x: Tensor) -> tuple[Any, ...]:
    return tuple(x.new_empty(shape) if need else None for shape, need in zip(shapes, needs, strict=True))


def _threads() -> int:
    return settings.requested_threads() or torch.get_num_threads()


# ---- operators

_lib: Any = torch.library.Library("fastact", "DEF")  # type: ignore[no-untyped-call]


def _define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Any:
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


def _define_autocast(operator: Any) -> None:
    """Under autocast: float32 inputs, the tier "medium", and y in the autocast dtype."""
    names = [argument.name for argument in operator._schema.arguments]

    def cast(name: str, value: Any) -> Any:
        if name == "precision":
            return "medium"
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


def _define_autograd(operator: Any, function: Any) -> None:
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


class _Function(Function):
    """What the operators' autograd formulas share: they have a first derivative in reverse mode, no other."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("fastact has no derivatives in forward mode")


def _check_once(operator: Any) -> None:
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


def _is_plain(tensors: tuple[Any, ...]) -> bool:
    """Whether the dispatcher would find nothing else to do than autograd and the CPU kernel.

    Then both may be called at once, which saves some microseconds.  Whatever else may want to see an
    operator sees one: compilers and tracers, modes, torch.func, autocast, subclasses, and tensors that are
    more, or less, than memory of this machine's.  Their dispatch keys would tell too, in twice the time.
    """
    if (
        _compiles()
        or _function_modes()
        or _dispatch_modes()
        or _transform() is not None
        or _tracer() is not None
        or _autocasts()
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


def _run(
    operator: Any,
    function: Any,
    kernel: Callable[..., Any],
    tensors: tuple[Tensor | None, ...],
    arguments: tuple[Any, ...],
    save: bool,
) -> Any:
    """The results of an operation by the shortest way; it saves what a backward takes if one may follow."""
    records = _records(tensors)
    if not _is_plain(tensors):
        return operator(*arguments, save or records)
    if records:
        return function.apply(kernel, *arguments, True)
    return kernel(*arguments, save)


def _recorded_tier(precision: str | None) -> str | None:
    """The tier to record with an operator, so that its backward takes the forward's.

    Compiled code asks for the tier in force each time it runs, in the forward and in the backward.
    """
    if precision is None and not torch.compiler.is_compiling():
        return settings.get_float32_matmul_precision()
    return precision


# ---- linear + maxout


def _linear_maxout_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    shape = _check_linear_maxout(x, weight, bias)
    out_features, pieces, in_features = weight.shape
    y = _new(shape, x.dtype)
    argmax = _new(shape, torch.uint8) if save else None
    threads, tier = _threads(), settings.precision_in_force(precision)
    backend = backends.active()
    if hasattr(backend, "linear_maxout_at") and (addresses := _addresses((x, weight, bias, y, argmax))):
        rows = shape[0] if len(shape) == 2 else math.prod(shape[:-1])
        dtype = _NUMPY_DTYPES[x.dtype]
        backend.linear_maxout_at(dtype, rows, in_features, out_features, pieces, *addresses, threads, tier)
    else:
        backend.linear_maxout(
            _rows(x),
            _contiguous(weight),
            None if bias is None else _contiguous(bias),
            _rows(y),
            None if argmax is None else _rows(argmax),
            threads,
            tier,
        )
    return y, argmax


def _linear_maxout_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    shape = _check_linear_maxout(x, weight, bias)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8) if save else None


def _check_linear_maxout_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the gradients."""
    shape = _check_linear_maxout(x, weight)
    _check("grad_y", grad_y, x.dtype, shape)
    _check("argmax", argmax, torch.uint8, shape)
    return x.shape, weight.shape, weight.shape[:2]


def _linear_maxout_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor, needs: list[bool], precision: str | None
) -> tuple[Tensor | None, ...]:
    shapes = _check_linear_maxout_backward(grad_y, x, weight, argmax)
    out_features, pieces, in_features = weight.shape
    grads = _gradients(shapes, needs, x)
    threads, tier = _threads(), settings.precision_in_force(precision)
    backend = backends.active()
    addresses = None
    if hasattr(backend, "linear_maxout_backward_at"):
        addresses = _addresses((grad_y, x, weight, argmax, *grads))
    if addresses:
        rows = math.prod(x.shape[:-1])
        dtype = _NUMPY_DTYPES[x.dtype]
        backend.linear_maxout_backward_at(
            dtype, rows, in_features, out_features, pieces, *addresses, threads, tier
        )
    else:
        grad_x, grad_weight, grad_bias = grads
        backend.linear_maxout_backward(
            _rows(grad_y),
            _rows(x),
            _contiguous(weight),
            _rows(argmax),
            None if grad_x is None else _rows(grad_x),
            None if grad_weight is None else _array(grad_weight),
            None if grad_bias is None else _array(grad_bias),
            False,
            threads,
            tier,
        )
    return grads


def _linear_maxout_backward_fake(
    grad_y: Tensor, x: Tensor, weight: Tensor, argmax: Tensor, needs: list[bool], precision: str | None
) -> tuple[Tensor | None, ...]:
    return _fake_gradients(_check_linear_maxout_backward(grad_y, x, weight, argmax), needs, x)


_linear_maxout = _define(
    "linear_maxout(Tensor x, Tensor weight, Tensor? bias, str? precision, bool save) -> (Tensor, Tensor)",
    _linear_maxout_cpu,
    _linear_maxout_fake,
)
_linear_maxout_backward = _define(
    "linear_maxout_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor argmax, bool[3] needs, "
    "str? precision) -> (Tensor, Tensor, Tensor)",
    _linear_maxout_backward_cpu,
    _linear_maxout_backward_fake,
)


# Functions with a separate `setup_context` look up the signature of `forward` at every call: 45 us.
class _LinearMaxout(_Function):
    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Any],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        precision: str | None,
        _save: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.precision = precision = _recorded_tier(precision)
        y, argmax = run(x, weight, bias, precision, True)
        ctx.save_for_backward(x, weight, argmax)
        ctx.mark_non_differentiable(argmax)
        ctx.set_materialize_grads(False)
        return y, argmax

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 6
        _check_once(_linear_maxout)
        tensors: tuple[Any, ...] = (grad_y, *ctx.saved_tensors)
        run: Any = _linear_maxout_backward_cpu if _is_plain(tensors) else _linear_maxout_backward
        return (None, *run(*tensors, ctx.needs_input_grad[1:4], ctx.precision), None, None)


_define_autograd(_linear_maxout, _LinearMaxout)
_define_autocast(_linear_maxout)


def linear_maxout(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    return_argmax: bool = False,
    precision: str | None = None,
) -> Any:
    """Linear units in groups of `pieces`, and of each group the largest (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        x: (..., in_features), float32 or float64, on the CPU.
        weight: (out_features, pieces, in_features), the dtype of x; 1 to 256 pieces.
        bias: (out_features, pieces), the dtype of x, or None.
        return_argmax: return the index of the winning piece as well.
        precision: the float32 precision tier, "highest", "high" or "medium"; None for fastact's own
            setting.  The backward takes the same.

    Returns:
        y (..., out_features), the dtype of x; with `return_argmax` also argmax, uint8 of the same shape.
        Only y has a gradient.

    Raises:
        TypeError: a tensor is of another dtype or not on the CPU.
        ValueError: shapes do not agree, pieces is not in 1 to 256, or precision is no tier.
    """
    tensors, arguments = (x, weight, bias), (x, weight, bias, precision)
    y, argmax = _run(_linear_maxout, _LinearMaxout, _linear_maxout_cpu, tensors, arguments, return_argmax)
    return (y, argmax) if return_argmax else y


# ---- bare maxout


def _maxout_cpu(z: Tensor, dim: int, save: bool) -> tuple[Tensor, Tensor | None]:
    dim, shape = _check_maxout(z, dim)
    blocks = ops._blocks(_contiguous(z), dim)
    flat = (blocks.shape[0], blocks.shape[2])
    y = _new(shape, z.dtype)
    argmax = _new(shape, torch.uint8) if save else None
    backends.active().maxout(
        blocks,
        _array(y).reshape(flat),
        None if argmax is None else _array(argmax).reshape(flat),
        _threads(),
    )
    return y, argmax


def _maxout_fake(z: Tensor, dim: int, save: bool) -> tuple[Tensor, Tensor | None]:
    _, shape = _check_maxout(z, dim)
    return z.new_empty(shape), z.new_empty(shape, dtype=torch.uint8) if save else None


def _check_maxout_backward(
    grad_y: Tensor, argmax: Tensor, pieces: int, dim: int
) -> tuple[int, tuple[int, ...]]:
    """`dim` from the front, and the shape of grad_z."""
    _check_float("grad_y", grad_y)
    shape = tuple(grad_y.shape)
    _check("argmax", argmax, torch.uint8, shape)
    ops._check_pieces(pieces)
    dim = ops._check_axis(dim, len(shape) + 1)
    return dim, (*shape[:dim], pieces, *shape[dim:])


def _maxout_backward_cpu(grad_y: Tensor, argmax: Tensor, pieces: int, dim: int) -> Tensor:
    dim, shape = _check_maxout_backward(grad_y, argmax, pieces, dim)
    which = _contiguous(argmax)
    grad_z = _new(shape, grad_y.dtype)
    blocks = ops._blocks(_array(grad_z), dim)
    flat = (blocks.shape[0], blocks.shape[2])
    backends.active().maxout_backward(
        _contiguous(grad_y).reshape(flat), which.reshape(flat), blocks, _threads()
    )
    return grad_z


def _maxout_backward_fake(grad_y: Tensor, argmax: Tensor, pieces: int, dim: int) -> Tensor:
    return grad_y.new_empty(_check_maxout_backward(grad_y, argmax, pieces, dim)[1])


_maxout = _define("maxout(Tensor z, int dim, bool save) -> (Tensor, Tensor)", _maxout_cpu, _maxout_fake)
_maxout_backward = _define(
    "maxout_backward(Tensor grad_y, Tensor argmax, int pieces, int dim) -> Tensor",
    _maxout_backward_cpu,
    _maxout_backward_fake,
)


class _Maxout(_Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], z: Tensor, dim: int, _save: bool) -> tuple[Tensor, Tensor]:
        y, argmax = run(z, dim, True)
        ctx.dim, ctx.pieces = dim, z.shape[dim]
        ctx.save_for_backward(argmax)
        ctx.mark_non_differentiable(argmax)
        ctx.set_materialize_grads(False)
        return y, argmax

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 4
        _check_once(_maxout)
        tensors: tuple[Any, ...] = (grad_y, *ctx.saved_tensors)
        run: Any = _maxout_backward_cpu if _is_plain(tensors) else _maxout_backward
        return None, run(*tensors, ctx.pieces, ctx.dim), None, None


_define_autograd(_maxout, _Maxout)
_define_autocast(_maxout)


def maxout(z: Tensor, dim: int = -1, *, return_argmax: bool = False) -> Any:
    """The largest value along `dim`.

    Args:
        z: float32 or float64, on the CPU; 1 to 256 pieces along `dim`.
        dim: the dimension of the pieces.
        return_argmax: return the index of the winner as well.

    Returns:
        y, of z's shape without `dim`; with `return_argmax` also argmax, uint8 of the same shape.  The
        lowest index of a tie wins, and the first NaN if there is one.  Only y has a gradient.

    Raises:
        TypeError: z is of another dtype or not on the CPU.  ValueError: a bad dim or number of pieces.
    """
    y, argmax = _run(_maxout, _Maxout, _maxout_cpu, (z,), (z, dim), return_argmax)
    return (y, argmax) if return_argmax else y


# ---- linear + activation

# An activation and its keywords in a schema; None stands for a keyword's default.
_ACTIVATION = "str activation, Tensor? slope, float? negative_slope, float? alpha, str? approximate"


def _array_without_values(value: Tensor) -> ops.Array:
    return np.empty(tuple(value.shape), _NUMPY_DTYPES[value.dtype])


def _check_linear_activation(
    array: Callable[[Tensor], ops.Array],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    slope: Tensor | None,
    negative_slope: float | None,
    alpha: float | None,
    approximate: str | None,
) -> tuple[tuple[int, ...], activations.Activation]:
    """The shape of y, and the activation with `array(slope)`."""
    shape = _check_linear(x, weight, bias, ("out_features", "in_features"))
    keywords: dict[str, Any] = {"negative_slope": negative_slope, "alpha": alpha, "approximate": approximate}
    if slope is not None:
        _check_dtype("slope", slope, x.dtype)
        keywords["slope"] = array(slope)
    elif activation == "prelu":
        raise TypeError(f"slope: got None, wanted a tensor of {x.dtype}")
    given = {key: value for key, value in keywords.items() if value is not None}
    return shape, activations.resolve(activation, weight.shape[0], _NUMPY_DTYPES[x.dtype], given)


def _linear_activation_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, *activation: Any
) -> tuple[Tensor, Tensor | None]:
    *keywords, precision, save = activation
    shape, act = _check_linear_activation(_array, x, weight, bias, *keywords)
    y = _new(shape, x.dtype)
    z = _new(shape, x.dtype) if save and act.saves == "z" else None
    backends.active().linear_activation(
        _rows(x),
        _contiguous(weight),
        None if bias is None else _contiguous(bias),
        act,
        _rows(y),
        None if z is None else _rows(z),
        _threads(),
        settings.precision_in_force(precision),
    )
    return y, z


def _linear_activation_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, *activation: Any
) -> tuple[Tensor, Tensor | None]:
    *keywords, _, save = activation
    shape, act = _check_linear_activation(_array_without_values, x, weight, bias, *keywords)
    return x.new_empty(shape), x.new_empty(shape) if save and act.saves == "z" else None


def _check_linear_activation_backward(
    array: Callable[[Tensor], ops.Array],
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    saved: Tensor,
    *keywords: Any,
) -> tuple[tuple[tuple[int, ...], ...], activations.Activation]:
    """The shapes of the gradients, and the activation."""
    shape, act = _check_linear_activation(array, x, weight, None, *keywords)
    _check("grad_y", grad_y, x.dtype, shape)
    _check("saved", saved, x.dtype, shape)
    slope = keywords[1]
    return (x.shape, weight.shape, weight.shape[:1], () if slope is None else slope.shape), act


def _linear_activation_backward_cpu(
    grad_y: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *activation: Any
) -> tuple[Tensor | None, ...]:
    *keywords, needs, precision = activation
    shapes, act = _check_linear_activation_backward(_array, grad_y, x, weight, saved, *keywords)
    grad_x, grad_weight, grad_bias, grad_slope = _gradients(shapes, needs, x)
    backends.active().linear_activation_backward(
        _rows(grad_y),
        _rows(x),
        _contiguous(weight),
        _rows(saved),
        act,
        None if grad_x is None else _rows(grad_x),
        None if grad_weight is None else _array(grad_weight),
        None if grad_bias is None else _array(grad_bias),
        None if grad_slope is None else _array(grad_slope).reshape(-1),
        False,
        _threads(),
        settings.precision_in_force(precision),
    )
    return grad_x, grad_weight, grad_bias, grad_slope


def _linear_activation_backward_fake(
    grad_y: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *activation: Any
) -> tuple[Tensor | None, ...]:
    *keywords, needs, _ = activation
    shapes, _ = _check_linear_activation_backward(_array_without_values, grad_y, x, weight, saved, *keywords)
    return _fake_gradients(shapes, needs, x)


_linear_activation = _define(
    f"linear_activation(Tensor x, Tensor weight, Tensor? bias, {_ACTIVATION}, str? precision, bool save) "
    "-> (Tensor, Tensor)",
    _linear_activation_cpu,
    _linear_activation_fake,
)
_linear_activation_backward = _define(
    f"linear_activation_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor saved, {_ACTIVATION}, "
    "bool[4] needs, str? precision) -> (Tensor, Tensor, Tensor, Tensor)",
    _linear_activation_backward_cpu,
    _linear_activation_backward_fake,
)


class _LinearActivation(_Function):
    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Any],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *activation: Any,
    ) -> tuple[Tensor, Tensor | None]:
        *keywords, precision, _save = activation
        ctx.name, slope, *ctx.keywords = keywords
        ctx.precision = precision = _recorded_tier(precision)
        y, z = run(x, weight, bias, *keywords, precision, True)
        if z is not None:
            ctx.mark_non_differentiable(z)
        ctx.save_for_backward(x, weight, y if z is None else z, slope)
        ctx.set_materialize_grads(False)
        return y, z

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 11
        _check_once(_linear_activation)
        x, weight, saved, slope = ctx.saved_tensors
        plain = _is_plain((grad_y, x, weight, saved, slope))
        run = _linear_activation_backward_cpu if plain else _linear_activation_backward
        needs = [ctx.needs_input_grad[i] for i in (1, 2, 3, 5)]
        grad_x, grad_weight, grad_bias, grad_slope = run(
            grad_y, x, weight, saved, ctx.name, slope, *ctx.keywords, needs, ctx.precision
        )
        return None, grad_x, grad_weight, grad_bias, None, grad_slope, *(None,) * 5


_define_autograd(_linear_activation, _LinearActivation)
_define_autocast(_linear_activation)


def linear_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "relu",
    *,
    slope: Tensor | None = None,
    negative_slope: float | None = None,
    alpha: float | None = None,
    approximate: str | None = None,
    precision: str | None = None,
) -> Any:
    """A linear layer and its activation in one pass: y = activation(x @ weight.T + bias).

    Args:
        x: (..., in_features), float32 or float64, on the CPU.
        weight: (out_features, in_features), the dtype of x.
        bias: (out_features,), the dtype of x, or None.
        activation: a name of the table in `fastact.activations`.
        slope, negative_slope, alpha, approximate: the keyword that the activation takes; the table
            tells its default.  A PReLU's slope has one value or out_features, and a gradient.
        precision: as for `linear_maxout`.

    Returns:
        y (..., out_features), the dtype of x.

    Raises:
        TypeError: a tensor is of another dtype or not on the CPU, or the activation does not take a keyword.
        ValueError: shapes do not agree, the activation is unknown, or a keyword's value is bad.
    """
    keywords = (activation, slope, negative_slope, alpha, approximate)
    tensors = (x, weight, bias, slope)
    arguments = (x, weight, bias, *keywords, precision)
    return _run(_linear_activation, _LinearActivation, _linear_activation_cpu, tensors, arguments, False)[0]


# ---- modules


class Maxout(nn.Module):
    """`linear_maxout` as a layer: in_features in, out_features maxima of `pieces` linear units each out.

    Args:
        in_features, out_features: as those of `nn.Linear`.
        pieces: how many linear units each output takes the largest of, 1 to 256.
        bias: False leaves the bias out.
        device, dtype: of the parameters.
        precision: the float32 precision tier of this layer; None for fastact's own setting.

    Parameters: weight (out_features, pieces, in_features), which starts normal with the standard deviation
    of `fastact.init.maxout_std`, and bias (out_features, pieces), which starts at 0.

    Raises:
        ValueError: pieces is not in 1 to 256, or precision is no tier.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        precision: str | None = None,
    ) -> None:
        super().__init__()
        ops._check_pieces(pieces)
        self.in_features, self.out_features, self.pieces = in_features, out_features, pieces
        self.precision = precision if precision is None else settings.check_precision(precision)
        self.weight = nn.Parameter(
            torch.empty((out_features, pieces, in_features), device=device, dtype=dtype)
        )
        self.register_parameter(
            "bias",
            nn.Parameter(torch.empty((out_features, pieces), device=device, dtype=dtype)) if bias else None,
        )
        self.reset_parameters()

    @classmethod
    def from_linear(cls, linear: nn.Linear, pieces: int, precision: str | None = None) -> Maxout:
        """A copy of a Linear whose every `pieces` neighbouring units are the pieces of one output.

        Raises ValueError where `pieces` does not divide the units.
        """
        ops._check_pieces(pieces)
        if linear.out_features % pieces:
            raise ValueError(f"pieces: got {pieces}, which does not divide {linear.out_features} units")
        weight, bias = linear.weight.detach(), linear.bias
        layer = cls(
            linear.in_features,
            linear.out_features // pieces,
            pieces,
            bias=bias is not None,
            device="meta",
            precision=precision,
        )
        layer.weight = nn.Parameter(weight.clone().view(layer.weight.shape))
        if layer.bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone().view(layer.bias.shape))
        return layer.train(linear.training)

    def reset_parameters(self) -> None:
        """Draw the initial weight, from PyTorch's generator."""
        nn.init.normal_(self.weight, std=init.maxout_std(self.in_features, self.pieces))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        parameters = self._parameters  # an attribute that is a parameter takes 0.4 us to find
        if (weight := parameters.get("weight")) is None or (bias := parameters.get("bias")) is None:
            weight, bias = self.weight, self.bias  # made from others, or not there
        return linear_maxout(x, weight, bias, precision=self.precision)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}, pieces={self.pieces}"
        text += f", bias={self.bias is not None}"
        return text if self.precision is None else f"{text}, precision={self.precision!r}"


class LinearActivation(nn.Linear):
    """`linear_activation` as a layer: an `nn.Linear`, parameters and initialisation included, and more.

    Args:
        in_features, out_features, bias, device, dtype: as those of `nn.Linear`.
        activation: a name of the table in `fastact.activations`.
        precision: the float32 precision tier of this layer; None for fastact's own setting.
        **keywords: the activation's own.  "prelu" learns the parameter `slope`, which starts at this
            keyword, 0.25 unless given: a number for one slope, or a sequence of out_features.

    Raises:
        TypeError: the activation does not take a keyword.
        ValueError: the activation is unknown, or a keyword's value or the precision is bad.
    """

    slope: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "relu",
        device: Any = None,
        dtype: torch.dtype | None = None,
        precision: str | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.precision = precision if precision is None else settings.check_precision(precision)
        slope = None
        if activation == "prelu":
            values = np.atleast_1d(np.array(keywords.pop("slope", 0.25), np.float64))
            activations.resolve(activation, out_features, values.dtype, keywords | {"slope": values})
            slope = nn.Parameter(torch.tensor(values, device=device, dtype=self.weight.dtype))
        else:
            activations.resolve(activation, out_features, np.dtype(np.float64), keywords)
        self.activation, self.keywords = activation, keywords
        self.register_parameter("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        return linear_activation(  # type: ignore[no-any-return]
            x,
            self.weight,
            self.bias,
            self.activation,
            slope=self.slope,
            precision=self.precision,
            **self.keywords,
        )

    def extra_repr(self) -> str:
        settings = {"precision": self.precision, **self.keywords}
        given = [f"{key}={value!r}" for key, value in settings.items() if value is not None]
        return ", ".join([super().extra_repr(), f"activation={self.activation!r}", *given])


class PooledLinear(nn.Linear):
    """An `nn.Linear` of out_features * pieces units that passes on the largest of each group.

    The parameters are nn.Linear's own, in the order of a model that exists, which `accelerate` keeps.

    Args:
        linear: whose parameters to share.
        pieces: how many units are in a group.
        piece_major: False for groups of neighbouring units, unit j * pieces + k; True where unit
            k * out_features + j is piece k of output j.  The weight is then reordered for every call.
    """

    def __init__(self, linear: nn.Linear, pieces: int, piece_major: bool = False) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.pieces, self.piece_major = pieces, piece_major

    def _grouped(self, parameter: Tensor) -> Tensor:
        """(units, ...) -> (out_features, pieces, ...), a view."""
        if self.piece_major:
            return parameter.view(self.pieces, -1, *parameter.shape[1:]).transpose(0, 1)
        return parameter.view(-1, self.pieces, *parameter.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self._grouped(self.bias)
        return linear_maxout(x, self._grouped(self.weight), bias)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pieces={self.pieces}, piece_major={self.piece_major}"


# ---- accelerate: models that exist

_KEYWORDS: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.ReLU: ("relu", ()),
    nn.LeakyReLU: ("leaky_relu", ("negative_slope",)),
    nn.ELU: ("elu", ("alpha",)),
    nn.SELU: ("selu", ()),
    nn.GELU: ("gelu", ("approximate",)),
    nn.SiLU: ("silu", ()),
    nn.Softplus: ("softplus", ()),
    nn.Mish: ("mish", ()),
    nn.Sigmoid: ("sigmoid", ()),
    nn.Tanh: ("tanh", ()),
}
_STANZA = "stanza.models.common.maxout_linear.MaxoutLinear"


class Change(NamedTuple):
    """One replacement: the name of the first module that it took the place of, and what is now there."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.after}"


class Report:
    """What `accelerate` did; `print(report)` tells.

    Attributes:
        replaced: a `Change` for each replacement.
        skipped: (name, reason) for each place that looks like one but was left alone.
    """

    def __init__(self) -> None:
        self.replaced: list[Change] = []
        self.skipped: list[tuple[str, str]] = []
        self._originals: list[tuple[nn.Module, str, nn.Module]] = []
        self._linears: list[tuple[nn.Linear, nn.Linear]] = []

    def _replace(self, parent: nn.Module, found: dict[str, nn.Module], fused: nn.Module) -> None:
        for (name, child), new in zip(found.items(), (fused, nn.Identity()), strict=False):
            setattr(parent, name, new.train(child.training))
            self._originals.append((parent, name, child))
        first = next(iter(found.values()))
        self._linears.append((_linear_in(first), _linear_in(fused)))

    def restore(self) -> None:
        """Put the original modules back, with the parameters as they are now."""
        for linear, fused in self._linears:
            linear.weight, linear.bias = fused.weight, fused.bias
        for parent, name, original in self._originals:
            original.train(parent.get_submodule(name).training)
            setattr(parent, name, original)
        self._linears.clear()
        self._originals.clear()

    def __repr__(self) -> str:
        lines = [f"{len(self.replaced)} replaced", *(f"  {change}" for change in self.replaced)]
        if self.skipped:
            lines += [f"{len(self.skipped)} left alone", *(f"  {name}: {why}" for name, why in self.skipped)]
        return "\n".join(lines)


def _linear_in(module: Any) -> nn.Linear:
    return module if isinstance(module, nn.Linear) else module.linear


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _obstacle(linear: nn.Linear, *others: nn.Module) -> str | None:
    """Why a Linear and what follows it have to stay as they are."""
    for module in (linear, *others):
        if any(getattr(module, hooks) for hooks in _HOOKS):
            return f"{type(module).__name__} has hooks"
        if "forward" in vars(module):
            return f"{type(module).__name__} has a forward of its own"
    if linear.weight.dtype not in _FLOATS:
        return f"its dtype is {linear.weight.dtype}"
    if not linear.weight.is_cpu:
        return f"it is on {linear.weight.device}"
    return None


def _single(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def _fused_pair(linear: nn.Linear, after: Any) -> nn.Module | str | None:
    """What does the work of both; or why nothing may; or None where `after` is none of those known."""
    kind = type(after)
    if kind is nn.PReLU:
        return "the slope of PReLU would change its name in the state dict"
    if kind is nn.MaxPool1d:
        pieces = _single(after.kernel_size)
        plain = (_single(after.stride), _single(after.padding), _single(after.dilation)) == (pieces, 0, 1)
        if not plain or after.return_indices or linear.out_features % pieces or pieces > ops.MAX_PIECES:
            return f"{after} does not take the largest of whole groups of units"
        return _obstacle(linear, after) or PooledLinear(linear, pieces)
    if kind not in _KEYWORDS:
        return None
    if kind is nn.Softplus and (after.beta != 1 or after.threshold < 20):
        return f"{after} is not log(1 + exp z) to float32's precision"
    activation, attributes = _KEYWORDS[kind]
    keywords = {name: getattr(after, name) for name in attributes}
    if obstacle := _obstacle(linear, after):
        return obstacle
    fused = LinearActivation(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        activation,
        device="meta",
        **keywords,
    )
    fused.weight, fused.bias = linear.weight, linear.bias
    return fused


def _fused_maxout(module: Any) -> nn.Module | str | None:
    """The same for one module that is a known maxout layer; the names of its parameters stay."""
    kind = type(module)
    if f"{kind.__module__}.{kind.__qualname__}" != _STANZA:
        return None
    if obstacle := _obstacle(module.linear, module):
        return obstacle
    return nn.Sequential(OrderedDict(linear=PooledLinear(module.linear, module.maxout_k, piece_major=True)))


def _candidates(parent: nn.Module) -> Iterator[tuple[dict[str, nn.Module], nn.Module | str]]:
    """The children of `parent` that one module could stand in for, with that or why it may not."""
    children = [(name, child) for name, child in parent._modules.items() if child is not None]
    if type(parent).forward is nn.Sequential.forward:
        for pair in itertools.pairwise(children):
            (_, linear), (_, after) = pair
            if type(linear) is nn.Linear and (fused := _fused_pair(linear, after)) is not None:
                yield dict(pair), fused
    for name, child in children:
        if (fused := _fused_maxout(child)) is not None:
            yield {name: child}, fused


def accelerate(module: nn.Module) -> Report:
    """Run what fastact knows of a model fused, in place, in inference and in training.

    Within an `nn.Sequential`, a Linear followed by ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, Softplus, Mish,
    Sigmoid or Tanh becomes a `LinearActivation` and an `nn.Identity`; a Linear followed by a MaxPool1d
    over whole groups of units, which is maxout, becomes a `PooledLinear` and an `nn.Identity`.
    Anywhere below `module`, stanza's `MaxoutLinear` becomes a `PooledLinear`.  The parameters stay the same
    objects with the same names, so optimisers and state dicts stay valid.

    A module with hooks is left alone, and so is one that is not on the CPU, or neither float32 nor float64.
    A Sequential is taken to be called as a whole, not child by child.

    Returns:
        A report of what was replaced and what was left alone, which prints well; its `restore()`
        puts the original modules back.

    Raises:
        TypeError: `module` is no `nn.Module`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: got {type(module).__name__}, wanted a torch.nn.Module")
    report = Report()
    for path, parent in list(module.named_modules()):
        for found, fused in list(_candidates(parent)):
            name = ".".join(filter(None, (path, next(iter(found)))))
            if isinstance(fused, str):
                report.skipped.append((name, fused))
                continue
            report._replace(parent, found, fused)
            before = " + ".join(type(child).__name__ for child in found.values())
            report.replaced.append(Change(name, before, str(fused)))
    return report
