"""The tables of README.md, of the files in `results/`: `python -m tests.fuzz.report` writes them anew.

`results/mutants.json` is what `tests.fuzz.mutants --json` wrote; every other file is of `tests.fuzz --json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import mutants

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- results: written by tests.fuzz.report -->\n", "<!-- end of results -->\n"


def row(*cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def of_runs(runs: dict[str, dict[str, Any]]) -> str:
    """A row for each run."""
    text = row("run", "version", "build", "Python threads", "calls", "cases", "failures", "seconds", "CPU")
    text += row(*["---"] * 9)
    for name, run in runs.items():
        text += row(
            name,
            run["version"],
            run["build"],
            run["python_threads"],
            f"{run['calls']:,}",
            f"{run['cases']:,}",
            run["failures"],
            f"{run['seconds']:,.0f}",
            run["cpu"],
        )
    return text


def of_operations(run: dict[str, Any]) -> str:
    """Calls of each operation in the longest run."""
    text = row("operation", "calls", "cases", "calls/s") + row(*["---"] * 4)
    for name, entry in run["operations"].items():
        text += row(name, f"{entry['calls']:,}", f"{entry['cases']:,}", f"{entry['calls_per_second']:,}")
    return text


def of_mutants(found: dict[str, dict[str, Any]]) -> str:
    text = row("mutant", "what it breaks", "calls until caught", "seconds", "operation") + row(*["---"] * 5)
    breaks = {mutant.name: mutant.breaks for mutant in mutants.mutants()}
    for name, each in found.items():
        calls = f"{each['calls']:,}" if each["caught"] else "not caught"
        text += row(name, breaks.get(name, "-"), calls, round(each["seconds"]), each["operation"])
    return text


def tables(folder: Path) -> str:
    """All tables of the results in `folder`."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    found = files.pop("mutants", None)
    parts = []
    if files:
        longest = max(files.values(), key=lambda run: run["calls"])
        variants = ", ".join(f"{name} {calls:,}" for name, calls in longest["variants"].items())
        parts += [
            of_runs(files),
            f"Calls of the longest run by variant: {variants}.\n",
            of_operations(longest),
        ]
    if found is not None:
        parts.append(of_mutants(found))
    return "\n".join(parts)


def with_tables(text: str, folder: Path) -> str:
    """The README with the tables of `folder`."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables(folder)}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.report", description=(__doc__ or "").split("\n")[0]
    )
    parser.parse_args(arguments)
    readme = FOLDER / "README.md"
    readme.write_text(with_tables(readme.read_text(), FOLDER / "results"))
    return 0


if __name__ == "__main__":
    main()
