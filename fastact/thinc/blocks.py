"""Blocks: layers of Thinc that the C backend runs in one call forward, and in one backward.

A block is a chain or a residual of the layers in `_KINDS`, in any nesting, or a run of such layers in a
chain.  They are recognised by their forwards.  Parameters, attributes and Ops are read anew at each call.
Where C does not take one of them, Thinc's own forward runs, which calls the layers one by one.
"""

# No `from __future__ import annotations` here: Thinc's data validation reads a forward's annotations.

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from thinc.layers.chain import forward as thinc_chain
from thinc.layers.dropout import forward as thinc_dropout
from thinc.layers.expand_window import forward as thinc_window
from thinc.layers.gelu import forward as thinc_gelu
from thinc.layers.layernorm import forward as thinc_layer_norm
from thinc.layers.linear import forward as thinc_linear
from thinc.layers.maxout import forward as thinc_maxout
from thinc.layers.mish import forward as thinc_mish
from thinc.layers.relu import forward as thinc_relu
from thinc.layers.residual import InT as ResidualT
from thinc.layers.residual import forward as thinc_residual
from thinc.types import Floats2d

from .. import activations, backends, checks, settings
from ..nn.network import BRANCH, DROPOUT, LAYER_NORM, LINEAR, MAXOUT, SUM, WINDOW
from ..nn.steps import ATTRIBUTES, MAX_BRANCHES, MAX_WINDOW, TIERS, StepLayer, StepParameter, objects_of
from . import fused
from .fused import MAXOUT_METHODS, AnyModel, may_stand_in, overridden, own_gradient
from .layer_norm import layer_norm_forward
from .ops import same_float_arrays

Array = np.ndarray[Any, Any]
Callback = Callable[[Any], Any]

_EPS = 1e-8  # of Thinc's layer normalisation


class Kind(NamedTuple):
    """The step that C runs for a layer of Thinc.

    Attributes:
        step: a member of enum fa_layer.
        methods: the methods of the layer's Ops that the step stands for.
        activation: of a LINEAR step.
    """

    step: int
    methods: frozenset[str]
    activation: str = "identity"


class Step(NamedTuple):
    """A step of a block, and the layer that has its parameters and attributes."""

    kind: Kind
    node: AnyModel


class Run(NamedTuple):
    """Consecutive layers of a chain: those of one block, or one layer without steps."""

    layers: list[AnyModel]
    steps: list[Step]

    @property
    def is_block(self) -> bool:
        return len(self.layers) > 1 and any(step.node.param_names for step in self.steps)


def _dense(activation: str, *methods: str) -> Kind:
    return Kind(LINEAR, frozenset(("gemm", *methods)), activation)


_KINDS: dict[Any, Kind] = {
    thinc_maxout: Kind(MAXOUT, MAXOUT_METHODS),
    fused.forward: Kind(MAXOUT, MAXOUT_METHODS),
    thinc_layer_norm: Kind(LAYER_NORM, frozenset({"asarray_f"})),
    layer_norm_forward: Kind(LAYER_NORM, frozenset({"asarray_f"})),
    thinc_dropout: Kind(DROPOUT, frozenset({"get_dropout_mask"})),
    thinc_window: Kind(WINDOW, frozenset({"seq2col", "backprop_seq2col"})),
    thinc_linear: _dense("identity"),
    thinc_relu: _dense("relu", "affine", "relu", "backprop_relu"),
    thinc_mish: _dense("mish", "mish", "backprop_mish"),
    thinc_gelu: _dense("gelu", "affine", "gelu", "backprop_gelu"),
}
_BRANCH, _SUM = Kind(BRANCH, frozenset()), Kind(SUM, frozenset())


# ---- structure


def steps_of(node: AnyModel) -> list[Step]:
    """The steps of a node in order; none unless C has all of them.

    A window may be the last step.  Elsewhere a product follows it, the only step that C gives a window to.
    """
    steps: list[Step] = []
    return steps if _add_steps(node, steps) else []


def _add_steps(node: AnyModel, steps: list[Step]) -> bool:
    func = node._func
    if type(func) is not FunctionType:
        return False
    kind = _KINDS.get(func)
    if kind is not None:
        return _add_step(kind, node, steps)
    if func is thinc_chain or func is chain_forward:
        for layer in node.layers:  # noqa: SIM110, all() is slower
            if not _add_steps(layer, steps):
                return False
        return True
    if func is thinc_residual or func is residual_forward:
        return (
            _add_step(_BRANCH, node, steps)
            and _add_steps(node.layers[0], steps)
            and _add_step(_SUM, node, steps)
        )
    return False


def _add_step(kind: Kind, node: AnyModel, steps: list[Step]) -> bool:
    if steps and not _may_follow(steps[-1].kind, kind):
        return False
    steps.append(Step(kind, node))
    return True


def _may_follow(before: Kind, after: Kind) -> bool:
    return before.step != WINDOW or after.step == MAXOUT or after.step == LINEAR


def runs_of(layers: Sequence[AnyModel]) -> list[Run]:
    """The layers of a chain, cut into runs."""
    runs: list[Run] = []
    for layer in layers:
        steps = steps_of(layer)
        last = runs[-1] if runs else None
        if steps and last and last.steps and _may_follow(last.steps[-1].kind, steps[0].kind):
            last.layers.append(layer)
            last.steps.extend(steps)
        else:
            runs.append(Run([layer], steps))
    return [part for run in runs for part in _cut_at_last_window(run)]


def _cut_at_last_window(run: Run) -> list[Run]:
    """The run; as two if its last step is a window, which needs a product after it."""
    layers, steps = run
    if len(layers) == 1 or steps[-1].kind.step != WINDOW:
        return [run]
    last = steps_of(layers[-1])
    return [Run(layers[:-1], steps[: -len(last)]), Run(layers[-1:], last)]


def blocks_of(node: AnyModel) -> list[Run]:
    """The layers of a node in runs; a run that the node's forward can do in one call has steps."""
    func = node._func
    if func is thinc_chain or func is chain_forward:
        return [run if run.is_block else Run(run.layers, []) for run in runs_of(node.layers)]
    steps = steps_of(node) if func is thinc_residual or func is residual_forward else []
    has_parameters = any(step.node.param_names for step in steps)
    return [Run(node.layers, steps if has_parameters else [])]


def left_to_ops(steps: Sequence[Step]) -> bool:
    """Whether Ops of a layer have a method of their own for which a step would stand in."""
    return not all(may_stand_in(kind.methods, node.ops) for kind, node in steps)


def sizes_text(node: AnyModel) -> str:
    """The dimensions of a layer as in "nO=96, nP=3, nI=288", with a "?" for what is not set."""
    names = [name for name in ("nO", "nP", "nI") if name in node.dim_names]
    sizes = (node.maybe_get_dim(name) for name in names)
    return ", ".join(
        f"{name}={'?' if size is None else size}" for name, size in zip(names, sizes, strict=True)
    )


def describe(steps: Sequence[Step]) -> str:
    """The steps of a block in words."""
    texts: list[str] = []
    outside: list[list[str]] = []
    for kind, node in steps:
        if kind.step == BRANCH:
            outside.append(texts)
            texts = []
        elif kind.step == SUM:
            inside, texts = texts, outside.pop()
            texts.append(f"block ({', '.join([*inside, 'residual'])})")
        elif kind.step == LAYER_NORM:
            texts.append("layer norm")
        elif kind.step == DROPOUT:
            texts.append("dropout")
        elif kind.step == WINDOW:
            texts.append(f"window {node.attrs['window_size']}")
        else:
            name = {"identity": "Linear", "relu": "Relu", "mish": "Mish", "gelu": "Gelu"}[kind.activation]
            texts.append(f"{'Maxout' if kind.step == MAXOUT else name}({sizes_text(node)})")
    return ", ".join(_counted(texts))


def _counted(texts: list[str]) -> list[str]:
    """Repeated texts of blocks, as one each."""
    counted = []
    for text, group in itertools.groupby(texts):
        count = len(list(group))
        if count > 1 and text.startswith("block "):
            counted.append(f"encoder of {count} blocks{text.removeprefix('block')}")
        else:
            counted += [text] * count
    return counted


# ---- one call


class _Network:
    """The steps of one call, with parameters and attributes as they are now.

    C takes what `add` took: a mask that was drawn for a call that C refuses would be drawn again.
    """

    def __init__(self, x: Array, training: bool) -> None:
        self.rows, self.features = x.shape
        self.parts: list[tuple[int, Any, tuple[str, ...]]] = []
        self.places: list[tuple[AnyModel, str, StepParameter]] = []
        self.reads_y = False  # whether a backward reads what the last step returned
        self._dtype, self._training = x.dtype, training
        self._branches: list[int] = []
        self._drops: list[tuple[StepLayer, AnyModel, int]] = []
        self._own: dict[type, set[str]] = {}  # methods of the classes of Ops

    def add(self, step: Step) -> bool:
        """Add a step; False if C does not take it as it is now."""
        kind, node = step
        if kind.methods and not self._may_stand_in(kind, node.ops):
            return False
        if kind.step == BRANCH:
            self._branches.append(self.features)
            if len(self._branches) > MAX_BRANCHES:
                return False
        elif kind.step == SUM:
            if self._branches.pop() != self.features:
                return False
        elif kind.step == DROPOUT:
            return self._add_dropout(node)
        elif kind.step == WINDOW:
            return self._add_window(node)
        elif not self._add_parameters(kind, node):
            return False
        if kind.step in (BRANCH, SUM):
            self.parts.append((kind.step, None, ()))
        self.reads_y = kind.step == LINEAR and kind.activation == "relu"  # C saves z for the others
        return True

    def _may_stand_in(self, kind: Kind, node_ops: Any) -> bool:
        own = self._own.get(type(node_ops))
        if own is None:
            own = self._own[type(node_ops)] = overridden(type(node_ops))
        return kind.methods.isdisjoint(own) and kind.methods.isdisjoint(vars(node_ops))

    def _add_parameters(self, kind: Kind, node: AnyModel) -> bool:
        weight = self._parameter(node, "G" if kind.step == LAYER_NORM else "W")
        bias = self._parameter(node, "b")
        if weight is None or bias is None:
            return False
        shape = weight.data.shape  # type: ignore[union-attr]
        axes = {LAYER_NORM: 1, LINEAR: 2, MAXOUT: 3}[kind.step]
        if len(shape) != axes or shape[-1] != self.features or 0 in shape:
            return False
        if bias.data.shape != (shape if axes == 1 else shape[:-1]):  # type: ignore[union-attr]
            return False
        if axes == 3 and shape[1] > checks.MAX_PIECES:
            return False
        layer = StepLayer()
        layer.weight, layer.bias, layer.activation, layer.eps = weight, bias, kind.activation, _EPS
        self.parts.append((kind.step, layer, ATTRIBUTES[kind.step]))
        self.features = shape[0]
        return True

    def _parameter(self, node: AnyModel, name: str) -> StepParameter | None:
        if not node.has_param(name):
            return None
        array: Any = node.get_param(name)
        if type(array) is not np.ndarray or array.dtype != self._dtype or not _is_plain(array):
            return None
        parameter = StepParameter(array)
        self.places.append((node, name, parameter))
        return parameter

    def _add_window(self, node: AnyModel) -> bool:
        size = node.attrs["window_size"]
        if type(size) is not int or not 1 <= size <= MAX_WINDOW:
            return False
        layer = StepLayer()
        layer.window_size = size
        self.parts.append((WINDOW, layer, ATTRIBUTES[WINDOW]))
        self.features *= 2 * size + 1
        return True

    def _add_dropout(self, node: AnyModel) -> bool:
        rate = node.attrs["dropout_rate"]
        if rate == 0 or not (self._training and node.attrs["is_enabled"]):
            return True
        if not (isinstance(rate, (int, float)) and 0 < rate < 1):
            return False
        layer = StepLayer()
        layer.p, layer.factor = float(rate), float(np.float32(1 / (1 - rate)))
        self.parts.append((DROPOUT, layer, ATTRIBUTES[DROPOUT]))
        self._drops.append((layer, node, self.features))
        self.reads_y = False
        return True

    def draw(self) -> None:
        """Draw a mask for each dropout, or the seed of one, in the order of the layers."""
        for layer, node, features in self._drops:
            if node._func is same_draws_dropout:
                mask: Any = node.ops.get_dropout_mask((self.rows, features), layer.p)
                layer.keep = (mask != 0).view(np.uint8)
            else:
                layer.keep = int(np.random.randint(0, 2**63))  # noqa: NPY002


@functools.cache
def _objects() -> tuple[Any, ...]:
    """The first argument of a call; made late, as NumPy imports `random` late."""
    return objects_of(activations.CODES)


def _is_plain(array: Array) -> bool:
    flags = array.flags
    return flags.c_contiguous and flags.aligned


def _plain(array: Any, dtype: Any) -> Array:
    """An array as C reads it: the same, or a copy."""
    if type(array) is np.ndarray and array.dtype == dtype and _is_plain(array):
        return array
    return np.require(array, dtype, ("C", "A", "E"))


def run(steps: Sequence[Step], X: Any, is_train: bool) -> tuple[Array, Callback] | None:
    """Y and the callback of a block; None where its layers have to run one by one."""
    backend: Any = backends.active()
    if not steps or not hasattr(backend, "network_forward"):
        return None
    if not same_float_arrays(X) or X.ndim != 2 or not X.size:
        return None
    x = _plain(X, X.dtype)
    network = _Network(x, is_train)
    for step in steps:
        if not network.add(step):
            return None
    if not network.parts:  # dropouts that drop nothing
        return None
    if is_train:
        network.draw()
    tier, threads = TIERS[settings.precision_in_force(None)], settings.threads_and_mode()
    done = backend.network_forward(_objects(), tuple(network.parts), x, is_train, None, tier, threads)
    if done is None:
        return None
    y, tape = done if is_train else (done, None)
    return y, _Backward(network, backend, x, y, tape, tier)


class _Backward:
    """The callback of a block: dY (rows, nO) -> dX (rows, nI); it adds to the gradients of the parameters.

    dY of another dtype is converted to that of X, whose dtype dX has.  The parameters are the arrays of the
    forward.  After the forward of a prediction, which saves nothing, another one runs first: it reads what X
    and the parameters' arrays hold by then.  Raises ValueError for a dY of another shape, and then leaves the
    gradients as they are.
    """

    def __init__(
        self, network: _Network, backend: Any, x: Array, y: Array, tape: Array | None, tier: int
    ) -> None:
        self._parts, self._places = tuple(network.parts), network.places
        self._backend, self._x, self._tape, self._tier = backend, x, tape, tier
        self._y = y if network.reads_y else None
        self._shape = y.shape
        self._lock = threading.Lock()  # the gradients of a call are noted in the parts

    def __call__(self, dY: Any) -> Array:
        if np.shape(dY) != self._shape:
            raise ValueError(f"dY: got shape {np.shape(dY)}, wanted {self._shape}")
        grad_y = _plain(dY, self._x.dtype)
        with self._lock:
            dX = self._run(grad_y, in_place=True)
            if dX is None:  # a gradient shares memory with another array of the call
                dX = self._run(grad_y, in_place=False)
        if dX is None:
            raise RuntimeError(
                "a parameter's array was given another shape between the forward and its backward"
            )
        return dX

    def _run(self, grad_y: Array, in_place: bool) -> Array | None:
        threads = settings.threads_and_mode()
        if self._tape is None:  # the forward of a prediction
            done = self._backend.network_forward(
                _objects(), self._parts, self._x, True, None, self._tier, threads
            )
            if done is None:
                return None
            self._tape = done[1]
        new, adds = self._note_gradients(in_place)
        y = grad_y if self._y is None else self._y  # C does not read another layer's
        try:
            dX: Array | None = self._backend.network_backward(
                _objects(), self._parts, self._x, y, self._tape, grad_y, adds, True, threads
            )
        finally:
            for _, _, parameter in self._places:
                parameter.grad = False
        if dX is not None:
            for node, name, gradient in new:
                _add_gradient(node, name, gradient)
        return dX

    def _note_gradients(self, in_place: bool) -> tuple[list[tuple[AnyModel, str, Array]], bool]:
        """Tell C where gradients go: which are new, and whether C adds to all of them."""
        known = set()
        missing = []
        for node, name, parameter in self._places:
            gradient = own_gradient(node, name, parameter.data) if in_place else None
            if gradient is not None and id(gradient) not in known:
                parameter.grad = gradient
                known.add(id(gradient))
            else:
                missing.append((node, name, parameter))
        new = []
        make = np.zeros_like if known else np.empty_like
        for node, name, parameter in missing:
            gradient = parameter.grad = make(parameter.data)
            new.append((node, name, gradient))
        return new, bool(known)


def _add_gradient(node: AnyModel, name: str, gradient: Array) -> None:
    if node.has_grad(name) or node._params.proxy is not None:
        node.inc_grad(name, gradient)
    else:
        node.set_grad(name, gradient)  # inc_grad would copy it


# ---- forwards in the place of Thinc's; X is annotated as there


def chain_forward(model: AnyModel, X: Any, is_train: bool) -> tuple[Any, Callback]:
    """The forward of Thinc's chain; consecutive layers that C has run in one call."""
    callbacks = []
    for layers, steps in runs_of(model.layers):
        done = run(steps, X, is_train) if len(layers) > 1 else None
        if done is None:
            for layer in layers:
                X, callback = layer(X, is_train=is_train)
                callbacks.append(callback)
        else:
            X, callback = done
            callbacks.append(callback)

    def backprop(dY: Any) -> Any:
        for callback in reversed(callbacks):
            dY = callback(dY)
        return dY

    return X, backprop


def _forward(original: Any, model: AnyModel, X: Any, is_train: bool) -> tuple[Any, Callback]:
    return run(steps_of(model), X, is_train) or original(model, X, is_train)


def residual_forward(model: AnyModel, X: ResidualT, is_train: bool) -> tuple[ResidualT, Callback]:
    """The forward of Thinc's residual, in one call if C has all that is inside."""
    return _forward(thinc_residual, model, X, is_train)


def linear_forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callback]:
    """The forward of Thinc's Linear: product and bias in one pass."""
    return _forward(thinc_linear, model, X, is_train)


def relu_forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callback]:
    """The forward of Thinc's Relu: product, bias and activation in one pass."""
    return _forward(thinc_relu, model, X, is_train)


def mish_forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callback]:
    """The forward of Thinc's Mish: product, bias and activation in one pass."""
    return _forward(thinc_mish, model, X, is_train)


def gelu_forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callback]:
    """The forward of Thinc's Gelu: product, bias and activation in one pass."""
    return _forward(thinc_gelu, model, X, is_train)


def same_draws_dropout(model: AnyModel, X: Any, is_train: bool) -> tuple[Any, Callback]:
    """The forward of Thinc's Dropout.  In a block it says that the masks are those which Thinc draws."""
    return thinc_dropout(model, X, is_train)


ORIGINALS: dict[Any, Any] = {
    chain_forward: thinc_chain,
    residual_forward: thinc_residual,
    linear_forward: thinc_linear,
    relu_forward: thinc_relu,
    mish_forward: thinc_mish,
    gelu_forward: thinc_gelu,
}
SAME_DRAWS = {same_draws_dropout: thinc_dropout}
_KINDS.update({ours: _KINDS[theirs] for ours, theirs in (ORIGINALS | SAME_DRAWS).items() if theirs in _KINDS})
