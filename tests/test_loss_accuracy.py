"""The accuracy of the losses against mpmath, on every backend, instruction set and dtype.

With eps of the dtype, a loss is held to 4 eps of the sum of its terms' magnitudes, and a gradient likewise,
plus the smallest subnormal number, as the docstrings promise:

softmax_cross_entropy.  An exponential, the sum of a row, its logarithm and the quotient go through a few
roundings of float64, and the difference of a logit and the largest keeps its rounding error.

binary_cross_entropy_with_logits, huber.  An element goes through a few roundings.  C adds the elements with
their rounding errors.  The other backends add them as NumPy does, in pairs: in a block of 128 elements a term
goes through at most PAIRWISE roundings, and one more each time that the number of blocks doubles.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.tolerance import gamma

import fastact as fa
from bench.accuracy import losses as exactly
from bench.accuracy.figures import in_two

EPSILONS = 4
PAIRWISE = 18


def assert_close(actual, exact, scale, dtype, roundings=0.0):
    """`actual` is within EPSILONS eps, and `roundings` relative, of `exact`, a pair of `in_two`."""
    info = np.finfo(dtype)
    error = np.abs((np.ravel(actual).astype(np.float64) - exact[0]) - exact[1])
    bound = (EPSILONS * float(info.eps) + roundings) * scale + float(info.smallest_subnormal)
    assert np.all(error <= bound), f"off by {np.max(error / bound)} times the bound"


# ---- softmax cross-entropy


@pytest.mark.parametrize(("smoothing", "ignore_index"), [(0.0, -100), (0.1, -100), (1.0, 0), (0.0, 1)])
@pytest.mark.parametrize("case", ["extreme", 1, 2, 3, 15, 16, 17, 31, 32, 33, 97, 600])
def test_softmax_cross_entropy_is_accurate(backend, dtype, case, smoothing, ignore_index):
    logits, labels, loss, loss_scale, grads, scales = exactly.cross_entropy(
        case, dtype, smoothing, ignore_index
    )
    actual, grad = fa.softmax_cross_entropy(
        logits, labels, label_smoothing=smoothing, ignore_index=ignore_index
    )
    assert grad.dtype == dtype
    if loss[0] <= np.finfo(np.float64).max:
        assert_close(actual, loss, loss_scale, dtype)
    else:
        assert actual == math.inf
    assert_close(grad, grads, scales, dtype)


def test_softmax_cross_entropy_of_very_many_classes_is_accurate(backend, dtype):
    floats = np.dtype(np.float32)  # exact as float64 too
    logits, labels, loss, loss_scale, grads, scales = exactly.cross_entropy(100_000, floats, 0.1)
    actual, grad = fa.softmax_cross_entropy(logits.astype(dtype), labels, label_smoothing=0.1)
    assert_close(actual, loss, loss_scale, dtype)
    assert_close(grad, grads, scales, dtype)


# ---- element-wise losses


def roundings_of_sum(backend, size):
    return 0.0 if backend == "c" else gamma(PAIRWISE + math.ceil(math.log2(size)), np.float64)


def test_binary_cross_entropy_is_accurate(backend, dtype):
    z, t, losses, grads, scales = exactly.binary(dtype)
    size = z.size
    loss, grad = fa.binary_cross_entropy_with_logits(z, t)
    mean = sum(losses) / size
    assert_close(loss, in_two([mean]), float(mean), dtype, roundings_of_sum(backend, size))
    assert_close(grad, in_two([g / size for g in grads]), scales / size, dtype)
    for i in range(size):
        loss, grad = fa.binary_cross_entropy_with_logits(z[i : i + 1], t[i : i + 1])
        assert_close(loss, in_two([losses[i]]), float(losses[i]), dtype)
        assert_close(grad, in_two([grads[i]]), scales[i], dtype)


@pytest.mark.parametrize("delta", exactly.HUBER_DELTAS)
def test_huber_is_accurate(backend, dtype, delta):
    y, t, losses, grads, _ = exactly.huber(dtype, delta)
    size = y.size
    loss, grad = fa.huber(y, t, delta=delta)
    mean = sum(losses) / size
    if mean <= np.finfo(np.float64).max:
        assert_close(loss, in_two([mean]), float(mean), dtype, roundings_of_sum(backend, size))
    else:
        assert loss == math.inf
    exact = in_two([g / size for g in grads])
    inside = np.abs(exact[0]) <= float(np.finfo(dtype).max)
    assert_close(grad[inside], (exact[0][inside], exact[1][inside]), np.abs(exact[0][inside]), dtype)
    np.testing.assert_array_equal(grad[~inside], np.sign(exact[0][~inside]) * np.inf)
    for i in range(0, size, 7):
        loss, _ = fa.huber(y[i : i + 1], t[i : i + 1], delta=delta)
        if losses[i] <= np.finfo(np.float64).max:
            assert_close(loss, in_two([losses[i]]), float(losses[i]), dtype)
        else:
            assert loss == math.inf
