"""Hashes results of every operation, to compare two builds to the bit.

    python bench/bits.py --out before.json      # with the interpreter, or in the checkout, of each build
    python bench/bits.py --compare before.json after.json
    python bench/bits.py --reproducible --out this.json

Random calls of every operation run on every backend and on every instruction set of this CPU.  The
file maps each call to a SHA-256 of its results, every NaN counting as the same.  A call is named after its
backend, its operation, its index and what it does, and its data depends on the seed, the operation and the
index alone.  So builds that know different activations can be compared on the ones that both know.

Reproducible results have to be equal on every instruction set and CPU: those of this CPU are compared with
each other, and stand in the file once.

This file imports nothing of `bench`, so that it runs on a build whose checkout does not have it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# Libraries read these variables when they load.  On one thread, NumPy's products have one order of summation;
# a busy machine has no cores for threads that wait in a loop.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

import fastact as fa
from fastact import activations, backends, settings
from fastact.backends.interface import HashTable
from fastact.nn import network, steps

Array = np.ndarray[Any, Any]

CALLS = 8000  # default number of calls of each variant: a backend, or an instruction set of C
# Variants that make only this share of the calls: Numba compiles, and the reference is slow.
SLOW_SHARE = {"numba": 0.03, "numpy": 0.1}
SHOWN = 10  # a comparison prints at most this many differing calls

SIZES = (0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 64, 97, 130)
PIECES = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 255, 256)
MOST_TERMS = 2_000_000  # most multiply-adds of a product with random sizes

# One call in 4 has one of these shapes (rows, in_features, out_features, pieces).
SHAPES = (
    (64, 288, 96, 3),  # batch in lanes
    (100, 240, 33, 5),  # batch in lanes, with a tail of rows that fill no vector
    (52, 288, 40, 3),
    (128, 256, 40, 7),
    (47, 65, 35, 1),
    (8, 32, 32, 2),  # dots
    (12, 400, 21, 16),
    (256, 256, 1, 3),
    (1, 1024, 512, 2),
    (3, 700, 130, 1),
    (1, 300, 513, 1),  # one row: panels read in place
    (7, 150, 161, 1),
    (300, 96, 70, 4),  # packed panels, several
    (520, 64, 200, 1),
    (200, 513, 97, 2),  # several depth blocks
    (97, 1024, 32, 2),  # row strides of a power of two
    (20, 9000, 5, 5),  # many depth blocks
    (5, 20000, 6, 3),
    (33, 17, 21, 255),  # near the largest number of pieces
    (33, 17, 21, 256),
    (600, 20, 300, 2),  # several gather tables of a gradient
    (1500, 33, 40, 3),
    (16, 40, 640, 1),
    (1024, 16, 97, 1),
    (9, 257, 70, 16),
    (24, 1030, 90, 1),  # few rows: outer products
    (64, 60, 230, 7),  # a frozen layer's panels, shared by two threads
)
# One call in 48 has one of these shapes; they take long.
LARGE_SHAPES = (
    (256, 512, 512, 2),  # a tier's dense backward
    (1024, 288, 96, 3),
    (3000, 200, 40, 3),
    (128, 256, 96, 16),
    (100, 784, 240, 5),
    (64, 8192, 160, 1),
    (5500, 3100, 140, 1),  # packed rows in several row blocks
    (700, 1024, 520, 1),
    (2100, 40, 33, 9),
)
LENGTHS = (0, 1, 3, 15, 16, 17, 31, 32, 33, 97, 1000, 2047, 2048, 2049, 4096, 12293, 70001)
LONG_LENGTHS = (140_000, 300_001)  # lengths of one call in 48

PARAMETERS: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "leaky_relu": lambda rng: {"negative_slope": float(rng.choice([0.01, 0.5, -0.25, 3.0]))},
    "elu": lambda rng: {"alpha": float(rng.choice([1.0, 0.5, 2.5]))},
    "gelu": lambda rng: {"approximate": str(rng.choice(["none", "tanh"]))},
}
# Custom activations by their names in this file; Numba compiles them.
CUSTOM = {
    "custom_swish": fa.custom_activation(
        "swish",
        lambda z, beta: z / (1 + math.exp(-beta * z)),
        lambda z, beta: (1 + (1 + beta * z) * math.exp(-beta * z)) / (1 + math.exp(-beta * z)) ** 2,
        slope=1.0,
        slope_derivative=lambda z, beta: z * z * math.exp(-beta * z) / (1 + math.exp(-beta * z)) ** 2,
    ),
    "custom_tanh": fa.custom_activation("tanh", lambda z: math.tanh(z), lambda y: 1 - y * y, saves="y"),
}


class Case(NamedTuple):
    """The settings that a call draws first; they are part of its name."""

    dtype: str
    threads: int
    tier: str
    values: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.threads}t {self.tier} {self.values}"


def is_large(index: int) -> bool:
    return index % 48 == 47


def draw_case(rng: np.random.Generator, index: int) -> Case:
    case = Case(
        str(rng.choice(["float32", "float32", "float32", "float64"])),
        int(rng.choice([1, 1, 2, 3])),
        str(rng.choice(["highest", "highest", "high", "medium"])),
        str(rng.choice(["normal", "normal", "normal", "integers", "wide", "special"])),
    )
    # the few large calls meet every tier in turn
    tier = ("medium", "highest", "high")[index // 48 % 3]
    return case._replace(dtype="float32", tier=tier) if is_large(index) else case


def values(rng: np.random.Generator, case: Case, *shape: int) -> Array:
    """An array of one of the kinds of numbers that a kernel may meet."""
    array = rng.standard_normal(shape)
    if case.values == "integers":  # ties, and sums without rounding
        array = rng.integers(-2, 3, shape).astype(float)
    elif case.values == "wide":  # subnormal float32 numbers, and some that bfloat16 cannot hold
        array *= np.exp2(rng.integers(-140, 128, shape))
    limits = np.finfo(case.dtype)
    array = np.asarray(np.clip(array, limits.min, limits.max), case.dtype)
    if case.values == "special" and array.size:
        largest, smallest = limits.max, limits.smallest_subnormal
        kinds = [np.inf, -np.inf, np.nan, 0.0, -0.0, smallest, -smallest, largest, -largest]
        count = int(rng.integers(1, 4))
        array.flat[rng.integers(0, array.size, count)] = rng.choice(kinds, count)
    return array


def draw_shape(rng: np.random.Generator, index: int, first: int = 0) -> tuple[int, int, int, int]:
    """(rows, in_features, out_features, pieces) of call `index`; large ones begin with that of `first`."""
    if is_large(index):
        return LARGE_SHAPES[(first + index // 48) % len(LARGE_SHAPES)]
    if index % 4 == 3:
        return SHAPES[index // 4 % len(SHAPES)]
    while True:
        shape = (*map(int, rng.choice(SIZES, 3)), int(rng.choice(PIECES)))
        if np.prod(shape) <= MOST_TERMS:
            return shape


def draw_lead(rng: np.random.Generator, rows: int) -> tuple[int, ...]:
    """`rows` as leading axes: one axis or two; for one row also none."""
    if rows == 1 and rng.random() < 0.3:
        return ()
    return (2, rows // 2) if rows % 2 == 0 and rng.random() < 0.2 else (rows,)


def draw_length(rng: np.random.Generator, index: int) -> int:
    return int(rng.choice(LONG_LENGTHS if is_large(index) else LENGTHS))


def draw_needs(rng: np.random.Generator, count: int) -> tuple[bool, ...]:
    return tuple(bool(need) for need in rng.random(count) < 0.75)


def keywords_of(rng: np.random.Generator, case: Case, name: str, features: int) -> dict[str, Any]:
    """The keywords of activation `name`; a new activation has its defaults."""
    if name in ("prelu", "custom_swish"):
        shape = [(), (1,), (features,)][int(rng.integers(3))]
        return {"slope": values(rng, case, *shape)}
    return PARAMETERS.get(name, lambda _: {})(rng)


# ---- operations: each returns the call's description and its results

Outcome = tuple[str, Iterable[Any]]


def linear_maxout(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, in_features, out_features, pieces = draw_shape(rng, index)
    lead = draw_lead(rng, rows)
    x = values(rng, case, *lead, in_features)
    weight = values(rng, case, out_features, pieces, in_features)
    bias = values(rng, case, out_features, pieces) if rng.random() < 0.7 else None
    argmax = bool(rng.random() < 0.7)
    text = f"{lead}x{in_features}x{out_features}x{pieces} bias={bias is not None} argmax={argmax}"
    return text, fa.linear_maxout(x, weight, bias, return_argmax=argmax, precision=case.tier)


def linear_maxout_backward(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, in_features, out_features, pieces = draw_shape(rng, index)
    lead = draw_lead(rng, rows)
    x = values(rng, case, *lead, in_features)
    weight = values(rng, case, out_features, pieces, in_features)
    grad_y = values(rng, case, *lead, out_features)
    argmax = rng.integers(0, pieces, (*lead, out_features)).astype(np.uint8)
    needs, accumulate = draw_needs(rng, 3), bool(rng.random() < 0.3)
    out = None
    if accumulate:
        out = tuple(values(rng, case, *shape) for shape in (x.shape, weight.shape, weight.shape[:2]))
    text = f"{lead}x{in_features}x{out_features}x{pieces} needs={needs} accumulate={accumulate}"
    return text, fa.linear_maxout_backward(
        grad_y, x, weight, argmax, needs=needs, out=out, accumulate=accumulate, precision=case.tier
    )


def draw_blocks(rng: np.random.Generator, index: int) -> tuple[int, int, int]:
    """(outer, pieces, inner) of a maxout."""
    pieces = int(rng.choice(PIECES))
    while True:
        outer, inner = (int(size) for size in rng.choice([*LENGTHS, *SIZES], 2))
        if outer * inner * pieces <= (1_000_000 if is_large(index) else 200_000):
            return outer, pieces, inner


def maxout(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    z = values(rng, case, *draw_blocks(rng, index))
    argmax = bool(rng.random() < 0.7)
    return f"{z.shape} argmax={argmax}", fa.maxout(z, 1, return_argmax=argmax)


def maxout_backward(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    outer, pieces, inner = draw_blocks(rng, index)
    grad_y = values(rng, case, outer, inner)
    argmax = rng.integers(0, pieces, (outer, inner)).astype(np.uint8)
    return f"{(outer, pieces, inner)}", (fa.maxout_backward(grad_y, argmax, pieces, 1),)


def linear_activation(name: str, rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, in_features, out_features, pieces = draw_shape(rng, index, len(name))
    lead, units = draw_lead(rng, rows), out_features * min(pieces, 3)
    x, weight = values(rng, case, *lead, in_features), values(rng, case, units, in_features)
    bias = values(rng, case, units) if rng.random() < 0.7 else None
    saved = bool(rng.random() < 0.7)
    keywords = keywords_of(rng, case, name, units)
    text = f"{lead}x{in_features}x{units} bias={bias is not None} saved={saved}"
    return text, fa.linear_activation(
        x, weight, bias, CUSTOM.get(name, name), return_saved=saved, precision=case.tier, **keywords
    )


def linear_activation_backward(name: str, rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, in_features, out_features, pieces = draw_shape(rng, index, len(name))
    lead, units = draw_lead(rng, rows), out_features * min(pieces, 3)
    x, weight = values(rng, case, *lead, in_features), values(rng, case, units, in_features)
    grad_y, saved = values(rng, case, *lead, units), values(rng, case, *lead, units)
    keywords = keywords_of(rng, case, name, units)
    shapes = [x.shape, weight.shape, (units,)]
    if "slope" in keywords:
        shapes.append(keywords["slope"].shape)
    needs, accumulate = draw_needs(rng, len(shapes)), bool(rng.random() < 0.3)
    out = tuple(values(rng, case, *shape) for shape in shapes) if accumulate else None
    text = f"{lead}x{in_features}x{units} needs={needs} accumulate={accumulate}"
    return text, fa.linear_activation_backward(
        *(grad_y, x, weight, saved, CUSTOM.get(name, name)),
        **{"needs": needs, "out": out, "accumulate": accumulate, "precision": case.tier, **keywords},
    )


def layer_norm(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, features = draw_rows(rng, index)
    lead = draw_lead(rng, rows)
    x = values(rng, case, *lead, features)
    weight, bias = (values(rng, case, features) if rng.random() < 0.7 else None for _ in range(2))
    saved = bool(rng.random() < 0.7)
    text = f"{lead}x{features} weight={weight is not None} bias={bias is not None} saved={saved}"
    return text, fa.layer_norm(x, weight, bias, return_saved=saved)


def layer_norm_backward(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, features = draw_rows(rng, index)
    lead = draw_lead(rng, rows)
    x, grad_y = values(rng, case, *lead, features), values(rng, case, *lead, features)
    weight = values(rng, case, features) if rng.random() < 0.7 else None
    saved = values(rng, case, *lead, 2)
    needs, accumulate = draw_needs(rng, 3), bool(rng.random() < 0.3)
    out = (
        tuple(values(rng, case, *shape) for shape in (x.shape, (features,), (features,)))
        if accumulate
        else None
    )
    text = f"{lead}x{features} weight={weight is not None} needs={needs} accumulate={accumulate}"
    return text, fa.layer_norm_backward(grad_y, x, weight, saved, needs=needs, out=out, accumulate=accumulate)


def draw_rows(rng: np.random.Generator, index: int) -> tuple[int, int]:
    """(rows, features) of about `draw_length` elements."""
    length, features = draw_length(rng, index), int(rng.choice([1, 2, 3, 17, 64, 300, 5000]))
    return (max(1, length // features), features) if length else (0, features)


def activation(name: str, rng: np.random.Generator, index: int, case: Case) -> Outcome:
    shape = draw_rows(rng, index)
    keywords = keywords_of(rng, case, name, shape[1])
    z = values(rng, case, *shape) * np.dtype(case.dtype).type(rng.choice([1, 4, 30]))
    in_place = bool(rng.random() < 0.3)
    y = fa.activation(z, CUSTOM.get(name, name), out=z if in_place else None, **keywords)
    return f"{shape} in_place={in_place}", (y,)


def activation_backward(name: str, rng: np.random.Generator, index: int, case: Case) -> Outcome:
    shape = draw_rows(rng, index)
    keywords = keywords_of(rng, case, name, shape[1])
    grad_y = values(rng, case, *shape)
    saved = values(rng, case, *shape) * np.dtype(case.dtype).type(rng.choice([1, 4, 30]))
    if "slope" not in keywords:
        return f"{shape}", (fa.activation_backward(grad_y, saved, CUSTOM.get(name, name), **keywords),)
    accumulate = bool(rng.random() < 0.5)
    out = (None, values(rng, case, *keywords["slope"].shape)) if accumulate else None
    text = f"{shape} slope={keywords['slope'].shape} accumulate={accumulate}"
    return text, fa.activation_backward(
        grad_y, saved, CUSTOM.get(name, name), out=out, accumulate=accumulate, **keywords
    )


def mse(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    shape = draw_rows(rng, index)
    return f"{shape}", fa.mse(values(rng, case, *shape), values(rng, case, *shape))


def huber(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    shape = draw_rows(rng, index)
    return f"{shape}", fa.huber(values(rng, case, *shape), values(rng, case, *shape))


def binary_cross_entropy(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    shape = draw_rows(rng, index)
    logits, target = values(rng, case, *shape), values(rng, case, *shape)
    return f"{shape}", fa.binary_cross_entropy_with_logits(logits, target)


def softmax_cross_entropy(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, classes = int(rng.choice(SIZES)), int(rng.choice([1, 2, 3, 10, 17, 100, 1000]))
    labels = rng.integers(0, classes, rows)
    return f"{rows}x{classes}", fa.softmax_cross_entropy(values(rng, case, rows, classes), labels)


def draw_parameter(rng: np.random.Generator, index: int, case: Case) -> Any:
    parameter = fa.Parameter(values(rng, case, *draw_rows(rng, index)), "weight")
    parameter.max_norm = float(rng.choice([0.5, 2.0])) if rng.random() < 0.4 else None
    return parameter


def optimise(optimizer: Any, parameter: Any, rng: np.random.Generator, case: Case) -> Iterator[Any]:
    """Two steps; the parameter and the optimiser's state."""
    for _ in range(2):
        parameter.grad = values(rng, case, *parameter.data.shape)
        optimizer.step()
    yield parameter.data
    yield from (value for _, value in sorted(optimizer.state_dict().items()))


def sgd(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    parameter = draw_parameter(rng, index, case)
    momentum, decay = float(rng.choice([0.0, 0.9])), float(rng.choice([0.0, 0.01]))
    optimizer = fa.SGD([parameter], 0.1, momentum, bool(momentum and rng.random() < 0.5), decay)
    text = f"{parameter.data.shape} {momentum} {optimizer.nesterov} {decay} {parameter.max_norm}"
    return text, optimise(optimizer, parameter, rng, case)


def adam(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    parameter = draw_parameter(rng, index, case)
    optimizer = fa.Adam([parameter], 0.01, weight_decay=float(rng.choice([0.0, 0.01])))
    text = f"{parameter.data.shape} {optimizer.weight_decay} {parameter.max_norm}"
    return text, optimise(optimizer, parameter, rng, case)


def adamw(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    parameter = draw_parameter(rng, index, case)
    optimizer = fa.AdamW([parameter], 0.01, weight_decay=float(rng.choice([0.01, 0.5])))
    text = f"{parameter.data.shape} {optimizer.weight_decay} {parameter.max_norm}"
    return text, optimise(optimizer, parameter, rng, case)


def clip_grad_norm(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    parameters = [draw_parameter(rng, index, case) for _ in range(rng.integers(1, 4))]
    for parameter in parameters:
        parameter.grad = values(rng, case, *parameter.data.shape)
    norm = fa.clip_grad_norm_(parameters, float(rng.choice([0.1, 1.0, 10.0])))
    return f"{[parameter.data.shape for parameter in parameters]}", (norm, *(p.grad for p in parameters))


def max_norm(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    weight = values(rng, case, *draw_rows(rng, index))
    fa.max_norm_(weight, float(rng.choice([0.1, 1.0, 10.0])))
    return f"{weight.shape}", (weight,)


def with_values(layer: Any, rng: np.random.Generator, case: Case) -> Any:
    """`layer` with parameters drawn here, independent of its initialisers."""
    for parameter in layer.parameters():
        parameter.data[...] = values(rng, case, *parameter.data.shape)
    return layer


def draw_layer(
    rng: np.random.Generator, case: Case, in_features: int, out_features: int, pieces: int
) -> tuple[str, Any]:
    """A description, and a Maxout, or a Linear where there is one piece."""
    bias = bool(rng.random() < 0.7)
    shared = {"bias": bias, "precision": case.tier, "dtype": case.dtype, "rng": 0}
    text = f"{in_features}x{out_features}x{pieces} bias={bias}"
    if pieces > 1:
        return text, with_values(fa.Maxout(in_features, out_features, pieces, **shared), rng, case)
    name = str(rng.choice(["linear", "relu", "gelu", "tanh"]))
    layer = fa.Linear(in_features, out_features, activation=name, **shared)
    return f"{text} {name}", with_values(layer, rng, case)


def frozen_layer(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, *sizes = draw_shape(rng, index)
    text, layer = draw_layer(rng, case, *sizes)
    lead = draw_lead(rng, rows)
    return f"{lead}x{text}", (fa.freeze(layer)(values(rng, case, *lead, sizes[0])),)


def draw_model(rng: np.random.Generator, index: int, case: Case) -> tuple[str, Any, Array]:
    """A description, a model of up to 5 layers, and an x for it."""
    rows = int(rng.choice([size for size in SIZES if size <= 97]))
    sizes = [int(size) for size in rng.choice([size for size in SIZES if size > 0], 4)]
    if is_large(index):
        rows, sizes = 9000, [4, 1024, 2, 3]  # hidden layers in parts
    layers, texts = [], []
    for i in range(int(rng.integers(2, 4))):
        text, layer = draw_layer(rng, case, sizes[i], sizes[i + 1], int(rng.choice([1, 1, 2, 3, 5])))
        layers.append(layer)
        texts.append(text)
        if rng.random() < 0.3:
            shape = int(rng.choice([1, sizes[i + 1]]))
            layers.append(with_values(fa.PReLU(shape, dtype=case.dtype), rng, case))
        elif rng.random() < 0.3:
            layers.append(fa.Activation(str(rng.choice(["silu", "elu", "sigmoid"]))))
        elif rng.random() < 0.3:
            layers.append(fa.Dropout(0.5, rng=0))
    return f"{rows}: {', '.join(texts)}", fa.Sequential(*layers), values(rng, case, rows, sizes[0])


def frozen_model(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    text, model, x = draw_model(rng, index, case)
    return text, (fa.freeze(model)(x),)


def model(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    text, network, x = draw_model(rng, index, case)
    y = network(x, training=True)
    grad_x = network.backward(values(rng, case, *y.shape))
    return text, [y, grad_x, *(parameter.grad for parameter in network.parameters())]


# ---- operations that no public function names: those of a backend


def mode() -> int:
    """What is added to a number of threads for reproducible results, which older builds lack."""
    return (
        int(settings.threads_and_mode() & settings.REPRODUCIBLE) if hasattr(settings, "REPRODUCIBLE") else 0
    )


def matmul(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    rows, depth, out_features, pieces = draw_shape(rng, index)
    columns = out_features * min(pieces, 3)
    trans1, trans2 = (bool(rng.random() < 0.5) for _ in range(2))
    x = values(rng, case, *((depth, rows) if trans1 else (rows, depth)))
    y = values(rng, case, *((columns, depth) if trans2 else (depth, columns)))
    out = np.empty((rows, columns), case.dtype)
    backends.active().matmul(x, y, trans1, trans2, out, case.threads | mode(), case.tier)
    return f"{rows}x{depth}x{columns} {trans1} {trans2}", (out,)


def window(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    """Maxout of a window of rows, and its gradients.  C alone has it; the others give no result."""
    rows, in_features, out_features, pieces = (max(1, size) for size in draw_shape(rng, index))
    size = int(rng.choice([1, 1, 2, 3]))
    text = f"{rows}x{in_features}x{out_features}x{pieces} size={size}"
    backend: Any = backends.active()
    if not hasattr(backend, "network_forward"):
        return text, ()
    neighbours, layer = steps.StepLayer(), steps.StepLayer()
    neighbours.window_size = size
    weight = values(rng, case, out_features, pieces, (2 * size + 1) * in_features)
    parameters = [steps.StepParameter(each) for each in (weight, values(rng, case, out_features, pieces))]
    for parameter in parameters:
        parameter.grad = np.zeros_like(parameter.data)
    layer.weight, layer.bias = parameters
    parts = tuple(
        (kind, each, steps.ATTRIBUTES[kind])
        for kind, each in ((network.WINDOW, neighbours), (network.MAXOUT, layer))
    )
    objects, tier = steps.objects_of(activations.CODES), steps.TIERS[case.tier]
    x, grad_y = values(rng, case, rows, in_features), values(rng, case, rows, out_features)
    y, tape = backend.network_forward(objects, parts, x, True, None, tier, case.threads | mode())
    grad_x = backend.network_backward(objects, parts, x, y, tape, grad_y, True, True, case.threads | mode())
    return text, (y, grad_x, *(parameter.grad for parameter in parameters))


def dropout_keep(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    seed, p = int(rng.integers(2**64, dtype=np.uint64)), float(rng.choice([0.0, 2**-32, 0.1, 0.5, 0.9]))
    keep = np.empty(draw_rows(rng, index), np.uint8)
    backends.active().dropout_keep(seed, p, keep, case.threads | mode())
    return f"{keep.shape} {p}", (keep,)


def hash_embed(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    """Both directions."""
    rows, id_columns = int(rng.choice([*SIZES, 1000])), int(rng.integers(1, 5))
    ids = rng.integers(2**64, size=(rows, id_columns), dtype=np.uint64)
    tables = []
    for _ in range(rng.integers(1, 5)):
        shape = int(rng.choice([1, 17, 500])), int(rng.choice(SIZES))
        scale = values(rng, case, shape[1]) if rng.random() < 0.5 else None
        seed = int(rng.integers(2**32))
        tables.append(HashTable(values(rng, case, *shape), int(rng.integers(id_columns)), seed, scale))
    y = np.empty((rows, sum(table.data.shape[1] for table in tables)), case.dtype)
    keys = np.empty((len(tables), rows, 4), np.uint32)
    backends.active().hash_embed(ids, tuple(tables), y, keys, case.threads | mode())
    grads = tuple(table._replace(data=values(rng, case, *table.data.shape)) for table in tables)
    backends.active().hash_embed_backward(values(rng, case, *y.shape), keys, grads, case.threads | mode())
    text = f"{rows}: {[table.data.shape for table in tables]}"
    return text, (y, keys, *(grad.data for grad in grads))


def update_parameter(rng: np.random.Generator, index: int, case: Case) -> Outcome:
    shape = draw_rows(rng, index)
    data, grad, average = (values(rng, case, *shape) for _ in range(3))
    mean, square = (abs(values(rng, case, data.size)) for _ in range(2))
    adam, averages = (bool(rng.random() < 0.7) for _ in range(2))
    moments = (mean, square) if adam else (None, None)
    max_norm, decay, shrink = (float(rng.choice([0.0, value])) for value in (1.0, 0.01, 0.001))
    arrays = (data, grad, *moments, average if averages else None)
    numbers = (max_norm, decay, 0.01, 0.9, 0.999, 1e-8, shrink, 0.3)
    backends.active().update_parameter(*arrays, *numbers, case.threads | mode())
    return f"{shape} adam={adam} averages={averages} {max_norm} {decay} {shrink}", arrays


# ---- running them

Operation = Callable[[np.random.Generator, int, Case], Outcome]
# Each operation, and its share of the calls.
SHARES: dict[str, tuple[Operation, float]] = {
    "linear_maxout": (linear_maxout, 0.15),
    "linear_maxout_backward": (linear_maxout_backward, 0.15),
    "maxout": (maxout, 0.03),
    "maxout_backward": (maxout_backward, 0.03),
    "layer_norm": (layer_norm, 0.02),
    "layer_norm_backward": (layer_norm_backward, 0.02),
    "mse": (mse, 0.015),
    "huber": (huber, 0.01),
    "binary_cross_entropy_with_logits": (binary_cross_entropy, 0.01),
    "softmax_cross_entropy": (softmax_cross_entropy, 0.01),
    "sgd": (sgd, 0.025),
    "adam": (adam, 0.025),
    "adamw": (adamw, 0.01),
    "clip_grad_norm": (clip_grad_norm, 0.01),
    "max_norm": (max_norm, 0.015),
    "frozen_layer": (frozen_layer, 0.1),
    "frozen_model": (frozen_model, 0.04),
    "model": (model, 0.03),
    "matmul": (matmul, 0.05),
    "window": (window, 0.03),
    "dropout_keep": (dropout_keep, 0.01),
    "hash_embed": (hash_embed, 0.02),
    "update_parameter": (update_parameter, 0.02),
}
# The same for operations of which each activation has one.
ACTIVATION_SHARES: dict[str, tuple[Callable[..., Outcome], float]] = {
    "linear_activation": (linear_activation, 0.0125),
    "linear_activation_backward": (linear_activation_backward, 0.0125),
    "activation": (activation, 0.0075),
    "activation_backward": (activation_backward, 0.0075),
}


def operations() -> dict[str, tuple[Operation, float]]:
    """Every operation of this version by its name, and its share of the calls."""
    found = dict(SHARES)
    names = (*activations.NAMES, *(CUSTOM if importlib.util.find_spec("numba") else ()))
    for kind, (run, share) in ACTIVATION_SHARES.items():
        for name in names:
            found[f"{kind} {name}"] = (lambda *args, run=run, name=name: run(name, *args), share)
    return found


def digest(results: Iterable[Any]) -> str:
    """A SHA-256 of dtypes, shapes and bytes, with one NaN for all."""
    sha = hashlib.sha256()
    for result in results:
        if result is None:
            sha.update(b"None;")
            continue
        array = np.array(result, order="C")
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan
        sha.update(f"{array.dtype.str}{array.shape};".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def variants() -> tuple[str, ...]:
    """C once for every instruction set that this build and CPU run, Numba, and the reference."""
    others = tuple(name for name in backends.NAMES if name != "c")
    if backends.why_c_is_missing() is not None:
        return others
    from fastact.backends import c

    return (*(f"c-{isa}" for isa in c.supported_isas()), *others)


@contextmanager
def chosen(variant: str) -> Iterator[None]:
    """Put the backend and instruction set of `variant` in force, and restore the earlier ones at the end."""
    name, _, isa = variant.partition("-")
    backend = backends.get_backend()
    backends.set_backend(name)
    try:
        if not isa:
            yield
            return
        from fastact.backends import c

        before = c.isa()
        c.set_isa(isa)
        try:
            yield
        finally:
            c.set_isa(before)
    finally:
        backends.set_backend(backend)


def one_call(name: str, run: Operation, seed: int, index: int) -> tuple[str, str]:
    """The name of a call and the hash of its results."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), index])
    case = draw_case(rng, index)

    def attempt() -> tuple[str, str]:
        with settings.num_threads(case.threads), np.errstate(all="ignore"):
            text, results = run(rng, index, case)
            return f"{name}/{index} {case} {text}", digest(results)

    try:
        if case.threads == 1:
            return attempt()
        # Back-off on a busy machine holds for the calling thread alone: a new thread starts without it.
        with ThreadPoolExecutor(1) as caller:
            return caller.submit(attempt).result()
    except Exception as error:
        raise RuntimeError(f"{name}/{index} {case}: {error}") from error


def hashes(wanted: Sequence[str], calls: int, seed: int) -> dict[str, str]:
    """The hash of each of about `calls` calls of each variant, by the call's name."""
    table = operations()
    plan = [
        (variant, name, run, index)
        for variant in wanted
        for name, (run, share) in table.items()
        for index in range(max(1, round(calls * share * SLOW_SHARE.get(variant, 1))))
    ]
    found = {}
    for variant, name, run, index in with_progress(plan):
        with chosen(variant):
            key, value = one_call(name, run, seed, index)
        found[f"{variant}/{key}"] = value
    return found


def reproducible_hashes(isas: Sequence[str], calls: int, seed: int) -> tuple[dict[str, str], list[str]]:
    """The hash of each call with reproducible results; the calls whose hashes differ among C's ISAs."""
    plan = [
        (name, run, index)
        for name, (run, share) in operations().items()
        if name.partition(" ")[2] not in CUSTOM  # compiled for this CPU
        for index in range(max(1, round(calls * share)))
    ]
    found: dict[str, str] = {}
    differing = []
    fa.set_reproducible(True)  # for the threads of `one_call` too
    try:
        for name, run, index in with_progress(plan):
            values = []
            for isa in isas:
                with chosen(isa):
                    key, value = one_call(name, run, seed, index)
                values.append(value)
            found[f"reproducible/{key}"] = values[0]
            if set(values) != {values[0]}:
                differing.append(key)
    finally:
        fa.set_reproducible(False)
    return found, differing


def with_progress(plan: Sequence[Any]) -> Iterable[Any]:
    """The items of `plan`, beside a progress bar where rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return plan
    return track(plan, description="calls", console=Console(stderr=True))


def variant_of(key: str) -> str:
    return key.split("/")[0]


def operation_of(key: str) -> str:
    return "/".join(key.split("/")[:2])


def compare(before: Path, after: Path) -> int:
    """Print how two files differ; 0 where every call that is in both has one hash, else 1."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    if old["seed"] != new["seed"]:
        raise ValueError(f"seed: {before} has {old['seed']}, {after} has {new['seed']}")
    common = old["hashes"].keys() & new["hashes"].keys()
    differing = [key for key in old["hashes"] if key in common and old["hashes"][key] != new["hashes"][key]]
    print(f"{len(common)} calls are in both files, {len(differing)} of them differ.")
    for name, count in Counter(operation_of(key) for key in differing).items():
        print(f"differing: {count} of {name}")
    for key in differing[:SHOWN]:
        print(f"  {key}")
    for path, mine, other in ((before, old["hashes"], new["hashes"]), (after, new["hashes"], old["hashes"])):
        known = {part for key in other for part in (variant_of(key), operation_of(key))}
        lacking = {variant_of(key) for key in mine} - known
        lacking |= {operation_of(key) for key in mine if variant_of(key) in known} - known
        if only := len(mine.keys() - common):
            print(f"only in {path}: {only} calls; the other has none of: {', '.join(sorted(lacking)) or '-'}")
    return 1 if differing or not common else 0


def check_out(path: Path) -> None:
    """Raise OSError or ValueError, before the work, where `path` cannot be written or is another file."""
    if not path.exists():
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                return
        except OSError as error:
            raise OSError(f"{path}: cannot write in {path.parent} ({error.strerror})") from error
    with path.open("r+b") as file:
        if not file.read(32).lstrip().startswith(b'{\n"seed"'):
            raise ValueError(f"{path}: not a file of hashes")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bits", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=CALLS, help=f"for each variant (default: {CALLS})")
    parser.add_argument("--seed", type=int, default=0, help="of the calls and their data (default: 0)")
    parser.add_argument(
        "--variants", nargs="+", choices=variants(), help="backends and instruction sets (default: all)"
    )
    parser.add_argument(
        "--reproducible",
        action="store_true",
        help="with reproducible results on every instruction set; status 1: differ",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the hashes as JSON")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar="FILE", help="compare two files instead; status 1: differ"
    )
    options = parser.parse_args(arguments)
    if options.compare:
        return compare(*options.compare)
    if options.out is None or options.calls < 1 or options.seed < 0:
        parser.error("wanted --out FILE, at least 1 call and a seed of 0 or more, or --compare FILE FILE")
    try:
        check_out(options.out)
    except (OSError, ValueError) as error:
        parser.error(f"--out: {error}")
    wanted = options.variants or variants()
    differing: list[str] = []
    if options.reproducible:
        wanted = [variant for variant in wanted if variant.startswith("c-")]
        found, differing = reproducible_hashes(wanted, options.calls, options.seed)
    else:
        found = hashes(wanted, options.calls, options.seed)
    record = {"seed": options.seed, "calls": options.calls, "hashes": found}
    options.out.write_text(json.dumps(record, indent=0) + "\n")
    print(f"{len(found)} calls, all together {digest([np.array(list(found.values()))])[:16]}")
    if differing:
        print(f"{len(differing)} differ among {', '.join(wanted)}")
        for key in differing[:SHOWN]:
            print(f"  {key}")
    return 1 if differing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)  # as a shell has it for a program that Ctrl-C ends
