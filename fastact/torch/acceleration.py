"""`accelerate` and `restore`: the layers of an existing model run fused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules import activation

from .chain import Link
from .containers import (
    ChainPlan,
    Step,
    exchange,
    fuses,
    has_chains,
    is_ours,
    maxout_linear_forward,
    maxout_step,
    next_step,
    runs_children_in_order,
    sequential_forward,
    withdraw,
)
from .forwards import Plan, forward_of, is_matrix, plan_of
from .modules import Layer

_STANZA = "stanza.models.common.maxout_linear.MaxoutLinear"
_ACTIVATIONS = [getattr(activation, name) for name in activation.__all__ if name != "MultiheadAttention"]
# Layers that a report accounts for, wherever they are in a model.
_LAYERS = (nn.Linear, nn.MaxPool1d, *_ACTIVATIONS)
_ACCELERATED = "it is accelerated already"
_OWN = "fastact's own layer, which runs fused"
_WHAT_IS_FUSED = (
    "accelerate fuses an nn.Linear with the activation or maximum after it, in an nn.Sequential "
    "or in a forward that torch.fx traces"
)


class Change(NamedTuple):
    """Layers that run as one operator.

    Attributes:
        name: the dotted name of the first layer, or of the module whose parameters it multiplies; "" for
            the model itself.
        before: the classes of the layers, such as "Linear + ReLU", and the names of functions.
        after: the operator with its keywords; in a forward, also from how many rows on it runs.
    """

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name or 'the model'}: {self.before} -> {self.after}"


class Report:
    """What `accelerate` saw in a model and did with it; `print(report)` shows it.

    Every Linear, activation and MaxPool1d of the model, subclasses included, is in one of the two lists.

    Attributes:
        replaced: a `Change` for each run of layers that one operator runs from now on.
        skipped: (name, reason) for each layer that was left alone, by its dotted name.  In a model
            without any of these layers: ("", the layers that it has).
        chains: for each chain, the names of its changes in `replaced`, which run in one call.
        small: (name of the first layer, rows) for each chain, or pair of layers by itself, that PyTorch's own
            modules run faster where gradients are recorded and the input has fewer rows.  Then they run.
    """

    def __init__(self) -> None:
        self.replaced: list[Change] = []
        self.skipped: list[tuple[str, str]] = []
        self.chains: list[tuple[str, ...]] = []
        self.small: list[tuple[str, int]] = []
        self._skipped_layers: list[str] = []  # what each of `skipped` is
        self._containers: list[nn.Module] = []

    def _skip(self, name: str, layer: str, reason: str) -> None:
        self.skipped.append((name, reason))
        self._skipped_layers.append(layer)

    def restore(self) -> None:
        """Give the modules their own forward again."""
        for container in self._containers:
            withdraw(container)

    def __repr__(self) -> str:
        lines = [f"{len(self.replaced)} replaced"]
        lines += _grouped([(name, f"{before} -> {after}") for name, before, after in self.replaced])
        if self.chains:
            lines.append(
                "1 chain, in one call"
                if len(self.chains) == 1
                else f"{len(self.chains)} chains, in one call each"
            )
            lines += [f"  {names[0]} to {names[-1]}: {len(names)} steps" for names in self.chains]
        if self.small:
            lines.append("too small for calls that record gradients, which run them unfused")
            lines += _grouped([(name, f"below {rows} rows") for name, rows in self.small])
        if self.skipped:
            lines.append(f"{len(self.skipped)} left alone")
            lines += _grouped(
                [
                    (name, ": ".join(filter(None, (layer, reason))))
                    for layer, (name, reason) in zip(self._skipped_layers, self.skipped, strict=True)
                ]
            )
        if not self.replaced:
            lines.append(_WHAT_IS_FUSED)
        return "\n".join(lines)


def _grouped(entries: list[tuple[str, str]]) -> list[str]:
    """A line for each different text of (name, text), with how many there are and their names."""
    groups: dict[str, list[str]] = {}
    for name, text in entries:
        groups.setdefault(text, []).append(name or "the model")
    lines = []
    for text, names in groups.items():
        shown = names if len(names) < 3 else [names[0], "...", names[-1]]
        count = f"{len(names)} x " if len(names) > 1 else ""
        lines.append(f"  {', '.join(shown)}: {count}{text}")
    return lines


def _described(layer: nn.Module) -> str:
    kind = type(layer).__name__
    return f"{kind}({layer.in_features}, {layer.out_features})" if isinstance(layer, nn.Linear) else kind


def _is_accelerated(container: nn.Module) -> bool:
    forward = vars(container).get("forward")
    return is_ours(forward) and forward.__self__ is container


def _is_maxout_linear(module: nn.Module) -> bool:
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}" == _STANZA


def _obstacle(container: nn.Module, user: nn.Module) -> str | None:
    """Why the layers of a container are out of reach, or None; `user` is the module that calls them."""
    kind = type(container)
    if not (isinstance(container, nn.Sequential) or _is_maxout_linear(container)):
        if _has_forward(user):
            return f"used by {type(user).__name__}.forward, not by an nn.Sequential"
        return f"in {'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}, not in an nn.Sequential"
    forward = vars(container).get("forward", kind.forward)  # in the instance, the class's own does no harm
    if not (is_ours(forward) or getattr(forward, "__func__", forward) is kind.forward):
        return f"{kind.__name__} has a forward of its own"
    if isinstance(container, nn.Sequential) and not runs_children_in_order(kind):
        return f"{kind.__name__} has a forward or an __iter__ of its own"
    return None


def _has_forward(module: nn.Module) -> bool:
    """Whether a module can be called; a ModuleList or a ModuleDict cannot."""
    return "forward" in vars(module) or type(module).forward is not nn.Module.forward


def _accounts(
    container: nn.Module, user: nn.Module, links: dict[tuple[int, int], Link]
) -> Iterator[tuple[str, Sequence[nn.Module], Step | Link | str]]:
    """For each layer, or run of layers, in a container: its name, the layers, and their step or a reason.

    `links` are those of chains, by the id of the container and the index in it.

    Each place of a layer is in exactly one of the results.
    """
    obstacle = _obstacle(container, user)
    if _is_maxout_linear(container):
        yield "", [container], obstacle or maxout_step(container)
        return
    names: list[str] = list(container._modules)
    children: list[Any] = list(container._modules.values())
    start = 0
    while start < len(children):
        child = children[start]
        if link := links.get((id(container), start)):
            yield names[start], link.modules, link
            start += len(link.modules)
            continue
        step = obstacle or next_step(children, start)
        if isinstance(step, Step):
            yield names[start], children[start : start + step.children], step
            start += step.children
            continue
        if isinstance(child, Layer):
            yield names[start], [child], _OWN
        elif isinstance(child, _LAYERS):
            yield names[start], [child], step or _why_no_linear(children, start)
        start += 1


def _why_no_linear(children: list[Any], start: int) -> str:
    """Why an activation or MaxPool1d of a Sequential does not run with a Linear."""
    if start == 0:
        return "no Linear comes before it in its container"
    before = children[start - 1]
    if not isinstance(before, nn.Linear) or isinstance(before, Layer):
        return f"it follows {type(before).__name__}, not a Linear"
    if not fuses(children[start]):
        return "fastact does not fuse it with a Linear"
    return "the Linear before it is left alone"


def _why_left(
    name: str, layer: nn.Module, step: str, user: nn.Module | None, plans: dict[int, Plan | str]
) -> str | None:
    """Why a layer that no container fuses stays, or None if a forward runs it fused.

    Its name is that below `user`, the module whose forward may call it; `step` is what its container says.
    """
    own, plan = plans.get(id(layer)), plans.get(id(user))
    if isinstance(own, Plan):  # a subclass of Linear, whose own forward is known
        return None if own.found else own.reasons.get("", step)
    if isinstance(plan, Plan) and name in plan.layers:
        return None
    if plan is None or isinstance(layer, Layer):
        return step
    forward = f"{type(user).__name__}.forward"
    if isinstance(plan, str):
        return f"used by {forward}, which stays: {plan}"
    return plan.reasons.get(name, f"{forward} does not call it")


def _why_product_left(module: nn.Module, plan: Plan | str | None) -> str | None:
    """Why a product of parameters of a module that is no layer stays, if there may be one."""
    if isinstance(module, _LAYERS):
        return None
    if isinstance(plan, Plan):
        return plan.reasons.get("")
    own = any(map(is_matrix, module.parameters(recurse=False)))
    return f"its forward stays: {plan}" if plan and own else None


def _chains(module: nn.Module, report: Report) -> tuple[dict[tuple[int, int], Link], set[int]]:
    """The links of all chains by (id of the container, index in it), and the ids of Sequentials with a chain.

    Chains that are no part of a longer one go into the report, unless they run already.
    """
    links: dict[tuple[int, int], Link] = {}
    chained: set[int] = set()
    if not has_chains():
        return links, chained
    paths = {id(container): path for path, container in module.named_modules()}
    for container in module.modules():
        if not isinstance(container, nn.Sequential) or _obstacle(container, container):
            continue
        for stretch in ChainPlan(container).stretches:
            if not stretch.chain:
                continue
            chained.add(id(container))
            found = {(id(place.container), place.at): place.link for place in stretch.places}
            if not found.keys() <= links.keys() and not _is_accelerated(container):
                names = tuple(
                    ".".join(filter(None, (paths[id(owner)], list(owner._modules)[at])))
                    for owner, at, _ in stretch.places
                )
                if len(names) > 1:
                    report.chains.append(names)
                if (rows := stretch.chain.fewest_rows) > 1:
                    report.small.append((names[0], rows))
            links.update(found)
    return links, chained


def accelerate(module: nn.Module) -> Report:
    """Run what fastact knows of a model fused, in place, in inference and in training.

    Within an `nn.Sequential`, a Linear followed by ReLU, ReLU6, LeakyReLU, ELU, SELU, GELU, SiLU, Softplus,
    Softsign, Mish, Sigmoid, LogSigmoid, Tanh, Hardtanh (from -1 to 1), Hardsigmoid or Hardswish runs as one
    `linear_activation`.  A Linear followed by a MaxPool1d over whole groups of units, which is maxout, runs
    as one `linear_maxout`, and so does stanza's `MaxoutLinear`.

    On the C backend several Linears, with what runs with them and LayerNorms and Dropouts between and after,
    are a chain: one call forward and one backward, in nested Sequentials too.  Where gradients are recorded,
    PyTorch's own modules run a small chain faster; then they do run, and the report names the chain.

    Such a Sequential has to be called as a whole: what calls its children one by one runs them unfused.

    A forward that is neither PyTorch's nor fastact's own is traced with `torch.fx`, and in it a product with
    such an activation or a maximum of groups behind it becomes one operator.  A product is an nn.Linear,
    `F.linear`, or `x @ W + b` of parameters; a maximum is `view(..., out, pieces).max(-1)`, the maximum of
    chunks or slices, or `torch.maximum` of several Linears.  The traced forward runs in eager calls, from
    as many rows on as the report says, and while all that it depends on is unchanged: attributes, children,
    global variables, the code.  Else, and under `torch.compile` and autocast, the module's own forward runs.

    Every module stays where it is.  Only the `forward` of such a container or module is exchanged, in the
    instance: the new one reads its children at each call and calls each one that it cannot fuse then.
    These are modules with hooks, a parametrisation or a forward of their own, subclasses, parameters or
    inputs that are not dense float32 or float64 tensors on the CPU, and modules under `torch.jit`,
    `torch.fx`, `torch.export`, `torch.onnx`, `torch.func`, forward-mode differentiation and dispatch modes.
    In a Sequential `torch.compile` takes the fused operators.  A second derivative (`create_graph=True`) of
    a fused layer is an error.

    A deep copy is accelerated as well.  A model that is pickled or saved whole is the model as it was: it
    loads without fastact, and runs plainly until `accelerate` is called again.

    Returns:
        A report of what was replaced and what was left alone, and why; its `restore()` undoes the change,
        as `fastact.torch.restore(module)` does.

    Raises:
        TypeError: `module` is not an `nn.Module`.
    """
    _check_module(module)
    report = Report()
    plans: dict[int, Plan | str] = {}
    for each in module.modules():
        if not _is_maxout_linear(each) and (planned := plan_of(each)) is not None:
            plans[id(each)] = planned
    if isinstance(module, (Layer, *_LAYERS)):
        why = _OWN if isinstance(module, Layer) else "not in an nn.Sequential"
        if (reason := _why_left("", module, why, None, plans)) is not None:
            report._skip("", _described(module), reason)
    links, chained = _chains(module, report)
    # By a module's id: the nearest one above it that has a forward, if any, and the path of that.
    users: dict[int, tuple[nn.Module, str]] = {}
    for path, container in module.named_modules():
        own = (container, path)
        user, user_path = own if _has_forward(container) else users.get(id(container), own)
        for child in container.children():
            users.setdefault(id(child), (user, user_path))
        accelerated = _is_accelerated(container)
        fused = id(container) in chained and not accelerated
        for child_name, layers, step in _accounts(container, user, links):
            name = ".".join(filter(None, (path, child_name)))
            if isinstance(step, str):
                reason = _why_left(name[len(user_path) :].lstrip("."), layers[0], step, user, plans)
                if reason:
                    report._skip(name, _described(layers[0]), reason)
                continue
            before = " + ".join(type(layer).__name__ for layer in layers)
            if accelerated:
                report._skip(name, before, _ACCELERATED)
            else:
                after = step.text if isinstance(step, Link) else str(step)
                report.replaced.append(Change(name, before, after))
                fused = True
        plan = plans.get(id(container))
        if isinstance(plan, Plan):
            for layer_name, before, after in plan.found:
                name = ".".join(filter(None, (path, layer_name)))
                if accelerated:
                    report._skip(name, before, _ACCELERATED)
                else:
                    report.replaced.append(Change(name, before, after))
                    fused = True
        if (reason := _why_product_left(container, plan)) is not None:
            report._skip(path, type(container).__name__, reason)
        if fused:
            report._containers.append(container)
    if not report.replaced and not report.skipped:
        kinds = ", ".join(sorted({type(each).__name__ for each in module.modules()}))
        report._skip("", "", f"no Linear, activation or MaxPool1d in it, but {kinds}")
    for container in report._containers:
        plan = plans.get(id(container))
        if isinstance(plan, Plan):
            exchange(container, forward_of(plan))
        else:
            exchange(container, maxout_linear_forward if _is_maxout_linear(container) else sequential_forward)
    return report


def restore(module: nn.Module) -> None:
    """Give every module in a model that `accelerate` has changed its own forward again.

    Deep copies and unpickled models may be given too.  A Sequential that was given to `torch.compile` itself
    while it was accelerated has to be given to it again.

    Raises:
        TypeError: `module` is not an `nn.Module`.
    """
    _check_module(module)
    for container in module.modules():
        withdraw(container)


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: got {type(module).__name__}, wanted a torch.nn.Module")
