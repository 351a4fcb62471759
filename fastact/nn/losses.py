"""Losses: each returns the loss, a Python float, and its gradient with respect to the network's output.

A loss is the mean over rows, and 0 for an empty batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends, settings
from ..checks import ARRAYS, Array, Shape, check_array, check_shape, contiguous, hint

_INDEX = np.dtype(np.int64)  # for labels
# Above this mean, squares that underflow are too small to matter; by the char of a dtype.
_SMALLEST_MEAN_SQUARE = {char: float(np.finfo(char).tiny / np.finfo(char).eps) for char in "fd"}


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """The mean of -log softmax(logits)[label], and its gradient (softmax(logits) - one_hot(labels)) / rows.

    The largest logit of a row is subtracted first, so that no exponential overflows.  The result is the same
    to the bit for every memory layout of the logits, and `np.seterr` has no effect.  A row with a NaN, or
    whose largest logit is infinite, makes the loss and its own gradient NaN.

    Args:
        logits: (..., classes), float32 or float64.
        labels: (...), integers from 0 to classes - 1, not one-hot.

    Returns:
        The loss, and grad_logits, of the shape and dtype of logits.

    Raises:
        TypeError: logits is not a float array, or labels is not an integer array.
        ValueError: shapes do not agree, there are rows but no classes, or a label is out of range.
    """
    check_array("logits", logits)
    if logits.ndim == 0:
        raise ValueError("logits: got shape (), wanted (..., classes)")
    _check_labels(labels, logits.shape)
    rows, classes = labels.size, logits.shape[-1]
    if rows and not classes:
        raise ValueError(f"logits: got shape {logits.shape}, wanted at least one class")
    if rows and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels: got {labels.min()} to {labels.max()}, wanted 0 to {classes - 1}")

    index = labels.reshape(rows, 1).astype(np.intp)
    share = 0.5 ** rows.bit_length()  # below 1 / rows: losses times it, and their sum, do not overflow
    with np.errstate(all="ignore"):
        grad = np.array(logits, order="C").reshape(rows, classes)
        largest = grad.max(axis=1, initial=-math.inf, keepdims=True)
        picked = np.take_along_axis(grad, index, axis=1).astype(np.float64)
        below = largest.astype(np.float64) * share - picked * share
        grad -= largest
        np.exp(grad, out=grad)
        total = grad.sum(axis=1, keepdims=True)
        loss = float(np.sum(np.log(total, dtype=np.float64) * share + below)) / max(rows, 1) / share
        grad /= total
        np.put_along_axis(grad, index, np.take_along_axis(grad, index, axis=1) - 1, axis=1)
        grad /= max(rows, 1)
    return loss, grad.reshape(logits.shape)


def _check_labels(labels: Any, logits: Shape) -> None:
    """labels is an integer array of the shape of the logits without its last axis, the classes."""
    if type(labels) not in ARRAYS:
        kind = type(labels).__name__
        raise TypeError(f"labels: got {kind}, wanted a numpy.ndarray of integers{hint(labels, _INDEX)}")
    cure = ""
    if labels.shape == logits:  # one-hot
        cure = f": try np.argmax(labels, {labels.ndim - 1})"
    elif labels.shape == (*logits[:-1], 1):
        cure = ": try labels[..., 0]"
    if labels.dtype.kind not in "iu":
        cure = cure or hint(labels.dtype, _INDEX)
        raise TypeError(f"labels: got dtype {labels.dtype}, wanted a numpy.ndarray of integers{cure}")
    if labels.shape != logits[:-1]:
        raise ValueError(f"labels: got shape {labels.shape}, wanted {logits[:-1]}{cure}")


def mse(y: Array, target: Array) -> tuple[float, Array]:
    """The mean of (y - target)² over all elements, and its gradient 2 (y - target) / size.

    This equals the mean over rows of each row's mean squared error.  The loss is right even where squares or
    differences leave the range of the dtype, and infinite only beyond float64.  `np.seterr` has no effect.

    Args:
        y, target: arrays of the same shape and dtype, float32 or float64.

    Returns:
        The loss, and grad_y, of y's shape and dtype.

    Raises:
        TypeError: y or target is not an array, or has the wrong dtype.
        ValueError: shapes do not agree.
    """
    check_array("y", y)
    check_array("target", target, y.dtype)
    check_shape("target", target.shape, y.shape)
    grad = np.empty(y.shape, y.dtype)
    y, target = contiguous(y), contiguous(target)
    loss: float = backends.active().mse(y, target, grad, settings.requested_threads())
    if not _SMALLEST_MEAN_SQUARE[y.dtype.char] <= loss < math.inf and y.size and not math.isnan(loss):
        return _scaled_mse(y, target, grad, loss)
    return loss, grad


def _scaled_mse(y: Array, target: Array, grad: Array, loss: float) -> tuple[float, Array]:
    """`mse` in float64, relative to the largest difference, for squares that overflow or underflow."""
    half = 0.5 if loss == math.inf else 1.0  # halves of two numbers differ by a finite number
    with np.errstate(all="ignore"):
        off = y.astype(np.float64) * half - target.astype(np.float64) * half
        largest = float(np.abs(off).max())
        if largest == 0 or largest == math.inf:
            return loss, grad
        if loss == math.inf:
            grad[...] = off * (2 / half / off.size)
        loss = float(np.mean(np.square(off / largest)))
    return loss * (largest / half) * (largest / half), grad
