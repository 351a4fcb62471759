"""JAX: the whole training step is one jitted function, Adam written by hand, the state donated.

Weights are (in_features, units), as JAX's own layers keep them.  Dropout draws from JAX's default generator.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ...networks import BETA1, BETA2, EPS, NetworkProblem
from .base import NetworkContender

# a second thread that dispatches would only take the cores from the first
jax.config.update("jax_cpu_enable_async_dispatch", False)


class JaxJit(NetworkContender):
    def __init__(self, problem: NetworkProblem, threads: int) -> None:
        jax.config.update("jax_enable_x64", problem.dtype.name == "float64")
        layers, shares, rows = problem.network.layers, problem.drop_shares(), jnp.arange(problem.network.rows)

        def network(parameters: Any, x: Any, key: Any = None) -> Any:
            """The logits; `key` is None in inference."""
            last = len(layers) - 1
            for i, (weight, bias) in enumerate(parameters):
                if key is not None and shares[i]:
                    kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - shares[i], x.shape)
                    x = jnp.where(kept, x / (1 - shares[i]), 0)
                x = x @ weight + bias
                if layers[i].pieces > 1:
                    x = x.reshape(len(x), -1, layers[i].pieces).max(-1)
                elif i < last:
                    x = jnp.tanh(x)
            return x

        def mean_loss(parameters: Any, x: Any, labels: Any, key: Any) -> Any:
            return -jnp.mean(jax.nn.log_softmax(network(parameters, x, key))[rows, labels])

        @partial(jax.jit, donate_argnums=0)
        def update(state: Any, x: Any, labels: Any, learning_rate: Any) -> Any:
            parameters, means, squares, steps, key = state
            key, used = jax.random.split(key) if problem.network.dropout else (key, key)
            loss, grads = jax.value_and_grad(mean_loss)(parameters, x, labels, used)
            steps += 1
            rate = learning_rate / (1 - BETA1**steps)
            unbias = 1 / jnp.sqrt(1 - BETA2**steps)
            means = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, means, grads)
            squares = jax.tree.map(lambda s, g: BETA2 * s + (1 - BETA2) * g * g, squares, grads)
            parameters = jax.tree.map(
                lambda p, m, s: p - rate * m / (jnp.sqrt(s) * unbias + EPS), parameters, means, squares
            )
            return loss, (parameters, means, squares, steps, key)

        self._problem, self._network, self._update = problem, jax.jit(network), update
        self._x, self._labels = jnp.array(problem.x), jnp.array(problem.labels)
        self._parameters = self._take_parameters()

    def _take_parameters(self) -> list[tuple[Any, Any]]:
        pairs = zip(self._problem.weights, self._problem.biases, strict=True)
        return [(jnp.array(weight.T), jnp.array(bias)) for weight, bias in pairs]

    def forward(self) -> Any:
        return self._network(self._parameters, self._x).block_until_ready()

    def start_training(self, learning_rate: float) -> None:
        parameters, dtype = self._take_parameters(), self._problem.dtype
        zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
        self._state = (parameters, *zeros, jnp.zeros((), dtype), jax.random.key(0))
        self._learning_rate = jnp.array(learning_rate, dtype)

    def step(self) -> float:
        loss, self._state = self._update(self._state, self._x, self._labels, self._learning_rate)
        return float(loss)
