"""The structure of csrc that its README promises."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
DRIVERS = sorted([*CSRC.glob("engine/*.[ch]"), *CSRC.glob("layers/*.[ch]"), *CSRC.glob("api/*.[ch]")])
BODIES = sorted(path for path in CSRC.glob("kernels/*.h") if "kernels/editor.h" in path.read_text())
PROGRAMS = sorted((CSRC.parent / "tests/c").glob("*.c"))
PRIMITIVES = sorted(CSRC.glob("isa/*/vec.h"))


def relative(path: Path) -> str:
    return path.relative_to(CSRC).as_posix()


def matching(pattern: str, paths: Iterable[Path]) -> list[str]:
    """The files whose text has the pattern outside comments."""
    text = {path: re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL) for path in paths}
    return [relative(path) for path in paths if re.search(pattern, text[path])]


def test_sources_include_no_source() -> None:
    assert matching(r'#include ".*\.c"', sorted(CSRC.rglob("*.[ch]"))) == []


def test_drivers_are_written_once_for_all_types() -> None:
    assert matching(r"\bREAL\(|\bREAL_BITS\b|##", DRIVERS) == []  # nor do they paste names


def test_kernels_allocate_nothing_and_use_no_threads_or_python() -> None:
    kernels = sorted([*CSRC.glob("kernels/*.h"), *CSRC.glob("isa/**/*.[ch]")])
    forbidden = r"\b(malloc|calloc|aligned_alloc|free)\(|run_team|os_\w+\(|Python\.h|workspace\("
    assert len(kernels) >= 30
    assert matching(forbidden, kernels) == []


@pytest.mark.parametrize("path", [*BODIES, *PROGRAMS], ids=lambda path: path.name)
def test_kernel_body_and_program_compile_alone(path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    flags = ["-std=c11", "-D_GNU_SOURCE", f"-I{CSRC}", "-fsyntax-only", "-w", "-x", "c"]
    run = subprocess.run([compiler, *flags, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_drivers_and_bodies_are_found() -> None:
    assert len(BODIES) >= 12
    assert len(DRIVERS) >= 20


LISTINGS = {
    "neon": """
0000000000000040 <multiply_2x1>:
      40:\tmovi\tv0.4s, #0x0
      44:\tldr\tq1, [sp, #16]
      48:\tfmla\tv0.4s, v1.4s, v2.s[0]
      4c:\tb.gt\t60 <multiply_2x1+0x20>
      50:\tcmp\tx1, x2
      54:\tb.ne\t44 <multiply_2x1+0x4>  // b.any
      58:\tcbnz\tx3, 40 <multiply_2x1>
      5c:\tret
      60:\tprfm\tpldl1keep, [x1]
      64:\tb\t50 <multiply_2x1+0x10>
""",
    "x86-64": """
0000000000000010 <multiply_2x1>:
      10:\tvxorps %xmm0,%xmm0,%xmm0
      14:\tvmovups 0x10(%rsp),%ymm1
      18:\tvfmadd231ps (%rax),%ymm1,%ymm0
      1c:\tcmp    %rdx,%rcx
      20:\tjl     14 <multiply_2x1+0x4>
      24:\tvfmadd231ps (%rax),%ymm1,%ymm0
      28:\tvaddps %ymm0,%ymm1,%ymm0
      2c:\tjne    10 <multiply_2x1>
      30:\tret
""",
}


@pytest.mark.parametrize(("isa", "expected"), [("neon", (1, 5, 1)), ("x86-64", (1, 4, 1))])
def test_inner_loop_counts_what_the_innermost_loop_holds(isa, expected, monkeypatch) -> None:
    pytest.importorskip("setuptools")
    monkeypatch.syspath_prepend(CSRC.parent)
    tool = importlib.import_module("csrc.tools.micro_tiles")
    assert tool.inner_loop(LISTINGS[isa]) == expected
