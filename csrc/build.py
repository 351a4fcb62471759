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
# Hardening, where the compiler and the linker take it without a warning.
_HARDENING = [["-fstack-protector-strong"], ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]]
_LINK_HARDENING = ["-Wl,-z,relro,-z,now"]
_PROGRAM = "int probe(void);\nint probe(void) { return 0; }\n"
_OPENMP_PROGRAM = "#include <omp.h>\nint probe(void);\nint probe(void) { return omp_get_max_threads(); }\n"


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

        openmp = ["-fopenmp"] if self._builds(_OPENMP_PROGRAM, ["-fopenmp"], ["-fopenmp"]) else []
        harden = [
            flag for flags in _HARDENING if self._builds(_PROGRAM, [*flags, "-Werror"], []) for flag in flags
        ]
        harden_link = _LINK_HARDENING if self._builds(_PROGRAM, [], _LINK_HARDENING) else []
        develop = ["-Werror"] if os.environ.get("FASTACT_DEVELOP") == "1" else []
        simde = os.environ.get("FASTACT_EMULATE_AVX512")
        emulate = ["-DFA_EMULATE_AVX512", "-isystem", simde, "-O1"] if simde else []
        if simde or os.environ.get("FASTACT_EMULATE_AMX") == "1":
            emulate += ["-DFA_EMULATE_AMX"]
        ext.sources = [*ext.sources, str(source)]
        ext.include_dirs = [*ext.include_dirs, str(_HERE), numpy.get_include()]
        ext.extra_compile_args = _FLAGS + openmp + harden + develop + emulate
        ext.extra_link_args = [*openmp, *harden_link, "-lm"]
        super().build_extension(ext)

    def _builds(self, program: str, compile_flags: list[str], link_flags: list[str]) -> bool:
        """Whether `program` compiles and links as the extension does, under CFLAGS and LDFLAGS."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_flags
                )
                self.compiler.link_shared_object(objects, f"{folder}/probe.so", extra_postargs=link_flags)
            except (CompileError, LinkError, OSError, subprocess.SubprocessError):
                return False
        return True
