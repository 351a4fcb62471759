"""A thread pool for kernels that release the GIL: each call runs one kernel over a range of cells.

A cell is a block of outputs that no other cell writes, and each sum lies in one cell, so the results
do not depend on how many threads share the cells.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_MAX_DEFAULT_THREADS = 32
_MAX_HELPERS = 1023  # settings allow 1024 threads; the executor starts one only when none is idle
_WORK_PER_THREAD = 4_000_000  # floating-point operations: below 50 us of work, waking a thread costs more

_executor: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def default_threads() -> int:
    """The threads that a count of 0 stands for: OMP_NUM_THREADS, else the usable cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_DEFAULT_THREADS)


def _helpers() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="fastact")
        return _executor


def _forget() -> None:
    """In a forked child: the executor's threads do not exist here, and the lock may be held for ever."""
    global _executor, _lock
    _executor = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(kernel: Callable[..., None], cells: int, work: float, threads: int, *arguments: Any) -> None:
    """Call `kernel(*arguments, first, last)` on spans that make up range(cells).

    `work` is the cost of the whole in floating-point operations: helpers are woken where it is worth
    it.  `threads` is the most to use, the caller's own included; 0 stands for the default.
    """
    threads = min(threads or default_threads(), cells, 1 + int(work / _WORK_PER_THREAD))
    if threads <= 1:
        kernel(*arguments, 0, cells)
        return
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
        # a RuntimeError says that no thread can start: the interpreter is ending, or a limit is met
        with contextlib.suppress(RuntimeError):
            for _ in range(threads - 1):
                futures.append(_helpers().submit(take_spans))
        take_spans()
    finally:
        spans.clear()  # after an exception, Ctrl-C included, nobody starts another
        for future in futures:
            if not future.cancel():
                future.result()
