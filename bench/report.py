"""README's tables, complete tables and pictures from a file of results.

python -m bench.report bench/results/FILE.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from . import goals, records, run, tables
from .shapes import MAIN, ODD

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("bench", "tiers")  # of README, between its markers


def readme_sections(results: records.Results, stem: str) -> dict[str, str]:
    """What stands between each of README's markers: the main shapes on one thread."""
    return {
        "bench": "\n\n".join(
            [
                "The C backend on one thread, float32, medians; a shape is rows x in_features x out_features "
                "x pieces:",
                tables.summary(results, MAIN),
                f"Measured on: {tables.machine_line(results)}",
                f"Each contender's time, the training step, more shapes, more threads: "
                f"[bench/results/{stem}.md](bench/results/{stem}.md).",
                f"![GFLOP/s by shape](bench/results/{stem}-rates.svg)",
            ]
        ),
        "tiers": "\n\n".join(
            [
                tables.section(results, ("tiers", "tiers_backward"), [1], MAIN),
                f"Measured on: {tables.machine_line(results)} [All of it](bench/results/{stem}.md).",
            ]
        ),
    }


def full_report(results: records.Results, stem: str) -> str:
    """Every table, in Markdown, with the pictures."""
    threads = records.Medians(results["results"]).threads()
    shapes = (*MAIN, *ODD)
    return "\n\n".join(
        part
        for part in [
            f"# {results['environment']['cpu']}",
            f"Measured on: {tables.machine_line(results)}",
            tables.missing_line(results).strip(),
            tables.limits_lines(results),
            tables.neighbours_line(results),
            "fastact and NumPy store the argmax in a forward; PyTorch, torch.compile and JAX leave it out. "
            "The columns of lower precision have the relative error of y in brackets; they are no rivals of "
            "float32's.",
            tables.section(results, tuple(tables.TITLES), threads, shapes),
            *(f"![{name}]({stem}-{name}.svg)" for name in ("rates", "growth")),
        ]
        if part
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("file", type=Path, help="what `python -m fastact bench --out` wrote")
    parser.add_argument(
        "--readme", type=Path, default=ROOT / "README.md", help="replace its sections (default: README.md)"
    )
    parser.add_argument(
        "--section",
        action="append",
        choices=SECTIONS,
        help="which of README's sections to replace, may be given again (default: all)",
    )
    parser.add_argument(
        "--goals", action="store_true", help="print what is aimed at and pass or fail, write nothing"
    )
    options = parser.parse_args(arguments)
    try:
        results = records.read(options.file)
        if options.goals:
            run.show_outcomes(run.console(), goals.outcomes(results))
            return 0
        write(results, options.file, options.readme, options.section or SECTIONS)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def write(results: records.Results, path: Path, readme: Path, sections: Iterable[str]) -> None:
    """Write README's sections, and tables and pictures beside the file of results, under its name."""
    from . import plots

    text = readme.read_text()
    contents = readme_sections(results, path.stem)
    for name in sections:
        text = tables.replace_between_markers(text, name, contents[name])
    path.with_suffix(".md").write_text(full_report(results, path.stem) + "\n")
    for name, figure in (("rates", plots.rates(results, 1)), ("growth", plots.growth(results, 1))):
        plots.save(figure, path.with_name(f"{path.stem}-{name}"))
    readme.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
