"""`python -m fastact bench`: the benchmark of a checkout's `bench/`, which no wheel contains."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from . import arguments


def add_parser(commands: Any) -> None:
    """Add the command to an argparse parser's subcommands."""
    parser = commands.add_parser(
        "bench",
        help="measure against NumPy, PyTorch, Thinc, JAX and inference engines (in a checkout)",
        description="Check fastact and its peers against float64, then time them in turn, in one run.",
        epilog="Peers come with: pip install -e '.[bench]'.  One that is missing is named and left out.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short samples; six shapes in 90 seconds, or those of --shapes"
    )
    parser.add_argument(
        "--threads",
        type=arguments.positive,
        nargs="+",
        default=[1],
        metavar="N",
        help="numbers of threads, each in a process of its own (default: 1)",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=[],
        metavar="SHAPE",
        help="main, linear, odd, rows, features, pieces, networks; one shape, as 1024x288x96x3 (maxout of 3 "
        "pieces) and 128x784x256:relu; one network, as 256x8-64-64-4:tanh (default: all)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON; updates a file of this machine")
    parser.add_argument("--goals", action="store_true", help="print the goals and which are met")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmark; the exit status."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "bench" / "run.py").is_file():
        print(
            "bench needs a checkout of fastact's repository, installed with pip install -e '.[bench]'",
            file=sys.stderr,
        )
        return 2
    sys.path.insert(0, str(root))
    try:
        benchmark = importlib.import_module("bench.run")
    except ModuleNotFoundError as error:
        print(f"bench: {error}; pip install -e '.[bench]' installs what it needs", file=sys.stderr)
        return 2
    try:
        status: int = benchmark.run(
            options.threads, options.shapes, options.quick, options.out, options.goals
        )
    except (OSError, RuntimeError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return status
