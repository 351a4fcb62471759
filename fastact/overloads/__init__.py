"""The functional API inside `@numba.njit`: overloads of the public functions themselves.

Numba loads this room by itself, through the entry point `numba_extensions`.  README.md beside this file shows
how a call is compiled.
"""

from __future__ import annotations

import functools

__all__ = ["init"]


@functools.cache
def init() -> None:
    """Make the public functions known to Numba, which calls this once, before it first compiles."""
    from numba.core.typing.templates import builtin_registry
    from numba.extending import overload

    from .implementation import PerBackend, typing_function
    from .table import FUNCTIONS

    for function in FUNCTIONS:
        overload(function.public, prefer_literal=True)(typing_function(function))
        _, known = builtin_registry.globals[-1]  # what `overload` has registered
        (template,) = known.templates
        template._impl_cache = PerBackend()
