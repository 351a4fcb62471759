"""linear_activation and its backward: every backend, instruction set and activation against float64."""

import numpy as np
import pytest
from conftest import (
    CASES,
    EXACT_CASES,
    INPUT_LAYOUTS,
    KINKS,
    OUT_LAYOUTS,
    SAVES_Y,
    SHAPES,
    Case,
    Shape,
    as_tuple,
    double,
    integers,
    linear_inputs,
    normal,
    reference,
)
from tolerance import activation_bound, assert_within, derivative_bound, sum_bound

import fastact as fa

SMALL = Shape(7, 5, 33, 1)
STEEPEST = 1.8  # no |dy/dz| is above it: selu's, 1.7581, is the largest
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def assert_forward(x, weight, bias, y, saved, case, keywords, backend):
    """y is within its own bound and what the bound of z allows; saved is y, or z within its bound."""
    x64, weight64 = double(x, weight)
    bias64 = 0 if bias is None else bias.astype(np.float64)
    z = x64 @ weight64.T + bias64
    z_bound = sum_bound(abs(x64) @ abs(weight64).T + abs(bias64), x.shape[-1], x.dtype, backend)
    expected, _ = reference("linear_activation", x, weight, bias, case.name, **keywords)
    bound = STEEPEST * z_bound + activation_bound(z, expected, STEEPEST, x.dtype)
    assert_within(y, expected, bound)
    if case.name in SAVES_Y:
        assert saved is y
    else:
        assert_within(saved, z, z_bound)


def assert_backward(grad_y, x, weight, saved, grads, case, keywords, backend):
    """The gradients against float64 ones from the same saved array."""
    grad_y64, x64, weight64, saved64 = double(grad_y, x, weight, saved)
    grad_z, *grad_slope = as_tuple(
        reference("activation_backward", grad_y, saved, activation=case.name, **keywords)
    )
    off = derivative_bound(grad_y64, x.dtype)
    rows, out_features = grad_y.shape
    products = [(grad_z, off, weight64, out_features), (grad_z.T, off.T, x64, rows)]
    products.append((grad_z.T, off.T, np.ones((rows, 1)), rows))
    for grad, (a, a_off, b, terms) in zip(grads, products, strict=False):
        bound = sum_bound((abs(a) + a_off) @ abs(b), terms, grad.dtype, backend) + a_off @ abs(b)
        assert_within(grad.reshape(bound.shape), a @ b, bound)
    if case.name == "prelu":
        below = np.where(saved64 > 0, 0, abs(grad_y64 * saved64))
        magnitude = below.sum(0) if case.slopes == "per-feature" else below.sum()
        assert_within(grads[3], grad_slope[0], sum_bound(magnitude, below.size, grads[3].dtype, backend))


# ---- shapes and activations


@pytest.mark.parametrize("shape", dict.fromkeys(shape._replace(pieces=1) for shape in SHAPES), ids=str)
def test_shapes(backend, dtype, threads, shape, rng):
    x, weight, bias, grad_y = linear_inputs(rng, shape, dtype)
    case = Case("leaky_relu", {})
    y, saved = fa.linear_activation(x, weight, bias, case.name)
    assert y.dtype == saved.dtype == dtype
    assert y.shape == saved.shape == (shape.rows, shape.out_features)
    assert_forward(x, weight, bias, y, saved, case, {}, backend)
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, case.name)
    assert [g.dtype for g in grads] == [dtype] * 3
    assert [g.shape for g in grads] == [x.shape, weight.shape, bias.shape]
    assert_backward(grad_y, x, weight, saved, grads, case, {}, backend)


@every_case
@pytest.mark.parametrize("shape", [Shape(0, 3, 2, 1), Shape(1, 8, 300, 1), Shape(67, 31, 97, 1)], ids=str)
def test_activations(backend, dtype, threads, case, shape, rng):
    x, weight, bias, grad_y = linear_inputs(rng, shape, dtype)
    keywords = case.keywords(shape.out_features, dtype)
    y, saved = fa.linear_activation(x, weight, bias, case.name, **keywords)
    assert_forward(x, weight, bias, y, saved, case, keywords, backend)
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, case.name, **keywords)
    assert len(grads) == (4 if case.name == "prelu" else 3)
    assert_backward(grad_y, x, weight, saved, grads, case, keywords, backend)


def assert_as_reference(x, weight, bias, grad_y, activation, **keywords):
    """Forward and backward of numbers whose sums do not round."""
    y, saved = fa.linear_activation(x, weight, bias, activation, **keywords)
    forward = reference("linear_activation", x, weight, bias, activation, **keywords)
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, activation, **keywords)
    backward = reference("linear_activation_backward", grad_y, x, weight, saved, activation, **keywords)
    for result, expected in zip((y, saved, *grads), (*forward, *backward), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("case", EXACT_CASES, ids=str)
@pytest.mark.parametrize(
    "shape", [Shape(9, 7, 5, 1), Shape(100, 257, 33, 1), Shape(257, 16, 300, 1)], ids=str
)
def test_whole_numbers_are_exact(compiled, dtype, threads, case, shape, rng):
    inputs = linear_inputs(rng, shape, dtype, integers)
    assert_as_reference(*inputs, case.name, **case.keywords(shape.out_features, dtype))


@pytest.mark.parametrize("in_features", [1, 15, 33, 80, 163, 320])
@pytest.mark.parametrize("out_features", [1, 9, 300])
def test_gradients_of_few_rows_are_exact(compiled, dtype, threads, in_features, out_features, rng):
    for rows in (*range(1, 14), 31, 32, 33):
        x, weight, bias, grad_y = linear_inputs(
            rng, Shape(rows, in_features, out_features, 1), dtype, integers
        )
        out = x.copy(), weight.copy(), bias.copy()
        fa.linear_activation_backward(grad_y, x, weight, grad_y, "linear", out=out, accumulate=True)
        expected = grad_y @ weight, weight + grad_y.T @ x, bias + grad_y.sum(0)
        for result, wanted in zip(out, expected, strict=True):
            np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3), (2, 0, 3), (2, 1, 3, 1)], ids=str)
def test_any_leading_shape(backend, dtype, lead, rng):
    _, weight, bias, _ = linear_inputs(rng, SMALL, dtype, integers)
    x, grad_y = integers(rng, (*lead, 5), dtype), integers(rng, (*lead, 33), dtype)
    y, saved = fa.linear_activation(x, weight, bias, "relu")
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, "relu")
    assert y.shape == (*lead, 33)
    assert grads[0].shape == x.shape
    flat_x, flat_grad_y = x.reshape(-1, 5), grad_y.reshape(-1, 33)
    flat_y, _ = reference("linear_activation", flat_x, weight, bias, "relu")
    expected = reference("linear_activation_backward", flat_grad_y, flat_x, weight, flat_y, "relu")
    np.testing.assert_array_equal(y.reshape(-1, 33), flat_y)
    np.testing.assert_array_equal(grads[0].reshape(-1, 5), expected[0])
    np.testing.assert_array_equal(grads[1], expected[1])
    np.testing.assert_array_equal(grads[2], expected[2])


def test_without_bias(backend, dtype, rng):
    x, weight, _, _ = linear_inputs(rng, SMALL, dtype)
    y, saved = fa.linear_activation(x, weight)
    assert_forward(x, weight, None, y, saved, Case("relu", {}), {}, backend)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_without_saved(backend, dtype, activation, rng):
    x, weight, bias, _ = linear_inputs(rng, SMALL, dtype)
    y, saved = fa.linear_activation(x, weight, bias, activation, return_saved=False)
    assert saved is None
    np.testing.assert_array_equal(y, fa.linear_activation(x, weight, bias, activation)[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", ["x", "weight", "bias"])
@pytest.mark.parametrize("case", EXACT_CASES, ids=str)
def test_nan_and_infinity_come_out_as_in_float64(compiled, dtype, value, place, case, rng):
    inputs = linear_inputs(rng, Shape(19, 11, 37, 1), dtype, integers)
    target = inputs[("x", "weight", "bias").index(place)]
    target[rng.random(target.shape) < 0.1] = value
    assert_as_reference(*inputs, case.name, **case.keywords(37, dtype))


# ---- needs, out, accumulate


@pytest.mark.parametrize("needs", list(np.ndindex(2, 2, 2, 2)), ids=str)
def test_needs(backend, dtype, needs, rng):
    x, weight, bias, grad_y = linear_inputs(rng, SMALL, dtype)
    needs, slope = tuple(bool(need) for need in needs), np.full(33, 0.25, dtype)
    _, saved = fa.linear_activation(x, weight, bias, "prelu", slope=slope)
    every = fa.linear_activation_backward(grad_y, x, weight, saved, "prelu", slope=slope)
    some = fa.linear_activation_backward(grad_y, x, weight, saved, "prelu", slope=slope, needs=needs)
    for need, expected, grad in zip(needs, every, some, strict=True):
        if need:
            np.testing.assert_array_equal(grad, expected)
        else:
            assert grad is None


@OUT_LAYOUTS
def test_out(backend, dtype, layout, rng):
    x, weight, bias, grad_y = linear_inputs(rng, SMALL, dtype)
    out = layout((7, 33), dtype), layout((7, 33), dtype)
    y, saved = fa.linear_activation(x, weight, bias, "silu", out=out)
    assert y is out[0]
    assert saved is out[1]
    for given, new in zip(out, fa.linear_activation(x, weight, bias, "silu"), strict=True):
        np.testing.assert_array_equal(given, new)

    out = layout(x.shape, dtype), layout(weight.shape, dtype), layout(bias.shape, dtype)
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, "silu", out=out)
    assert all(grad is given for grad, given in zip(grads, out, strict=True))
    for given, new in zip(out, fa.linear_activation_backward(grad_y, x, weight, saved, "silu"), strict=True):
        np.testing.assert_array_equal(given, new)


def test_saved_is_y_where_y_is_enough(backend, dtype, rng):
    x, weight, bias, _ = linear_inputs(rng, SMALL, dtype)
    given = np.empty((7, 33), dtype)
    for out in ((given, None), (given, given)):
        y, saved = fa.linear_activation(x, weight, bias, "relu", out=out)
        assert y is given
        assert saved is given


@OUT_LAYOUTS
def test_accumulate_adds_the_finished_sum(backend, dtype, threads, layout, rng):
    x, weight, _, grad_y = linear_inputs(rng, Shape(300, 5, 33, 1), dtype)
    slope, saved = np.full(33, 0.25, dtype), normal(rng, (300, 33), dtype)
    sums = fa.linear_activation_backward(grad_y, x, weight, saved, "prelu", slope=slope)
    out = tuple(layout(array.shape, dtype) for array in sums)
    fa.linear_activation_backward(grad_y, x, weight, saved, "prelu", slope=slope, out=out, accumulate=True)
    np.testing.assert_array_equal(out[0], sums[0])
    for given, total in zip(out[1:], sums[1:], strict=True):
        np.testing.assert_array_equal(given, total + dtype.type(99))


# ---- layouts of the inputs


@INPUT_LAYOUTS
def test_any_layout_of_the_inputs(backend, dtype, layout, rng):
    x, weight, bias, grad_y = linear_inputs(rng, SMALL, dtype)
    expected = fa.linear_activation(x, weight, bias, "silu")
    results = fa.linear_activation(layout(x), layout(weight), layout(bias), "silu")
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)
    saved = expected[1]
    expected = fa.linear_activation_backward(grad_y, x, weight, saved, "silu")
    results = fa.linear_activation_backward(layout(grad_y), layout(x), layout(weight), layout(saved), "silu")
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


# ---- gradients


@every_case
def test_gradients_by_finite_differences(backend, case, rng):
    # Truncation leaves step^2 / 6 times the loss's third derivative, under 10 |grad_y| |x|^3 summed;
    # rounding leaves gamma |loss| / step.  Both are far below the tolerance; no z is within a step of a kink.
    inputs = x, weight, bias, grad_y = linear_inputs(rng, Shape(4, 3, 6, 1), np.float64)
    keywords = case.keywords(6, np.float64)
    step = 1e-5
    to_kinks = abs((x @ weight.T + bias)[..., np.newaxis] - KINKS)
    assert to_kinks.min() > step * (1 + max(abs(x).max(), abs(weight).max()))
    y, saved = fa.linear_activation(x, weight, bias, case.name, **keywords)
    cubes = abs(grad_y).sum() * (1 + max(abs(x).max(), abs(weight).max())) ** 3
    tolerance = 10 / 6 * step**2 * cubes + 1e-14 * (abs(y * grad_y).sum() + 1) / step
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, case.name, **keywords)
    for array, grad in zip((*inputs[:3], keywords.get("slope")), (*grads, None)[:4], strict=True):
        if grad is None:
            continue
        for index in np.ndindex(array.shape):
            value, losses = array[index], []
            for moved in (value + step, value - step):
                array[index] = moved
                y, _ = fa.linear_activation(x, weight, bias, case.name, **keywords)
                losses.append(float((y * grad_y).sum()))
            array[index] = value
            assert abs((losses[0] - losses[1]) / (2 * step) - grad[index]) <= tolerance
