"""The pictures of the vanishing gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import vanishing
from .findings import Picture
from .style import BLACK, BLUE, GREEN, GREY, PURPLE, SKY, VERMILION
from .vanishing import Network, Trained

Array = np.ndarray[Any, Any]
Values = Mapping[str, Sequence[float] | Array]

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
GUESSING = 0.1  # the accuracy of a network that always answers the same of 10 digits


def _label(name: str) -> str:
    return f"{name} pieces" if name.startswith("maxout") else LABELS.get(name, name)


def _label_zh(name: str) -> str:
    return f"{name.split()[1]} 段 maxout" if name.startswith("maxout") else LABELS.get(name, name)


def _panels() -> tuple[Figure, Any]:
    return plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")


def _lines(axes: Axes, x: Sequence[float], values: Values) -> None:
    for name, y in values.items():
        colour, line, marker = LINES[name]
        axes.plot(x, y, line, color=colour, marker=marker, ms=5, lw=1.6, label=_label(name))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")


def _guessing(axes: Axes, x: float) -> None:
    axes.axhline(100 * GUESSING, color=GREY, lw=1, ls=":")
    axes.annotate("guessing", (x, 100 * GUESSING - 1.5), color=GREY, ha="center", va="top", fontsize=9)


def depth(ratios: Mapping[Network, float], moves: Mapping[Network, float]) -> Picture:
    depths = sorted({depth for _, depth in ratios})
    figure, (left, right) = _panels()
    _lines(left, depths, {name: [ratios[name, d] for d in depths] for name in LINES})
    left.plot(
        depths, [0.25 ** (d - 1) for d in depths], color=GREY, lw=1, ls=(0, (1, 3)), label="0.25 a layer"
    )
    left.set(title="Gradient at the first layer / at the last", xlabel="hidden layers", xticks=depths)
    _lines(right, depths, {name: [moves[name, d] for d in depths] for name in LINES})
    right.set(title="Loss when the first weights move by 0.1%", xlabel="hidden layers", xticks=depths)
    right.set_ylabel("relative change of the loss")
    for axes in (left, right):
        axes.set_yscale("log")
    _legend(figure, left)
    d = depths[-1]
    return Picture(
        figure,
        f"Before any step of training; medians over {vanishing.SEEDS} seeds. "
        "Left: the norm of the loss's gradient at the first hidden layer's output, divided by that at the "
        "last. "
        "A sigmoid's derivative is at most 0.25, which by itself takes a factor of 4 at each layer (dotted). "
        "Larger weights could make up for it. "
        f"Those of Glorot's initialisation do not: {ratios['sigmoid', 10]:.1e} is left at 10 layers, "
        f"{ratios['sigmoid', d]:.1e} at {d}. "
        f"At {d} layers tanh keeps {ratios['tanh', d]:.2f}, ReLU {ratios['relu', d]:.2f} and "
        f"ELU {ratios['elu', d]:.1f}. "
        f"Maxout with its own initialisation keeps {ratios['maxout 2', d]:.2f} with 2 pieces, "
        f"{ratios['maxout 3', d]:.2f} with 3 and {ratios['maxout 5', d]:.2f} with 5. "
        "That initialisation keeps the size of the signal on its way forward, not that of the gradient. "
        "Right: how far the loss moves when the first layer's weights change a little at random. "
        "The smallest change that float64 can resolve is about 1e-16.",
        f"训练开始之前,{vanishing.SEEDS} 个随机种子的中位数。"
        "左图:损失对第一个隐藏层输出的梯度范数,除以对最后一个隐藏层输出的梯度范数。"
        "sigmoid 的导数最大只有 0.25,仅此一项就使梯度每层缩小到四分之一(点线)。较大的权重可以补偿。"
        f"Glorot 初始化的权重补偿不了:10 层只剩 {ratios['sigmoid', 10]:.1e},"
        f"{d} 层只剩 {ratios['sigmoid', d]:.1e}。"
        f"{d} 层时,tanh 保留 {ratios['tanh', d]:.2f},ReLU 保留 {ratios['relu', d]:.2f},"
        f"ELU 为 {ratios['elu', d]:.1f}。"
        f"采用专用初始化的 maxout,2 段保留 {ratios['maxout 2', d]:.2f},3 段 "
        f"{ratios['maxout 3', d]:.2f},5 段 {ratios['maxout 5', d]:.2f}。"
        "该初始化保持的是前向信号的大小,而不是梯度的大小。"
        "右图:随机地稍微改动第一层的权重,损失变化多少。float64 能分辨的最小变化约为 1e-16。",
    )


def rates(
    searched: Mapping[Network, Array], longer: Mapping[Network, Array], training: int, validation: int
) -> Picture:
    """The validation accuracies by learning rate.

    Args:
        searched: of each network, (rates, seeds).
        longer: of sigmoid networks that took `vanishing.LONGER` times as many steps.
        training: the number of training digits.
        validation: the number of validation digits.
    """
    depths = sorted({depth for _, depth in searched})
    figure, panels = plt.subplots(2, 2, figsize=(11, 7), sharex=True, sharey=True, layout="constrained")
    for axes, d in zip(panels.flat, depths, strict=True):
        _lines(axes, vanishing.RATES, {name: 100 * searched[name, d].mean(axis=1) for name in LINES})
        axes.set(title=f"{d} hidden layers", xscale="log", ylim=(0, 104))
        axes.xaxis.set_major_formatter("{x:g}")
        _guessing(axes, vanishing.RATES[len(vanishing.RATES) // 2])
    _legend(figure, panels[0, 0])
    figure.supxlabel("learning rate", fontsize=10)
    figure.supylabel("validation accuracy, % (mean over the seeds)", fontsize=10)
    low, high = f"{vanishing.RATES[0]:g}", f"{vanishing.RATES[-1]:g}"
    stuck, edge = _stuck(searched), _edge(searched)
    more = [f"{found.max():.1%} with {d} layers" for (_, d), found in longer.items()]
    more_zh = [f"{d} 层达到 {found.max():.1%}" for (_, d), found in longer.items()]
    steps = vanishing.EPOCHS * -(-training // vanishing.BATCH)
    return Picture(
        figure,
        "One learning rate for all would be unfair to some networks. "
        f"Each network is trained at {len(vanishing.RATES)} rates, {low} to {high}, a factor of √10 apart. "
        f"At each rate a network takes {steps} steps ({vanishing.EPOCHS} epochs) of SGD with momentum "
        f"{vanishing.MOMENTUM} on batches of {vanishing.BATCH}. "
        f"It trains on {training:,} digits, from {vanishing.SEARCH_SEEDS} seeds. "
        f"{validation} other digits, taken from those for training, measure the validation accuracy. "
        "The best rate is the one with the highest mean accuracy on them. "
        "The test digits take no part in the choice. "
        + _list(
            stuck,
            "At no rate do these exceed twice the accuracy of guessing: {}. Their best rate means nothing. ",
        )
        + (
            _list(edge, "These have their best rate at an end of the grid: {}. ")
            or "Every network that learns has its best rate inside the grid. "
        )
        + f"With {vanishing.LONGER} times as many steps (one seed), sigmoids reach at the best of the rates "
        f"{', '.join(more[:-1])} and {more[-1]}. "
        "Other initialisations and optimisers were not tried.",
        f"同一个学习率对某些网络不公平。每个网络都用 {len(vanishing.RATES)} 个学习率训练,从 {low} 到 "
        f"{high},后一个是前一个的 √10 倍。"
        f"每个学习率训练 {steps} 步({vanishing.EPOCHS} 个周期),用动量为 {vanishing.MOMENTUM} 的 SGD,"
        f"批量 {vanishing.BATCH}。训练用 {training:,} 个数字,{vanishing.SEARCH_SEEDS} 个随机种子。"
        f"验证准确率用从训练集中另外留出的 {validation} 个数字测得。"
        "平均验证准确率最高的学习率为最佳。测试集不参与选择。"
        + _list(
            stuck,
            "在任何学习率下,下列网络都超不过乱猜准确率的两倍:{}。其最佳学习率没有意义。",
            chinese=True,
        )
        + (
            _list(edge, "下列网络的最佳学习率位于网格边缘:{}。", chinese=True)
            or "凡是学得动的网络,最佳学习率都在网格内部。"
        )
        + f"步数增加到 {vanishing.LONGER} 倍(一个随机种子),sigmoid 网络在最好的学习率下,"
        f"{','.join(more_zh)}。没有试过其他初始化方法和优化器。",
    )


def _stuck(searched: Mapping[Network, Array]) -> list[Network]:
    """The networks that at no rate exceed twice the accuracy of guessing."""
    return [key for key, found in searched.items() if found.mean(axis=1).max() <= 2 * GUESSING]


def _edge(searched: Mapping[Network, Array]) -> list[Network]:
    """The networks that learn, with the smallest or the largest rate as their best."""
    ends = (0, len(vanishing.RATES) - 1)
    stuck = _stuck(searched)
    return [key for key, found in searched.items() if vanishing.best_rate(found) in ends and key not in stuck]


def _list(networks: list[Network], sentence: str, chinese: bool = False) -> str:
    """The sentence with the networks in place of its {}; empty if there are no networks."""
    depths: dict[str, list[str]] = {}
    for name, d in networks:
        depths.setdefault(name, []).append(str(d))
    if chinese:
        items = ";".join(f"{_label_zh(name)}({'、'.join(found)} 层)" for name, found in depths.items())
    else:
        items = "; ".join(f"{_label(name)} ({', '.join(found)} layers)" for name, found in depths.items())
    return sentence.format(items) if items else ""


def training(trained: Mapping[Network, Trained], searched: Mapping[Network, Array]) -> Picture:
    shown = vanishing.SHOWN_DEPTH
    figure, (left, right) = _panels()
    course = {name: vanishing.median_course(trained[name, shown]) for name in LINES}
    _lines(left, range(len(course["relu"])), course)
    left.set(title="First / last gradient through training", xlabel=f"epoch ({shown} hidden layers)")
    left.set_yscale("log")
    left.xaxis.get_major_locator().set_params(integer=True)
    depths = sorted({depth for _, depth in trained})
    for i, name in enumerate(LINES):
        colour, _, marker = LINES[name]
        place = np.arange(len(depths)) + (i - len(LINES) / 2 + 0.5) * 0.085
        found = [100 * trained[name, d].accuracies for d in depths]
        right.vlines(place, np.min(found, axis=1), np.max(found, axis=1), color=colour, lw=1.6)
        right.plot(place, np.median(found, axis=1), ls="", color=colour, marker=marker, ms=5)
    right.set(title="Test accuracy at each one's best rate, %", xlabel="hidden layers", ylim=(0, 104))
    right.set_xticks(range(len(depths)), [str(d) for d in depths])
    right.grid(False, axis="x")
    _guessing(right, 0)
    _legend(figure, left)
    reached = {key: f"{np.median(found.accuracies):.1%}" for key, found in trained.items()}
    low, deep = depths[0], depths[-1]
    best = {name: vanishing.RATES[vanishing.best_rate(searched[name, low])] for name in LINES}
    sigmoid = [f"{reached['sigmoid', d]} with {d}" for d in depths]
    sigmoid_zh = ",".join(f"{d} 层时 {reached['sigmoid', d]}" for d in depths)
    others = [name for name in LINES if name != "sigmoid"]
    return Picture(
        figure,
        "Each network at its own best learning rate (above), trained for the same number of steps; medians "
        f"over {vanishing.TRAINED_SEEDS} seeds. "
        f"Left: the gradient at the first hidden layer divided by that at the last, epoch by epoch, in "
        f"networks of {shown} hidden layers. "
        "Right: the accuracy on the test digits; a bar shows the range over the seeds. "
        f"Sigmoids reach {', '.join(sigmoid[:-1])} and {sigmoid[-1]} hidden layers; guessing gives 10%. "
        f"Their best rate at {low} layers is {best['sigmoid']:g}, ReLU's is {best['relu']:g}. "
        f"At {deep} layers the others reach: "
        + ", ".join(f"{_label(name)} {reached[name, deep]}" for name in others)
        + ".",
        f"每个网络都用自己的最佳学习率(见上图),训练步数相同;{vanishing.TRAINED_SEEDS} 个随机种子的中位数。"
        f"左图:{shown} 个隐藏层的网络中,第一个与最后一个隐藏层的梯度之比,逐个周期。"
        "右图:测试准确率,竖线为各随机种子的范围。"
        f"sigmoid 网络 {sigmoid_zh};乱猜为 10%。"
        f"{low} 层时,sigmoid 的最佳学习率是 {best['sigmoid']:g},ReLU 的是 {best['relu']:g}。"
        f"{deep} 层时其他激活:"
        + "、".join(f"{_label_zh(name)} {reached[name, deep]}" for name in others)
        + "。",
    )


def layers(start: Mapping[Network, Array], trained: Mapping[Network, Trained]) -> Picture:
    shown = vanishing.SHOWN_DEPTH
    figure, panels = _panels()
    before = {name: start[name, shown] for name in LINES}
    after = {name: vanishing.last_norms(trained[name, shown]) for name in LINES}
    titles = (
        f"Before training ({vanishing.SEEDS} seeds)",
        f"After training ({vanishing.TRAINED_SEEDS} seeds)",
    )
    x = range(1, 1 + shown)
    for axes, title, values in zip(panels, titles, (before, after), strict=True):
        _lines(axes, x, {name: norms / norms[-1] for name, norms in values.items()})
        axes.set(title=title, xlabel="hidden layer, 1 is next to the input", xticks=list(x), yscale="log")
    panels[0].set_ylabel("gradient, relative to the last layer's")
    _legend(figure, panels[0])
    grows = [name for name in LINES if vanishing.ratio(after[name]) > 1]
    sigmoid = vanishing.ratio(after["sigmoid"])
    return Picture(
        figure,
        f"The gradient layer by layer in networks of {shown} hidden layers, relative to the last hidden "
        "layer's; medians over the seeds. "
        "A straight line on this logarithmic axis means the same factor at each layer: that is how a "
        "gradient vanishes. "
        f"After training at the best rates, {len(grows)} of the {len(LINES)} networks pass a larger gradient "
        "to their first hidden layer than to their last. "
        f"With sigmoids the first layer still gets {sigmoid:.1e} of it.",
        f"{shown} 个隐藏层的网络中逐层的梯度,以最后一个隐藏层为 1;各随机种子的中位数。"
        "在对数坐标上呈直线,说明每层乘以同一个因子,梯度就是这样消失的。"
        f"用最佳学习率训练之后,{len(LINES)} 个网络中有 {len(grows)} 个,第一个隐藏层得到的梯度比最后一个还大。"
        f"sigmoid 网络的第一层仍只得到最后一层的 {sigmoid:.1e}。",
    )
