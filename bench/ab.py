"""Times two checkouts against each other: `python -m bench.ab BEFORE AFTER`.

BEFORE and AFTER are folders with a built `fastact` package.  Their processes alternate, on one thread and
one core.  Each pair has a second process of BEFORE: the noise, BEFORE against itself, stands beside each
change.  A case's time is the smallest of a process's medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress

from . import machine, records
from .shapes import MAIN, MAXOUT, QUICK
from .threads import process_environment, run_process

WORKER = Path(__file__).with_name("ab_worker.py")
PAIRS, QUICK_PAIRS = 15, 3
SECONDS, QUICK_SECONDS = 0.3, 0.03  # for each case in each process, at the least
LOOK_SECONDS = 1.0  # of looking for other work before the start
OPERATIONS = ("forward", "forward_backward", "backward", "frozen")
SMALL = (8, 32, 32, 2)


class Case(NamedTuple):
    """A timed call: an operation of ab_worker.py on a shape, in float32."""

    operation: str
    shape: tuple[int, ...]
    threads: int = 1
    precision: str = "highest"

    def __str__(self) -> str:
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        tier = "" if self.precision == "highest" else f", {self.precision}"
        return f"{self.operation} {'x'.join(map(str, self.shape))}{tier}{threads}"


class Ratio(NamedTuple):
    """A ratio of two times over the pairs of a run: its median and its quartiles."""

    median: float
    low: float
    high: float


def cases(quick: bool) -> list[Case]:
    """The cases of a run: every operation on the main shapes, and a call that allocates its results."""
    shapes = [tuple(shape[:4]) for shape in (QUICK if quick else MAIN) if shape.activation == MAXOUT]
    return [Case(name, shape) for name in OPERATIONS for shape in shapes] + [Case("public", SMALL)]


def measure(
    folder: Path, python: str, wanted: Sequence[Case], seconds: float, errors: bool = False
) -> list[float]:
    """Microseconds a call of each case, from a process that imports the `fastact` in `folder`.

    With `errors`, each case's error instead, as a multiple of that of NumPy's float32 products.  Raises
    RuntimeError where the process fails or imports another `fastact`.
    """
    request = {"cases": [case._asdict() for case in wanted], "seconds": seconds, "errors": errors}
    environment = process_environment(max(case.threads for case in wanted))
    done = run_process(
        [python, str(WORKER), json.dumps(request)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder)},
        capture_output=True,
    )
    if done.returncode:
        raise RuntimeError(f"{folder}: the process ended with status {done.returncode}:\n{done.stderr}")
    answer = json.loads(done.stdout)
    if answer["fastact"] != str(folder / "fastact"):
        raise RuntimeError(f"{folder}: got fastact from {answer['fastact']}, wanted {folder / 'fastact'}")
    figures: list[float] = answer["figures"]
    return figures


def rotated(names: Sequence[str], number: int) -> list[str]:
    """`names` in the order of round `number`: a round begins with the name after the last round's first."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def in_turn(
    runs: dict[str, Callable[[], list[float]]], rounds: int, description: str
) -> dict[str, list[list[float]]]:
    """The results of each of `runs`, called once a round; a progress bar draws between the calls."""
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task(description, total=rounds * len(runs))
        for number in range(rounds):
            for name in rotated(list(runs), number):
                progress.refresh()
                found[name].append(runs[name]())
                progress.advance(task)
        progress.refresh()
    return found


def look_around() -> None:
    """Warn where others work on this machine before anything is timed."""
    neighbours = machine.Neighbours()
    time.sleep(LOOK_SECONDS)
    machine.warn(neighbours.share(), "before the start")


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """above / below, pair by pair."""
    low, median, high = np.percentile(np.divide(above, below), [25, 50, 75])
    return Ratio(float(median), float(low), float(high))


def summarise(wanted: Sequence[Case], times: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    """A record a case: microseconds and ratios of the `times` of "before", "after" and "again"."""
    rows = []
    for case, before, after, again in zip(
        wanted, *(zip(*times[name], strict=True) for name in ("before", "after", "again")), strict=True
    ):
        rows.append(
            case._asdict()
            | {
                "before_us": statistics.median(before),
                "after_us": statistics.median(after),
                "change": ratio(after, before)._asdict(),
                "noise": ratio(again, before)._asdict(),
            }
        )
    return rows


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def microseconds(value: float) -> str:
    """`value` as text of 9 columns."""
    return f"{value:9.2f}" if value < 1000 else f"{value:9.0f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The records as text, at most 80 columns wide."""
    lines = [
        f"{'':36}{'before':>9}{'after':>9} {'after / before':^15} {'noise':^9}",
        f"{'':36}{'us':>9}{'us':>9} {'quartiles':>15} {'quartiles':^9}",
    ]
    for row in rows:
        case = Case(row["operation"], tuple(row["shape"]), row["threads"], row["precision"])
        change, noise = row["change"], row["noise"]
        lines.append(
            f"{case!s:36.36}{microseconds(row['before_us'])}{microseconds(row['after_us'])} "
            f"{change['median']:5.3f} {change['low']:.2f}-{change['high']:.2f} "
            f"{noise['low']:.2f}-{noise['high']:.2f}"
        )
    means = [geometric_mean([row[kind]["median"] for row in rows]) for kind in ("change", "noise")]
    lines.append(f"{'geometric mean of medians':54} {means[0]:5.3f} {'':9} {means[1]:9.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ab", description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="a folder with a built fastact package")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--pairs", type=int, help=f"of processes (default: {PAIRS}, --quick: {QUICK_PAIRS})")
    parser.add_argument("--quick", action="store_true", help="few shapes and short samples")
    parser.add_argument("--python-before", default=sys.executable, metavar="PYTHON", help="its interpreter")
    parser.add_argument("--python-after", default=sys.executable, metavar="PYTHON", help="its interpreter")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("commits", "pairs", "results"))
    before, after = options.before.resolve(), options.after.resolve()
    for name, folder in (("BEFORE", before), ("AFTER", after)):
        if not (folder / "fastact" / "__init__.py").is_file():
            parser.error(f"{name}: got {folder}, wanted a folder with a built fastact package")
    pairs = options.pairs or (QUICK_PAIRS if options.quick else PAIRS)
    if pairs < 1:
        parser.error(f"--pairs: got {pairs}, wanted at least 1")
    wanted, seconds = cases(options.quick), QUICK_SECONDS if options.quick else SECONDS
    runs = {
        "before": lambda: measure(before, options.python_before, wanted, seconds),
        "after": lambda: measure(after, options.python_after, wanted, seconds),
        "again": lambda: measure(before, options.python_before, wanted, seconds),
    }
    look_around()
    neighbours = machine.Neighbours()
    rows = summarise(wanted, in_turn(runs, pairs, "pairs of processes"))
    share = neighbours.share()
    print(table(rows))
    print(f"{pairs} pairs; noise: before / before")
    machine.warn(share, "meanwhile")
    fields = {
        "commits": {"before": machine.commit(before), "after": machine.commit(after)},
        "pairs": pairs,
        "neighbours": share,
        "results": rows,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    sys.exit(main())
