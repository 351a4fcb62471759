"""Planted faults of the C code, which the fuzzer has to find: `python -m tests.fuzz.mutants`.

Each patch in `mutants/` is applied to a copy of this checkout, built for one instruction set, and fuzzed
until a call fails.  Status 1 where one survives.  Objects are kept in build/mutants, so that a mutant
compiles only what it changes; the first run compiles everything.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from . import ROOT

FOLDER = Path(__file__).parent / "mutants"
CALLS = 1_000_000
FLAGS = ["-std=c11", "-O2", "-ffp-contract=off", "-fvisibility=hidden", "-D_GNU_SOURCE", "-DNDEBUG", "-fPIC"]
FLAGS += ["-w", "-pthread", "-Icsrc"]
COPIED = ("csrc", "fastact", "tests", "bench")


class Mutant(NamedTuple):
    """A patch, and the first line of its file, which says what it breaks."""

    name: str
    path: Path
    breaks: str


class Outcome(NamedTuple):
    """How the fuzzer fared on a mutant."""

    caught: bool
    calls: int
    seconds: float
    operation: str
    message: str


def mutants() -> list[Mutant]:
    """All mutants by name."""
    return [
        Mutant(path.stem, path, path.read_text().partition("\n")[0])
        for path in sorted(FOLDER.glob("*.patch"))
    ]


def apply(mutant: Mutant, root: Path, *options: str) -> None:
    """Apply a patch to the tree at `root`; ValueError where it does not fit any more."""
    command = ["git", "apply", "--whitespace=nowarn", *options, str(mutant.path)]
    # a tree inside another repository is none of that one's
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.parent)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{mutant.path.name}: does not apply: {done.stderr.strip()}")


class Builder:
    """Compiles the extension of a tree; objects are kept, and compiled anew where a source has changed."""

    def __init__(self, root: Path, objects: Path, isa: str) -> None:
        import numpy

        self.root, self.objects, self.isa = root, objects, isa
        self.compiler = os.environ.get("CC", "cc").split()
        self.headers = [f"-I{numpy.get_include()}", f"-I{sysconfig.get_path('include')}"]
        objects.mkdir(parents=True, exist_ok=True)

    def bindings(self) -> Path:
        """The C file that cffi writes."""
        import cffi

        ffi = cffi.FFI()
        for name in ("fastact.h", "numpy.h"):
            ffi.cdef((self.root / "csrc/api" / name).read_text())
        ffi.set_source("fastact._native", '#include "api/abi.h"')
        path = self.objects / "fastact_cffi.c"
        new = self.objects / "new.c"
        with contextlib.redirect_stdout(io.StringIO()):  # it says what it writes
            ffi.emit_c_code(str(new))
        if not path.exists() or path.read_text() != new.read_text():
            os.replace(new, path)
        return path

    def build(self, mutated: bool = False) -> None:
        """Link the extension; a mutant has the old objects of the instruction sets that do not run."""
        sources = sorted((self.root / "csrc").rglob("*.c"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(
                pool.map(lambda source: self._object(source, mutated), [*sources, self.bindings()])
            )
        target = self.root / "fastact/_native.abi3.so"
        command = [*self.compiler, "-shared", "-pthread", *objects, "-lm", "-o", str(target)]
        subprocess.run(command, check=True)

    def _object(self, source: Path, mutated: bool) -> str:
        inside = source.is_relative_to(self.root)
        parts = source.relative_to(self.root).parts if inside else (source.name,)
        base = self.objects / ("-".join(parts) + ".o")
        if mutated and "isa" in parts and self.isa not in parts:
            return str(base)  # the fuzzer does not run it
        texts = self._texts(base.with_suffix(".d"))
        if texts is not None and texts == self._kept(base):
            return str(base)
        made = base.with_suffix(".mutant.o") if mutated else base
        limited = [] if inside else ["-DPy_LIMITED_API=0x030a0000"]
        command = [
            *self.compiler,
            *FLAGS,
            *limited,
            *self.headers,
            "-MMD",
            "-MF",
            str(made.with_suffix(".d")),
        ]
        subprocess.run([*command, "-c", str(source), "-o", str(made)], cwd=self.root, check=True)
        if not mutated:
            made.with_suffix(".txt").write_text(self._texts(made.with_suffix(".d")) or "")
        return str(made)

    def _texts(self, dependencies: Path) -> str | None:
        """The contents of all files of this tree that an object was compiled from."""
        if not dependencies.exists():
            return None
        words = dependencies.read_text().replace("\\\n", " ").partition(":")[2].split()
        texts = []
        for word in words:
            # the names are those of the tree of the run before
            path = Path("csrc", word.partition("csrc/")[2]) if "csrc/" in word else None
            if path is not None:
                texts.append((self.root / path).read_text() if (self.root / path).exists() else "")
            elif word.endswith(".c"):
                texts.append(Path(word).read_text() if Path(word).exists() else "")
        return "".join(texts)

    def _kept(self, base: Path) -> str | None:
        text = base.with_suffix(".txt")
        return text.read_text() if base.exists() and text.exists() else None


@contextlib.contextmanager
def copy_of_tree() -> Iterator[Path]:
    """A copy of this checkout in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "results", ".*")
        for name in COPIED:
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        yield root


def fuzz(root: Path, calls: int, seed: int, isa: str) -> Outcome:
    """Run the fuzzer of the tree until a call fails."""
    command = [sys.executable, "-m", "tests.fuzz", "--first-failure", "--backend", "c", "--isa", isa]
    environment = os.environ | {"PYTHONPATH": str(root)}
    state = root / "state.json"
    state.unlink(missing_ok=True)
    command += ["--calls", str(calls), "--seed", str(seed), "--state", str(state)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not state.exists():
        raise RuntimeError(f"the fuzzer ended with status {done.returncode}: {done.stderr[-600:]}")
    found: dict[str, Any] = json.loads(state.read_text())
    made = int(sum(entry[0] for entry in found["operations"].values()))
    first = found["failures"][0] if found["failures"] else {"operation": "", "message": ""}
    seconds = time.monotonic() - began
    return Outcome(done.returncode == 1, made, seconds, first["operation"], first["message"])


def default_isa() -> str:
    """AVX2 or NEON where the CPU has it: each compiles in seconds."""
    from fastact.backends import c

    supported = c.supported_isas()
    return next((isa for isa in ("avx2", "neon") if isa in supported), supported[0])


def show(outcomes: Sequence[tuple[Mutant, Outcome]]) -> None:
    """A table of what was found."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for mutant, outcome in outcomes:
            print(mutant.name, outcome.calls if outcome.caught else "SURVIVED", outcome.operation)
        return
    table = Table("mutant", "what it breaks", "calls until caught", "seconds", "operation", "message")
    for mutant, outcome in outcomes:
        calls = f"{outcome.calls:,}" if outcome.caught else f"[bold red]survived {outcome.calls:,}[/]"
        message = outcome.message.replace("[", r"\[")[:60]
        table.add_row(mutant.name, mutant.breaks, calls, f"{outcome.seconds:.0f}", outcome.operation, message)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.mutants", description=(__doc__ or "").split("\n")[0]
    )
    names = [mutant.name for mutant in mutants()]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"until one survives (default: {CALLS:,})")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer (default: 0)")
    parser.add_argument("--isa", default=default_isa(), help="the instruction set (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to this file too")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        parser.error(f"NAME: got {', '.join(unknown)}, wanted some of {', '.join(names)}")
    wanted = [mutant for mutant in mutants() if not options.names or mutant.name in options.names]
    outcomes = []
    with copy_of_tree() as root:
        for mutant in wanted:
            apply(mutant, root, "--check")
        builder = Builder(root, ROOT / "build/mutants", options.isa)
        print("compiling what no mutant changes", file=sys.stderr, flush=True)
        builder.build()
        for mutant in wanted:
            apply(mutant, root)
            builder.build(mutated=True)
            outcome = fuzz(root, options.calls, options.seed, options.isa)
            apply(mutant, root, "--reverse")
            outcomes.append((mutant, outcome))
            what = f"caught after {outcome.calls:,} calls" if outcome.caught else "survived"
            print(f"{mutant.name}: {what}", file=sys.stderr, flush=True)
    show(outcomes)
    if options.json is not None:
        found = {mutant.name: outcome._asdict() for mutant, outcome in outcomes}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(not all(outcome.caught for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
