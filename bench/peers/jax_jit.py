"""JAX, every function jitted.

Weights are (in_features, units), as JAX's own layers keep them: one row is up to ten times faster that way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import LEARNING_RATE, Problem
from ..shapes import MAXOUT
from .base import Contender

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": partial(jax.nn.gelu, approximate=False)}

# a second thread that dispatches would only take the cores from the first
jax.config.update("jax_cpu_enable_async_dispatch", False)


class JaxJit(Contender):
    def __init__(self, problem: Problem, threads: int) -> None:
        rows, _, out_features, pieces, activation = problem.shape

        def layer(x: Any, weight: Any, bias: Any) -> Any:
            z = x @ weight + bias
            if activation == MAXOUT:
                return z.reshape(rows, out_features, pieces).max(-1)
            return ACTIVATIONS[activation](z)

        def loss(x: Any, weight: Any, bias: Any, target: Any) -> Any:
            return jnp.mean((layer(x, weight, bias) - target) ** 2)

        def pull_back(x: Any, weight: Any, bias: Any, grad_y: Any) -> Any:
            return jax.vjp(layer, x, weight, bias)[1](grad_y)

        @partial(jax.jit, donate_argnums=(1, 2))
        def update(x: Any, weight: Any, bias: Any, target: Any) -> Any:
            value, (grad_x, grad_weight, grad_bias) = jax.value_and_grad(loss, (0, 1, 2))(
                x, weight, bias, target
            )
            return value, grad_x, weight - LEARNING_RATE * grad_weight, bias - LEARNING_RATE * grad_bias

        self._layer, self._pull_back, self._update = jax.jit(layer), jax.jit(pull_back), update
        self._x = jnp.array(problem.x)
        self._weight = jnp.array(problem.weight.T)
        self._bias = jnp.array(problem.bias)
        self._grad_y = jnp.array(problem.grad_y)
        self._target = jnp.array(problem.target)

    def forward(self) -> Any:
        return self._layer(self._x, self._weight, self._bias).block_until_ready()

    def forward_backward(self) -> tuple[Any, Any, Any]:
        grad_x, grad_weight, grad_bias = jax.block_until_ready(
            self._pull_back(self._x, self._weight, self._bias, self._grad_y)
        )
        return grad_x, _Transposed(grad_weight), grad_bias

    def step(self) -> tuple[Any, Any]:
        loss, _, self._weight, self._bias = self._update(self._x, self._weight, self._bias, self._target)
        float(loss)
        return _Transposed(self._weight.block_until_ready()), self._bias


class _Transposed:
    """An array that `numpy.asarray` sees transposed; nothing moves until then."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self._array, dtype=dtype).T
