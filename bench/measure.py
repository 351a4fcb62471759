"""Measure with one number of threads, in this process: `python -m bench.measure REQUEST`.

REQUEST is a JSON file that `bench.run` writes; it names the file for the records.  Libraries read their
thread settings when they load, so every number of threads needs a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import limits, machine, peers
from .network_truth import NetworkTruth
from .networks import DTYPES, Network, NetworkProblem
from .peers.base import Contender, NotAvailable
from .peers.networks.base import NetworkContender
from .peers.networks.floor import Floor
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
NETWORK_MODES = ("forward", "step")
# While a network's steps are timed, its parameters stay.  Thousands of steps on one batch would leave units
# that never win; their averages in Adam would become denormal numbers, which are slow.
TIMED_LEARNING_RATE = 1e-12


class WrongResult(Exception):
    """A contender's result is further from float64's than arithmetic in its precision can be."""


def load_all(table: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
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


def check_network(
    name: str,
    contender: NetworkContender,
    problem: NetworkProblem,
    truth: NetworkTruth,
    threads: int,
    mode: str,
) -> float:
    """The error of a mode as a share of its bound; raises WrongResult for a share above 1.

    Every library draws masks of its own.  Therefore a network with dropout has its losses checked without
    it; with it they have to differ from those.  The floor has no dropout.
    """
    if mode == "forward":
        error = truth.forward_error(contender)
    elif problem.network.dropout:
        error = truth.step_error(type(contender)(problem.without_dropout(), threads))
        if not isinstance(contender, Floor) and not truth.drops(contender):
            raise WrongResult(f"{name}, {mode}: the losses with dropout are those without, or not finite")
    else:
        error = truth.step_error(contender)
    if not error <= 1:  # a NaN is wrong too
        raise WrongResult(f"{name}, {mode}: the error is {error:.3g} times its bound")
    return error


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
        self.networks: list[dict[str, Any]] = []  # records of networks
        self.missing: dict[str, dict[str, str]] = {}  # by layer or network: who lacks it, and why
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
                        **self._origin(),
                    }
                )

    def _origin(self) -> dict[str, Any]:
        """The commit and the time of a record."""
        return {"commit": self._commit, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}

    def measure_network(
        self, network: Network, dtype: str, contenders: dict[str, type[NetworkContender]]
    ) -> None:
        """Check, then time, `contenders` on `network`: forward alone first, then training steps."""
        problem = NetworkProblem(network, dtype)
        truth = NetworkTruth(problem)
        made: dict[str, NetworkContender] = {}
        for name, kind in contenders.items():
            try:
                made[name] = kind(problem, self._threads)
            except NotAvailable as error:
                self.missing.setdefault(str(network), {})[name] = str(error)
        for mode in NETWORK_MODES:
            errors = {}
            for name, contender in list(made.items()):
                if mode not in contender.modes:
                    continue
                try:
                    errors[name] = check_network(name, contender, problem, truth, self._threads, mode)
                except WrongResult as error:
                    self.wrong.append(f"{network}, {dtype}: {error}")
                    del made[name]
                    continue
                if mode == "step":
                    contender.start_training(TIMED_LEARNING_RATE)
            timed = {name: made[name] for name in errors}
            samples = interleaved(
                {name: getattr(each, mode) for name, each in timed.items() if not isinstance(each, Floor)},
                self._seconds / 3,
            )
            samples |= {name: each.shortest(mode) for name, each in timed.items() if isinstance(each, Floor)}
            for name, sample in samples.items():
                self.networks.append(
                    {
                        "threads": self._threads,
                        "network": str(network),
                        "dtype": dtype,
                        "mode": mode,
                        "contender": name,
                        **sample._asdict(),
                        "error": float(f"{errors[name]:.3g}"),
                        **self._origin(),
                    }
                )


def _replace(path: Path, text: str) -> None:
    """Write so that whoever ends this process meanwhile finds the older text or the new one."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def main(request_path: str) -> None:
    request = json.loads(Path(request_path).read_text())
    threads = request["threads"]
    pin(threads)
    shapes = [Shape(*fields) for fields in request["shapes"]]
    networks = [Network.parse(text) for text in request["networks"]]
    tables = {name: load_all(kinds) for name, kinds in peers.TABLES.items() if shapes}
    if networks:
        tables["networks"] = load_all(peers.NETWORKS)
    run = Run(threads, request["seconds"])
    plan: list[tuple[str, Callable[[], None]]] = [
        (f"{shape}, {table}", partial(run.measure, shape, table, contenders))
        for shape in shapes
        for table, (contenders, _) in tables.items()
        if contenders and table in tables_of(shape)
    ]
    plan += [
        (f"{network}, {dtype}", partial(run.measure_network, network, dtype, tables["networks"][0]))
        for network in networks
        for dtype in DTYPES
    ]
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
        environment, neighbours = machine.describe(), machine.Neighbours()
        for what, measure in plan:
            progress.update(task, advance=1, description=f"{threads_text(threads)}, {what}")
            progress.refresh()
            measure()
            answer = {
                "environment": environment,
                "released": machine.released(environment["versions"]),
                "limits": {} if measured is None else {str(threads): measured},
                "neighbours": {str(threads): neighbours.share()},
                "missing": {table: missing for table, (_, missing) in tables.items()} | run.missing,
                "results": run.records,
                "networks": run.networks,
                "wrong": run.wrong,
            }
            _replace(Path(request["answer"]), json.dumps(answer))
        progress.update(task, advance=1)
        progress.refresh()
    machine.warn(answer["neighbours"][str(threads)], "meanwhile")
    for message in run.wrong:
        console.print(f"wrong result, not timed: {message}", style="red", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1])
