"""Pictures of the results: shares of the machine's peak, how cost grows, networks, README's speed-ups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastact.study import style

from .goals import useful_flop
from .networks import DTYPES, Network
from .records import Medians, Results, network_medians
from .shapes import FEATURES, LINEAR, MAIN, MAXOUT, PIECES, ROWS, Shape
from .tables import FLOOR, NETWORK_TITLES

# float32 contenders: colour and marker; fastact's are the strongest
STYLES = {
    "fastact C": (style.VERMILION, "o"),
    "fastact Numba": (style.ORANGE, "s"),
    "naive NumPy": ("#bbbbbb", "<"),
    "NumPy": (style.GREY, "v"),
    "PyTorch": (style.BLUE, "^"),
    "torch.compile": (style.SKY, "D"),
    "Thinc": (style.PURPLE, "P"),
    "JAX": (style.GREEN, "X"),
}
# the same of networks; the floor has no marker
NETWORK_STYLES: dict[str, tuple[str, str | None]] = {
    "fastact C": STYLES["fastact C"],
    "fastact C frozen": ("#8c2d04", "p"),
    "accelerated": STYLES["fastact Numba"],
    **{name: STYLES[name] for name in ("PyTorch", "torch.compile", "JAX", "naive NumPy")},
    "torch.compile frozen": ("#08519c", "d"),
    "scikit-learn": STYLES["Thinc"],
    FLOOR: ("black", None),
}
WIDTH = 8.3  # inches; 830 px at README's width
_MODES = {"forward": "Forward", "forward_backward": "Forward + backward"}
# colours of text and lines on README's page, which may be light or dark
THEMES: dict[str, dict[str, Any]] = {
    "light": {"text": "#1f2328", "lines": "#d1d9e0", "NumPy": "#8c959f"},
    "dark": {"text": "#e6edf3", "lines": "#3d444d", "NumPy": "#9198a1"},
}


def sizes(shape: Shape) -> str:
    """The sizes of `shape` in the order in which data passes: rows x in_features → out_features x pieces."""
    end = f" x {shape.pieces}" if shape.activation == MAXOUT else ""
    return f"{shape.rows} x {shape.in_features} → {shape.out_features}{end}"


def rates(results: Results, threads: int) -> Figure | None:
    """Shares of the FMA peak that the useful arithmetic of each shape reaches, or None without a peak.

    A row for each shape, a marker for each float32 contender; one panel for each layer and mode measured.
    """
    medians, limits = Medians(results["results"]), results["limits"].get(str(threads))
    groups = {
        title: shapes
        for title, wanted in (
            ("Linear + maxout", MAIN),
            ("Linear + ReLU", [shape for shape in LINEAR if shape.activation == "relu"]),
            ("Linear + GELU", [shape for shape in LINEAR if shape.activation == "gelu"]),
        )
        if (shapes := medians.shapes(threads, "forward", wanted))
    }
    if not limits or not groups:
        return None
    heights = [len(shapes) + 1.2 for shapes in groups.values()]
    with plt.rc_context(style.STYLE):
        figure, grid = plt.subplots(
            *(len(groups), 2),
            figsize=(WIDTH, 1.2 + 0.32 * sum(heights)),
            sharex=True,
            squeeze=False,
            layout="constrained",
            height_ratios=heights,
        )
        for line, (title, shapes) in zip(grid, groups.items(), strict=True):
            for axes, mode in zip(line, _MODES, strict=True):
                _draw_shares(axes, medians, threads, mode, shapes, limits["register_fma_gflops"])
                axes.set_title(_MODES[mode])
            line[0].set_title(f"{title}: {_MODES['forward'].lower()}")
            line[0].set_yticks(range(len(shapes)), [sizes(shape) for shape in shapes])
            line[1].set_yticks(range(len(shapes)), [])
        for axes in grid[-1]:
            axes.set_xlabel(f"% of the FMA peak, {limits['register_fma_gflops']:.0f} GFLOP/s")
        _legend(figure, grid[0][1], columns=4)
        _name_machine(figure, results, threads)
    return figure


def _draw_shares(
    axes: Axes, medians: Medians, threads: int, mode: str, shapes: Sequence[Shape], peak: float
) -> None:
    for name, (colour, marker) in STYLES.items():
        points = [
            (100 * useful_flop(mode, shape) / time / 1e3 / peak, row)
            for row, shape in enumerate(shapes)
            if (time := medians.at(threads, mode, shape).get(name))
        ]
        front = name == "fastact C"
        axes.scatter(
            *zip(*points, strict=True) if points else ((), ()),
            s=64 if front else 32,
            color=colour,
            marker=marker,
            zorder=4 if front else 3,
            label=name,
            clip_on=False,
        )
    axes.axvline(100, color="black", linewidth=1.2)  # AMX's tiles may pass it, in float32 as well
    axes.set_xlim(left=0)
    axes.set_ylim(len(shapes) - 0.5, -0.5)


_SWEEPS: dict[str, tuple[tuple[Shape, ...], int, str]] = {
    "rows": (ROWS, 0, "rows (288 → 96 x 3)"),
    "features": (FEATURES, 1, "in_features = out_features (256 rows, 2 pieces)"),
    "pieces": (PIECES, 3, "pieces (256 rows, 288 → 96)"),
}


def growth(results: Results, threads: int) -> Figure | None:
    """Rate as rows and features grow, and time as pieces grow; None where no whole sweep was measured."""
    medians = Medians(results["results"])
    sweeps = [
        name
        for name, (shapes, _, _) in _SWEEPS.items()
        if len(medians.shapes(threads, "forward", shapes)) == len(shapes)
    ]
    if not sweeps:
        return None
    with plt.rc_context(style.STYLE):
        figure, grid = plt.subplots(
            *(len(sweeps), 2), figsize=(WIDTH, 0.9 + 2.7 * len(sweeps)), squeeze=False, layout="constrained"
        )
        for line, name in zip(grid, sweeps, strict=True):
            for axes, mode in zip(line, _MODES, strict=True):
                _draw_sweep(axes, medians, threads, mode, name)
                axes.set_title(f"{_MODES[mode]}: {name}")
        _legend(figure, grid[0][0], columns=4)
        _name_machine(figure, results, threads)
    return figure


def _draw_sweep(axes: Axes, medians: Medians, threads: int, mode: str, name: str) -> None:
    shapes, size, label = _SWEEPS[name]
    in_time = name == "pieces"
    for contender, (colour, marker) in STYLES.items():
        points = [
            (shape[size], time / 1e3 if in_time else useful_flop(mode, shape) / time / 1e3)
            for shape in shapes
            if (time := medians.at(threads, mode, shape).get(contender))
        ]
        if len(points) < len(shapes):  # not measured in the whole sweep
            continue
        front = contender.startswith("fastact")
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.2 if front else 1.3,
            zorder=3 if front else 2,
            label=contender,
        )
    values = [int(shape[size]) for shape in shapes]
    axes.set_xlabel(label)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.set_ylim(bottom=0)
    if in_time:
        axes.set_xticks(values)
        axes.set_ylabel("ms")
    else:
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
        axes.set_ylabel("GFLOP/s")


def speedups(
    results: Results, mode: str, shapes: Iterable[Shape], contenders: Iterable[str], theme: str
) -> Figure:
    """How many times as fast as naive NumPy some contenders are, on one thread; README's chart.

    The background is transparent, `theme` one of THEMES.
    """
    medians, colours = Medians(results["results"]), THEMES[theme]
    bars = {name: STYLES[name][0] for name in contenders} | {"naive NumPy": colours["NumPy"]}
    groups = [
        (title, found)
        for title, maxout in (("Linear + maxout", True), ("Linear + ReLU", False))
        if (
            found := [
                shape
                for shape in shapes
                if (shape.activation == MAXOUT) == maxout and "naive NumPy" in medians.at(1, mode, shape)
            ]
        )
    ]
    text = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours["text"])
    lines = {"grid.color": colours["lines"], "axes.edgecolor": colours["lines"], "axes.facecolor": "none"}
    with plt.rc_context(style.STYLE | text | lines):
        figure, panels = plt.subplots(
            *(1, len(groups)),
            figsize=(WIDTH, 3.4),
            sharey=True,
            squeeze=False,
            layout="constrained",
            width_ratios=[len(found) for _, found in groups],
        )
        figure.patch.set_alpha(0)
        for axes, (title, found) in zip(panels[0], groups, strict=True):
            _draw_speedups(axes, medians, mode, found, bars)
            axes.set_title(title)
        panels[0][0].set_ylabel("times as fast as naive NumPy")
        _legend(figure, panels[0][0], columns=len(bars))
    return figure


def _draw_speedups(
    axes: Axes, medians: Medians, mode: str, shapes: Sequence[Shape], bars: dict[str, str]
) -> None:
    width = 0.8 / len(bars)
    for place, (name, colour) in enumerate(bars.items()):
        ratios = []
        for shape in shapes:
            times = medians.at(1, mode, shape)
            ratios.append(times["naive NumPy"] / times[name] if name in times else float("nan"))
        offset = (place - (len(bars) - 1) / 2) * width
        label = "fastact" if name == "fastact C" else name
        drawn = axes.bar([i + offset for i in range(len(shapes))], ratios, width, color=colour, label=label)
        if name == "fastact C":
            axes.bar_label(drawn, [f"{ratio:.1f}" for ratio in ratios], padding=1, fontsize=9)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.08)  # room for the numbers
    axes.set_xticks(range(len(shapes)), [sizes(shape).replace(" → ", "\n→ ") for shape in shapes], fontsize=8)
    axes.tick_params(axis="x", length=0)


def networks(results: Results, threads: int) -> Figure | None:
    """Microseconds against the multiply-adds of a forward, a panel for each mode and dtype measured.

    None where no network was measured.
    """
    medians = network_medians(results)
    keys = [(mode, dtype) for mode in NETWORK_TITLES for dtype in DTYPES if (threads, dtype, mode) in medians]
    modes, dtypes = (list(dict.fromkeys(key[i] for key in keys)) for i in range(2))
    if not keys:
        return None
    with plt.rc_context(style.STYLE):
        figure, grid = plt.subplots(
            *(len(modes), len(dtypes)),
            figsize=(WIDTH, 1.1 + 3.1 * len(modes)),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for line, mode in zip(grid, modes, strict=True):
            for axes, dtype in zip(line, dtypes, strict=True):
                _draw_networks(axes, medians.get((threads, dtype, mode), {}))
                axes.set_title(f"{NETWORK_TITLES[mode]}, {dtype}")
            line[0].set_ylabel("µs")
        for axes in grid[-1]:
            axes.set_xlabel("multiply-adds of a forward")
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        names = [name for name in NETWORK_STYLES if name in handles]
        figure.legend([handles[name] for name in names], names, loc="outside upper center", ncols=5)
        _name_machine(figure, results, threads, None)
    return figure


def _draw_networks(axes: Axes, times: Mapping[Network, Mapping[str, float]]) -> None:
    measured = sorted(times, key=lambda network: network.multiply_adds)
    for name, (colour, marker) in NETWORK_STYLES.items():
        points = [
            (network.multiply_adds, times[network][name]) for network in measured if name in times[network]
        ]
        if not points:
            continue
        front = name == "fastact C"
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=marker,
            markersize=6 if front else 4.5,
            linewidth=2.2 if front else 1.3,
            linestyle="--" if name == FLOOR else "-",
            zorder=4 if front else 3,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


def _name_machine(figure: Figure, results: Results, threads: int, dtype: str | None = "float32") -> None:
    about = results["environment"]
    isa = about["fastact_isa"] or "no C extension"
    unit = "1 thread" if threads == 1 else f"{threads} threads"
    parts = [about["cpu"], isa, unit, *([] if dtype is None else [dtype])]
    figure.supxlabel(", ".join(parts), fontsize=9, x=0.99, ha="right")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as SVG, the same file for the same results; returns `path`."""
    with plt.rc_context(style.STYLE):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
