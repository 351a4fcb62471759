"""Thread count and float32 precision tier: process defaults, and overrides for one context.

A default set here holds for the whole process.  The context managers override it for the
current thread or task only, as `contextvars` do, so that two threads never disturb each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .checks import check_size, shown

PRECISIONS = ("highest", "high", "medium")

_default_threads = 0  # 0: leave the choice to OpenMP (OMP_NUM_THREADS, threadpoolctl, the cores)
_default_precision = "highest"
_threads: ContextVar[int | None] = ContextVar("fastact_threads", default=None)
_precision: ContextVar[str | None] = ContextVar("fastact_precision", default=None)


def _check_threads(threads: int) -> int:
    return check_size("threads", threads, 1, 1024)


def check_precision(precision: str) -> str:
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"precision: got {shown(precision)}, wanted one of {', '.join(PRECISIONS)}")
    return precision


def set_num_threads(threads: int) -> None:
    """Set how many threads an operation may use, for the whole process.

    On the C backend the first operation that wants a team of some size tries whether so many threads can
    start, and otherwise uses as many as can: OpenMP itself would end the process, and still does where the
    system's limits grow tighter later, or where OMP_STACKSIZE asks for more memory than there is.  A thread
    needs 32 KB of stack, so OMP_STACKSIZE=32k and more will do; the calling thread needs 64 KB.

    Raises TypeError when `threads` is not an int, ValueError when it is not in 1 to 1024.
    """
    global _default_threads
    _default_threads = _check_threads(threads)


@contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Override the thread count for the current context: `with fastact.num_threads(1): ...`."""
    token = _threads.set(_check_threads(threads))
    try:
        yield
    finally:
        _threads.reset(token)


def requested_threads() -> int:
    """The thread count asked for, or 0 where nobody asked and the backend's own default holds."""
    override = _threads.get()
    return _default_threads if override is None else override


def set_float32_matmul_precision(precision: str) -> None:
    """Set the precision tier of float32 products for the whole process.

    `precision` is "highest" (the default), "high" or "medium", the words that PyTorch uses.  A tier
    allows a loss of accuracy, it does not ask for one: what has no faster unit runs the float32 kernels.
    `show_config` says what each tier runs on here.

        tier       norm of the error            on AVX512-BF16           on AMX-BF16
        "highest"  about 2e-7, no worse than    float32                  3 parts, 1.1 to 1.6 times; float32
                   NumPy's float32                                       below 96 rows, 32 inputs, 48 outputs,
                                                                         96 units (outputs x pieces) or 6
                                                                         million multiplications
        "high"     at most 1e-5 (seen 4.5e-6)   float32                  2 parts, 1.2 to 2.5 times
        "medium"   at most 4e-3 (seen 2.3e-3)   1 part, 1.6 to 2 times   1 part, 2 to 5 times

    Speed is relative to float32 kernels on the same CPU, forward (Zen 5; a Xeon of family 6, model 207, where
    FASTACT_ISA=avx512 leaves AMX out).  The backward of `linear_maxout` takes a tier where pieces are few and
    rows many.  Products of a few rows, float64, the Numba backend and the NumPy reference ignore tiers.

    Infinities, NaN and numbers that bfloat16 would round to an infinity come out as in float32; but a sum
    that comes, in whole or in part, within 1% of the largest float32 may overflow.  Those units take what is
    below 1.2e-38 in magnitude for zero: an absolute error of that size times the other factor, for each term.

    Raises ValueError for any other word.
    """
    global _default_precision
    _default_precision = check_precision(precision)


def get_float32_matmul_precision() -> str:
    """The precision tier in force in this context."""
    return precision_in_force(None)


def precision_in_force(asked: str | None) -> str:
    """The precision tier of a call that asks for `asked`."""
    return (_precision.get() or _default_precision) if asked is None else check_precision(asked)


@contextmanager
def float32_matmul_precision(precision: str) -> Iterator[None]:
    """Override the precision tier for the current context."""
    token = _precision.set(check_precision(precision))
    try:
        yield
    finally:
        _precision.reset(token)
