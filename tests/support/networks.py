"""Random networks, and how far a frozen one may be from what its layers compute."""

from __future__ import annotations

import numpy as np

import fastact as fa
from fastact import activations
from support.cases import STEEPEST
from support.inputs import reference
from support.tolerance import activation_bound, assert_within, sum_bound

SIZES = (1, 2, 3, 7, 15, 16, 17, 33, 64, 97)


class Twice(fa.Layer):
    """A user's layer."""

    def _forward(self, x, training):
        return x + x, ()

    def _backward(self, grad_y, saved, accumulate, needs_input_grad):
        return grad_y + grad_y

    def _describe(self):
        return []


def random_layer(rng, features, dtype, depth):
    """A layer that takes `features`, and the number of features that it returns."""
    seed = int(rng.integers(1 << 30))
    kind = rng.integers(10 if depth else 8)
    out = int(rng.choice(SIZES))
    bias = bool(rng.integers(2))
    if kind <= 1:
        name = str(rng.choice(activations.NAMES))
        keywords = {"leaky_relu": {"negative_slope": 0.3}, "elu": {"alpha": 0.7}}.get(name, {})
        if name == "gelu" and rng.integers(2):
            keywords = {"approximate": "tanh"}
        if name == "prelu":
            keywords = {"slope": [0.1] if rng.integers(2) else list(np.linspace(0, 1, out))}
        return fa.Linear(features, out, bias, name, rng=seed, dtype=dtype, **keywords), out
    if kind == 2:
        pieces = int(rng.choice((1, 2, 3, 5)))
        return fa.Maxout(features, out, pieces, bias, rng=seed, dtype=dtype), out
    if kind == 3:
        name = str(rng.choice([name for name in activations.NAMES if name != "prelu"]))
        return fa.Activation(name), features
    if kind == 4:
        return fa.PReLU(features if rng.integers(2) else 1, dtype=dtype), features
    if kind in (5, 6):
        return fa.Dropout(float(rng.choice((0.0, 0.2, 0.5, 0.9))), bool(rng.integers(2)), rng=seed), features
    if kind == 7:
        return fa.LayerNorm(features, eps=float(rng.choice((1e-5, 0.1))), bias=bias, dtype=dtype), features
    if kind == 8:
        inner, returned = random_network(rng, features, dtype, depth - 1)
        if rng.integers(4) == 0:
            inner, returned = fa.Sequential(*inner, Twice()), returned
        if returned != features:
            inner = fa.Sequential(*inner, fa.Linear(returned, features, rng=seed, dtype=dtype))
        return fa.Residual(inner[0] if len(inner) == 1 else inner), features
    if rng.integers(3) == 0:
        return Twice(), features
    return random_network(rng, features, dtype, depth - 1)


def random_network(rng, features, dtype, depth=2):
    layers = []
    for _ in range(rng.integers(0 if depth < 2 else 1, 6)):
        layer, features = random_layer(rng, features, dtype, depth)
        layers.append(layer)
    return fa.Sequential(*layers), features


def leaves(model):
    return (
        [leaf for layer in model.layers for leaf in leaves(layer)]
        if isinstance(model, fa.Sequential)
        else [model]
    )


def assert_computes(frozen, model, x):
    """Each layer adds its own bound to what it makes of the errors before it."""
    y, off = x.astype(np.float64), np.zeros(x.shape)
    for layer in leaves(model):
        name, keywords = None, {}
        if isinstance(layer, fa.Linear | fa.Maxout):
            weight = layer.weight.data.astype(np.float64)
            bias = np.zeros(weight.shape[:-1]) if layer.bias is None else layer.bias.data.astype(np.float64)
            magnitude = np.tensordot(abs(y) + off, abs(weight), (-1, -1)) + abs(bias)
            own = sum_bound(magnitude, weight.shape[-1], x.dtype, frozen.backend)
            y = np.tensordot(y, weight, (-1, -1)) + bias
            off = np.tensordot(off, abs(weight), (-1, -1)) + own
        if isinstance(layer, fa.Maxout):
            y, off = y.max(-1), off.max(-1)
        elif isinstance(layer, fa.Linear):
            name, keywords = layer.activation, layer.keywords()
        elif isinstance(layer, fa.PReLU):
            name, keywords = "prelu", {"slope": layer.slope.data}
        elif isinstance(layer, fa.Activation):
            name, keywords = layer.name, layer.keywords
        if name is not None:
            z, y = y, reference("activation", y, activation=name, **keywords)
            off = STEEPEST * off + activation_bound(z, y, STEEPEST, x.dtype)
    result = frozen(x)
    assert result.dtype == x.dtype
    assert_within(result, y, off)
