"""Softmax cross-entropy: one row after the other."""

# Kernels are typed by Numba.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...checks import label_error
from . import pool
from .arguments import as_carray
from .blocks import CELL
from .compile import compiled

Array = np.ndarray[Any, Any]

_LOGIT_WORK = 60  # floating-point operations that take as long as one logit, roughly


@compiled
def _add(high, low, term):
    """high + low + term, of which the second number is the rounding errors of the first (Knuth's two-sum)."""
    total = high + term
    seen = total - high
    return total, low + ((high - (total - seen)) + (term - seen))


@compiled
def _row_gradient(z, label, base, own, scale, share, grad):
    """grad = scale (softmax - target); returns share times the loss.

    A target is `base`, and `own` more for the label.  With m the largest logit, x = z - m and e = exp(x), the
    sum of e is ties + rest: ties logits equal m, and the e of the others add up to rest.
    """
    m = -np.inf
    for k in range(len(z)):
        m = max(m, float(z[k]))
    ties, rest, rest_low, below, below_low = 0, 0.0, 0.0, 0.0, 0.0
    for k in range(len(z)):
        logit = float(z[k])
        x = logit - m
        e = math.exp(x)
        if x > -np.inf:
            rounded = x - logit
            e += e * ((logit - (x - rounded)) - (m + rounded))
        grad[k] = e
        if x == 0:
            ties += 1
        else:
            rest, rest_low = _add(rest, rest_low, e)
        if base > 0:
            below, below_low = _add(below, below_low, base * (m * share - logit * share))
    rest += rest_low
    factor = scale / (ties + rest)
    for k in range(len(z)):
        grad[k] = grad[k] * factor - base * scale
    grad[label] -= own * scale
    loss = (math.log(ties) + math.log1p(rest / ties)) * share
    if own > 0:  # 0 times infinity is 0
        loss += own * (m * share - float(z[label]) * share)
    return loss + (below if math.isinf(below) else below + below_low)


@compiled
def _cross_entropy_cells(
    rows, logits, labels, ignore_index, base, own, scale, share, grad, losses, first, last
):
    """losses (rows) = share times each row's loss; a cell is `rows` rows."""
    for row in range(first * rows, min(last * rows, len(logits))):
        label = labels[row]
        if (
            label == ignore_index or label < 0 or label >= logits.shape[1]
        ):  # another thread may write to labels
            losses[row] = 0.0
            grad[row, :] = 0.0
        else:
            losses[row] = _row_gradient(logits[row], label, base, own, scale, share, grad[row])


@compiled
def _count_used(labels, ignore_index, classes):
    """How many labels are not `ignore_index`, or -1 if one of them names no class."""
    used = 0
    for label in labels:
        if label != ignore_index:
            if label < 0 or label >= classes:
                return -1
            used += 1
    return used


@compiled
def _sum(terms):
    high, low = 0.0, 0.0
    for term in terms:
        high, low = _add(high, low, term)
    return high if math.isinf(high) else high + low


def softmax_cross_entropy(
    logits: Array, labels: Array, label_smoothing: float, ignore_index: int, grad: Array, threads: int = 0
) -> float:
    classes = logits.shape[-1]
    labels = as_carray(labels).reshape(-1)
    used = int(_count_used(labels, ignore_index, classes))
    if used < 0:
        raise label_error(labels, classes, ignore_index)
    if not grad.size:
        return 0.0
    rows, share = max(1, CELL // classes), 0.5 ** len(labels).bit_length()
    scale = 1 / max(used, 1)
    losses = np.empty(len(labels))
    pool.run(
        _cross_entropy_cells,
        pool.count_cells((len(labels), rows)),
        float(_LOGIT_WORK * logits.size),
        threads,
        rows,
        as_carray(logits).reshape(-1, classes),
        labels,
        ignore_index,
        label_smoothing / classes,
        1 - label_smoothing,
        scale,
        share,
        grad.reshape(-1, classes),
        losses,
    )
    return float(_sum(losses)) / max(used, 1) / share
