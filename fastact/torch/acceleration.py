"""Models that exist, run fused: `accelerate`."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from .. import checks
from .modules import LinearActivation, PooledLinear
from .tensors import FLOATS

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
    if linear.weight.dtype not in FLOATS:
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
        if not plain or after.return_indices or linear.out_features % pieces or pieces > checks.MAX_PIECES:
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
