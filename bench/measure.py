"""Measure with one number of threads, in this process: `python -m bench.measure REQUEST`.

REQUEST is a JSON file that `bench.run` writes; it names the file for the records.  Libraries read their
thread settings when they load, so every number of threads needs a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import limits, machine, peers
from .peers.base import Contender, NotAvailable
from .problem import Interval, Problem, Truth, exact
from .shapes import LINEAR, MAIN, MAXOUT, Shape, is_sweep
from .tables import threads_text
from .threads import pin
from .timing import interleaved

# A sweep has many shapes, and compiling for each takes longer than measuring it.
NOT_IN_SWEEPS = {"torch.compile", "Thinc"}
# Layers other than maxout are compared in float32 alone, except with frozen weights.
NOT_IN_LINEAR = {"fastact C high", "fastact C medium"}
# the methods that each table times, and what its records call them
MODES = {
    "layers": {"forward": "forward", "forward_backward": "forward_backward", "step": "step"},
    "frozen": {"forward": "frozen"},
    "tiers": {"forward": "tiers", "forward_backward": "tiers_backward"},
}


class WrongResult(Exception):
    """A contender's result is further from float64's than arithmetic in its precision can be."""


def load_all(table: dict[str, str]) -> tuple[dict[str, type[Contender]], dict[str, str]]:
    """The contenders that can run here, and why the others cannot."""
    found, missing = {}, {}
    for name, where in table.items():
        try:
            found[name] = peers.load(where)
        except NotAvailable as error:
            missing[name] = str(error)
    return found, missing


def right_results(problem: Problem, roundoff: float, modes: Iterable[str]) -> dict[str, tuple[Interval, ...]]:
    """What each mode has to return, and how exactly."""
    truth = Truth(problem, roundoff)
    right: dict[str, tuple[Interval, ...]] = {"forward": (truth.y,)}
    if "forward_backward" in modes:
        right["forward_backward"] = truth.gradients(exact(problem.grad_y))
    if "step" in modes:
        right["step"] = truth.updated(problem)
    return right


def check(
    name: str, contender: Contender, right: dict[str, tuple[Interval, ...]]
) -> tuple[dict[str, float], float]:
    """Each mode's largest error as a share of its bound, and the norm of the error of y.

    Raises WrongResult for a share above 1.
    """
    errors, norm_error = {}, 0.0
    for mode, wanted in right.items():
        got = getattr(contender, mode)()
        arrays = (got,) if mode == "forward" else got
        if mode == "forward":  # before a step changes the weights
            norm_error = wanted[0].norm_error(got)
        error = max(interval.excess(array) for interval, array in zip(wanted, arrays, strict=True))
        if not error <= 1:  # a NaN is wrong too
            raise WrongResult(f"{name}, {mode}: the error is {error:.3g} times its bound")
        errors[mode] = error
    return errors, norm_error


def tables_of(shape: Shape) -> tuple[str, ...]:
    """The tables that `shape` is measured for."""
    if is_sweep(shape):
        return ("layers",)
    return ("layers", "frozen", "tiers") if shape.activation == MAXOUT else ("layers", "frozen")


class Run:
    """One process's share of a benchmark: its settings, and the records so far."""

    def __init__(self, threads: int, seconds: float) -> None:
        self._threads = threads
        self._seconds = seconds  # for one mode of a main or linear shape
        self._commit = machine.commit()
        self.records: list[dict[str, Any]] = []
        self.missing: dict[str, dict[str, str]] = {}  # by layer: the contenders that lack it, and why
        self.wrong: list[str] = []  # contenders not timed, each with its error

    def measure(self, shape: Shape, table: str, contenders: dict[str, type[Contender]]) -> None:
        """Check, then time, `contenders` on `shape`; `table` is "layers", "frozen" or "tiers"."""
        sweep = is_sweep(shape)
        left_out = (NOT_IN_SWEEPS if sweep else set()) | (
            NOT_IN_LINEAR if shape.activation != MAXOUT else set()
        )
        contenders = {name: kind for name, kind in contenders.items() if name not in left_out}
        modes = {mode: name for mode, name in MODES[table].items() if not (sweep and mode == "step")}
        problem = Problem(shape)
        roundoffs = {kind.roundoff for kind in contenders.values()}
        right = {roundoff: right_results(problem, roundoff, modes) for roundoff in roundoffs}
        made, errors, norm_errors = {}, {}, {}
        for name, kind in contenders.items():
            try:
                contender = kind(problem, self._threads)
                errors[name], norm_errors[name] = check(name, contender, right[kind.roundoff])
                made[name] = contender
            except NotAvailable as error:
                self.missing.setdefault(shape.layer, {})[name] = str(error)
            except WrongResult as error:
                self.wrong.append(f"{shape}: {error}")
        for mode, recorded in modes.items() if made else ():
            samples = interleaved(
                {name: getattr(contender, mode) for name, contender in made.items()},
                self._seconds if shape in MAIN or shape in LINEAR else self._seconds / 3,
            )
            for name, sample in samples.items():
                self.records.append(
                    {
                        "threads": self._threads,
                        "shape": list(shape),
                        "mode": recorded,
                        "contender": name,
                        **sample._asdict(),
                        "error": float(f"{errors[name][mode]:.3g}"),
                        "norm_error": float(f"{norm_errors[name]:.3g}"),
                        "commit": self._commit,
                        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    }
                )


def main(request_path: str) -> int:
    request = json.loads(Path(request_path).read_text())
    threads = request["threads"]
    pin(threads)
    tables = {name: load_all(kinds) for name, kinds in peers.TABLES.items()}
    shapes = [Shape(*fields) for fields in request["shapes"]]
    plan = [
        (shape, table)
        for shape in shapes
        for table, (contenders, _) in tables.items()
        if contenders and table in tables_of(shape)
    ]
    run = Run(threads, request["seconds"])
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,  # a thread that draws would disturb the measurement
    ) as progress:
        task = progress.add_task("limits of this machine", total=1 + len(plan))
        progress.refresh()
        measured = limits.measure(threads)
        neighbours = machine.Neighbours()
        for shape, table in plan:
            progress.update(task, advance=1, description=f"{threads_text(threads)}, {shape}, {table}")
            progress.refresh()
            run.measure(shape, table, tables[table][0])
        progress.update(task, advance=1)
        progress.refresh()
    taken = neighbours.share()
    machine.warn(taken, "meanwhile")
    answer = {
        "environment": machine.describe(),
        "limits": {} if measured is None else {str(threads): measured},
        "neighbours": {str(threads): taken},
        "missing": {table: missing for table, (_, missing) in tables.items()} | run.missing,
        "results": run.records,
    }
    Path(request["answer"]).write_text(json.dumps(answer))
    for message in run.wrong:
        console.print(f"wrong result, not timed: {message}", style="red", highlight=False)
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
