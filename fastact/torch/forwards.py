"""Forwards that `accelerate` gives to modules with a forward of their own: its graph, with fused operators.

A forward is recorded once (traces.py), and what one operator can run is found in its graph (patterns.py).
At each call the graph runs if all is as it was recorded, and if the rows pay for it; else the module's own
forward runs.  In the graph each operator looks at its layer again, and where it does not fit it runs the
operations of PyTorch that it stands for.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from . import fused_maxout
from .containers import (
    ANY_RANK,
    TENSORS,
    UNGROUPED,
    Step,
    activation_step,
    call_obstacle,
    divides,
    is_observed,
    is_ours,
    linear_maxout,
    linear_obstacle,
    next_step,
    tensors_obstacle,
)
from .patterns import Match, child, find, mark_shapes, reads_shape
from .traces import Untraceable, record

# ---- what an operator costs and saves beside PyTorch's own, without and with gradients, in ns

_CALL = (20_000.0, 120_000.0)  # a call, and its share of what is checked before the graph runs
_CALL_WITH_COPY = (36_000.0, 160_000.0)  # a call that makes a copy of the weight, for another order
_COPY = (0.6, 1.7)  # each number of such a weight
_PRODUCT = (0.0008, 0.003)  # saved for each multiply-add beyond the first 128 of a number of the product
_MOST_INPUTS = 512  # of which multiply-adds are counted
_MAXOUT = (1.0, 4.0)  # saved besides for each number of the product, and so below
_ACTIVATION = (0.0, 0.0)
_ACTIVATIONS = {
    **dict.fromkeys(("tanh", "mish"), (2.3, 2.5)),
    **dict.fromkeys(("elu", "selu", "softplus", "logsigmoid"), (1.0, 1.2)),
    "sigmoid": (0.12, 0.0),
    "silu": (0.12, 0.0),
    "gelu": (0.0, 1.5),
    "softsign": (0.4, 1.9),
}
_MOST_ROWS = 2048  # a layer that needs more to gain from an operator is left alone


def _least_rows(step: Step, copies: bool, recorded: bool) -> float:
    """The rows of x from which a step takes less time than PyTorch's own operators, infinity for never."""
    units, inputs = step.weight.shape
    saved = _MAXOUT
    if "activation" in step.keywords:
        saved = _ACTIVATIONS.get(step.keywords["activation"], _ACTIVATION)
    each = saved[recorded] + _PRODUCT[recorded] * max(0, min(inputs, _MOST_INPUTS) - 128)
    cost = _CALL[recorded]
    if copies:
        cost = _CALL_WITH_COPY[recorded] + _COPY[recorded] * step.weight.numel()
    return cost / (each * units) if each and units else math.inf


# ---- operations: a match at a call


class Operation:
    """The operator of a match, or PyTorch's own where it does not fit."""

    def __init__(self, match: Match, unfused: Callable[..., Any]) -> None:
        product = match.products[0]
        self.modules = product.module is not None
        self.transposed, self.ranks, self.unfused = product.transposed, match.ranks, unfused
        self.after, self.groups, self.only_values = match.after, match.groups, match.only_values
        self.stacks, self.piece_major = len(match.products) > 1, match.piece_major
        self.__name__ = "fastact_operation"  # what torch.fx calls it in code

    def step(self, product: Any, bias: Any, after: Any) -> Step | str:
        """The step of a layer as it is now, or why there is none.

        `product` is an nn.Linear, or the weight that belongs to `bias`; `after` is a module, or None.
        """
        after = self.after if after is None else after
        if self.modules:
            if type(product) is not nn.Linear:
                return f"its layer is a {type(product).__name__}"
            if why := linear_obstacle(product):
                return why
            if self.groups is None:
                return next_step((product, after), 0) or UNGROUPED
            weight, bias = product._parameters["weight"], product._parameters["bias"]
        else:
            weight = product
            if self.transposed and type(product) in TENSORS and product.dim() == 2:
                weight = product.t()
            if why := tensors_obstacle(weight, bias):
                return why
            if self.groups is None:
                return activation_step(weight, bias, after)
        out, pieces = self.groups
        units = weight.shape[0]
        if self.stacks:  # the step of one piece of a maxout, whatever the number of its units
            keywords: dict[str, Any] = {"pieces": pieces}
            return (
                Step(1, ANY_RANK, linear_maxout, weight, bias, keywords) if divides(pieces, 0) else UNGROUPED
            )
        if pieces is None:
            pieces, rest = divmod(units, out or 1)
            if rest:
                return UNGROUPED
        if not divides(pieces, units) or out not in (None, units // pieces):
            return UNGROUPED
        keywords = {"pieces": pieces, **({"piece_major": True} if self.piece_major else {})}
        return Step(1, self.ranks, linear_maxout, weight, bias, keywords)

    def least_rows(self, step: Step, recorded: bool) -> float:
        copies = self.stacks or self.piece_major or not step.weight.is_contiguous()
        return _least_rows(step, copies, recorded)

    def _takes(self, x: Any, step: Step) -> bool:
        """Whether the operator returns what PyTorch's own operations would, and takes no longer."""
        if not (step.takes(x) and self.ranks[0] <= x.dim() <= self.ranks[1]):
            return False
        tensors = [each for each in (x, step.weight, step.bias) if each is not None]
        recorded = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
        if recorded and self.only_values:
            return False
        rows: int = x.numel() // x.shape[-1]
        return rows >= self.least_rows(step, recorded)

    def __call__(self, x: Any, products: tuple[Any, ...], bias: Any, after: Any, *inputs: Any) -> Any:
        """y; `inputs` are those of `unfused`."""
        step = self.step(products[0], bias, after)
        if isinstance(step, Step) and self._takes(x, step):
            if not self.stacks:
                return step.run(x)
            others = [self.step(product, bias, after) for product in products[1:]]
            if (stacked := _stacked([step, *others])) is not None:
                return fused_maxout.linear_maxout(x, *stacked)
        return self.unfused(None, *inputs)


def _stacked(steps: list[Any]) -> tuple[Tensor, Tensor | None] | None:
    """The weights and biases of several layers as those of one maxout; None if they do not match."""
    if not all(isinstance(step, Step) for step in steps):
        return None
    weights, biases = [step.weight for step in steps], [step.bias for step in steps]
    first = weights[0]
    if any(each.shape != first.shape or each.dtype is not first.dtype for each in weights):
        return None
    without = [each is None for each in biases]
    if any(without):
        return (torch.stack(weights, 1), None) if all(without) else None
    return torch.stack(weights, 1), torch.stack(biases, 1)


# ---- plans: what a module's forward does from now on


class Found(NamedTuple):
    """An operator in a plan, with the fields of `Change`; the name is "" where it runs no child."""

    name: str
    before: str
    after: str


class Plan:
    """The graph of a forward with the operators in it.

    Attributes:
        own: the forward of the class.
        inputs: how many arguments the graph takes; the forward's others have to be their defaults.
        found: what was fused.
        layers: the names of the layers that run fused.
        reasons: for each other layer that the forward calls, why it does not.
    """

    def __init__(self, module: nn.Module) -> None:
        trace = record(module)
        mark_shapes(trace.graph)
        self.own: Any = type(module).forward
        self.inputs, self._defaults, self._facts = trace.inputs, trace.defaults, trace.facts
        self._positions = trace.positions
        self.found: list[Found] = []
        self.layers: set[str] = set()
        self.reasons = {
            node.target: _why_alone(node, module) for node in trace.graph.nodes if node.op == "call_module"
        }
        # Modules, and their classes, with something between them that would run later if they were not plain.
        self._separated: list[tuple[str, type]] = []
        self._least_rows = [math.inf] * 2
        replaced: dict[fx.Node, fx.Node] = {}
        for match in find(trace.graph, module):
            self._take(match, trace.graph, module, replaced)
        for name in self.layers:
            self.reasons.pop(name, None)
        self.run = _compiled(trace.graph, type(module).__qualname__)

    def _take(
        self, match: Match, graph: fx.Graph, module: nn.Module, replaced: dict[fx.Node, fx.Node]
    ) -> None:
        """Put one operator into the graph; `replaced` maps the results of earlier ones to their new nodes."""
        anchor = min(product.nodes[0] for product in match.products)
        last = max(product.nodes[-1] for product in match.products)
        between = [node for node in graph.nodes if anchor < node < match.final and node not in match.nodes]
        if any(node < last and not reads_shape(node) for node in between):
            return
        nodes = [node for node in graph.nodes if node in match.nodes]
        used = [each for node in nodes for each in node.all_input_nodes if each not in match.nodes]
        inputs = list(dict.fromkeys(used))
        product = match.products[0]
        x = replaced.get(product.x, product.x)
        moved = _moved({x, *inputs, *filter(None, (product.weight, product.bias))}, anchor)
        if moved is None:
            return
        names = [each.module for each in match.products if each.module]
        names += [match.after_module] if match.after_module else []
        operation = Operation(match, _unfused(nodes, match.final, inputs, names))
        name, step = product.module or "", _first_step(operation, match, module)
        if isinstance(step, str):
            self.reasons[name] = step
            return
        rows = [operation.least_rows(step, recorded) for recorded in (False, True)]
        if match.only_values:
            rows[1] = math.inf
        if (fewest := min(rows)) > _MOST_ROWS:
            from_where = "" if math.isinf(fewest) else f"; it would be from {fewest:.0f} rows on"
            self.reasons[name] = f"one operator is no faster{from_where}"
            return
        for node in sorted(moved):
            anchor.prepend(node)
        with graph.inserting_before(anchor):
            modules = {name: graph.create_node("get_attr", name) for name in names}
            products = tuple(modules[each.module] if each.module else each.weight for each in match.products)
            activation = modules[match.after_module] if match.after_module else None
            arguments = (x, products, product.bias, activation, *inputs, *modules.values())
            fused = graph.call_function(operation, arguments)
        match.final.replace_all_uses_with(fused)
        replaced[match.final] = fused
        for node in reversed(nodes):
            graph.erase_node(node)
        if any(not reads_shape(node) for node in between):
            self._separated += [(each, type(module.get_submodule(each))) for each in names]
        self.layers.update(names)
        count = len(match.products)
        text = f"{product.text} + {match.text}" if count == 1 else f"{match.text} of {count} x {product.text}"
        self.found.append(Found(name, text, _operator_text(step, rows)))
        self._least_rows = [min(one, other) for one, other in zip(self._least_rows, rows, strict=True)]

    def fits(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the graph does what the module's own forward would, and takes no longer."""
        if len(args) != self.inputs or kwargs:
            if len(args) < self.inputs or not self._are_defaults(args[self.inputs :], kwargs):
                return False
            args = args[: self.inputs]
        if type(x := args[0]) not in TENSORS:
            return False
        if (_function_modes() or _tracer() is not None) and is_observed():
            return False
        enough, shape = self._least_rows[torch.is_grad_enabled()], x.shape
        if not shape or x.numel() < enough * (shape[-1] if x.is_floating_point() else 1):  # ints index rows
            return False
        if is_observed() or _autocasts() or not all(type(arg) in TENSORS for arg in args):
            return False
        if type(module).forward is not self.own or not self._facts.hold(module):
            return False
        for name, kind in self._separated:
            layer = module.get_submodule(name)
            if type(layer) is not kind or call_obstacle(layer):
                return False
        return True

    def _are_defaults(self, more: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether other arguments, given in order and by name, are the values that the graph has for them."""
        if len(more) > self._positions:
            return False
        given = dict(zip(self._defaults, more, strict=False))
        if given.keys() & kwargs.keys():
            return False
        given |= kwargs
        return all(name in self._defaults and value is self._defaults[name] for name, value in given.items())


_autocasts = torch._C._is_any_autocast_enabled
_function_modes = torch._C._len_torch_function_stack
_tracer = torch._C._get_tracing_state


def _value(module: nn.Module, node: fx.Node | None) -> Any:
    """The parameter or buffer that a node reads."""
    return None if node is None else operator.attrgetter(node.target)(module)


def _first_step(operation: Operation, match: Match, module: nn.Module) -> Step | str:
    """The step of a match as a module is now, or why there is none; that of its first layer, of several."""
    after = module.get_submodule(match.after_module) if match.after_module else None
    steps = []
    for each in match.products:
        source = module.get_submodule(each.module) if each.module else _value(module, each.weight)
        steps.append(operation.step(source, _value(module, each.bias), after))
    if operation.stacks and isinstance(steps[0], Step) and _stacked(steps) is None:
        return "the layers of its maximum do not match"
    return steps[0]


def _why_alone(node: fx.Node, module: nn.Module) -> str:
    """Why a child that a forward calls does not run fused, as far as its place tells."""
    forward, layer = f"{type(module).__name__}.forward", child(module, node)
    if type(layer) is not nn.Linear:
        if isinstance(layer, nn.Linear):
            return f"{type(layer).__name__} is a subclass of Linear"
        return f"no Linear that runs fused comes before it in {forward}"
    user, *others = [each for each in node.users if not reads_shape(each)] or [None]
    if others:
        return f"{forward} uses its result more than once"
    if user is None or user.op == "output":
        return f"nothing follows it in {forward}"
    follower = type(child(module, user)).__name__ if user.op == "call_module" else user.target
    follower = follower if isinstance(follower, str) else getattr(follower, "__name__", "something")
    return f"{follower} follows it in {forward}, and fastact does not fuse the two"


def _operator_text(step: Step, rows: list[float]) -> str:
    """The operator, and from how many rows on it runs, without and with gradients."""
    few, many = ("" if math.isinf(each) else f"{math.ceil(each)} rows" for each in rows)
    if few and many:
        return f"{step}, from {few}, or {many} with gradients"
    return f"{step}, from {few or many} {'without' if few else 'with'} gradients"


def _moved(nodes: set[fx.Node], anchor: fx.Node) -> set[fx.Node] | None:
    """The nodes of these, and of their inputs, that have to move before `anchor`; None if one cannot."""
    moved: set[fx.Node] = set()
    waiting = [node for node in nodes if anchor < node]
    while waiting:
        node = waiting.pop()
        if not reads_shape(node):
            return None
        moved.add(node)
        waiting += [each for each in node.all_input_nodes if anchor < each or each is anchor]
    return moved


def _call(module: Any, *args: Any) -> Any:
    return module(*args)


def _unfused(
    nodes: list[fx.Node], final: fx.Node, inputs: list[fx.Node], names: list[str]
) -> Callable[..., Any]:
    """A function of None, the values of `inputs`, and the modules of these names: what the nodes compute."""
    graph = fx.Graph()
    values = {node: graph.placeholder(f"input_{i}") for i, node in enumerate(inputs)}
    modules = {name: graph.placeholder(f"module_{i}") for i, name in enumerate(dict.fromkeys(names))}
    for node in nodes:
        if node.op == "call_module":
            args = (modules[node.target], *fx.node.map_arg(node.args, values.__getitem__))  # type: ignore[index]
            values[node] = graph.call_function(_call, args)
        else:
            values[node] = graph.node_copy(node, values.__getitem__)
    graph.output(values[final])
    return _compiled(graph, "one operator")


def _compiled(graph: fx.Graph, name: str) -> Callable[..., Any]:
    code = graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, f"<fastact's graph of {name}>", "exec"), names)
    return names["forward"]  # type: ignore[no-any-return]


# ---- forwards


def is_matrix(parameter: nn.Parameter) -> bool:
    return type(parameter) is nn.Parameter and parameter.dim() == 2  # a lazy parameter has no shape


def plan_of(module: nn.Module) -> Plan | str | None:
    """The plan of a module's forward, or why that stays as it is.

    None if the forward is PyTorch's or fastact's, or has nothing in it that an operator could run.
    """
    kind = type(module)
    home = next(base for base in kind.__mro__ if "forward" in vars(base))
    if home.__module__.partition(".")[0] in ("torch", "fastact") or isinstance(module, nn.Sequential):
        return None
    present: Any = vars(module).get("forward", kind.forward)
    if is_ours(present):
        if present.__self__ is module:
            return present.__func__.fastact_plan  # type: ignore[no-any-return]
    elif getattr(present, "__func__", present) is not kind.forward:
        return "its instance has another"
    if not any(map(is_matrix, module.parameters())):
        return None
    try:
        return Plan(module)
    except Untraceable as reason:
        return str(reason)


_compiles = torch.compiler.is_compiling


def forward_of(plan: Plan) -> Callable[..., Any]:
    """A forward that runs a plan where it fits."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _compiles() and plan.fits(self, args, kwargs):
            return plan.run(self, *args[: plan.inputs])
        return type(self).forward(self, *args, **kwargs)

    forward.fastact_plan = plan  # type: ignore[attr-defined]
    return forward
