"""linear_activation and its backward: every backend, instruction set and activation against float64."""

import itertools

import numpy as np
import pytest
from support.cases import CASES, EXACT_CASES, KINKS, Case
from support.inputs import integers, linear_inputs, normal, reference
from support.layouts import INPUT_LAYOUTS, OUT_LAYOUTS
from support.linear_activation import assert_as_reference, assert_backward, assert_forward
from support.shapes import SHAPES, Shape
from support.tolerance import assert_same_bits

import fastact as fa

SMALL = Shape(7, 5, 33, 1)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


# ---- shapes and activations


LINEAR_SHAPES = [*dict.fromkeys(shape._replace(pieces=1) for shape in SHAPES)]


def assert_right(inputs, case, backend):
    """Forward and backward are within their bounds, and have the shapes and dtypes of their operands."""
    x, weight, bias, grad_y = inputs
    keywords = case.keywords(len(weight), x.dtype)
    y, saved = fa.linear_activation(x, weight, bias, case.name, backend=backend, **keywords)
    assert y.dtype == saved.dtype == x.dtype
    assert y.shape == saved.shape == grad_y.shape
    assert_forward(x, weight, bias, y, saved, case, keywords, backend)
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, case.name, backend=backend, **keywords)
    shapes = [x.shape, weight.shape, bias.shape]
    if case.name == "prelu":
        shapes.append(keywords["slope"].shape)
    assert [g.shape for g in grads] == shapes
    assert {g.dtype for g in grads} == {x.dtype}
    assert_backward(grad_y, x, weight, saved, grads, case, keywords, backend)


@pytest.mark.parametrize("shape", LINEAR_SHAPES, ids=str)
def test_linear_activation_of_every_shape_is_within_the_error_bound(compiled, dtype, threads, shape, rng):
    assert_right(linear_inputs(rng, shape, dtype), Case("leaky_relu", {}), compiled)


def test_reference_of_every_shape_is_within_the_error_bound(dtype, rng):
    for shape in LINEAR_SHAPES:
        assert_right(linear_inputs(rng, shape, dtype), Case("leaky_relu", {}), "numpy")


@every_case
def test_linear_activation_of_every_case_is_within_the_error_bound(backend, dtype, case, rng):
    for shape in (Shape(0, 3, 2, 1), Shape(1, 8, 300, 1), Shape(67, 31, 97, 1)):
        assert_right(linear_inputs(rng, shape, dtype), case, backend)


@pytest.mark.parametrize("case", EXACT_CASES, ids=str)
@pytest.mark.parametrize(
    "shape", [Shape(9, 7, 5, 1), Shape(100, 257, 33, 1), Shape(257, 16, 300, 1)], ids=str
)
def test_linear_activation_of_whole_numbers_is_exact(compiled, dtype, threads, case, shape, rng):
    inputs = linear_inputs(rng, shape, dtype, integers)
    assert_as_reference(*inputs, case.name, **case.keywords(shape.out_features, dtype))


@pytest.mark.parametrize("in_features", [1, 15, 33, 80, 163, 320])
@pytest.mark.parametrize("out_features", [1, 9, 300])
def test_gradients_of_few_rows_are_exact(compiled, dtype, in_features, out_features, rng):
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
def test_linear_activation_keeps_any_leading_shape(backend, dtype, lead, rng):
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


def test_linear_activation_without_bias_is_within_the_error_bound(backend, dtype, rng):
    x, weight, _, _ = linear_inputs(rng, SMALL, dtype)
    y, saved = fa.linear_activation(x, weight)
    assert_forward(x, weight, None, y, saved, Case("relu", {}), {}, backend)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_linear_activation_without_saved_has_the_same_y(backend, dtype, activation, rng):
    x, weight, bias, _ = linear_inputs(rng, SMALL, dtype)
    y, saved = fa.linear_activation(x, weight, bias, activation, return_saved=False)
    assert saved is None
    np.testing.assert_array_equal(y, fa.linear_activation(x, weight, bias, activation)[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", ["x", "weight", "bias"])
@pytest.mark.parametrize("case", EXACT_CASES, ids=str)
def test_linear_activation_of_nan_and_infinity_equals_float64(compiled, dtype, value, place, case, rng):
    inputs = linear_inputs(rng, Shape(19, 11, 37, 1), dtype, integers)
    target = inputs[("x", "weight", "bias").index(place)]
    target[rng.random(target.shape) < 0.1] = value
    assert_as_reference(*inputs, case.name, **case.keywords(37, dtype))


# ---- needs, out, accumulate


def test_linear_activation_backward_computes_only_what_is_needed(backend, dtype, rng):
    x, weight, bias, grad_y = linear_inputs(rng, SMALL, dtype)
    slope = np.full(33, 0.25, dtype)
    _, saved = fa.linear_activation(x, weight, bias, "prelu", slope=slope)
    every = fa.linear_activation_backward(grad_y, x, weight, saved, "prelu", slope=slope)
    for needs in itertools.product((False, True), repeat=4):
        some = fa.linear_activation_backward(grad_y, x, weight, saved, "prelu", slope=slope, needs=needs)
        expected = tuple(grad if need else None for need, grad in zip(needs, every, strict=True))
        assert_same_bits(some, expected)


@OUT_LAYOUTS
def test_linear_activation_out_of_any_layout_receives_the_result(backend, dtype, layout, rng):
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
def test_linear_activation_accumulate_adds_the_finished_sum(backend, dtype, layout, rng):
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
def test_linear_activation_of_any_input_layout_has_the_same_bits(backend, dtype, layout, rng):
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
def test_linear_activation_gradients_equal_finite_differences(backend, case, rng):
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
