"""Compiles the kernels and tests/c/harness.c for other targets with `zig cc`, warnings as errors.

    python csrc/tools/cross_build.py [--zig COMMAND] [--extension] [TARGET...]

zig is in PyPI's `ziglang`.  Without a target: all of TARGETS.  Each target's program, `harness` or
`harness.exe`, and its objects are in build/TARGET.  `--extension` also compiles the files that include
Python.h, on the headers of this Python and NumPy.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "x86_64-linux-musl",
    "aarch64-linux-musl",
    "x86_64-macos",
    "aarch64-macos",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
)
# As in csrc/build.py, whose flags for GCC alone clang does not know.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-D_GNU_SOURCE", "-DNDEBUG", "-Wall"]
FLAGS += ["-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas", "-Icsrc"]


def sources(python: bool) -> list[Path]:
    """The C files that need Python.h, or those that do not."""
    needs = {"numpy.c", "network.c", "optimizers.c", "facts.c"}
    files = [path.relative_to(ROOT) for path in sorted(ROOT.glob("csrc/**/*.c"))]
    return [path for path in files if (path.parent.name == "api" and path.name in needs) == python]


def build(zig: list[str], target: str, extension: bool) -> Path:
    """The program of one target."""
    folder = ROOT / "build" / target
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path, *flags: str) -> str:
        path = str(folder / ("-".join(source.with_suffix(".o").parts)))
        command = [*zig, "cc", "-target", target, *FLAGS, *flags, "-c", str(source), "-o", path]
        subprocess.run(command, cwd=ROOT, check=True)
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [*sources(python=False), Path("tests/c/harness.c")]))
        if extension:
            import numpy

            headers = [f"-I{numpy.get_include()}", f"-I{sysconfig.get_path('include')}"]
            list(pool.map(lambda source: compile_one(source, *headers), sources(python=True)))
    program = folder / ("harness.exe" if "windows" in target else "harness")
    libraries = [] if "windows" in target else ["-lm", "-pthread"]
    link = [*zig, "cc", "-target", target, *objects, *libraries, "-o", str(program)]
    subprocess.run(link, cwd=ROOT, check=True)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"by default {', '.join(TARGETS)}")
    parser.add_argument("--zig", default=f"{sys.executable} -m ziglang", help="the command that runs zig")
    parser.add_argument("--extension", action="store_true", help="also compile what includes Python.h")
    asked = parser.parse_args()
    for target in asked.targets or TARGETS:
        print(build(shlex.split(asked.zig), target, asked.extension))


if __name__ == "__main__":
    main()
