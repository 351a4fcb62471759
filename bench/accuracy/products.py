"""Products, forward and backward, each a sum of DEPTH terms.

An error is counted in u times the sum of the terms' magnitudes, and its norm beside that of NumPy's product.
The tiers of lower precision are bounded by their norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fastact as fa
from fastact import backends, settings

from .figures import Array, Figure, in_u

DEPTH = 1024
# Whole register tiles of the BLAS libraries: in the tiles at an edge they split a sum as it happens to fit.
ROWS, COLUMNS, PIECES = 96, 144, 3
TIERS = settings.PRECISIONS[1:]
# Sampled columns of a float64 result, which extended precision is slow at
_SAMPLED = 8

Compute = Callable[..., Array]  # of the keywords backend and precision
Product = tuple[Compute, Array, Array]  # the result is left (n, DEPTH) @ right (DEPTH, m), in any shape


def _matmul(x: Array, y: Array) -> Compute:
    def compute(backend: backends.BackendName | None, precision: settings.Precision) -> Array:
        out = np.empty((x.shape[0], y.shape[1]), x.dtype)
        backends.get(backend or backends.get_backend()).matmul(x, y, False, False, out, 1, precision)
        return out

    return compute


def _one(call: Callable[..., Any], place: int, *arguments: Any) -> Compute:
    """Result number `place` of a call."""
    return lambda **keywords: np.asarray(call(*arguments, **keywords)[place])


def _products(make: Callable[..., Array]) -> Iterator[tuple[str, Product]]:
    """Each product of the API, with numbers that `make` makes of a shape."""
    x, weight = make(ROWS, DEPTH), make(COLUMNS, DEPTH)
    yield "matmul", (_matmul(x, np.ascontiguousarray(weight.T)), x, weight.T)
    yield (
        "linear_activation forward",
        (_one(fa.linear_activation, 0, x, weight, None, "identity"), x, weight.T),
    )
    one_piece = weight[:, None]
    yield "linear_maxout forward", (_one(fa.linear_maxout, 0, x, one_piece), x, weight.T)

    grad_y, weight = make(ROWS, DEPTH), make(DEPTH, COLUMNS)
    unused = np.zeros((ROWS, COLUMNS), grad_y.dtype)
    back = fa.linear_activation_backward
    of_linear = (grad_y, unused, weight, grad_y, "identity")
    yield "linear_activation grad_x", (_one(back, 0, *of_linear), grad_y, weight)
    rng = np.random.default_rng(1)
    argmax = rng.integers(0, PIECES, grad_y.shape, dtype=np.uint8)
    pieces = make(DEPTH, PIECES, COLUMNS)
    yield (
        "linear_maxout grad_x",
        (
            _one(fa.linear_maxout_backward, 0, grad_y, unused, pieces, argmax),
            _winners(grad_y, argmax).reshape(ROWS, -1),
            pieces.reshape(-1, COLUMNS),
        ),
    )

    grad_y, x = make(DEPTH, ROWS), make(DEPTH, COLUMNS)
    unused = np.zeros((ROWS, COLUMNS), x.dtype)
    ones = np.ones((DEPTH, 1), x.dtype)
    of_linear = (grad_y, x, unused, grad_y, "identity")
    yield "linear_activation grad_weight", (_one(back, 1, *of_linear), grad_y.T, x)
    yield "linear_activation grad_bias", (_one(back, 2, *of_linear), grad_y.T, ones)
    argmax = rng.integers(0, PIECES, grad_y.shape, dtype=np.uint8)
    of_maxout = (grad_y, x, np.zeros((ROWS, PIECES, COLUMNS), x.dtype), argmax)
    won = _winners(grad_y, argmax).reshape(DEPTH, -1).T
    yield "linear_maxout grad_weight", (_one(fa.linear_maxout_backward, 1, *of_maxout), won, x)
    yield "linear_maxout grad_bias", (_one(fa.linear_maxout_backward, 2, *of_maxout), won, ones)


def _winners(grad_y: Array, argmax: Array) -> Array:
    """(rows, out_features, pieces): grad_y at the winners, 0 elsewhere."""
    return np.asarray(grad_y[..., None] * (argmax[..., None] == np.arange(PIECES)).astype(grad_y.dtype))


def _exact(left: Array, right: Array) -> tuple[Array, Array, slice]:
    """left @ right, the same of the magnitudes, and which columns of the result these are.

    Extended precision adds 1024 terms with an error of at most half a u of float64.
    """
    if left.dtype == np.float32:
        columns, wide = slice(None), np.dtype(np.float64)
    else:
        columns, wide = slice(0, _SAMPLED), np.dtype(np.longdouble)
    a, b = left.astype(wide), right[:, columns].astype(wide)
    return a @ b, (abs(a) @ abs(b)).astype(np.float64), columns


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _errors(compute: Compute, left: Array, right: Array) -> dict[str, float]:
    """The error of a product in each unit, and at each tier."""
    exact, magnitude, columns = _exact(left, right)

    def result(backend: backends.BackendName | None, precision: settings.Precision) -> Array:
        return compute(backend=backend, precision=precision).reshape(len(left), -1)[:, columns]

    ours, high = result(None, "highest"), exact.astype(np.float64)
    errors = in_u(ours, (high, (exact - high).astype(np.float64)), magnitude)
    found = {"u": float(errors.max())}
    if left.dtype == np.float32 and right.shape[1] > 1:
        with threadpool_limits(1, user_api="blas"):  # so that it does not cut its tiles to share them out
            found["numpy"] = _norm(ours - exact) / _norm(result("numpy", "highest") - exact)
        found |= {tier: _norm(result(None, tier) - exact) / _norm(exact) for tier in TIERS}
    return found


def measure(dtype: np.dtype[Any]) -> Iterator[Figure]:
    """The figures of a dtype, with the backend in force: the worse of normal and of positive numbers."""
    if dtype == np.float64 and np.finfo(np.longdouble).nmant < 63:
        return  # nothing to hold it against
    draws = (np.random.default_rng(20130218).standard_normal, np.random.default_rng(20130218).random)
    products = (_products(lambda *shape, draw=draw: draw(shape).astype(dtype)) for draw in draws)
    for (name, normal), (_, positive) in zip(*products, strict=True):
        found = [_errors(*product) for product in (normal, positive)]
        for key in found[0]:
            unit, tier = (key, "") if key in ("u", "numpy") else ("norm", f", {key}")
            yield Figure(f"{name}{tier}", unit, float(np.max([errors[key] for errors in found])))
