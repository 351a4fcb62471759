"""The bare maxout over any axis, which rounds nothing: every result is exact."""

import numpy as np
import pytest
from support.inputs import normal
from support.layouts import INPUT_LAYOUTS, OUT_LAYOUTS

import fastact as fa

CASES = [
    pytest.param(shape, axis, id=f"{shape}-{axis}")
    for shape, axis in [
        ((3,), 0),
        ((256,), -1),
        ((7, 3), -1),
        ((3, 7), 0),
        ((33, 257, 4), -1),
        ((33, 5, 257), 1),
        ((17, 100, 3), 0),
        ((2, 3, 4, 5), -2),
        ((2, 3, 1, 5), 2),
        ((6, 255), 1),
        ((256, 31), 0),
        ((0, 3), -1),
        ((3, 0), 0),
        ((4, 0, 3), -1),
        ((300, 513, 2), -1),
        ((5000, 2, 3), 1),  # rows shorter than a vector
        ((700, 3, 2), 1),
        ((130, 256, 15), 1),
        ((41, 5, 7), 1),
    ]
]


@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_maxout_equals_numpys_maximum(backend, dtype, shape, axis, rng):
    z = normal(rng, shape, dtype)
    y, argmax = fa.maxout(z, axis)
    assert y.dtype == dtype
    assert argmax.dtype == np.uint8
    np.testing.assert_array_equal(y, z.max(axis))
    np.testing.assert_array_equal(argmax, z.argmax(axis))


@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_maxout_backward_puts_the_gradient_at_the_winner(backend, dtype, shape, axis, rng):
    y, argmax = fa.maxout(normal(rng, shape, dtype), axis)
    grad_y = normal(rng, y.shape, dtype)
    grad_z = fa.maxout_backward(grad_y, argmax, shape[axis], axis)
    expected = np.zeros(shape, dtype)
    np.put_along_axis(
        expected, np.expand_dims(argmax, axis).astype(np.intp), np.expand_dims(grad_y, axis), axis
    )
    assert grad_z.dtype == dtype
    np.testing.assert_array_equal(grad_z, expected)


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 8, 17, 256])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maxout_of_ties_and_nan_equals_numpys(backend, dtype, pieces, axis, rng):
    shape = [11, 35, 13]
    shape[axis] = pieces
    z = rng.choice(np.array([-np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan], dtype), shape)
    y, argmax = fa.maxout(z, axis)
    np.testing.assert_array_equal(y, z.max(axis))
    np.testing.assert_array_equal(argmax, z.argmax(axis))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_maxout_of_one_value_has_index_zero(backend, dtype, value):
    y, argmax = fa.maxout(np.full((40, 3), value, dtype))
    np.testing.assert_array_equal(y, np.full(40, value))
    assert not argmax.any()


def test_maxout_backward_passes_nan_and_infinity_on(backend, dtype):
    grad_y = np.array([np.nan, np.inf, -np.inf, 0], dtype)
    grad_z = fa.maxout_backward(grad_y, np.array([0, 1, 0, 1], np.uint8), 2)
    np.testing.assert_array_equal(grad_z, [[np.nan, 0], [0, np.inf], [-np.inf, 0], [0, 0]])


def test_maxout_without_argmax_has_the_same_y(backend, dtype, rng):
    z = normal(rng, (9, 35, 3), dtype)
    y, argmax = fa.maxout(z, return_argmax=False)
    assert argmax is None
    np.testing.assert_array_equal(y, z.max(-1))


@OUT_LAYOUTS
def test_maxout_out_of_any_layout_receives_the_result(backend, dtype, layout, rng):
    z = normal(rng, (9, 3, 35), dtype)
    out = layout((9, 35), dtype), layout((9, 35), np.uint8)
    y, argmax = fa.maxout(z, 1, out=out)
    assert y is out[0]
    assert argmax is out[1]
    np.testing.assert_array_equal(y, z.max(1))
    np.testing.assert_array_equal(argmax, z.argmax(1))

    expected = fa.maxout_backward(y, argmax, 3, 1)
    for form in (lambda array: array, lambda array: (array,)):
        grad_z = layout((9, 3, 35), dtype)
        assert fa.maxout_backward(y, argmax, 3, 1, out=form(grad_z)) is grad_z
        np.testing.assert_array_equal(grad_z, expected)


@INPUT_LAYOUTS
def test_maxout_of_any_input_layout_has_the_same_result(backend, dtype, layout, rng):
    z = normal(rng, (9, 3, 35), dtype)
    y, argmax = fa.maxout(layout(z), 1)
    np.testing.assert_array_equal(y, z.max(1))
    np.testing.assert_array_equal(argmax, z.argmax(1))
    np.testing.assert_array_equal(
        fa.maxout_backward(layout(y), layout(argmax), 3, 1), fa.maxout_backward(y, argmax, 3, 1)
    )


def test_maxout_takes_numpy_integers_for_axis_and_pieces(backend, dtype, rng):
    z = normal(rng, (4, 3, 5), dtype)
    y, argmax = fa.maxout(z, np.int64(1))
    assert fa.maxout_backward(y, argmax, np.int32(3), np.uint8(1)).shape == z.shape
