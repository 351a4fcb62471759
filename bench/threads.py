"""Holding a process to a number of threads.

Nothing here imports NumPy or any other library: they read their settings when they load.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

# Settings that keep NumPy's BLAS from choosing the kernels for this CPU.
HINDRANCES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def process_environment(threads: int) -> dict[str, str]:
    """The environment of a process that measures; libraries read it when they load.

    It holds every contender to `threads` threads, and keeps none from its best kernels.
    """
    counts = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA")
    environment = {name: value for name, value in os.environ.items() if name not in HINDRANCES}
    environment |= {f"{name}_NUM_THREADS": str(threads) for name in counts}
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    # torch.compile's workers would go on in the background
    return environment | {"JAX_PLATFORMS": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def run_process(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` in a session of its own, which no Ctrl-C reaches: this process then kills it."""
    return subprocess.run(command, check=False, text=True, start_new_session=True, **options)


def pin(threads: int) -> None:
    """Keep this process on `threads` cores: JAX has no other setting that holds."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        raise ValueError(f"threads: got {threads}, wanted at most {len(cores)}, the cores there are")
    os.sched_setaffinity(0, cores[:threads])
