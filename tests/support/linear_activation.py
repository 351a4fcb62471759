"""Asserts about the results of linear_activation and its backward, for any shape and values."""

from __future__ import annotations

import numpy as np

import fastact as fa
from support.cases import SAVES_Y, STEEPEST
from support.inputs import as_tuple, double, reference
from support.tolerance import activation_bound, assert_within, derivative_bound, sum_bound


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


def assert_as_reference(x, weight, bias, grad_y, activation, **keywords):
    """Forward and backward of numbers whose sums do not round."""
    y, saved = fa.linear_activation(x, weight, bias, activation, **keywords)
    forward = reference("linear_activation", x, weight, bias, activation, **keywords)
    grads = fa.linear_activation_backward(grad_y, x, weight, saved, activation, **keywords)
    backward = reference("linear_activation_backward", grad_y, x, weight, saved, activation, **keywords)
    for result, expected in zip((y, saved, *grads), (*forward, *backward), strict=True):
        np.testing.assert_array_equal(result, expected)
