"""The file of results: reading, merging, looking up.

{"environment": {cpu, instructions, versions, ...},
 "limits": {"1": {register_fma_gflops, load_fma_gflops, read_gbytes, with AMX tile_bf16_gflops}, ...},
            by threads
 "missing": {"layers": {contender: why}, "frozen": {...}, "tiers": {...}},
 "results": [{threads, shape, mode, contender, p20, p50, p80 (microseconds a call),
              rounds, calls, error (the largest, as a share of its bound), norm_error (of the forward,
              relative to the norm of float64's result), commit (or null), date}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .shapes import Shape

Record = dict[str, Any]
Results = dict[str, Any]


def _key(record: Record) -> tuple[Any, ...]:
    return record["threads"], tuple(record["shape"]), record["mode"], record["contender"]


def merge(old: Results, new: Results) -> Results:
    """`old` with what `new` measured in place of its own.

    Raises ValueError where another machine or other versions were measured.
    """
    for name, value in new["environment"].items():
        if old["environment"].get(name) != value:
            raise ValueError(f"{name}: the file has {old['environment'].get(name)!r}, this run {value!r}")
    records = {_key(record): record for record in old["results"]}
    records |= {_key(record): record for record in new["results"]}
    return {
        "environment": new["environment"],
        "limits": old["limits"] | new["limits"],
        "neighbours": _worse(old["neighbours"], new["neighbours"]),
        "missing": new["missing"],
        "results": list(records.values()),
    }


def _worse(old: dict[str, float | None], new: dict[str, float | None]) -> dict[str, float | None]:
    both = {threads: (old.get(threads), new.get(threads)) for threads in old | new}
    return {
        threads: max((s for s in shares if s is not None), default=None) for threads, shares in both.items()
    }


def read(path: Path) -> Results:
    """The results in a file; raises ValueError where it holds something else."""
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(results, dict) or {"environment", "limits", "neighbours", "missing", "results"} - set(
        results
    ):
        raise ValueError(f"{path}: not a file that `python -m fastact bench --out` wrote")
    return results


def write(path: Path, results: Results) -> None:
    """One record a line, so that a changed figure is a changed line."""
    lines = ",\n".join(json.dumps(record) for record in results["results"])
    head = {key: value for key, value in results.items() if key != "results"}
    text = json.dumps(head, indent=1)[:-2] + ',\n "results": [\n' + lines + "\n]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Medians:
    """Medians in microseconds, and norms of errors, by threads, mode, shape and contender."""

    def __init__(self, records: list[Record]) -> None:
        self._of: dict[tuple[int, str, Shape], dict[str, float]] = {}
        self._errors: dict[tuple[str, Shape, str], float] = {}
        for record in records:
            shape = Shape(*record["shape"])
            place = self._of.setdefault((record["threads"], record["mode"], shape), {})
            place[record["contender"]] = record["p50"]
            self._errors[record["mode"], shape, record["contender"]] = record["norm_error"]

    def at(self, threads: int, mode: str, shape: Shape) -> dict[str, float]:
        """{contender: microseconds}, empty where nothing was measured."""
        return self._of.get((threads, mode, shape), {})

    def norm_error(self, mode: str, shape: Shape, contender: str) -> float:
        """The norm of a contender's error relative to the result's."""
        return self._errors[mode, shape, contender]

    def shapes(self, threads: int, mode: str, wanted: Iterable[Shape] | None = None) -> list[Shape]:
        """The shapes measured, in the order of the records; where `wanted` is given, those of it."""
        found = [shape for count, name, shape in self._of if (count, name) == (threads, mode)]
        return found if wanted is None else [shape for shape in wanted if shape in found]

    def threads(self) -> list[int]:
        """The numbers of threads measured."""
        return sorted({count for count, _, _ in self._of})
