"""The Numba backend: the operations of `backends/numpy.py`, compiled when they are first called.

Every product is made of tiles: a block of outputs is summed in a buffer that stays in the L2 cache, by a
register tile, or by dot products for a row or two.  The maximum or the activation is taken from that buffer.
The backward of linear + maxout sums over the winners alone.

Kernels are serial and run over ranges of cells; `pool.run` shares the cells among threads.
"""

from ..numpy import mse  # a few passes over arrays, which NumPy does as fast
from .activations import activation, activation_backward
from .gather import linear_maxout_backward
from .linear import linear_activation, linear_activation_backward
from .maximum import linear_maxout, maxout, maxout_backward
from .optim import adam, max_norm, sgd

__all__ = [
    "activation",
    "activation_backward",
    "adam",
    "linear_activation",
    "linear_activation_backward",
    "linear_maxout",
    "linear_maxout_backward",
    "max_norm",
    "maxout",
    "maxout_backward",
    "mse",
    "sgd",
]
