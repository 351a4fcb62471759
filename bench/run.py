"""Run the benchmark: a process for each number of threads, then tables and, if asked for, the goals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from . import goals, records, shapes, tables
from .shapes import Shape
from .threads import process_environment

ROOT = Path(__file__).resolve().parents[1]
SECONDS, QUICK_SECONDS = 3.0, 1.0  # for each mode of a main shape, at the least


def console() -> Console:
    """A console that is wide enough for the tables where it is no terminal."""
    screen = Console()
    if not screen.is_terminal:
        screen.width = 140
    return screen


def run(threads: list[int], words: list[str], quick: bool, out: Path | None, show_goals: bool) -> int:
    """Measure and print; `words` are groups of shapes or shapes, and where empty, all or few.

    Returns 0, or 1 where a contender's results were wrong.  Raises ValueError for a bad argument and
    where `out` was written on another machine or with other versions.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for count in threads:
        if not 1 <= count <= cores:
            raise ValueError(f"threads: got {count}, wanted 1 to {cores}, the cores there are")
    chosen = shapes.select(words or ([str(s) for s in shapes.QUICK] if quick else list(shapes.GROUPS)))
    old = records.read(out) if out is not None and out.exists() else None
    screen = console()
    results: records.Results | None = None
    wrong = False
    for count in threads:
        # a picture has one number of threads
        wanted = [shape for shape in chosen if count == threads[0] or not shapes.is_sweep(shape)]
        part, failed = _measure(count, wanted, QUICK_SECONDS if quick else SECONDS)
        results = part if results is None else records.merge(results, part)
        wrong = wrong or failed
    assert results is not None
    if out is not None:
        merged = results if old is None else records.merge(old, results)
        records.write(out, merged)
    show(screen, results)
    if show_goals:
        show_outcomes(screen, goals.outcomes(results))
    screen.print(f"written to {out}" if out is not None else "not written to a file: no --out")
    return 1 if wrong else 0


def _measure(threads: int, chosen: list[Shape], seconds: float) -> tuple[records.Results, bool]:
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        request.write_text(
            json.dumps({"threads": threads, "seconds": seconds, "shapes": chosen, "answer": str(answer)})
        )
        done = subprocess.run(
            [sys.executable, "-m", "bench.measure", str(request)],
            cwd=ROOT,
            env=process_environment(threads),
            check=False,
        )
        if not answer.exists():
            raise RuntimeError(f"the process with {threads} threads ended with status {done.returncode}")
        part = json.loads(answer.read_text())
    return part, done.returncode != 0


def show(console: Console, results: records.Results) -> None:
    """Print every table of `results`."""
    console.print(tables.machine_line(results), highlight=False)
    console.print(tables.missing_line(results), highlight=False)
    medians = records.Medians(results["results"])
    for threads in medians.threads():
        for mode, title in tables.TITLES.items():
            content = tables.table(medians, threads, mode)
            if not content.lines:
                continue
            drawn = RichTable(title=f"{title}, {tables.threads_text(threads)}, median µs")
            for i, name in enumerate(content.header):
                drawn.add_column(name, justify="right" if i else "left")
            for cells, fastest in zip(content.lines, content.fastest, strict=True):
                cells = [f"[bold green]{cell}[/]" if i == fastest else cell for i, cell in enumerate(cells)]
                drawn.add_row(*cells)
            console.print(drawn)


def show_outcomes(console: Console, outcomes: list[goals.Outcome]) -> None:
    """Print the goals, one a line, and how many are met."""
    drawn = RichTable(title="Goals: how many times as fast, or what part of an error")
    for name in ("mode", "shape", "contender", "against"):
        drawn.add_column(name)
    for name in ("wanted", "got", "possible", "verdict"):
        drawn.add_column(name, justify="right")
    words = {True: "[green]pass[/]", False: "[red]fail[/]", None: "not measured"}
    for outcome in outcomes:
        figures = (outcome.wanted, outcome.got, outcome.possible)
        form = ".1e" if outcome.is_limit else ".2f"
        drawn.add_row(
            *(outcome.mode.replace("_", " + "), str(outcome.shape), outcome.contender, outcome.against),
            *("" if figure is None else f"{figure:{form}}" for figure in figures),
            outcome.lacking or words[outcome.passed],
        )
    console.print(drawn)
    counts = {passed: sum(outcome.passed is passed for outcome in outcomes) for passed in words}
    console.print(f"{counts[True]} pass, {counts[False]} fail, {counts[None]} not measured.")
    console.print("Possible: the useful arithmetic at the FMA rate measured in registers on this machine.")
