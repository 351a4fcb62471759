"""Losses: values by hand, gradients by finite differences, extreme logits, refused labels.

test_loss_accuracy.py holds them against mpmath, frameworks/test_torch_losses.py against PyTorch.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from support.differences import TOLERANCE, differences
from support.layouts import backwards, misaligned, read_only, spaced, transposed
from support.tolerance import assert_same_bits

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


@pytest.mark.parametrize(("smoothing", "ignore_index"), [(0.1, -100), (0.0, 2), (0.3, 2), (1.0, -100)])
def test_softmax_cross_entropy_with_options_equals_finite_differences(rng, backend, smoothing, ignore_index):
    logits, labels = rng.standard_normal((7, 4)), np.array([0, 2, 3, 2, 1, 3, 0])

    def call():
        return fa.softmax_cross_entropy(logits, labels, label_smoothing=smoothing, ignore_index=ignore_index)

    grad = call()[1]
    np.testing.assert_allclose(grad, differences(lambda: call()[0], logits), atol=TOLERANCE)
    assert grad[labels == 2].any() == (ignore_index != 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_softmax_cross_entropy_leaves_out_ignored_rows(rng, backend, dtype, smoothing):
    logits = rng.standard_normal((40, 3)).astype(dtype)
    labels = rng.integers(0, 3, 40)
    ignored = rng.random(40) < 0.4
    labels[ignored] = -100
    logits[ignored] = np.resize(np.array([np.nan, np.inf, -np.inf, 1], dtype), (ignored.sum(), 3))
    loss, grad = fa.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    wanted, wanted_grad = fa.softmax_cross_entropy(
        logits[~ignored], labels[~ignored], label_smoothing=smoothing
    )
    eps = float(np.finfo(dtype).eps)
    assert math.isclose(loss, wanted, rel_tol=8 * eps)  # each within 4 eps
    np.testing.assert_allclose(grad[~ignored], wanted_grad, rtol=0, atol=8 * eps)
    assert not grad[ignored].any()


@pytest.mark.parametrize(("classes", "index"), [(3, -100), (3, 1), (70, 69), (3, 2**63 - 1), (3, -(2**63))])
def test_softmax_cross_entropy_is_zero_if_all_rows_are_ignored(backend, dtype, classes, index):
    logits = np.full((5, classes), np.nan, dtype)
    loss, grad = fa.softmax_cross_entropy(logits, np.full(5, index), label_smoothing=0.1, ignore_index=index)
    assert loss == 0
    assert not grad.any()


def test_softmax_cross_entropy_with_smoothing_counts_every_infinite_logit(backend, dtype):
    logits, labels = np.array([[0, -np.inf, 1]], dtype), np.array([0])
    assert math.isfinite(fa.softmax_cross_entropy(logits, labels)[0])
    loss, grad = fa.softmax_cross_entropy(logits, labels, label_smoothing=0.1)
    assert loss == math.inf
    assert np.isfinite(grad).all()
    assert fa.softmax_cross_entropy(logits, np.array([1]))[0] == math.inf


def test_softmax_cross_entropy_of_extreme_logits_is_accurate(dtype):
    logits = np.array([[1e4, 0, -1e4], [-1e30, -1e30, -1e30], [0, -np.inf, 0]], dtype)
    before = logits.copy()
    loss, grad = fa.softmax_cross_entropy(logits, np.array([1, 2, 0]))
    assert math.isclose(loss, (1e4 + math.log(3) + math.log(2)) / 3, rel_tol=1e-6)
    expected = np.array([[1, -1, 0], [1 / 3, 1 / 3, -2 / 3], [-1 / 2, 0, 1 / 2]]) / 3
    np.testing.assert_allclose(grad, expected, rtol=1e-6)
    assert grad.dtype == dtype
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("classes", [2, 97])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_softmax_cross_entropy_of_nan_or_infinity_is_nan(backend, dtype, classes, place):
    for bad in (np.nan, np.inf):
        logits = np.ones((2, classes), dtype)
        logits[0, place] = bad
        loss, grad = fa.softmax_cross_entropy(logits, np.array([1, 0]))
        assert math.isnan(loss)
        assert np.isnan(grad[0]).all()
        assert np.isfinite(grad[1]).all()
    loss, grad = fa.softmax_cross_entropy(np.full((1, classes), -np.inf, dtype), np.array([1]))
    assert math.isnan(loss)
    assert np.isnan(grad).all()


PAIR_LOSSES = (fa.mse, fa.huber, fa.binary_cross_entropy_with_logits)
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
    pairs = [(f, *f(logits, np.zeros_like(logits))) for f in PAIR_LOSSES]
    for layout in (transposed, spaced, backwards, misaligned, read_only):
        other = layout(logits)
        np.testing.assert_array_equal(other, logits)
        again, same = fa.softmax_cross_entropy(other, labels)
        assert again == loss
        np.testing.assert_array_equal(same, grad)
        for f, value, grad_y in pairs:
            again, same = f(other, layout(np.zeros_like(logits)))
            assert again == value
            np.testing.assert_array_equal(same, grad_y)


@pytest.mark.parametrize("shape", [(3, 70_000), (900, 97), (50_000, 2), (40_000, 33)])
def test_losses_have_the_same_bits_for_any_number_of_threads(rng, backend, dtype, shape):
    logits = rng.standard_normal(shape).astype(dtype)
    labels = rng.integers(0, shape[1], shape[0])
    labels[::5] = -100
    target = rng.random(shape).astype(dtype)
    results = []
    for threads in (1, 2, 3):
        with fa.num_threads(threads):
            results.append([fa.softmax_cross_entropy(logits, labels, label_smoothing=0.1)])
            results[-1] += [f(logits, target) for f in PAIR_LOSSES]
    for other in results[1:]:
        for (loss, grad), (again, same) in zip(results[0], other, strict=True):
            assert loss == again
            assert_same_bits(grad, same)


@pytest.mark.parametrize("rows", [0, 1, 3, 15, 16, 17, 31, 32, 33, 97])
def test_losses_of_any_size_agree_with_the_reference(rng, compiled, dtype, rows):
    logits, target = (rng.standard_normal((rows, 5)).astype(dtype) for _ in range(2))
    labels = rng.integers(-1, 5, rows)
    calls = [lambda: fa.softmax_cross_entropy(logits, labels, label_smoothing=0.1, ignore_index=-1)]
    calls += [lambda f=f: f(logits, target) for f in PAIR_LOSSES]
    results = [call() for call in calls]
    fa.set_backend("numpy")
    eps = float(np.finfo(dtype).eps)
    for (loss, grad), call in zip(results, calls, strict=True):
        wanted, wanted_grad = call()
        assert grad.shape == logits.shape
        # each is within 4 eps of terms of at most 16 in magnitude; a sum of squares has 485 terms of `dtype`
        assert math.isclose(loss, wanted, rel_tol=485 * eps, abs_tol=0)
        np.testing.assert_allclose(grad, wanted_grad, rtol=0, atol=8 * eps * 16 / max(rows, 1))


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


@pytest.mark.parametrize("dtype_of_labels", ["u1", "i1", "i2", "i4", "u4", "i8", "q", ">i8", "u8", ">u8"])
def test_softmax_takes_labels_of_any_integer_dtype(rng, backend, dtype_of_labels):
    logits, labels = rng.standard_normal((6, 4)), np.array([0, 3, 1, 2, 2, 0])
    loss, grad = fa.softmax_cross_entropy(logits, labels, ignore_index=1)
    again, same = fa.softmax_cross_entropy(logits, labels.astype(dtype_of_labels), ignore_index=1)
    assert again == loss
    assert_same_bits(grad, same)


@pytest.mark.parametrize("layout", [transposed, spaced, backwards, misaligned, read_only])
def test_softmax_takes_labels_of_any_layout(rng, backend, layout):
    logits, labels = rng.standard_normal((6, 3, 4)), rng.integers(0, 4, (6, 3))
    loss, grad = fa.softmax_cross_entropy(logits, labels)
    again, same = fa.softmax_cross_entropy(logits, layout(labels))
    assert again == loss
    assert_same_bits(grad, same)


def test_softmax_refuses_labels_out_of_range_of_any_integer_dtype(backend):
    logits = np.zeros((2, 3))
    for labels, text in (
        (np.array([1, 2**64 - 100], np.uint64), "labels: got 1 to 18446744073709551516, wanted 0 to 2"),
        (np.array([2**63 - 1, 0], np.uint64), "labels: got 0 to 9223372036854775807, wanted 0 to 2"),
        (np.array([1, -1], np.int8), "labels: got -1 to 1, wanted 0 to 2"),
        (np.array([-100, 3]), "labels: got 3 to 3, wanted 0 to 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            fa.softmax_cross_entropy(logits, labels)
    with pytest.raises(ValueError, match=r"labels: got -100 to 1, wanted 0 to 2"):
        fa.softmax_cross_entropy(logits, np.array([-100, 1]), ignore_index=-1)


# ---- binary cross-entropy and Huber's loss


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), ()])
def test_binary_cross_entropy_equals_formula_and_finite_differences(rng, backend, shape):
    logits, target = np.asarray(rng.standard_normal(shape)), np.asarray(rng.random(shape))
    loss, grad = fa.binary_cross_entropy_with_logits(logits, target)
    sigmoid = 1 / (1 + np.exp(-logits))
    wanted = -np.mean(target * np.log(sigmoid) + (1 - target) * np.log(1 - sigmoid))
    assert math.isclose(loss, wanted, rel_tol=1e-14)
    numeric = differences(lambda: fa.binary_cross_entropy_with_logits(logits, target)[0], logits)
    np.testing.assert_allclose(grad, numeric, atol=TOLERANCE)


def test_binary_cross_entropy_equals_softmax_cross_entropy_of_two_classes(rng, backend):
    logits, labels = rng.standard_normal(40), rng.integers(0, 2, 40)
    both = np.stack([np.zeros(40), logits], axis=1)
    loss, grad = fa.binary_cross_entropy_with_logits(logits, labels.astype(float))
    wanted, wanted_grad = fa.softmax_cross_entropy(both, labels)
    assert math.isclose(loss, wanted, rel_tol=1e-14)
    np.testing.assert_allclose(grad, wanted_grad[:, 1], atol=1e-16)


@pytest.mark.parametrize("call", ["raise", "warn"])
def test_binary_cross_entropy_of_finite_logits_neither_warns_nor_overflows(backend, dtype, call):
    largest = LARGEST[dtype.name]
    logits = np.array([largest, -largest, largest, 745, -745, 1e-45, 0], dtype)
    target = np.array([0, 1, 1, 0, 0, 0.5, 1], dtype)
    with np.errstate(all=call):
        loss, grad = fa.binary_cross_entropy_with_logits(logits, target)
    assert math.isclose(loss, largest / 7 * 2, rel_tol=1e-6)
    np.testing.assert_allclose(grad * 7, [1, -1, 0, 1, 0, 0, -0.5], rtol=1e-6, atol=1e-6)


def test_binary_cross_entropy_of_nan_and_infinity_spreads_to_the_loss_alone(backend, dtype):
    for logit, target, loss, grad in (
        (np.nan, 0, np.nan, np.nan),
        (0, np.nan, np.nan, np.nan),
        (np.inf, 0, np.inf, 1),
        (-np.inf, 1, np.inf, -1),
        (np.inf, 1, np.nan, 0),
        (-np.inf, 0, np.nan, 0),
    ):
        logits, targets = np.zeros((2, 40), dtype), np.zeros((2, 40), dtype)
        logits[1, 37], targets[1, 37] = logit, target
        got, grads = fa.binary_cross_entropy_with_logits(logits, targets)
        np.testing.assert_equal(got, loss)
        np.testing.assert_allclose(grads[1, 37] * 80, grad, rtol=1e-6)
        assert np.count_nonzero(np.isfinite(grads)) >= 79


@pytest.mark.parametrize("delta", [1, 0.3, np.float64(2)])
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), ()])
def test_huber_equals_formula_and_finite_differences(rng, backend, shape, delta):
    y, target = (np.asarray(rng.normal(0, 2, shape)) for _ in range(2))
    loss, grad = fa.huber(y, target, delta=delta)
    d = np.abs(y - target)
    assert math.isclose(
        loss, np.mean(np.where(d <= delta, d * d / 2, delta * (d - delta / 2))), rel_tol=1e-14
    )
    np.testing.assert_allclose(
        grad, differences(lambda: fa.huber(y, target, delta=delta)[0], y), atol=1e-5
    )  # the derivative has a kink


def test_huber_of_small_differences_is_half_the_mean_square(rng, backend, dtype):
    y, target = (rng.standard_normal((9, 33)).astype(dtype) for _ in range(2))
    loss, grad = fa.huber(y, target, delta=1e3)
    squares, grad_y = fa.mse(y, target)
    assert math.isclose(loss, squares / 2, rel_tol=300 * float(np.finfo(dtype).eps))  # 297 terms in `dtype`
    np.testing.assert_allclose(grad, grad_y / 2, rtol=8 * float(np.finfo(dtype).eps))


def test_huber_of_nan_and_infinity_spreads_to_the_loss_alone(backend, dtype):
    for value, loss, grad in ((np.nan, np.nan, np.nan), (np.inf, np.inf, 0.5), (-np.inf, np.inf, -0.5)):
        y = np.zeros((2, 40), dtype)
        y[1, 37] = value
        got, grads = fa.huber(y, np.zeros_like(y), delta=0.5)
        np.testing.assert_equal(got, loss)
        np.testing.assert_allclose(grads[1, 37] * 80, grad, rtol=1e-6)
        assert np.count_nonzero(grads) == 1


@pytest.mark.parametrize("call", ["raise", "warn"])
def test_huber_of_differences_that_overflow_is_accurate(backend, dtype, call):
    largest, eps = LARGEST[dtype.name], float(np.finfo(dtype).eps)
    y, target = np.array([largest, 0, 0, 0], dtype), np.array([-largest, 0, 0, 1], dtype)
    with np.errstate(all=call):
        loss, grad = fa.huber(y, target)
    assert math.isclose(loss, largest / 2, rel_tol=4 * eps)
    np.testing.assert_array_equal(grad, [0.25, 0, 0, -0.25])


# ---- mean squared error


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


@pytest.mark.parametrize("beside", [np.nan, np.inf, 0.0])
def test_mse_gradient_of_a_difference_beyond_the_dtype_is_right_beside_any_number(backend, dtype, beside):
    largest = LARGEST[dtype.name]
    y, target = np.array([largest, beside, 1, 0, 0, 0, 0, 0], dtype), np.zeros(8, dtype)
    target[0] = -largest
    with np.errstate(all="raise"):
        loss, grad = fa.mse(y, target)
    assert math.isnan(beside) == math.isnan(loss)
    wanted = np.array([largest / 2, beside / 4, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(grad, wanted.astype(dtype), rtol=4 * float(np.finfo(dtype).eps))


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


def test_mse_of_a_number_without_axes_whose_square_overflows_is_accurate(backend, dtype):
    y = np.array(np.finfo(dtype).max ** 0.75, dtype)
    with np.errstate(over="ignore"):
        loss, grad = fa.mse(y, np.zeros_like(y))
        wanted = np.multiply(y, y, dtype=np.float64)
    assert loss == pytest.approx(float(wanted), rel=1e-6)
    assert grad == 2 * y


def test_mse_of_equal_arrays_is_zero(backend, dtype):
    loss, grad = fa.mse(np.full(5, LARGEST[dtype.name], dtype), np.full(5, LARGEST[dtype.name], dtype))
    assert loss == 0
    assert not grad.any()


def test_mse_of_an_infinite_difference_is_infinite(backend, dtype):
    loss, grad = fa.mse(np.array([math.inf, 1.0], dtype), np.zeros(2, dtype))
    assert loss == math.inf
    np.testing.assert_array_equal(grad, [math.inf, 1.0])


def test_losses_without_rows_are_zero(backend):
    loss, grad = fa.softmax_cross_entropy(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert (loss, grad.shape) == (0.0, (0, 3))
    for f in PAIR_LOSSES:
        loss, grad = f(np.zeros((0, 3)), np.zeros((0, 3)))
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
        (lambda: fa.huber(X, X[:1]), ValueError, "target: got shape"),
        (lambda: fa.huber(X, X, delta=0), ValueError, "delta: got 0, wanted a number above 0"),
        (lambda: fa.huber(X, X, delta=math.inf), ValueError, "delta: got inf"),
        (lambda: fa.huber(X, X, delta="1"), TypeError, "delta: got '1', wanted a number"),
        (lambda: fa.binary_cross_entropy_with_logits([1.0], X), TypeError, "logits: got list"),
        (
            lambda: fa.binary_cross_entropy_with_logits(X, X.astype(int)),
            TypeError,
            "target: got dtype int64, wanted float64: try",
        ),
        *(
            (
                lambda s=s: fa.softmax_cross_entropy(X, np.zeros(2, int), label_smoothing=s),
                ValueError,
                rf"label_smoothing: got {s}, wanted a number from 0 to 1",
            )
            for s in (-0.1, 1.5, math.nan, math.inf)
        ),
        (
            lambda: fa.softmax_cross_entropy(X, np.zeros(2, int), label_smoothing=None),
            TypeError,
            "label_smoothing: got None, wanted a number",
        ),
        (
            lambda: fa.softmax_cross_entropy(X, np.zeros(2, int), ignore_index=0.5),
            TypeError,
            "ignore_index: got 0.5, wanted an int",
        ),
        (
            lambda: fa.softmax_cross_entropy(X, np.zeros(2, int), ignore_index=2**63),
            ValueError,
            "ignore_index: got 9223372036854775808, wanted an int64",
        ),
    ],
)
def test_losses_reject_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
