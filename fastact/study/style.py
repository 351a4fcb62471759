"""How the figures look."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart
BLUE, SKY, GREEN, ORANGE = "#0072b2", "#56b4e9", "#009e73", "#e69f00"
VERMILION, PURPLE, GREY, BLACK = "#d55e00", "#cc79a7", "#8c8c8c", "#222222"
PIECES = (BLUE, ORANGE, GREEN, PURPLE, SKY)  # one colour a piece

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
    "font.size": 10,
    "svg.hashsalt": "fastact",  # the same results make the same file
    "svg.fonttype": "none",  # text stays text
}


def use() -> None:
    plt.rcParams.update(STYLE)


def bare(axes: Axes) -> None:
    """Remove the ticks and the grid."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
