"""The forward that stands for that of Thinc's LayerNorm, on fastact's kernels."""

# No `from __future__ import annotations` here: Thinc's data validation reads a forward's annotations.

from collections.abc import Callable
from typing import Any

import numpy as np
from thinc.layers.layernorm import forward as thinc_forward
from thinc.types import Floats2d

from .. import backends, checks, settings
from .fused import AnyModel, own_gradient
from .ops import same_float_arrays

_EPS = 1e-8  # what Thinc adds to the variance


def _takes(X: Any, *vectors: Any) -> bool:
    return (
        same_float_arrays(X, *vectors)
        and X.ndim == 2
        and X.shape[1] > 0
        and all(vector.shape == X.shape[1:] for vector in vectors)
    )


def layer_norm_forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callable[..., Any]]:
    """The forward of Thinc's LayerNorm.

    X (rows, nI), the parameters G and b (nI,) -> Y (rows, nI) and a callback that takes dY (rows, nI), adds
    to the gradients of G and b and returns dX (rows, nI).  The active backend computes.  Thinc's own steps
    run for what fastact does not take: a GPU's arrays, other or mixed dtypes, shapes that do not agree.
    """
    x: Any = X
    G: Any = model.get_param("G")
    b: Any = model.get_param("b")
    if not _takes(x, G, b):
        return thinc_forward(model, X, is_train)
    x, G, b = (checks.contiguous(array) for array in (x, G, b))
    Y: Any = np.empty_like(x)
    saved = np.empty((len(x), 2), x.dtype)
    backends.active().layer_norm(x, G, b, _EPS, Y, saved, settings.threads_and_mode())

    def backprop(dY: Any) -> Any:
        if not (same_float_arrays(x, dY) and dY.shape == x.shape):
            return thinc_forward(model, x, True)[1](dY)
        dX = np.empty_like(x)
        sums = [own_gradient(model, name, G) for name in ("G", "b")]
        accumulate = all(grad is not None for grad in sums)
        dG, db = sums if accumulate else np.empty((2, len(G)), x.dtype)
        backends.active().layer_norm_backward(
            checks.contiguous(dY), x, G, saved, dX, dG, db, accumulate, settings.threads_and_mode()
        )
        if not accumulate:
            model.inc_grad("G", dG)
            model.inc_grad("b", db)
        return dX

    return Y, backprop


ORIGINALS = {layer_norm_forward: thinc_forward}
