"""Losses: each returns the loss, a Python float, and its gradient with respect to the network's output.

A loss is the mean over rows or elements, and 0 where there are none.  Its results are the same to the bit for
every memory layout of the arguments and for any number of threads.  `np.seterr` has no effect.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends, settings
from ..checks import (
    ARRAYS,
    FLOATS,
    Array,
    Shape,
    check_array,
    check_int,
    check_number,
    check_positive,
    check_shape,
    contiguous,
    hint,
    label_error,
    shown,
)

_INDEX = np.dtype(np.int64)  # for labels
_LEAST_INDEX, _LARGEST_INDEX = int(np.iinfo(_INDEX).min), int(np.iinfo(_INDEX).max)
# Above this mean, squares that underflow are too small to matter; by the char of a dtype.
_SMALLEST_MEAN_SQUARE = {char: float(np.finfo(char).tiny / np.finfo(char).eps) for char in "fd"}


def softmax_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0, ignore_index: int = -100
) -> tuple[float, Array]:
    """The mean of -log softmax(logits)[label], and its gradient (softmax(logits) - target) / rows.

    target is one_hot(labels); label smoothing (Szegedy et al. 2016) mixes it with the uniform distribution:
    target = (1 - label_smoothing) one_hot(labels) + label_smoothing / classes, and the loss of a row is
    -sum(target log softmax(logits)).  Rows whose label is ignore_index have a gradient of 0 and do not count
    in the mean; if no rows are left, the loss is 0.  Both arguments mean what they do in PyTorch.

    The largest logit of a row is subtracted first, so that no exponential overflows.  A row with a NaN, or
    whose largest logit is infinite, makes the loss and its own gradient NaN, unless the row is ignored.

    Error bounds, with eps of logits' dtype and m the largest logit of a row: a row's loss is within
    4 eps sum(target (|log sum exp(logits - m)| + m - logits)), a gradient within
    4 eps (softmax + target) / rows plus the smallest subnormal number.

    Args:
        logits: (..., classes), float32 or float64.
        labels: (...), integers from 0 to classes - 1 or ignore_index, not one-hot.
        label_smoothing: a number from 0 to 1.
        ignore_index: an int64; it may be the number of a class.

    Returns:
        The loss, and grad_logits, of the shape and dtype of logits.

    Raises:
        TypeError: logits is not a float array, labels is not an integer array, label_smoothing is not a
            number, or ignore_index is not an int.
        ValueError: shapes do not agree, there are rows but no classes, or a label, label_smoothing or
            ignore_index is out of range.
    """
    if (
        type(logits) not in ARRAYS
        or type(labels) not in ARRAYS
        or labels.dtype is not _INDEX
        or logits.dtype not in FLOATS
        or logits.shape[:-1] != labels.shape
        or not (logits.ndim and logits.size)
        or type(label_smoothing) is not float
        or not 0.0 <= label_smoothing <= 1.0
        or type(ignore_index) is not int
        or not _LEAST_INDEX <= ignore_index <= _LARGEST_INDEX
    ):
        labels, label_smoothing, ignore_index = _checked(logits, labels, label_smoothing, ignore_index)
    grad = np.empty(logits.shape, logits.dtype)
    loss = backends.active().softmax_cross_entropy(
        contiguous(logits),
        contiguous(labels),
        label_smoothing,
        ignore_index,
        grad,
        settings.threads_and_mode(),
    )
    return loss, grad


def _checked(logits: Any, labels: Any, label_smoothing: Any, ignore_index: Any) -> tuple[Array, float, int]:
    """The labels as int64 and the checked numbers; raises for what `softmax_cross_entropy` can't take."""
    check_array("logits", logits)
    if logits.ndim == 0:
        raise ValueError("logits: got shape (), wanted (..., classes)")
    _check_labels(labels, logits.shape)
    if labels.size and not logits.shape[-1]:
        raise ValueError(f"logits: got shape {logits.shape}, wanted at least one class")
    smoothing = check_number("label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing: got {shown(label_smoothing)}, wanted a number from 0 to 1")
    index = check_int("ignore_index", ignore_index)
    if not _LEAST_INDEX <= index <= _LARGEST_INDEX:
        raise ValueError(f"ignore_index: got {shown(ignore_index)}, wanted an int64")
    if labels.dtype.kind == "u" and labels.size and labels.max() > _LARGEST_INDEX:
        raise label_error(labels, logits.shape[-1], index)  # int64 would wrap it
    return labels.astype(_INDEX), smoothing, index


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


def _check_pair(name: str, y: Any, target: Any) -> None:
    """`y`, the argument `name`, and `target` are float arrays of the same shape and dtype."""
    if (
        type(y) not in ARRAYS
        or type(target) not in ARRAYS
        or y.dtype not in FLOATS
        or target.dtype != y.dtype
        or target.shape != y.shape
    ):
        check_array(name, y)
        check_array("target", target, y.dtype)
        check_shape("target", target.shape, y.shape)


def binary_cross_entropy_with_logits(logits: Array, target: Array) -> tuple[float, Array]:
    """The mean of log(1 + exp(z)) - z target over all elements z of logits, and its gradient.

    The gradient is (sigmoid(z) - target) / size.  The loss of an element is that of a classifier whose
    probability of the first of two classes is sigmoid(z), where target is the true one.  A target outside
    [0, 1] is not refused, as in PyTorch.  No exponential overflows.  A NaN, and an infinite logit times a
    target of 0 or 1 that agrees with it, makes the loss NaN.

    Error bounds, with eps of logits' dtype and a target in [0, 1]: an element's loss is within 4 eps of
    itself, a gradient within 4 eps (sigmoid + target) / size plus the smallest subnormal number.

    Args:
        logits, target: arrays of the same shape and dtype, float32 or float64.

    Returns:
        The loss, and grad_logits, of the shape and dtype of logits.

    Raises:
        TypeError: logits or target is not an array, or has the wrong dtype.
        ValueError: shapes do not agree.
    """
    _check_pair("logits", logits, target)
    grad = np.empty(logits.shape, logits.dtype)
    loss = backends.active().binary_cross_entropy_with_logits(
        contiguous(logits), contiguous(target), grad, settings.threads_and_mode()
    )
    return loss, grad


def huber(y: Array, target: Array, *, delta: float = 1.0) -> tuple[float, Array]:
    """The mean of Huber's loss over all elements (Huber 1964), and its gradient.

    With d = y - target, the loss of an element is d² / 2 where |d| <= delta, else delta (|d| - delta / 2);
    its derivative is d, limited to [-delta, delta].  The loss is infinite only beyond float64.

    Error bounds, with eps of y's dtype: the loss is within 4 eps of itself and a gradient within 4 eps of
    itself, each plus the smallest subnormal number.

    Args:
        y, target: arrays of the same shape and dtype, float32 or float64.
        delta: a finite number above 0.

    Returns:
        The loss, and grad_y, of y's shape and dtype.

    Raises:
        TypeError: y or target is not an array, or has the wrong dtype; delta is not a number.
        ValueError: shapes do not agree, or delta is out of range.
    """
    _check_pair("y", y, target)
    delta = check_positive("delta", delta)
    grad = np.empty(y.shape, y.dtype)
    loss = backends.active().huber(
        contiguous(y), contiguous(target), delta, grad, settings.threads_and_mode()
    )
    return loss, grad


def mse(y: Array, target: Array) -> tuple[float, Array]:
    """The mean of (y - target)² over all elements, and its gradient 2 (y - target) / size.

    This equals the mean over rows of each row's mean squared error.  The loss and the gradient are right even
    where squares or differences leave the range of the dtype; the loss is infinite only beyond float64.

    Args:
        y, target: arrays of the same shape and dtype, float32 or float64.

    Returns:
        The loss, and grad_y, of y's shape and dtype.

    Raises:
        TypeError: y or target is not an array, or has the wrong dtype.
        ValueError: shapes do not agree.
    """
    _check_pair("y", y, target)
    grad = np.empty(y.shape, y.dtype)
    y, target = contiguous(y), contiguous(target)
    loss = backends.active().mse(y, target, grad, settings.threads_and_mode())
    if not _SMALLEST_MEAN_SQUARE[y.dtype.char] <= loss < math.inf and y.size:
        return _scaled_mse(y, target, grad, loss)
    return loss, grad


def _scaled_mse(y: Array, target: Array, grad: Array, loss: float) -> tuple[float, Array]:
    """`mse` in float64, relative to the largest difference, for squares that overflow or underflow.

    A loss that is infinite or NaN says nothing of the other elements, so the gradient is computed anew.
    """
    half = 1.0 if loss < math.inf else 0.5  # halves of two numbers differ by a finite number
    with np.errstate(all="ignore"):
        # without axes the difference is a number
        off = np.asarray(y.astype(np.float64) * half - target.astype(np.float64) * half)
        if half == 0.5:
            grad[...] = off * (2 / half / off.size)
        largest = float(np.abs(off).max())
        if not 0 < largest < math.inf:
            return loss, grad
        off /= largest
    loss = backends.active().mse(off, np.zeros_like(off), np.empty_like(off), settings.threads_and_mode())
    return loss * (largest / half) * (largest / half), grad
