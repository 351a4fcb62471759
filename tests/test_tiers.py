"""The precision tiers: error, values that bfloat16 cannot represent, threads.  Float32 kernels pass too."""

import pickle

import numpy as np
import pytest
from support.inputs import double, integers, linear_inputs, maxout_inputs, normal
from support.linear_maxout import assert_as_reference, at
from support.shapes import Shape
from support.tolerance import TINY, assert_same_bits, assert_within, tier_bound
from support.variants import isa_in_force, needs_c
from threadpoolctl import threadpool_limits

import fastact as fa
from fastact import settings

TIERS = ("highest", "high", "medium")
# The norm of the error relative to that of the result.
LARGEST_ERROR = {"high": 1e-5, "medium": 4e-3}

# Edges of every tile: rows beside 12, 32 and 64, outputs beside 16 and 32, depths beside 32 and the cut of
# sums; from 96 rows, 32 inputs, 48 outputs, 96 units and 6 million multiplications on "highest" runs on
# AMX tiles.
SHAPES = [
    Shape(5, 1, 1, 1),
    Shape(23, 31, 15, 2),
    Shape(33, 33, 17, 3),
    Shape(64, 0, 5, 2),
    Shape(50, 97, 33, 4),
    Shape(25, 257, 40, 5),
    Shape(70, 513, 7, 9),
    Shape(12, 40, 3, 256),
    Shape(513, 160, 97, 1),
    Shape(530, 65, 18, 2),
    Shape(451, 97, 50, 3),
    Shape(600, 70, 49, 4),
    Shape(97, 460, 49, 3),
]
SPECIAL = (np.nan, np.inf, -np.inf, np.finfo(np.float32).max, -3.4e38, 1e-40)


@pytest.fixture(params=TIERS)
def tier(request):
    return request.param


def bound(magnitude, terms, tier, backend, factors):
    return tier_bound(magnitude, terms, tier, backend, np.abs(factors).max(initial=0))


# ---- error


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_maxout_at_each_tier_is_within_the_error_bound(compiled, tier, threads, shape, rng):
    x, weight, bias, _ = maxout_inputs(rng, shape, np.float32)
    y, argmax = fa.linear_maxout(x, weight, bias, precision=tier)
    x64, weight64, bias64 = double(x, weight, bias)
    z = np.einsum("ni,jki->njk", x64, weight64, optimize=True) + bias64
    magnitude = np.einsum("ni,jki->njk", abs(x64), abs(weight64), optimize=True) + abs(bias64)
    allowed = bound(magnitude, shape.in_features, tier, compiled, weight)
    assert_within(y, at(z, argmax), at(allowed, argmax))
    assert (at(z + allowed, argmax)[..., None] >= z - allowed).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_maxout_backward_at_each_tier_is_within_the_error_bound(compiled, tier, threads, shape, rng):
    x, weight, _, grad_y = maxout_inputs(rng, shape, np.float32)
    argmax = rng.integers(0, shape.pieces, grad_y.shape, dtype=np.uint8)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
    x64, weight64, grad_y64 = double(x, weight, grad_y)
    grad_z = grad_y64[..., None] * (argmax[..., None] == np.arange(shape.pieces))
    for grad, subscripts, other, terms in (
        (grads[0], "njk,jki->ni", weight64, shape.out_features * shape.pieces),
        (grads[1], "njk,ni->jki", x64, shape.rows),
    ):
        exact = np.einsum(subscripts, grad_z, other, optimize=True)
        magnitude = np.einsum(subscripts, abs(grad_z), abs(other), optimize=True)
        assert_within(grad, exact, bound(magnitude, terms, tier, compiled, other))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_activation_at_each_tier_is_within_the_error_bound(compiled, tier, threads, shape, rng):
    x, weight, bias, grad_y = linear_inputs(rng, shape, np.float32)
    y, _ = fa.linear_activation(x, weight, bias, "identity", precision=tier)
    grads = fa.linear_activation_backward(grad_y, x, weight, y, "identity", precision=tier)
    x64, weight64, bias64, grad_y64 = double(x, weight, bias, grad_y)
    for result, left, right, added, terms in (
        (y, x64, weight64.T, bias64, shape.in_features),
        (grads[0], grad_y64, weight64, 0, shape.out_features),
        (grads[1], grad_y64.T, x64, 0, shape.rows),
    ):
        magnitude = abs(left) @ abs(right) + abs(added)
        assert_within(result, left @ right + added, bound(magnitude, terms, tier, compiled, right))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_numbers_at_each_tier_are_exact(compiled, tier, threads, shape, rng):
    """A bfloat16 represents whole numbers up to 256, so ties come out as in the reference."""
    assert_as_reference(*maxout_inputs(rng, shape, np.float32, integers), precision=tier)


def products(x, weight, grad_y):
    """Each product of a layer, without a bias: a function of the keywords, and the float64 result."""
    x64, weight64, grad_y64 = double(x, weight, grad_y)

    def backward(**keywords):
        return fa.linear_activation_backward(grad_y, x, weight, grad_y, "identity", **keywords)

    yield lambda **k: fa.linear_activation(x, weight, None, "identity", **k)[0], x64 @ weight64.T
    yield lambda **k: backward(**k)[0], grad_y64 @ weight64
    yield lambda **k: backward(**k)[1], grad_y64.T @ x64


@pytest.mark.parametrize("depth", [288, 784, 2048])
@pytest.mark.parametrize("values", ["normal", "positive"])
def test_error_norm_at_each_tier_is_bounded(compiled, tier, depth, values, rng):
    """The three products of a layer, with 576 rows and the depth in each place in turn."""
    make = (
        (lambda *s: rng.random(s, np.float32))
        if values == "positive"
        else lambda *s: normal(rng, s, np.float32)
    )
    for place, sizes in enumerate(((576, depth, 144), (576, 144, depth), (depth, 576, 144))):
        rows, in_features, out_features = sizes
        x, weight = make(rows, in_features), make(out_features, in_features)
        grad_y = make(rows, out_features)
        compute, exact = list(products(x, weight, grad_y))[place]
        error = np.linalg.norm(compute(precision=tier) - exact)
        if tier == "highest":
            with threadpool_limits(1, user_api="blas"):
                numpys = np.linalg.norm(compute(backend="numpy") - exact)
            roundings = (
                2 if isa_in_force(compiled) == "scalar" else 1
            )  # scalar code has no fused multiply-add
            assert error <= numpys * np.sqrt(roundings) * (1 + 5 / np.sqrt(exact.size))
        else:
            assert error <= LARGEST_ERROR[tier] * np.linalg.norm(exact)


# ---- values that bfloat16 cannot represent


@pytest.mark.parametrize("value", SPECIAL, ids=str)
@pytest.mark.parametrize("place", ["x", "weight"])
@pytest.mark.parametrize(
    "shape", [Shape(100, 70, 50, 1), Shape(100, 70, 50, 3), Shape(200, 160, 98, 2)], ids=str
)
def test_special_values_at_each_tier_equal_float32(compiled, tier, threads, value, place, shape, rng):
    """They come out as float32 arithmetic gives them, and leave the other rows or outputs alone."""
    x, weight, bias, _ = maxout_inputs(rng, shape, np.float32)
    x[rng.random(x.shape) < 0.2] = 1e-40  # an infinity times a denormal number is one
    target = x if place == "x" else weight
    some = rng.choice(len(target), 5, replace=False)
    target[some, ..., 3] = value
    with np.errstate(over="ignore", invalid="ignore"):
        y, argmax = fa.linear_maxout(x, weight, bias, precision=tier)
        z = np.einsum("ni,jki->njk", *double(x, weight)) + bias
        largest = z.max(-1)
        with_float32 = largest.astype(np.float32)
        magnitude = np.einsum("ni,jki->njk", *(abs(a) for a in double(x, weight))) + abs(bias)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(with_float32))
    finite = np.isfinite(with_float32)
    np.testing.assert_array_equal(y[~finite], with_float32[~finite])
    allowed = bound(magnitude, shape.in_features, tier, compiled, weight[np.isfinite(weight)])
    chosen = at(z, argmax)
    assert_within(y[finite], chosen[finite], at(allowed, argmax)[finite])


@pytest.mark.parametrize("value", [np.nan, np.inf, np.finfo(np.float32).max], ids=str)
@pytest.mark.parametrize("pieces", [2, 3, 4, 5])
@pytest.mark.parametrize("rows", [100, 600])
def test_loser_at_each_tier_contributes_nothing(compiled, tier, threads, value, rows, pieces, rng):
    shape = Shape(rows, 100, 60, pieces)
    x, weight, _, grad_y = maxout_inputs(rng, shape, np.float32)
    argmax = rng.integers(0, pieces - 1, grad_y.shape, dtype=np.uint8)  # the last piece never wins
    weight[:, -1] = value
    lost = rng.random(len(x)) < 0.1
    x[lost] = value
    grad_y[lost] = 0
    grad_x, _, _ = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
    assert np.isfinite(grad_x).all()
    _, grad_weight, _ = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
    np.testing.assert_array_equal(grad_weight[:, -1], 0)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_infinite_gradient_at_each_tier_reaches_the_winner_alone(compiled, tier, threads, pieces, rng):
    x, weight, _, grad_y = maxout_inputs(rng, Shape(600, 100, 60, pieces), np.float32)
    argmax = rng.integers(0, pieces, grad_y.shape, dtype=np.uint8)
    grad_y[17, 5] = np.inf
    grad_x, grad_weight, _ = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
    touched = np.zeros(len(x), bool)
    touched[17] = True
    np.testing.assert_array_equal(~np.isfinite(grad_x).all(1), touched)
    units = np.zeros((60, pieces), bool)
    units[5, argmax[17, 5]] = True
    np.testing.assert_array_equal(~np.isfinite(grad_weight).all(2), units)


def test_denormal_inputs_at_each_tier_are_within_an_absolute_bound(compiled, tier, rng):
    x, weight, _, _ = maxout_inputs(rng, Shape(600, 100, 60, 2), np.float32)
    x *= np.float32(1e-39)
    z = np.einsum("ni,jki->njk", *double(x, weight))
    y, argmax = fa.linear_maxout(x, weight, None, precision=tier)
    assert_within(y, at(z, argmax), TINY * 100 * (1 + abs(weight).max()))


# ---- the same bits


@pytest.mark.parametrize(
    "shape",
    [Shape(600, 90, 70, 2), Shape(100, 300, 150, 5), Shape(40, 20, 300, 1), Shape(600, 20, 96, 1)],
    ids=str,
)
@pytest.mark.parametrize("special", [False, True])
def test_any_number_of_threads_gives_the_same_bits(compiled, tier, shape, special, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, shape, np.float32)
    if special:
        x[rng.integers(0, len(x), 3), 5] = 3.4e38
        weight[rng.integers(0, len(weight), 3), 0, 7] = np.inf
    results = []
    for threads in (1, 2, 3, 5):
        with settings.num_threads(threads), np.errstate(all="ignore"):
            y, argmax = fa.linear_maxout(x, weight, bias, precision=tier)
            grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
            z, saved = fa.linear_activation(x, weight[:, 0], None, "relu", precision=tier)
            linear_grads = fa.linear_activation_backward(
                grad_y, x, weight[:, 0], saved, "relu", precision=tier
            )
            results.append((y, argmax, *grads, z, *linear_grads))
    for other in results[1:]:
        assert_same_bits(other, results[0])


@pytest.mark.parametrize("special", [False, True])
def test_accumulate_at_each_tier_adds_the_finished_sum(compiled, tier, threads, special, rng):
    for shape in (Shape(100, 33, 20, 2), Shape(40, 50, 17, 1), Shape(600, 100, 60, 2)):
        x, weight, _, grad_y = maxout_inputs(rng, shape, np.float32)
        if special:
            x[7, 3] = np.inf
        argmax = rng.integers(0, shape.pieces, grad_y.shape, dtype=np.uint8)
        with np.errstate(all="ignore"):
            once = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
            out = (None, np.ones_like(once[1]), np.ones_like(once[2]))
            fa.linear_maxout_backward(
                grad_y, x, weight, argmax, precision=tier, out=out, needs=(False, True, True), accumulate=True
            )
            np.testing.assert_array_equal(out[1], once[1] + 1)
            linear = fa.linear_activation_backward(grad_y, x, weight[:, 0], grad_y, "linear", precision=tier)
            out = (None, np.ones_like(linear[1]), np.ones_like(linear[2]))
            fa.linear_activation_backward(
                grad_y, x, weight[:, 0], grad_y, "linear", precision=tier, out=out, needs=(False, True, True),
                accumulate=True,
            )  # fmt: skip
            np.testing.assert_array_equal(out[1], linear[1] + 1)


# ---- frozen layers


@pytest.mark.parametrize("rows", [1, 5, 70, 150])
@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_frozen_at_each_tier_is_within_the_error_bound(compiled, tier, threads, rows, pieces, rng):
    x, weight, bias, _ = maxout_inputs(rng, Shape(rows, 301, 70, pieces), np.float32)
    layer = fa.Maxout(301, 70, pieces=pieces, precision=tier)
    layer.weight.data[...], layer.bias.data[...] = weight, bias
    frozen = fa.freeze(layer)
    y = frozen(x)
    z = np.einsum("ni,jki->njk", *double(x, weight)) + bias
    magnitude = np.einsum("ni,jki->njk", *(abs(a) for a in double(x, weight))) + abs(bias)
    allowed = bound(magnitude, 301, tier, compiled, weight).max(-1)
    assert_within(y, z.max(-1), allowed)
    assert_same_bits(pickle.loads(pickle.dumps(frozen))(x), y)


@pytest.mark.parametrize("shape", [Shape(260, 1300, 96, 3), Shape(300, 2100, 130, 2)], ids=str)
@pytest.mark.parametrize("special", [False, True])
def test_depth_blocking_when_panels_exceed_l2(compiled, tier, shape, special, rng):
    """All the rows pass one part of the depth before the next."""
    x, weight, bias, _ = maxout_inputs(rng, shape, np.float32)
    if special:
        x[70, 1000], weight[1, 0, shape.in_features - 1] = np.inf, np.nan
    layer = fa.Maxout(shape.in_features, shape.out_features, pieces=shape.pieces, precision=tier)
    layer.weight.data[...], layer.bias.data[...] = weight, bias
    frozen = fa.freeze(layer)
    results = []
    for threads in (1, 2):
        with settings.num_threads(threads), np.errstate(all="ignore"):
            results.append((*fa.linear_maxout(x, weight, bias, precision=tier), frozen(x)))
    assert_same_bits(results[0], results[1])
    with np.errstate(invalid="ignore"):
        z = np.einsum("ni,jki->njk", *double(x, weight), optimize=True) + bias
        magnitude = np.einsum("ni,jki->njk", *(abs(a) for a in double(x, weight)), optimize=True) + abs(bias)
        allowed = bound(magnitude, shape.in_features, tier, compiled, np.nan_to_num(weight))
    y, argmax, frozen_y = results[0]
    finite = np.isfinite(z).all(-1)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(z.max(-1)))
    np.testing.assert_array_equal(np.isnan(frozen_y), np.isnan(y))
    assert_within(y[finite], at(z, argmax)[finite], at(allowed, argmax)[finite])
    assert_within(frozen_y[finite], z.max(-1)[finite], allowed.max(-1)[finite])


@pytest.mark.parametrize("value", SPECIAL, ids=str)
@pytest.mark.parametrize("place", ["x", "weight"])
def test_frozen_special_values_at_each_tier_equal_float32(compiled, tier, value, place, rng):
    x, weight, bias, _ = maxout_inputs(rng, Shape(100, 40, 20, 2), np.float32)
    weight[weight > 2] = 1e-40
    (x if place == "x" else weight)[3, ..., 5] = value
    layer = fa.Maxout(40, 20, pieces=2, precision=tier)
    layer.weight.data[...], layer.bias.data[...] = weight, bias
    frozen = fa.freeze(layer)
    del layer
    with np.errstate(all="ignore"):
        y = frozen(x)
        expected = (np.einsum("ni,jki->njk", *double(x, weight)) + bias).max(-1).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(y[infinite], expected[infinite])


# ---- where it is set


def test_tier_set_in_any_way_gives_the_same_bits(compiled, tier, rng):
    x, weight, bias, _ = maxout_inputs(rng, Shape(520, 40, 20, 2), np.float32)
    expected = fa.linear_maxout(x, weight, bias, precision=tier)
    with fa.float32_matmul_precision(tier):
        assert_same_bits(fa.linear_maxout(x, weight, bias), expected)
    fa.set_float32_matmul_precision(tier)
    try:
        assert_same_bits(fa.linear_maxout(x, weight, bias), expected)
    finally:
        fa.set_float32_matmul_precision("highest")
    layer = fa.Maxout(40, 20, pieces=2, precision=tier)
    layer.weight.data[...], layer.bias.data[...] = weight, bias
    assert_same_bits(layer(x), expected[0])


def test_tier_uses_its_unit_where_the_cpu_has_one(compiled, rng):
    """Its results differ from float32's; without one they are the same."""
    x, weight, bias, _ = maxout_inputs(rng, Shape(520, 40, 20, 2), np.float32)
    units = fa.get_config()["tier_units"] if compiled == "c" else dict.fromkeys(TIERS, "float32")
    highest, _ = fa.linear_maxout(x, weight, bias, precision="highest")
    for tier in ("high", "medium"):
        y, _ = fa.linear_maxout(x, weight, bias, precision=tier)
        assert (y != highest).any() == (units[tier] != "float32")


def test_backward_of_many_rows_and_few_pieces_uses_the_tiers_unit(compiled, rng):
    x, weight, _, grad_y = maxout_inputs(rng, Shape(600, 40, 20, 2), np.float32)
    argmax = rng.integers(0, 2, grad_y.shape, dtype=np.uint8)
    units = fa.get_config()["tier_units"] if compiled == "c" else dict.fromkeys(TIERS, "float32")
    highest = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision="highest")
    for tier in ("high", "medium"):
        grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, precision=tier)
        for got, wanted in zip(grads[:2], highest, strict=False):
            # NEON gathers in float32 at every tier
            assert (got != wanted).any() == (units[tier] not in ("float32", "NEON-BF16"))


def test_float64_ignores_tiers(compiled, tier, rng):
    inputs = maxout_inputs(rng, Shape(100, 40, 20, 2), np.float64)[:3]
    assert_same_bits(fa.linear_maxout(*inputs, precision=tier), fa.linear_maxout(*inputs))


@needs_c
def test_config_names_each_tiers_unit_and_why_amx_is_missing(capsys):
    from fastact.backends import c

    config = fa.get_config()
    assert tuple(config["tier_units"]) == TIERS
    assert (config["amx_missing"] is None) == ("amx" in c.supported_isas())
    fa.show_config()
    printed = capsys.readouterr().out
    lines = [line.split(maxsplit=1) for line in printed.splitlines()]
    for tier, unit in config["tier_units"].items():
        assert [f'"{tier}"', f"runs on {unit}"] in lines
    if config["amx_missing"]:
        assert ["AMX", f"not used: {config['amx_missing']}"] in lines


@needs_c
def test_digits_reach_the_same_accuracy_at_each_tier():
    pytest.importorskip("sklearn")
    from fastact.cli import demo

    accuracies = []
    for precision in TIERS:
        with fa.float32_matmul_precision(precision):
            trainers = demo.train(("c",), 10, 0)
        accuracies.append(trainers["c"].test_accuracy())
    assert max(accuracies) - min(accuracies) <= 0.01
    assert min(accuracies) > 0.9
