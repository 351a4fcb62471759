"""The Numba backend: the operations of `backends/numpy.py`, compiled when they are first called.

README.md beside this file shows how a call runs, and where each part is.
"""

# a few passes over arrays, for which NumPy is as fast
from ..numpy import (
    binary_cross_entropy_with_logits,
    dropout_keep,
    hash_embed,
    hash_embed_backward,
    huber,
    mse,
)
from .activations import activation, activation_backward
from .gather import linear_maxout_backward
from .layer_norm import layer_norm, layer_norm_backward
from .linear import linear_activation, linear_activation_backward, linear_maxout, matmul
from .losses import softmax_cross_entropy
from .maximum import maxout, maxout_backward
from .optim import adam, clip_grad_norm, max_norm, sgd, update_parameter

__all__ = [
    "activation",
    "activation_backward",
    "adam",
    "binary_cross_entropy_with_logits",
    "clip_grad_norm",
    "dropout_keep",
    "hash_embed",
    "hash_embed_backward",
    "huber",
    "layer_norm",
    "layer_norm_backward",
    "linear_activation",
    "linear_activation_backward",
    "linear_maxout",
    "linear_maxout_backward",
    "matmul",
    "max_norm",
    "maxout",
    "maxout_backward",
    "mse",
    "sgd",
    "softmax_cross_entropy",
    "update_parameter",
]
