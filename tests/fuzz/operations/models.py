"""Layers, networks, frozen models and checkpoints."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.networks import SIZES, assert_computes, random_network

import fastact as fa
from fastact import activations, backends

from ..bounds import assert_equal
from ..case import Case, Option, Result, Results
from ..draw import Array, Draw

ROWS = (1, 1, 2, 3, 5, 15, 16, 17, 33)
TIERS = ("highest", "highest", "high", "medium")


def dropouts(layer: Any) -> Iterator[Any]:
    """Each dropout of a model."""
    if isinstance(layer, fa.Dropout):
        yield layer
    for _, inner in layer._children() if isinstance(layer, fa.Sequential | fa.Residual) else ():
        yield from dropouts(inner)


class Model:
    """A random model that each call finds as it was drawn."""

    def __init__(self, draw: Draw, depth: int) -> None:
        self.features = draw.choice(SIZES)
        self.model, self.returns = random_network(draw.rng, self.features, draw.dtype, depth)
        self.parameters = self.model.parameters()
        for parameter in self.parameters:
            if draw.chance(0.5):
                parameter.data[...] = draw.moderate(*parameter.data.shape) / 30
        self.dropouts = [(each, each.rng.bit_generator.state) for each in dropouts(self.model)]
        self.values = [parameter.data.copy() for parameter in self.parameters]
        self.grads = [draw.moderate(*values.shape) for values in self.values]
        self.tier = draw.choice(TIERS)

    def restore(self) -> None:
        for layer, state in self.dropouts:
            layer.rng.bit_generator.state = state
        for parameter, values, grad in zip(self.parameters, self.values, self.grads, strict=True):
            parameter.data[...] = values
            if parameter.grad is None:
                parameter.grad = grad.copy()
            else:
                parameter.grad[...] = grad


def train(model: Any, x: Array, grad_y: Array, accumulate: bool, needs_input_grad: bool) -> tuple[Any, ...]:
    """y, and what a training forward and its backward compute."""
    y = model(x)
    trained = model(x, training=True)
    grad_x = model.backward(grad_y, accumulate, needs_input_grad)
    return (y, trained, grad_x, *(parameter.grad.copy() for parameter in model.parameters()))


def network(draw: Draw) -> Case:
    """A model forward and backward: the bits of its layers one by one."""
    made = Model(draw, draw.choice((1, 2)))
    rows = draw.choice(ROWS) if draw.chance(0.995) else 600
    x, grad_y = draw.numbers(rows, made.features), draw.moderate(rows, made.returns)

    def call(x: Array, grad_y: Array, **option: bool) -> Any:
        made.restore()
        with fa.float32_matmul_precision(made.tier):
            return train(made.model, x, grad_y, option["accumulate"], option["needs_input_grad"])

    def one_by_one(option: Option) -> Any:
        made.restore()
        with fa.float32_matmul_precision(made.tier):
            y = trained = x
            for layer in made.model:
                y = layer(y)
            for layer in made.model:
                trained = layer(trained, training=True)
            grad: Any = grad_y
            for layer in reversed(made.model.layers):
                grad = layer.backward(grad, option["accumulate"])
        return (y, trained, grad, *(parameter.grad.copy() for parameter in made.parameters))

    def check(option: Option, results: Results, backend: str) -> None:
        wanted = list(one_by_one(option))
        if not option["needs_input_grad"]:
            if results[2] is not None:
                raise AssertionError("grad_x: got an array, wanted None")
            wanted[2] = None
        for i, (got, other) in enumerate(zip(results, wanted, strict=True)):
            if other is not None:
                assert_equal(f"results[{i}]", got, other)

    options = [
        {"accumulate": accumulate, "needs_input_grad": needs}
        for accumulate, needs in ((False, True), (True, True), (False, False))
    ]
    work = 6 * rows * sum(values.size for values in made.values)
    return Case(call, {"x": x, "grad_y": grad_y}, check, (), options, work=work, calls=3)


def frozen_model(draw: Draw) -> Case:
    """A frozen model: within its bound, and each row as it is alone."""
    layers, features = [], draw.choice(SIZES)
    takes = features
    for _ in range(draw.choice((1, 1, 2, 3))):
        out = draw.choice(SIZES)
        kind = draw.choice(("maxout", "maxout", "linear", "prelu", "activation", "dropout"))
        seed = draw.rng.integers(1 << 30)
        if kind == "maxout":
            pieces = draw.choice((1, 2, 3, 5, 16))
            layers.append(fa.Maxout(features, out, pieces, draw.chance(0.7), rng=seed, dtype=draw.dtype))
            features = out
        elif kind == "linear":
            name = draw.choice([name for name in activations.NAMES if name != "prelu"])
            layers.append(fa.Linear(features, out, draw.chance(0.7), name, rng=seed, dtype=draw.dtype))
            features = out
        elif kind == "prelu":
            layers.append(fa.PReLU(features, dtype=draw.dtype))
        elif kind == "activation":
            layers.append(fa.Activation(draw.choice([name for name in activations.NAMES if name != "prelu"])))
        else:
            layers.append(fa.Dropout())
    model = fa.Sequential(*layers)
    rows = draw.choice((0, *ROWS)) if draw.chance(0.99) else 300
    x = draw.numbers(rows, takes)
    bounded = draw.kind in ("normal", "integers")
    frozen: dict[str, Any] = {}

    def call(x: Array, out: Array | None = None) -> Array:
        isa = backends.get("c").isa() if fa.get_backend() == "c" else ""
        name = f"{fa.get_backend()} {isa} {fa.get_reproducible()}"
        if name not in frozen:
            frozen[name] = fa.freeze(model)
        y: Array = frozen[name](x, out=out)
        return y

    def check(option: Option, results: Results, backend: str) -> None:
        if bounded:
            assert_computes(fa.freeze(model), model, x)
        isa = backends.get("c").isa() if backend == "c" else ""
        if rows > 1 and backend == "c" and isa != "amx":  # a row has the same bits in any batch
            row = int(draw.rng.integers(rows))
            assert_equal("y", results[0][row : row + 1], call(x[row : row + 1].copy()))

    size = sum(parameter.data.size for parameter in model.parameters())
    result = Result("y", (rows, features), draw.dtype)
    return Case(call, {"x": x}, check, (result,), work=rows * size + 4 * size)


def training(draw: Draw) -> Case:
    """Steps of a model, an optimiser, clipping and bounds; through a checkpoint, the same bits."""
    made = Model(draw, 1)
    rows = draw.choice(ROWS)
    x, grad_y = draw.moderate(rows, made.features), draw.moderate(rows, made.returns)
    make = draw.choice(
        (
            lambda parameters: fa.SGD(parameters, 0.01, 0.9, weight_decay=0.01),
            lambda parameters: fa.Adam(parameters),
            lambda parameters: fa.AdamW(parameters, 0.01),
        )
    )
    if not made.parameters:
        make = None
    for parameter in made.parameters:
        if parameter.data.ndim > 1 and draw.chance(0.3):
            parameter.max_norm = 1.5
    clip = draw.chance(0.5)

    def step(model: Any, optimizer: Any, x: Array, grad_y: Array) -> None:
        model(x, training=True)
        model.backward(grad_y)
        if optimizer is not None:
            if clip:
                fa.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    def call(x: Array, grad_y: Array, saved: bool) -> Any:
        made.restore()
        model, optimizer = made.model, None if make is None else make(made.parameters)
        step(model, optimizer, x, grad_y)
        if saved:
            other = copy.deepcopy(model)
            loaded = None if make is None else make(other.parameters())
            objects = {"model": (model, other), "optimizer": (optimizer, loaded)}
            pairs = zip(dropouts(model), dropouts(other), strict=True)
            objects |= {f"rng{i}": (a.rng, b.rng) for i, (a, b) in enumerate(pairs)}
            present = {name: pair for name, pair in objects.items() if pair[0] is not None}
            with checkpoint() as path:
                fa.save(path, **{name: pair[0] for name, pair in present.items()})
                for parameter in other.parameters():
                    parameter.data[...] = 0
                fa.load(path, **{name: pair[1] for name, pair in present.items()})
            model, optimizer = other, loaded
        step(model, optimizer, x, grad_y)
        state = {} if optimizer is None else optimizer.state_dict()
        return (*(p.data.copy() for p in model.parameters()), *(state[name] for name in sorted(state)))

    def check(option: Option, results: Results, backend: str) -> None:
        for i, (got, wanted) in enumerate(zip(results, call(x, grad_y, not option["saved"]), strict=True)):
            assert_equal(f"results[{i}]", got, wanted)

    options = [{"saved": False}, {"saved": True}]
    work = 3_000_000 + 20 * rows * sum(values.size for values in made.values)  # a save writes to the disk
    return Case(call, {"x": x, "grad_y": grad_y}, check, (), options, work=work, calls=8)


@contextlib.contextmanager
def checkpoint() -> Iterator[Path]:
    """The path of a file that goes at the end."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=folder) as path:
        yield Path(path) / "run.npz"


OPERATIONS = {
    "network": (network, 3.0),
    "frozen_model": (frozen_model, 5.0),
    "training": (training, 1.0),
}
