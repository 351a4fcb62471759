"""JAX: fused linear + maxout and linear + activation on the CPU, as functions.

    y = fastact.jax.linear_maxout(x, weight, bias)          # weight (out_features, pieces, in_features)
    y = fastact.jax.linear_activation(x, weight, bias, "gelu")   # weight (out_features, in_features)

Each is a call of XLA's FFI with a gradient of its own, so `jit`, `grad`, `vmap`, `scan`, `checkpoint`,
`shard_map` and `pmap` take it.  Arrays are float32 or, where JAX has x64 enabled, float64.  The kernels read
and write XLA's own buffers.  A second derivative is an error, and so is a derivative in forward mode.
`fastact.jax.flax` and `fastact.jax.equinox` have the layers.  README.md, in this folder, says more.
"""

from .. import backends as _backends

try:
    import jax as _jax  # noqa: F401
except ImportError as _error:
    raise ImportError("fastact.jax needs JAX: pip install 'fastact[jax]'") from _error
if (_reason := _backends.why_c_is_missing()) is not None:
    raise ImportError(f"fastact.jax needs the C backend: {_reason}")

from .bare_maxout import maxout
from .elementwise import (
    activation,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    identity,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
    tanh,
)
from .products import linear_activation, linear_maxout

__all__ = [
    "activation",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "identity",
    "leaky_relu",
    "linear_activation",
    "linear_maxout",
    "logsigmoid",
    "maxout",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
]
