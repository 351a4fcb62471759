"""fastact's bare maxout and activations as Thinc's Ops."""

from typing import Any

import numpy as np
from thinc.api import NumpyOps
from thinc.types import Floats2d, Floats3d, FloatsXdT, Ints2d

from .. import checks, ops
from ..activations import FixedName

_FLOATS = (np.float32, np.float64)


def same_float_arrays(*arrays: Any) -> bool:
    """NumPy arrays of one of fastact's dtypes; False for another dtype, a mixture, or a GPU's arrays."""
    dtype = getattr(arrays[0], "dtype", None)
    return dtype in _FLOATS and all(type(array) is np.ndarray and array.dtype == dtype for array in arrays)


def _activation(activation: FixedName, X: Any, inplace: bool, **parameters: Any) -> Any:
    return ops.activation(X, activation, out=X if inplace else None, **parameters)


def _gradient(activation: FixedName, dY: Any, saved: Any, inplace: bool, **parameters: Any) -> Any:
    return ops.activation_backward(dY, saved, activation, out=dY if inplace else None, **parameters)


class FastactOps(NumpyOps):  # type: ignore[misc]
    """Thinc's CPU Ops with fastact's bare maxout and activations: `with use_ops("fastact"): ...`.

    Arrays that fastact does not take go to Thinc's own Ops.  A layer calls the product and what follows
    it apart, so these fuse nothing: that takes `accelerate` or the layer `Maxout`.  Parameters are
    annotated as in Thinc's `Ops`.
    """

    name = "fastact"

    def maxout(self, X: Floats3d) -> tuple[Floats2d, Ints2d]:
        """X (B, O, P) -> the largest of each P, (B, O), and its index, int32."""
        if not same_float_arrays(X) or not 1 <= X.shape[-1] <= checks.MAX_PIECES:
            return super().maxout(X)  # type: ignore[no-any-return]
        best, which = ops.maxout(X)
        return best, which.astype(np.int32)

    def backprop_maxout(self, dY: Floats2d, which: Ints2d, P: int) -> Floats3d:
        """dY (B, O), which (B, O) -> dX (B, O, P); IndexError for a value of `which` not in 0 to P - 1."""
        if not same_float_arrays(dY) or not 1 <= P <= checks.MAX_PIECES:
            return super().backprop_maxout(dY, which, P)
        if which.size and (which.min() < 0 or which.max() >= P):
            raise IndexError(f"which: got values {which.min()} to {which.max()}, wanted 0 to {P - 1}")
        return ops.maxout_backward(dY, which.astype(np.uint8), P)

    def relu(self, X: Floats2d, inplace: bool = False) -> Floats2d:
        return _activation("relu", X, inplace) if same_float_arrays(X) else super().relu(X, inplace)

    def backprop_relu(self, dY: Floats2d, Y: Floats2d, inplace: bool = False) -> Floats2d:
        if not same_float_arrays(dY, Y):
            return super().backprop_relu(dY, Y, inplace)
        return _gradient("relu", dY, Y, inplace)

    def gelu(self, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        return _activation("gelu", X, inplace) if same_float_arrays(X) else super().gelu(X, inplace)

    def backprop_gelu(self, dY: FloatsXdT, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        if not same_float_arrays(dY, X):
            return super().backprop_gelu(dY, X, inplace)
        return _gradient("gelu", dY, X, inplace)

    def gelu_approx(self, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        if not same_float_arrays(X):
            return super().gelu_approx(X, inplace)
        return _activation("gelu", X, inplace, approximate="tanh")

    def backprop_gelu_approx(self, dY: FloatsXdT, X: FloatsXdT, inplace: bool = False) -> FloatsXdT:
        if not same_float_arrays(dY, X):
            return super().backprop_gelu_approx(dY, X, inplace)
        return _gradient("gelu", dY, X, inplace, approximate="tanh")

    # Above the default threshold mish(X) is X to the last bit in float32, so only another one matters.

    def mish(self, X: FloatsXdT, threshold: float = 20.0, inplace: bool = False) -> FloatsXdT:
        if threshold != 20 or not same_float_arrays(X):
            return super().mish(X, threshold, inplace)
        return _activation("mish", X, inplace)

    def backprop_mish(
        self, dY: FloatsXdT, X: Floats2d, threshold: float = 20.0, inplace: bool = False
    ) -> FloatsXdT:
        if threshold != 20 or not same_float_arrays(dY, X):
            return super().backprop_mish(dY, X, threshold, inplace)
        return _gradient("mish", dY, X, inplace)
