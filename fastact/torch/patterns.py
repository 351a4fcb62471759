"""Linear layers in a graph of `torch.fx`, and the activation or maximum behind them that makes one operator.

A pattern is recognised by its data flow: what lies between the product and the result is used by nothing
else, and the sizes of a view are those of (..., out_features, pieces) for any input.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from .containers import ANY_RANK, fuses
from .traces import Spread, stars, unpack

Ranks = tuple[int, int]


class Product(NamedTuple):
    """x @ weight.T + bias in a graph.

    Attributes:
        nodes: the nodes that compute it, the result last.
        x: its input.
        module: the name of an `nn.Linear`, or None for a product of tensors.
        weight, bias: nodes, where it is one of tensors.
        transposed: whether `weight` is (in_features, out_features).
        ranks: the fewest and the most dimensions that x may have.
        text: what a report calls it.
    """

    nodes: tuple[fx.Node, ...]
    x: fx.Node
    module: str | None
    weight: fx.Node | None
    bias: fx.Node | None
    transposed: bool
    ranks: Ranks
    text: str


class Match(NamedTuple):
    """Nodes that one operator can run.

    Attributes:
        products: one product; or the pieces of a maxout, each an nn.Linear of the same x.
        nodes: all of the pattern's nodes, `final` among them; others use the result of `final` alone.
        ranks: the fewest and the most dimensions that x may have.
        after: a module that is the activation, where the graph calls no module for it.
        after_module: the name of the activation or MaxPool1d, where the graph calls one.
        groups: the number of maxima and of pieces, each None if it follows from the other; for a maxout.
        piece_major: whether unit k * out_features + j is piece k of output j.
        only_values: whether derivatives differ, by their value at a bound.
        text: what a report calls the activation or maximum.
    """

    products: tuple[Product, ...]
    nodes: frozenset[fx.Node]
    final: fx.Node
    ranks: Ranks
    text: str
    after: nn.Module | None = None
    after_module: str | None = None
    groups: tuple[int | None, int | None] | None = None
    piece_major: bool = False
    only_values: bool = False


# The functions of F take the keywords of the modules, in their order, after the input.
_ACTIVATIONS: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), nn.LeakyReLU),
    **dict.fromkeys((F.elu, F.elu_), nn.ELU),
    **dict.fromkeys((F.selu, F.selu_, torch.selu, torch.selu_), nn.SELU),
    F.gelu: nn.GELU,
    F.silu: nn.SiLU,
    F.softplus: nn.Softplus,
    F.mish: nn.Mish,
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), nn.Sigmoid),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), nn.Tanh),
    F.softsign: nn.Softsign,
    F.hardswish: nn.Hardswish,
    F.hardsigmoid: nn.Hardsigmoid,
    **dict.fromkeys((F.hardtanh, F.hardtanh_), nn.Hardtanh),
    F.relu6: nn.ReLU6,
    F.logsigmoid: nn.LogSigmoid,
}
_CLAMPS = (
    torch.clamp,
    torch.clamp_,
    "clamp",
    "clamp_",
    torch.clamp_min,
    torch.clamp_min_,
    "clamp_min",
    "clamp_min_",
)
_MATMULS = (operator.matmul, torch.matmul, torch.mm, "matmul", "mm", "__matmul__")
_MAXIMA = (torch.max, torch.maximum, "max", "maximum")


def find(graph: fx.Graph, module: nn.Module) -> list[Match]:
    """The patterns of a graph, which have no node in common."""
    matches: list[Match] = []
    taken: set[fx.Node] = set()
    for node in graph.nodes:
        match = _activation(node, module) or _grouped_maximum(node, module) or _maximum(node, module)
        if match and not match.nodes & taken:
            matches.append(match)
            taken |= match.nodes
    return matches


def child(module: nn.Module, node: Any) -> Any:
    """The module that a node calls, or None."""
    return module.get_submodule(node.target) if _is_node(node) and node.op == "call_module" else None


def _is_node(value: Any) -> bool:
    return isinstance(value, fx.Node)


def _is_parameter(value: Any) -> bool:
    """Whether a value is the node of a parameter or buffer."""
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _is_int(value: Any) -> bool:
    return type(value) is int


def _calls(node: Any, targets: Iterable[Any]) -> bool:
    """Whether a node calls one of these functions, or a method of one of these names."""
    return _is_node(node) and node.op in ("call_function", "call_method") and node.target in targets


def _arguments(node: fx.Node, **defaults: Any) -> dict[str, Any] | None:
    """The arguments behind the first, by name; None if there are others, or no first."""
    if not node.args or len(node.args) - 1 > len(defaults) or node.kwargs.keys() - defaults.keys():
        return None
    return {**defaults, **dict(zip(defaults, node.args[1:], strict=False)), **node.kwargs}


# ---- products


def _product(node: Any, module: nn.Module) -> Product | None:
    """The product whose result a node is."""
    if not _is_node(node):
        return None
    if node.op == "call_module":
        linear = child(module, node)
        if type(linear) is nn.Linear and len(node.args) == 1 and not node.kwargs and _is_node(node.args[0]):
            return Product((node,), node.args[0], node.target, None, None, False, ANY_RANK, "Linear")
        return None
    if _calls(node, (F.linear,)):
        given = _arguments(node, weight=None, bias=None)
        if given:
            return _of_tensors(
                (node,), node.args[0], given["weight"], given["bias"], False, ANY_RANK, "F.linear"
            )
        return None
    if _calls(node, (torch.addmm,)) and len(node.args) == 3 and not node.kwargs:
        bias, x, weight = node.args
        return _of_tensors((node,), x, weight, bias, True, (2, 2), "addmm")
    if _calls(node, (operator.add, torch.add, "add")) and len(node.args) == 2 and not node.kwargs:
        for product, bias in (node.args, node.args[::-1]):
            if _calls(product, _MATMULS) and _is_parameter(bias):
                return _matmul(product, bias, (product, node))
    return _matmul(node, None, (node,))


def _matmul(node: Any, bias: fx.Node | None, nodes: tuple[fx.Node, ...]) -> Product | None:
    if not _calls(node, _MATMULS) or len(node.args) != 2 or node.kwargs:
        return None
    ranks = (2, 2) if node.target in (torch.mm, "mm") else ANY_RANK
    x, weight = node.args
    return _of_tensors(nodes, x, weight, bias, True, ranks, "x @ W" if bias is None else "x @ W + b")


def _of_tensors(
    nodes: tuple[fx.Node, ...], x: Any, weight: Any, bias: Any, transposed: bool, ranks: Ranks, text: str
) -> Product | None:
    if straight := _transposed(weight):
        weight, transposed = straight, not transposed
    if not (_is_node(x) and _is_parameter(weight) and (bias is None or _is_parameter(bias))):
        return None
    return Product(nodes, x, None, weight, bias, transposed, ranks, text)


def _transposed(node: Any) -> fx.Node | None:
    """The parameter whose transpose a node is."""
    transposes = (
        (_calls(node, (getattr,)) and node.args[1] in ("T", "mT"))
        or (_calls(node, ("t", torch.t)) and len(node.args) == 1)
        or (
            _calls(node, ("transpose", torch.transpose))
            and node.args[1:] in ((0, 1), (1, 0), (-2, -1), (-1, -2))
        )
    )
    return node.args[0] if transposes and _is_parameter(node.args[0]) else None


# ---- activations


def _activation(node: fx.Node, module: nn.Module) -> Match | None:
    """A product and the activation, or MaxPool1d, whose result a node is."""
    if not node.args or (product := _product(node.args[0], module)) is None:
        return None
    if node.op == "call_module":
        after = child(module, node)
        if fuses(after) and len(node.args) == 1 and not node.kwargs:
            return _matched(
                (product,), node, (), product.ranks, type(after).__name__, after_module=node.target
            )
        return None
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if _calls(node, _CLAMPS):
        given = _arguments(node, min=None, max=None)
        if given and type(given["min"]) in (int, float) and given["min"] == 0 and given["max"] is None:
            return _matched((product,), node, (), product.ranks, name, after=nn.ReLU(), only_values=True)
    elif _calls(node, _ACTIVATIONS) and not any(map(_is_node, (*node.args[1:], *node.kwargs.values()))):
        try:
            after = _ACTIVATIONS[node.target](*node.args[1:], **node.kwargs)
        except TypeError:  # not the keywords of the activation
            return None
        return _matched((product,), node, (), product.ranks, name, after=after)
    return None


# ---- maxima of groups: view(..., out, pieces).max(-1)


def _grouped_maximum(node: fx.Node, module: nn.Module) -> Match | None:
    """A product, its view in groups, and their maximum, whose result a node is."""
    between: list[fx.Node] = []
    if _calls(node, ("amax", torch.amax)):
        maximum: Any = node
    else:
        maximum = _values_of_max(node, between)
    if maximum is None:
        return None
    given = _arguments(maximum, dim=None, keepdim=False)
    if not given or given["keepdim"] is not False:
        return None
    dim = given["dim"]
    if isinstance(dim, (tuple, list)) and len(dim) == 1 and maximum is node:
        dim = dim[0]
    view = maximum.args[0]
    source = view.args[0] if _is_node(view) and view.args else None
    if not _is_int(dim) or (product := _product(source, module)) is None:
        return None
    if (sizes := _view_sizes(view, product)) is None:
        return None
    (first, second), (lowest, highest) = sizes  # the last two sizes, and the ranks of the product
    if dim >= 0:
        if lowest != highest:
            return None
        dim -= lowest + 1  # the view has one dimension more
    if dim not in (-1, -2):
        return None
    groups = (first, second) if dim == -1 else (second, first)
    ranks = _both(product.ranks, (lowest, highest))
    text = "max" if maximum is not node else "amax"
    return _matched(
        (product,), node, (view, maximum, *between), ranks, text, groups=groups, piece_major=dim == -2
    )


def _values_of_max(node: fx.Node, between: list[fx.Node]) -> Any:
    """The node of z.max(dim) whose values, and not the indices, a node takes; `between` gets other nodes."""
    if _calls(node, (operator.getitem,)) and node.args[1] == 0:
        source: Any = node.args[0]
        if _calls(source, (unpack,)) and source.args[1] == 2:
            between.append(source)
            between += [user for user in source.users if user is not node and not user.users]
            source = source.args[0]
    elif _calls(node, (getattr,)) and node.args[1] == "values":
        source = node.args[0]
    else:
        return None
    return source if _calls(source, ("max", torch.max)) else None


def _view_sizes(view: fx.Node, product: Product) -> tuple[tuple[int | None, int | None], Ranks] | None:
    """The last two sizes of a view of a product, and the ranks of those that it splits into such groups."""
    target = view.target.target if isinstance(view.target, Spread) else view.target
    if view.kwargs or view.op not in ("call_function", "call_method"):
        return None
    args: Any = view.args[1:]
    if target in ("unflatten", torch.unflatten):
        if len(args) != 2 or not _is_int(args[0]) or args[0] < -1 or not isinstance(args[1], (tuple, list)):
            return None
        ranks = ANY_RANK if args[0] == -1 else (args[0] + 1, args[0] + 1)
        return _split(tuple(args[1]), ranks)
    if target not in ("view", "reshape", torch.reshape):
        return None
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = args[0]
    elif len(args) == 1 and _calls(args[0], (operator.add,)):  # x.shape[:-1] + (out, pieces)
        leading, rest = args[0].args
        if not isinstance(rest, tuple) or not _is_leading(leading, product):
            return None
        return _split(rest, ANY_RANK)
    leading, last = args[:-2], tuple(args[-2:])
    if len(leading) == 1 and _calls(leading[0], (stars,)) and _is_leading(leading[0].args[0], product):
        return _split(last, ANY_RANK)
    rank = len(leading) + 1
    unknown = sum(_is_int(size) and size == -1 for size in args)
    if unknown > 1 or not all(
        (_is_int(size) and size == -1) or _is_size(size, i, rank, product) for i, size in enumerate(leading)
    ):
        return None
    return _split(last, (rank, rank))


def _split(sizes: tuple[Any, ...], ranks: Ranks) -> tuple[tuple[int | None, int | None], Ranks] | None:
    if len(sizes) != 2 or not all(_is_int(size) and (size > 0 or size == -1) for size in sizes):
        return None
    first, second = (None if size == -1 else size for size in sizes)
    return None if first is None and second is None else ((first, second), ranks)


def _shape_of(node: Any) -> Any:
    """The node of a tensor whose shape a node is."""
    if _calls(node, (getattr,)) and node.args[1] == "shape":
        return node.args[0]
    return node.args[0] if _calls(node, ("size",)) and len(node.args) == 1 and not node.kwargs else None


def _is_leading(node: Any, product: Product) -> bool:
    """Whether a node is all but the last size of a product, or of its input."""
    if not _calls(node, (operator.getitem,)) or node.args[1] != slice(None, -1, None):
        return False
    return _shape_of(node.args[0]) in (product.x, product.nodes[-1])


def _is_size(node: Any, i: int, rank: int, product: Product) -> bool:
    """Whether a node is size i of a product of `rank` dimensions, or of its input."""
    if _calls(node, (operator.getitem,)):
        shape: Any = node.args[0]
        if _calls(shape, (unpack,)):
            shape = shape.args[0]
        tensor, index = _shape_of(shape), node.args[1]
    elif _calls(node, ("size",)) and len(node.args) == 2 and not node.kwargs:
        tensor, index = node.args
    else:
        return False
    return tensor in (product.x, product.nodes[-1]) and index in (i, i - rank)


# ---- maxima of several tensors: torch.maximum(a, b)


def _maximum(node: fx.Node, module: nn.Module) -> Match | None:
    """Parts of a product, or products of one input, and their maximum, whose result a node is."""
    between: list[fx.Node] = []
    if isinstance(node.target, Spread):  # torch.max(*z.chunk(2))
        if node.target.target not in _MAXIMA or len(node.args) != 1 or not _calls(node.args[0], (stars,)):
            return None
        star: Any = node.args[0]
        between += [star, star.args[0]]
        return _of_cuts(node, [_chunk(star.args[0], 2, i) for i in range(2)], between, module)
    operands = list(_operands(node, between))
    if len(operands) < 2:
        return None
    products = [product for each in operands if (product := _product(each, module))]
    if len(products) == len(operands):
        return _of_products(node, products, between)
    return _of_cuts(node, [_cut(each, len(operands), between) for each in operands], between, module)


def _operands(node: Any, between: list[fx.Node]) -> Iterator[fx.Node]:
    """The operands of nested maxima; `between` gets the nodes of the maxima."""
    pair = _calls(node, _MAXIMA) and len(node.args) == 2 and not node.kwargs and all(map(_is_node, node.args))
    if pair and (not between or len(node.users) == 1):
        between.append(node)
        for operand in node.args:
            yield from _operands(operand, between)
    else:
        yield node


def _of_products(node: fx.Node, products: list[Product], between: list[fx.Node]) -> Match | None:
    """The maximum of several products of one input."""
    x = products[0].x
    if len(set(products)) < len(products) or any(each.module is None or each.x is not x for each in products):
        return None
    return _matched(tuple(products), node, between, ANY_RANK, "maximum", groups=(None, len(products)))


# The tensor that is cut, the ranks that it may have, (out_features, pieces), piece_major, and which piece.
_Cut = tuple[Any, Ranks, tuple[int | None, int], bool, int]


def _of_cuts(
    node: fx.Node, cuts: list[_Cut | None], between: list[fx.Node], module: nn.Module
) -> Match | None:
    """The maximum of all the parts, of the same size, into which the units of a product are cut."""
    known = [cut for cut in cuts if cut]
    if len(known) < len(cuts) or len({cut[:4] for cut in known}) != 1:
        return None
    source, ranks, groups, piece_major, _ = known[0]
    if {cut[4] for cut in known} != set(range(len(cuts))) or (product := _product(source, module)) is None:
        return None
    ranks = _both(product.ranks, ranks)
    return _matched((product,), node, between, ranks, "maximum", groups=groups, piece_major=piece_major)


def _cut(part: Any, count: int, between: list[fx.Node]) -> _Cut | None:
    """Which of `count` parts of a tensor a node is; `between` gets the nodes that cut it."""
    if not _calls(part, (operator.getitem,)):
        return None
    source, index = part.args
    between.append(part)
    if not _is_int(index):
        return _slice(source, index, count)
    between.append(source)
    if _calls(source, (unpack,)):
        source = source.args[0]
        between.append(source)
    return _chunk(source, count, index)


def _chunk(node: Any, count: int, index: int) -> _Cut | None:
    """Piece `index` of z.chunk(count, dim), or of z.split(size, dim)."""
    if _calls(node, ("chunk", torch.chunk)):
        given = _arguments(node, chunks=None, dim=0)
        if not given or given["chunks"] != count:
            return None
        out = None
    elif _calls(node, ("split", torch.split)):
        given = _arguments(node, split_size_or_sections=None, dim=0) or _arguments(
            node, split_size=None, dim=0
        )
        if not given:
            return None
        out = given.get("split_size_or_sections", given.get("split_size"))
        if isinstance(out, (list, tuple)) and len(out) == count and len(set(out)) == 1:
            out = out[0]
        if not _is_int(out):
            return None
    else:
        return None
    dim = given["dim"]
    if not _is_int(dim) or dim < -1:
        return None
    return node.args[0], ANY_RANK if dim == -1 else (dim + 1, dim + 1), (out, count), True, index


def _slice(source: Any, index: Any, count: int) -> _Cut | None:
    """Piece z[..., i * out : (i + 1) * out] or z[..., i::count]; there may be colons for the ellipsis."""
    if not isinstance(index, tuple) or not index or not isinstance(index[-1], slice):
        return None
    *leading, last = index
    if leading == [...]:
        ranks = ANY_RANK
    elif all(each == slice(None, None, None) for each in leading):
        ranks = (len(index), len(index))
    else:
        return None
    start, stop, step = last.start or 0, last.stop, last.step
    if not _is_int(start) or not (stop is None or _is_int(stop)):
        return None
    if step == count and stop is None:
        return source, ranks, (None, count), False, start
    if step not in (None, 1):
        return None
    if start == 0 and _is_int(stop) and stop > 0:
        return source, ranks, (stop, count), True, 0
    out, rest = divmod(start, count - 1) if stop is None else (stop - start, 0)
    if out < 1 or rest or start % out:
        return None
    return source, ranks, (out, count), True, start // out


# ---- matches


def _both(one: Ranks, other: Ranks) -> Ranks:
    return max(one[0], other[0]), min(one[1], other[1])


def _matched(
    products: tuple[Product, ...],
    final: fx.Node,
    between: Iterable[fx.Node],
    ranks: Ranks,
    text: str,
    **more: Any,
) -> Match | None:
    """The match of these nodes, if nothing else uses what they compute."""
    nodes = {final, *between}.union(*(product.nodes for product in products))
    readers: list[fx.Node] = [user for node in nodes - {final} for user in node.users if reads_shape(user)]
    while readers:  # of the sizes of a product
        reader = readers.pop()
        if reader not in nodes:
            nodes.add(reader)
            readers += [user for user in reader.users if reads_shape(user)]
    weights = [product.weight for product in products if product.weight is not None]
    nodes |= {
        user
        for weight in weights
        for user in weight.users
        if _transposed(user) and user.users.keys() <= nodes
    }
    if ranks[0] > ranks[1] or not all(node.users.keys() <= nodes for node in nodes - {final}):
        return None
    return Match(products, frozenset(nodes), final, ranks, text, **more)


def mark_shapes(graph: fx.Graph) -> None:
    """Note which nodes give a shape or a size, or compute with them; `reads_shape` tells it."""
    for node in graph.nodes:
        sources = [each for each in node.all_input_nodes if each.op != "get_attr"]
        node.meta[mark_shapes] = (
            _shape_of(node) is not None
            or _calls(node, ("size", "dim"))
            or (_calls(node, (getattr,)) and node.args[1] in ("shape", "ndim"))
            or (_calls(node, _OF_SHAPES) and bool(sources) and all(map(reads_shape, sources)))
        )


_OF_SHAPES = (operator.getitem, operator.add, operator.mul, operator.floordiv, unpack, stars)


def reads_shape(node: fx.Node) -> bool:
    """Whether a node gives a parameter, a shape or a size, so that it may run earlier than it does."""
    return node.op == "get_attr" or node.meta.get(mark_shapes, False)
