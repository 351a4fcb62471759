"""Layers, initialisers, losses, optimisers, learning-rate schedules, checkpoints, frozen models.

`fastact` itself exports the names of `__all__`: use `fastact.Linear`, not `fastact.nn.Linear`.
"""

from . import schedules
from .activation import Activation, PReLU
from .checkpoint import load, save
from .dropout import Dropout
from .frozen import Frozen, freeze
from .gradient import GradientCheck, check_gradient
from .layer import Layer, Parameter
from .layer_norm import LayerNorm
from .linear import Linear
from .losses import binary_cross_entropy_with_logits, huber, mse, softmax_cross_entropy
from .maxout import Maxout
from .optim import SGD, Adam, AdamW, clip_grad_norm_, max_norm_
from .overview import Summary, summary
from .regions import linear_region, piece_usage, region_boundaries
from .residual import Residual
from .sequential import Sequential

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Dropout",
    "Frozen",
    "GradientCheck",
    "Layer",
    "LayerNorm",
    "Linear",
    "Maxout",
    "PReLU",
    "Parameter",
    "Residual",
    "Sequential",
    "Summary",
    "binary_cross_entropy_with_logits",
    "check_gradient",
    "clip_grad_norm_",
    "freeze",
    "huber",
    "linear_region",
    "load",
    "max_norm_",
    "mse",
    "piece_usage",
    "region_boundaries",
    "save",
    "schedules",
    "softmax_cross_entropy",
    "summary",
]


def __dir__() -> list[str]:
    return sorted(__all__)
