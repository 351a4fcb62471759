"""Builds `fastact._native`: cffi binds api/fastact.h and api/numpy.h; every .c below csrc is compiled.

The extension is optional: without a compiler or Python.h the install succeeds and `fastact` runs on Numba.
A wheel without the extension has the tag of a pure wheel, py3-none-any.  One extension serves every Python
with a GIL from 3.10 on; a free-threaded Python has no limited API before 3.15, and gets one of its own.

FASTACT_RELEASE=1, for what is published: an extension that cannot be built is an error.

Environment variables for developers:
FASTACT_DEVELOP=1 turns warnings into errors and keeps debug information.
FASTACT_EMULATE_AMX=1 builds the AMX kernels on a plain C model of its tile instructions.
FASTACT_EMULATE_AVX512=FOLDER does that too, and builds the AVX-512 kernels on the portable intrinsics of
SIMDe, whose headers are in FOLDER, to test them on a CPU without AVX-512.  The CPU needs FMA.
FASTACT_SANITIZE=address,undefined or FASTACT_SANITIZE=thread builds with sanitizers of GCC, and compiles only
what changed.  Their libraries have to be preloaded: `pytest --sanitize` builds and runs tests so.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cffi
import numpy
from setuptools.command.bdist_wheel import bdist_wheel as _bdist_wheel
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.command.sdist import sdist as _sdist
from setuptools.errors import CompileError, LinkError
from setuptools.extension import Extension
from setuptools.modified import newer_group

_HERE = Path(__file__).resolve().parent
# No contraction: FMAs are intrinsics, so that ISAs agree where they should.
_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
# GCC warns that AVX vectors are passed in memory in baseline code; all these functions are inlined.
_FLAGS += ["-Wno-psabi", "-Wno-unknown-pragmas"]
# POSIX threads, and the C library's mathematics; Windows has both in its own libraries.
_SYSTEM, _LIBRARIES = ([], []) if os.name == "nt" else (["-pthread"], ["-lm"])
# Hardening flags, used if the compiler and the linker take them without a warning.
_HARDENING = [["-fstack-protector-strong"], ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]]
_LINK_HARDENING = ["-Wl,-z,relro,-z,now"]
_STRIP = ["-Wl,-s"]  # no table of symbols, if the linker can leave it out
_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
_PROGRAM = "int probe(void);\nint probe(void) { return 0; }\n"


def _found(pattern: str) -> list[str]:
    """The files below csrc that match `pattern`, relative to the checkout, sorted."""
    return sorted(os.path.relpath(path, _HERE.parent) for path in _HERE.rglob(pattern))


def _sanitizers(names: str) -> list[str]:
    """The flags of an extension with sanitizers, e.g. "address,undefined"; none for "".

    At -O1 a file of kernels compiles in 16 s, at -O3 in up to 60; at -O0 tests take several times as long.
    Python's own flags have -fwrapv, which makes overflow defined.
    """
    if not names:
        return []
    casts = ["-fsanitize=float-cast-overflow"] if "undefined" in names else []  # not among undefined's own
    flags = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-wrapv"]
    stack = "-DOS_STACK_BYTES=1048576"  # a function's arrays do not share memory
    return [*flags, f"-fsanitize={names}", *casts, "-fno-sanitize-recover=all", stack]


class build_ext(_build_ext):
    """setuptools' build_ext with the sources, headers and flags found here."""

    def finalize_options(self) -> None:
        for ext in self.distribution.ext_modules or ():
            ext.py_limited_api = not _FREE_THREADED
            ext.optional = os.environ.get("FASTACT_RELEASE") != "1"
        super().finalize_options()
        if os.name == "nt" and self.compiler is None:
            self.compiler = "mingw32"  # GCC, or the clang in CC: MSVC compiles no function for another ISA

    def get_libraries(self, ext: Extension) -> list[str]:
        """The limited API's library on Windows, since that of one version would tie the extension to it."""
        if os.name == "nt" and not _FREE_THREADED:
            return [*ext.libraries, "python3"]
        libraries: list[str] = super().get_libraries(ext)
        return libraries

    def build_extension(self, ext: Extension) -> None:
        ffi = cffi.FFI()
        for text in ("api/fastact.h", "api/numpy.h"):
            ffi.cdef((_HERE / text).read_text())
        ffi.set_source(ext.name, '#include "api/abi.h"')
        bindings = Path(self.build_temp) / "fastact_cffi.c"
        bindings.parent.mkdir(parents=True, exist_ok=True)
        ffi.emit_c_code(str(bindings))

        sanitize = _sanitizers(os.environ.get("FASTACT_SANITIZE", ""))
        harden = [
            flag for flags in _HARDENING if self._builds(_PROGRAM, [*flags, "-Werror"], []) for flag in flags
        ]
        harden_link = _LINK_HARDENING if self._builds(_PROGRAM, [], _LINK_HARDENING) else []
        develop = os.environ.get("FASTACT_DEVELOP") == "1"
        strict = ["-Werror"] if develop else []
        # Python's own flags ask for debug information, which is nine tenths of the extension's size.
        asked = any(flag.startswith("-g") for flag in os.environ.get("CFLAGS", "").split())
        debug = [] if develop or asked or sanitize else ["-g0"]
        strip = _STRIP if debug and self._builds(_PROGRAM, [], _STRIP) else []
        simde = os.environ.get("FASTACT_EMULATE_AVX512")
        emulate = ["-DFA_EMULATE_AVX512", "-isystem", simde, "-O1"] if simde else []
        if simde or os.environ.get("FASTACT_EMULATE_AMX") == "1":
            emulate += ["-DFA_EMULATE_AMX"]
        ext.include_dirs = [*ext.include_dirs, str(_HERE), numpy.get_include()]
        if sanitize:  # hardening hides faults from sanitizers
            harden, harden_link = sanitize, sanitize
        ext.extra_compile_args = _FLAGS + _SYSTEM + harden + strict + debug + emulate
        ext.extra_link_args = [*_SYSTEM, *harden_link, *strip, *_LIBRARIES]
        if _FREE_THREADED:
            ext.define_macros = [*ext.define_macros, ("_CFFI_NO_LIMITED_API", None)]  # cffi's C asks for it
        ext.depends = [*_found("*.h"), *_found("*.c"), str(_HERE / "build.py")]
        ext.extra_objects = self._compile(_found("*.c"), ext)
        ext.sources = [str(bindings)]
        super().build_extension(ext)

    def _compile(self, sources: list[str], ext: Extension) -> list[str]:
        """Compile each source, several at a time, to the paths of their objects.

        For sanitizers, an object that is newer than its source and all headers stays as it is.
        """
        reuse = "FASTACT_SANITIZE" in os.environ
        shared = [*_found("*.h"), __file__]

        def compile_one(source: str) -> str:
            made: str = self.compiler.object_filenames([source], output_dir=self.build_temp)[0]
            if reuse and not newer_group([source, *shared], made):
                return made
            objects: list[str] = self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=ext.extra_compile_args,
            )
            return objects[0]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(compile_one, sources))

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


class bdist_wheel(_bdist_wheel):
    """setuptools' bdist_wheel, with the tag of a pure wheel where the extension was not built."""

    def finalize_options(self) -> None:
        if not _FREE_THREADED:
            self.py_limited_api = "cp310"
        super().finalize_options()

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build")
        if not any(map(os.path.exists, self.get_finalized_command("build_ext").get_outputs())):
            self.distribution.ext_modules = []
            self.root_is_pure = True
        super().run()


class sdist(_sdist):
    """setuptools' sdist, but two builds of the same files are equal to the byte.

    Its files belong to nobody and have one time: SOURCE_DATE_EPOCH, or the start of 1980, as a zip's.
    """

    def make_archive(  # type: ignore[override]
        self, base_name: str, format: str, root_dir: object = None, base_dir: str = "", **owner: object
    ) -> str:
        time = int(os.environ.get("SOURCE_DATE_EPOCH", 315532800))

        def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime, member.uid, member.gid, member.uname, member.gname = time, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        archive = f"{base_name}.tar.gz"
        os.makedirs(os.path.dirname(archive), exist_ok=True)
        with (
            open(archive, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=time) as compressed,
            tarfile.open(mode="w", fileobj=compressed) as members,
        ):
            members.add(base_dir, filter=anonymous)  # sorted by name
        return archive
