"""Linear regions, winning pieces and conversions of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.networks import SIZES
from support.tolerance import gamma

import fastact as fa
from fastact import convert

from ..bounds import assert_close, assert_equal
from ..case import Case, Option, Results
from ..draw import Array, Draw


def regions(draw: Draw) -> Case:
    """The winners of a batch, the linear map at a sample, and the boundaries between two samples."""
    features, hidden, last = draw.choice(SIZES), draw.choice(SIZES), draw.choice(SIZES)
    pieces, seed = draw.choice((1, 2, 3, 5)), draw.rng.integers(1 << 30)
    name = draw.choice(("relu", "leaky_relu", "linear"))
    layers = (
        fa.Maxout(features, hidden, pieces, rng=seed, dtype=draw.dtype),
        fa.Linear(hidden, last, activation=name, rng=seed, dtype=draw.dtype),
    )
    model = fa.Sequential(*layers)
    for layer in layers:
        layer.bias.data[...] = draw.moderate(*layer.bias.data.shape)
    x = draw.moderate(draw.choice((1, 2, 17)), features)
    first, second = (layer.weight.data.astype(np.float64) for layer in layers)
    biases = [np.abs(layer.bias.data.astype(np.float64)) for layer in layers]
    # the sizes of all the sums on the way, in a layer as if every piece won
    size = (np.abs(first) @ np.abs(x[0].astype(np.float64)) + biases[0]).max(axis=1)
    size = np.abs(second) @ size + biases[1]

    def call(x: Array) -> Any:
        weight, bias = fa.linear_region(model, np.array(x[0]))
        t = fa.region_boundaries(model, np.array(x[0]), np.array(x[-1]))
        return model(x)[0], weight, bias, t, fa.piece_usage(model, x)["0"]

    def check(option: Option, results: Results, backend: str) -> None:
        y, weight, bias, t, usage = results
        exact = weight.astype(np.float64) @ x[0].astype(np.float64) + bias.astype(np.float64)
        assert_close("y", y, exact, 3 * gamma(features + hidden + 16, draw.dtype) * size, size)
        assert_close("usage", usage.sum(axis=1), np.ones(hidden), 1e-12)
        if not ((t > 0) & (t < 1)).all() or (np.diff(t) <= 0).any():
            raise AssertionError(f"region_boundaries: got {t}, wanted ascending numbers between 0 and 1")

    return Case(call, {"x": x}, check, work=1_000_000, calls=4)


def conversions(draw: Draw) -> Case:
    """A maxout layer's weight in the order of another library, and back."""
    out_features, in_features = draw.choice(SIZES), draw.choice((0, *SIZES))
    pieces = draw.choice((1, 2, 3, 5))
    weight, bias = draw.numbers(out_features, pieces, in_features), draw.some(0.7, out_features, pieces)
    order = draw.choice(tuple(convert.ORDERS))

    def call(weight: Array, bias: Array | None) -> Any:
        other, other_bias = convert.from_fastact(order, weight, bias)
        return convert.to_fastact(order, other, other_bias, pieces)

    def check(option: Option, results: Results, backend: str) -> None:
        assert_equal("weight", results[0], weight)
        if bias is not None:
            assert_equal("bias", results[1], bias)

    return Case(call, {"weight": weight, "bias": bias}, check, work=weight.size, calls=2)


OPERATIONS = {"regions": (regions, 0.5), "conversions": (conversions, 0.3)}
