"""Threads, float32 precision tier, reproducible results: process defaults, and overrides for one context.

A default set here holds for the whole process.  The context managers override it for the
current thread or task only, as `contextvars` do, so that two threads never disturb each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import numpy as np

from .checks import check_size, unknown_name

Precision = Literal["highest", "high", "medium"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_MAX_DEFAULT_THREADS = 32
_default_threads = 0  # 0: leave the choice to the backend (OMP_NUM_THREADS, the cores)
_default_precision: Precision = "highest"
# Added to a thread count where results are to be reproducible: FA_REPRODUCIBLE of csrc/api/fastact.h.
REPRODUCIBLE = 1 << 16
_default_mode = 0  # or REPRODUCIBLE
# The defaults again, in memory that compiled code of Numba and JAX reads: the threads with the mode, and the
# tier's place in PRECISIONS.
DEFAULTS = np.zeros(2, np.intc)
_threads: ContextVar[int | None] = ContextVar("fastact_threads", default=None)
_precision: ContextVar[Precision | None] = ContextVar("fastact_precision", default=None)
_mode: ContextVar[int | None] = ContextVar("fastact_mode", default=None)


def _check_threads(threads: int) -> int:
    return check_size("threads", threads, 1, 1024)


def check_precision(precision: object) -> Precision:
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    return precision


def set_num_threads(threads: int) -> None:
    """Set how many threads an operation may use, for the whole process.

    Where the system refuses the C backend some of its threads, operations run on those that it could start.
    These threads have a stack of 256 KB each; the calling thread needs 64 KB.

    Raises TypeError when `threads` is not an int, ValueError when it is not in 1 to 1024.
    """
    global _default_threads
    _default_threads = _check_threads(threads)
    DEFAULTS[0] = _default_threads | _default_mode


@contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Override the thread count for the current context: `with fastact.num_threads(1): ...`.

    Raises TypeError when `threads` is not an int, ValueError when it is not in 1 to 1024.
    """
    token = _threads.set(_check_threads(threads))
    try:
        yield
    finally:
        _threads.reset(token)


def default_threads() -> int:
    """The threads that a count of 0 stands for outside C: OMP_NUM_THREADS, else the usable cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_DEFAULT_THREADS)


def requested_threads() -> int:
    """The thread count that was asked for; 0, the backend's own default, where nobody asked."""
    override = _threads.get()
    return _default_threads if override is None else override


def threads_and_mode(default: int = 0) -> int:
    """What a backend takes as `threads`: the count that was asked for, or `default`, with the mode."""
    threads, mode = _threads.get(), _mode.get()
    if threads is None:
        threads = _default_threads or default
    return threads | (_default_mode if mode is None else mode)


def threads_and_mode_of_context() -> int:
    """`threads_and_mode` of this context alone; 0 where the process's count and mode are in force."""
    if _threads.get() is None and _mode.get() is None:
        return 0
    return threads_and_mode(default_threads())


def get_reproducible() -> bool:
    """Whether results are reproducible in this context."""
    mode = _mode.get()
    return bool(_default_mode if mode is None else mode)


def set_default_mode(mode: int) -> None:
    """Set the mode of the process: 0 or REPRODUCIBLE."""
    global _default_mode
    _default_mode = mode
    DEFAULTS[0] = _default_threads | _default_mode


@contextmanager
def mode_of_context(mode: int) -> Iterator[None]:
    """Override the mode for the current context."""
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def set_float32_matmul_precision(precision: Precision) -> None:
    """Set the precision tier of float32 products for the whole process.

    A tier bounds the norm of the error.  It allows a faster unit of the CPU, and asks for none: where there
    is no such unit, products run on the float32 kernels.  `show_config` says what each tier runs on here.

        "highest"   no worse than NumPy's float32 (the default)
        "high"      at most 1e-5
        "medium"    at most 4e-3

    The words are PyTorch's.  Small products, float64, the Numba backend and the NumPy reference ignore tiers.

    On bfloat16 units, infinities, NaN and numbers that bfloat16 would round to an infinity come out as in
    float32, with one exception: a sum that comes within 1% of the largest float32 may overflow.  A number
    below 1.2e-38 in magnitude counts as zero.

    Raises ValueError for any other word.
    """
    global _default_precision
    _default_precision = check_precision(precision)
    DEFAULTS[1] = PRECISIONS.index(_default_precision)


def get_float32_matmul_precision() -> Precision:
    """The precision tier in force in this context."""
    return precision_in_force(None)


def precision_in_force(asked: object) -> Precision:
    """The precision tier of a call that asks for `asked`."""
    return (_precision.get() or _default_precision) if asked is None else check_precision(asked)


@contextmanager
def float32_matmul_precision(precision: Precision) -> Iterator[None]:
    """Override the precision tier for the current context.

    Raises ValueError for a word that is not a tier.
    """
    token = _precision.set(check_precision(precision))
    try:
        yield
    finally:
        _precision.reset(token)
