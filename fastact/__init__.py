"""fastact: compiled CPU kernels for linear + maxout and the ReLU family, forward and backward.

    y, argmax = fastact.linear_maxout(x, weight, bias)          # functions: arrays in, arrays out
    model = fastact.Sequential(fastact.Maxout(784, 240, pieces=5), fastact.Linear(240, 10))   # layers

    frozen = fastact.freeze(model)                              # inference alone, weights packed once

`fastact.show_config()` tells which backend and instruction set run.
"""

from . import elementwise, init
from .backends import get_backend, set_backend
from .config import get_config, get_num_threads, show_config
from .elementwise import *  # noqa: F403
from .frozen import Frozen, freeze
from .inspection import linear_region, piece_usage, region_boundaries
from .layers import Activation, Dropout, Layer, Linear, Maxout, Parameter, PReLU, Sequential
from .losses import mse, softmax_cross_entropy
from .ops import (
    activation,
    activation_backward,
    linear_activation,
    linear_activation_backward,
    linear_maxout,
    linear_maxout_backward,
    maxout,
    maxout_backward,
)
from .optim import SGD, Adam, max_norm_
from .settings import (
    float32_matmul_precision,
    get_float32_matmul_precision,
    num_threads,
    set_float32_matmul_precision,
    set_num_threads,
)
from .state import load, save

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "Dropout",
    "Frozen",
    "Layer",
    "Linear",
    "Maxout",
    "PReLU",
    "Parameter",
    "Sequential",
    "__version__",
    "activation",
    "activation_backward",
    "float32_matmul_precision",
    "freeze",
    "get_backend",
    "get_config",
    "get_float32_matmul_precision",
    "get_num_threads",
    "init",
    "linear_activation",
    "linear_activation_backward",
    "linear_maxout",
    "linear_maxout_backward",
    "linear_region",
    "load",
    "max_norm_",
    "maxout",
    "maxout_backward",
    "mse",
    "num_threads",
    "piece_usage",
    "region_boundaries",
    "save",
    "set_backend",
    "set_float32_matmul_precision",
    "set_num_threads",
    "show_config",
    "softmax_cross_entropy",
]
__all__ += elementwise.__all__
