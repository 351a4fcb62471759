"""Files of results: reading, checking, merging, writing; medians by shape and contender.

The file of `python -m fastact bench --out`:

{"environment": {cpu, instructions, versions, ...},
 "released": {package: date of release}, absent in older files,
 "quick": whether a `--quick` run is in it (absent: no),
 "limits": {"1": {register_fma_gflops, load_fma_gflops, read_gbytes, with AMX tile_bf16_gflops}, ...},
            by threads
 "neighbours": {"1": share of the CPU's time that others took (or null), ...}, by threads
 "missing": {"layers": {contender: why}, "frozen": {...}, "tiers": {...}, "networks": {...}, or one layer or
             network: {...}},
 "results": [{threads, shape ([rows, in_features, out_features, pieces, activation], the last absent
              for maxout in older files), mode, contender, p20, p50, p80 (microseconds a call),
              rounds, calls, error (the largest, as a share of its bound), norm_error (of the forward,
              relative to the norm of float64's result), commit (or null), date}, ...],
 "networks": [{threads, network (as text), dtype, mode ("forward" or "step"), contender, p20, p50, p80,
               rounds, calls, error, commit, date}, ...], absent in older files}

The other scripts of bench write {"environment", "date", "commit"} and fields of their own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import machine
from .networks import Network
from .shapes import Shape

Record = dict[str, Any]
Results = dict[str, Any]

FIELDS = ("environment", "limits", "neighbours", "missing", "results")
SAME_MACHINE = ("cpu", "family_model", "cores", "system")  # fields of an environment that software keeps


def read(path: Path, fields: Collection[str] = FIELDS) -> Results:
    """The results in a file; raises ValueError where it has not all `fields`."""
    try:
        results = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(results, dict) or set(fields) - set(results):
        raise ValueError(f"{path}: not a file of results of this command, which has {', '.join(fields)}")
    return results


def check_out(path: Path, fields: Collection[str], compared: Iterable[str] = SAME_MACHINE) -> Results | None:
    """The results in the file that `--out` names, or None where there is no such file yet.

    To be called before the work.  Raises OSError where the file cannot be written, ValueError where it
    has not all `fields`, or where one of the fields `compared` of its environment is another machine's.
    """
    if not path.exists():
        if not path.parent.is_dir():
            raise NotADirectoryError(f"{path}: {path.parent} is not a folder")
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                return None
        except OSError as error:
            raise OSError(f"{path}: cannot write in {path.parent} ({error.strerror})") from error
    path.open("r+b").close()
    old = read(path, fields)
    require_same(old["environment"], machine.describe(), compared, path)
    return old


def require_same(
    old: Mapping[str, Any], new: Mapping[str, Any], compared: Iterable[str], path: Path | None = None
) -> None:
    """Raise ValueError where two environments differ in a field of `compared`.

    Of the versions, those of packages that only one of them has are not compared.
    """
    for name in compared:
        if name == "versions" and not _differing(old.get(name, {}), new[name]):
            continue
        if old.get(name) != new[name]:
            where = "the file" if path is None else str(path)
            raise ValueError(
                f"{name}: {where} has {old.get(name)!r}, this run {new[name]!r}; name a new file"
            )


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name in old.keys() & new.keys() if old[name] != new[name]]


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option `--out`."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write JSON as well, in place of this machine's older results",
    )


def check_option(parser: argparse.ArgumentParser, path: Path | None, fields: Collection[str]) -> None:
    """Check what `--out` got before the work; a path that cannot take the results ends the command."""
    try:
        if path is not None:
            check_out(path, ("environment", *fields))
    except (OSError, ValueError) as error:
        parser.error(f"--out: {error}")


def save(path: Path | None, fields: Record) -> None:
    """Write what a script found, with the machine, the date and the commit, where `--out` named a file."""
    if path is None:
        return
    path.write_text(json.dumps(stamped(fields), indent=1) + "\n")
    print(f"wrote {path}")


def stamped(fields: Record) -> Record:
    """What a script found, with the machine, the date and the commit."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": machine.describe(),
        "commit": machine.commit(),
        **fields,
    }


def _key(record: Record) -> tuple[Any, ...]:
    what = (record["network"], record["dtype"]) if "network" in record else Shape(*record["shape"])
    return record["threads"], what, record["mode"], record["contender"]


def _merged(old: list[Record], new: list[Record]) -> list[Record]:
    return list(
        ({_key(record): record for record in old} | {_key(record): record for record in new}).values()
    )


def merge(old: Results, new: Results) -> Results:
    """`old` with what `new` measured in place of its own.

    Raises ValueError where another machine or other versions were measured.
    """
    require_same(old["environment"], new["environment"], new["environment"])
    versions = old["environment"]["versions"] | new["environment"]["versions"]
    return {
        "environment": new["environment"] | {"versions": versions},
        "released": old.get("released", {}) | new.get("released", {}),
        "quick": old.get("quick", False) or new.get("quick", False),
        "limits": old["limits"] | new["limits"],
        "neighbours": _worse(old["neighbours"], new["neighbours"]),
        "missing": old["missing"] | new["missing"],
        "results": _merged(old["results"], new["results"]),
        "networks": _merged(old.get("networks", []), new.get("networks", [])),
    }


def _worse(old: dict[str, float | None], new: dict[str, float | None]) -> dict[str, float | None]:
    both = {threads: (old.get(threads), new.get(threads)) for threads in old | new}
    return {
        threads: max((s for s in shares if s is not None), default=None) for threads, shares in both.items()
    }


def write(path: Path, results: Results) -> None:
    """Write results with one record a line, so that a changed figure is a changed line."""
    lists = [key for key in ("results", "networks") if key in results]
    parts = [json.dumps({key: value for key, value in results.items() if key not in lists}, indent=1)[:-2]]
    for key in lists:
        lines = ",\n".join(json.dumps(record) for record in results[key])
        parts.append(f' "{key}": [\n{lines}\n]')
    path.write_text(",\n".join(parts) + "\n}\n")


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


# by threads, dtype and mode: {network: {contender: microseconds}}
NetworkTimes = dict[tuple[int, str, str], dict[Network, dict[str, float]]]


def network_medians(results: Results) -> NetworkTimes:
    """Medians in microseconds of the networks measured, in the order of the records."""
    found: NetworkTimes = {}
    for record in results.get("networks", []):
        table = found.setdefault((record["threads"], record["dtype"], record["mode"]), {})
        table.setdefault(Network.parse(record["network"]), {})[record["contender"]] = record["p50"]
    return found
