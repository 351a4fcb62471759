"""Asserts about the results of linear_maxout and its backward, for any shape and values."""

from __future__ import annotations

import numpy as np

import fastact as fa
from support.inputs import double, reference
from support.tolerance import assert_within, sum_bound


def preactivations(x, weight, bias, backend):
    """z (rows, out_features, pieces) in float64, and how far a computed z may be from it."""
    x64, weight64 = double(x, weight)
    bias64 = 0 if bias is None else bias.astype(np.float64)
    z = np.einsum("ni,jki->njk", x64, weight64, optimize=True) + bias64
    magnitude = np.einsum("ni,jki->njk", abs(x64), abs(weight64), optimize=True) + abs(bias64)
    return z, sum_bound(magnitude, x.shape[-1], x.dtype, backend)


def at(z, argmax):
    """The elements of z (..., pieces) at argmax (...)."""
    return np.take_along_axis(z, argmax[..., None].astype(np.intp), -1)[..., 0]


def assert_forward(x, weight, bias, y, argmax, backend):
    """y is the pre-activation at argmax, and no piece is larger by more than rounding explains."""
    z, bound = preactivations(x, weight, bias, backend)
    assert_within(y, at(z, argmax), at(bound, argmax))
    assert (at(z + bound, argmax)[..., None] >= z - bound).all()


def assert_backward(grad_y, x, weight, argmax, grads, backend):
    """The three gradients against the dense float64 ones."""
    rows, out_features = grad_y.shape
    pieces = weight.shape[1]
    grad_z = np.zeros((rows, out_features, pieces))
    np.put_along_axis(grad_z, argmax[..., None].astype(np.intp), grad_y[..., None].astype(np.float64), -1)
    x64, weight64 = double(x, weight)
    ones = np.ones((rows, 1))
    cases = (
        ("njk,jki->ni", grad_z, weight64, out_features),
        ("njk,ni->jki", grad_z, x64, rows),
        ("njk,nl->jk", grad_z, ones, rows),
    )
    for grad, (subscripts, a, b, terms) in zip(grads, cases, strict=True):
        exact = np.einsum(subscripts, a, b, optimize=True)
        magnitude = np.einsum(subscripts, abs(a), abs(b), optimize=True)
        assert_within(grad, exact, sum_bound(magnitude, terms, grad.dtype, backend))


def assert_as_reference(x, weight, bias, grad_y, **precision):
    """Forward and backward of numbers whose sums do not round."""
    y, argmax = fa.linear_maxout(x, weight, bias, **precision)
    expected_y, expected_argmax = reference("linear_maxout", x, weight, bias)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(argmax, expected_argmax)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, **precision)
    for grad, expected in zip(
        grads, reference("linear_maxout_backward", grad_y, x, weight, argmax), strict=True
    ):
        np.testing.assert_array_equal(grad, expected)
