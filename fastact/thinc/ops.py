"""fastact's products, bare maxout and activations as Thinc's Ops."""

from typing import Any, Optional

import numpy as np
from thinc.api import NumpyOps
from thinc.types import Floats1d, Floats2d, Floats3d, FloatsXd, FloatsXdT, Ints2d, Shape

from .. import activations, backends, checks, ops, settings
from ..activations import FixedName
from ..backends.interface import Update
from . import blas

_FLOATS = (np.float32, np.float64)
_IDENTITY = activations.resolve("identity", 1, np.dtype(np.float32), {})


def same_float_arrays(*arrays: Any) -> bool:
    """Whether all are NumPy arrays of one dtype, float32 or float64."""
    dtype = getattr(arrays[0], "dtype", None)
    return dtype in _FLOATS and all(type(array) is np.ndarray and array.dtype == dtype for array in arrays)


def _activation(activation: FixedName, X: Any, inplace: bool, **parameters: Any) -> Any:
    return ops.activation(X, activation, out=X if inplace else None, **parameters)


def _gradient(activation: FixedName, dY: Any, saved: Any, inplace: bool, **parameters: Any) -> Any:
    return ops.activation_backward(dY, saved, activation, out=dY if inplace else None, **parameters)


class FastactOps(NumpyOps):  # type: ignore[misc]
    """Thinc's CPU Ops with fastact's products, bare maxout and activations: `with use_ops("fastact"): ...`.

    Arrays that fastact does not take go to Thinc's own Ops, and so does what fastact computes no faster.  A
    layer calls the product and the activation apart, so these Ops fuse nothing; `accelerate` and the layer
    `Maxout` do.  The active backend computes.  Parameters are annotated as in Thinc's `Ops`.
    """

    name = "fastact"
    _same_draws = True  # whether the masks of a dropout are those that Thinc draws
    _stands_for: NumpyOps | None = None  # the Ops that with_fast_ops has replaced

    def cblas(self) -> Any:
        """Thinc's table of BLAS functions, through which spaCy's parser calls sgemm and saxpy.

        On the C backend the functions are fastact's, and sgemm runs on the calling thread.
        """
        addresses = getattr(backends.active(), "blas_addresses", None)
        return blas.table(*addresses()) if addresses is not None else super().cblas()

    def gemm(
        self,
        x: Floats2d,
        y: Floats2d,
        out: Optional[Floats2d] = None,  # noqa: UP045
        trans1: bool = False,
        trans2: bool = False,
    ) -> Floats2d:
        """x @ y, of x.T where trans1 and y.T where trans2; `out` must not overlap x or y.

        float64 is taken with and without BLIS.  ValueError for an `out` of a wrong shape or dtype.
        """
        left: Any = x
        right: Any = y
        target: Any = out
        if not (same_float_arrays(left, right) and left.ndim == right.ndim == 2):
            return super().gemm(x, y, out=out, trans1=trans1, trans2=trans2)
        depth, rows = left.shape if trans1 else left.shape[::-1]
        columns, depth2 = right.shape if trans2 else right.shape[::-1]
        if depth != depth2:
            return super().gemm(x, y, out=out, trans1=trans1, trans2=trans2)
        shape = (rows, columns)
        if target is not None and not (same_float_arrays(left, target) and target.shape == shape):
            got = f"{getattr(target, 'dtype', type(target).__name__)} {np.shape(target)}"
            raise ValueError(f"out: got {got}, wanted {left.dtype} {shape}")
        in_place = target is not None and target.flags.carray
        product = target if in_place else np.empty(shape, left.dtype)
        backends.active().matmul(
            checks.contiguous(left),
            checks.contiguous(right),
            bool(trans1),
            bool(trans2),
            product,
            settings.threads_and_mode(),
            settings.get_float32_matmul_precision(),
        )
        if target is None or in_place:
            return product  # type: ignore[no-any-return]
        target[...] = product
        return target  # type: ignore[no-any-return]

    def affine(self, X: Floats2d, W: Floats2d, b: Floats1d) -> Floats2d:
        """X (rows, nI) @ W (nO, nI).T + b (nO,)"""
        x: Any = X
        weight: Any = W
        bias: Any = b
        if not (
            same_float_arrays(x, weight, bias)
            and x.ndim == weight.ndim == 2
            and x.shape[1] == weight.shape[1]
            and bias.shape == weight.shape[:1]
        ):
            return super().affine(X, W, b)  # type: ignore[no-any-return]
        Y: Any = np.empty((len(x), len(weight)), x.dtype)
        backends.active().linear_activation(
            checks.contiguous(x),
            checks.contiguous(weight),
            checks.contiguous(bias),
            _IDENTITY,
            Y,
            None,
            settings.threads_and_mode(),
            settings.get_float32_matmul_precision(),
        )
        return Y  # type: ignore[no-any-return]

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

    # Above the default threshold of 20, mish(X) rounds to X: only another threshold changes a result.

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

    def get_dropout_mask(self, shape: Shape, drop: Optional[float]) -> FloatsXd:  # noqa: UP045
        """0 with the probability `drop`, else 1 / (1 - drop), float32.

        The mask is Thinc's, from the same numbers of NumPy's global generator.  With the Ops that
        `accelerate` gives a node without `same_draws`, one draw from that generator is the seed of the mask.
        Either is reproducible after `thinc.api.fix_random_seed`.
        """
        if drop is None or not 0 < drop < 1:
            return super().get_dropout_mask(shape, drop)  # type: ignore[no-any-return]
        kept: Any
        if self._same_draws:
            kept = np.random.random_sample(shape) >= drop  # noqa: NPY002
        else:
            kept = np.empty(shape, np.uint8)
            seed = int(np.random.randint(0, 2**63))  # noqa: NPY002
            backends.active().dropout_keep(seed, drop, kept, settings.threads_and_mode())
        return np.multiply(kept, np.float32(1 / (1 - drop)), dtype=np.float32)  # type: ignore[return-value]

    def adam(
        self,
        weights: Floats1d,
        gradient: Floats1d,
        mom1: Floats1d,
        mom2: Floats1d,
        beta1: float,
        beta2: float,
        eps: float,
        learn_rate: float,
        mod_rate: float = 1.0,
    ) -> tuple[Floats1d, Floats1d, Floats1d, Floats1d]:
        """A step of Adam in place, with the gradient set to 0; `mod_rate` has no effect, as in NumpyOps."""
        arrays: Any = (weights, gradient, mom1, mom2)
        if not (
            same_float_arrays(*arrays)
            and weights.dtype == np.float32
            and weights.ndim == 1
            and all(array.shape == weights.shape and array.flags.carray for array in arrays)
        ):
            return super().adam(*arrays, beta1, beta2, eps, learn_rate, mod_rate)  # type: ignore[no-any-return]
        # NumpyOps takes float32 numbers: 1 - beta2 is that of beta2 as rounded
        beta1, beta2, eps, learn_rate = (float(np.float32(x)) for x in (beta1, beta2, eps, learn_rate))
        update = [Update(arrays[0], arrays[1], False, None)]
        backends.active().adam(
            update, lambda: update, [arrays[2]], [arrays[3]], learn_rate, beta1, beta2, 1.0, eps, 0.0, 1.0,
            settings.threads_and_mode(),
        )  # fmt: skip
        arrays[1].fill(0)
        return weights, gradient, mom1, mom2


def with_fast_ops(node: Any, same_draws: bool = False) -> bool:
    """Give a node whose Ops are a plain NumpyOps a FastactOps; returns whether that was done.

    Ops of another class stay, and so do Ops on which an attribute was set, such as a method of a test.
    The masks of the new Ops are Thinc's if `same_draws`.  So are those of the Ops of an earlier call.
    """
    plain = node.ops
    if type(plain) is FastactOps and plain._stands_for is not None:
        plain._same_draws = same_draws
    if type(plain) is not NumpyOps or vars(plain).keys() != vars(NumpyOps(use_blis=False)).keys():
        return False
    node.ops = FastactOps(plain.device_type, plain.device_id, use_blis=plain.use_blis)
    node.ops._stands_for = plain
    node.ops._same_draws = same_draws
    return True


def with_plain_ops(node: Any) -> bool:
    """Give a node the Ops back that it had before `with_fast_ops`; returns whether that was done."""
    if type(node.ops) is not FastactOps or node.ops._stands_for is None:
        return False
    node.ops = node.ops._stands_for
    return True
