"""What an estimator minimises: a loss of `fastact.nn`, and the same with a weight for each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from ..nn import binary_cross_entropy_with_logits, mse, softmax_cross_entropy

Array = np.ndarray[Any, Any]


class Loss(NamedTuple):
    """A mean over the samples of a batch, and its terms."""

    mean: Callable[[Array, Array], tuple[float, Array]]  # (outputs, target) -> loss, grad_outputs
    terms: Callable[[Array, Array], Array]  # (outputs, target) -> (samples,)

    def weighted(self, outputs: Array, target: Array, weight: Array) -> tuple[float, Array]:
        """sum(weight * terms) / sum(weight) for weights (samples,) above 0, and its gradient."""
        _, grad = self.mean(outputs, target)
        grad *= (weight * (len(weight) / weight.sum())).astype(grad.dtype)[:, np.newaxis]
        return float(np.average(self.terms(outputs, target), weights=weight)), grad


# By the activation that turns the network's outputs into predictions.
LOSSES = {
    "softmax": Loss(
        softmax_cross_entropy,
        lambda logits, labels: logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels],
    ),
    "logistic": Loss(
        binary_cross_entropy_with_logits,
        lambda logits, target: (np.logaddexp(0, logits) - logits * target).mean(axis=1),
    ),
    "identity": Loss(mse, lambda y, target: np.square(y - target).mean(axis=1)),
}
