"""Every operation of the C backend, as calls that begin anew from the same inputs each time.

A call returns arrays, the same bits each time, and writes to copies alone.  The functions of this module make
no call of the C backend themselves, so that the first one of a process can be chosen.
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastact as fa
from fastact import activations, backends
from fastact.backends import c
from fastact.backends.interface import HashTable
from fastact.nn.network import LINEAR, MAXOUT, WINDOW
from fastact.nn.steps import ATTRIBUTES, StepLayer, StepParameter, objects_of

F32 = np.float32
SEED = 20130218


class Operation(NamedTuple):
    call: Callable[[], tuple[Any, ...]]
    inputs: tuple[Any, ...]  # arrays that a call reads and never writes
    allocates: bool = True  # memory, without which the call raises MemoryError

    def digest(self) -> bytes:
        """32 bytes that stand for the bits of the results."""
        return hashlib.sha256(b"".join(np.asarray(result).tobytes() for result in self.call())).digest()


# Work for two threads in the first; then one path each: batch in lanes, few rows, one row.
SHAPES = [(257, 300, 129, 3), (100, 240, 33, 5), (5, 2049, 7, 4), (1, 300, 513, 2)]


def _normal(*shape: int, dtype: Any = F32) -> Any:
    return np.random.default_rng(SEED + sum(shape)).standard_normal(shape).astype(dtype)


def products() -> dict[str, Operation]:
    """linear_maxout, linear_activation and matmul, and their backwards."""
    made = {}
    for rows, inputs, outputs, pieces in SHAPES:
        for dtype, precision in ((F32, "highest"), (F32, "medium"), (np.float64, "highest")):
            x, weight = _normal(rows, inputs, dtype=dtype), _normal(outputs, pieces, inputs, dtype=dtype)
            bias, grad_y = _normal(outputs, pieces, dtype=dtype), _normal(rows, outputs, dtype=dtype)
            flat, flat_bias = weight[:, 0].copy(), bias[:, 0].copy()
            _, argmax = fa.linear_maxout(x, weight, bias, backend="numpy")
            made |= _products(
                f"{rows}x{inputs}x{outputs}x{pieces} {np.dtype(dtype)} {precision}",
                precision,
                (x, weight, bias, grad_y, argmax, flat, flat_bias),
            )
    return made


def _products(label: str, precision: Any, inputs: tuple[Any, ...]) -> dict[str, Operation]:
    x, weight, bias, grad_y, argmax, flat, flat_bias = inputs

    def maxout_added() -> tuple[Any, ...]:
        out = (None, weight.copy(), bias.copy())
        return fa.linear_maxout_backward(
            grad_y,
            x,
            weight,
            argmax,
            needs=(False, True, True),
            out=out,
            accumulate=True,
            precision=precision,
        )[1:]

    calls: dict[str, Callable[[], tuple[Any, ...]]] = {
        "linear_maxout": lambda: fa.linear_maxout(x, weight, bias, precision=precision),
        "linear_maxout_backward": lambda: fa.linear_maxout_backward(
            grad_y, x, weight, argmax, precision=precision
        ),
        "linear_maxout_backward, added": maxout_added,
        "linear_activation": lambda: fa.linear_activation(x, flat, flat_bias, "gelu", precision=precision),
        "linear_activation_backward": lambda: fa.linear_activation_backward(
            grad_y, x, flat, grad_y, "gelu", precision=precision
        ),
        "linear_activation_backward, prelu": lambda: fa.linear_activation_backward(
            grad_y, x, flat, grad_y, "prelu", slope=flat_bias, precision=precision
        ),
        "matmul": lambda: _matmul(x, flat, precision),
    }
    return {f"{name} {label}": Operation(call, inputs) for name, call in calls.items()}


def _matmul(x: Any, weight: Any, precision: Any) -> tuple[Any, ...]:
    out = np.empty((len(x), len(weight)), x.dtype)
    c.matmul(x, weight, False, True, out, precision=precision)
    return (out,)


def elementwise() -> dict[str, Operation]:
    """Operations without a product.  Few of them need memory; none does without threads of its own."""
    z, grad_y, slope, other = _normal(400, 513), _normal(400, 513), _normal(513), _normal(513)
    pieces = _normal(130, 140, 50)
    y, winners = fa.maxout(pieces, 1, backend="numpy")
    _, saved = fa.layer_norm(z, slope, other, backend="numpy")
    labels = np.arange(400) % 513
    ids = np.arange(6000, dtype=np.uint64).reshape(3000, 2)
    tables = (HashTable(_normal(97, 64), 0, 7, None), HashTable(_normal(33, 32), 1, 8, _normal(32)))
    keys, embedded = np.empty((2, 3000, 4), np.uint32), np.empty((3000, 96), F32)
    backends.get("numpy").hash_embed(ids, tables, embedded, keys)
    inputs = (z, grad_y, slope, other, pieces, y, winners, saved, labels, ids, keys, embedded)

    def embed() -> tuple[Any, ...]:
        out, rows = np.empty_like(embedded), np.empty_like(keys)
        c.hash_embed(ids, tables, out, rows)
        return out, rows

    def embed_backward() -> tuple[Any, ...]:
        grads = tuple(table._replace(data=np.zeros_like(table.data)) for table in tables)
        c.hash_embed_backward(embedded, keys, grads)
        return tuple(grad.data for grad in grads)

    def dropout() -> tuple[Any, ...]:
        keep = np.empty(z.size, np.uint8)
        c.dropout_keep(3, 0.25, keep)
        return (keep,)

    def max_norm() -> tuple[Any, ...]:
        data = z.copy()
        fa.max_norm_(data, 1.0)
        return (data,)

    def clip() -> tuple[Any, ...]:
        parameter = fa.Parameter(z.copy(), "weight")
        parameter.grad = grad_y.copy()
        return fa.clip_grad_norm_(parameter, 1.0), parameter.grad

    def update(adam: bool) -> tuple[Any, ...]:
        data, grad = z.copy(), grad_y.copy()
        moments = [np.zeros(z.size, F32) for _ in range(2)] if adam else [None, None]
        assert c.update_parameter(data, grad, *moments, None, 1.0, 0.1, 0.1, 0.9, 0.9, 1e-8, 0.0, 0.0)
        return data, grad

    def step(make: Any) -> tuple[Any, ...]:
        parameter = fa.Parameter(z.copy(), "weight")
        parameter.grad = grad_y.copy()
        make([parameter]).step()
        return (parameter.data,)

    without = {
        "maxout": lambda: fa.maxout(pieces, 1),
        "maxout_backward": lambda: (fa.maxout_backward(y, winners, 140, 1),),
        "layer_norm": lambda: fa.layer_norm(z, slope, other),
        "mse": lambda: fa.mse(z, grad_y),
        "huber": lambda: fa.huber(z, grad_y),
        "binary_cross_entropy_with_logits": lambda: fa.binary_cross_entropy_with_logits(z, grad_y),
        "softmax_cross_entropy": lambda: fa.softmax_cross_entropy(z, labels),
        "hash_embed": embed,
        "hash_embed_backward": embed_backward,
        "dropout_keep": dropout,
        "max_norm_": max_norm,
        "clip_grad_norm_": clip,
        "update_parameter, SGD": lambda: update(False),
        "update_parameter, Adam": lambda: update(True),
        "SGD": lambda: step(lambda parameters: fa.SGD(parameters, 0.1, momentum=0.9)),
        "Adam": lambda: step(fa.Adam),
        "sgemm": lambda: _sgemm(z),
    }
    for name in activations.NAMES:
        slopes = {"slope": slope} if name == "prelu" else {}
        without[name] = lambda name=name, slopes=slopes: (fa.activation(z, name, **slopes),)
        if not slopes:
            without[f"{name}_backward"] = lambda name=name: (fa.activation_backward(grad_y, z, name),)
    with_memory = {
        "layer_norm_backward": lambda: fa.layer_norm_backward(grad_y, z, slope, saved),
        "prelu_backward": lambda: fa.activation_backward(grad_y, z, "prelu", slope=slope),
    }
    return {name: Operation(call, inputs, False) for name, call in without.items()} | {
        name: Operation(call, inputs) for name, call in with_memory.items()
    }


_INT, _FLOAT, _ARRAY = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_SGEMM = ctypes.CFUNCTYPE(None, *[_INT] * 5, _FLOAT, _ARRAY, _INT, _ARRAY, _INT, _FLOAT, _ARRAY, _INT)


def _sgemm(x: Any) -> tuple[Any, ...]:
    """x @ x.T of small integers, which any order of sums computes exactly."""
    x = np.clip(np.rint(x), -4, 4).astype(F32)[:60]
    out = np.empty((len(x), len(x)), F32)
    run = _SGEMM(c.blas_addresses()[0])
    rows, depth = x.shape
    memory, to = x.ctypes.data, out.ctypes.data
    run(0, 1, rows, rows, depth, 1.0, memory, depth, memory, depth, 0.0, to, rows)
    return (out,)


def networks(rows: int = 3000) -> dict[str, Operation]:
    """Layers, networks in one call and layer by layer, frozen models, a custom activation."""

    def network(*middle: Any, dtype: Any = F32) -> Any:
        return fa.Sequential(
            fa.Maxout(24, 40, pieces=3, rng=0, dtype=dtype),
            fa.LayerNorm(40, dtype=dtype),
            fa.Residual(fa.Linear(40, 40, activation="gelu", rng=1, dtype=dtype)),
            *middle,
            fa.Dropout(0.2, rng=4),
            fa.Linear(40, 5, activation="prelu", rng=2, dtype=dtype),
        )

    x = _normal(rows, 24)
    models = {
        "network": network(),
        "network, float64": network(dtype=np.float64),
        "residual": fa.Residual(fa.Linear(24, 24, activation="silu", rng=1)),
        "maxout layer": fa.Maxout(24, 40, pieces=3, rng=0),
        "prelu layer": fa.PReLU(24),
    }
    if backends.why_numba_is_missing() is None:  # which compiles the activation
        from support.custom import learned_swish

        models["network, custom activation"] = network(fa.Linear(40, 40, activation=learned_swish, rng=3))
    made = {}
    for name, model in models.items():
        taken = x.astype(model.parameters()[0].data.dtype)
        inputs = (taken, *(parameter.data for parameter in model.parameters()))
        made[f"{name}: training"] = Operation(lambda model=model, taken=taken: _train(model, taken), inputs)
        infer = Operation(lambda model=model, taken=taken: (model(taken),), inputs, name != "prelu layer")
        made[f"{name}: inference"] = infer
        if name != "maxout layer":
            made[f"{name}: frozen"] = Operation(
                lambda model=model, taken=taken: (fa.freeze(model, backend="c")(taken),), inputs
            )
    made["window"] = _window()
    return made


def _train(model: Any, x: Any) -> tuple[Any, ...]:
    model = copy.deepcopy(model)  # with the generators of its dropouts
    y = model(x, training=True)
    before = model.backward(y), *(parameter.grad.copy() for parameter in model.parameters())
    y = model(x, training=True)
    model.backward(y, accumulate=True, needs_input_grad=False)
    return (y, *before, *(parameter.grad for parameter in model.parameters()))


def _window() -> Operation:
    """A window and the product after it, as fastact.thinc has them."""
    x, grad_y = _normal(500, 32), _normal(500, 16)
    window, maxout, linear = StepLayer(), StepLayer(), StepLayer()
    window.window_size = 1
    arrays = _normal(48, 3, 96), _normal(48, 3), _normal(16, 48), _normal(16)
    maxout.weight, maxout.bias, linear.weight, linear.bias = map(StepParameter, arrays)
    linear.activation = "relu"
    parts = tuple(
        (kind, layer, ATTRIBUTES[kind])
        for kind, layer in ((WINDOW, window), (MAXOUT, maxout), (LINEAR, linear))
    )
    objects = objects_of({"relu": activations.CODES["relu"]})

    def call() -> tuple[Any, ...]:
        for parameter in (maxout.weight, maxout.bias, linear.weight, linear.bias):
            parameter.grad = np.empty_like(parameter.data)
        y, tape = c.network_forward(objects, parts, x, True, None, 0, 0)
        inferred = c.network_forward(objects, parts, x, False, None, 0, 0)
        grad_x = c.network_backward(objects, parts, x, y, tape, grad_y, False, True, 0)
        grads = [p.grad for p in (maxout.weight, maxout.bias, linear.weight, linear.bias)]
        holds = c.facts_hold((linear, "activation", "relu", linear, "slope", None))
        return (y, inferred, grad_x, *grads, len(c.network_tape(tape)), holds)

    return Operation(call, (x, grad_y, *arrays))


def first_calls() -> dict[str, Operation]:
    """Operations whose first call in a process takes each kind of memory."""
    made = products() | elementwise() | networks()
    names = (
        "linear_maxout 257x300x129x3 float32 highest",
        "linear_maxout_backward 5x2049x7x4 float32 medium",
        "prelu_backward",
        "network: training",
        "residual: frozen",
    )
    return {name: made[name] for name in names}


def small() -> dict[str, Operation]:
    """Operations that also allocate through Python, and one of each other kind; few rows, for many calls."""
    names = (
        *("hash_embed", "hash_embed_backward", "SGD", "Adam", "clip_grad_norm_", "update_parameter, Adam"),
        *("mse", "softmax_cross_entropy", "gelu", "prelu_backward", "layer_norm_backward"),
    )
    elements, layers = elementwise(), networks(30)
    return {name: elements[name] for name in names} | {
        name: layers[name] for name in layers if "float64" not in name and "inference" not in name
    }


def nopython() -> dict[str, Operation]:
    """Calls from code that Numba has compiled."""
    import numba

    x, weight, grad_y = _normal(257, 300), _normal(129, 3, 300), _normal(257, 129)

    @numba.njit
    def step(x: Any, weight: Any, grad_y: Any) -> Any:
        y, argmax = fa.linear_maxout(x, weight, backend="c")
        return y, argmax, fa.linear_maxout_backward(grad_y, x, weight, argmax, backend="c")

    def call() -> tuple[Any, ...]:
        y, argmax, (grad_x, grad_weight, _) = step(x, weight, grad_y)
        return y, argmax, grad_x, grad_weight

    return {"nopython code": Operation(call, (x, weight, grad_y))}
