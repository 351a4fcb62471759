"""Losses: values by hand, gradients by finite differences, extreme logits, refused labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from finite import TOLERANCE, differences

import fastact as fa


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,), (3, 1)])
def test_softmax_cross_entropy(rng, shape):
    logits = rng.standard_normal(shape)
    labels = np.asarray(rng.integers(0, shape[-1], shape[:-1]))
    loss, grad = fa.softmax_cross_entropy(logits, labels)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    picked = np.take_along_axis(softmax, labels[..., None], axis=-1)
    assert math.isclose(loss, np.mean(-np.log(picked)), rel_tol=1e-14, abs_tol=1e-15)
    numeric = differences(lambda: fa.softmax_cross_entropy(logits, labels)[0], logits)
    np.testing.assert_allclose(grad, numeric, rtol=TOLERANCE, atol=TOLERANCE)


def test_softmax_cross_entropy_of_extreme_logits(dtype):
    logits = np.array([[1e4, 0, -1e4], [-1e30, -1e30, -1e30], [0, -np.inf, 0]], dtype)
    before = logits.copy()
    loss, grad = fa.softmax_cross_entropy(logits, np.array([1, 2, 0]))
    assert math.isclose(loss, (1e4 + math.log(3) + math.log(2)) / 3, rel_tol=1e-6)
    expected = np.array([[1, -1, 0], [1 / 3, 1 / 3, -2 / 3], [-1 / 2, 0, 1 / 2]]) / 3
    np.testing.assert_allclose(grad, expected, rtol=1e-6)
    assert grad.dtype == dtype
    np.testing.assert_array_equal(logits, before)


def test_a_nan_among_the_logits_makes_the_loss_nan():
    for bad in (np.nan, np.inf):
        loss, grad = fa.softmax_cross_entropy(np.array([[bad, 0.0], [1.0, 2.0]]), np.array([1, 0]))
        assert math.isnan(loss)
        assert np.isnan(grad[0]).all()
        assert np.isfinite(grad[1]).all()


@pytest.mark.parametrize("dtype_of_labels", [np.uint8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_dtype(dtype_of_labels):
    loss, _ = fa.softmax_cross_entropy(np.zeros((3, 4), np.float32), np.array([0, 3, 1], dtype_of_labels))
    assert math.isclose(loss, math.log(4), rel_tol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), ()])
def test_mse(rng, shape):
    y, target = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))
    loss, grad = fa.mse(y, target)
    assert math.isclose(loss, np.mean((y - target) ** 2), rel_tol=1e-14)
    assert isinstance(grad, np.ndarray)
    np.testing.assert_allclose(grad, differences(lambda: fa.mse(y, target)[0], y), atol=TOLERANCE)


@pytest.mark.parametrize("size", [1, 17, 1024, 4099, 300_007])
def test_mse_on_each_backend(rng, backend, dtype, threads, size):
    y, target = (rng.standard_normal((size, 2)).astype(dtype)[:, 0] for _ in range(2))  # strided
    loss, grad = fa.mse(y, target)
    off = y.astype(np.float64) - target
    eps = float(np.finfo(dtype).eps)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, 2 / size * off, rtol=4 * eps)
    assert math.isclose(loss, np.mean(off * off), rel_tol=1024 * eps)  # the most terms of a sum in `dtype`
    with fa.num_threads(3 - threads):
        again, same = fa.mse(y, target)
    assert again == loss
    np.testing.assert_array_equal(same, grad)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mse_of_special_values(backend, dtype, threads, value):
    y, target = np.zeros((2, 40), dtype), np.zeros((2, 40), dtype)
    y[0, 3] = y[1, 37] = target[1, 37] = value  # a difference of value, and of NaN
    loss, grad = fa.mse(y, target)
    assert math.isnan(loss)
    np.testing.assert_array_equal(grad[0, 3], value)
    assert np.isnan(grad[1, 37])
    assert np.count_nonzero(grad) == 2


def test_mse_of_differences_whose_squares_overflow(backend, dtype):
    largest = np.finfo(dtype).max
    loss, grad = fa.mse(np.full(3, largest, dtype), np.zeros(3, dtype))
    assert loss == math.inf
    np.testing.assert_allclose(grad, largest / 3 * 2, rtol=4 * np.finfo(dtype).eps)


def test_no_rows():
    loss, grad = fa.softmax_cross_entropy(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert (loss, grad.shape) == (0.0, (0, 3))
    loss, grad = fa.mse(np.zeros((0, 3)), np.zeros((0, 3)))
    assert (loss, grad.shape) == (0.0, (0, 3))


X = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fa.softmax_cross_entropy(X.tolist(), np.zeros(2, int)), TypeError, "logits: got list"),
        (lambda: fa.softmax_cross_entropy(X, [0, 1]), TypeError, "labels: got list"),
        (
            lambda: fa.softmax_cross_entropy(X, np.ma.zeros(2, int)),
            TypeError,
            "labels: got MaskedArray, wanted a numpy.ndarray of integers",
        ),
        (lambda: fa.softmax_cross_entropy(X, np.zeros(2)), TypeError, "labels: got dtype float64"),
        (lambda: fa.softmax_cross_entropy(X, np.zeros(2, bool)), TypeError, "labels: got dtype bool"),
        (lambda: fa.softmax_cross_entropy(X, np.zeros(3, int)), ValueError, r"labels: got shape \(3,\)"),
        (
            lambda: fa.softmax_cross_entropy(X, np.array([0, 3])),
            ValueError,
            "labels: got 0 to 3, wanted 0 to 2",
        ),
        (lambda: fa.softmax_cross_entropy(X, np.array([-1, 2])), ValueError, "labels: got -1 to 2"),
        (lambda: fa.softmax_cross_entropy(np.array(1.0), np.array(0)), ValueError, "logits: got shape"),
        (lambda: fa.mse(X, X.astype(np.float32)), TypeError, "target: got dtype float32, wanted float64"),
        (lambda: fa.mse(X, X[:1]), ValueError, "target: got shape"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
