"""Steps of the optimisers, norms, dropout and hash embeddings, against mpmath.

Hyper-parameters are sums of few powers of two, which no dtype rounds, so that a figure is of the step alone.
Its terms are those of the formula with their magnitudes: a step that cancels is held to what it adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastact as fa
from fastact import backends
from fastact.backends.interface import HashTable

from .figures import Array, Figure, in_two, in_u, mp, worst

SIZE = 97
STEPS = 3
_LR, _DECAY, _MOMENTUM = 0.125, 2.0**-6, 0.875
_BETAS, _EPS = (0.875, 1 - 2.0**-9), 2.0**-20
_CLIP_SIZES = (97, 1000, 4133)  # of three gradients
_ROW = 1000  # numbers of a row that max_norm limits
_EMBEDDED, _TABLE_ROWS, _WIDTH = 97, 37, 17


def _exact(values: Array) -> list[Any]:
    return [mp.mpf(x) for x in np.ravel(values).tolist()]


# ---- optimisers: the last of a few steps, from the state that the ones before left


def _sgd(data: list[Any], grad: list[Any], velocity: list[Any]) -> Iterator[tuple[Any, Any]]:
    for d, g, v in zip(data, grad, velocity, strict=True):
        moved, terms = _MOMENTUM * v + g + _DECAY * d, _MOMENTUM * abs(v) + abs(g) + _DECAY * abs(d)
        yield d - _LR * moved, abs(d) + _LR * terms


def _adam(
    data: list[Any], grad: list[Any], mean: list[Any], square: list[Any], decoupled: bool
) -> Iterator[tuple[Any, Any]]:
    beta1, beta2 = (mp.mpf(beta) for beta in _BETAS)
    keep, decay = (1 - mp.mpf(_LR * _DECAY), 0) if decoupled else (1, _DECAY)
    for d, g, m, v in zip(data, grad, mean, square, strict=True):
        decayed, magnitude = g + decay * d, abs(g) + decay * abs(d)
        m_hat = (beta1 * m + (1 - beta1) * decayed) / (1 - beta1**STEPS)
        terms = (beta1 * abs(m) + (1 - beta1) * magnitude) / (1 - beta1**STEPS)
        v_hat = (beta2 * v + (1 - beta2) * decayed**2) / (1 - beta2**STEPS)
        root = mp.sqrt(v_hat) + mp.mpf(_EPS)
        # a sum of g and decay d that cancels leaves an error of `magnitude` in the root too
        unsure = terms + abs(m_hat) * (magnitude / abs(decayed) if decayed else 1)
        yield keep * d - _LR * m_hat / root, abs(d) + _LR * unsure / root


Exact = Callable[..., Iterator[tuple[Any, Any]]]
OPTIMIZERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...], Exact]] = {
    "SGD": (
        lambda p: fa.SGD(p, lr=_LR, momentum=_MOMENTUM, weight_decay=_DECAY),
        ("velocity",),
        _sgd,
    ),
    "Adam": (
        lambda p: fa.Adam(p, lr=_LR, beta1=_BETAS[0], beta2=_BETAS[1], eps=_EPS, weight_decay=_DECAY),
        ("mean", "square"),
        lambda *state: _adam(*state, decoupled=False),
    ),
    "AdamW": (
        lambda p: fa.AdamW(p, lr=_LR, beta1=_BETAS[0], beta2=_BETAS[1], eps=_EPS, weight_decay=_DECAY),
        ("mean", "square"),
        lambda *state: _adam(*state, decoupled=True),
    ),
}


def _step(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Figure:
    make, states, exactly = OPTIMIZERS[name]
    magnitudes = 10.0 ** rng.uniform(-4, 1, SIZE)
    parameter = fa.Parameter((rng.standard_normal(SIZE) * magnitudes).astype(dtype), "weight")
    optimizer = make([parameter])
    for _ in range(STEPS - 1):
        parameter.grad = rng.standard_normal(SIZE).astype(dtype)
        optimizer.step()
    parameter.grad = rng.standard_normal(SIZE).astype(dtype)
    saved = optimizer.state_dict()
    before = [_exact(saved[f"{state}.0"]) for state in states]
    right = list(exactly(_exact(parameter.data), _exact(parameter.grad), *before))
    optimizer.step()
    exact, terms = zip(*right, strict=True)
    error = in_u(parameter.data, in_two(exact), np.array([float(t) for t in terms]))
    return worst(f"{name} step", "u", error)


# ---- norms


def _clip(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Figure]:
    grads = [rng.standard_normal(size).astype(dtype) for size in _CLIP_SIZES]
    numbers = [_exact(grad) for grad in grads]
    norm = mp.sqrt(sum(x * x for grad in numbers for x in grad))
    parameters = [fa.Parameter(np.zeros_like(grad), "p") for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    got = fa.clip_grad_norm_(parameters, 0.5)
    yield worst("clip_grad_norm norm", "u", in_u(np.array([got]), in_two([norm]), float(norm)))
    scale = mp.mpf(0.5) / (norm + mp.mpf("1e-6"))
    exact = in_two(x * scale for grad in numbers for x in grad)
    clipped = np.concatenate([parameter.grad for parameter in parameters])
    yield worst("clip_grad_norm gradient", "u", in_u(clipped, exact, abs(exact[0])))


def _max_norm(dtype: np.dtype[Any], rng: np.random.Generator) -> Figure:
    data = rng.standard_normal((5, _ROW)).astype(dtype)
    exact = []
    for row in data:
        numbers = _exact(row)
        scale = mp.mpf(0.5) / mp.sqrt(sum(x * x for x in numbers))
        exact += [x * scale for x in numbers]
    fa.max_norm_(data, 0.5)
    right = in_two(exact)
    return worst("max_norm", "u", in_u(data, right, abs(right[0])))


# ---- dropout and hash embeddings


def _dropout(dtype: np.dtype[Any], rng: np.random.Generator) -> Figure:
    x = rng.standard_normal((13, SIZE)).astype(dtype)
    p = 0.3
    y = fa.Sequential(fa.Dropout(p, rng=0))(x, training=True)
    kept = y != 0
    exact = in_two(v / (1 - mp.mpf(p)) for v in _exact(x[kept]))
    return worst("dropout", "u", in_u(y[kept], exact, abs(exact[0])))


def _hash_embed(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Figure]:
    shape = (_TABLE_ROWS, _WIDTH)
    data, scale = rng.standard_normal(shape).astype(dtype), rng.standard_normal(_WIDTH).astype(dtype)
    table = HashTable(data, 0, 7, scale)
    ids = rng.integers(0, 2**63, (_EMBEDDED, 1), np.uint64)
    y, keys = np.empty((_EMBEDDED, _WIDTH), dtype), np.empty((1, _EMBEDDED, 4), np.uint32)
    backend = backends.active()
    backend.hash_embed(ids, (table,), y, keys)
    rows = keys[0].astype(np.intp)
    terms = _numbers(data)[rows] * _numbers(scale)
    yield _of_sums("hash_embed forward", y, terms.sum(axis=1), abs(terms).sum(axis=1))

    grad_y, grad = rng.standard_normal(y.shape).astype(dtype), np.zeros(shape, dtype)
    backend.hash_embed_backward(grad_y, keys, (table._replace(data=grad),))
    sums, magnitudes = (np.full(shape, mp.mpf(0), object) for _ in range(2))
    scaled = _numbers(grad_y) * _numbers(scale)
    for place in range(4):
        np.add.at(sums, rows[:, place], scaled)
        np.add.at(magnitudes, rows[:, place], abs(scaled))
    yield _of_sums("hash_embed backward", grad, sums, magnitudes)


def _numbers(values: Array) -> Array:
    """`values` as an array of mpmath's numbers."""
    return np.array(_exact(values), object).reshape(values.shape)


def _of_sums(name: str, actual: Array, sums: Array, magnitudes: Array) -> Figure:
    """The figure of sums whose terms' magnitudes add up to `magnitudes`."""
    error = in_u(actual, in_two(np.ravel(sums)), np.ravel(magnitudes).astype(np.float64))
    return worst(name, "u", error)


def measure(dtype: np.dtype[Any]) -> Iterator[Figure]:
    """The figures of a dtype, with the backend in force."""
    rng = np.random.default_rng(0)
    for name in OPTIMIZERS:
        yield _step(name, dtype, rng)
    yield from _clip(dtype, rng)
    yield _max_norm(dtype, rng)
    yield _dropout(dtype, rng)
    yield from _hash_embed(dtype, rng)
