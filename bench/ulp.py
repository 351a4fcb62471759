"""The accuracy of the float32 activations over every float32 input: `python -m bench.ulp`.

The exact value is the float64 kernel's, which tests/test_ulp.py holds against 60-digit arithmetic.  An error
is counted in units in the last place of the exact value as a float32, subnormal numbers included.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

import fastact as fa
from fastact import activations
from fastact.backends import c

from . import machine

# Every activation of the table except identity, which is exact, and prelu, which has leaky_relu's formula.
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in activations.TABLE if name not in ("identity", "prelu")
} | {"leaky_relu": ("leaky_relu", {"negative_slope": 0.25}), "gelu_tanh": ("gelu", {"approximate": "tanh"})}
_CHUNK = 1 << 16  # numbers that fit into L2


def errors(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The error of each float32 y against the float64 exact, in ULP; infinite where only one is NaN."""
    rounded = exact.astype(np.float32)
    exponent = exact.view(np.int64) >> 52 & 0x7FF
    ulp = (np.maximum(exponent, 1023 - 126) - 23 << 52).view(np.float64)  # 2^-23 of the exact value's binade
    error = np.abs(y.astype(np.float64) - exact) / ulp
    # a result beyond the largest float is right where it is infinite
    error[(y == rounded) & np.isinf(rounded)] = 0
    one_nan = np.isnan(error)
    if one_nan.any():
        error[one_nan] = np.where(np.isnan(y[one_nan]) & np.isnan(exact[one_nan]), 0, np.inf)
    return error


def sweep(label: str, step: int, progress: Progress) -> dict[str, Any]:
    """The largest error of one activation over every `step`-th float32 bit pattern, and where it is."""
    name, keywords = ACTIVATIONS[label]
    task = progress.add_task(label, total=1 << 32)
    worst, where = -1.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, 1 << 32, _CHUNK * step):
            stop = min(start + _CHUNK * step, 1 << 32)
            z = np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
            exact = fa.activation(z.astype(np.float64), name, backend="c", **keywords)
            error = errors(fa.activation(z, name, backend="c", **keywords), exact)
            i = int(error.argmax())
            if error[i] > worst:
                worst, where = float(error[i]), float(z[i])
            progress.update(task, completed=stop)
    return {"activation": label, "max_ulp": worst, "z": where, "z_hex": where.hex()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ulp", description=__doc__.splitlines()[0])
    parser.add_argument("activations", nargs="*", help=f"of {', '.join(ACTIVATIONS)}; all of them by default")
    parser.add_argument("--step", type=int, default=1, help="take every STEP-th float32 only")
    parser.add_argument("--isa", choices=c.supported_isas(), default=c.isa())
    parser.add_argument("--json", type=Path, help="write the result to this file as well")
    arguments = parser.parse_args()
    unknown = set(arguments.activations) - set(ACTIVATIONS)
    if unknown or arguments.step < 1:
        parser.error(
            f"unknown activation {', '.join(sorted(unknown))}" if unknown else "--step must be at least 1"
        )
    c.set_isa(arguments.isa)
    with Progress() as progress:
        rows = [sweep(label, arguments.step, progress) for label in arguments.activations or ACTIVATIONS]
    for row in rows:
        print(f"{row['activation']:12s} {row['max_ulp']:.4f} ULP at {row['z']!r} ({row['z_hex']})")
    if arguments.json:
        result = {"isa": arguments.isa, "step": arguments.step, "machine": machine.describe(), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
