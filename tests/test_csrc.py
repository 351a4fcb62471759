"""The structure of csrc that its README promises."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
DRIVERS = sorted([*CSRC.glob("engine/*.[ch]"), *CSRC.glob("layers/*.[ch]"), *CSRC.glob("api/*.[ch]")])
BODIES = sorted(path for path in CSRC.glob("kernels/*.h") if "kernels/editor.h" in path.read_text())
PRIMITIVES = sorted(CSRC.glob("isa/*/vec.h"))


def relative(path: Path) -> str:
    return path.relative_to(CSRC).as_posix()


@pytest.mark.parametrize("path", sorted(CSRC.rglob("*.[ch]")), ids=relative)
def test_source_includes_no_source(path: Path) -> None:
    assert not re.search(r'#include ".*\.c"', path.read_text())


@pytest.mark.parametrize("path", DRIVERS, ids=relative)
def test_driver_is_written_once_for_all_types(path: Path) -> None:
    assert not re.search(r"\bREAL\(|\bREAL_BITS\b|##", path.read_text())  # nor does it paste names


@pytest.mark.parametrize(
    "path", sorted([*CSRC.glob("kernels/*.h"), *CSRC.glob("isa/**/*.[ch]")]), ids=relative
)
def test_kernel_allocates_nothing_and_knows_no_threads_or_python(path: Path) -> None:
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    assert not re.search(
        r"\b(malloc|calloc|aligned_alloc|free)\(|#pragma omp|omp_|Python\.h|workspace\(", text
    )


@pytest.mark.parametrize("path", BODIES, ids=relative)
def test_kernel_body_compiles_on_its_own(path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    flags = ["-std=c11", "-D_GNU_SOURCE", f"-I{CSRC}", "-fsyntax-only", "-w", "-x", "c"]
    run = subprocess.run([compiler, *flags, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_drivers_find_bodies() -> None:
    assert len(BODIES) >= 12
    assert len(DRIVERS) >= 20
