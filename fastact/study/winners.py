"""Winners and losers: which pieces win while a network trains, and the linear regions that they make."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from .. import Maxout, Sequential, linear_maxout, piece_usage, region_boundaries
from .data import Digits, load_digits
from .digits_network import PIECES, WIDTH, fit
from .findings import Advance, Findings, Options, Picture, Table
from .style import BLUE, GREY, ORANGE, VERMILION, bare

Array = np.ndarray[Any, Any]

EPOCHS = 30
LINES = 20  # between pairs of test digits
GRID = 500  # points along each side of the picture of the regions


def rank_shares(model: Sequential, x: Array) -> tuple[Array, float]:
    """The mean shares of wins of a unit's pieces, strongest first, and the share of pieces that never win."""
    usage = np.concatenate(list(piece_usage(model, x).values()))  # (units, pieces)
    return np.sort(usage, axis=1)[:, ::-1].mean(axis=0), float(np.mean(usage == 0))


class _Watcher:
    """Records which pieces win and which get a gradient, epoch by epoch."""

    def __init__(self, digits: Digits, seed: int) -> None:
        self.digits = digits
        pairs = np.random.default_rng(seed).choice(len(digits.x_test), (LINES, 2), replace=False)
        self.pairs = digits.x_test[pairs]  # (LINES, 2, pixels)
        self.rows: list[tuple[Any, ...]] = []
        self._touched: list[Array] = []

    def after_step(self, model: Sequential) -> None:
        grads = [np.abs(layer.weight.grad).sum(axis=2) > 0 for layer in model.layers[:-1]]  # type: ignore
        self._touched = [a | b for a, b in zip(self._touched, grads, strict=True)] if self._touched else grads

    def after_epoch(self, model: Sequential) -> None:
        shares, never = rank_shares(model, self.digits.x_train)
        touched = float(np.mean(np.concatenate(self._touched))) if self._touched else float("nan")
        regions = [1 + len(region_boundaries(model, a, b)) for a, b in self.pairs]
        predicted = model(self.digits.x_test).argmax(axis=1)
        accuracy = float(np.mean(predicted == self.digits.labels_test))
        epoch = len(self.rows)
        self.rows.append((epoch, *shares.tolist(), never, touched, float(np.mean(regions)), accuracy))
        self._touched = []


COLUMNS = (
    "epoch",
    *(f"share_of_rank_{k + 1}" for k in range(PIECES)),
    "never_win",
    "got_a_gradient",
    "regions_on_a_line",
    "test_accuracy",
)


def steps(options: Options) -> int:
    return 2


def run(options: Options, advance: Advance) -> Findings:
    advance("winners and losers: training")
    digits = load_digits(options.seed)
    watcher = _Watcher(digits, options.seed)
    before, after = fit(digits, EPOCHS, options.seed, watcher.after_step, watcher.after_epoch)
    last = dict(zip(COLUMNS, watcher.rows[-1], strict=True))
    advance("winners and losers: the linear regions")
    return Findings(
        "Winners and losers",
        "胜者与败者",
        {"winners": _course(watcher.rows), "regions": _regions(before, after, digits)},
        {"winners": Table(COLUMNS, watcher.rows)},
        [
            f"In a trained maxout network {last['never_win']:.1%} of the pieces never win; a unit's "
            f"strongest piece wins for {last['share_of_rank_1']:.0%} of the digits."
        ],
    )


def _course(rows: list[tuple[Any, ...]]) -> Picture:
    values = {name: np.array(column) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
    epoch = values["epoch"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    edges = np.zeros(len(epoch))
    for k, colour in enumerate(("#08519c", "#3182bd", "#6baed6", "#bdd7e7")):
        top = edges + 100 * values[f"share_of_rank_{k + 1}"]
        left.fill_between(epoch, edges, top, color=colour, lw=0)
        middle_of = (edges[-1] + top[-1]) / 2
        name = ("strongest piece", "second", "third, and above it the weakest", "")[k]
        left.text(
            epoch[-1] * 0.97, middle_of, name, color="white" if k < 2 else "black", ha="right", va="center"
        )
        edges = top
    left.set(title="Share of wins, %", xlabel="epoch", ylim=(0, 100), xlim=(0, epoch[-1]))
    left.grid(False)
    middle.plot(epoch, 100 * values["got_a_gradient"], color=BLUE, marker="o", ms=3)
    middle.plot(epoch, 100 * values["never_win"], color=VERMILION, marker="s", ms=3)
    middle.axhline(100 / PIECES, color=GREY, ls=":", lw=1)
    middle.text(
        epoch[-1],
        100 * values["got_a_gradient"][-1] - 3,
        "got a gradient in the epoch",
        color=BLUE,
        ha="right",
        va="top",
    )
    middle.text(
        epoch[-1], 100 * values["never_win"][-1] + 3, "never win", color=VERMILION, ha="right", va="bottom"
    )
    middle.text(
        epoch[-1], 100 / PIECES + 2, "got one from a single sample", color=GREY, ha="right", va="bottom"
    )
    middle.set(title="Pieces, %", xlabel="epoch", ylim=(0, 104))
    right.plot(epoch, values["regions_on_a_line"], color=ORANGE, marker="o", ms=3)
    right.set(title="Linear regions between two digits", xlabel="epoch")
    right.set_ylim(bottom=0)
    strongest, never, touched, regions = (
        values[name][-1] for name in ("share_of_rank_1", "never_win", "got_a_gradient", "regions_on_a_line")
    )
    regions_before = values["regions_on_a_line"][0]
    return Picture(
        figure,
        f"Two maxout layers of {WIDTH} units with {PIECES} pieces, on digits. "
        f"One sample trains one piece of each unit, 1 of {PIECES}. "
        f"Other samples have other winners: over the last epoch {touched:.0%} of the pieces get a gradient. "
        "Left: the shares of the samples for which a unit's strongest, second, third and weakest piece win. "
        f"At the end the strongest wins for {strongest:.0%} of the training digits. "
        f"Middle: at the end {never:.1%} of the pieces never win for any training digit. "
        f"Right: a straight line from one test digit to another crosses {regions:.0f} linear regions, "
        f"{regions_before:.0f} before training; means over {LINES} lines, counted exactly.",
        f"两层 maxout,每层 {WIDTH} 个单元、每个单元 {PIECES} 段,数据为数字图像。"
        f"一个样本在每个单元的 {PIECES} 段中只训练胜出的一段。"
        f"不同样本的胜者不同:最后一个周期中 {touched:.0%} 的段得到过梯度。"
        "左图:每个单元中最强、第二、第三和最弱的一段各在多少样本上胜出。"
        f"训练结束时,最强的一段在 {strongest:.0%} 的训练样本上胜出。"
        f"中图:训练结束时,{never:.1%} 的段在所有训练样本上都不胜出。"
        f"右图:从一个测试数字到另一个的直线穿过 {regions:.0f} 个线性区域,训练前为 {regions_before:.0f} 个;"
        f"为 {LINES} 条直线的平均,精确计数。",
    )


def _regions(before: Sequential, after: Sequential, digits: Digits) -> Picture:
    """The plane through three test digits, with the lines at which another piece wins."""
    corners = np.stack([digits.x_test[digits.labels_test == label][0] for label in (0, 1, 7)])
    u = np.linspace(-0.6, 1.6, GRID, dtype=np.float32)
    a, b = np.meshgrid(u, u)
    plane = corners[0] + a[..., np.newaxis] * (corners[1] - corners[0])
    plane = plane + b[..., np.newaxis] * (corners[2] - corners[0])
    figure, panels = plt.subplots(1, 2, figsize=(10, 5.2), layout="constrained")
    for axes, model, title in zip(
        panels, (before, after), ("Before training", "After training"), strict=True
    ):
        first, second, decision = _edges(model, plane)
        image = np.where(decision, 3, np.where(first, 1, np.where(second, 2, 0)))
        axes.imshow(
            image,
            origin="lower",
            extent=(u[0], u[-1], u[0], u[-1]),
            cmap=ListedColormap(["#ffffff", BLUE, "#9ecae1", VERMILION]),
            vmin=0,
            vmax=3,
            interpolation="nearest",
        )
        for (x, y), digit in zip(((0, 0), (1, 0), (0, 1)), "017", strict=True):
            axes.text(x, y, digit, ha="center", va="center", fontsize=13, fontweight="bold").set_bbox(
                {"boxstyle": "circle", "facecolor": "white", "edgecolor": "black"}
            )
        axes.set_title(title)
        bare(axes)
    for colour, meaning in (
        (BLUE, "another piece wins in layer 1"),
        ("#9ecae1", "another piece wins in layer 2"),
        (VERMILION, "the predicted digit changes"),
    ):
        panels[0].plot([], [], color=colour, lw=3, label=meaning)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return Picture(
        figure,
        "The plane through three test digits, a 0, a 1 and a 7. "
        "On each white patch the network is one linear map. "
        "At a dark blue line another piece wins in the first layer; these lines are straight. "
        "At a light blue line another piece wins in the second layer; these lines bend where they cross a "
        "dark blue one. "
        "At an orange line the predicted digit changes.",
        "经过三个测试数字(0、1、7)的平面。在每一块白色区域内,网络就是一个线性映射。"
        "深蓝线处第一层换了胜出的段,这些线是直的。浅蓝线处第二层换了胜出的段,它们在穿过深蓝线时转折。"
        "橙色线处预测的数字改变。",
    )


def _edges(model: Sequential, plane: Array) -> tuple[Array, Array, Array]:
    """The points of which a neighbour has another winner in layer 1, in layer 2, or another prediction."""
    edges = []
    y = plane
    for layer in model.layers[:-1]:
        assert isinstance(layer, Maxout)
        assert layer.bias is not None
        y, argmax = linear_maxout(y, layer.weight.data, layer.bias.data)
        edges.append(_changes(argmax))
    predicted = model.layers[-1](y).argmax(axis=-1)[..., np.newaxis]
    first, second = edges
    return first, second, _changes(predicted)


def _changes(values: Array) -> Array:
    here = values[:-1, :-1]
    right, above = values[:-1, 1:], values[1:, :-1]
    return np.asarray(((here != right) | (here != above)).any(axis=-1))
