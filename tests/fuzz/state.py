"""What a run has done so far: a file that it can go on from, and the line of JSON at its end."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import fastact as fa
from fastact import backends

SHOWN_FAILURES = 50  # a state keeps at most so many


def build() -> str:
    """The sanitizers that the extension is linked with, else "release"."""
    module = getattr(backends.get("c"), "_native", None) if backends.why_c_is_missing() is None else None
    content = Path(module.__file__).read_bytes() if module is not None else b""
    return "+".join(n for n in ("asan", "tsan", "ubsan") if f"__{n}_".encode() in content) or "release"


def cpu() -> str:
    """The CPU's model, family and model number on Linux."""
    try:
        lines = dict(
            line.split(":", 1)
            for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        return f"{fields['model name']}, family {fields['cpu family']}, model {fields['model']}"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


class State:
    """The job, the next case and the sums over all cases before it."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.next = self.cases = self.failed = 0
        self.skipped: list[int] = []  # cases that ended a worker
        self.seconds = 0.0
        self.operations: dict[str, list[float]] = {}
        self.variants: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []
        self.resident: list[int] = []  # at the start and now, in bytes

    @property
    def calls(self) -> int:
        return int(sum(entry[0] for entry in self.operations.values()))

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of a worker."""
        self.next = max(self.next, line["next"])
        self.cases += line["cases"]
        for name, entry in line["operations"].items():
            self.operations[name] = [
                a + b for a, b in zip(self.operations.get(name, [0, 0, 0.0]), entry, strict=True)
            ]
        for name, calls in line["variants"].items():
            self.variants[name] = self.variants.get(name, 0) + calls
        for failure in line["failures"]:
            self.failed += 1
            if len(self.failures) < SHOWN_FAILURES:
                self.failures.append(failure)
        if line.get("resident"):
            self.resident = [*self.resident[:1], line["resident"]]

    def save(self, path: Path) -> None:
        """Write the file anew; it is whole at any time."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(vars(self)) + "\n")
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path, job: dict[str, Any]) -> State:
        """The state in the file; ValueError where it is of another job."""
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get("job") != job:
            raise ValueError(
                f"state: got {path} of other arguments, wanted one of this seed and these operations"
            )
        state = cls(job)
        vars(state).update(content)
        return state

    def line(self) -> dict[str, Any]:
        """The statistics."""
        return {
            "version": fa.__version__,
            "build": build(),
            "cpu": cpu(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "seed": self.job["seed"],
            "python_threads": self.job["threads"],
            "calls": self.calls,
            "cases": self.cases,
            "failures": self.failed,
            "seconds": round(self.seconds, 1),
            "resident_mb": [round(size / 2**20) for size in self.resident],
            "variants": dict(sorted(self.variants.items())),
            "operations": {
                name: {
                    "calls": int(calls),
                    "cases": int(cases),
                    "calls_per_second": round(calls / seconds) if seconds else 0,
                }
                for name, (calls, cases, seconds) in sorted(self.operations.items())
            },
        }
