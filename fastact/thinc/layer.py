"""Thinc's Maxout layer, fused, with maxout's own initialisation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from thinc.api import Maxout as thinc_Maxout

from ..nn import init
from .acceleration import accelerate
from .fused import AnyModel


def maxout_init(model_ops: Any, shape: tuple[int, int, int]) -> Any:
    """Normal weights (nO, nP, nI) of std sqrt(c / nI), which keeps the scale of what a maxout of nP pieces
    passes on; c as in `fastact.init`.  Drawn from NumPy's global generator, as Thinc's own are."""
    _, pieces, fan_in = shape
    return model_ops.asarray_f(np.random.normal(0, init.maxout_std(fan_in, pieces), shape))  # noqa: NPY002


def Maxout(
    nO: int | None = None,
    nI: int | None = None,
    nP: int | None = 3,
    *,
    init_W: Callable[..., Any] | None = None,
    init_b: Callable[..., Any] | None = None,
    dropout: float | None = None,
    normalize: bool = False,
) -> AnyModel:
    """Thinc's Maxout layer, fused, and initialised as maxout wants (`maxout_init`).

    Registered as "fastact.Maxout.v1".  Arguments, dimensions, parameters and serialisation are those of
    Thinc's "Maxout.v1", but for the default of `init_W`.
    """
    model = thinc_Maxout(
        nO, nI, nP, init_W=init_W or maxout_init, init_b=init_b, dropout=dropout, normalize=normalize
    )
    accelerate(model)
    return model
