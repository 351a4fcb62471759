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

import functools
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from support.tolerance import gamma

import fastact as fa

EPSILONS = 4
PAIRWISE = 18
mpmath.mp.dps = 50  # beyond the range of float64 too, since mpmath's exponents have no limit


def in_two(numbers):
    """mpmath's numbers as the sum of two arrays, to twice the precision of float64."""
    first = np.array([float(x) for x in numbers])
    return first, np.array([float(x - mpf(f)) for x, f in zip(numbers, first.tolist(), strict=True)])


def assert_close(actual, exact, scale, dtype, roundings=0.0):
    """`actual` is within EPSILONS eps, and `roundings` relative, of `exact`, a pair of `in_two`."""
    info = np.finfo(dtype)
    error = np.abs((np.ravel(actual).astype(np.float64) - exact[0]) - exact[1])
    bound = (EPSILONS * float(info.eps) + roundings) * scale + float(info.smallest_subnormal)
    assert np.all(error <= bound), f"off by {np.max(error / bound)} times the bound"


# ---- softmax cross-entropy


def drawn(classes, dtype):
    """Logits of several magnitudes: some rows differ little, in some a few classes count, in some one."""
    rng = np.random.default_rng(classes)
    rows = 36 if classes < 20 else 6 if classes < 2000 else 1  # 36: more than a block of rows on AVX-512
    logits = rng.standard_normal((rows, classes))
    logits *= np.resize([1.0, 30.0, 1e-3, 500.0], (rows, 1))
    return logits.astype(dtype), rng.integers(0, classes, rows)


def extreme(dtype):
    """Rows in which nearly all or nearly nothing of the sum is one class's, for each label."""
    largest, tiny = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    rows = [
        [0, -40, -50],
        [0, -80, -80],
        [-700, 0, -745],
        [-720, 0, -1000],
        [5, 5, 5],
        [5, 5, -5],
        [tiny, 0, -tiny],
        [largest, largest, -largest],
        [largest, largest / 2, 0],
        [1, 1 - float(np.finfo(dtype).eps), 0],
    ]
    logits = np.repeat(np.array(rows, dtype), 3, axis=0)
    return logits, np.tile(np.arange(3), len(rows))


@functools.cache
def exact_cross_entropy(case, dtype, smoothing, ignore_index):
    """The arguments; the loss and the gradient as pairs of `in_two`, each with the scale of its bound."""
    logits, labels = extreme(dtype) if case == "extreme" else drawn(case, dtype)
    rows, classes = logits.shape
    used = [r for r in range(rows) if labels[r] != ignore_index]
    share, base, own = 1 / mpf(max(len(used), 1)), mpf(smoothing) / classes, 1 - mpf(smoothing)
    total, grads, scales = mpf(0), [mpf(0)] * logits.size, np.zeros(logits.shape)
    for r in used:
        z = [mpf(x) for x in logits[r].tolist()]
        m, label = max(z), r * classes + labels[r]
        e = [mpmath.exp(x - m) for x in z]
        whole, ties = sum(e), z.count(m)
        total += mpmath.log(ties) + mpmath.log1p(sum(p for p, x in zip(e, z, strict=True) if x != m) / ties)
        total += own * (m - z[labels[r]]) + base * sum(m - x for x in z)
        grads[r * classes : (r + 1) * classes] = ((p / whole - base) * share for p in e)
        grads[label] -= own * share
        scales[r] = [float(p) for p in e] / np.float64(whole) + float(base)
        scales[r, labels[r]] += float(own)
    loss = total * share
    return logits, labels, in_two([loss]), float(loss), in_two(grads), scales.ravel() * float(share)


@pytest.mark.parametrize(("smoothing", "ignore_index"), [(0.0, -100), (0.1, -100), (1.0, 0), (0.0, 1)])
@pytest.mark.parametrize("case", ["extreme", 1, 2, 3, 15, 16, 17, 31, 32, 33, 97, 600])
def test_softmax_cross_entropy_is_accurate(backend, dtype, case, smoothing, ignore_index):
    logits, labels, loss, loss_scale, grads, scales = exact_cross_entropy(
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
    logits, labels, loss, loss_scale, grads, scales = exact_cross_entropy(100_000, floats, 0.1, -100)
    actual, grad = fa.softmax_cross_entropy(logits.astype(dtype), labels, label_smoothing=0.1)
    assert_close(actual, loss, loss_scale, dtype)
    assert_close(grad, grads, scales, dtype)


# ---- element-wise losses


def roundings_of_sum(backend, size):
    return 0.0 if backend == "c" else gamma(PAIRWISE + math.ceil(math.log2(size)), np.float64)


@functools.cache
def exact_binary(dtype):
    """Logits, targets; the loss of each pair, the gradient times the number of pairs, and its scale."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    edges = [0, 1e-3, 0.5, 1, 17, 37, 88, 104, 700, 745, 746, 1e4, info.tiny, info.smallest_subnormal]
    logits = [*edges, *(-np.array(edges)), *rng.standard_normal(20), *rng.normal(0, 20, 20)]
    targets = [0, 1, 0.5, 0.75, info.tiny, 1 - info.eps, *rng.uniform(0, 1, 4)]
    z, t = (a.ravel() for a in np.meshgrid(np.array(logits, dtype), np.array(targets, dtype)))
    losses, grads, scales = [], [], []
    for logit, target in zip(z.tolist(), t.tolist(), strict=True):
        e = mpmath.exp(-abs(mpf(logit)))
        losses.append(mpmath.log1p(e) + abs(mpf(logit)) * (1 - mpf(target) if logit > 0 else mpf(target)))
        sigmoid = (1 if logit > 0 else e) / (1 + e)
        grads.append(sigmoid - mpf(target))
        scales.append(float(sigmoid + mpf(target)))
    return z, t, losses, grads, np.array(scales)


def test_binary_cross_entropy_is_accurate(backend, dtype):
    z, t, losses, grads, scales = exact_binary(dtype)
    size = z.size
    loss, grad = fa.binary_cross_entropy_with_logits(z, t)
    mean = sum(losses) / size
    assert_close(loss, in_two([mean]), float(mean), dtype, roundings_of_sum(backend, size))
    assert_close(grad, in_two([g / size for g in grads]), scales / size, dtype)
    for i in range(size):
        loss, grad = fa.binary_cross_entropy_with_logits(z[i : i + 1], t[i : i + 1])
        assert_close(loss, in_two([losses[i]]), float(losses[i]), dtype)
        assert_close(grad, in_two([grads[i]]), scales[i], dtype)


@functools.cache
def exact_huber(dtype, delta):
    """y, targets; the loss of each pair, and the gradient times the number of pairs."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    largest, root = float(info.max), float(info.max) ** 0.5
    some = [0, 1, -1, 0.5, 2, 3, -2.5, 1e-3, 1e4, float(info.tiny), largest / 4, -largest / 2, root]
    y, t = (a.ravel() for a in np.meshgrid(np.array([*some, *rng.standard_normal(20)], dtype), some[:12]))
    t = t.astype(dtype)
    losses, grads = [], []
    for a, b in zip(y.tolist(), t.tolist(), strict=True):
        d = mpf(a) - mpf(b)
        small = abs(d) <= delta
        losses.append(d * d / 2 if small else delta * (abs(d) - mpf(delta) / 2))
        grads.append(d if small else mpmath.sign(d) * delta)
    return y, t, losses, grads


@pytest.mark.parametrize("delta", [1.0, 0.3, 1e-30, 1e30, 1e300])
def test_huber_is_accurate(backend, dtype, delta):
    y, t, losses, grads = exact_huber(dtype, delta)
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
