"""Reproducible results: the same bits on every CPU, with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import backends, settings
from .checks import check_flag


def _mode_of(enabled: object) -> int:
    if not check_flag("enabled", enabled):
        return 0
    backends.check_reproducible(backends.get_backend())
    return settings.REPRODUCIBLE


def set_reproducible(enabled: bool) -> None:
    """Ask for reproducible results, or no longer, for the whole process.

    A training run of one version of fastact then has the same bits on every CPU that runs the C backend: with
    AVX-512, AVX2, NEON or none of them, on any number of threads, compiled by GCC or clang.  A row of a
    forward, in training too, has the same bits whatever the other rows are, and a model frozen in this
    mode has the bits of its layers.  Precision tiers are ignored.

    The promise is about fastact's own computations on equal inputs.  It leaves out what NumPy, PyTorch or
    another library computes around them, initial weights among that, and the bits of a NaN.  Custom
    activations, which are compiled for this CPU, raise RuntimeError, and so do the other backends.

    Raises TypeError when `enabled` is not a bool, RuntimeError where the backend in force is not "c".
    """
    settings.set_default_mode(_mode_of(enabled))


@contextmanager
def reproducible(enabled: bool = True) -> Iterator[None]:
    """Override `set_reproducible` for the current context: `with fastact.reproducible(): ...`.

    Raises TypeError when `enabled` is not a bool, RuntimeError where the backend in force is not "c".
    """
    with settings.mode_of_context(_mode_of(enabled)):
        yield
