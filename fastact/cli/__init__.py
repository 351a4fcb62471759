"""The command line: `fastact demo`, `info`, `bench` and `study`; `python -m fastact` is the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__, info, settings
from . import arguments, bench, study
from .packages import missing_package


def _demo(options: argparse.Namespace) -> int:
    from . import demo

    try:
        with settings.float32_matmul_precision(options.precision):
            return demo.run(options.epochs, options.seed)
    except ModuleNotFoundError as error:
        sys.exit(f"fastact: {missing_package('the demo', error, 'demo')}")


def _info(options: argparse.Namespace) -> int:
    info.show_config()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastact",
        description="Compiled CPU kernels for linear + maxout, and linear + ReLU, GELU and their kin.",
        epilog="Environment: FASTACT_BACKEND (c, numba, numpy), "
        "FASTACT_ISA (scalar, avx2, avx512, amx, neon), OMP_NUM_THREADS.",
    )
    parser.add_argument("--version", action="version", version=f"fastact {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="command")

    demo = commands.add_parser(
        "demo",
        help="train a maxout network on handwritten digits with each backend",
        description="Train the same maxout network on scikit-learn's handwritten digits with each backend "
        "and with naive NumPy, from the same seed, and print times, speed-ups and accuracies.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--epochs", type=arguments.positive, default=30, help="passes over the training digits")
    demo.add_argument(
        "--seed", type=arguments.seed, default=0, help="seed of the split, the weights and the batches"
    )
    demo.add_argument(
        "--precision",
        choices=settings.PRECISIONS,
        default="highest",
        help="tier of the C backend's float32 products; `fastact info` says what each runs on here",
    )
    demo.set_defaults(run=_demo)

    configuration = commands.add_parser(
        "info",
        help="print CPU, instruction set, backends, threads and precision",
        description="Print the configuration in force: CPU, instruction set, backends, threads, precision.",
    )
    configuration.set_defaults(run=_info)

    bench.add_parser(commands)
    study.add_parser(commands)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run a command, or print the help where none is given; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(words)
    if options.run is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        info.get_config()
    except (
        ValueError,
        ImportError,
    ) as error:  # FASTACT_BACKEND or FASTACT_ISA names something that can't run
        sys.exit(f"fastact: {error}")
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("fastact: stopped", file=sys.stderr)
        return 130  # as a shell has it for a program that Ctrl-C ends
