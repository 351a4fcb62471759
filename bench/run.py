"""Run the benchmark: a process for each number of threads, then tables and, if asked for, the goals."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import textwrap
from pathlib import Path

from . import goals, machine, records, shapes, tables
from .networks import Network
from .shapes import Shape
from .threads import process_environment, run_process

ROOT = Path(__file__).resolve().parents[1]
SECONDS, QUICK_SECONDS = 3.0, 1.0  # for each mode of a main shape, at the least


def run(threads: list[int], words: list[str], quick: bool, out: Path | None, show_goals: bool) -> int:
    """Measure and print; `words` are groups, shapes or networks, and where empty, all or few.

    Returns 0, or 1 where a contender's results were wrong.  Where Ctrl-C stops the work, what was measured
    until then is written and printed, and KeyboardInterrupt raised.  Before the work, raises ValueError for a
    bad argument and where `out` has other results than this machine's, OSError where it cannot be written.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for count in threads:
        if not 1 <= count <= cores:
            raise ValueError(f"threads: got {count}, wanted 1 to {cores}, the cores there are")
    chosen = shapes.select(words or ([str(s) for s in shapes.QUICK] if quick else list(shapes.GROUPS)))
    old = None if out is None else records.check_out(out, records.FIELDS, machine.describe())
    results: records.Results | None = None
    wrong = False
    for count in threads:
        # a picture has one number of threads
        wanted = [shape for shape in chosen if count == threads[0] or not shapes.is_sweep(shape)]
        part, failed, stopped = _measure(count, wanted, QUICK_SECONDS if quick else SECONDS)
        part["quick"] = quick
        results = part if results is None else records.merge(results, part)
        wrong = wrong or failed
        if stopped:
            break
    assert results is not None
    if out is not None:
        records.write(out, results if old is None else records.merge(old, results))
    print(text(results))
    if show_goals:
        print(f"\n{goals.text(goals.outcomes(results))}")
    print(f"\nwrote {out}" if out is not None else "\nnot written to a file: no --out")
    if stopped:
        raise KeyboardInterrupt
    return 1 if wrong else 0


def _measure(
    threads: int, chosen: list[Shape | Network], seconds: float
) -> tuple[records.Results, bool, bool]:
    """The results, whether any contender's were wrong, and whether Ctrl-C stopped the process."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        work = {
            "threads": threads,
            "seconds": seconds,
            "shapes": [each for each in chosen if isinstance(each, Shape)],
            "networks": [str(each) for each in chosen if isinstance(each, Network)],
            "answer": str(answer),
        }
        request.write_text(json.dumps(work))
        status, stopped = 0, False
        try:
            status = run_process(
                [sys.executable, "-m", "bench.measure", str(request)],
                cwd=ROOT,
                env=process_environment(threads),
            ).returncode
        except KeyboardInterrupt:
            if not answer.exists():
                raise
            stopped = True
        if not answer.exists() or status:
            raise RuntimeError(f"the process with {threads} threads ended with status {status}")
        part = json.loads(answer.read_text())
    return part, bool(part.pop("wrong")), stopped


def text(results: records.Results) -> str:
    """Every table of `results`, at most 80 columns wide."""
    about = [tables.machine_line(results), *tables.missing_line(results).splitlines()]
    parts = ["\n".join(textwrap.fill(line, tables.WIDTH, break_on_hyphens=False) for line in about)]
    found = dict.fromkeys(Shape(*record["shape"]) for record in results["results"])
    for threads in records.Medians(results["results"]).threads():
        for layer, of_layer in tables.by_layer(found).items():
            for title, content in tables.titled(results, tables.TITLES, threads, of_layer):
                heading = textwrap.fill(f"{title}: {layer}", tables.WIDTH)
                parts.append(f"{heading}\n\n{tables.blocks(content)}")
    for title, content in tables.of_networks(results):
        parts.append(f"{textwrap.fill(title, tables.WIDTH)}\n\n{tables.blocks(content)}")
    parts.append("* the fastest; C vs best other: how many times as fast fastact C is")
    return "\n\n".join(parts)
