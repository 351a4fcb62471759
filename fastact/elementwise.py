"""The activations as functions: y = relu(z), grad_z = relu_backward(grad_y, saved), and so on.

Every forward takes z, float32 or float64 of any shape, and returns y of its shape and dtype.
Every backward takes grad_y and what it needs of the forward, y or z as the table in
`fastact.activations` says, both of one shape and dtype, and returns grad_z = grad_y * dy/dz.
`out=` is an array for the result, which may be an input itself; `backend=` is "c", "numba" or "numpy", for
this call only.

All raise TypeError for an argument that is not an array of float32 or float64, and ValueError for a shape
that does not fit or a parameter that is out of range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import ops
from .activations import TABLE, Approximate
from .backends import BackendName

Array = np.ndarray[Any, Any]

__all__ = [
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "identity",
    "identity_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "logsigmoid",
    "logsigmoid_backward",
    "mish",
    "mish_backward",
    "prelu",
    "prelu_backward",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "tanh",
    "tanh_backward",
]


def identity(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = z."""
    return ops.activation(z, "identity", out=out, backend=backend)


def identity_backward(
    grad_y: Array, y: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y."""
    return ops.activation_backward(grad_y, y, "identity", out=out, backend=backend)


def relu(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = max(z, 0), and dy/dz = 0 at z = 0 (Nair & Hinton 2010)."""
    return ops.activation(z, "relu", out=out, backend=backend)


def relu_backward(
    grad_y: Array, y: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = 0 where y <= 0, else grad_y."""
    return ops.activation_backward(grad_y, y, "relu", out=out, backend=backend)


def leaky_relu(
    z: Array, negative_slope: float = 0.01, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """y = z where z > 0, else negative_slope * z (Maas et al. 2013)."""
    return ops.activation(z, "leaky_relu", out=out, backend=backend, negative_slope=negative_slope)


def leaky_relu_backward(
    grad_y: Array,
    z: Array,
    negative_slope: float = 0.01,
    *,
    out: Array | None = None,
    backend: BackendName | None = None,
) -> Array:
    """grad_z = grad_y where z > 0, else negative_slope * grad_y."""
    return ops.activation_backward(
        grad_y, z, "leaky_relu", out=out, backend=backend, negative_slope=negative_slope
    )


def prelu(z: Array, slope: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = z where z > 0, else slope * z; slope is learned (He et al. 2015).

    slope has z's dtype and the shape (), (1,) or (features,), where z is (..., features).
    """
    return ops.activation(z, "prelu", out=out, backend=backend, slope=slope)


def prelu_backward(
    grad_y: Array,
    z: Array,
    slope: Array,
    *,
    out: tuple[Array | None, Array | None] | None = None,
    accumulate: bool = False,
    backend: BackendName | None = None,
) -> tuple[Array, Array]:
    """(grad_z, grad_slope), where grad_slope sums grad_y * z over z <= 0, and has slope's shape.

    `accumulate` adds grad_slope to the second array of `out`.
    """
    return ops.activation_backward(
        grad_y, z, "prelu", out=out, accumulate=accumulate, backend=backend, slope=slope
    )


def elu(
    z: Array, alpha: float = 1.0, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """y = z where z > 0, else alpha * (exp(z) - 1) (Clevert et al. 2016)."""
    return ops.activation(z, "elu", out=out, backend=backend, alpha=alpha)


def elu_backward(
    grad_y: Array,
    z: Array,
    alpha: float = 1.0,
    *,
    out: Array | None = None,
    backend: BackendName | None = None,
) -> Array:
    """grad_z = grad_y where z > 0, else alpha * exp(z) * grad_y."""
    return ops.activation_backward(grad_y, z, "elu", out=out, backend=backend, alpha=alpha)


def selu(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = scale * elu(z, alpha), scale = 1.0507..., alpha = 1.6732... (Klambauer et al. 2017)."""
    return ops.activation(z, "selu", out=out, backend=backend)


def selu_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = scale * grad_y where z > 0, else scale * alpha * exp(z) * grad_y."""
    return ops.activation_backward(grad_y, z, "selu", out=out, backend=backend)


def gelu(
    z: Array,
    approximate: Approximate = "none",
    *,
    out: Array | None = None,
    backend: BackendName | None = None,
) -> Array:
    """y = z * Φ(z), Φ the normal distribution function (Hendrycks & Gimpel 2016).

    approximate="tanh" selects their 0.5 z (1 + tanh(sqrt(2/π) (z + 0.044715 z³))).
    """
    return ops.activation(z, "gelu", out=out, backend=backend, approximate=approximate)


def gelu_backward(
    grad_y: Array,
    z: Array,
    approximate: Approximate = "none",
    *,
    out: Array | None = None,
    backend: BackendName | None = None,
) -> Array:
    """grad_z = grad_y * (Φ(z) + z φ(z)), φ the normal density; with "tanh" the derivative of that formula."""
    return ops.activation_backward(grad_y, z, "gelu", out=out, backend=backend, approximate=approximate)


def silu(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = z * sigmoid(z), also called swish (Elfwing et al. 2018; Ramachandran et al. 2017)."""
    return ops.activation(z, "silu", out=out, backend=backend)


def silu_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y * s * (1 + z * (1 - s)), s = sigmoid(z)."""
    return ops.activation_backward(grad_y, z, "silu", out=out, backend=backend)


def softplus(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = log(1 + exp(z)) (Dugas et al. 2001)."""
    return ops.activation(z, "softplus", out=out, backend=backend)


def softplus_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y * sigmoid(z)."""
    return ops.activation_backward(grad_y, z, "softplus", out=out, backend=backend)


def mish(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = z * tanh(softplus(z)) (Misra 2019)."""
    return ops.activation(z, "mish", out=out, backend=backend)


def mish_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y * (t + z * (1 - t²) * sigmoid(z)), t = tanh(softplus(z))."""
    return ops.activation_backward(grad_y, z, "mish", out=out, backend=backend)


def sigmoid(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = 1 / (1 + exp(-z))."""
    return ops.activation(z, "sigmoid", out=out, backend=backend)


def sigmoid_backward(
    grad_y: Array, y: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y * y * (1 - y)."""
    return ops.activation_backward(grad_y, y, "sigmoid", out=out, backend=backend)


def tanh(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = tanh(z)."""
    return ops.activation(z, "tanh", out=out, backend=backend)


def tanh_backward(
    grad_y: Array, y: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y * (1 - y²)."""
    return ops.activation_backward(grad_y, y, "tanh", out=out, backend=backend)


def softsign(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = z / (1 + |z|), ±1 at ±infinity (Bergstra et al. 2009)."""
    return ops.activation(z, "softsign", out=out, backend=backend)


def softsign_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y / (1 + |z|)²."""
    return ops.activation_backward(grad_y, z, "softsign", out=out, backend=backend)


def hardswish(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = z * hardsigmoid(z), 0 at -infinity (Howard et al. 2019)."""
    return ops.activation(z, "hardswish", out=out, backend=backend)


def hardswish_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = 0 where z <= -3, grad_y where z >= 3, else grad_y * (2 z + 3) / 6."""
    return ops.activation_backward(grad_y, z, "hardswish", out=out, backend=backend)


def hardsigmoid(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = min(max(z + 3, 0), 6) / 6 (Howard et al. 2019; Courbariaux et al. 2015 have another slope)."""
    return ops.activation(z, "hardsigmoid", out=out, backend=backend)


def hardsigmoid_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y / 6 where |z| < 3, else 0."""
    return ops.activation_backward(grad_y, z, "hardsigmoid", out=out, backend=backend)


def hardtanh(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = min(max(z, -1), 1) (Collobert 2004)."""
    return ops.activation(z, "hardtanh", out=out, backend=backend)


def hardtanh_backward(
    grad_y: Array, y: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y where |y| < 1, else 0."""
    return ops.activation_backward(grad_y, y, "hardtanh", out=out, backend=backend)


def relu6(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = min(max(z, 0), 6) (Krizhevsky 2010)."""
    return ops.activation(z, "relu6", out=out, backend=backend)


def relu6_backward(
    grad_y: Array, y: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y where 0 < y < 6, else 0."""
    return ops.activation_backward(grad_y, y, "relu6", out=out, backend=backend)


def logsigmoid(z: Array, *, out: Array | None = None, backend: BackendName | None = None) -> Array:
    """y = log(sigmoid(z)) = -softplus(-z), the log-likelihood of logistic regression (Cox 1958)."""
    return ops.activation(z, "logsigmoid", out=out, backend=backend)


def logsigmoid_backward(
    grad_y: Array, z: Array, *, out: Array | None = None, backend: BackendName | None = None
) -> Array:
    """grad_z = grad_y * sigmoid(-z)."""
    return ops.activation_backward(grad_y, z, "logsigmoid", out=out, backend=backend)


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that it finds

    def __getattr__(name):
        """The names of 0.1.0, which pickles may have, for this module and for the package."""
        if name not in ("linear", "linear_backward"):
            cure = ""
            if name in ("jax", "torch", "thinc"):
                cure = f": import fastact.{name} first"
            elif name.lower() in TABLE:
                cure = f": try Activation({name.lower()!r}), or activation={name.lower()!r} of Linear"
            raise AttributeError(f"module 'fastact' has no attribute {name!r}{cure}")
        import warnings

        new = name.replace("linear", "identity")
        message = f"fastact.{name} is now fastact.{new}, and the old name will be removed"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[new]
