"""Times reproducible results beside the default's: `python -m bench.reproducible`.

Steps of the demo's network, with a dropout, and layers of the benchmark, float32, one thread, on each
instruction set.  Each figure is the median of interleaved rounds.  `--page` writes a page from results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fastact as fa
from fastact import settings
from fastact.backends import c

from . import bits, records, timing

Call = Callable[[], Any]
SECONDS = 2.0  # of the rounds of a row
RESULTS = Path(__file__).parent / "results" / "reproducible.json"
PAGE = Path(__file__).parent / "reproducible.md"

# rows, in_features, out_features, pieces; 1 piece is linear + relu
SHAPES = (
    (64, 288, 96, 3),
    (256, 256, 256, 2),
    (1024, 288, 96, 3),
    (1024, 512, 512, 1),
    (100, 784, 240, 5),
    (256, 64, 64, 1),
    (8, 32, 32, 2),
    (1, 784, 256, 1),
    (1, 1024, 1024, 2),
)


def demo_step() -> Call:
    """A step of training of the demo's network with a dropout, 64 digits a batch."""
    rng = np.random.default_rng(0)
    model = fa.Sequential(
        fa.Maxout(64, 256, pieces=4, rng=rng),
        fa.Dropout(0.5, rng=rng),
        fa.Maxout(256, 256, pieces=4, rng=rng),
        fa.Linear(256, 10, rng=rng),
    )
    optimizer = fa.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, labels = rng.random((64, 64), np.float32), rng.integers(0, 10, 64)

    def step() -> None:
        _, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
        model.backward(grad, needs_input_grad=False)
        optimizer.step()

    return step


def layer_calls(rows: int, in_features: int, out_features: int, pieces: int) -> dict[str, Call]:
    """A layer's forward, and its forward and backward in training."""
    rng = np.random.default_rng(0)
    layer = (
        fa.Maxout(in_features, out_features, pieces=pieces, rng=rng)
        if pieces > 1
        else fa.Linear(in_features, out_features, activation="relu", rng=rng)
    )
    x, grad_y = (rng.standard_normal((rows, size), np.float32) for size in (in_features, out_features))

    def both() -> None:
        layer(x, training=True)
        layer.backward(grad_y)

    name = f"{rows}x{in_features}x{out_features}" + (f"x{pieces}" if pieces > 1 else ":relu")
    return {f"{name} forward": lambda: layer(x), f"{name} both": both}


def contenders() -> dict[str, Call]:
    """Every row of the table."""
    found = {"demo step": demo_step()}
    for shape in SHAPES:
        found |= layer_calls(*shape)
    return found


def measure(isas: Iterable[str], names: Iterable[str]) -> list[dict[str, Any]]:
    """A record for each instruction set and row."""

    def within(call: Call, mode: int) -> Call:
        def run() -> None:
            settings.set_default_mode(mode)
            call()

        return run

    calls = contenders()
    rows = [(isa, name) for isa in isas for name in names]
    found = []
    for isa, name in track(rows, description="rows", console=Console(stderr=True)):
        with bits.chosen(f"c-{isa}"), fa.num_threads(1):
            modes = {"default": 0, "reproducible": settings.REPRODUCIBLE}
            pair = {key: within(calls[name], mode) for key, mode in modes.items()}
            times = timing.interleaved(pair, SECONDS)
        settings.set_default_mode(0)
        found.append({"isa": isa, "row": name} | {mode: sample.p50 for mode, sample in times.items()})
    return found


def _table(found: Iterable[dict[str, Any]]) -> Table:
    table = Table(title="us a call, one thread")
    for heading in ("isa", "row"):
        table.add_column(heading)
    for heading in ("default", "reproducible", "ratio"):
        table.add_column(heading, justify="right")
    for each in found:
        ratio = each["reproducible"] / each["default"]
        table.add_row(
            each["isa"], each["row"], f"{each['default']:.1f}", f"{each['reproducible']:.1f}", f"{ratio:.2f}"
        )
    return table


def page(results: dict[str, Any]) -> str:
    """The page of a file of results."""
    lines = [
        "# The cost of reproducible results",
        "",
        f"Written by `python -m bench.reproducible --page` from [{RESULTS.name}](results/{RESULTS.name}): "
        f"{results['environment']['cpu']}, {results['date'][:10]}. Times are medians of interleaved rounds "
        "on one thread, in microseconds; the ratio is that of reproducible results to the default.",
    ]
    for isa in dict.fromkeys(each["isa"] for each in results["rows"]):
        lines += ["", f"## {isa}", "", "| call | default | reproducible | ratio |", "|---|---:|---:|---:|"]
        for each in results["rows"]:
            if each["isa"] == isa:
                ratio = each["reproducible"] / each["default"]
                times = f"{each['default']:.4g} | {each['reproducible']:.4g} | {ratio:.2f}"
                lines.append(f"| {each['row']} | {times} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reproducible", description=__doc__.splitlines()[0])
    vector = [isa for isa in c.supported_isas() if isa != "scalar"]
    names = list(contenders())
    parser.add_argument(
        "--isa", nargs="+", choices=c.supported_isas(), default=vector, help="default: all but scalar"
    )
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help="default: all")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} from {RESULTS.name} instead")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    if options.page:
        PAGE.write_text(page(json.loads(RESULTS.read_text())))
        return 0
    records.check_option(parser, options.out, ("rows",))
    found = measure(options.isa, options.rows)
    Console().print(_table(found))
    records.save(options.out, {"rows": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
