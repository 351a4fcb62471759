"""Builds `fastact._native`: cffi binds fastact.h and arrays.h, setuptools compiles that with csrc/*.c.

The extension is optional: without a compiler or Python.h the install succeeds and `fastact` runs on Numba.

Environment variables for developers: FASTACT_DEVELOP=1 turns warnings into errors.
FASTACT_EMULATE_AMX=1 builds the AMX kernels on a plain C model of its tile instructions.
FASTACT_EMULATE_AVX512=FOLDER does that too, and builds the AVX-512 kernels on the portable intrinsics of
SIMDe, whose headers are in FOLDER, to test them on a CPU without AVX-512.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import cffi
import numpy
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.errors import CompileError, LinkError
from setuptools.extension import Extension

_HERE = Path(__file__).resolve().parent
# No contraction: an FMA is an intrinsic, so that where ISAs should agree they do.
_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
# AVX vectors in baseline code are passed by memory; they are all inlined.
_FLAGS += ["-Wno-psabi", "-Wno-unknown-pragmas"]


class build_ext(_build_ext):
    """setuptools' build_ext with the cffi source, the flags, and OpenMP where the compiler has it."""

    def build_extension(self, ext: Extension) -> None:
        ffi = cffi.FFI()
        for text in ("fastact.h", "arrays.h"):
            ffi.cdef((_HERE / text).read_text())
        ffi.set_source(ext.name, '#include "fastact_abi.h"')
        source = Path(self.build_temp) / "fastact_cffi.c"
        source.parent.mkdir(parents=True, exist_ok=True)
        ffi.emit_c_code(str(source))

        openmp = ["-fopenmp"] if self._links(["-fopenmp"]) else []
        develop = ["-Werror"] if os.environ.get("FASTACT_DEVELOP") == "1" else []
        simde = os.environ.get("FASTACT_EMULATE_AVX512")
        emulate = ["-DFA_EMULATE_AVX512", "-isystem", simde, "-O1"] if simde else []
        if simde or os.environ.get("FASTACT_EMULATE_AMX") == "1":
            emulate += ["-DFA_EMULATE_AMX"]
        ext.sources = [*ext.sources, str(source)]
        ext.include_dirs = [*ext.include_dirs, str(_HERE), numpy.get_include()]
        ext.extra_compile_args = _FLAGS + openmp + develop + emulate
        ext.extra_link_args = [*openmp, "-lm"]
        super().build_extension(ext)

    def _links(self, flags: list[str]) -> bool:
        """Whether a program that uses OpenMP compiles and links with `flags`."""
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "probe.c"
            program.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(program)], output_dir=folder, extra_postargs=flags)
                self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=flags)
            except (CompileError, LinkError, OSError, subprocess.SubprocessError):
                return False
        return True
