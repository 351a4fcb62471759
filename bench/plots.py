"""Pictures of the results: rates against the machine's limits, and how cost grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from .records import Medians, Results
from .shapes import FEATURES, MAIN, PIECES, ROWS, Shape
from .tables import LOWER_PRECISION

# Okabe and Ito's palette, which colour-blind readers can tell apart; fastact's are the strongest
STYLES = {
    "fastact C": ("#d55e00", "o"),
    "fastact C high": ("#a63603", "h"),
    "fastact C medium": ("#7f0000", "*"),
    "fastact Numba": ("#e69f00", "s"),
    "naive NumPy": ("#cccccc", "<"),
    "NumPy": ("#888888", "v"),
    "PyTorch": ("#0072b2", "^"),
    "torch.compile": ("#56b4e9", "D"),
    "Thinc": ("#cc79a7", "P"),
    "JAX": ("#009e73", "X"),
}
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "font.size": 10,
    "svg.hashsalt": "fastact",  # the same results make the same file
}
DENSE_PRODUCTS = {"forward": 1, "forward_backward": 3}  # what a framework without fusion multiplies
_TITLES = {"forward": "Forward", "forward_backward": "Forward + backward"}


def roofline(shape: Shape, peak: float, bandwidth: float) -> float:
    """GFLOP/s that a forward can reach if its arrays come from memory once, at `bandwidth` GB/s."""
    rows, in_features, out_features, _ = shape
    weights = shape.units * (in_features + 1)
    moved = 4 * (rows * in_features + weights + rows * out_features) + rows * out_features  # argmax: bytes
    return min(peak, bandwidth * shape.dense_flop / moved)


def rates(results: Results, threads: int) -> Figure:
    """GFLOP/s by shape, forward and forward + backward, under the measured limits.

    Each precision tier's bar has its error above it.
    """
    medians = Medians(results["results"])
    limits = results["limits"].get(str(threads))
    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(2, 1, figsize=(11, 8.5), sharex=True, layout="constrained")
        for axes, mode in zip(panels, DENSE_PRODUCTS, strict=True):
            shapes = medians.shapes(threads, mode, MAIN)
            _draw_rates(axes, medians, threads, mode, shapes)
            if limits:
                _draw_limits(axes, mode, shapes, limits)
            axes.set_ylabel("GFLOP/s, dense work")
            axes.set_title(_TITLES[mode])
            axes.margins(y=0.12)  # room for the errors
            axes.set_ylim(bottom=0)
            axes.set_xlim(-0.6, len(shapes) - 0.4)
            axes.set_xticks(range(len(shapes)), [_two_lines(shape) for shape in shapes])
        panels[1].set_xlabel(
            "rows x in_features x out_features x pieces; above a precision tier's bar the relative error of y"
        )
        handles, labels = panels[0].get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: labels[i] not in STYLES)  # the limits last
        figure.legend(
            [handles[i] for i in order], [labels[i] for i in order], loc="outside upper center", ncols=5
        )
        _name_machine(figure, results, threads)
    return figure


def _draw_rates(axes: Axes, medians: Medians, threads: int, mode: str, shapes: Sequence[Shape]) -> None:
    width = 0.8 / len(STYLES)
    for place, (name, (colour, _)) in enumerate(STYLES.items()):
        heights = []
        for shape in shapes:
            time = medians.at(threads, mode, shape).get(name)
            flop = shape.dense_flop * DENSE_PRODUCTS[mode]
            heights.append(flop / time / 1e3 if time else 0.0)
        if not any(heights):
            continue
        offset = (place - (len(STYLES) - 1) / 2) * width
        bars = axes.bar([i + offset for i in range(len(shapes))], heights, width, color=colour, label=name)
        if name == "fastact C" or name.endswith(LOWER_PRECISION):
            errors = [
                f"{medians.norm_error(mode, shape, name):.0e}" if height else ""
                for shape, height in zip(shapes, heights, strict=True)
            ]
            axes.bar_label(bars, errors, rotation=90, padding=2, fontsize=6.5)
    axes.grid(axis="x", visible=False)


def _draw_limits(axes: Axes, mode: str, shapes: Sequence[Shape], limits: dict[str, float]) -> None:
    peak, bandwidth = limits["register_fma_gflops"], limits["read_gbytes"]
    axes.axhline(peak, color="black", linewidth=1.2, label=f"FMA peak, {peak:.0f} GFLOP/s")
    for i, shape in enumerate(shapes):
        if mode == "forward":
            height = roofline(shape, peak, bandwidth)
            label = f"memory roofline, {bandwidth:.0f} GB/s (cached data may pass it)" if i == 0 else "_"
            axes.hlines(height, i - 0.45, i + 0.45, color="black", linestyle=":", linewidth=2, label=label)
        else:  # winners alone need less than the dense work that is counted
            height = peak * 3 / (1 + 2 / shape.pieces)
            axes.hlines(height, i - 0.45, i + 0.45, color="black", linestyle="--", linewidth=1.2)
    if mode == "forward_backward":
        axes.annotate(
            "dashes: FMA peak when losers cost nothing",
            (1, 1.02),
            xycoords="axes fraction",
            ha="right",
            fontsize=9,
        )


def _two_lines(shape: Shape) -> str:
    return f"{shape.rows} x {shape.in_features}\nx {shape.out_features} x {shape.pieces}"


_SWEEPS: dict[str, tuple[tuple[Shape, ...], int, str]] = {
    "rows": (ROWS, 0, "rows (288 x 96, 3 pieces)"),
    "features": (FEATURES, 1, "in_features = out_features (256 rows, 2 pieces)"),
    "pieces": (PIECES, 3, "pieces (256 rows, 288 x 96)"),
}


def growth(results: Results, threads: int) -> Figure:
    """Cost as rows, features and pieces grow, forward and forward + backward."""
    medians = Medians(results["results"])
    with plt.rc_context(_STYLE):
        figure, grid = plt.subplots(2, 3, figsize=(12, 7.5), sharex="col", layout="constrained")
        for line, mode in zip(grid, DENSE_PRODUCTS, strict=True):
            for axes, name in zip(line, _SWEEPS, strict=True):
                _draw_sweep(axes, medians, threads, mode, name)
                axes.set_title(f"{_TITLES[mode]}: {name}")
        for axes, (_, _, label) in zip(grid[1], _SWEEPS.values(), strict=True):
            axes.set_xlabel(label)
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
        _name_machine(figure, results, threads)
    return figure


def _draw_sweep(axes: Axes, medians: Medians, threads: int, mode: str, name: str) -> None:
    shapes, size, _ = _SWEEPS[name]
    found = medians.shapes(threads, mode, shapes)
    in_time = name == "pieces"  # else in time for the work, where a flat line is a constant rate
    for contender, (colour, marker) in STYLES.items():
        times = [medians.at(threads, mode, shape).get(contender) for shape in found]
        if not found or None in times:
            continue
        heights = [
            time if in_time else 1e6 * time / (shape.dense_flop / 2 * DENSE_PRODUCTS[mode])
            for time, shape in zip(times, found, strict=True)
            if time is not None
        ]
        front = contender.startswith("fastact")
        axes.plot(
            [shape[size] for shape in found],
            heights,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.2 if front else 1.3,
            zorder=3 if front else 2,
            label=contender,
        )
    values = [shape[size] for shape in found]
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}")
    if in_time:
        axes.yaxis.set_major_formatter(plain)
        axes.set_ylim(bottom=0)
        axes.set_xticks(values)
        axes.set_ylabel("µs")
    else:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(values, [str(value) for value in values], rotation=45)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(plain)
        axes.minorticks_off()
        axes.set_ylabel("ps a dense multiply-add")


def _name_machine(figure: Figure, results: Results, threads: int) -> None:
    about = results["environment"]
    isa = about["fastact_isa"] or "no C extension"
    unit = "1 thread" if threads == 1 else f"{threads} threads"
    figure.supxlabel(f"{about['cpu']}, {isa}, {unit}, float32", fontsize=9, x=0.99, ha="right")


def save(figure: Figure, path: Path) -> None:
    """Write `path` as PNG and as SVG."""
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
