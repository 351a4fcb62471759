"""PyTorch: fused linear + maxout and linear + activation for CPU tensors, as functions and modules.

    layer = fastact.torch.Maxout(784, 240, pieces=5)
    report = fastact.torch.accelerate(model)  # an existing model, in place; restore(model) undoes it

Tensors are float32 or float64.  The kernels read and write the tensors' own memory; only a tensor that is
not contiguous is copied.  Each forward is a custom operator `torch.ops.fastact.*` with a fake kernel and an
autograd formula whose backward is a second operator, so `torch.compile` and `torch.export` take it whole;
`torch.onnx.export` writes ONNX's own operators for it.
Calls skip the dispatcher where it would have nothing else to do.  A second derivative is an error, and so
is a derivative in forward mode.  Under `torch.autocast("cpu")` an operator casts its inputs to float32,
runs at the precision tier "medium" unless one is given, and returns the autocast dtype.  An operator uses
`torch.get_num_threads()` threads unless fastact's own number is set.  README.md, in this folder, says more.
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
