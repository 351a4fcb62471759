"""Thinc and spaCy: their Maxout layers, run fused.

    report = fastact.thinc.accelerate(nlp)   # a spaCy pipeline or a Thinc model, in place
    fastact.thinc.restore(nlp)

Only a layer's forward function is exchanged.  Parameters, serialisation, dropout and layer
normalisation stay Thinc's, so a saved pipeline loads with and without fastact.

Entry points also register the callbacks "fastact.accelerate.v1" and "fastact.use_ops.v1" for a
spaCy config, the Ops "fastact" and the layer "fastact.Maxout.v1".  A pipeline whose config has the
first callback fuses its later components too.  Thinc imports this module through the entry points as
soon as it looks for its own Ops, so it must stay cheap to import.
"""

# No `from __future__ import annotations` here: Thinc's data validation reads a forward's annotations.

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from thinc.api import Maxout as thinc_Maxout
from thinc.api import Model, NumpyOps, get_current_ops, set_current_ops
from thinc.layers.maxout import forward as thinc_forward
from thinc.types import Floats2d, Floats3d, FloatsXdT, Ints2d

from . import checks, init, ops, settings

_log = logging.getLogger(__name__)
AnyModel: TypeAlias = Model[Any, Any]

_FLOATS = (np.float32, np.float64)


def _same_float_arrays(*arrays: Any) -> bool:
    """NumPy arrays of one of fastact's dtypes; False for another dtype, a mixture, or a GPU's arrays."""
    dtype = getattr(arrays[0], "dtype", None)
    return dtype in _FLOATS and all(type(array) is np.ndarray and array.dtype == dtype for array in arrays)


# ---- the fused layer


def _fusible(model: AnyModel) -> bool:
    """Whether a fused kernel may stand in for the methods that Thinc's forward calls on the model's Ops.

    An Ops that overrides one of them, in its class or on the instance, wants its own to be called.
    """
    kind = type(model.ops)
    return _KNOWN_METHODS.keys().isdisjoint(vars(model.ops)) and all(
        getattr(kind, name, None) in known for name, known in _KNOWN_METHODS.items()
    )


def forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callable[..., Any]]:
    """The forward of Thinc's Maxout, with the product, bias and maximum in one pass.

    X (rows, nI), the parameters W (nO, nP, nI) and b (nO, nP) -> Y (rows, nO) and a callback that takes
    dY (rows, nO), adds to the gradients of W and b and returns dX (rows, nI).  What fastact does not
    take goes to Thinc's own steps: a GPU's arrays, other dtypes, mixed ones, too many pieces, and an
    Ops with a `gemm` or `maxout` of its own.
    """
    W: Any = model.get_param("W")
    b: Any = model.get_param("b")
    x: Any = X
    if not (_same_float_arrays(x, W, b) and 1 <= W.shape[1] <= checks.MAX_PIECES and _fusible(model)):
        return thinc_forward(model, X, is_train)
    Y: Any
    tier = settings.get_float32_matmul_precision()
    Y, argmax = ops.linear_maxout(x, W, b, precision=tier)

    def backprop(dY: Any) -> Any:
        if np.shape(dY) != argmax.shape:
            raise ValueError(f"dY: got shape {np.shape(dY)}, wanted {argmax.shape}")
        if _same_float_arrays(x, dY) and _fusible(model):
            dX, dW, db = ops.linear_maxout_backward(dY, x, W, argmax, precision=tier)
        else:
            dX, dW, db = _backward_by_ops(model.ops, dY, x, W, argmax)
        model.inc_grad("W", dW)
        model.inc_grad("b", db)
        return dX

    return Y, backprop


def _backward_by_ops(model_ops: Any, dY: Any, X: Any, W: Any, argmax: Any) -> tuple[Any, Any, Any]:
    """dX, dW and db by the steps of Thinc's Maxout, for a dY that the kernels do not take."""
    nO, nP, nI = W.shape
    dZ = model_ops.backprop_maxout(dY, argmax.astype(np.int32), nP)
    flat = model_ops.reshape2f(dZ, len(dZ), nO * nP)
    dW = model_ops.reshape3f(model_ops.gemm(flat, X, trans1=True), nO, nP, nI)
    dX = model_ops.gemm(flat, model_ops.reshape2f(W, nO * nP, nI))
    return dX, dW, dZ.sum(axis=0)


class Layer(NamedTuple):
    """One maxout layer: the pipeline component it is in ("" for a bare model) and its dimensions."""

    component: str
    nO: int | None
    nP: int | None
    nI: int | None

    def __str__(self) -> str:
        sizes = ("?" if size is None else size for size in self[1:])
        return "Maxout(nO={}, nP={}, nI={})".format(*sizes)


class Report(NamedTuple):
    """What `accelerate` found, each layer in one list.

    `replaced` are fused from now on, `already` were fused before, `skipped` were left alone because
    their forward is not Thinc's.  `deferred` have the fused forward, which leaves the work to their Ops:
    those have methods of their own, or the layer has too many pieces.
    """

    replaced: tuple[Layer, ...]
    already: tuple[Layer, ...]
    skipped: tuple[Layer, ...]
    deferred: tuple[Layer, ...] = ()

    def __repr__(self) -> str:
        lines = [f"{_layers(len(self.replaced))} now fused", *_lines(self.replaced)]
        for layers, what in (
            (self.already, "fused before"),
            (self.skipped, "left alone, with a forward of its own"),
            (self.deferred, "left to Ops with methods of their own, or with too many pieces"),
        ):
            if layers:
                lines += [f"{_layers(len(layers))} {what}", *_lines(layers)]
        return "\n".join(lines)


def _layers(count: int) -> str:
    return f"{count} maxout layer{'' if count == 1 else 's'}"


def _lines(layers: tuple[Layer, ...]) -> list[str]:
    return [
        f"  {f'{layer.component}: ' if layer.component else ''}{count} x {layer}"
        for layer, count in Counter(layers).items()
    ]


def _maxout_nodes(model_or_nlp: Any) -> Iterator[tuple[str, AnyModel]]:
    """Each maxout node once, with the name of its pipeline component, disabled ones included."""
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
            if node.name == "maxout" and id(node) not in seen:
                seen.add(id(node))
                yield component, node


def accelerate(model_or_nlp: Any) -> Report:
    """Run every Maxout layer fused, in inference and in training; `restore` undoes it.

    Args:
        model_or_nlp: a Thinc model, or a spaCy pipeline, whose present components are searched.

    Returns:
        A report of what was replaced, which prints well.  A maxout node with a forward other
        than Thinc's is left alone.

    Raises:
        TypeError: `model_or_nlp` is neither.
    """
    found: dict[str, list[Layer]] = {kind: [] for kind in Report._fields}
    for component, node in _maxout_nodes(model_or_nlp):
        layer = Layer(component, *(node.maybe_get_dim(dim) for dim in ("nO", "nP", "nI")))
        if node._func is forward:
            kind = "already"
        elif node._func is thinc_forward:
            node.replace_callbacks(forward, init=node.init)
            kind = "replaced"
        else:
            kind = "skipped"
        if kind != "skipped" and not (_fusible(node) and (layer.nP or 1) <= checks.MAX_PIECES):
            kind = "deferred"
        found[kind].append(layer)
    return Report(**{kind: tuple(layers) for kind, layers in found.items()})


def restore(model_or_nlp: Any) -> None:
    """Give every fused layer Thinc's own forward again.

    A pipeline with the callback "fastact.accelerate.v1" no longer fuses the components that are added to
    it later; one that is loaded from its config does.  Raises TypeError as `accelerate` does.
    """
    for _, node in _maxout_nodes(model_or_nlp):
        if node._func is forward:
            node.replace_callbacks(thinc_forward, init=node.init)
    if isinstance(getattr(model_or_nlp, "_link_components", None), _FusingLinker):
        del model_or_nlp._link_components


# ---- callbacks for a spaCy config


def _accelerate_and_log(nlp: Any) -> None:
    report = accelerate(nlp)
    if report.replaced:
        _log.info("%s", report)


class _FusingLinker:
    """A pipeline's `_link_components`, which fuses its maxout layers as well.

    spaCy calls this method of a pipeline whenever components were added, replaced, renamed, initialised
    or loaded, so no other method is exchanged.  The reference is weak: with a strong one a pipeline would
    keep itself alive until the next collection of cycles.
    """

    def __init__(self, nlp: Any) -> None:
        self._nlp = weakref.ref(nlp)

    def __call__(self) -> None:
        nlp: Any = self._nlp()
        type(nlp)._link_components(nlp)
        _accelerate_and_log(nlp)

    def __reduce__(self) -> tuple[Any, ...]:
        return _FusingLinker, (self._nlp(),)


def accelerate_callback() -> Callable[[Any], Any]:
    """For [nlp.after_pipeline_creation]: `accelerate` the pipeline, whether new or loaded.

    What `nlp.add_pipe`, `nlp.replace_pipe` or `nlp.initialize` bring in later is fused too, until
    `restore(nlp)`.
    """

    def after_pipeline_creation(nlp: Any) -> Any:
        _accelerate_and_log(nlp)
        nlp._link_components = _FusingLinker(nlp)
        return nlp

    return after_pipeline_creation


def use_ops_callback() -> Callable[[Any], Any]:
    """For [nlp.before_creation]: make "fastact" the current Ops, unless those are a GPU's.

    With or without BLIS, as the Ops before; Ops that are fastact's, or of a subclass, stay.
    """

    def before_creation(language: Any) -> Any:
        current = get_current_ops()
        if current.device_type == "cpu" and not isinstance(current, FastactOps):
            set_current_ops(FastactOps(use_blis=getattr(current, "use_blis", True)))
        return language

    return before_creation


# ---- Ops


def _activation(activation: str, X: Any, inplace: bool, **parameters: Any) -> Any:
    return ops.activation(X, activation, out=X if inplace else None, **parameters)


def _gradient(activation: str, dY: Any, saved: Any, inplace: bool, **parameters: Any) -> Any:
    return ops.activation_backward(dY, saved, activation, out=dY if inplace else None, **parameters)


class FastactOps(NumpyOps):  # type: ignore[misc]
    """Thinc's CPU Ops with fastact's bare maxout and activations: `with use_ops("fastact"): ...`.

    Arrays that fastact does not take go to Thinc's own Ops.  A layer calls the product and what follows
    it apart, so these fuse nothing: that takes `accelerate` or the layer `Maxout`.  Parameters are
    annotated as in Thinc's `Ops`.
    """

    name = "fastact"

    def maxout(self, X: Floats3d) -> tuple[Floats2d, Ints2d]:
        """X (B, O, P) -> the largest of each P, (B, O), and its index, int32."""
        if not _same_float_arrays(X) or not 1 <= X.shape[-1] <= checks.MAX_PIECES:
            return super().maxout(X)  # type: ignore[no-any-return]
        best, which = ops.maxout(X)
        return best, which.astype(np.int32)

    def backprop_maxout(self, dY: Floats2d, which: Ints2d, P: int) -> Floats3d:
        """dY (B, O), which (B, O) -> dX (B, O, P); IndexError for a value of `which` not in 0 to P - 1."""
        if not _same_float_arrays(dY) or not 1 <= P <= checks.MAX_PIECES:
            return super().backprop_maxout(dY, which, P)
        if which.size and (which.min() < 0 or which.max() >= P):
            raise IndexError(f"which: got values {which.min()} to {which.max()}, wanted 0 to {P - 1}")
        return ops.maxout_backward(dY, which.astype(np.uint8), P)

    def relu(self, X: Floats2d, inplace: bool = False) -> Floats2d:
        return _activation("relu", X, inplace) if _same_float_arrays(X) else super().relu(X, inplace)

    def backprop_relu(self, dY: Floats2d, Y: Floats2d, inplace: bool = False) -> Floats2d:
        if not _same_float_arrays(dY, Y):
            return super().backprop_relu(dY, Y, inplace)
        return _gradient("relu", dY, Y, inplace)

    def gelu(self, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        return _activation("gelu", X, inplace) if _same_float_arrays(X) else super().gelu(X, inplace)

    def backprop_gelu(self, dY: FloatsXdT, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        if not _same_float_arrays(dY, X):
            return super().backprop_gelu(dY, X, inplace)
        return _gradient("gelu", dY, X, inplace)

    def gelu_approx(self, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        if not _same_float_arrays(X):
            return super().gelu_approx(X, inplace)
        return _activation("gelu", X, inplace, approximate="tanh")

    def backprop_gelu_approx(self, dY: FloatsXdT, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        if not _same_float_arrays(dY, X):
            return super().backprop_gelu_approx(dY, X, inplace)
        return _gradient("gelu", dY, X, inplace, approximate="tanh")

    # Above the default threshold mish(X) is X to the last bit in float32, so only another one matters.

    def mish(self, X: FloatsXdT, threshold: float = 20.0, inplace: bool = False) -> FloatsXdT:
        if threshold != 20 or not _same_float_arrays(X):
            return super().mish(X, threshold, inplace)
        return _activation("mish", X, inplace)

    def backprop_mish(
        self, dY: FloatsXdT, X: Floats2d, threshold: float = 20.0, inplace: bool = False
    ) -> FloatsXdT:
        if threshold != 20 or not _same_float_arrays(dY, X):
            return super().backprop_mish(dY, X, threshold, inplace)
        return _gradient("mish", dY, X, inplace)


# The methods that the forward of Thinc's Maxout and its callback call, as Thinc and fastact have them.
_KNOWN_METHODS = {
    name: {getattr(NumpyOps, name), getattr(FastactOps, name)}
    for name in ("gemm", "maxout", "backprop_maxout", "reshape1f", "reshape2f", "reshape3f")
}


# ---- a layer with maxout's own initialisation


def maxout_init(model_ops: Any, shape: tuple[int, int, int]) -> Any:
    """Normal weights (nO, nP, nI) of std sqrt(c / nI), which keeps the scale of what a maxout of nP pieces
    passes on; c as in `fastact.init`.  Drawn from NumPy's global generator, as Thinc's own are."""
    _, pieces, fan_in = shape
    return model_ops.asarray_f(np.random.normal(0, init.maxout_std(fan_in, pieces), shape))  # noqa: NPY002


def Maxout(
    nO: int | None = None,
    nI: int | None = None,
    nP: int | None = 3,
    *,
    init_W: Callable[..., Any] | None = None,
    init_b: Callable[..., Any] | None = None,
    dropout: float | None = None,
    normalize: bool = False,
) -> AnyModel:
    """Thinc's Maxout layer, fused, and initialised as maxout wants (`maxout_init`).

    Registered as "fastact.Maxout.v1".  Arguments, dimensions, parameters and serialisation are those of
    Thinc's "Maxout.v1", but for the default of `init_W`.
    """
    model = thinc_Maxout(
        nO, nI, nP, init_W=init_W or maxout_init, init_b=init_b, dropout=dropout, normalize=normalize
    )
    accelerate(model)
    return model
