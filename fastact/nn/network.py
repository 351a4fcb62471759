"""Consecutive layers as one call into the backend.

A `Sequential` runs its layers one after the other.  Where they are all of this package and the backend has a
function for it, a `Run` does the same in one call forward and one backward, with the same results to the bit.
The C code checks every array at each call.  It returns None where only the layers themselves can deal with
one; then they run one by one and raise their own errors.

A class takes part if it defines these itself; a subclass, which may compute something else, does not:

    _step          what the layer is, and the names of the attributes that C reads: see csrc/api/numpy.h
    _from_tape()   what its own `_forward` saves, from the arrays of a tape

A layer that contains others defines instead `_parts()`, the steps and the layers that they stand for, and
`_saved_one_by_one()`, unless it has a step of its own with a `_from_tape()`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import activations, backends, checks, settings
from ..backends.custom import code_of
from ..settings import Precision
from .layer import Layer, Parameter
from .tape import Tape

Array = np.ndarray[Any, Any]
Step = tuple[int, tuple[str, ...]]
Part = tuple[int, Layer, tuple[str, ...]]  # a step of a run, with the layer that has the attributes

LINEAR, MAXOUT, ACTIVATION, DROPOUT, LAYER_NORM, BRANCH, SUM, WINDOW = range(8)  # enum fa_layer

_TIERS: dict[Precision | None, int] = {tier: i for i, tier in enumerate(settings.PRECISIONS)}
_TIERS[None] = -1  # the one in force

# A tape up to this size is kept from one training step to the next, so that its pages need no zeroing again.
_KEPT_BYTES = 96 << 20


@functools.cache
def _objects() -> tuple[Any, ...]:
    """The first argument of a call, see csrc/api/numpy.h; made late, as NumPy imports `random` late."""
    return (
        Parameter,
        np.random.Generator,
        np.ndarray,
        np.empty,
        np.dtype(np.float32),
        np.dtype(np.float64),
        np.dtype(np.uint8),
        _TIERS,
        activations.CODES,
        code_of,
    )


class Run:
    """Layers that the backend runs in one call.

    Args:
        parts: the steps, in order.
        layers: the layers of the steps, and those that contain them.
    """

    def __init__(self, parts: list[Part], layers: list[Layer]) -> None:
        self._parts = tuple(parts)
        self._objects = _objects()
        self._layers = layers
        self._kept = [layer._saved_one_by_one() for layer in layers]
        self._free: list[Array] = []  # the memory of a tape that was used up

    def attributes(self) -> list[Any]:
        """What the steps are made of."""
        return [getattr(layer, name, None) for _, layer, names in self._parts for name in names]

    def forward(self, x: Any, training: bool) -> tuple[Array, Tape | None] | None:
        """y, and the tape of a training forward; None where the layers have to run one by one."""
        call = getattr(backends.active(), "network_forward", None)
        if call is None:
            return None
        tier, threads = _TIERS[settings.precision_in_force(None)], settings.threads_and_mode()
        memory = self._taken() if training else None
        rows, lead = x, None  # the leading axes of an x that is not a plain matrix
        done = call(self._objects, self._parts, x, training, memory, tier, threads)
        if done is None:
            if type(x) not in checks.ARRAYS or x.ndim == 0 or _is_plain_matrix(x):
                return None
            rows, lead = np.asarray(checks.contiguous_rows(x)), x.shape[:-1]
            done = call(self._objects, self._parts, rows, training, memory, tier, threads)
            if done is None:
                return None
        tape = None
        if training:
            done, memory = done
            tape = Tape(self, rows, done, x.shape[:-1], memory)
            for layer in self._layers:
                layer._saved = tape
        return (done if lead is None else done.reshape(*lead, -1)), tape

    def backward(
        self, tape: Tape, grad_y: Any, accumulate: bool, needs_input_grad: bool
    ) -> tuple[Array | None] | None:
        """(grad_x,), or (None,) if it is not needed; None where the layers have to run one by one."""
        call = getattr(backends.active(), "network_backward", None)
        if call is None or type(grad_y) not in checks.ARRAYS or grad_y.ndim == 0:
            return None
        if grad_y.shape[:-1] != tape.shape:
            return None
        for layer in self._layers:
            if layer._saved is not tape:
                return None
        memory = tape.take()
        if memory is None:
            return None
        grad_rows = grad_y if _is_plain_matrix(grad_y) else np.asarray(checks.contiguous_rows(grad_y))
        threads = settings.threads_and_mode()
        done = None
        try:
            done = call(
                self._objects,
                self._parts,
                tape.x,
                tape.y,
                memory,
                grad_rows,
                accumulate,
                needs_input_grad,
                threads,
            )
        finally:
            if done is None:
                tape.put_back(memory)
        if done is None:
            return None
        for layer in self._layers:
            layer._saved = None
        if memory.nbytes <= _KEPT_BYTES:
            self._free[:] = [memory]
        if not needs_input_grad:
            return (None,)
        return (done if len(tape.shape) == 1 else done.reshape(*tape.shape, -1),)

    def unpack(self, tape: Tape) -> None:
        """Give each layer that still has the tape what its own forward would have saved."""
        owners = {id(layer) for layer in self._layers if layer._saved is tape}
        memory = tape.take()
        for layer, kept in zip(self._layers, self._kept, strict=True):
            if id(layer) in owners:
                layer._saved = None if memory is None else kept
        if memory is None:  # another thread runs the backward of this forward
            return
        backend: Any = backends.get("c")

        def view(at: int, columns: int, dtype: np.dtype[Any]) -> Array:
            array: Array = memory[at : at + len(tape.x) * columns * dtype.itemsize]
            return array.view(dtype).reshape(*tape.shape, columns)

        dtype = tape.x.dtype
        x = tape.x.reshape(*tape.shape, -1)
        places = backend.network_tape(memory)
        for (kind, layer, _), place in zip(self._parts, places, strict=True):
            y_at, columns, saved_at, saved_columns, itemsize, tier, factor = place
            if y_at >= 0:
                y = view(y_at, columns, dtype)
            else:  # of a branch its input, else the caller's y
                y = x if kind == BRANCH else tape.y.reshape(*tape.shape, -1)
            saved = (
                None
                if saved_at < 0
                else view(saved_at, saved_columns, checks.UINT8 if itemsize == 1 else dtype)
            )
            if id(layer) in owners and kind != SUM:
                layer._saved = layer._from_tape(x, y, saved, settings.PRECISIONS[tier], factor)  # type: ignore[attr-defined]
            x = y

    def _taken(self) -> Array | None:
        try:
            return self._free.pop()
        except IndexError:
            return None


def _is_plain_matrix(array: Array) -> bool:
    """Whether C reads the array as it is: not a memmap, nor one of other axes or strides."""
    return type(array) is np.ndarray and array.ndim == 2 and array.flags.c_contiguous


def parts_of(layer: Layer) -> tuple[list[Part], list[Layer]] | None:
    """The steps of a layer, and the layers that they stand for; None for a class that does not take part."""
    own = vars(type(layer))
    if "_step" in own:
        kind, attributes = own["_step"]
        return [(kind, layer, attributes)], [layer]
    if "_parts" in own:
        return layer._parts()  # type: ignore[attr-defined, no-any-return]
    return None


def runs_of(layers: tuple[Layer, ...]) -> list[tuple[Run | None, int]]:
    """The layers in runs, each with the index after its last layer; None for layers that run one by one."""
    runs: list[tuple[Run | None, int]] = []
    parts: list[Part] = []
    inside: list[Layer] = []

    def close(stop: int) -> None:
        if inside:
            once = len(set(map(id, inside))) == len(inside)
            runs.append((Run(parts, inside) if parts and once else None, stop))

    for i, layer in enumerate(layers):
        found = parts_of(layer)
        if found is None:
            close(i)
            parts, inside = [], []
            runs.append((None, i + 1))
        else:
            parts = parts + found[0]
            inside = inside + found[1]
    close(len(layers))
    return runs
