"""piece_usage, linear_region and region_boundaries, against the networks themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.inputs import integers, normal
from support.tolerance import CUT, gamma

import fastact as fa


def network(dtype=np.float32):
    """Every piecewise linear layer there is, one nested."""
    rng = np.random.default_rng(6)
    return fa.Sequential(
        fa.Maxout(9, 8, pieces=3, rng=rng, dtype=dtype),
        fa.Dropout(0.5, rng=rng),
        fa.Linear(8, 7, activation="prelu", slope=-0.5, rng=rng, dtype=dtype),
        fa.Sequential(fa.Linear(7, 6, bias=False, rng=rng, dtype=dtype), fa.PReLU(6, dtype=dtype)),
        fa.Activation("leaky_relu", negative_slope=0.25),
        fa.Maxout(6, 5, pieces=2, rng=rng, dtype=dtype),
        fa.Linear(5, 4, activation="relu", rng=rng, dtype=dtype),
    )


def fill(model, values, rng):
    for parameter in model.parameters():
        if parameter.name != "slope":
            parameter.data[...] = values(rng, parameter.data.shape, parameter.data.dtype)


# ---- piece_usage


def test_piece_usage_counts_the_winners(backend, rng, dtype):
    model = network(dtype)
    x = normal(rng, (4, 25, 9), dtype)
    usage = fa.piece_usage(model, x)
    assert list(usage) == ["0", "5"]
    y, argmax = fa.linear_maxout(x, model.layers[0].weight.data, model.layers[0].bias.data)
    for piece in range(3):
        np.testing.assert_array_equal(usage["0"][:, piece], (argmax == piece).mean(axis=(0, 1)))
    np.testing.assert_allclose(usage["5"].sum(axis=1), 1, rtol=1e-15)
    hidden = y
    for layer in model.layers[1:5]:
        hidden = layer(hidden)
    last = fa.piece_usage(model.layers[5], hidden)
    np.testing.assert_array_equal(last[""], usage["5"])


def test_piece_usage_looks_at_maxout_only_and_names_nested_layers(rng):
    inner = fa.Sequential(fa.Linear(9, 9, activation="gelu"), fa.Maxout(9, 3, pieces=2))
    usage = fa.piece_usage(fa.Sequential(inner, fa.Linear(3, 2)), normal(rng, (5, 9), np.float32))
    assert list(usage) == ["0.1"]
    assert usage["0.1"].shape == (3, 2)


def test_piece_usage_of_a_piece_that_never_wins_is_zero(rng):
    layer = fa.Maxout(4, 3, pieces=3)
    layer.bias.data[:, 1] = -1e3
    assert (fa.piece_usage(layer, normal(rng, (50, 4), np.float32))[""][:, 1] == 0).all()


# ---- linear_region


def test_linear_region_is_exact_on_whole_numbers(backend, rng, dtype):
    model = network(dtype)
    fill(model, lambda *a: integers(*a, largest=1), rng)
    for x in integers(rng, (50, 9), dtype):
        weight, bias = fa.linear_region(model, x)
        assert weight.shape == (4, 9)
        assert weight.dtype == bias.dtype == dtype
        np.testing.assert_array_equal(weight @ x + bias, model(x))


def rounding_bound(model, x):
    """How far the rounding of each layer may move the output: carried on through the layers after it.

    Taking a maximum, and an activation whose slope is at most 1, does not enlarge an error.
    """
    dtype = x.dtype
    error = np.zeros(x.size)
    for layer in model.layers:
        if not isinstance(layer, fa.Sequential) and layer.parameters():
            weight, bias = (p.data.astype(np.float64) for p in layer.parameters()[:2])
            size = np.abs(weight) @ np.abs(x) + np.abs(bias)
            error = np.abs(weight) @ error + gamma(min(x.size, CUT) + 3, dtype) * size
            if weight.ndim == 3:
                error = error.max(axis=1)
        x = layer(x)
    return error, x


def test_linear_region_gives_the_networks_output_within_rounding(backend, rng, dtype):
    model = fa.Sequential(
        fa.Maxout(20, 30, pieces=5, rng=rng, dtype=dtype),
        fa.Linear(30, 25, activation="relu", rng=rng, dtype=dtype),
        fa.Maxout(25, 10, pieces=2, rng=rng, dtype=dtype),
    )
    for x in normal(rng, (30, 20), dtype):
        weight, bias = fa.linear_region(model, x)
        error, y = rounding_bound(model, x)
        exact = weight.astype(np.float64) @ x + bias
        rounding = np.finfo(dtype).eps * (np.abs(weight) @ np.abs(x) + np.abs(bias))  # of weight and bias
        assert (np.abs(y - exact) <= error + rounding).all()


def test_linear_region_weight_is_the_gradient(rng):
    model = network(np.float64)
    x = normal(rng, 9, np.float64)
    model(x, training=False)
    weight, _ = fa.linear_region(model, x)
    without_dropout = fa.Sequential(*(a for a in model.layers if not isinstance(a, fa.Dropout)))
    for i in range(4):
        without_dropout(x, training=True)
        np.testing.assert_allclose(without_dropout.backward(np.eye(4)[i]), weight[i], rtol=1e-12, atol=1e-13)


def test_linear_region_of_nearby_points_is_the_same(rng, dtype):
    model = network(dtype)
    fill(model, normal, rng)
    x = normal(rng, 9, dtype)
    weight, bias = fa.linear_region(model, x)
    shared = 0
    for step in normal(rng, (50, 9), dtype):
        near = x + dtype.type(0.05) * step
        if len(fa.region_boundaries(model, x, near)) == 0:
            shared += 1
            for got, wanted in zip(fa.linear_region(model, near), (weight, bias), strict=True):
                np.testing.assert_array_equal(got, wanted)
    assert 0 < shared < 50


# ---- region_boundaries


def test_region_boundaries_enclose_one_linear_map(rng):
    model = network(np.float64)
    fill(model, normal, rng)
    a, b = normal(rng, (2, 9), np.float64) * 3
    t = fa.region_boundaries(model, a, b)
    assert len(t) >= 10
    assert (np.diff(t) > 0).all()
    assert t[0] > 0
    assert t[-1] < 1
    edges = np.concatenate([[0], t, [1]])
    for left, right in itertools.pairwise(edges):
        maps = [
            np.column_stack(fa.linear_region(model, a + (left + f * (right - left)) * (b - a)))
            for f in (0.01, 0.5, 0.99)
        ]
        np.testing.assert_array_equal(maps[0], maps[1])
        np.testing.assert_array_equal(maps[2], maps[1])


def test_region_boundaries_are_as_many_as_a_fine_grid_finds(rng):
    model = fa.Sequential(
        fa.Maxout(5, 6, pieces=4, rng=rng, dtype=np.float64),
        fa.Maxout(6, 4, pieces=3, rng=rng, dtype=np.float64),
    )
    a, b = normal(rng, (2, 5), np.float64)
    t = fa.region_boundaries(model, a, b)
    points = 20_000
    x = a + np.linspace(0, 1, points)[:, np.newaxis] * (b - a)
    y, first = fa.linear_maxout(x, model.layers[0].weight.data)
    _, second = fa.linear_maxout(y, model.layers[1].weight.data)
    winners = np.concatenate([first, second], axis=1)
    changes = np.flatnonzero((winners[1:] != winners[:-1]).any(axis=1))
    assert np.diff(t).min() > 1 / points  # so no region slips through the grid
    assert len(changes) == len(t)
    np.testing.assert_allclose(t, (changes + 0.5) / (points - 1), atol=1 / points)


def test_region_boundaries_of_a_known_network_are_exact():
    absolute = fa.Maxout(1, 1, pieces=2, dtype=np.float64)
    absolute.weight.data[...] = [[[-1], [1]]]
    shifted = fa.Linear(1, 1, activation="relu", dtype=np.float64)
    shifted.weight.data[...] = 1
    shifted.bias.data[...] = -1
    model = fa.Sequential(absolute, shifted)  # relu(|x| - 1)
    t = fa.region_boundaries(model, np.array([-2.0]), np.array([2.0]))
    np.testing.assert_allclose(t, [0.25, 0.5, 0.75], rtol=1e-15)
    assert len(fa.region_boundaries(model, np.array([2.0]), np.array([2.0]))) == 0
    linear = fa.Linear(1, 2, dtype=np.float64)
    assert len(fa.region_boundaries(linear, np.array([-2.0]), np.array([2.0]))) == 0


# ---- errors


@pytest.mark.parametrize(
    "call", [fa.piece_usage, fa.linear_region, lambda m, x: fa.region_boundaries(m, x, x)]
)
def test_rejects_invalid_model_or_array(call):
    x = np.ones(9, np.float32)
    with pytest.raises(TypeError, match="model: got int, wanted a Layer"):
        call(3, x)
    with pytest.raises(TypeError, match="got list, wanted"):
        call(network(), [1.0])
    with pytest.raises(ValueError, match=r"got shape \(8,\), wanted \(\.\.\., 9\)"):
        call(network(), x[:8])


def test_rejects_empty_input_and_batches():
    with pytest.raises(ValueError, match=r"x: got shape .* wanted at least one row"):
        fa.piece_usage(network(), np.ones((0, 9), np.float32))
    with pytest.raises(ValueError, match=r"x: got shape .* wanted one sample"):
        fa.linear_region(network(), np.ones((2, 9), np.float32))
    with pytest.raises(ValueError, match=r"end: got shape .* wanted one sample"):
        fa.region_boundaries(network(), np.ones(9, np.float32), np.ones((1, 9), np.float32))


@pytest.mark.parametrize(
    "layer", [fa.Linear(9, 3, activation="tanh"), fa.Activation("gelu")], ids=["Linear", "Activation"]
)
def test_rejects_layer_that_is_not_piecewise_linear(layer):
    x = np.ones(9, np.float32)
    model = fa.Sequential(layer)
    with pytest.raises(ValueError, match=r"tanh|gelu"):
        fa.linear_region(model, x)
    with pytest.raises(ValueError, match="wanted layers that are piecewise linear"):
        fa.region_boundaries(model, x, x)


def test_regions_of_underflowing_numbers_ignore_the_callers_errstate():
    layer = fa.Maxout(2, 1, 2, bias=False, dtype=np.float64)
    layer.weight.data[...] = [[[1e-200, 0.0], [0.0, 1e-200]]]
    model = fa.Sequential(layer, fa.Linear(1, 1, dtype=np.float64))
    model.layers[1].weight.data[...] = 1e-200
    start, end = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    with np.errstate(all="raise"):
        weight, _ = fa.linear_region(model, start)
        np.testing.assert_allclose(fa.region_boundaries(model, start, end), [0.5], rtol=1e-15)
    assert not weight.any()
