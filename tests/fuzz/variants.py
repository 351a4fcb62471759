"""The variants of calls: C on each instruction set, C with reproducible results, and the other backends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import bits
from fastact import backends, settings

_REPRODUCIBLE = "-reproducible"


def variants(wanted_backends: Sequence[str] = (), isas: Sequence[str] = ()) -> list[str]:
    """Those of these backends and instruction sets, all of them by default.

    Raises ValueError for one that this build or CPU does not have.
    """
    found = bits.variants()
    known_isas = [variant.partition("-")[2] for variant in found if variant.startswith("c-")]
    for isa in isas:
        if isa not in known_isas:
            raise ValueError(
                f"isa: got {isa!r}, wanted one of {', '.join(known_isas) or 'no instruction set'}"
            )
    for name in wanted_backends:
        if name not in {variant.partition("-")[0] for variant in found}:
            raise ValueError(f"backend: got {name!r}, wanted one of {', '.join(backends.NAMES)}")
    names = wanted_backends or (("c",) if isas else ("c", "numba", "numpy"))
    wanted = [
        variant
        for variant in found
        if variant.partition("-")[0] in names and (not isas or variant.partition("-")[2] in ("", *isas))
    ]
    return wanted + [f"{variant}{_REPRODUCIBLE}" for variant in wanted if variant.startswith("c-")]


def is_reproducible(variant: str) -> bool:
    return variant.endswith(_REPRODUCIBLE)


@contextmanager
def chosen(variant: str) -> Iterator[None]:
    """Put a variant in force, for every thread."""
    with bits.chosen(variant.removesuffix(_REPRODUCIBLE)):
        settings.set_default_mode(settings.REPRODUCIBLE if is_reproducible(variant) else 0)
        try:
            yield
        finally:
            settings.set_default_mode(0)
