"""Properties that hold for any shape and values, with examples found by Hypothesis."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import linear_activation, linear_maxout
from support.inputs import reference

import fastact as fa

sizes = st.integers(0, 40)
pieces = st.integers(1, 12)
dtypes = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])


def values(dtype, elements):
    """A function from a shape to arrays of it; zeros are common, and so are ties."""
    return lambda shape: hnp.arrays(dtype, shape, elements=elements, fill=st.just(0))


def whole(dtype):
    return values(dtype, st.integers(-4, 4).map(float))


def awkward(dtype):
    return values(dtype, st.sampled_from([0.0, -0.0, 1.0, -2.0, 3.0, np.inf, -np.inf, np.nan]))


def moderate(dtype):
    """Finite numbers of all sizes whose products neither overflow nor all vanish."""
    largest = 2.0**50 if dtype == np.float32 else 2.0**400
    return values(dtype, st.floats(-largest, largest, width=dtype.itemsize * 8))


@st.composite
def layers(draw, kind):
    """x, weight, bias and grad_y of a linear_maxout."""
    array = kind(draw(dtypes))
    rows, in_features, out_features, k = draw(sizes), draw(sizes), draw(sizes), draw(pieces)
    return (
        draw(array((rows, in_features))),
        draw(array((out_features, k, in_features))),
        draw(array((out_features, k))),
        draw(array((rows, out_features))),
    )


@given(layers(whole))
def test_linear_maxout_of_whole_numbers_is_exact(compiled, layer):
    linear_maxout.assert_as_reference(*layer)


@given(layers(awkward))
def test_linear_maxout_of_nan_and_infinity_equals_float64(compiled, layer):
    linear_maxout.assert_as_reference(*layer)


@given(layers(moderate))
def test_linear_maxout_of_any_numbers_is_within_the_error_bound(compiled, layer):
    x, weight, bias, grad_y = layer
    y, argmax = fa.linear_maxout(x, weight, bias)
    linear_maxout.assert_forward(x, weight, bias, y, argmax, compiled)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    linear_maxout.assert_backward(grad_y, x, weight, argmax, grads, compiled)


@given(st.data(), dtypes, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=20))
def test_maxout_equals_numpys_maximum(compiled, data, dtype, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    shape = tuple(max(1, n) if i == axis % len(shape) else n for i, n in enumerate(shape))
    z = data.draw(awkward(dtype)(shape))
    y, argmax = fa.maxout(z, axis)
    np.testing.assert_array_equal(y, z.max(axis))
    np.testing.assert_array_equal(argmax, z.argmax(axis))
    grad_z = fa.maxout_backward(y, argmax, z.shape[axis], axis)
    np.testing.assert_array_equal(grad_z, reference("maxout_backward", y, argmax, z.shape[axis], axis))


@given(layers(whole), st.sampled_from(["linear", "relu"]))
def test_linear_activation_is_the_product_and_the_activation(compiled, layer, activation):
    x, weight, bias, grad_y = layer
    weight, bias = np.ascontiguousarray(weight[:, 0]), np.ascontiguousarray(bias[:, 0])
    linear_activation.assert_as_reference(x, weight, bias, grad_y, activation)


@given(layers(moderate))
def test_bias_of_zeros_equals_no_bias(compiled, layer):
    x, weight, bias, _ = layer
    results = fa.linear_maxout(x, weight, np.zeros_like(bias))
    for result, expected in zip(results, fa.linear_maxout(x, weight), strict=True):
        np.testing.assert_array_equal(result, expected)
