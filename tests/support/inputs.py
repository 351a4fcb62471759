"""Random inputs, and the results of the specification in float64."""

from __future__ import annotations

import numpy as np

import fastact as fa


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def integers(rng, shape, dtype, largest=2):
    """Whole numbers small enough for every sum of their products to be exact."""
    return rng.integers(-largest, largest + 1, shape).astype(dtype)


def maxout_inputs(rng, shape, dtype, values=normal):
    """x, weight, bias and grad_y of a linear_maxout."""
    rows, in_features, out_features, pieces = shape
    return (
        values(rng, (rows, in_features), dtype),
        values(rng, (out_features, pieces, in_features), dtype),
        values(rng, (out_features, pieces), dtype),
        values(rng, (rows, out_features), dtype),
    )


def linear_inputs(rng, shape, dtype, values=normal):
    """x, weight, bias and grad_y of a linear_activation."""
    rows, in_features, out_features = shape[:3]
    return (
        values(rng, (rows, in_features), dtype),
        values(rng, (out_features, in_features), dtype),
        values(rng, (out_features,), dtype),
        values(rng, (rows, out_features), dtype),
    )


def double(*arrays):
    """The float64 versions of some arrays, as the oracle takes them."""
    return tuple(_widened(a) for a in arrays)


def _widened(value):
    return value.astype(np.float64) if getattr(value, "dtype", None) == np.float32 else value


def reference(operation: str, *arguments, **keywords):
    """The result of the specification in float64."""
    keywords = {key: _widened(value) for key, value in keywords.items()}
    with fa.reproducible(False):
        return getattr(fa, operation)(*double(*arguments), **keywords, backend="numpy")


def as_tuple(result):
    """The results of an operation that returns one or several."""
    return result if isinstance(result, tuple) else (result,)
