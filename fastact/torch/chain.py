"""Chains: consecutive layers in one call of the C backend forward, and in one backward.

A `Link` is one or two modules that are one step of csrc/layers/network.h; a `Chain` runs several.  A chain
looks at its tensors at each call, and returns None where the modules have to run one by one.

What was looked up in the modules is kept as facts, which C compares at each call.  Of a parameter's memory an
array is kept, which is renewed once the tensor has other memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import activations, backends, settings
from ..nn.network import DROPOUT, LAYER_NORM, LINEAR, MAXOUT
from ..nn.steps import ATTRIBUTES, TIERS, StepLayer, StepParameter, objects_of
from .operators import OperatorFunction, check_first_derivative
from .tensors import FLOATS, NUMPY_DTYPES, as_array, as_rows, thread_count

Array = np.ndarray[Any, Any]

_HAVE_PLACES = (LINEAR, MAXOUT, LAYER_NORM)  # a weight and a bias
# What a chain saves in a call that records gradients, and what it costs, in microseconds of one machine; only
# their ratios count.  bench/tuning: torch-chain-gain
MODULE_GAIN, NUMBER_GAIN, CHEAP_NUMBER_GAIN, RECORDED_COST = 12.0, 0.003, 0.0005, 100.0
_CHEAP = {activations.CODES[name][0] for name in ("identity", "relu", "leaky_relu", "hardtanh", "relu6")}
_EXCHANGE = Tensor.__dlpack_c_exchange_api__  # type: ignore[attr-defined]
_NAME = "a chain of an accelerated nn.Sequential"
_TENSORS = (Tensor, nn.Parameter)
_strided = torch.strided
_autocasts = torch._C._is_any_autocast_enabled
_profiles = torch._C._autograd._profiler_enabled
_saved_tensor_hooks = torch._C._autograd._top_saved_tensors_default_hooks
_compiles = torch.compiler.is_compiling
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transform = torch._C._functorch.peek_interpreter_stack
_tracer = torch._C._get_tracing_state


class Link(NamedTuple):
    """One or two modules that are one step of a chain.

    Attributes:
        modules: a Linear and perhaps its activation or maxout, or an activation, a LayerNorm or a Dropout.
        kind: LINEAR, MAXOUT, ACTIVATION, LAYER_NORM or DROPOUT.
        activation: of LINEAR and ACTIVATION: the entry of `fastact.activations.CODES`.
        pieces: of MAXOUT, else 0.
        ranks: the fewest and the most dimensions that the first module's input may have.
        after: a copy of the activation or maxout as it is now, which a backward of PyTorch's own runs.
        facts: what is true as long as the step computes what the modules do: see `facts_hold` in
            csrc/api/numpy.h.
        text: the step in a report.
    """

    modules: tuple[Any, ...]
    kind: int
    activation: activations.Code | None
    pieces: int
    ranks: tuple[int, int]
    after: Any
    facts: tuple[Any, ...]
    text: str


# ---- what C reads


class _Place:
    """A weight or a bias of a step, and the array of the tensor that was seen there last."""

    __slots__ = ("_layer", "_name", "_parameter", "_pieces", "array")

    def __init__(self, layer: StepLayer, name: str, pieces: int) -> None:
        self._layer, self._name, self._pieces = layer, name, pieces
        self._parameter = StepParameter()
        self.array: Array | None = None

    def take(self, tensor: Any, dtype: torch.dtype) -> bool:
        """Give a tensor, or None, to C; False for one that C can't read."""
        self.array = None
        setattr(self._layer, self._name, None)
        if tensor is None:
            return True
        if not is_plain(tensor, dtype) or not tensor.is_contiguous():
            return False
        shape = tensor.shape
        if self._pieces and (not shape or shape[0] % self._pieces):
            return False
        self.array = as_array(tensor)
        self._parameter.data = self._grouped(self.array)
        setattr(self._layer, self._name, self._parameter)
        return True

    def new_gradient(self, needed: bool) -> Tensor | None:
        """The tensor that C writes the gradient to, if it is needed."""
        array = self.array
        if array is None or not needed:
            self._parameter.grad = False
            return None
        gradient = np.empty(array.shape, array.dtype)
        self._parameter.grad = self._grouped(gradient)
        return torch.from_numpy(gradient)

    def drop_gradient(self) -> None:
        self._parameter.grad = False

    def _grouped(self, array: Array) -> Array:
        """The units, in groups of `pieces` where the step is a maxout."""
        return array.reshape(-1, self._pieces, *array.shape[1:]) if self._pieces else array


class _Parts:
    """The steps of a chain for one call at a time, some of its dropouts left out."""

    def __init__(self, links: Sequence[Link], active: tuple[bool, ...]) -> None:
        self.places: list[_Place] = []
        self.dropouts: list[tuple[StepLayer, Link]] = []
        parts = []
        switches = iter(active)
        for index, link in enumerate(links):
            layer = StepLayer()
            layer.activation = index
            if link.kind in _HAVE_PLACES:
                self.places += [_Place(layer, name, link.pieces) for name in ("weight", "bias")]
            if link.kind == LAYER_NORM:
                layer.eps = float(link.modules[0].eps)
            if link.kind == DROPOUT:
                if not next(switches):
                    continue
                self.dropouts.append((layer, link))
            parts.append((link.kind, layer, ATTRIBUTES[link.kind]))
        self.parts = tuple(parts)
        self._dtype: torch.dtype | None = None
        self._known: list[Tensor | None] = []
        self._arrays: list[Array | None] = []

    def take(self, tensors: list[Tensor | None], dtype: torch.dtype, backend: Any) -> bool:
        """Give the weights and biases to C; False where it can't read one."""
        if dtype is self._dtype and backend.memory_holds(_EXCHANGE, tensors, self._known, self._arrays):
            return True
        self._dtype = None
        for place, tensor in zip(self.places, tensors, strict=True):
            if not place.take(tensor, dtype):
                return False
        self._dtype, self._known = dtype, list(tensors)
        self._arrays = [place.array for place in self.places]
        return True


def is_plain(tensor: Any, dtype: torch.dtype) -> bool:
    """Whether a tensor is nothing but memory of this machine, of that dtype, with an element at least."""
    try:
        return (
            type(tensor) in _TENSORS
            and tensor.dtype is dtype
            and tensor.is_cpu
            and tensor.layout is _strided
            and not tensor.is_nested
            and not tensor.is_neg()
            and tensor.data_ptr() != 0
        )
    except RuntimeError:  # data_ptr() of a tensor that wraps others
        return False


# ---- chains


def _fewest_rows(links: Sequence[Link]) -> int:
    missing = RECORDED_COST
    row_gain, width = 0.0, 0
    for link in links:
        missing -= MODULE_GAIN * len(link.modules)
        if link.kind in (LINEAR, MAXOUT):
            width = link.modules[0].weight.shape[0]
        costly = link.activation is not None and link.activation[0] not in _CHEAP
        row_gain += width * (NUMBER_GAIN if costly else CHEAP_NUMBER_GAIN)
    return max(1, math.ceil(missing / row_gain))


class Chain:
    """Links that run in one call."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        owners = [link.modules[0]._parameters for link in links if link.kind in _HAVE_PLACES]
        self._owners = [(parameters, name) for parameters in owners for name in ("weight", "bias")]
        self._dropouts = [link.modules[0].__dict__ for link in links if link.kind == DROPOUT]
        self._ranks = max(link.ranks[0] for link in links), min(link.ranks[1] for link in links)
        codes = {index: link.activation for index, link in enumerate(links)}
        self.objects = objects_of(codes)
        self._free: dict[tuple[bool, ...], list[_Parts]] = {}
        # from these rows on it is quicker than the modules in a call that records gradients
        self.fewest_rows = _fewest_rows(links)

    def is_small(self, x: Any) -> bool:
        """Whether the modules themselves are quicker, for an input that `run` takes and gradients."""
        if self.fewest_rows == 1 or type(x) not in _TENSORS or x.is_nested:
            return False
        shape = x.shape
        rows = shape[0] if len(shape) == 2 else shape[:-1].numel()
        if rows >= self.fewest_rows:
            return False
        if not torch.is_grad_enabled():
            return False
        for parameters, name in self._owners:
            tensor = parameters[name]
            if tensor is not None and tensor.requires_grad:
                return True
        return x.requires_grad

    def run(self, x: Any) -> Tensor | None:
        """What the modules return for x; None where they have to run one by one.

        The caller has found that the facts of the links hold, that no mode, tracer or transform is in force,
        and that the active backend is C.
        """
        if type(x) not in _TENSORS or _autocasts() or _profiles():
            return None
        dtype = x.dtype
        if dtype not in FLOATS or not is_plain(x, dtype):
            return None
        shape = x.shape
        if not self._ranks[0] <= len(shape) <= self._ranks[1]:
            return None
        backend: Any = backends.active()
        tensors = [parameters[name] for parameters, name in self._owners]
        records = torch.is_grad_enabled() and (x.requires_grad or _wants_gradient(tensors))
        if records and _saved_tensor_hooks(False) is not None:  # they may change what a tape holds
            return None
        active = tuple([own["training"] and own["p"] > 0 for own in self._dropouts]) if self._dropouts else ()
        parts = self.leased(active)
        if not parts.take(tensors, dtype, backend):
            return None
        if parts.dropouts and not self._draw(parts, x, tensors):
            return None
        training = records or len(parts.dropouts) > 0
        tier = TIERS[settings.precision_in_force(None)]
        done = backend.network_forward(
            self.objects, parts.parts, rows_of(x), training, None, tier, thread_count()
        )
        if done is None:
            if parts.dropouts:  # the numbers are drawn
                raise RuntimeError("the parameters of a layer were changed by another thread during its call")
            return None
        self.give_back(active, parts)
        y, tape = done if training else (done, None)
        if len(shape) != 2:
            y = y.reshape(*shape[:-1], -1)
        if records:
            return _apply((self, active, y, tape), x, *tensors)  # type: ignore[no-any-return]
        return torch.from_numpy(y)

    def leased(self, active: tuple[bool, ...]) -> _Parts:
        """Parts that no other thread uses meanwhile."""
        try:
            return self._free[active].pop()
        except LookupError:
            return _Parts(self.links, active)

    def give_back(self, active: tuple[bool, ...], parts: _Parts) -> None:
        self._free.setdefault(active, []).append(parts)

    def saves_y(self, active: tuple[bool, ...]) -> bool:
        """Whether a backward reads what the chain returned."""
        remaining = list(active)
        for link in reversed(self.links):
            if link.kind != DROPOUT:
                return link.activation is not None and link.activation[0] != 0 and not link.activation[2]
            if remaining.pop():
                return False
        return False

    def _draw(self, parts: _Parts, x: Tensor, tensors: Sequence[Tensor | None]) -> bool:
        """Draw what the dropouts keep, as PyTorch's own do; False, and nothing drawn, where x is unfit."""
        if not x.is_contiguous():  # PyTorch draws in the order of the memory
            return False
        width, rows = x.shape[-1], x.shape[:-1].numel()
        weights = iter(tensors[::2])
        layers = {id(link): layer for layer, link in parts.dropouts}
        draws = []
        for link in self.links:
            weight = next(weights) if link.kind in _HAVE_PLACES else None
            if link.kind in (LINEAR, MAXOUT):
                if weight is None or weight.dim() != 2 or weight.shape[1] != width:
                    return False
                width = weight.shape[0] // (link.pieces or 1)
            elif id(link) in layers:
                draws.append((layers[id(link)], 1 - link.modules[0].p, width))
        number = NUMPY_DTYPES[x.dtype].type
        for layer, kept, width in draws:
            keep = torch.empty((rows, width), dtype=torch.uint8, device="cpu").bernoulli_(kept)
            layer.keep, layer.p, layer.factor = keep.numpy(), 1.0 - kept, float(number(1) / number(kept))
        return True

    def by_pytorch(
        self, x: Tensor, tensors: Sequence[Tensor | None], kept: Sequence[Tensor | None]
    ) -> Tensor:
        """The forward as PyTorch's own operations; `kept` has the factors of each dropout."""
        remaining, factors = iter(tensors), iter(kept)
        for link in self.links:
            if link.kind in (LINEAR, MAXOUT):
                x = F.linear(x, next(remaining), next(remaining))  # type: ignore[arg-type]
            if link.kind == LAYER_NORM:
                norm = link.modules[0]
                x = F.layer_norm(x, norm.normalized_shape, next(remaining), next(remaining), norm.eps)
            if link.kind == DROPOUT and (factor := next(factors)) is not None:
                x = x * factor
            if link.after is not None:
                x = type(link.after).forward(link.after, x)
        return x


def _wants_gradient(tensors: Sequence[Tensor | None]) -> bool:
    for tensor in tensors:  # noqa: SIM110, any() is slower
        if tensor is not None and tensor.requires_grad:
            return True
    return False


def rows_of(x: Tensor) -> Array:
    """The matrix that C reads in place; a copy where x is not contiguous."""
    return as_array(x) if x.dim() == 2 else as_rows(x)


class _Function(OperatorFunction):
    @staticmethod
    def forward(ctx: Any, call: tuple[Any, ...], x: Tensor, *tensors: Tensor | None) -> Tensor:
        ctx.chain, ctx.active, y, tape = call
        y = torch.from_numpy(y)
        # as tensors that are saved, so that they are freed, and a change in place is found, as PyTorch's are
        last = (y,) if ctx.chain.saves_y(ctx.active) else ()
        ctx.save_for_backward(x, torch.from_numpy(tape), *tensors, *last)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        needs = ctx.needs_input_grad
        if grad_y is None:
            return (None,) * len(needs)
        check_first_derivative(_NAME)
        chain = ctx.chain
        x, tape, *tensors = ctx.saved_tensors
        y = tensors.pop() if chain.saves_y(ctx.active) else grad_y  # which C then does not read
        grads = _gradients(chain, ctx.active, x, tape, tensors, y, grad_y, needs[1:])
        return None, *(grads or _gradients_by_pytorch(chain, ctx.active, x, tape, tensors, grad_y, needs[1:]))


# Function.apply without what it does for setup_context and torch.func: bench/tuning: torch-raw-apply
_apply = super(torch.autograd.Function, _Function).apply


def _gradients(
    chain: Chain,
    active: tuple[bool, ...],
    x: Tensor,
    tape: Tensor,
    tensors: list[Tensor | None],
    y: Tensor,
    grad_y: Tensor,
    needs: Sequence[bool],
) -> list[Tensor | None] | None:
    """The gradients of x and of the tensors, each where it is needed; None where C can't read a tensor."""
    if (
        _compiles()
        or _function_modes()
        or _dispatch_modes()
        or _transform() is not None
        or _tracer() is not None
    ):
        return None
    if not is_plain(grad_y, x.dtype):
        return None
    backend: Any = backends.active()
    parts = chain.leased(active)
    if not hasattr(backend, "network_backward") or not parts.take(tensors, x.dtype, backend):
        return None
    grads = [place.new_gradient(need) for place, need in zip(parts.places, needs[1:], strict=True)]
    grad_rows = rows_of(grad_y)
    y_rows = grad_rows if y is grad_y else rows_of(y)
    memory = tape.numpy()
    grad_x = backend.network_backward(
        chain.objects, parts.parts, rows_of(x), y_rows, memory, grad_rows, False, needs[0], thread_count()
    )
    if grad_x is None:
        return None
    for place in parts.places:
        place.drop_gradient()
    chain.give_back(active, parts)
    return [torch.from_numpy(grad_x.reshape(x.shape)) if needs[0] else None, *grads]


def _gradients_by_pytorch(
    chain: Chain,
    active: tuple[bool, ...],
    x: Tensor,
    tape: Tensor,
    tensors: Sequence[Tensor | None],
    grad_y: Tensor,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The same from a forward that is recorded again: for gradients under transforms, modes and compilers."""
    backend: Any = backends.get("c")
    places = iter(backend.network_tape(tape.numpy()))
    switches = iter(active)
    kept: list[Tensor | None] = []
    for link in chain.links:
        if link.kind == DROPOUT and not next(switches):
            kept.append(None)
            continue
        _, _, at, columns, _, _, factor = next(places)
        if link.kind == DROPOUT:
            count = x.shape[:-1].numel() * columns
            kept.append((tape[at : at + count].to(x.dtype) * factor).view(*x.shape[:-1], columns))
    with torch.enable_grad():
        # views, so that no input is computed from another one
        given = [
            each.view_as(each) if need else each for each, need in zip((x, *tensors), needs, strict=True)
        ]
        y = chain.by_pytorch(given[0], given[1:], kept)
    grads = iter(
        torch.autograd.grad(y, [each for each, need in zip(given, needs, strict=True) if need], grad_y)
    )
    return [next(grads) if need else None for need in needs]
