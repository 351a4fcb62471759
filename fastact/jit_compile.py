"""How the Numba backend compiles its kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.compiler_lock import global_compiler_lock

if hasattr(os, "register_at_fork"):
    # a child forked while another thread compiles would wait for ever for the lock of that thread
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def compiled(function: Callable[..., Any], reassociate: bool = False) -> Any:
    """With `reassociate` LLVM may take a sum in any order, so in vectors."""
    fastmath = {"reassoc", "contract", "nsz"} if reassociate else False
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # no directory can be written to
        return njit(function, **options)
