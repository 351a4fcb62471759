"""A maxout whose first piece is slope · z is the leaky ReLU; slope 0 is ReLU, -1 the absolute value."""

from __future__ import annotations

import numpy as np
import pytest
from support.inputs import integers, linear_inputs, normal
from support.shapes import Shape
from support.tolerance import assert_within, sum_bound

import fastact as fa
from fastact.study.relu_is_maxout import as_maxout

SHAPES = [Shape(1, 7, 5, 2), Shape(33, 64, 65, 2), Shape(100, 513, 40, 2)]
POWERS_OF_TWO = [0.0, 0.25, -1.0]  # times these, whole numbers are exact


def fused(x, weight, bias, slope):
    if slope == 0:
        return fa.linear_activation(x, weight, bias, "relu")
    return fa.linear_activation(x, weight, bias, "leaky_relu", negative_slope=slope)


def fused_backward(grad_y, x, weight, saved, slope):
    if slope == 0:
        return fa.linear_activation_backward(grad_y, x, weight, saved, "relu")
    return fa.linear_activation_backward(grad_y, x, weight, saved, "leaky_relu", negative_slope=slope)


def magnitude(x, weight, bias):
    return np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64) + np.abs(bias)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("slope", [*POWERS_OF_TWO, 0.01])
def test_maxout_with_a_fixed_piece_equals_leaky_relu(backend, dtype, rng, shape, slope):
    x, weight, bias, _ = linear_inputs(rng, shape, dtype)
    expected, _ = fused(x, weight, bias, slope)
    y, _ = fa.linear_maxout(x, *as_maxout(weight, bias, slope))
    # each is within the bound of the exact value; a slope adds a rounding to either
    bound = 2 * sum_bound(magnitude(x, weight, bias), shape.in_features + 2, dtype, backend)
    assert_within(y, expected.astype(np.float64), bound)


@pytest.mark.parametrize("slope", POWERS_OF_TWO)
def test_gradients_of_whole_numbers_with_ties_at_zero_are_the_same(backend, dtype, rng, slope):
    x, weight, bias, grad_y = linear_inputs(rng, Shape(50, 9, 12, 2), dtype, integers)
    y, saved = fused(x, weight, bias, slope)
    assert (y == 0).sum() > 10
    grad_x, grad_weight, grad_bias = fused_backward(grad_y, x, weight, saved, slope)
    weights, biases = as_maxout(weight, bias, slope)
    maxout_y, argmax = fa.linear_maxout(x, weights, biases)
    np.testing.assert_array_equal(maxout_y, y)
    got_x, got_weight, got_bias = fa.linear_maxout_backward(grad_y, x, weights, argmax)
    np.testing.assert_array_equal(got_x, grad_x)
    # the linear layer's weight moves both pieces: slope times the first's gradient, and the second's
    np.testing.assert_array_equal(slope * got_weight[:, 0] + got_weight[:, 1], grad_weight)
    np.testing.assert_array_equal(slope * got_bias[:, 0] + got_bias[:, 1], grad_bias)


def test_gradients_are_the_same_within_rounding(backend, dtype, rng):
    shape = Shape(100, 64, 32, 2)
    x, weight, bias, grad_y = linear_inputs(rng, shape, dtype, normal)
    _, saved = fused(x, weight, bias, 0.0)
    expected = fused_backward(grad_y, x, weight, saved, 0.0)
    weights, biases = as_maxout(weight, bias)
    _, argmax = fa.linear_maxout(x, weights, biases)
    # where |z| is below its rounding, the two may take different sides: none here, so winners agree
    np.testing.assert_array_equal(argmax == 1, saved > 0)
    got_x, got_weight, got_bias = fa.linear_maxout_backward(grad_y, x, weights, argmax)
    size_x = np.abs(grad_y).astype(np.float64) @ np.abs(weight)
    size_weight = np.abs(grad_y).T.astype(np.float64) @ np.abs(x)
    size_bias = np.abs(grad_y).sum(axis=0, dtype=np.float64)
    for got, wanted, size, terms in (
        (got_x, expected[0], size_x, shape.out_features),
        (got_weight[:, 1], expected[1], size_weight, shape.rows),
        (got_bias[:, 1], expected[2], size_bias, shape.rows),
    ):
        assert_within(got, wanted.astype(np.float64), 2 * sum_bound(size, terms, dtype, backend))


def test_as_maxout_rejects_slope_above_one():
    with pytest.raises(ValueError, match=r"negative_slope: got 1\.5, wanted 1 or less"):
        as_maxout(np.ones((2, 3)), np.ones(2), 1.5)
