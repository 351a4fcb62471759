"""fastact: compiled CPU kernels for linear + maxout and the ReLU family, forward and backward."""

__version__ = "0.1.0"

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
