"""The backends that are tested here, C once for every instruction set of this CPU; what a test may need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastact import backends
from support import sanitize


def _compiled_variants() -> tuple[str, ...]:
    """Numba, and C once for every instruction set of this CPU; test_install.py says which are missing."""
    numba = ("numba",) if backends.why_numba_is_missing() is None else ()
    if backends.why_c_is_missing() is not None:
        return numba
    from fastact.backends import c

    return (*numba, *(f"c-{isa}" for isa in c.supported_isas()))


needs_c = pytest.mark.skipif(
    backends.why_c_is_missing() is not None, reason=f"needs the C extension: {backends.why_c_is_missing()}"
)
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
needs_plain_build = pytest.mark.skipif(
    sanitize.running(), reason="measures time or memory, of which sanitizers take more"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

COMPILED = _compiled_variants()
COMPILED_BACKENDS = tuple(dict.fromkeys(variant.partition("-")[0] for variant in COMPILED))


@contextmanager
def in_force(variant: str) -> Iterator[str]:
    """Yield the backend of a variant, e.g. "c-avx2", while it is chosen; then restore the default."""
    name, _, isa = variant.partition("-")
    backends.set_backend(name)
    try:
        if isa:
            from fastact.backends import c

            before = c.isa()
            c.set_isa(isa)
        yield name
    finally:
        if isa:
            c.set_isa(before)
        backends.set_backend(None)


def isa_in_force(backend: str) -> str | None:
    """The instruction set of the C backend, or None for another backend."""
    if backend != "c":
        return None
    from fastact.backends import c

    return c.isa()
