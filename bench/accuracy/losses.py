"""Losses and their gradients against mpmath, on numbers of all magnitudes.

A loss is held to the sum of its terms' magnitudes, and a gradient likewise, as the docstrings promise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import fastact as fa

from .figures import Array, Figure, Pair, in_two, in_u, mp, worst

HUBER_DELTAS = (1.0, 0.3, 1e-30, 1e30, 1e300)


# ---- softmax cross-entropy


class CrossEntropy(NamedTuple):
    """A batch, and its exact results with the sums of the magnitudes of their terms."""

    logits: Array
    labels: Array
    loss: Pair
    loss_terms: float
    grad: Pair
    grad_terms: Array


def drawn(classes: int, dtype: Any) -> tuple[Array, Array]:
    """Logits of several magnitudes: some rows differ little, in some a few classes count, in some one."""
    rng = np.random.default_rng(classes)
    rows = 36 if classes < 20 else 6 if classes < 2000 else 1  # 36: more than a block of rows on AVX-512
    logits = rng.standard_normal((rows, classes))
    logits *= np.resize([1.0, 30.0, 1e-3, 500.0], (rows, 1))
    return logits.astype(dtype), rng.integers(0, classes, rows)


def extreme(dtype: Any) -> tuple[Array, Array]:
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
def cross_entropy(
    case: int | str, dtype: np.dtype[Any], smoothing: float, ignore_index: int = -100
) -> CrossEntropy:
    """The batch `case`, "extreme" or a number of classes."""
    logits, labels = drawn(case, dtype) if isinstance(case, int) else extreme(dtype)
    rows, classes = logits.shape
    used = [r for r in range(rows) if labels[r] != ignore_index]
    share, base, own = 1 / mp.mpf(max(len(used), 1)), mp.mpf(smoothing) / classes, 1 - mp.mpf(smoothing)
    total, grads, scales = mp.mpf(0), [mp.mpf(0)] * logits.size, np.zeros(logits.shape)
    for r in used:
        z = [mp.mpf(x) for x in logits[r].tolist()]
        m, label = max(z), r * classes + labels[r]
        e = [mp.exp(x - m) for x in z]
        whole, ties = sum(e), z.count(m)
        total += mp.log(ties) + mp.log1p(sum(p for p, x in zip(e, z, strict=True) if x != m) / ties)
        total += own * (m - z[labels[r]]) + base * sum(m - x for x in z)
        grads[r * classes : (r + 1) * classes] = ((p / whole - base) * share for p in e)
        grads[label] -= own * share
        scales[r] = np.array([float(p) for p in e]) / float(whole) + float(base)
        scales[r, labels[r]] += float(own)
    loss = total * share
    return CrossEntropy(
        logits, labels, in_two([loss]), float(loss), in_two(grads), scales.ravel() * float(share)
    )


def _cross_entropy(dtype: np.dtype[Any]) -> Iterator[tuple[Array, Array]]:
    for case in ("extreme", 1, 3, 17, 97, 600):
        for smoothing in (0.0, 0.1):
            exact = cross_entropy(case, dtype, smoothing)
            loss, grad = fa.softmax_cross_entropy(exact.logits, exact.labels, label_smoothing=smoothing)
            yield (
                _of_loss(loss, exact.loss, exact.loss_terms, dtype),
                in_u(grad, exact.grad, exact.grad_terms),
            )


# ---- losses of pairs of numbers


class Pairs(NamedTuple):
    """Pairs, and for each the exact loss, its derivative, and the magnitude of the derivative's terms."""

    y: Array
    target: Array
    losses: list[Any]
    grads: list[Any]
    terms: Array


@functools.cache
def binary(dtype: np.dtype[Any]) -> Pairs:
    """Logits from 0 to where exp overflows, and targets from 0 to 1."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    edges = [0, 1e-3, 0.5, 1, 17, 37, 88, 104, 700, 745, 746, 1e4, info.tiny, info.smallest_subnormal]
    logits = [*edges, *(-np.array(edges)), *rng.standard_normal(20), *rng.normal(0, 20, 20)]
    targets = [0, 1, 0.5, 0.75, info.tiny, 1 - info.eps, *rng.uniform(0, 1, 4)]
    z, t = (a.ravel() for a in np.meshgrid(np.array(logits, dtype), np.array(targets, dtype)))
    losses, grads, scales = [], [], []
    for logit, target in zip(z.tolist(), t.tolist(), strict=True):
        e = mp.exp(-abs(mp.mpf(logit)))
        losses.append(
            mp.log1p(e) + abs(mp.mpf(logit)) * (1 - mp.mpf(target) if logit > 0 else mp.mpf(target))
        )
        sigmoid = (1 if logit > 0 else e) / (1 + e)
        grads.append(sigmoid - mp.mpf(target))
        scales.append(float(sigmoid + mp.mpf(target)))
    return Pairs(z, t, losses, grads, np.array(scales))


def _apart(dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Numbers of all magnitudes, and targets."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    largest = float(info.max)
    some = [0, 1, -1, 0.5, 2, 3, -2.5, 1e-3, 1e4, float(info.tiny), largest / 4, -largest / 2, largest**0.5]
    y, t = (a.ravel() for a in np.meshgrid(np.array([*some, *rng.standard_normal(20)], dtype), some[:12]))
    return y, t.astype(dtype)


@functools.cache
def huber(dtype: np.dtype[Any], delta: float) -> Pairs:
    """Numbers of all magnitudes."""
    y, t = _apart(dtype)
    losses, grads = [], []
    for a, b in zip(y.tolist(), t.tolist(), strict=True):
        d = mp.mpf(a) - mp.mpf(b)
        small = abs(d) <= delta
        losses.append(d * d / 2 if small else delta * (abs(d) - mp.mpf(delta) / 2))
        grads.append(d if small else mp.sign(d) * delta)
    return Pairs(y, t, losses, grads, np.array([abs(float(grad)) for grad in grads]))


@functools.cache
def squares(dtype: np.dtype[Any], extreme: bool) -> Pairs:
    """Differences of a few units, also of numbers that are nearly equal; or of all magnitudes."""
    if extreme:
        y, t = _apart(dtype)
    else:
        rng = np.random.default_rng(0)
        y = rng.standard_normal(SQUARES).astype(dtype)
        t = np.where(rng.random(SQUARES) < 0.5, y * dtype.type(1.001), rng.standard_normal(SQUARES)).astype(
            dtype
        )
    differences = [mp.mpf(a) - mp.mpf(b) for a, b in zip(y.tolist(), t.tolist(), strict=True)]
    grads = [2 * d for d in differences]
    return Pairs(y, t, [d * d for d in differences], grads, np.array([abs(float(grad)) for grad in grads]))


SQUARES = 4000


def _of_loss(loss: float, exact: Pair, terms: float, dtype: np.dtype[Any]) -> Array:
    """The error of a loss in u of `dtype`; infinite where an infinite one is not beyond float64."""
    if math.isinf(exact[0][0]):
        return np.array([0.0 if loss == math.inf else math.inf])
    u = float(np.finfo(dtype).eps) / 2
    off = abs((loss - exact[0][0]) - exact[1][0]) - float(np.finfo(dtype).smallest_subnormal)
    return np.array([0.0 if off <= 0 else off / (u * terms)])


def _errors(call: Any, pairs: Pairs, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Of the loss and of the gradient, in u; gradients beyond the dtype have to be infinite."""
    loss, grad = call(pairs.y, pairs.target)
    mean, size = sum(pairs.losses) / pairs.y.size, pairs.y.size
    return (
        _of_loss(loss, in_two([mean]), float(mean), dtype),
        in_u(grad, in_two(g / size for g in pairs.grads), pairs.terms / size),
    )


def _figures(name: str, errors: Iterator[tuple[Array, Array]]) -> Iterator[Figure]:
    losses, grads = (np.concatenate(found) for found in zip(*errors, strict=True))
    yield worst(f"{name} loss", "u", losses)
    yield worst(f"{name} gradient", "u", grads)


def measure(dtype: np.dtype[Any]) -> Iterator[Figure]:
    """The figures of a dtype, with the backend in force."""
    yield from _figures("softmax_cross_entropy", _cross_entropy(dtype))
    of_binary = _errors(fa.binary_cross_entropy_with_logits, binary(dtype), dtype)
    yield from _figures("binary_cross_entropy", iter([of_binary]))
    of_huber = (
        _errors(functools.partial(fa.huber, delta=delta), huber(dtype, delta), dtype)
        for delta in HUBER_DELTAS
    )
    yield from _figures("huber", of_huber)
    yield from _figures("mse", iter([_errors(fa.mse, squares(dtype, False), dtype)]))
    yield from _figures("mse of extremes", iter([_errors(fa.mse, squares(dtype, True), dtype)]))
