"""The kernels of custom activations, which all backends take from Numba, and how C is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import settings
from ..activations import Code, learns_slope, resolve
from ..custom import CustomActivation
from . import why_numba_is_missing

if TYPE_CHECKING:
    from .numba.custom import Kernels

_FLOAT64 = np.dtype(np.float64)


def kernels_of(activation: CustomActivation, dtype: np.dtype[Any], vectorised: bool = True) -> Kernels:
    """The kernels for arrays of a dtype, which the first call compiles: see `numba/custom.py`.

    Raises:
        TypeError: Numba cannot compile a function, which the message names.
        ImportError: Numba cannot be imported.
    """
    key = (dtype.char, vectorised)
    found: Kernels | None = activation.compiled.get(key)
    if found is None:
        if (reason := why_numba_is_missing()) is not None:
            raise ImportError(f"{activation!r} needs Numba, which cannot be used: {reason}")
        from .numba.custom import Kernels

        learned = learns_slope(activation)
        made = Kernels(activation.functions, bool(activation.defaults), learned, dtype, vectorised)
        found = activation.compiled.setdefault(key, made)  # another thread may have been faster
    return found


def code_of(
    name: str | CustomActivation, parameters: Mapping[str, Any], dtype: np.dtype[Any] = _FLOAT64
) -> Code:
    """An activation for arrays of a dtype, with parameters other than a slope.

    Raises what `resolve` raises for float64, what `kernels_of` raises, and RuntimeError for a custom
    activation where results are to be reproducible.
    """
    if isinstance(name, CustomActivation) and settings.get_reproducible():
        raise RuntimeError(
            f"activation: got {name!r}, which is compiled for this CPU, "
            "wanted a built-in one for reproducible results"
        )
    key = (dtype.char, "code")  # a network asks at each call
    kept = name.compiled if isinstance(name, CustomActivation) and not parameters else {}
    found: Code | None = kept.get(key)
    if found is None:
        if learns_slope(name):
            parameters = {**parameters, "slope": np.zeros(1)}
        act = resolve(name, 1, _FLOAT64, parameters)
        code = act.code if act.custom is None else kernels_of(act.custom, dtype).address
        found = Code(code, act.parameter, act.saves == "z", act.slope is not None, act.custom)
        kept[key] = found
    return found
