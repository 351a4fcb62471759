"""The limits of the figures, which follow from bounds: limits.json, one line a figure.

A limit holds for every backend and instruction set but those that its line names with a limit of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

PATH = Path(__file__).with_name("limits.json")


class Key(NamedTuple):
    """What a figure is of."""

    kind: str  # a key of KINDS in measure.py
    name: str
    dtype: str
    unit: str


class Limit(NamedTuple):
    """How large an error may be, and why."""

    limit: float
    why: str
    variants: dict[str, float]  # limits of some variants, as "c-scalar"

    def of(self, variant: str) -> float:
        """The limit of a variant."""
        return self.variants.get(variant, self.limit)


def read(path: Path = PATH) -> dict[Key, Limit]:
    """The limits of a file; raises ValueError where two are of one figure, or one has no reason."""
    content = json.loads(path.read_text())
    found: dict[Key, Limit] = {}
    for line in content["limits"]:
        key = Key(line["kind"], line["name"], line["dtype"], line["unit"])
        if key in found:
            raise ValueError(f"{path}: got two limits of {' '.join(key)}, wanted one")
        if line["why"] not in content["why"]:
            raise ValueError(f"{path}: got the unknown reason {line['why']!r} of {' '.join(key)}")
        found[key] = Limit(line["limit"], content["why"][line["why"]], line.get("variants", {}))
    return found


def excesses(rows: list[dict[str, Any]], limits: dict[Key, Limit]) -> list[str]:
    """A sentence for each row whose error is not within its limit, or that has no limit."""
    sentences = []
    for row in rows:
        key = Key(row["kind"], row["name"], row["dtype"], row["unit"])
        what = f"{row['name']}, {row['dtype']}, {row['variant']}"
        if key not in limits:
            sentences.append(f"{what}: no limit in {row['unit']}")
            continue
        limit = limits[key].of(row["variant"])
        if not row["error"] <= limit:
            where = f" at {row['where']}" if row["where"] else ""
            got = f"{row['error']:.4g} {row['unit']}{where}"
            sentences.append(f"{what}: got {got}, wanted at most {limit:g}: {limits[key].why}")
    return sentences
