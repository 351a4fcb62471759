"""Thinc's Maxout layer, fused, with maxout's own initialisation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from thinc.api import Maxout as thinc_Maxout

from ..nn import init
from .acceleration import accelerate
from .fused import AnyModel


def maxout_init(model_ops: Any, shape: tuple[int, int, int]) -> Any:
    """Normal weights of the given shape (nO, nP, nI), with the standard deviation `fastact.init.maxout_std`.

    It keeps the scale of the activations from layer to layer.  The weights are drawn from NumPy's global
    generator, as those of Thinc's own initialisers are.
    """
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
    """Thinc's Maxout layer, fused, with an initialisation made for maxout (`maxout_init`).

    Registered as "fastact.Maxout.v1".  Arguments, dimensions, parameters and serialisation are those of
    Thinc's "Maxout.v1", except that `init_W` is `maxout_init` unless given.
    """
    model = thinc_Maxout(
        nO, nI, nP, init_W=init_W or maxout_init, init_b=init_b, dropout=dropout, normalize=normalize
    )
    accelerate(model)
    return model
