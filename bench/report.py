"""A machine's page and pictures from its file of results, and on demand README's chart and table.

python -m bench.report bench/results/FILE.json            # FILE.md and pictures beside it
python -m bench.report bench/results/FILE.json --readme   # these, and README's chart and table
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from . import closest, goals, machine, records, tables
from .shapes import MAXOUT, TABULATED, Shape

README = Path(__file__).resolve().parents[1] / "README.md"
README_MODE = "forward_backward"
README_SHAPES = (
    Shape(1024, 288, 96, 3),
    Shape(100, 784, 240, 5),
    Shape(1, 1024, 1024, 2),
    Shape(8, 32, 32, 2),
    Shape(128, 784, 256, activation="relu"),
    Shape(1, 2048, 2048, activation="relu"),
    Shape(8, 32, 32, activation="relu"),
)
# contenders of README, and the package of each
README_CONTENDERS = {"fastact C": "fastact", "PyTorch": "torch", "JAX": "jax", "naive NumPy": "numpy"}
README_NETWORK_CONTENDERS = ("fastact C", "accelerated", "PyTorch", "torch.compile", "JAX", "naive NumPy")


NETWORKS_NOTE = (
    "A network is rows x features, with x pieces at each hidden layer of maxout. A training step is forward, "
    "softmax cross-entropy, backward without the input's gradient, and Adam. `accelerated` is PyTorch after "
    "`fastact.torch.accelerate`. `floor` is the sum of the shortest times of fastact's kernels."
)


CLOSEST_NOTE = (
    f"Closest peers: where the fastest of the others takes at most {closest.NEAR:g} times fastact C's time. "
    'Below 1 in "C vs peer", the peer is faster.'
)


def page(results: records.Results, pictures: Mapping[str, str]) -> str:
    """A machine's page: every table, in Markdown, and the pictures: {description: file name}."""
    threads = records.Medians(results["results"]).threads()
    close = closest.closest(results)
    parts = [
        f"# {results['environment']['cpu']}",
        *([CLOSEST_NOTE, closest.markdown(close)] if close else []),
        f"Measured on: {tables.machine_line(results)}",
        tables.versions_table(results),
        tables.missing_line(results).strip().replace("\n", "\n\n"),
        tables.limits_lines(results),
        tables.neighbours_line(results),
        "A shape is rows x in_features x out_features x pieces for linear + maxout, and rows x in_features x "
        'out_features:activation for another activation (the exact gelu, with erf). "C vs best other": how '
        "many times as fast as the fastest of the others fastact C is; below 1 it is slower.",
        "In a forward of maxout fastact and NumPy store the argmax; PyTorch, torch.compile and JAX leave it "
        "out. In a forward of relu and gelu fastact stores y alone, as PyTorch and JAX do. Figures of lower "
        "precision have the relative error of y in brackets; they are no rivals of float32's.",
        "In the pictures work is the arithmetic that the results need: a backward of maxout counts the "
        "winners alone, so that contenders that multiply the losers as well reach less.",
        *(f"![{what}]({name})" for what, name in pictures.items()),
    ]
    for count in threads:
        for layer, shapes in tables.by_layer(TABULATED).items():
            of_layer = list(tables.titled(results, tables.TITLES, count, shapes))
            if of_layer:
                parts.append(f"## {layer.capitalize()}, {tables.threads_text(count)}")
            parts += [f"{title}:\n\n{tables.markdown(content)}" for title, content in of_layer]
    of_networks = list(tables.of_networks(results))
    if of_networks:
        parts += ["## Networks", NETWORKS_NOTE]
    parts += [f"{title}:\n\n{tables.markdown(content)}" for title, content in of_networks]
    return "\n\n".join(part for part in parts if part)


def require_for_readme(results: records.Results) -> None:
    """Raise ValueError where the results are too rough for README."""
    if results.get("quick"):
        raise ValueError("README: got results of a --quick run, wanted those of a full run")
    medians = records.Medians(results["results"])
    compared = {"fastact C", "naive NumPy"}
    missing = [
        str(shape)
        for shape in README_SHAPES
        if shape.activation == MAXOUT and not compared <= medians.at(1, README_MODE, shape).keys()
    ]
    if missing:
        raise ValueError(
            f"README: got results without fastact C and naive NumPy on one thread on {', '.join(missing)}"
        )
    for threads, share in results["neighbours"].items():
        if machine.is_busy(share):
            raise ValueError(
                f"README: got results of a busy machine (others took {share:.1%} of the CPU's time, "
                f"{tables.threads_text(int(threads))}), wanted at most {machine.QUIET_SHARE:.0%}"
            )


def readme_section(results: records.Results, charts: dict[str, str], page_path: str) -> str:
    """README's chart and table; `charts` are the paths of the light and the dark one."""
    medians = records.Medians(results["results"])
    lines = []
    for shape in README_SHAPES:
        times = medians.at(1, README_MODE, shape)
        if "fastact C" in times:
            cells = [tables.microseconds(times[c]) if c in times else "" for c in README_CONTENDERS]
            lines.append([str(shape), shape.layer, *cells])
    about = results["environment"]
    versions = [f"{name} {about['versions'][name]}" for name in README_CONTENDERS.values()]
    header = ["forward + backward, µs", "layer", "fastact", *list(README_CONTENDERS)[1:]]
    networks = records.network_medians(results).get((1, "float32", "step"), {})
    steps = [
        [
            str(network),
            *(tables.microseconds(times[c]) if c in times else "" for c in README_NETWORK_CONTENDERS),
        ]
        for network, times in networks.items()
    ]
    steps_header = ["training step, µs", "fastact", "PyTorch, accelerated", *README_NETWORK_CONTENDERS[2:]]
    return "\n".join(
        [
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{charts["dark"]}">',
            f'  <img alt="Speed as a multiple of that of naive NumPy" src="{charts["light"]}">',
            "</picture>",
            "",
            *([tables.markdown_of(steps_header, steps), ""] if steps else []),
            tables.markdown_of(header, lines),
            "",
            f"Measured on {about['cpu']} (family/model {about['family_model']}), {about['fastact_isa']}, "
            f"1 thread, float32, with {', '.join(versions)}{tables.commits_text(results)}; "
            f"[all results]({page_path}).",
        ]
    )


def write(results: records.Results, path: Path, readme: Path | None = None) -> list[Path]:
    """Write the page and the pictures beside the file of results at `path`, and README's part on demand.

    Returns the files written.  Raises ValueError, before anything is written, where README cannot have it.
    """
    from . import plots

    text = None
    if readme is not None:
        require_for_readme(results)
        charts = {theme: path.with_name(f"{path.stem}-speedup-{theme}.svg") for theme in plots.THEMES}
        linked = {theme: _link(chart, readme) for theme, chart in charts.items()}
        section = readme_section(results, linked, _link(path.with_suffix(".md"), readme))
        text = tables.replace_between_markers(readme.read_text(), "bench", section)
    pictures = {}
    for name, what, draw in (
        ("rates", "Share of the FMA peak by shape", plots.rates),
        ("growth", "Rate or time as rows, features and pieces grow", plots.growth),
        ("networks", "Time of a network's training step and forward against its size", plots.networks),
    ):
        figure = draw(results, 1)
        if figure is not None:
            pictures[what] = plots.save(figure, path.with_name(f"{path.stem}-{name}.svg"))
    described = page(results, {what: picture.name for what, picture in pictures.items()})
    path.with_suffix(".md").write_text(described + "\n")
    written = [*pictures.values(), path.with_suffix(".md")]
    if readme is not None and text is not None:
        for theme, chart in charts.items():
            figure = plots.speedups(results, README_MODE, README_SHAPES, README_CONTENDERS, theme)
            written.append(plots.save(figure, chart))
        readme.write_text(text)
        written.append(readme)
    return written


def _link(path: Path, page_of: Path) -> str:
    """The address of `path` in a link of the page `page_of`."""
    return Path(os.path.relpath(path.resolve(), page_of.resolve().parent)).as_posix()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a file of `python -m fastact bench --out`")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="put the chart and the table between the markers of README.md as well",
    )
    parser.add_argument("--goals", action="store_true", help="print the goals and their outcomes only")
    options = parser.parse_args(arguments)
    try:
        results = records.read(options.file)
        if options.goals:
            print(goals.text(goals.outcomes(results)))
            return 0
        close = closest.closest(results)
        if close:
            print(f"{closest.text(close)}\n")
        for written in write(results, options.file, README if options.readme else None):
            print(f"wrote {written}")
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
