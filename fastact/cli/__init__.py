"""The command line: `fastact demo`, `info`, `bench` and `study`, or `python -m fastact`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import info, settings
from . import arguments, bench, study


def _demo(options: argparse.Namespace) -> int:
    from . import demo

    try:
        with settings.float32_matmul_precision(options.precision):
            return demo.run(options.epochs, options.seed)
    except ModuleNotFoundError as error:
        sys.exit(f'fastact: the demo needs {error.name}: pip install -e ".[demo]"')


def _info(options: argparse.Namespace) -> int:
    info.show_config()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastact",
        description="Compiled CPU kernels for linear + maxout and the ReLU family.",
        epilog="Environment: FASTACT_BACKEND (c, numba, numpy), FASTACT_ISA (scalar, avx2, avx512, amx), "
        "OMP_NUM_THREADS.",
    )
    commands = parser.add_subparsers(metavar="command", required=True)

    demo = commands.add_parser(
        "demo",
        help="train a maxout network on handwritten digits with each backend",
        description="Train the same maxout network on scikit-learn's handwritten digits with each backend "
        "and with naive NumPy, from the same seed, and print times, speed-ups and accuracies.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--epochs", type=arguments.positive, default=30, help="passes over the training digits")
    demo.add_argument(
        "--seed", type=arguments.seed, default=0, help="of the split, the weights and the batches"
    )
    demo.add_argument(
        "--precision",
        choices=settings.PRECISIONS,
        default="highest",
        help="tier of the C backend's float32 products; info says what each runs on here",
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
    """Run a command; the exit status."""
    options = _parser().parse_args(words)
    try:
        info.get_config()
    except (ValueError, ImportError) as error:  # FASTACT_BACKEND or FASTACT_ISA names what can't run
        sys.exit(f"fastact: {error}")
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("fastact: stopped", file=sys.stderr)
        return 130  # as a shell has it for a program that Ctrl-C ends
