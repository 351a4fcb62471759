"""Measures the machine's limits with limits.c: multiply-adds a second and memory bandwidth."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cffi
import numpy as np
from setuptools.errors import CompileError, LinkError

_DECLARATIONS = """
int64_t register_fma(int64_t repeats, float *result);
int64_t load_fma(int64_t repeats, const void *memory, int64_t bytes, float *result);
int64_t read_memory(const void *memory, int64_t bytes, float *result);
int64_t tile_bf16(int64_t repeats, float *result);
"""
_SECONDS = 0.1  # for one run
_RUNS = 7
_L1_BYTES = 12 << 10
_READ_BYTES = 256 << 20  # a thread; several times the cache of any core


def _build(folder: str) -> Any:
    builder = cffi.FFI()
    builder.cdef(_DECLARATIONS)
    builder.set_source(
        "_limits",
        Path(__file__).with_name("limits.c").read_text(),
        extra_compile_args=["-O3", "-march=native"],
    )
    path = builder.compile(tmpdir=folder)
    spec = importlib.util.spec_from_file_location("_limits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _best_rate(work: Callable[[int], int], threads: int) -> float:
    """The best of some runs, in 1e9 units of work a second: the undisturbed one counts."""
    with ThreadPoolExecutor(threads) as pool:

        def run() -> float:
            started = time.perf_counter()
            done = sum(pool.map(work, range(threads)))
            return done / (time.perf_counter() - started) / 1e9

        return max(run() for _ in range(_RUNS))


def _repeats(work: Callable[[int], int]) -> int:
    """The repeats of its loop with which `work` runs for `_SECONDS`."""
    repeats = 1000
    while True:
        started = time.perf_counter()
        work(repeats)
        elapsed = time.perf_counter() - started
        if elapsed > _SECONDS / 10:
            return int(repeats * _SECONDS / elapsed)
        repeats *= 4


def measure(threads: int) -> dict[str, float] | None:
    """Rates on `threads` threads, or None without a C compiler.

    GFLOP/s of FMA in registers, of FMA with one load from L1 each, and of bfloat16 tiles where the CPU has
    AMX; GB/s of reading memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            module = _build(folder)
        except (CompileError, LinkError, cffi.VerificationError):
            return None
        ffi, lib = module.ffi, module.lib
        results = [ffi.new("float *") for _ in range(threads)]
        memory = [np.ones((_READ_BYTES + 64) // 4, np.float32) for _ in range(threads)]
        aligned = [ffi.cast("void *", array.ctypes.data + -array.ctypes.data % 64) for array in memory]
        in_registers = _repeats(lambda repeats: lib.register_fma(repeats, results[0]))
        from_l1 = _repeats(lambda repeats: lib.load_fma(repeats, aligned[0], _L1_BYTES, results[0]))
        kernels: dict[str, Callable[[int], int]] = {
            "register_fma_gflops": lambda thread: lib.register_fma(in_registers, results[thread]),
            "load_fma_gflops": lambda thread: lib.load_fma(
                from_l1, aligned[thread], _L1_BYTES, results[thread]
            ),
            "read_gbytes": lambda thread: lib.read_memory(aligned[thread], _READ_BYTES, results[thread]),
        }
        if lib.tile_bf16(1, results[0]):
            in_tiles = _repeats(lambda repeats: lib.tile_bf16(repeats, results[0]))
            kernels["tile_bf16_gflops"] = lambda thread: lib.tile_bf16(in_tiles, results[thread])
        rates = {name: _best_rate(kernel, threads) for name, kernel in kernels.items()}
    return {name: float(f"{rate:.4g}") for name, rate in rates.items()}
