"""Losses: values by hand, gradients by finite differences, extreme logits, refused labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.differences import TOLERANCE, differences
from support.layouts import backwards, misaligned, read_only, spaced, transposed

import fastact as fa


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,), (3, 1)])
def test_softmax_cross_entropy_equals_formula_and_finite_differences(rng, shape):
    logits = rng.standard_normal(shape)
    labels = np.asarray(rng.integers(0, shape[-1], shape[:-1]))
    loss, grad = fa.softmax_cross_entropy(logits, labels)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    picked = np.take_along_axis(softmax, labels[..., None], axis=-1)
    assert math.isclose(loss, np.mean(-np.log(picked)), rel_tol=1e-14, abs_tol=1e-15)
    numeric = differences(lambda: fa.softmax_cross_entropy(logits, labels)[0], logits)
    np.testing.assert_allclose(grad, numeric, rtol=TOLERANCE, atol=TOLERANCE)


def test_softmax_cross_entropy_of_extreme_logits_is_accurate(dtype):
    logits = np.array([[1e4, 0, -1e4], [-1e30, -1e30, -1e30], [0, -np.inf, 0]], dtype)
    before = logits.copy()
    loss, grad = fa.softmax_cross_entropy(logits, np.array([1, 2, 0]))
    assert math.isclose(loss, (1e4 + math.log(3) + math.log(2)) / 3, rel_tol=1e-6)
    expected = np.array([[1, -1, 0], [1 / 3, 1 / 3, -2 / 3], [-1 / 2, 0, 1 / 2]]) / 3
    np.testing.assert_allclose(grad, expected, rtol=1e-6)
    assert grad.dtype == dtype
    np.testing.assert_array_equal(logits, before)


def test_softmax_cross_entropy_of_nan_or_infinity_is_nan():
    for bad in (np.nan, np.inf):
        loss, grad = fa.softmax_cross_entropy(np.array([[bad, 0.0], [1.0, 2.0]]), np.array([1, 0]))
        assert math.isnan(loss)
        assert np.isnan(grad[0]).all()
        assert np.isfinite(grad[1]).all()


LARGEST = {"float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float64).max)}


def softmax_in_longdouble(logits, labels):
    """The loss and its gradient, of a range beyond that of float64."""
    z = logits.reshape(labels.size, -1).astype(np.longdouble)
    z = z - z.max(axis=1, keepdims=True, initial=-math.inf)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    one_hot = np.arange(z.shape[1]) == labels.reshape(-1, 1)
    losses = np.log(total[:, 0]) - z[one_hot]
    rows = max(labels.size, 1)
    return losses.sum() / rows, ((e / total - one_hot) / rows).reshape(logits.shape)


FINITE_LOGITS = {
    "far apart": ([[0, 200]], [0]),
    "limits": ([[1, -1]], [1]),  # times the largest number, as all of fewer than 2
    "limits, the right label": ([[1, -1]], [0]),
    "two rows": ([[1, -1], [0.25, 0.5]], [1, 0]),
    "equal limits": ([[1, 1, 1], [-1, -1, -1]], [2, 0]),
    "subnormal": ([[1e-320, 0]], [0]),
    "one class": ([[0.5], [-3e4], [1]], [0, 0, 0]),
}


@pytest.mark.parametrize("call", ["raise", "warn"])
@pytest.mark.parametrize(("logits", "labels"), FINITE_LOGITS.values(), ids=FINITE_LOGITS)
def test_softmax_of_finite_logits_neither_warns_nor_raises(dtype, logits, labels, call):
    logits, labels = np.array(logits), np.array(labels)
    with np.errstate(all="ignore"):
        logits = np.where(np.abs(logits) <= 1, logits * LARGEST[dtype.name], logits).astype(dtype)
        wanted_loss, wanted_grad = softmax_in_longdouble(logits, labels)
    with np.errstate(all=call):
        before = np.geterr()
        loss, grad = fa.softmax_cross_entropy(logits, labels)
        assert np.geterr() == before
    eps = float(np.finfo(dtype).eps)
    if wanted_loss > LARGEST["float64"]:
        assert loss == math.inf
    else:
        assert math.isclose(loss, wanted_loss, rel_tol=8 * eps, abs_tol=8 * eps)
    np.testing.assert_allclose(grad, wanted_grad.astype(np.float64), atol=8 * eps)


def test_softmax_loss_is_infinite_only_beyond_float64():
    largest = LARGEST["float64"]
    with np.errstate(all="raise"):
        loss, _ = fa.softmax_cross_entropy(np.array([[largest, -largest]]), np.array([1]))
        assert loss == math.inf
        logits = np.array([[largest, 0.0]] * 3 + [[0.0, 0.0]])
        loss, _ = fa.softmax_cross_entropy(logits, np.array([1, 1, 1, 0]))  # the sum of losses overflows
    assert math.isclose(loss, 0.75 * largest, rel_tol=1e-15)


@pytest.mark.parametrize("shape", [(3, 70_000), (64, 1000), (5, 7, 33), (1, 1)])
def test_losses_of_every_memory_layout_have_the_same_bits(rng, dtype, backend, shape):
    logits = np.ascontiguousarray(rng.standard_normal(shape).astype(dtype))
    labels = rng.integers(0, shape[-1], shape[:-1])
    loss, grad = fa.softmax_cross_entropy(logits, labels)
    squares, grad_y = fa.mse(logits, np.zeros_like(logits))
    for layout in (transposed, spaced, backwards, misaligned, read_only):
        other = layout(logits)
        np.testing.assert_array_equal(other, logits)
        again, same = fa.softmax_cross_entropy(other, labels)
        assert again == loss
        np.testing.assert_array_equal(same, grad)
        again, same = fa.mse(other, np.zeros_like(other))
        assert again == squares
        np.testing.assert_array_equal(same, grad_y)


def test_softmax_of_many_classes_keeps_its_accuracy(rng, dtype):
    logits = np.asfortranarray(rng.uniform(-1, 1, (2, 1_000_000)).astype(dtype))
    labels = np.array([0, 999_999])
    loss, grad = fa.softmax_cross_entropy(logits, labels)
    wanted_loss, wanted_grad = softmax_in_longdouble(logits, labels)
    # An exponential is off by up to 3 eps, the sum by 16 roundings in order and 13 levels of pairs.
    eps = float(np.finfo(dtype).eps)
    assert math.isclose(loss, wanted_loss, abs_tol=32 * eps)
    np.testing.assert_allclose(grad, wanted_grad.astype(np.float64), rtol=64 * eps)


def test_softmax_without_rows_is_zero_and_without_classes_raises(dtype):
    with np.errstate(all="raise"):
        for shape in ((0, 5), (0, 0), (2, 0, 3)):
            loss, grad = fa.softmax_cross_entropy(np.zeros(shape, dtype), np.zeros(shape[:-1], int))
            assert (loss, grad.shape, grad.dtype) == (0.0, shape, dtype)
    with pytest.raises(ValueError, match=r"logits: got shape \(2, 0\), wanted at least one class"):
        fa.softmax_cross_entropy(np.zeros((2, 0), dtype), np.zeros(2, int))


@pytest.mark.parametrize("dtype_of_labels", [np.uint8, np.int32, np.int64, np.uint64])
def test_softmax_takes_labels_of_any_integer_dtype(dtype_of_labels):
    loss, _ = fa.softmax_cross_entropy(np.zeros((3, 4), np.float32), np.array([0, 3, 1], dtype_of_labels))
    assert math.isclose(loss, math.log(4), rel_tol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), ()])
def test_mse_equals_formula_and_finite_differences(rng, shape):
    y, target = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))
    loss, grad = fa.mse(y, target)
    assert math.isclose(loss, np.mean((y - target) ** 2), rel_tol=1e-14)
    assert isinstance(grad, np.ndarray)
    np.testing.assert_allclose(grad, differences(lambda: fa.mse(y, target)[0], y), atol=TOLERANCE)


@pytest.mark.parametrize("size", [1, 17, 1024, 4099, 300_007])
def test_mse_of_any_size_is_accurate_for_any_threads(rng, backend, dtype, size):
    y, target = (rng.standard_normal((size, 2)).astype(dtype)[:, 0] for _ in range(2))  # strided
    loss, grad = fa.mse(y, target)
    off = y.astype(np.float64) - target
    eps = float(np.finfo(dtype).eps)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, 2 / size * off, rtol=4 * eps)
    assert math.isclose(loss, np.mean(off * off), rel_tol=1024 * eps)  # the most terms of a sum in `dtype`
    for threads in (1, 2):
        with fa.num_threads(threads):
            again, same = fa.mse(y, target)
        assert again == loss
        np.testing.assert_array_equal(same, grad)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mse_of_nan_and_infinity_spreads_to_the_loss_alone(backend, dtype, value):
    y, target = np.zeros((2, 40), dtype), np.zeros((2, 40), dtype)
    y[0, 3] = y[1, 37] = target[1, 37] = value  # a difference of value, and of NaN
    loss, grad = fa.mse(y, target)
    assert math.isnan(loss)
    np.testing.assert_array_equal(grad[0, 3], value)
    assert np.isnan(grad[1, 37])
    assert np.count_nonzero(grad) == 2


@pytest.mark.parametrize(
    ("y", "target", "size"),
    [
        (1.0, 0.0, 3),  # times the largest number: the squares overflow
        (1.0, -1.0, 1),  # the differences too
        (1.0, -1.0, 1000),  # but not the gradients
        (1e-5, 0.0, 40),
        (-0.3, 0.7, 40),
    ],
)
def test_mse_of_differences_whose_squares_overflow_is_accurate(backend, dtype, y, target, size):
    largest, eps = LARGEST[dtype.name], float(np.finfo(dtype).eps)
    y, target = (np.array([value * largest] + [0] * (size - 1), dtype) for value in (y, target))
    off = np.longdouble(y[0]) - target[0]
    with np.errstate(all="raise"):
        loss, grad = fa.mse(y, target)
    if off * off / size > LARGEST["float64"]:
        assert loss == math.inf
    else:
        assert math.isclose(loss, off * off / size, rel_tol=4 * eps)
    if 2 * off / size > largest:
        assert grad[0] == math.inf
    else:
        assert math.isclose(grad[0], 2 * off / size, rel_tol=4 * eps)
    assert not grad[1:].any()


def test_mse_of_differences_whose_squares_underflow_is_accurate(backend, dtype):
    info = np.finfo(dtype)
    for small in (float(info.tiny), float(info.smallest_subnormal), float(info.tiny) ** 0.5 / 3):
        with np.errstate(all="raise"):
            loss, grad = fa.mse(np.array([small, 0.0], dtype), np.zeros(2, dtype))
        assert math.isclose(loss, small * small / 2, rel_tol=4 * info.eps)  # 0 where float64 underflows
        assert math.isclose(grad[0], small, rel_tol=4 * info.eps)


def test_mse_of_equal_arrays_is_zero(backend, dtype):
    loss, grad = fa.mse(np.full(5, LARGEST[dtype.name], dtype), np.full(5, LARGEST[dtype.name], dtype))
    assert loss == 0
    assert not grad.any()


def test_mse_of_an_infinite_difference_is_infinite(backend, dtype):
    loss, grad = fa.mse(np.array([math.inf, 1.0], dtype), np.zeros(2, dtype))
    assert loss == math.inf
    np.testing.assert_array_equal(grad, [math.inf, 1.0])


def test_losses_without_rows_are_zero():
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
def test_losses_reject_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
