"""Every figure of a backend or an instruction set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastact as fa
from fastact import backends

from .. import bits
from . import activations, layer_norm, losses, products, updates
from .figures import Figure

STEP = 4099  # from one float32 to the next that a quick sample of the activations takes
DTYPES = ("float32", "float64")
# {kind: the figures of a dtype, with the backend in force}; `step` is for the activations, which are swept
KINDS: dict[str, Callable[[np.dtype[Any], int], Iterator[Figure]]] = {
    "activations": activations.measure,
    "losses": lambda dtype, step: losses.measure(dtype),
    "layer_norm": lambda dtype, step: layer_norm.measure(dtype),
    "products": lambda dtype, step: products.measure(dtype),
    "updates": lambda dtype, step: updates.measure(dtype),
}


def variants() -> tuple[str, ...]:
    """C once for every instruction set of this CPU, and Numba; the NumPy backend is the specification."""
    without = {"numpy"} if backends.why_numba_is_missing() is None else {"numpy", "numba"}
    return tuple(variant for variant in bits.variants() if variant not in without)


def rows(variant: str, kind: str, step: int = STEP) -> Iterator[dict[str, Any]]:
    """A row for each figure of a kind, of both dtypes, on one thread."""
    with bits.chosen(variant), fa.num_threads(1), np.errstate(all="ignore"):
        for dtype in DTYPES:
            for figure in KINDS[kind](np.dtype(dtype), step):
                yield {"kind": kind, "variant": variant, "dtype": dtype} | figure._asdict()
