"""PyTorch: fused linear + maxout and linear + activation for CPU tensors, as functions and modules.

    layer = fastact.torch.Maxout(784, 240, pieces=5)
    report = fastact.torch.accelerate(model)  # a model that exists, in place; restore(model) undoes it

float32 and float64.  The kernels read and write the tensors' own memory; only what is not contiguous is
copied.  Each forward is a custom operator `torch.ops.fastact.*` with a fake kernel and an autograd
formula whose backward is a second operator, so `torch.compile` and `torch.export` take it whole; where
the dispatcher would find nothing else to do, it is left out.  A second derivative is an error, and so is
one in forward mode.  Under `torch.autocast("cpu")` an operator casts its inputs to float32, runs at the
precision tier "medium" and returns the autocast dtype.  It uses `torch.get_num_threads()` threads unless
fastact's own number is set.
"""

from .acceleration import Change, Report, accelerate, restore
from .bare_maxout import maxout
from .fused_activation import linear_activation
from .fused_maxout import linear_maxout
from .modules import LinearActivation, Maxout
from .modules import PooledLinear as PooledLinear  # pickles of 0.1.0 name it

__all__ = [
    "Change",
    "LinearActivation",
    "Maxout",
    "Report",
    "accelerate",
    "linear_activation",
    "linear_maxout",
    "maxout",
    "restore",
]
