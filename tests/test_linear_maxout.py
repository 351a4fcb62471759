"""linear_maxout and its backward: every backend and instruction set against float64."""

import itertools

import numpy as np
import pytest
from support.inputs import integers, maxout_inputs, normal, reference
from support.layouts import INPUT_LAYOUTS, OUT_LAYOUTS
from support.linear_maxout import assert_as_reference, assert_backward, assert_forward
from support.shapes import SHAPES, Shape
from support.tolerance import assert_same_bits, assert_within, sum_bound

import fastact as fa

SMALL = Shape(7, 5, 33, 3)

# The gather packs tables of 64 rows or units, 8 tables at a time: 9 tables, 17 and more; more than 512 units,
# which are several tasks for grad_weight; more than 1024 rows, which are several for grad_x.
MANY_TABLES = [Shape(520, 150, 75, 8), Shape(1100, 150, 150, 8), Shape(1100, 40, 9, 64)]
# At most as many rows as pieces, and whole vectors on every instruction set: the weights are gathered without
# packing, 32 outputs at a time.
NOT_PACKED = [Shape(1, 16, 3, 1), Shape(3, 192, 300, 3), Shape(2, 64, 2100, 4), Shape(1, 32, 4400, 5)]


# ---- shapes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_maxout_is_within_the_error_bound(compiled, dtype, threads, shape, rng):
    x, weight, bias, _ = maxout_inputs(rng, shape, dtype)
    y, argmax = fa.linear_maxout(x, weight, bias)
    assert y.dtype == dtype
    assert argmax.dtype == np.uint8
    assert y.shape == argmax.shape == (shape.rows, shape.out_features)
    assert_forward(x, weight, bias, y, argmax, compiled)


@pytest.mark.parametrize("shape", [*SHAPES, *MANY_TABLES, *NOT_PACKED], ids=str)
def test_linear_maxout_backward_is_within_the_error_bound(compiled, dtype, threads, shape, rng):
    x, weight, _, grad_y = maxout_inputs(rng, shape, dtype)
    argmax = rng.integers(0, shape.pieces, grad_y.shape, dtype=np.uint8, endpoint=False)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    assert [g.dtype for g in grads] == [dtype] * 3
    assert [g.shape for g in grads] == [x.shape, weight.shape, weight.shape[:2]]
    assert_backward(grad_y, x, weight, argmax, grads, compiled)


def test_reference_of_every_shape_is_within_the_error_bound(dtype, rng):
    for shape in SHAPES:
        x, weight, bias, grad_y = maxout_inputs(rng, shape, dtype)
        y, argmax = fa.linear_maxout(x, weight, bias, backend="numpy")
        assert_forward(x, weight, bias, y, argmax, "numpy")
        grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, backend="numpy")
        assert_backward(grad_y, x, weight, argmax, grads, "numpy")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_maxout_of_whole_numbers_is_exact(compiled, dtype, threads, shape, rng):
    # No sum rounds, so every backend, instruction set and thread count has to agree, ties included.
    assert_as_reference(*maxout_inputs(rng, shape, dtype, integers))


@pytest.mark.parametrize("in_features", [16, 17])
def test_argmax_of_a_few_bytes_is_read_alone(backend, dtype, in_features, rng):
    # 8 bytes are read at once where there are 8; the bytes beyond the array name no piece.
    for rows, out_features in ((1, 1), (1, 5), (2, 3), (7, 1), (1, 7), (2, 4), (3, 3)):
        x, weight, _, grad_y = maxout_inputs(rng, Shape(rows, in_features, out_features, 3), dtype, integers)
        buffer = np.full(rows * out_features + 8, 255, np.uint8)
        argmax = buffer[: rows * out_features].reshape(rows, out_features)
        argmax[...] = rng.integers(0, 3, argmax.shape)
        grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
        for grad, expected in zip(
            grads, reference("linear_maxout_backward", grad_y, x, weight, argmax), strict=True
        ):
            np.testing.assert_array_equal(grad, expected)


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3), (2, 0, 3), (2, 1, 3, 1)], ids=str)
def test_linear_maxout_keeps_any_leading_shape(backend, dtype, lead, rng):
    _, weight, bias, _ = maxout_inputs(rng, SMALL, dtype, integers)
    x = integers(rng, (*lead, 5), dtype)
    grad_y = integers(rng, (*lead, 33), dtype)
    y, argmax = fa.linear_maxout(x, weight, bias)
    grad_x, grad_weight, grad_bias = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    assert y.shape == argmax.shape == (*lead, 33)
    assert grad_x.shape == x.shape

    flat_x, flat_grad_y = x.reshape(-1, 5), grad_y.reshape(-1, 33)
    flat_y, flat_argmax = reference("linear_maxout", flat_x, weight, bias)
    expected = reference("linear_maxout_backward", flat_grad_y, flat_x, weight, flat_argmax)
    np.testing.assert_array_equal(y.reshape(-1, 33), flat_y)
    np.testing.assert_array_equal(grad_x.reshape(-1, 5), expected[0])
    np.testing.assert_array_equal(grad_weight, expected[1])
    np.testing.assert_array_equal(grad_bias, expected[2])


def test_linear_maxout_without_bias_is_within_the_error_bound(backend, dtype, rng):
    x, weight, _, _ = maxout_inputs(rng, SMALL, dtype)
    y, argmax = fa.linear_maxout(x, weight)
    assert_forward(x, weight, None, y, argmax, backend)


def test_linear_maxout_without_argmax_has_the_same_y(backend, dtype, rng):
    x, weight, bias, _ = maxout_inputs(rng, SMALL, dtype)
    y, argmax = fa.linear_maxout(x, weight, bias, return_argmax=False)
    assert argmax is None
    np.testing.assert_array_equal(y, fa.linear_maxout(x, weight, bias)[0])


def test_linear_maxout_without_features_is_the_bias(backend, dtype, rng):
    bias = integers(rng, (4, 3), dtype)
    y, argmax = fa.linear_maxout(np.empty((6, 0), dtype), np.empty((4, 3, 0), dtype), bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias.max(1), (6, 4)))
    np.testing.assert_array_equal(argmax, np.broadcast_to(bias.argmax(1), (6, 4)))


def test_empty_batch_has_zero_parameter_gradients(backend, dtype):
    x, weight = np.empty((0, 5), dtype), np.ones((4, 3, 5), dtype)
    grads = fa.linear_maxout_backward(np.empty((0, 4), dtype), x, weight, np.empty((0, 4), np.uint8))
    assert grads[0].shape == (0, 5)
    assert not grads[1].any()
    assert not grads[2].any()


def test_linear_maxout_of_many_empty_rows_returns_at_once(backend, dtype):
    x, weight = np.empty((2**45, 0), dtype), np.empty((0, 2, 0), dtype)
    y, argmax = fa.linear_maxout(x, weight)
    assert y.shape == argmax.shape == (2**45, 0)


# ---- ties, NaN, infinities, the ends of the range


@pytest.mark.parametrize("pieces", [2, 3, 4, 5, 9, 16, 17, 256])
@pytest.mark.parametrize(("rows", "in_features"), [(9, 6), (20, 40)])
def test_tie_goes_to_the_lowest_index(backend, dtype, rows, in_features, pieces, rng):
    x = integers(rng, (rows, in_features), dtype)
    weight = np.repeat(integers(rng, (20, 1, in_features), dtype), pieces, axis=1)
    _, argmax = fa.linear_maxout(x, weight)
    assert not argmax.any()


def test_each_piece_can_win(backend, dtype):
    for pieces in (2, 3, 4, 5, 9, 16, 17, 256):
        bias = np.zeros((pieces, pieces), dtype)
        np.fill_diagonal(bias, 1)
        y, argmax = fa.linear_maxout(np.zeros((3, 2), dtype), np.zeros((pieces, pieces, 2), dtype), bias)
        assert (y == 1).all()
        np.testing.assert_array_equal(argmax, np.broadcast_to(np.arange(pieces), (3, pieces)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", ["x", "weight", "bias"])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0], ids=["few", "half", "all"])
@pytest.mark.parametrize("pieces", [1, 3, 6, 17])
@pytest.mark.parametrize(("rows", "in_features"), [(19, 11), (20, 40)])
def test_linear_maxout_of_nan_and_infinity_equals_float64(
    compiled, dtype, value, place, share, rows, in_features, pieces, rng
):
    inputs = maxout_inputs(rng, Shape(rows, in_features, 37, pieces), dtype, integers)
    target = inputs[("x", "weight", "bias").index(place)]
    target[rng.random(target.shape) < share] = value
    assert_as_reference(*inputs)


def test_first_nan_wins(backend, dtype):
    bias = np.array([[1, np.nan, np.inf, np.nan], [np.inf, 2, 3, np.nan], [-np.inf] * 4], dtype)
    y, argmax = fa.linear_maxout(np.zeros((2, 3), dtype), np.zeros((3, 4, 3), dtype), bias)
    np.testing.assert_array_equal(y, [[np.nan, np.nan, -np.inf]] * 2)
    np.testing.assert_array_equal(argmax, [[1, 3, 0]] * 2)


def test_subnormal_inputs_are_not_flushed(backend, dtype, rng):
    # Whole multiples of the smallest number, so every sum is exact.
    x, weight, _, _ = maxout_inputs(rng, SMALL, dtype, integers)
    x *= np.finfo(dtype).smallest_subnormal
    y, argmax = fa.linear_maxout(x, weight)
    expected = np.einsum("ni,jki->njk", x, weight)
    np.testing.assert_array_equal(y, expected.max(-1))
    np.testing.assert_array_equal(argmax, expected.argmax(-1))


def test_linear_maxout_of_underflowing_products_is_within_the_error_bound(backend, dtype, rng):
    x, weight, _, _ = maxout_inputs(rng, SMALL, dtype)
    x *= np.finfo(dtype).tiny
    y, argmax = fa.linear_maxout(x, weight)
    assert_forward(x, weight, None, y, argmax, backend)


def test_linear_maxout_of_values_below_overflow_is_within_the_error_bound(backend, dtype, rng):
    x, weight, bias, _ = maxout_inputs(rng, SMALL, dtype)
    x *= np.sqrt(np.finfo(dtype).max) / 10
    weight *= np.sqrt(np.finfo(dtype).max) / 100
    y, argmax = fa.linear_maxout(x, weight, bias)
    assert_forward(x, weight, bias, y, argmax, backend)


def test_linear_maxout_that_overflows_is_infinite(backend, dtype):
    x = np.full((3, 20), np.finfo(dtype).max, dtype)
    weight = np.stack([np.full((9, 20), -2, dtype), np.full((9, 20), 2, dtype)], axis=1)
    y, argmax = fa.linear_maxout(x, weight)
    assert (y == np.inf).all()
    assert (argmax == 1).all()


# ---- what a loser may not do


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("shape", [Shape(9, 20, 35, 3), Shape(3, 64, 300, 3)], ids=["packed", "not-packed"])
def test_loser_of_nan_or_infinity_does_not_spoil_grad_x(backend, dtype, value, shape, rng):
    x, weight, _, grad_y = maxout_inputs(rng, shape, dtype, integers)
    argmax = rng.integers(0, 2, grad_y.shape, dtype=np.uint8)
    expected = reference("linear_maxout_backward", grad_y, x, weight, argmax)[0]
    weight[:, 2] = value
    np.testing.assert_array_equal(fa.linear_maxout_backward(grad_y, x, weight, argmax)[0], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_row_of_nan_or_infinity_does_not_spoil_the_pieces_that_lost_in_it(backend, dtype, value, rng):
    x, weight, _, grad_y = maxout_inputs(rng, Shape(9, 20, 35, 3), dtype, integers)
    argmax = rng.integers(0, 2, grad_y.shape, dtype=np.uint8)
    expected = reference("linear_maxout_backward", grad_y, x, weight, argmax)[1]
    x, grad_y = np.vstack([x, np.full((1, 20), value, dtype)]), np.vstack([grad_y, np.ones((1, 35), dtype)])
    argmax = np.vstack([argmax, np.full((1, 35), 2, np.uint8)])
    grad_weight = fa.linear_maxout_backward(grad_y, x, weight, argmax)[1]
    np.testing.assert_array_equal(grad_weight[:, :2], expected[:, :2])
    np.testing.assert_array_equal(grad_weight[:, 2], np.full((35, 20), value))


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_grad_y_of_nan_or_infinity_stays_in_its_row_and_piece(backend, dtype, value, rng):
    x, weight, _, grad_y = maxout_inputs(rng, Shape(9, 20, 35, 3), dtype, integers)
    argmax = rng.integers(0, 3, grad_y.shape, dtype=np.uint8)
    grad_y[4, 5] = value
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    for grad, expected in zip(
        grads, reference("linear_maxout_backward", grad_y, x, weight, argmax), strict=True
    ):
        np.testing.assert_array_equal(grad, expected)
    assert np.isfinite(np.delete(grads[0], 4, axis=0)).all()
    assert np.isfinite(np.delete(grads[1], 5, axis=0)).all()


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5, 8, 11, 16, 17, 256])
@pytest.mark.parametrize("out_features", [16, 86, 151])
def test_grad_bias_is_within_the_error_bound(backend, dtype, threads, out_features, pieces, rng):
    """More rows than a partial sum takes; whole vectors of columns and a remainder; an infinite gradient."""
    shape = Shape(260, 1, out_features, pieces)
    x, weight, _, grad_y = maxout_inputs(rng, shape, dtype)
    argmax = rng.integers(0, pieces, grad_y.shape).astype(np.uint8)
    grad_y[3, 5] = np.inf
    _, _, grad_bias = fa.linear_maxout_backward(grad_y, x, weight, argmax, needs=(False, False, True))
    won = argmax[..., None] == np.arange(pieces)
    terms = np.where(won, grad_y[..., None].astype(np.float64), 0)
    finite = np.isfinite(terms).all(axis=0)
    assert (~finite).sum() == 1
    assert (grad_bias[~finite] == np.inf).all()
    bound = sum_bound(abs(terms[:, finite]).sum(axis=0), 260, dtype, backend)
    assert_within(grad_bias[finite], terms[:, finite].sum(axis=0), bound)


def test_zero_gradient_times_an_infinite_winner_is_nan(backend, dtype):
    x, weight = np.ones((2, 3), dtype), np.full((4, 2, 3), np.inf, dtype)
    grad_x, grad_weight, _ = fa.linear_maxout_backward(
        np.zeros((2, 4), dtype), x, weight, np.zeros((2, 4), np.uint8)
    )
    assert np.isnan(grad_x).all()
    assert not grad_weight.any()


def test_piece_that_never_won_has_no_gradient(backend, dtype, rng):
    x, weight, _, grad_y = maxout_inputs(rng, Shape(50, 20, 35, 5), dtype)
    argmax = rng.choice(np.array([0, 3], np.uint8), grad_y.shape)
    _, grad_weight, grad_bias = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    assert not grad_weight[:, [1, 2, 4]].any()
    assert not grad_bias[:, [1, 2, 4]].any()


# ---- needs, out, accumulate


def test_linear_maxout_backward_computes_only_what_is_needed(backend, dtype, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, SMALL, dtype)
    _, argmax = fa.linear_maxout(x, weight, bias)
    every = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    for needs in itertools.product((False, True), repeat=3):
        some = fa.linear_maxout_backward(grad_y, x, weight, argmax, needs=needs)
        expected = tuple(grad if need else None for need, grad in zip(needs, every, strict=True))
        assert_same_bits(some, expected)


@OUT_LAYOUTS
def test_linear_maxout_out_of_any_layout_receives_the_result(backend, dtype, layout, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, SMALL, dtype)
    out = layout((7, 33), dtype), layout((7, 33), np.uint8)
    y, argmax = fa.linear_maxout(x, weight, bias, out=out)
    assert y is out[0]
    assert argmax is out[1]
    for given, new in zip(out, fa.linear_maxout(x, weight, bias), strict=True):
        np.testing.assert_array_equal(given, new)

    out = layout(x.shape, dtype), layout(weight.shape, dtype), layout(weight.shape[:2], dtype)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, out=out)
    assert all(grad is given for grad, given in zip(grads, out, strict=True))
    for given, new in zip(out, fa.linear_maxout_backward(grad_y, x, weight, argmax), strict=True):
        np.testing.assert_array_equal(given, new)


def test_linear_maxout_out_for_some_results_allocates_the_others(backend, dtype, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, SMALL, dtype)
    argmax_out = np.empty((7, 33), np.uint8)
    y, argmax = fa.linear_maxout(x, weight, bias, out=(None, argmax_out))
    assert argmax is argmax_out
    assert_forward(x, weight, bias, y, argmax, backend)
    grad_bias_out = np.empty((33, 3), dtype)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, out=(None, None, grad_bias_out))
    assert grads[2] is grad_bias_out
    assert_backward(grad_y, x, weight, argmax, grads, backend)


@OUT_LAYOUTS
def test_linear_maxout_accumulate_adds_the_finished_sum(backend, dtype, layout, rng):
    x, weight, _, grad_y = maxout_inputs(rng, Shape(300, 5, 33, 3), dtype)
    argmax = rng.integers(0, 3, grad_y.shape, dtype=np.uint8)
    sums = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    out = layout(x.shape, dtype), layout(weight.shape, dtype), layout(weight.shape[:2], dtype)
    fa.linear_maxout_backward(grad_y, x, weight, argmax, out=out, accumulate=True)
    np.testing.assert_array_equal(out[0], sums[0])
    np.testing.assert_array_equal(out[1], sums[1] + 99)
    np.testing.assert_array_equal(out[2], sums[2] + 99)


@pytest.mark.parametrize("shape", MANY_TABLES, ids=str)
def test_linear_maxout_accumulate_adds_the_sum_of_many_tables(compiled, dtype, threads, shape, rng):
    x, weight, _, grad_y = maxout_inputs(rng, shape, dtype, integers)
    argmax = rng.integers(0, shape.pieces, grad_y.shape, dtype=np.uint8)
    out = np.empty_like(x), integers(rng, weight.shape, dtype), integers(rng, weight.shape[:2], dtype)
    before = 0, out[1].copy(), out[2].copy()
    fa.linear_maxout_backward(grad_y, x, weight, argmax, out=out, accumulate=True)
    sums = reference("linear_maxout_backward", grad_y, x, weight, argmax)
    for grad, old, expected in zip(out, before, sums, strict=True):
        np.testing.assert_array_equal(grad, old + expected)


def test_accumulate_of_an_empty_batch_changes_nothing(backend, dtype):
    grad_weight, grad_bias = np.full((4, 2, 5), 7, dtype), np.full((4, 2), 7, dtype)
    fa.linear_maxout_backward(
        np.empty((0, 4), dtype),
        np.empty((0, 5), dtype),
        np.ones((4, 2, 5), dtype),
        np.empty((0, 4), np.uint8),
        out=(None, grad_weight, grad_bias),
        accumulate=True,
    )
    assert (grad_weight == 7).all()
    assert (grad_bias == 7).all()


# ---- layouts of the inputs


@INPUT_LAYOUTS
def test_linear_maxout_of_any_input_layout_has_the_same_bits(backend, dtype, layout, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, SMALL, dtype)
    expected = fa.linear_maxout(x, weight, bias)
    results = fa.linear_maxout(layout(x), layout(weight), layout(bias))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)
    argmax = expected[1]
    expected = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    results = fa.linear_maxout_backward(layout(grad_y), layout(x), layout(weight), layout(argmax))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_linear_maxout_of_broadcast_inputs_is_within_the_error_bound(backend, dtype, rng):
    _, weight, bias, _ = maxout_inputs(rng, SMALL, dtype)
    row = normal(rng, 5, dtype)
    y, argmax = fa.linear_maxout(np.broadcast_to(row, (7, 5)), weight, bias)
    assert_forward(np.tile(row, (7, 1)), weight, bias, y, argmax, backend)
    ones = np.broadcast_to(dtype.type(1), (7, 33))  # as the gradient of a sum has it
    grads = fa.linear_maxout_backward(ones, np.broadcast_to(row, (7, 5)), weight, argmax)
    assert_backward(np.ones((7, 33), dtype), np.tile(row, (7, 1)), weight, argmax, grads, backend)


def test_linear_maxout_leaves_its_inputs_unchanged(backend, dtype, rng):
    x, weight, bias, grad_y = inputs = maxout_inputs(rng, SMALL, dtype)
    copies = [a.copy() for a in inputs]
    _, argmax = fa.linear_maxout(x, weight, bias)
    fa.linear_maxout_backward(grad_y, x, weight, argmax)
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_weight_changed_in_place_is_seen_by_the_next_call(backend, dtype, rng):
    x, weight, bias, _ = maxout_inputs(rng, SMALL, dtype)
    fa.linear_maxout(x, weight, bias)
    weight *= -1
    y, argmax = fa.linear_maxout(x, weight, bias)
    assert_forward(x, weight, bias, y, argmax, backend)


# ---- gradients


def test_linear_maxout_gradients_equal_finite_differences(backend, rng):
    # y is linear in each input as long as no other piece wins, so the difference quotient has rounding
    # errors alone: those of the loss, gamma * |loss|, over the step.
    inputs = x, weight, bias, grad_y = maxout_inputs(rng, Shape(4, 5, 6, 3), np.float64)
    y, argmax = fa.linear_maxout(x, weight, bias)
    step = 1e-6
    tolerance = 1e-14 * float(abs(y * grad_y).sum()) / step
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    for array, grad in zip(inputs[:3], grads, strict=True):
        for index in np.ndindex(array.shape):
            value, losses = array[index], []
            for moved in (value + step, value - step):
                array[index] = moved
                y, which = fa.linear_maxout(x, weight, bias)
                np.testing.assert_array_equal(which, argmax)
                losses.append(float((y * grad_y).sum()))
            array[index] = value
            assert abs((losses[0] - losses[1]) / (2 * step) - grad[index]) <= tolerance
