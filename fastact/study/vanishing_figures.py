"""The pictures of the vanishing gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .findings import Picture
from .style import BLACK, BLUE, GREEN, GREY, PURPLE, SKY, VERMILION

Values = Mapping[str, Sequence[float] | np.ndarray[Any, Any]]

# colour, line, marker; the three maxouts share a colour
LINES = {
    "sigmoid": (BLACK, "-", "o"),
    "tanh": (GREY, "-", "s"),
    "relu": (BLUE, "-", "^"),
    "leaky_relu": (SKY, "--", "v"),
    "prelu": (GREEN, "-", "D"),
    "elu": (PURPLE, "-", "P"),
    "maxout 2": (VERMILION, "-", "o"),
    "maxout 3": (VERMILION, "--", "s"),
    "maxout 5": (VERMILION, ":", "X"),
}
LABELS = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "prelu": "PReLU", "elu": "ELU"}


def _label(name: str) -> str:
    return f"{name} pieces" if name.startswith("maxout") else LABELS.get(name, name)


def _panels() -> tuple[Figure, Any]:
    return plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")


def _lines(axes: Axes, x: Sequence[float], values: Values) -> None:
    for name, y in values.items():
        colour, line, marker = LINES[name]
        axes.plot(x, y, line, color=colour, marker=marker, ms=5, lw=1.6, label=_label(name))
    axes.set_yscale("log")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")


def depth(ratios: Mapping[tuple[str, int], float], moves: Mapping[tuple[str, int], float]) -> Picture:
    depths = sorted({depth for _, depth in ratios})
    figure, (left, right) = _panels()
    _lines(left, depths, {name: [ratios[name, d] for d in depths] for name in LINES})
    left.plot(
        depths, [0.25 ** (d - 1) for d in depths], color=GREY, lw=1, ls=(0, (1, 3)), label="0.25 a layer"
    )
    left.set(title="Gradient at the first layer / at the last", xlabel="hidden layers", xticks=depths)
    _lines(right, depths, {name: [moves[name, d] for d in depths] for name in LINES})
    right.set(title="How far 0.1% of the first weights moves the loss", xlabel="hidden layers", xticks=depths)
    right.set_ylabel("relative change of the loss")
    _legend(figure, left)
    d = depths[-1]
    return Picture(
        figure,
        "At the start of training, before any step. Left: the norm of the loss's gradient at the first "
        "hidden layer's output, divided by that at the last, against depth. A sigmoid's derivative is "
        "at most 0.25, so each layer takes a factor of 4 (the dotted line) or more, unless its weights "
        f"make up for it; Glorot's do not: at 10 layers {ratios['sigmoid', 10]:.1e} is left, at {d} layers "
        f"{ratios['sigmoid', d]:.1e}. Tanh keeps {ratios['tanh', d]:.2f} at {d} layers, ReLU "
        f"{ratios['relu', d]:.2f}, ELU lets it grow to {ratios['elu', d]:.1f}. Maxout with its own "
        f"initialisation keeps {ratios['maxout 2', d]:.2f} with 2 pieces, {ratios['maxout 3', d]:.2f} "
        f"with 3 and {ratios['maxout 5', d]:.2f} with 5: more pieces are only a partial cure, because "
        "that initialisation keeps the size of the signal on its way forward, and the gradient pays for "
        "it. Right: the same seen from the loss, which a small random change of the first layer's "
        "weights hardly moves through sigmoids; 1e-16 is what float64 can resolve. Medians over 5 seeds.",
        "训练开始之前。左图:损失对第一个隐藏层输出的梯度范数,除以对最后一个隐藏层输出的梯度范数,随深度的"
        "变化。sigmoid 的导数最大只有 0.25,所以除非权重补偿,每层至少缩小到四分之一(虚线);Glorot 初始化补"
        f"偿不了:10 层只剩 {ratios['sigmoid', 10]:.1e},{d} 层只剩 {ratios['sigmoid', d]:.1e}。{d} 层时 "
        f"tanh 保留 {ratios['tanh', d]:.2f},ReLU 保留 {ratios['relu', d]:.2f},ELU 则增大到 "
        f"{ratios['elu', d]:.1f}。采用专用初始化的 maxout,2 段保留 {ratios['maxout 2', d]:.2f},3 段 "
        f"{ratios['maxout 3', d]:.2f},5 段 {ratios['maxout 5', d]:.2f}:段数多时只能部分解决问题,因为该初"
        "始化保持的是前向信号的大小,代价由梯度承担。右图:从损失的角度看同一件事,稍微改动第一层的权重,经"
        "过多层 sigmoid 之后损失几乎不变(1e-16 已是 float64 的分辨极限)。均为 5 个随机种子的中位数。",
    )


def layers(start: Values, trained: Values) -> Picture:
    figure, panels = _panels()
    titles = ("Before training (median of 5 seeds)", "After training (one seed)")
    for axes, title, values in zip(panels, titles, (start, trained), strict=True):
        x = range(1, 1 + len(values["relu"]))
        relative = {name: np.asarray(values[name]) / values[name][-1] for name in LINES}
        _lines(axes, x, relative)
        axes.set(title=title, xlabel="hidden layer, 1 is next to the input", xticks=list(x))
    panels[0].set_ylabel("gradient, relative to the last layer's")
    _legend(figure, panels[0])
    return Picture(
        figure,
        f"The gradient layer by layer in networks of {len(start['relu'])} hidden layers, relative to the "
        "last hidden layer's. Straight lines on this logarithmic axis mean the same factor at each "
        "layer: that is how a gradient vanishes. After training, the networks that could learn pass "
        "more gradient to their first layers than their last ones get; the sigmoid network, which could "
        "not learn, is where it was.",
        f"{len(start['relu'])} 个隐藏层的网络中逐层的梯度,以最后一个隐藏层为 1。在对数坐标上呈直线,"
        "说明每层乘以同一个因子,梯度就是这样消失的。训练之后,能学习的网络传到前面各层的梯度比最后一层还大;"
        "sigmoid 网络学不动,停在原处。",
    )


def training(course: Values, accuracies: Mapping[tuple[str, int], float]) -> Picture:
    figure, (left, right) = _panels()
    _lines(left, range(len(course["relu"])), course)
    left.set(title="First / last gradient through training", xlabel="epoch (10 hidden layers)")
    left.xaxis.get_major_locator().set_params(integer=True)
    depths = sorted({depth for _, depth in accuracies})
    for i, name in enumerate(LINES):
        colour, _, marker = LINES[name]
        place = np.arange(len(depths)) + (i - len(LINES) / 2 + 0.5) * 0.085
        values = [100 * accuracies[name, d] for d in depths]
        right.vlines(place, 0, values, color=colour, lw=1, alpha=0.5)
        right.plot(place, values, ls="", color=colour, marker=marker, ms=6)
    right.set(title="Test accuracy reached, %", xlabel="hidden layers", ylim=(0, 104))
    right.set_xticks(range(len(depths)), [str(d) for d in depths])
    right.axhline(10, color=GREY, lw=1, ls=":")
    right.annotate("guessing", (len(depths) - 0.5, 11), color=GREY, ha="right", fontsize=9)
    right.grid(False, axis="x")
    _legend(figure, left)
    low, deep = depths[0], depths[-1]
    shown = {name: f"{accuracies[name, deep]:.1%}" for name in LINES}
    return Picture(
        figure,
        "Left: the ratio of the gradients at the first and the last hidden layer, epoch by epoch. "
        "Right: the test accuracy after the same number of steps at the same learning rate, with plain "
        f"SGD with momentum and one seed. With {low} hidden layers sigmoid reaches "
        f"{accuracies['sigmoid', low]:.1%}, with {deep} {shown['sigmoid']}, which is guessing. At {deep} "
        f"layers the others reach: tanh {shown['tanh']}, ReLU {shown['relu']}, leaky ReLU "
        f"{shown['leaky_relu']}, PReLU {shown['prelu']}, ELU {shown['elu']}, maxout {shown['maxout 2']} "
        f"with 2, {shown['maxout 3']} with 3 and {shown['maxout 5']} with 5 pieces.",
        "左图:第一个与最后一个隐藏层的梯度之比,逐个周期。右图:在相同步数、相同学习率(带动量的普通 SGD,"
        f"一个随机种子)下达到的测试准确率。{low} 个隐藏层时 sigmoid 达到 {accuracies['sigmoid', low]:.1%},"
        f"{deep} 层时为 {shown['sigmoid']},等于乱猜。{deep} 层时其他激活:tanh {shown['tanh']},"
        f"ReLU {shown['relu']},leaky ReLU {shown['leaky_relu']},PReLU {shown['prelu']},"
        f"ELU {shown['elu']},maxout 2、3、5 段分别为 {shown['maxout 2']}、{shown['maxout 3']}、"
        f"{shown['maxout 5']}。",
    )
