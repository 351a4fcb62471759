"""NumPy at its quickest: BLAS products, one search for each winner, SciPy's erf.

The naive version, which looks for the maximum and for its index apart, is fastact's own reference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..problem import Array, Problem
from ..shapes import MAXOUT
from .base import NotAvailable, OnArrays


def _erf() -> Any:
    """SciPy's erf: NumPy has none."""
    try:
        from scipy.special import erf
    except ImportError as error:
        raise NotAvailable(f"gelu needs SciPy's erf ({error})") from error
    return erf


class QuickNumpy(OnArrays):
    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        self._erf = _erf() if self._activation == "gelu" else None

    def _forward(self) -> tuple[Array, Any]:
        z = self._x @ self._weight.T
        z += self._bias
        if self._activation == MAXOUT:
            z = z.reshape(self._grouped)
            # taking z at its argmax is up to twice as fast as z.max(), which would search again
            winner = z.argmax(axis=-1)[..., None]
            return np.take_along_axis(z, winner, -1)[..., 0], winner
        if self._activation == "relu":
            return np.maximum(z, 0, out=z), z
        cdf = self._erf(z * np.float32(math.sqrt(0.5)))
        cdf += 1
        cdf *= np.float32(0.5)
        return z * cdf, (z, cdf)

    def _backward(self, grad_y: Array, saved: Any) -> tuple[Array, Array, Array]:
        grad_z = self._grad_z(grad_y, saved).reshape(len(grad_y), -1)
        return grad_z @ self._weight, grad_z.T @ self._x, grad_z.sum(axis=0)

    def _grad_z(self, grad_y: Array, saved: Any) -> Array:
        if self._activation == MAXOUT:
            grad_z = np.zeros(self._grouped, grad_y.dtype)
            np.put_along_axis(grad_z, saved, grad_y[..., None], -1)
            return grad_z
        if self._activation == "relu":
            return grad_y * (saved > 0)
        z, cdf = saved
        slope = np.multiply(z, z)
        slope *= np.float32(-0.5)
        np.exp(slope, out=slope)
        slope *= z
        slope *= np.float32(1 / math.sqrt(2 * math.pi))
        slope += cdf
        slope *= grad_y
        return slope
