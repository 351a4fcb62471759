"""Builds variants of the extension with other constants, and times them beside the present one.

    python -m bench.tuning.depth_block_bytes            # one experiment; --quick only shows that it runs

Each variant is a copy of `csrc` and `fastact` in a temporary folder, with other values of some `#define`s.
Its times come from processes of its own, which alternate with those of the others.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from .. import machine, records
from ..ab import Case, in_turn, look_around, measure

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, SECONDS = 9, 0.3
AS_IT_IS = "as it is"


class Experiment(NamedTuple):
    """The declaration of a script.

    `variants` are the values to try beside the present ones: {constant: value} each, the value as C text.
    `errors`: whether accuracy decides as well, on "forward", "grad_x" and "grad_weight".
    """

    key: str
    reason: str
    variants: tuple[dict[str, str], ...]
    cases: tuple[Case, ...]
    errors: bool = False

    @property
    def constants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for variant in self.variants for name in variant))


class Definition(NamedTuple):
    """Where a constant is defined: the characters [start, end) of `path` are its value."""

    path: Path
    start: int
    end: int
    value: str


def find(name: str, csrc: Path) -> Definition:
    """The only `#define` of `name` under `csrc`; raises ValueError where there is not exactly one."""
    pattern = re.compile(
        rf"^[ \t]*#[ \t]*define[ \t]+{re.escape(name)}(?:\([^)\n]*\))?[ \t]+(?P<value>(?:[^/\n]|/(?![/*]))*)",
        re.MULTILINE,
    )
    found = []
    for path in sorted([*csrc.rglob("*.c"), *csrc.rglob("*.h")]):
        for match in pattern.finditer(path.read_text()):
            start, value = match.start("value"), match["value"].rstrip()
            found.append(Definition(path, start, start + len(value), value))
    if len(found) != 1:
        where = ", ".join(str(definition.path.relative_to(csrc)) for definition in found)
        raise ValueError(f"{name}: got {len(found)} definitions under csrc/ ({where}), wanted exactly 1")
    if found[0].value.endswith("\\"):
        raise ValueError(f"{name}: got a value of several lines, wanted one")
    return found[0]


def replace(name: str, value: str, csrc: Path) -> None:
    """Give the constant `name` another value."""
    definition = find(name, csrc)
    text = definition.path.read_text()
    definition.path.write_text(text[: definition.start] + value + text[definition.end :])


def build(variant: dict[str, str], folder: Path) -> None:
    """A built copy of this checkout in `folder`, with the constants of `variant`.

    Raises ValueError where a constant is not defined exactly once, RuntimeError where it does not compile.
    """
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "fastact"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name, value in variant.items():
        replace(name, value, folder / "csrc")
    done = subprocess.run(
        [sys.executable, "-c", "import setuptools; setuptools.setup()", "build_ext", "--inplace"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if not list((folder / "fastact").glob("_native*.so")):
        raise RuntimeError(f"{label(variant)} does not build:\n{done.stdout}{done.stderr}")


def label(variant: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in variant.items()) or AS_IT_IS


def table(cases: Sequence[Case], figures: dict[str, Sequence[float]], title: str) -> str:
    """A line for each case and a column for each variant, under a list of the variants; 80 columns wide."""
    letters = [chr(ord("A") + i) for i in range(len(figures))]
    lines = [textwrap.fill(f"{letter}: {name}", 80) for letter, name in zip(letters, figures, strict=True)]
    width = max(len(text) for text in (title, *map(str, cases)))
    lines.append(f"{title:{width}}" + "".join(f"{letter:>9}" for letter in letters))
    for case, of_case in zip(cases, zip(*figures.values(), strict=True), strict=True):
        lines.append(f"{case!s:{width}}" + "".join(f"{figure:9.4g}" for figure in of_case))
    return "\n".join(lines)


def run(experiment: Experiment, quick: bool, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build all variants and measure them in turn: each one's median microseconds, and its errors."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {}
        variants = experiment.variants[:1] if quick else experiment.variants
        for number, variant in enumerate(({}, *variants)):
            folder = folders[label(variant)] = Path(temporary).resolve() / str(number)
            folder.mkdir()
            Console(stderr=True).print(f"building: {label(variant)}", highlight=False)
            build(variant, folder)
        cases, seconds = experiment.cases, 0.0 if quick else SECONDS
        timers = {
            name: partial(measure, folder, sys.executable, cases, seconds) for name, folder in folders.items()
        }
        look_around()
        neighbours = machine.Neighbours()
        rounds_of = in_turn(timers, rounds, experiment.key)
        machine.warn(neighbours.share(), "meanwhile")
        times = {
            name: [statistics.median(of_case) for of_case in zip(*of_rounds, strict=True)]
            for name, of_rounds in rounds_of.items()
        }
        errors = {}
        if experiment.errors:
            errors = {
                name: measure(folder, sys.executable, cases, 0.0, errors=True)
                for name, folder in folders.items()
            }
    return times, errors


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> int:
    """The command line of a script."""
    module = experiment.key.replace("-", "_")
    parser = argparse.ArgumentParser(prog=f"python -m bench.tuning.{module}", description=experiment.reason)
    parser.add_argument("--quick", action="store_true", help="one value, one round: only shows that it runs")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of processes (default: {ROUNDS})")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("key", "cases", "us", "errors"))
    times, errors = run(experiment, options.quick, 1 if options.quick else options.rounds)
    about: dict[str, Any] = machine.describe()
    print(f"{experiment.key}: {experiment.reason}")
    print(f"{about['cpu']} (family/model {about['family_model']}), {about['fastact_isa']}")
    print(table(experiment.cases, times, "median us a call"))
    if errors:
        print(table(experiment.cases, errors, "error / NumPy's"))
    fields = {"key": experiment.key, "cases": experiment.cases, "us": times, "errors": errors}
    records.save(options.out, fields)
    return 0
