"""Fuzzes the C ABI with libFuzzer: tests/c/fuzz_abi.c calls the drivers under ASan and UBSan.

    python -m tests.coverage_guided.abi [--seconds N] [--corpus FOLDER] [OPTION OF LIBFUZZER...]

Needs clang with its libFuzzer.  Objects are in build/fuzz, and the next run compiles only what changed; the
corpus is in build/fuzz/corpus.  libFuzzer prints its progress, and statistics at the end.  It ends with a
status other than 0 at the first report, and writes the input to build/fuzz/crash-*, which can be given as
OPTION to run it alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools.modified import newer_group

from csrc.tools.cross_build import ROOT, sources

FOLDER = ROOT / "build/fuzz"
FLAGS = ["-std=c11", "-O1", "-g1", "-ffp-contract=off", "-D_GNU_SOURCE", "-Icsrc", "-Wall", "-Wextra"]
FLAGS += ["-Wno-psabi", "-Wno-unknown-pragmas", "-fno-omit-frame-pointer"]
FLAGS += ["-DOS_STACK_BYTES=1048576"]  # a function's arrays do not share memory
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow"]
# These checks of the kernels are left to GCC's builds: pytest --sanitize.
NOT_IN_KERNELS = ["-fno-sanitize=alignment,null,object-size,pointer-overflow"]


def build() -> Path:
    """The path of the fuzzer, after what changed is compiled."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    headers = [*map(str, ROOT.glob("csrc/**/*.h")), __file__]

    def compile_one(source: Path) -> str:
        made = str(FOLDER / "-".join(source.with_suffix(".o").parts))
        if newer_group([str(ROOT / source), *headers], made):
            flags = [*FLAGS, *SANITIZERS, *(NOT_IN_KERNELS if "isa" in source.parts else [])]
            command = ["clang", *flags, "-fsanitize=fuzzer-no-link", "-c", str(source), "-o", made]
            subprocess.run(command, cwd=ROOT, check=True)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [*sources(python=False), Path("tests/c/fuzz_abi.c")]))
    program = FOLDER / "fuzz_abi"
    link = ["clang", *SANITIZERS, "-fsanitize=fuzzer", *objects, "-lm", "-pthread", "-o", str(program)]
    subprocess.run(link, check=True)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long; by default 60")
    parser.add_argument("--corpus", type=Path, default=FOLDER / "corpus", help="inputs that reach new code")
    asked, options = parser.parse_known_args()
    program = build()
    asked.corpus.mkdir(parents=True, exist_ok=True)
    command = [str(program), f"-max_total_time={asked.seconds}", f"-artifact_prefix={FOLDER}/"]
    command += ["-print_final_stats=1", "-max_len=256", *options]
    if not any(not option.startswith("-") for option in options):
        command += [str(asked.corpus)]
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
