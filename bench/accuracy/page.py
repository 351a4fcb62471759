"""The page bench/accuracy.md: the figures of files of results beside their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import records, tables
from .figures import UNITS
from .limits import Key, Limit

PATH = Path(__file__).resolve().parents[1] / "accuracy.md"
_INTRODUCTION = """# Accuracy

The largest errors found, beside limits that follow from bounds \
([accuracy/limits.json](accuracy/limits.json)). `python -m bench.accuracy` measures them; `--check` compares \
a sample with the limits, as the tests do. `--page FILE...` writes this page. Each column is a backend: \
Numba, or C on one instruction set. A limit of one backend alone stands after the general one, with its \
name. NEON's figures are QEMU's."""


def lines(
    rows: Sequence[dict[str, Any]], variants: Sequence[str], limits: dict[Key, Limit]
) -> Iterator[list[str]]:
    """For each figure its name, dtype, unit, the error of each variant, and the limit."""
    errors: dict[Key, dict[str, float]] = {}
    for row in rows:
        key = Key(row["kind"], row["name"], row["dtype"], row["unit"])
        errors.setdefault(key, {})[row["variant"]] = row["error"]
    for key, of_key in errors.items():
        cells = [f"{of_key[variant]:.3g}" if variant in of_key else "" for variant in variants]
        yield [key.name, key.dtype, key.unit, *cells, _limit(limits.get(key), variants)]


def _limit(limit: Limit | None, variants: Sequence[str]) -> str:
    if limit is None:
        return "none"
    own = [f"{variant} {value:g}" for variant, value in limit.variants.items() if variant in variants]
    return ", ".join([f"{limit.limit:g}", *own])


def _reasons(rows: Sequence[dict[str, Any]], limits: dict[Key, Limit]) -> list[str]:
    names: dict[str, list[str]] = {}
    for row in rows:
        limit = limits.get(Key(row["kind"], row["name"], row["dtype"], row["unit"]))
        if limit is not None:
            of_reason = names.setdefault(limit.why, [])
            if (name := row["name"]) not in of_reason:
                of_reason.append(name)
    return [f"- {', '.join(of_reason)}: {why}." for why, of_reason in names.items()]


def text(files: Sequence[records.Results], limits: dict[Key, Limit]) -> str:
    """The page, in Markdown; a figure that several files have is that of the last."""
    rows = [row for results in files for row in results["results"]]
    kinds = dict.fromkeys(row["kind"] for row in rows)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    parts = [_INTRODUCTION]
    for results in files:
        about = results["environment"]
        measured = ", ".join(dict.fromkeys(row["variant"] for row in results["results"]))
        described = (
            f"{measured}: {about['cpu']}, {about['system']}, NumPy {about['versions']['numpy']}, "
            f"{results['date'][:10]}, commit {results['commit'] or 'unknown'}"
        )
        step = results["step"]
        sample = "every number" if step == 1 else f"each {step}th number"
        swept = any(row["kind"] == "activations" for row in results["results"])
        parts.append(f"{described}; float32 activations of {sample}." if swept else f"{described}.")
    parts.append("\n".join(["Units:", "", *(f"- {unit}: {what}" for unit, what in UNITS.items())]))
    for kind in kinds:
        of_kind = [row for row in rows if row["kind"] == kind]
        heading = ["figure", "dtype", "unit", *variants, "limit"]
        parts.append(f"## {kind.replace('_', ' ').capitalize()}")
        parts.append(tables.markdown_of(heading, list(lines(of_kind, variants, limits))))
        parts.append("\n".join(["Where the limits come from:", "", *_reasons(of_kind, limits)]))
    return "\n\n".join(parts) + "\n"


def write(paths: Sequence[Path], limits: dict[Key, Limit], page: Path = PATH) -> Path:
    """Write the page of these files; raises OSError or ValueError where one cannot be read."""
    files = [records.read(path, ("environment", "date", "commit", "step", "results")) for path in paths]
    page.write_text(text(files, limits))
    return page
