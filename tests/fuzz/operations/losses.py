"""The losses: each returns a number and the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from support.tolerance import gamma

import fastact as fa
from fastact import backends

from ..bounds import assert_close
from ..case import Case, Option, Results
from ..draw import SMALL, Draw

# Docstrings and tests/test_loss_accuracy.py promise half of it; the float64 result is off by as much.
EPSILONS = 8
PAIRWISE = 64  # roundings of a sum in float64, at most


def check_loss(draw: Draw, exact: tuple[float, Any], scale: float, scales: Any, results: Results) -> None:
    """The loss and its gradient are within EPSILONS eps of `scale` and of `scales`."""
    info = np.finfo(draw.dtype)
    eps, tiny = float(info.eps), float(info.smallest_subnormal)
    roundings = gamma(PAIRWISE, np.float64)
    loss, grad = results
    allowed = (EPSILONS * eps + roundings) * scale + 2 * tiny
    assert_close("loss", np.asarray(np.float64(loss)), np.asarray(exact[0]), allowed)
    assert_close("grad", grad, exact[1], EPSILONS * eps * scales + 2 * tiny, scales)


def softmax_cross_entropy(draw: Draw) -> Case:
    rows, classes = draw.choice((*SMALL, 33, 97)), draw.choice((1, 2, 3, 5, 10, 16, 17, 31, 100))
    if draw.chance(0.003):
        rows, classes = draw.choice(((2000, 33), (300, 1000), (9, 20000), (70000, 2)))
    logits = draw.numbers(rows, classes)
    labels = draw.rng.integers(0, classes, rows)
    ignore = draw.choice((-100, -100, 0, classes - 1))
    if ignore < 0:
        labels[draw.rng.random(rows) < 0.2] = ignore
    smoothing = draw.choice((0.0, 0.0, 0.1, 1.0))
    wide, grad = logits.astype(np.float64), np.empty((rows, classes))
    reference: Any = backends.get("numpy")
    loss = reference.softmax_cross_entropy(wide, labels, smoothing, ignore, grad)
    used = np.flatnonzero(labels != ignore)
    z, target = wide[used], np.full((len(used), classes), smoothing / classes)
    target[np.arange(len(used)), labels[used]] += 1 - smoothing
    m = z.max(axis=1, keepdims=True, initial=-math.inf)
    e = np.exp(z - m)
    total = e.sum(axis=1, keepdims=True)
    scale = np.where(target > 0, target * (np.abs(np.log(total)) + m - z), 0).sum() / max(1, len(used))
    scales = np.zeros((rows, classes))
    scales[used] = (e / total + target) / max(1, len(used))

    def check(option: Option, results: Results, backend: str) -> None:
        finite_scales = np.where(np.isfinite(scales), scales, 0)
        check_loss(draw, (loss, grad), float(scale) if math.isfinite(scale) else 0.0, finite_scales, results)

    options = [{"label_smoothing": smoothing, "ignore_index": ignore}]
    inputs = {"logits": logits, "labels": labels}
    return Case(fa.softmax_cross_entropy, inputs, check, (), options, work=60 * logits.size)


def _pair(
    name: str, draw: Draw, first: str, scales_of: Callable[[Any, Any, Any], Any], **keywords: float
) -> Case:
    shape = draw.rows() if draw.chance(0.8) else draw.shape(draw.choice((0, 1, 3)))
    y, target = draw.numbers(*shape), draw.numbers(*shape)
    if name == "binary_cross_entropy_with_logits":
        target = np.asarray(draw.rng.random(shape)).astype(draw.dtype)
    grad = np.empty(shape)
    wide, wide_target = y.astype(np.float64), target.astype(np.float64)
    reference: Any = backends.get("numpy")
    loss = getattr(reference, name)(wide, wide_target, *keywords.values(), grad)
    if name == "mse" and y.size and unusual(loss):
        loss, grad = fa.nn.losses._scaled_mse(wide, wide_target, grad, loss)
    scales = scales_of(grad, wide, wide_target)

    def check(option: Option, results: Results, backend: str) -> None:
        limited = np.where(np.isfinite(scales), scales, 0)
        check_loss(draw, (loss, grad), abs(loss) if math.isfinite(loss) else 0.0, limited, results)

    return Case(getattr(fa, name), {first: y, "target": target}, check, (), [keywords], work=30 * y.size)


def unusual(loss: float) -> bool:
    """Whether squares may have left the range of float64, or one is NaN."""
    return not 1e-290 <= loss < math.inf


def mse(draw: Draw) -> Case:
    return _pair("mse", draw, "y", lambda grad, y, target: np.abs(grad))


def huber(draw: Draw) -> Case:
    return _pair("huber", draw, "y", lambda grad, y, target: np.abs(grad), delta=draw.choice((1.0, 0.3, 5.0)))


def binary_cross_entropy(draw: Draw) -> Case:
    def scales(grad: Any, z: Any, target: Any) -> Any:
        e = np.exp(-np.abs(z))
        return (np.where(z > 0, 1, e) / (1 + e) + target) / max(1, z.size)

    return _pair("binary_cross_entropy_with_logits", draw, "logits", scales)


OPERATIONS = {
    "softmax_cross_entropy": (softmax_cross_entropy, 3.0),
    "mse": (mse, 2.0),
    "huber": (huber, 2.0),
    "binary_cross_entropy_with_logits": (binary_cross_entropy, 2.0),
}
