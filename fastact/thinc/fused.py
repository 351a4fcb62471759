"""The forward that `accelerate` puts in the place of Thinc's: product, bias and maximum in one pass."""

# No `from __future__ import annotations` here: Thinc's data validation reads a forward's annotations.

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from thinc.api import Model, NumpyOps
from thinc.layers.maxout import forward as thinc_forward
from thinc.types import Floats2d

from .. import checks, ops, settings
from .ops import FastactOps, same_float_arrays

AnyModel: TypeAlias = Model[Any, Any]

# The methods of Ops for which fused forwards stand in, as Thinc and fastact have them.
_KNOWN_METHODS = {
    name: {getattr(NumpyOps, name), getattr(FastactOps, name)}
    for name in (
        "gemm",
        "affine",
        "maxout",
        "backprop_maxout",
        "reshape1f",
        "reshape2f",
        "reshape3f",
        "seq2col",
        "backprop_seq2col",
        "relu",
        "backprop_relu",
        "mish",
        "backprop_mish",
        "gelu",
        "backprop_gelu",
        "asarray_f",
        "get_dropout_mask",
    )
}
MAXOUT_METHODS = frozenset(("gemm", "maxout", "backprop_maxout", "reshape1f", "reshape2f", "reshape3f"))


def overridden(kind: type) -> set[str]:
    """Which of the methods that fused forwards stand in for a class of Ops overrides."""
    return {name for name, known in _KNOWN_METHODS.items() if getattr(kind, name, None) not in known}


def may_stand_in(methods: frozenset[str], model_ops: Any) -> bool:
    """Whether a fused kernel may stand in for these methods of Ops.

    Those that Ops override, in the class or on the instance, have to be called instead.
    """
    return methods.isdisjoint(overridden(type(model_ops))) and methods.isdisjoint(vars(model_ops))


def fusible(model: AnyModel) -> bool:
    """Whether a fused kernel may stand in for the methods that Thinc's Maxout calls on the model's Ops."""
    return may_stand_in(MAXOUT_METHODS, model.ops)


def own_gradient(model: AnyModel, name: str, like: Any) -> Any:
    """The gradient of the parameter `like` if sums may be added to it where it is, else None.

    With a proxy, Thinc's mechanism for parameters of another process, gradients go to that by `inc_grad`.
    """
    if model._params.proxy is not None or not model.has_grad(name):
        return None
    grad: Any = model.get_grad(name)
    fits = type(grad) is np.ndarray and grad.dtype == like.dtype and grad.shape == like.shape
    return grad if fits and grad.flags.carray else None


def forward(model: AnyModel, X: Floats2d, is_train: bool) -> tuple[Floats2d, Callable[..., Any]]:
    """The forward of Thinc's Maxout, with the product, bias and maximum in one pass.

    X (rows, nI), the parameters W (nO, nP, nI) and b (nO, nP) -> Y (rows, nO) and a callback that takes
    dY (rows, nO), adds to the gradients of W and b and returns dX (rows, nI).  Thinc's own steps run for
    what fastact does not take: a GPU's arrays, other or mixed dtypes, more than 256 pieces, and Ops with a
    `gemm`, `maxout`, `backprop_maxout` or `reshape` of their own.
    """
    W: Any = model.get_param("W")
    b: Any = model.get_param("b")
    x: Any = X
    if not (same_float_arrays(x, W, b) and 1 <= W.shape[1] <= checks.MAX_PIECES and fusible(model)):
        return thinc_forward(model, X, is_train)
    Y: Any
    tier = settings.get_float32_matmul_precision()
    Y, argmax = ops.linear_maxout(x, W, b, precision=tier)

    def backprop(dY: Any) -> Any:
        if np.shape(dY) != argmax.shape:
            raise ValueError(f"dY: got shape {np.shape(dY)}, wanted {argmax.shape}")
        if same_float_arrays(x, dY) and fusible(model):
            dX, dW, db = ops.linear_maxout_backward(dY, x, W, argmax, precision=tier)
        else:
            dX, dW, db = _backward_by_ops(model.ops, dY, x, W, argmax)
        model.inc_grad("W", dW)
        model.inc_grad("b", db)
        return dX

    return Y, backprop


def _backward_by_ops(model_ops: Any, dY: Any, X: Any, W: Any, argmax: Any) -> tuple[Any, Any, Any]:
    """dX, dW and db by the steps of Thinc's Maxout, for a dY that the kernels do not take."""
    nO, nP, nI = W.shape
    dZ = model_ops.backprop_maxout(dY, argmax.astype(np.int32), nP)
    flat = model_ops.reshape2f(dZ, len(dZ), nO * nP)
    dW = model_ops.reshape3f(model_ops.gemm(flat, X, trans1=True), nO, nP, nI)
    dX = model_ops.gemm(flat, model_ops.reshape2f(W, nO * nP, nI))
    return dX, dW, dZ.sum(axis=0)
