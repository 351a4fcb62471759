"""A thread pool for kernels that release the GIL: each call runs one kernel over a range of cells.

A cell is a block of outputs.  No other cell writes them, and no sum crosses cells, so results do not depend
on how many threads share the cells.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ... import settings

_MAX_HELPERS = 1023  # settings allow 1024 threads; the executor starts one only when none is idle
# Floating-point operations, about 50 us: waking a thread takes longer than less work.
# bench/tuning: numba-thread-work
_WORK_PER_THREAD = 4_000_000

_executor: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def _helpers() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="fastact")
        return _executor


def _forget() -> None:
    """Reset a forked child: it has none of the executor's threads, and nobody to release a held lock."""
    global _executor, _lock
    _executor = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def count_cells(*counts_and_limits: tuple[int, int]) -> int:
    """The cells of a grid: along each axis, `count` elements in blocks of at most `limit`."""
    cells = 1
    for count, limit in counts_and_limits:
        cells *= -(-count // limit)
    return cells


def run(kernel: Callable[..., None], cells: int, work: float, threads: int, *arguments: Any) -> None:
    """Call `kernel(*arguments, first, last)` on spans of cells that together are range(cells).

    `work`, the cost of all cells in floating-point operations, limits the threads to those that pay off.
    `threads` is the most to use, the caller's own included; 0 stands for the default.
    """
    if threads == 1 or cells <= 1 or work < _WORK_PER_THREAD:
        kernel(*arguments, 0, cells)
        return
    threads = min(threads or settings.default_threads(), cells, 1 + int(work / _WORK_PER_THREAD))
    spans = deque((cells * i // threads, cells * (i + 1) // threads) for i in range(threads))

    def take_spans() -> None:
        while True:
            try:
                first, last = spans.popleft()
            except IndexError:
                return
            kernel(*arguments, first, last)

    futures: list[Future[None]] = []
    try:
        # a RuntimeError says that no thread can start: the interpreter is ending, or a limit is reached
        with contextlib.suppress(RuntimeError):
            for _ in range(threads - 1):
                futures.append(_helpers().submit(take_spans))
        take_spans()
    finally:
        spans.clear()  # after an exception, Ctrl-C included, no thread starts another span
        for future in futures:
            if not future.cancel():
                future.result()
