"""`python -m fastact study`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from ..study.findings import Findings, Options
from . import arguments
from .packages import missing_package

PARTS = {
    "vanishing": "the gradient by layer and depth, for each activation",
    "relu": "ReLU, leaky ReLU and |x| as maxout layers",
    "learned": "activations that maxout units learn",
    "winners": "which pieces win, and the linear regions they make",
    "goodfellow": "Goodfellow et al. 2013's MNIST recipe, beside ReLU",
}
_MODULES = {"relu": "relu_is_maxout"}  # modules that are not named after their part
SEEDS_AMONG_ALL, SEEDS_ALONE = 2, 5  # for goodfellow; all parts together take less than 5 minutes


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "study",
        help="plots and numbers on why activations matter, written to a folder",
        description="Write plots (PNG, SVG), the numbers behind them (CSV) and a page that explains them.\n\n"
        + "\n".join(f"  {name:<11} {what}" for name, what in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="what to run (default: everything)")
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder to write to (default: study)")
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="seed of everything random (default: 0)"
    )
    recipe = parser.add_argument_group("goodfellow")
    recipe.add_argument("--mnist", type=Path, metavar="FOLDER", help="MNIST's four IDX files, .gz or not")
    recipe.add_argument(
        "--epochs",
        type=arguments.positive,
        default=60,
        help="epochs of the first phase; the second has at most as many (default: 60)",
    )
    recipe.add_argument(
        "--seeds",
        type=arguments.positive,
        help=f"runs of each network (default: {SEEDS_ALONE}, or {SEEDS_AMONG_ALL} with other parts)",
    )
    recipe.add_argument("--resume", action="store_true", help="go on from the checkpoints in the folder")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    names = given.parts or list(PARTS)
    for name in names:
        if name not in PARTS:
            sys.exit(f"fastact: part: got {name!r}, wanted one of {', '.join(PARTS)}")
    seeds = given.seeds or (SEEDS_ALONE if names == ["goodfellow"] else SEEDS_AMONG_ALL)
    options = Options(given.out, given.seed, given.mnist, given.epochs, seeds, given.resume)
    try:
        page, summary = run(names, options)
    except ModuleNotFoundError as error:
        sys.exit(f"fastact: {missing_package('the study', error, 'demo')}")
    except (ValueError, OSError) as error:  # --out, MNIST's files, or a checkpoint of another run
        sys.exit(f"fastact: {error}")
    except KeyboardInterrupt:
        if "goodfellow" in names:
            print("fastact: with --resume, goodfellow goes on from its checkpoints", file=sys.stderr)
        raise
    print(*summary, f"Wrote {page}", sep="\n")
    return 0


def run(names: list[str], options: Options) -> tuple[Path, list[str]]:
    """Run these parts with a progress bar and write what they found.

    Returns:
        The page's path, and the findings in a few sentences.

    Raises:
        ValueError: the folder cannot be made or written to, MNIST's files are invalid, or a checkpoint is of
            another run.
        OSError: MNIST's files are missing, or a file cannot be read or written.
        ModuleNotFoundError: a package that the parts need is missing.
    """
    from rich.progress import Progress

    from ..study import report, style

    style.use()
    report.make_folder(options.out)
    modules = {name: importlib.import_module(f"fastact.study.{_MODULES.get(name, name)}") for name in names}
    findings: dict[str, Findings] = {}
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=sum(module.steps(options) for module in modules.values()))

        def advance(what: str) -> None:
            progress.update(task, description=what, advance=1)

        # goodfellow first: no other part reads files, which may be missing or of another run
        for name in sorted(modules, key=lambda name: name != "goodfellow"):
            findings[name] = modules[name].run(options, advance)
    in_order = {name: findings[name] for name in modules}
    page = report.write(options.out, in_order, _words(list(modules), options))
    return page, [sentence for part in in_order.values() for sentence in part.summary]


def _words(names: list[str], options: Options) -> str:
    """The command that gives these findings again."""
    words = ["python -m fastact study", *names, f"--seed {options.seed}"]
    if "goodfellow" in names:
        words += ["--mnist FOLDER"] if options.mnist is not None else []
        words += [f"--epochs {options.epochs}", f"--seeds {options.seeds}"]
    return " ".join(words)
