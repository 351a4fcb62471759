"""fastact: compiled CPU kernels for linear + maxout, linear + ReLU, GELU and their kin.

    y, argmax = fastact.linear_maxout(x, weight, bias)          # functions: arrays in, arrays out
    model = fastact.Sequential(fastact.Maxout(784, 240, pieces=5), fastact.Linear(240, 10))   # layers

    frozen = fastact.freeze(model)                              # inference alone, weights packed once

`fastact.show_config()` tells which backend and instruction set run.
"""

import sys as _sys
import typing as _typing

from . import elementwise as _elementwise
from . import info as _info
from . import nn as _nn
from .backends import get_backend, set_backend
from .custom import CustomActivation, custom_activation
from .elementwise import *  # noqa: F403
from .info import get_config, get_num_threads, show_config
from .nn import *  # noqa: F403
from .nn import init
from .ops import (
    activation,
    activation_backward,
    layer_norm,
    layer_norm_backward,
    linear_activation,
    linear_activation_backward,
    linear_maxout,
    linear_maxout_backward,
    maxout,
    maxout_backward,
)
from .reproducibility import reproducible, set_reproducible
from .settings import (
    float32_matmul_precision,
    get_float32_matmul_precision,
    get_reproducible,
    num_threads,
    set_float32_matmul_precision,
    set_num_threads,
)

__version__ = "0.2.0"

__all__ = [
    "CustomActivation",
    "__version__",
    "activation",
    "activation_backward",
    "custom_activation",
    "float32_matmul_precision",
    "get_backend",
    "get_config",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_reproducible",
    "init",
    "layer_norm",
    "layer_norm_backward",
    "linear_activation",
    "linear_activation_backward",
    "linear_maxout",
    "linear_maxout_backward",
    "maxout",
    "maxout_backward",
    "num_threads",
    "reproducible",
    "set_backend",
    "set_float32_matmul_precision",
    "set_num_threads",
    "set_reproducible",
    "show_config",
]
__all__ += _elementwise.__all__
__all__ += _nn.__all__

# Pickles of 0.1.0 name their classes and functions by these modules.
for _old, _module in (
    ("config", _info),
    ("frozen", _nn.frozen),
    ("init", init),
    ("inspection", _nn.regions),
    ("layers", _nn),
    ("losses", _nn.losses),
    ("optim", _nn.optim),
    ("state", _nn.checkpoint),
):
    _sys.modules[f"{__name__}.{_old}"] = _module


def __dir__() -> list[str]:
    return sorted(__all__)


if not _typing.TYPE_CHECKING:  # a type checker would take every misspelt name for one that it finds
    __getattr__ = _elementwise.__getattr__  # the names of 0.1.0
