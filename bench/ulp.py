"""Measures the error of the float32 activations over every float32 input: `python -m bench.ulp`.

The exact value is the float64 kernel's, which tests/test_ulp.py holds against 60-digit arithmetic.  An error
is counted in units in the last place of the exact value as a float32, subnormal numbers included.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.progress import Progress

import fastact as fa
from fastact import activations
from fastact.backends import c
from fastact.cli.arguments import positive

from . import records

# Every activation of the table except identity, which is exact, and prelu, whose formula is leaky_relu's.
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in activations.TABLE if name not in ("identity", "prelu")
} | {"leaky_relu": ("leaky_relu", {"negative_slope": 0.25}), "gelu_tanh": ("gelu", {"approximate": "tanh"})}
_CHUNK = 1 << 16  # numbers that fit into L2


def errors(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The error of each float32 y against the float64 exact, in ULP; infinite where one alone is NaN."""
    rounded = exact.astype(np.float32)
    exponent = exact.view(np.int64) >> 52 & 0x7FF
    ulp = (np.maximum(exponent, 1023 - 126) - 23 << 52).view(np.float64)  # 2^-23 of the exact value's binade
    error = np.abs(y.astype(np.float64) - exact) / ulp
    # beyond the largest float32 the right result is infinite
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


def add_activations(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name activations: all of them by default."""
    names = list(ACTIVATIONS)
    parser.add_argument(
        "activations",
        nargs="*",
        type=_activation,
        default=names,
        metavar="ACTIVATION",
        help=f"one of {', '.join(names)} (default: all)",
    )


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise argparse.ArgumentTypeError(f"got {name!r}, wanted one of {', '.join(ACTIVATIONS)}")
    return name


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ulp", description=__doc__.splitlines()[0])
    add_activations(parser)
    parser.add_argument("--step", type=positive, default=1, help="take every STEP-th float32 only")
    parser.add_argument("--isa", choices=c.supported_isas(), default=c.isa())
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("isa", "step", "rows"))
    c.set_isa(options.isa)
    with Progress() as progress:
        rows = [sweep(label, options.step, progress) for label in options.activations]
    for row in rows:
        print(f"{row['activation']:12s} {row['max_ulp']:.4f} ULP at {row['z']!r} ({row['z_hex']})")
    records.save(options.out, {"isa": options.isa, "step": options.step, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
