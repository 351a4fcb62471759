"""Measures how far results are from exact ones, and compares that with the limits in limits.json.

python -m bench.accuracy                             # a quick sample of every figure, as a table
python -m bench.accuracy --check                     # the same; status 1 where a figure exceeds its limit
python -m bench.accuracy --step 17 --out FILE        # every 17th float32; the figures as JSON
python -m bench.accuracy --page FILE...              # bench/accuracy.md, from such files
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fastact.cli.arguments import positive

from .. import records
from . import limits, measure, page


def _table(kind: str, found: list[records.Record], of_limits: dict[limits.Key, limits.Limit]) -> Table:
    variants = list(dict.fromkeys(row["variant"] for row in found))
    table = Table(title=kind.replace("_", " "), box=None)
    table.add_column("figure", overflow="fold")
    for heading in ("dtype", "unit"):
        table.add_column(heading, no_wrap=True)
    for heading in (*variants, "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for *cells, limit in page.lines(found, variants, of_limits):
        table.add_row(*cells, limit.partition(",")[0])
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kinds", nargs="+", choices=measure.KINDS, default=list(measure.KINDS))
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=measure.variants(),
        default=measure.variants(),
        help="Numba, and instruction sets of C (default: all of this CPU)",
    )
    parser.add_argument(
        "--step",
        type=positive,
        default=measure.STEP,
        help="of the float32 inputs of activations take every STEP-th; 1: all, hours (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="end with status 1 where a limit is exceeded")
    parser.add_argument(
        "--page", type=Path, nargs="+", metavar="FILE", help="write the page of these files instead"
    )
    records.add_out(parser)
    options = parser.parse_args(arguments)
    of_limits = limits.read()
    if options.page:
        try:
            print(f"wrote {page.write(options.page, of_limits)}")
        except (OSError, ValueError) as error:
            parser.error(f"--page: {error}")
        return 0
    records.check_option(parser, options.out, ("step", "results"))
    found = []
    total = sum(key.kind in options.kinds for key in of_limits) * len(options.variants)
    with Progress() as progress:
        task = progress.add_task("", total=total)
        for variant in options.variants:
            for kind in options.kinds:
                for row in measure.rows(variant, kind, options.step):
                    found.append(row)
                    progress.update(task, advance=1, description=f"{variant} {row['name']}")
        progress.update(task, completed=total)
    console = Console()
    for kind in options.kinds:
        console.print(_table(kind, [row for row in found if row["kind"] == kind], of_limits))
    if options.out is not None:
        records.write(options.out, records.stamped({"step": options.step, "results": found}))
        print(f"wrote {options.out}")
    excesses = limits.excesses(found, of_limits)
    for sentence in excesses:
        print(sentence, file=sys.stderr)
    return int(options.check and bool(excesses))


if __name__ == "__main__":
    sys.exit(main())
