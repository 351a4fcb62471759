"""Forwards that `accelerate` gives to containers: at each call they fuse the children that fit together."""

from __future__ import annotations

import copy
import functools
import itertools
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from .. import activations, backends, checks
from ..backends.custom import code_of
from ..nn.network import ACTIVATION, DROPOUT, LAYER_NORM, LINEAR, MAXOUT
from . import fused_activation, fused_maxout
from .chain import Chain, Link
from .tensors import FLOATS

# ---- steps: consecutive children that one operator runs


def linear_maxout(
    x: Tensor, weight: Tensor, bias: Tensor | None, pieces: int, piece_major: bool = False
) -> Tensor:
    """The largest of each group of `pieces` units of a Linear; groups are views of its weight and bias.

    Neighbouring units are a group; where `piece_major`, unit k * out_features + j is piece k of output j.
    """
    shape = (weight.shape[0] // pieces, pieces)
    if piece_major:
        weight = weight.unflatten(0, shape[::-1]).transpose(0, 1)
        bias = None if bias is None else bias.view(shape[::-1]).t()
    else:
        weight = weight.unflatten(0, shape)
        bias = None if bias is None else bias.view(shape)
    return fused_maxout.linear_maxout(x, weight, bias)  # type: ignore[no-any-return]


TENSORS = (Tensor, nn.Parameter)  # exactly these: a subclass has rules of its own
_strided, _autocasts = torch.strided, torch.is_autocast_enabled
_LOW = (torch.bfloat16, torch.float16)
ANY_RANK = (1, sys.maxsize)
_POOL_RANKS = (2, 3)  # what nn.MaxPool1d takes


class Step(NamedTuple):
    """Consecutive children of a container that one operator runs.

    Attributes:
        children: how many.
        ranks: the fewest and the most dimensions that the first child's input may have.
        operator, weight, bias, keywords: the call, y = operator(x, weight, bias, **keywords).
    """

    children: int
    ranks: tuple[int, int]
    operator: Callable[..., Tensor]
    weight: Tensor
    bias: Tensor | None
    keywords: dict[str, Any]

    def takes(self, x: Any) -> bool:
        """Whether the operator returns for this input what the children would, and raises nothing else."""
        if type(x) not in TENSORS:
            return False
        weight = self.weight
        dtype, wanted = x.dtype, weight.dtype
        if dtype is not wanted and not (wanted is torch.float32 and dtype in _LOW and _autocasts("cpu")):
            return False
        if not x.is_cpu or x.layout is not _strided or x.is_nested or not x.numel():
            return False
        shape, (lowest, highest) = x.shape, self.ranks
        return lowest <= len(shape) <= highest and shape[-1] == weight.shape[1]

    def run(self, x: Tensor) -> Tensor:
        return self.operator(x, self.weight, self.bias, **self.keywords)

    def __str__(self) -> str:
        return f"{self.operator.__name__}({_text_of(self.keywords)})"


def _text_of(keywords: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keywords.items())


# For each class: keywords of `linear_activation`, and the name of one that the module has as an attribute.
_ACTIVATIONS: dict[type[nn.Module], tuple[dict[str, Any], str | None]] = {
    nn.ReLU: ({"activation": "relu"}, None),
    nn.LeakyReLU: ({"activation": "leaky_relu"}, "negative_slope"),
    nn.ELU: ({"activation": "elu"}, "alpha"),
    nn.SELU: ({"activation": "selu"}, None),
    nn.GELU: ({"activation": "gelu"}, "approximate"),
    nn.SiLU: ({"activation": "silu"}, None),
    nn.Softplus: ({"activation": "softplus"}, None),
    nn.Mish: ({"activation": "mish"}, None),
    nn.Sigmoid: ({"activation": "sigmoid"}, None),
    nn.Tanh: ({"activation": "tanh"}, None),
    nn.Softsign: ({"activation": "softsign"}, None),
    nn.Hardswish: ({"activation": "hardswish"}, None),
    nn.Hardsigmoid: ({"activation": "hardsigmoid"}, None),
    nn.Hardtanh: ({"activation": "hardtanh"}, None),
    nn.ReLU6: ({"activation": "relu6"}, None),
    nn.LogSigmoid: ({"activation": "logsigmoid"}, None),
}
_FORWARDS = {
    kind: kind.forward for kind in (nn.Linear, nn.MaxPool1d, nn.Dropout, nn.LayerNorm, *_ACTIVATIONS)
}
_AFTER_LINEAR = _FORWARDS.keys() - {nn.Linear, nn.Dropout, nn.LayerNorm}
_CALL, _CALL_IMPL = nn.Module.__call__, nn.Module._call_impl
_LARGEST = torch.finfo(torch.float32).max
UNGROUPED = "it does not take the largest of whole groups of units"


def fuses(after: Any) -> bool:
    """Whether one operator runs a Linear and a module of this class behind it."""
    return type(after) in _AFTER_LINEAR


def next_step(children: Sequence[Any], start: int) -> Step | str | None:
    """The step that begins at children[start], or the reason why none does; None if that is not a Linear."""
    linear = children[start]
    if type(linear) is not nn.Linear:
        if isinstance(linear, nn.Linear):
            return f"{type(linear).__name__} is a subclass of Linear"
        return None
    if start + 1 == len(children):
        return "nothing follows it in its container"
    after = children[start + 1]
    kind = type(after)
    if kind not in _AFTER_LINEAR:
        return f"{kind.__name__} follows it, and fastact does not fuse the two"
    if obstacle := linear_obstacle(linear):
        return obstacle
    return activation_step(linear._parameters["weight"], linear._parameters["bias"], after)


def activation_step(weight: Tensor, bias: Tensor | None, after: Any) -> Step | str:
    """The step of a product and the activation or MaxPool1d behind it, or why they have to stay apart."""
    if obstacle := call_obstacle(after):
        return obstacle
    kind = type(after)
    pools = kind is nn.MaxPool1d
    keywords = _pool_keywords(after, weight.shape[0]) if pools else _activation_keywords(after)
    if isinstance(keywords, str):
        return keywords
    if pools:
        return Step(2, _POOL_RANKS, linear_maxout, weight, bias, keywords)
    return Step(2, ANY_RANK, fused_activation.linear_activation, weight, bias, keywords)


def maxout_step(layer: Any) -> Step | str:
    """The step that is all of a stanza MaxoutLinear, or why it has to stay as it is."""
    linear, pieces = layer._modules.get("linear"), layer.maxout_k
    if type(linear) is not nn.Linear:
        return f"its linear is of the class {type(linear).__name__}"
    if obstacle := linear_obstacle(linear):
        return obstacle
    weight, bias = linear._parameters["weight"], linear._parameters["bias"]
    if not divides(pieces, weight.shape[0]):
        return UNGROUPED
    return Step(1, ANY_RANK, linear_maxout, weight, bias, {"pieces": pieces, "piece_major": True})


def call_obstacle(module: nn.Module) -> str | None:
    """Why a call of `module` may do more than the forward that its class came with, or None."""
    own, kind = module.__dict__, type(module)
    if (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
    ):
        return f"{kind.__name__} has hooks"
    if (
        "forward" in own
        or "_call_impl" in own
        or "_compiled_call_impl" in own
        or kind.forward is not _FORWARDS[kind]
        or kind.__call__ is not _CALL
        or kind._call_impl is not _CALL_IMPL
    ):
        return f"{kind.__name__} has a forward of its own"
    return None


def linear_obstacle(linear: nn.Linear) -> str | None:
    """`call_obstacle`, or what an operator does not take in the weight and bias."""
    if obstacle := call_obstacle(linear):
        return obstacle
    parameters, own = linear._parameters, linear.__dict__
    if "weight" not in parameters or "bias" not in parameters or "weight" in own or "bias" in own:
        return "its weight or bias is not a parameter"
    return tensors_obstacle(parameters["weight"], parameters["bias"])


def tensors_obstacle(weight: Any, bias: Any) -> str | None:
    """What an operator does not take in a weight (out_features, in_features) and a bias, or None."""
    if obstacle := _tensor_obstacle(weight):
        return obstacle
    shape = weight.shape
    if len(shape) != 2:
        return "its weight is not a matrix"
    if bias is None:
        return None
    if obstacle := _tensor_obstacle(bias):
        return obstacle
    if bias.dtype is not weight.dtype or bias.dim() != 1 or bias.shape[0] != shape[0]:
        return "its bias does not match its weight"
    return None


def _tensor_obstacle(tensor: Any) -> str | None:
    if type(tensor) not in TENSORS:
        return f"it has a {type(tensor).__name__} for a parameter"
    if tensor.dtype not in FLOATS:
        return f"its dtype is {tensor.dtype}, not float32 or float64"
    if not tensor.is_cpu:
        return f"it is on {tensor.device}, not on the CPU"
    if tensor.layout is not _strided:
        return f"its layout is {tensor.layout}, not torch.strided"
    return None


def _activation_keywords(after: Any) -> dict[str, Any] | str:
    kind = type(after)
    keywords, name = _ACTIVATIONS[kind]
    if kind is nn.Softplus:
        beta, threshold = after.beta, after.threshold
        if not (_is_number(beta) and _is_number(threshold) and beta == 1 and threshold >= 20):
            return "its Softplus is not log(1 + exp z) to float32's precision"
    if kind is nn.Hardtanh and not (after.min_val == -1 and after.max_val == 1):
        return "its Hardtanh has bounds of its own"
    if kind is nn.ReLU6 and not (after.min_val == 0 and after.max_val == 6):
        return "its ReLU6 has bounds of its own"
    if name is None:
        return keywords
    value = getattr(after, name)
    if kind is nn.GELU:
        if value not in ("none", "tanh"):
            return "its GELU has an unknown value of approximate"
    elif not (_is_number(value) and abs(value) <= _LARGEST):
        return f"{name} of its {kind.__name__} is not a finite number"
    return {**keywords, name: value}


def _is_number(value: Any) -> bool:
    return type(value) is float or type(value) is int


def _pool_keywords(pool: Any, units: int) -> dict[str, Any] | str:
    pieces, stride, padding, dilation = map(
        _single, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    if not divides(pieces, units) or (stride, padding, dilation) != (pieces, 0, 1) or pool.return_indices:
        return UNGROUPED
    return {"pieces": pieces}


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def divides(pieces: Any, units: int) -> bool:
    return type(pieces) is int and 1 <= pieces <= checks.MAX_PIECES and units % pieces == 0


# ---- links: children that are a step of a chain

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_METHODS = ("forward", "__call__", "_call_impl")
_SHADOWS = ("forward", "_call_impl", "_compiled_call_impl", "weight", "bias")


def next_link(children: Sequence[Any], start: int) -> Link | str | None:
    """The link that begins at children[start], or the reason why none does; None for other classes."""
    child = children[start]
    kind = type(child)
    if kind not in _FORWARDS or kind is nn.MaxPool1d:
        return None
    if kind is nn.Linear:
        step = next_step(children, start)
        return _product_link(child, children[start + 1] if isinstance(step, Step) else None, step)
    if obstacle := call_obstacle(child):
        return obstacle
    if kind is nn.Dropout:
        if not (_is_number(child.p) and 0 <= child.p < 1):
            return "its p is not in [0, 1)"
        return Link((child,), DROPOUT, None, 0, ANY_RANK, None, facts_of(child), f"dropout(p={child.p!r})")
    if kind is nn.LayerNorm:
        if len(child.normalized_shape) != 1:
            return "it normalises several axes"
        if child.weight is None:
            return "it has no weight"
        if not (_is_number(child.eps) and 0 <= child.eps <= _LARGEST):
            return "its eps is not a finite number of 0 or more"
        return Link(
            (child,), LAYER_NORM, None, 0, ANY_RANK, None, facts_of(child), f"layer_norm(eps={child.eps!r})"
        )
    keywords = _activation_keywords(child)
    if isinstance(keywords, str):
        return keywords
    text = f"activation({_text_of(keywords)})"
    return Link(
        (child,), ACTIVATION, _code_of(**keywords), 0, ANY_RANK, copy.copy(child), facts_of(child), text
    )


def _product_link(linear: Any, after: Any, step: Any) -> Link | str:
    """The link of a Linear, and of the module after it where one operator runs both."""
    if after is None:
        if obstacle := linear_obstacle(linear):
            return obstacle
        text = "linear_activation(activation='identity')"
        return Link((linear,), LINEAR, _code_of("identity"), 0, ANY_RANK, None, facts_of(linear), text)
    pools = type(after) is nn.MaxPool1d
    return Link(
        (linear, after),
        MAXOUT if pools else LINEAR,
        None if pools else _code_of(**step.keywords),
        step.keywords.get("pieces", 0),
        step.ranks,
        copy.copy(after),
        facts_of(linear) + facts_of(after),
        str(step),
    )


def _code_of(activation: str, **keywords: Any) -> activations.Code:
    return code_of(activation, keywords)


def facts_of(module: nn.Module) -> tuple[Any, ...]:
    """What is true while a call of `module` does what it does now, but for its parameters."""
    own, kind = module.__dict__, type(module)
    facts: list[Any] = [module, "__class__", kind, own, "_parameters", own["_parameters"]]
    for name in _HOOKS:
        facts += [own, name, own[name], own[name], None, None]
    for name in (*_SHADOWS, *getattr(kind, "__constants__", ())):
        facts += [own, name, own.get(name, ...)]
    for name in _METHODS:
        facts += [kind, name, getattr(kind, name)]
    return tuple(facts)


def _is_plain_sequential(module: Any) -> bool:
    """Whether a call of a Sequential does nothing but call its children one after the other."""
    own, kind = module.__dict__, type(module)
    forward = own.get("forward")
    return (
        runs_children_in_order(kind)
        and (forward is None or (is_ours(forward) and forward.__self__ is module))
        and not any(own[name] for name in _HOOKS)
        and "_call_impl" not in own
        and "_compiled_call_impl" not in own
        and kind.__call__ is _CALL
        and kind._call_impl is _CALL_IMPL
    )


class LinkPlace(NamedTuple):
    """A link, and the index `at` of its first child in the container that has it."""

    container: nn.Module
    at: int
    link: Link


class _Entry(NamedTuple):
    """Children [start, stop) of a container and their links; none where they run one by one."""

    start: int
    stop: int
    places: tuple[LinkPlace, ...]


def _leading_writers(entries: Sequence[_Entry]) -> int:
    """How many entries to leave out so that no module writes into the chain's input in place."""
    count = 0
    for index, entry in enumerate(entries):
        for _, _, link in entry.places:
            if link.kind in (LINEAR, MAXOUT):
                return count
            if getattr(link.modules[0], "inplace", False):
                count = index + 1
    return count


def runs_as_chain(links: Sequence[Link]) -> bool:
    """Whether one call is quicker: for several Linears, or one and the module that it is fused with."""
    products = [link for link in links if link.kind in (LINEAR, MAXOUT)]
    return len(products) > 1 or any(len(link.modules) > 1 for link in products)


class Stretch(NamedTuple):
    """Children [start, stop) of a container: those of a chain with its places, or others."""

    start: int
    stop: int
    chain: Chain | None = None
    places: tuple[LinkPlace, ...] = ()


class ChainPlan:
    """How a Sequential runs its children, as long as they are what they were.

    Attributes:
        stretches: all its children, in order.
    """

    def __init__(self, container: nn.Module) -> None:
        self._contents: list[tuple[Any, tuple[Any, ...]]] = []
        self._refused: list[tuple[Sequence[Any], int]] = []
        self.stretches: list[Stretch] = []
        entries = self._entries(container)
        for linked, group in itertools.groupby(entries, lambda entry: bool(entry.places)):
            run = list(group)
            alone = _leading_writers(run) if linked else len(run)
            places = tuple(itertools.chain(*[entry.places for entry in run[alone:]]))
            inner = len(run) - alone == 1 and places[0].container is not container  # which runs its own chain
            if inner or not runs_as_chain([place.link for place in places]):
                alone = len(run)
            if alone:
                self._append(Stretch(run[0].start, run[alone - 1].stop))
            if alone < len(run):
                chain = Chain([place.link for place in places])
                self._append(Stretch(run[alone].start, run[-1].stop, chain, places))
        self._whole = self.stretches[0].chain if len(self.stretches) == 1 else None
        facts = [fact for stretch in self.stretches for place in stretch.places for fact in place.link.facts]
        once = {tuple(map(id, facts[i : i + 3])): facts[i : i + 3] for i in range(0, len(facts), 3)}
        self._facts = tuple(itertools.chain(*once.values()))

    def _append(self, stretch: Stretch) -> None:
        if not stretch.chain and self.stretches and not self.stretches[-1].chain:
            stretch = Stretch(self.stretches.pop().start, stretch.stop)  # a pair may be in both of them
        self.stretches.append(stretch)

    def _entries(self, container: nn.Module) -> list[_Entry]:
        children = tuple(container._modules.values())
        self._contents.append((container._modules, children))
        entries = []
        start = 0
        while start < len(children):
            child: Any = children[start]
            places: tuple[LinkPlace, ...] = ()
            stop = start + 1
            if isinstance(child, nn.Sequential):
                places = self._nested(child)
            else:
                link = next_link(children, start)
                if isinstance(link, Link):
                    places, stop = (LinkPlace(container, start, link),), start + len(link.modules)
                elif link is not None:
                    self._refused.append((children, start))
            entries.append(_Entry(start, stop, places))
            start = stop
        return entries

    def _nested(self, child: nn.Sequential) -> tuple[LinkPlace, ...]:
        """The links of a Sequential in this one, if all of it is links and it is called as any other."""
        if not _is_plain_sequential(child):
            return ()
        entries = self._entries(child)
        if not entries or not all(entry.places for entry in entries):
            return ()
        first, *others = [place for entry in entries for place in entry.places]
        link = first.link._replace(facts=facts_of(child) + first.link.facts)
        return (first._replace(link=link), *others)

    def is_small(self, x: Any) -> bool:
        """Whether the children are one chain, and PyTorch's own modules run it faster for this call."""
        modules, children = self._contents[0]
        return self._whole is not None and self._whole.is_small(x) and tuple(modules.values()) == children

    def holds(self, children: tuple[Any, ...]) -> bool:
        """Whether every module is what it was; `children` are those that the container has now."""
        if children != self._contents[0][1]:
            return False
        for modules, inner in self._contents[1:]:
            if tuple(modules.values()) != inner:
                return False
        backend: Any = backends.active()
        if not backend.facts_hold(self._facts):
            return False
        for siblings, start in self._refused:  # noqa: SIM110, any() is slower
            if isinstance(next_link(siblings, start), Link):
                return False
        return True


# ---- forwards


_compiles, _exports = torch.compiler.is_compiling, torch.compiler.is_exporting
_tracer = torch._C._get_tracing_state
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active  # torch.compile takes this one


def is_observed() -> bool:
    """Whether something in force has to see each child, or each of PyTorch's own operations.

    Global hooks see modules.  torch.func and forward mode need derivatives that fastact's operators do not
    have.  Tracers, exporters and modes see operations, which may have to run without fastact.
    `torch.compile` takes the fused operators whole.
    """
    if (
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
        or _transforms()
        or forward_ad._current_level >= 0
    ):
        return True
    if _compiles():
        return _exports()  # type: ignore[no-any-return]
    return (
        _tracer() is not None
        or _dispatch_modes() > 0
        or (_function_modes() > 0 and not _only_default_device())
    )


def _only_default_device() -> bool:
    """Whether every function mode in force is what `torch.set_default_device` puts there."""
    return all(type(mode) is DeviceContext for mode in _get_current_function_mode_stack())


_SEQUENTIAL_FORWARD, _SEQUENTIAL_ITER = nn.Sequential.forward, nn.Sequential.__iter__


_PLAN = "_fastact_plan"  # an attribute of accelerated Sequentials


def has_chains() -> bool:
    """Whether the active backend runs chains."""
    return hasattr(backends.active(), "network_forward")


def runs_children_in_order(kind: Any) -> bool:
    """Whether a class of Sequential has the forward, and the order of its children, of nn.Sequential."""
    return kind.forward is _SEQUENTIAL_FORWARD and kind.__iter__ is _SEQUENTIAL_ITER


def sequential_forward(self: Any, input: Any) -> Any:
    kind = type(self)
    plan = None if _compiles() else self.__dict__.get(_PLAN)
    if plan is not None and plan.is_small(input):
        return kind.forward(self, input)
    if not runs_children_in_order(kind) or is_observed():
        return kind.forward(self, input)
    children = tuple(self._modules.values())
    if _compiles() or not has_chains():
        return _in_pairs(children, input)
    if plan is None or not plan.holds(children):
        plan = self.__dict__[_PLAN] = ChainPlan(self)
    for start, stop, chain, _ in plan.stretches:
        if chain is not None and chain.is_small(input):
            for child in children[start:stop]:
                input = child(input)
            continue
        y = None if chain is None else chain.run(input)
        input = _in_pairs(children[start:stop], input) if y is None else y
    return input


def _in_pairs(children: Sequence[Any], input: Any) -> Any:
    """Each child by itself, or with the one after it where an operator runs both."""
    start = 0
    while start < len(children):
        step = next_step(children, start)
        if isinstance(step, Step) and step.takes(input):
            input = step.run(input)
            start += step.children
        else:
            input = children[start](input)
            start += 1
    return input


def maxout_linear_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    own = type(self).forward
    known = own is getattr(maxout_linear_forward, "__wrapped__", None)  # since `exchange`
    if known and len(args) == 1 and not kwargs and not is_observed():
        step = maxout_step(self)
        if isinstance(step, Step) and step.takes(args[0]):
            return step.run(args[0])
    return own(self, *args, **kwargs)


# ---- the methods that an accelerated container has in its instance


def _getstate(self: Any) -> Any:
    """The container as it was: a pickle loads without fastact, and a shallow copy shares no method."""
    kind: Any = type(self)
    state = kind.__getstate__(self)
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if not is_ours(value)}
    return state


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """A copy that is accelerated as well."""
    kind: Any = type(self)
    if hasattr(kind, "__deepcopy__"):
        twin = kind.__deepcopy__(self, memo)
    else:
        twin = memo[id(self)] = copy.copy(self)
        vars(twin).update(copy.deepcopy(vars(twin), memo))
    for name, value in vars(self).items():
        if is_ours(value) and name != _PLAN:
            vars(twin)[name] = types.MethodType(value.__func__, twin)
    return twin


def _replicate(self: Any) -> Any:
    """What nn.DataParallel runs on another device, where nothing is fused."""
    replica = type(self)._replicate_for_data_parallel(self)
    withdraw(replica)
    return replica


_COPIERS: dict[str, Callable[..., Any]] = {
    "__getstate__": _getstate,
    "__deepcopy__": _deepcopy,
    "_replicate_for_data_parallel": _replicate,
}
_OURS = (sequential_forward, maxout_linear_forward, *_COPIERS.values())


def is_ours(value: Any) -> bool:
    if type(value) is ChainPlan:
        return True
    if type(value) is not types.MethodType:
        return False
    return value.__func__ in _OURS or hasattr(value.__func__, "fastact_plan")  # as forwards.py makes them


def exchange(container: nn.Module, forward: Callable[..., Any]) -> None:
    """Give an instance `forward` in place of its class's, whose source and signature others still see.

    `inspect` and TorchScript find them by `__wrapped__`.

    Nothing here can fail: a model is accelerated as a whole or not at all.
    """
    own = type(container).forward
    functools.update_wrapper(forward, own, ("__name__", "__qualname__", "__doc__"), updated=())
    for name, function in (("forward", forward), *_COPIERS.items()):
        vars(container)[name] = types.MethodType(function, container)


def withdraw(container: nn.Module) -> None:
    """Take back what `exchange` gave; other methods in the instance stay."""
    own = vars(container)
    for name in [name for name, value in own.items() if is_ours(value)]:
        del own[name]
