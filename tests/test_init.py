"""Initialisers: their variances, maxout's constants, and that depth keeps the signal."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastact as fa
from fastact import init

# c for 2 to 5 pieces: Tseran & Montúfar 2023, arXiv 2301.06956
PUBLISHED = {2: 1.0, 3: 0.78391, 4: 0.64461, 5: 0.55555}


@pytest.mark.parametrize(("pieces", "constant"), PUBLISHED.items())
def test_maxout_std_equals_published_constants(pieces, constant):
    assert round(init.maxout_std(100, pieces) ** 2 * 100, 5) == constant


def test_maxout_std_equals_the_closed_form():
    # E[max²] of 1 to 4 normal numbers: 1, 1, 1 + sqrt(3) / (2 π), 1 + sqrt(3) / π
    root = math.sqrt(3) / math.pi
    for pieces, moment in enumerate((1, 1, 1 + root / 2, 1 + root), start=1):
        assert math.isclose(init.maxout_std(7, pieces), math.sqrt(1 / (7 * moment)), rel_tol=1e-14)


@pytest.mark.parametrize("pieces", [6, 16, 256])
def test_maxout_std_equals_sampling(pieces):
    squares = np.random.default_rng(0).standard_normal((40_000, pieces)).max(axis=1) ** 2
    error = 5 * squares.std() / math.sqrt(squares.size)  # five standard errors
    assert abs(1 / init.maxout_std(1, pieces) ** 2 - squares.mean()) < error


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 9])
def test_deep_maxout_network_keeps_the_mean_square(pieces):
    rng = np.random.default_rng(1)
    model = fa.Sequential(*(fa.Maxout(512, 512, pieces, rng=rng) for _ in range(10)))
    x = rng.standard_normal((64, 512)).astype(np.float32)
    ratio = np.mean(model(x) ** 2) / np.mean(x**2)
    assert 0.5 < ratio < 2


@pytest.mark.parametrize(
    ("initialise", "shape", "variance"),
    [
        (init.he_normal, (300, 400), 2 / 400),
        (lambda *args: init.he_normal(*args, negative_slope=0.5), (300, 400), 2 / (1.25 * 400)),
        (init.lecun_normal, (300, 400), 1 / 400),
        (init.glorot_uniform, (300, 400), 2 / 700),
        (init.maxout_normal, (100, 3, 400), init.maxout_std(400, 3) ** 2),
    ],
)
def test_initialiser_has_its_variance_and_dtype(initialise, shape, variance, dtype):
    weight = initialise(shape, 0, dtype)
    assert weight.shape == shape
    assert weight.dtype == dtype
    spread = 5 * math.sqrt(2 / weight.size)  # five standard errors of a normal sample's variance
    assert abs(np.var(weight, dtype=np.float64) / variance - 1) < spread
    assert abs(np.mean(weight, dtype=np.float64)) < 5 * math.sqrt(variance / weight.size)


def test_glorot_is_uniform_within_its_limit():
    weight = init.glorot_uniform((300, 400), 0, np.float64)
    limit = math.sqrt(6 / 700)
    assert 0.99 * limit < np.abs(weight).max() <= limit


def test_initialiser_takes_a_seed_or_a_generator():
    shape = (4, 3, 5)
    seeded = init.maxout_normal(shape, 7)
    np.testing.assert_array_equal(seeded, init.maxout_normal(shape, np.random.default_rng(7)))
    assert not np.array_equal(seeded, init.maxout_normal(shape, 8))
    assert not np.array_equal(init.maxout_normal(shape), init.maxout_normal(shape))
    np.testing.assert_array_equal(seeded, init.maxout_normal(shape, 7, np.float64).astype(np.float32))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_initialiser_of_empty_shape_returns_it(shape):
    for initialise in (init.he_normal, init.lecun_normal, init.glorot_uniform):
        assert initialise(shape).shape == shape
    assert init.maxout_normal((shape[0], 2, shape[1])).shape == (shape[0], 2, shape[1])


def test_he_normal_with_a_huge_negative_slope_scales_down():
    steep = init.he_normal((3, 4), 0, np.float64, negative_slope=1e200)
    np.testing.assert_allclose(steep * 1e200, init.he_normal((3, 4), 0, np.float64), rtol=1e-14)
    with np.errstate(all="raise"):
        assert not init.he_normal((3, 4), 0, np.float32, negative_slope=1e200).any()  # below float32


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (5, TypeError, "shape: got 5, wanted a tuple of ints"),
        ((), ValueError, r"shape: got \(\), wanted at least one size"),
        ((3, 2.0), TypeError, r"shape\[1\]: got 2.0, wanted an int"),
        ((True, 2), TypeError, r"shape\[0\]: got True, wanted an int"),
        ((-1, 2), ValueError, r"shape\[0\]: got -1, wanted 0 or more"),
        ((2, 10**400), ValueError, r"shape\[1\]: got 10{50,}\.\.\., wanted 0 to 1152921504606846975"),
        ((2**40, 2, 2**40), ValueError, r"shape: got \(1099511627776, 2, .*, wanted a product of at most"),
    ],
)
def test_initialiser_rejects_invalid_shape(shape, error, message):
    for initialise in (init.he_normal, init.lecun_normal, init.glorot_uniform, init.maxout_normal):
        with pytest.raises(error, match=message):
            initialise(shape)


def test_maxout_std_rejects_fan_in_and_pieces_out_of_range():
    for fan_in, pieces, error, message in (
        (2.0, 2, TypeError, "fan_in: got 2.0, wanted an int"),
        (-1, 2, ValueError, "fan_in: got -1, wanted 0 or more"),
        (10**400, 2, ValueError, "fan_in: got 1000"),
        (3, "2", TypeError, "pieces: got '2', wanted an int"),
        (3, 10**400, ValueError, "pieces: got 1000"),
    ):
        with pytest.raises(error, match=message):
            init.maxout_std(fan_in, pieces)


def test_initialiser_rejects_zero_pieces():
    with pytest.raises(ValueError, match="pieces: got 0, wanted 1 or more"):
        init.maxout_std(4, 0)
    with pytest.raises(
        ValueError, match=r"shape: got \(5, 4\), wanted \(out_features, pieces, in_features\)"
    ):
        init.maxout_normal((5, 4))


@pytest.mark.parametrize(
    ("activation", "keywords", "variance"),
    [
        ("identity", {}, 2 / 800),
        ("tanh", {}, 2 / 800),
        ("sigmoid", {}, 2 / 800),
        ("softsign", {}, 2 / 800),
        ("relu", {}, 2 / 400),
        ("relu6", {}, 2 / 400),
        ("gelu", {}, 2 / 400),
        ("leaky_relu", {"negative_slope": 0.5}, 2 / 500),
        ("prelu", {"slope": 0.5}, 2 / 500),
        ("selu", {}, 1 / 400),
    ],
)
def test_linear_default_initialiser_suits_its_activation(activation, keywords, variance):
    layer = fa.Linear(400, 400, activation=activation, rng=0, **keywords)
    assert abs(np.var(layer.weight.data) / variance - 1) < 5 * math.sqrt(2 / 160_000)
    assert not layer.bias.data.any()


def test_layer_uses_the_initialiser_it_is_given():
    layer = fa.Maxout(4, 3, init=lambda shape, rng, dtype: rng.uniform(-0.005, 0.005, shape).astype(dtype))
    assert 0 < np.abs(layer.weight.data).max() <= 0.005
