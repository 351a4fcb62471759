"""`accelerate` and `restore`: the forward of each maxout node of a model or a pipeline is exchanged."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from thinc.api import Model
from thinc.layers.maxout import forward as thinc_forward

from .. import checks
from .fused import AnyModel, forward, fusible

_log = logging.getLogger("fastact.thinc")


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


class Report(NamedTuple):
    """What `accelerate` saw and did; `print(report)` shows it.  Each layer with parameters is in one field.

    Attributes:
        replaced: maxout layers that run fused from now on.
        already: maxout layers that ran fused before.
        skipped: maxout layers that were left alone, because their forward is not Thinc's.
        deferred: maxout layers whose forward is fastact's and leaves the work to their Ops, which have
            methods of their own, or because the layer has too many pieces.
        others: all other layers, which were left alone.
    """

    replaced: tuple[Layer, ...]
    already: tuple[Layer, ...]
    skipped: tuple[Layer, ...]
    deferred: tuple[Layer, ...] = ()
    others: tuple[OtherLayer, ...] = ()

    def __repr__(self) -> str:
        lines = [f"{_counted(len(self.replaced), 'maxout')} now fused", *_lines(self.replaced)]
        for layers, what in (
            (self.already, "fused before"),
            (self.skipped, "left alone, with a forward of its own"),
            (self.deferred, "left to Ops with methods of their own, or with too many pieces"),
        ):
            if layers:
                lines += [f"{_counted(len(layers), 'maxout')} {what}", *_lines(layers)]
        if self.others:
            why = "accelerate fuses maxout layers alone"
            lines += [f"{_counted(len(self.others), 'other')} left alone: {why}", *_lines(self.others)]
            seen = {layer.name for layer in self.others}
            lines += [
                f"  {', '.join(sorted(seen & names))}: {note}" for names, note in _NOTES if seen & names
            ]
        if not any(self):
            lines.append("no layer with parameters was found")
        return "\n".join(lines)


# Notes that a report adds for some of the other layers.
_NOTES = (
    ({"relu", "gelu", "mish"}, 'use_ops("fastact") runs the activation on its kernels, unfused'),
    ({"precomputable_affine"}, "the maxout layer that is compiled into spaCy's parser"),
    ({"pytorch"}, "fastact.torch.accelerate takes the PyTorch model inside"),
)


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind} layer{'' if count == 1 else 's'}"


def _lines(layers: Sequence[Layer | OtherLayer]) -> list[str]:
    return [
        f"  {f'{layer.component}: ' if layer.component else ''}{count} x {layer}"
        for layer, count in Counter(layers).items()
    ]


def _nodes(model_or_nlp: Any) -> Iterator[tuple[str, AnyModel]]:
    """Each node once, with the name of its pipeline component, disabled ones included."""
    if isinstance(model_or_nlp, Model):
        models: list[tuple[str, Any]] = [("", model_or_nlp)]
    elif hasattr(model_or_nlp, "components"):
        models = [(name, getattr(pipe, "model", None)) for name, pipe in model_or_nlp.components]
    else:
        raise TypeError(
            f"model_or_nlp: got {type(model_or_nlp).__name__}, wanted a thinc Model or a spaCy pipeline"
        )
    seen = set()  # of the objects: a deep copy of a node has its `id`
    for component, model in models:
        for node in model.walk() if isinstance(model, Model) else ():
            if id(node) not in seen:
                seen.add(id(node))
                yield component, node


def accelerate(model_or_nlp: Any) -> Report:
    """Run every Maxout layer fused, in inference and in training; `restore` undoes it.

    Args:
        model_or_nlp: a Thinc model, or a spaCy pipeline, whose present components are searched.

    Returns:
        A report of what was replaced and what was left alone, and why.  A maxout layer with a forward other
        than Thinc's is left alone, and so is every layer that is not a maxout layer.

    Raises:
        TypeError: `model_or_nlp` is neither a Thinc model nor a spaCy pipeline.
    """
    found: dict[str, list[Any]] = {kind: [] for kind in Report._fields}
    for component, node in _nodes(model_or_nlp):
        if node.name != "maxout":
            if node.param_names or node.shims:
                found["others"].append(OtherLayer(component, node.name))
            continue
        layer = Layer(component, *(node.maybe_get_dim(dim) for dim in ("nO", "nP", "nI")))
        if node._func is forward:
            kind = "already"
        elif node._func is thinc_forward:
            node.replace_callbacks(forward, init=node.init)
            kind = "replaced"
        else:
            kind = "skipped"
        if kind != "skipped" and not (fusible(node) and (layer.nP or 1) <= checks.MAX_PIECES):
            kind = "deferred"
        found[kind].append(layer)
    return Report(**{kind: tuple(layers) for kind, layers in found.items()})


def restore(model_or_nlp: Any) -> None:
    """Give every fused layer Thinc's own forward again.

    A pipeline with the callback "fastact.accelerate.v1" no longer fuses the components that are added to
    it later; a pipeline that is loaded from its config does.

    Raises:
        TypeError: `model_or_nlp` is neither a Thinc model nor a spaCy pipeline.
    """
    for _, node in _nodes(model_or_nlp):
        if node._func is forward:
            node.replace_callbacks(thinc_forward, init=node.init)
    if isinstance(getattr(model_or_nlp, "_link_components", None), FusingLinker):
        del model_or_nlp._link_components


def accelerate_and_log(nlp: Any) -> None:
    report = accelerate(nlp)
    if report.replaced:
        _log.info("%s", report)


class FusingLinker:
    """A pipeline's `_link_components`, which fuses its maxout layers as well.

    spaCy calls this method of a pipeline whenever components were added, replaced, renamed, initialised
    or loaded, so no other method has to be exchanged.  The reference is weak: with a strong one a pipeline
    would keep itself alive until the next collection of cycles.
    """

    def __init__(self, nlp: Any) -> None:
        self._nlp = weakref.ref(nlp)

    def __call__(self) -> None:
        nlp: Any = self._nlp()
        type(nlp)._link_components(nlp)
        accelerate_and_log(nlp)

    def __reduce__(self) -> tuple[Any, ...]:
        return FusingLinker, (self._nlp(),)
