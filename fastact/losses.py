"""Losses: each returns the loss, a Python float, and its gradient with respect to the network's output.

A loss is the mean over rows, and 0 where there are none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import backends, settings
from .activations import ARRAYS
from .checks import check_array, check_shape, contiguous

Array = np.ndarray[Any, Any]


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """The mean of -log softmax(logits)[label], and its gradient (softmax(logits) - one_hot(labels)) / rows.

    The largest logit of a row is taken off first, so that no exponential overflows.

    Args:
        logits: (..., classes), float32 or float64.
        labels: (...), integers from 0 to classes - 1.

    Returns:
        The loss, and grad_logits, of the shape and dtype of logits.

    Raises:
        TypeError: logits are no float array, or labels no integer array.
        ValueError: shapes do not agree, or a label is out of range.
    """
    check_array("logits", logits)
    if type(labels) not in ARRAYS or labels.dtype.kind not in "iu":
        got = f"dtype {labels.dtype}" if type(labels) in ARRAYS else type(labels).__name__
        raise TypeError(f"labels: got {got}, wanted a numpy.ndarray of integers")
    if logits.ndim == 0:
        raise ValueError("logits: got shape (), wanted (..., classes)")
    check_shape("labels", labels.shape, logits.shape[:-1])
    classes = logits.shape[-1]
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels: got {labels.min()} to {labels.max()}, wanted 0 to {classes - 1}")

    rows = labels.size
    index = labels.reshape(rows, 1).astype(np.intp)
    with np.errstate(invalid="ignore"):  # a row with an infinite largest logit has a loss of NaN
        grad = logits.reshape(rows, classes)
        grad = grad - grad.max(axis=1, initial=-math.inf, keepdims=True)
        picked = np.take_along_axis(grad, index, axis=1)
        np.exp(grad, out=grad)
        total = grad.sum(axis=1, keepdims=True)
        loss = float(np.sum(np.log(total) - picked, dtype=np.float64)) / max(rows, 1)
        grad /= total
    np.put_along_axis(grad, index, np.take_along_axis(grad, index, axis=1) - 1, axis=1)
    grad /= max(rows, 1)
    return loss, grad.reshape(logits.shape)


def mse(y: Array, target: Array) -> tuple[float, Array]:
    """The mean of (y - target)² over all elements, and its gradient 2 (y - target) / size.

    That is the mean over rows of each row's mean squared error.

    Args:
        y, target: of one shape and dtype, float32 or float64.

    Returns:
        The loss, and grad_y, of y's shape and dtype.

    Raises:
        TypeError: one is no array, or of another dtype.  ValueError: shapes do not agree.
    """
    check_array("y", y)
    check_array("target", target, y.dtype)
    check_shape("target", target.shape, y.shape)
    grad = np.empty(y.shape, y.dtype)
    loss = backends.active().mse(contiguous(y), contiguous(target), grad, settings.requested_threads())
    return loss, grad
