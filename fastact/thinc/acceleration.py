"""`accelerate` and `restore`: the forwards of a model's or a pipeline's nodes are exchanged."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from thinc.api import Model
from thinc.layers.concatenate import forward as thinc_concatenate
from thinc.layers.maxout import forward as thinc_maxout

from .. import backends, checks
from . import blocks, embedding, fused, layer_norm
from .fused import AnyModel, fusible
from .ops import FastactOps, with_fast_ops, with_plain_ops
from .optimizer import fuse_updates, restore_updates

_log = logging.getLogger("fastact.thinc")

# Each forward of fastact's, and that of Thinc's in whose place it is.
_EXCHANGED = {
    fused.forward: thinc_maxout,
    **blocks.ORIGINALS,
    **layer_norm.ORIGINALS,
    **embedding.ORIGINALS,
}
_FORWARDS = {thinc: ours for ours, thinc in _EXCHANGED.items()}
_SAME_DRAWS = {thinc: ours for ours, thinc in blocks.SAME_DRAWS.items()}
_ORIGINALS = _EXCHANGED | blocks.SAME_DRAWS


class Layer(NamedTuple):
    """One maxout layer.

    Attributes:
        component: the name of its pipeline component; "" in a bare model.
        nO, nP, nI: its dimensions, None where they are not set yet.
    """

    component: str
    nO: int | None
    nP: int | None
    nI: int | None

    def __str__(self) -> str:
        sizes = ("?" if size is None else size for size in self[1:])
        return "Maxout(nO={}, nP={}, nI={})".format(*sizes)


class OtherLayer(NamedTuple):
    """A layer with parameters or a wrapped model that is not a maxout layer.

    Attributes:
        component: the name of its pipeline component; "" in a bare model.
        name: Thinc's name for the layer, such as "relu" or "layernorm".
    """

    component: str
    name: str

    def __str__(self) -> str:
        return self.name


class Block(NamedTuple):
    """Layers that run in one call.

    Attributes:
        component: the name of the pipeline component; "" in a bare model.
        text: the layers in words.
        layers: how many of them have parameters.
    """

    component: str
    text: str
    layers: int

    def __str__(self) -> str:
        return self.text


class Report(NamedTuple):
    """What `accelerate` saw and did; `print(report)` shows it.

    Each layer with parameters is in one field of the first six; those in `blocks` are among them.

    Attributes:
        replaced: maxout layers that run fused from now on, in a block or alone.
        already: maxout layers that ran fused before.
        skipped: maxout layers that were left alone, because their forward is not Thinc's.
        deferred: maxout layers whose forward is fastact's and leaves the work to their Ops, which have
            methods of their own, or because the layer has too many pieces.
        others: all other layers that were left alone.
        fused: other layers that run fused, in a block or alone.
        blocks: layers that run in one call, on the C backend.
        deferred_blocks: blocks whose layers run one by one, because their Ops have methods of their own.
        ops: how many nodes, those without parameters too, have a `FastactOps`.
    """

    replaced: tuple[Layer, ...]
    already: tuple[Layer, ...]
    skipped: tuple[Layer, ...]
    deferred: tuple[Layer, ...] = ()
    others: tuple[OtherLayer, ...] = ()
    fused: tuple[OtherLayer, ...] = ()
    blocks: tuple[Block, ...] = ()
    deferred_blocks: tuple[Block, ...] = ()
    ops: int = 0

    def __repr__(self) -> str:
        if not any(self[:-1]):
            return "no layer with parameters was found"
        lines = []
        if self.blocks:
            how = "in one call" if len(self.blocks) == 1 else "in one call each"
            if not _c_is_active():
                how = "layer by layer, as the C backend is not active"
            lines += [f"{_counted(len(self.blocks), 'block')} {how}", *_lines(self.blocks)]
        if self.deferred_blocks:
            why = "left to Ops with methods of their own"
            lines += [f"{_counted(len(self.deferred_blocks), 'block')} {why}", *_lines(self.deferred_blocks)]
        if self.replaced or not (self.blocks or self.fused):
            lines += [f"{_counted(len(self.replaced), 'maxout layer')} now fused", *_lines(self.replaced)]
        for layers, what in (
            (self.already, "fused before"),
            (self.skipped, "left alone, with a forward of its own"),
            (self.deferred, "left to Ops with methods of their own, or with too many pieces"),
        ):
            if layers:
                lines += [f"{_counted(len(layers), 'maxout layer')} {what}", *_lines(layers)]
        if self.fused:
            lines += [f"{_counted(len(self.fused), 'other layer')} fused", *_lines(self.fused)]
        if self.others:
            why = "fastact has no forward of that kind"
            lines += [f"{_counted(len(self.others), 'other layer')} left alone: {why}", *_lines(self.others)]
            seen = {layer.name for layer in self.others}
            lines += [
                f"  {', '.join(sorted(seen & names))}: {note}" for names, note in _NOTES if seen & names
            ]
        if self.ops:
            lines.append(f"{_counted(self.ops, 'node')} with fastact's Ops")
        return "\n".join(lines)


# Notes that a report adds for some of the other layers.
_NOTES = (
    ({"precomputable_affine"}, "the maxout layer that is compiled into spaCy's parser"),
    ({"pytorch"}, "fastact.torch.accelerate takes the PyTorch model inside"),
)


def _c_is_active() -> bool:
    return hasattr(backends.active(), "network_forward")


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind}{'' if count == 1 else 's'}"


def _lines(layers: Sequence[Layer | OtherLayer | Block]) -> list[str]:
    return [
        f"  {f'{layer.component}: ' if layer.component else ''}{count} x {layer}"
        for layer, count in Counter(layers).items()
    ]


def _models(model_or_nlp: Any) -> list[tuple[str, AnyModel]]:
    """Each model with the name of its pipeline component, disabled ones included."""
    if isinstance(model_or_nlp, Model):
        return [("", model_or_nlp)]
    if hasattr(model_or_nlp, "components"):
        models = [(name, getattr(pipe, "model", None)) for name, pipe in model_or_nlp.components]
        return [(name, model) for name, model in models if isinstance(model, Model)]
    raise TypeError(
        f"model_or_nlp: got {type(model_or_nlp).__name__}, wanted a thinc Model or a spaCy pipeline"
    )


def _nodes(model_or_nlp: Any) -> Iterator[tuple[str, AnyModel]]:
    """Each node once, with the name of its pipeline component."""
    seen = set()  # of the objects: a deep copy of a node has its `id`
    for component, model in _models(model_or_nlp):
        for node in model.walk():
            if id(node) not in seen:
                seen.add(id(node))
                yield component, node


def _original(node: AnyModel) -> Any:
    """Thinc's forward in whose place the node's is, or the node's own; None for what is not a function."""
    func = node._func
    return _ORIGINALS.get(func, func) if type(func) is FunctionType else None


def _find_blocks(model: AnyModel) -> list[tuple[AnyModel, list[blocks.Step]]]:
    """The blocks of a model, each with the outermost node that runs it."""
    found = []
    seen = set()

    def visit(node: AnyModel, inside: bool) -> None:
        if (id(node), inside) in seen:
            return
        seen.add((id(node), inside))
        for layers, steps in blocks.blocks_of(node):
            if steps and not inside:
                found.append((node, steps))
            for layer in layers:
                visit(layer, inside or bool(steps))

    visit(model, False)
    return found


def accelerate(model_or_nlp: Any, same_draws: bool = False) -> Report:
    """Run the layers of a model or a pipeline fused, in inference and in training; `restore` undoes it.

    The mask of a dropout is as random as Thinc's, but another one, which costs less.  Its seed is one draw
    from NumPy's global generator, so that `thinc.api.fix_random_seed` makes a training run reproducible.

    Args:
        model_or_nlp: a Thinc model, or a spaCy pipeline, whose present components are searched.
        same_draws: draw the masks that Thinc draws, for a training run that is compared with Thinc's.

    Returns:
        A report of what was replaced and what was left alone, and why.  A layer with a forward other than
        Thinc's is left alone.

    Raises:
        TypeError: `model_or_nlp` is neither a Thinc model nor a spaCy pipeline.
    """
    found: dict[str, list[Any]] = {kind: [] for kind in Report._fields[:-1]}
    ops = 0
    inside = _exchange_blocks(model_or_nlp, found)
    for component, node in _nodes(model_or_nlp):
        _exchange_layer(component, node, id(node) in inside, found)
        original = _original(node)
        if original in _SAME_DRAWS:
            node.replace_callbacks(_SAME_DRAWS[original] if same_draws else original, init=node.init)
        if _c_is_active() or isinstance(node.ops, FastactOps):
            with_fast_ops(node, same_draws)
        ops += isinstance(node.ops, FastactOps)
    for _, model in _models(model_or_nlp):
        fuse_updates(model)
    linker = _linker_of(model_or_nlp)
    if linker is not None:
        linker.same_draws = same_draws
    return Report(**{kind: tuple(layers) for kind, layers in found.items()}, ops=ops)


def _exchange_blocks(model_or_nlp: Any, found: dict[str, list[Any]]) -> set[int]:
    """Exchange the forwards of the nodes that run blocks; returns which layers are in blocks."""
    inside: set[int] = set()
    for component, model in _models(model_or_nlp):
        for node in model.walk():
            embeddings = embedding.embeddings_of(node) if _original(node) is thinc_concatenate else []
            if embeddings and id(node) not in inside:
                _exchange(node)
                text = f"concatenation of {len(embeddings)} hash embeddings"
                found["blocks"].append(Block(component, text, len(embeddings)))
                inside.add(id(node))
        for node, steps in _find_blocks(model):
            _exchange(node)
            if id(steps[0].node) in inside:  # of a node that two components share
                continue
            block = Block(component, blocks.describe(steps), sum(bool(s.node.param_names) for s in steps))
            left = blocks.left_to_ops(steps)
            found["deferred_blocks" if left else "blocks"].append(block)
            if not left:
                inside.update(id(step.node) for step in steps)
    return inside


def _exchange_layer(component: str, node: AnyModel, in_block: bool, found: dict[str, list[Any]]) -> None:
    """Exchange the forward that a layer has by itself."""
    original = _original(node)
    if original is thinc_maxout or node.name == "maxout":
        layer = Layer(component, *(node.maybe_get_dim(dim) for dim in ("nO", "nP", "nI")))
        kind = "already" if node._func is not original else "replaced"
        if original is not thinc_maxout:
            kind = "skipped"
        elif not (fusible(node) and (layer.nP or 1) <= checks.MAX_PIECES):
            kind = "deferred"
        found[kind].append(layer)
    elif node.param_names or node.shims:
        kind = "fused" if in_block or original in _FORWARDS else "others"
        found[kind].append(OtherLayer(component, node.name))
    if original in _FORWARDS and not node.layers:
        _exchange(node)


def _exchange(node: AnyModel) -> None:
    if node._func in _FORWARDS:
        node.replace_callbacks(_FORWARDS[node._func], init=node.init)


def restore(model_or_nlp: Any) -> None:
    """Give every node its own forward and Ops again, and every model Thinc's own update of its parameters.

    A pipeline with the callback "fastact.accelerate.v1" no longer fuses the components that are added to
    it later; a pipeline that is loaded from its config does.

    Raises:
        TypeError: `model_or_nlp` is neither a Thinc model nor a spaCy pipeline.
    """
    for _, node in _nodes(model_or_nlp):
        original = _original(node)
        if original is not None and original is not node._func:
            node.replace_callbacks(original, init=node.init)
        with_plain_ops(node)
    for _, model in _models(model_or_nlp):
        restore_updates(model)
    if _linker_of(model_or_nlp) is not None:
        del model_or_nlp._link_components


def _linker_of(model_or_nlp: Any) -> FusingLinker | None:
    linker = getattr(model_or_nlp, "_link_components", None)
    return linker if isinstance(linker, FusingLinker) else None


def accelerate_and_log(nlp: Any, same_draws: bool = False) -> None:
    report = accelerate(nlp, same_draws)
    if report.replaced:
        _log.info("%s", report)


class FusingLinker:
    """A pipeline's `_link_components`, which accelerates its components as well.

    spaCy calls this method of a pipeline whenever components were added, replaced, renamed, initialised
    or loaded, so no other method has to be exchanged.  The reference is weak: with a strong one a pipeline
    would keep itself alive until the next collection of cycles.
    """

    def __init__(self, nlp: Any, same_draws: bool = False) -> None:
        self._nlp = weakref.ref(nlp)
        self.same_draws = same_draws

    def __call__(self) -> None:
        nlp: Any = self._nlp()
        type(nlp)._link_components(nlp)
        accelerate_and_log(nlp, self.same_draws)

    def __reduce__(self) -> tuple[Any, ...]:
        return FusingLinker, (self._nlp(), self.same_draws)
