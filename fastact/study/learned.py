"""Activations that are learned: one-input maxout units fitted to curves, and a trained network's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..nn import Adam, Linear, Maxout, Sequential, mse, schedules
from .data import load_digits
from .digits_network import fit
from .findings import Advance, Findings, Options, Picture, Table
from .style import BLACK, GREY, PIECES, VERMILION, bare

Array = np.ndarray[Any, Any]

# Convex but for the last: a maximum of lines is always convex.
TARGETS: dict[str, Callable[[Array], Array]] = {
    "ReLU": lambda x: np.maximum(x, 0),
    "|x|": np.abs,
    "x²": np.square,
    "Huber": lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5),
    "sin 2x": lambda x: np.sin(2 * x),
}
PIECE_COUNTS = (2, 3, 5)
X = np.linspace(-2, 2, 401)[:, np.newaxis]
STEPS, LEARNING_RATE = 3000, 0.01
SHOWN_UNITS = 16
DIGITS_EPOCHS = 30


def unit(units: int, pieces: int, rng: np.random.Generator) -> Maxout:
    """Maxout units of one input whose pieces start as tangents of the parabola x²/2.

    Each then wins somewhere.  With biases of 0 all pieces would meet in one point, only the steepest two
    would win, and the others would never get a gradient.
    """
    layer = Maxout(1, units, pieces=pieces, rng=rng, dtype=np.float64)
    slope = np.linspace(-1.5, 1.5, pieces) + 0.1 * rng.standard_normal((units, pieces))
    layer.weight.data[..., 0] = slope
    layer.bias.data[...] = -(slope**2) / 2  # type: ignore[union-attr]
    return layer


def difference(pieces: int, rng: np.random.Generator) -> tuple[Sequential, Maxout]:
    """One maxout unit minus another: any piecewise linear curve, convex or not."""
    units = unit(2, pieces, rng)
    minus = Linear(2, 1, bias=False, dtype=np.float64)
    minus.weight.data[...] = [[1, -1]]
    return Sequential(units, minus), units


def fit_curve(model: Maxout | Sequential, units: Maxout, target: Array) -> float:
    """Fit the units' weights by Adam on all points at once; the root mean square error reached."""
    optimizer = Adam(units.parameters(), lr=LEARNING_RATE)
    for step in range(STEPS):
        _, grad = mse(model(X, training=True), target)
        model.backward(grad, needs_input_grad=False)
        optimizer.lr = schedules.cosine(step, STEPS, LEARNING_RATE)
        optimizer.step()
    return float(np.sqrt(mse(model(X), target)[0]))


def lines(layer: Maxout, j: int = 0) -> Array:
    """Each piece of unit j at X: (points, pieces)."""
    return np.asarray(X * layer.weight.data[j, :, 0] + layer.bias.data[j])  # type: ignore[union-attr]


def steps(options: Options) -> int:
    return len(TARGETS) * (len(PIECE_COUNTS) + 1) + 1


def run(options: Options, advance: Advance) -> Findings:
    errors: list[tuple[str, str, float]] = []
    pieces_rows: list[tuple[Any, ...]] = []
    curves: dict[tuple[str, int], tuple[Array, Array]] = {}
    differences: dict[str, Array] = {}
    for name, function in TARGETS.items():
        target = function(X)
        for pieces in PIECE_COUNTS:
            advance(f"learned activations: {name}, {pieces} pieces")
            layer = unit(1, pieces, np.random.default_rng(options.seed))
            before = lines(layer)
            errors.append((name, f"{pieces} pieces", fit_curve(layer, layer, target)))
            curves[name, pieces] = before, lines(layer)
            for k in range(pieces):
                won = X[lines(layer).argmax(axis=1) == k, 0]
                where = (won[0], won[-1]) if len(won) else ("", "")
                values = layer.weight.data[0, k, 0], layer.bias.data[0, k]  # type: ignore[union-attr]
                pieces_rows.append((name, pieces, k, *values, *where))
        advance(f"learned activations: {name}, the difference of two units")
        model, units = difference(5, np.random.default_rng(options.seed))
        errors.append((name, "difference of two, 5 pieces each", fit_curve(model, units, target)))
        differences[name] = model(X)[:, 0]
    advance("learned activations: the digits network")
    profiles, spread = _digits_units(options.seed)
    found = {(name, what): error for name, what, error in errors}
    return Findings(
        "A learned activation",
        "学出来的激活函数",
        {
            "learned_curves": _curves_picture(curves, differences, found),
            "learned_before_after": _before_after(curves),
            "learned_digits": _digits_picture(profiles, spread),
        },
        {
            "learned_errors": Table(("target", "model", "root_mean_square_error"), errors),
            "learned_pieces": Table(
                ("target", "pieces", "piece", "slope", "bias", "wins_from", "wins_to"), pieces_rows
            ),
            "learned_digits": Table(
                ("unit", "t", *(f"piece_{k}" for k in range(profiles.shape[2]))),
                [(j, float(t), *profiles[j, i]) for j in range(SHOWN_UNITS) for i, t in enumerate(spread[j])],
            ),
        },
    )


def _digits_units(seed: int) -> tuple[Array, Array]:
    """The pieces of the first units of a trained network along the direction in which they differ most.

    Returns their values (units, points, pieces), and t (units, points), the place along that direction,
    from the 1st to the 99th percentile of the training digits around their mean.
    """
    digits = load_digits(seed)
    *_, model = fit(digits, DIGITS_EPOCHS, seed)
    layer = model.layers[0]
    assert isinstance(layer, Maxout)
    assert layer.bias is not None
    mean = digits.x_train.mean(axis=0)
    profiles, places = [], []
    for weight, bias in zip(layer.weight.data[:SHOWN_UNITS], layer.bias.data[:SHOWN_UNITS], strict=True):
        direction = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)[2][0]
        low, high = np.percentile((digits.x_train - mean) @ direction, (1, 99))
        t = np.linspace(low, high, 101)
        profiles.append((mean + t[:, np.newaxis] * direction) @ weight.T + bias)
        places.append(t)
    return np.array(profiles, np.float64), np.array(places)


def _draw(axes: Axes, x: Array, values: Array, limits: tuple[float, float] | None = None) -> None:
    """The pieces (points, pieces), their maximum, and below it a strip that says which one wins."""
    largest = values.max(axis=1)
    height = max(float(np.ptp(largest)), 0.1)
    bottom, top = limits or (largest.min() - 0.4 * height, largest.max() + 0.25 * height)
    for k in range(values.shape[1]):
        axes.plot(x, values[:, k], "--", color=PIECES[k], lw=1)
        wins = values.argmax(axis=1) == k
        axes.fill_between(x, bottom, bottom + 0.06 * (top - bottom), where=wins, color=PIECES[k], lw=0)
    axes.plot(x, largest, color=BLACK, lw=1.8)
    axes.set_ylim(bottom, top)


def _curves_picture(
    curves: dict[tuple[str, int], tuple[Array, Array]],
    differences: dict[str, Array],
    errors: dict[tuple[str, str], float],
) -> Picture:
    rows, columns = len(PIECE_COUNTS) + 1, len(TARGETS)
    figure, panels = plt.subplots(rows, columns, figsize=(11, 8.4), sharex=True, layout="constrained")
    x = X[:, 0]
    for column, (name, function) in enumerate(TARGETS.items()):
        target = function(x)
        for row, pieces in enumerate(PIECE_COUNTS):
            axes = panels[row, column]
            axes.plot(x, target, color=VERMILION, lw=6, alpha=0.35)
            _draw(axes, x, curves[name, pieces][1])
            _note(axes, errors[name, f"{pieces} pieces"])
            panels[row, 0].set_ylabel(f"one unit,\n{pieces} pieces")
        axes = panels[-1, column]
        axes.plot(x, target, color=VERMILION, lw=6, alpha=0.35)
        axes.plot(x, differences[name], color=BLACK, lw=1.8)
        _note(axes, errors[name, "difference of two, 5 pieces each"])
        panels[0, column].set_title(name)
    panels[-1, 0].set_ylabel("difference of two\nunits, 5 pieces each")
    for axes in panels.flat:
        axes.set(xticks=[-2, 0, 2], yticks=[])
    one, two = errors["sin 2x", "5 pieces"], errors["sin 2x", "difference of two, 5 pieces each"]
    return Picture(
        figure,
        "One maxout unit with one input, fitted to a curve (pale): its pieces (dashed), their maximum "
        "(black), and as a strip below which piece wins where; the number is the root mean square "
        "error. Two pieces are ReLU or |x|; with more, x² and Huber's function are approximated better "
        "and better. A maximum of lines is convex, so no unit can follow sin 2x: 5 pieces leave an "
        f"error of {one:.2f}. The difference of two units follows it to {two:.3f}.",
        "单输入的 maxout 单元拟合一条曲线(浅色):各段直线(虚线)、它们的最大值(黑色),下方色带表示各处由哪"
        "一段胜出;数字是均方根误差。两段即可得到 ReLU 或 |x|;段数越多,对 x² 和 Huber 函数的逼近越好。直"
        f"线的最大值总是凸的,所以单个单元学不会 sin 2x:5 段时误差仍有 {one:.2f}。两个单元之差则可以,误差"
        f"为 {two:.3f}。",
    )


def _note(axes: Axes, error: float) -> None:
    text = axes.text(0.5, 0.96, f"{error:.3f}", transform=axes.transAxes, ha="center", va="top", fontsize=9)
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})


def _before_after(curves: dict[tuple[str, int], tuple[Array, Array]]) -> Picture:
    figure, panels = plt.subplots(2, len(PIECE_COUNTS), figsize=(9.5, 5), sharex=True, layout="constrained")
    x = X[:, 0]
    for column, pieces in enumerate(PIECE_COUNTS):
        for row, values in enumerate(curves["x²", pieces]):
            axes = panels[row, column]
            axes.plot(x, x**2, color=VERMILION, lw=6, alpha=0.35)
            _draw(axes, x, values, (-2.6, 4.4))
            axes.set(xticks=[-2, 0, 2])
        panels[0, column].set_title(f"{pieces} pieces")
    panels[0, 0].set_ylabel("before training")
    panels[1, 0].set_ylabel("after training")
    return Picture(
        figure,
        "The fit to x² before and after training. Each point trains the piece that wins there and no "
        "other, so each piece settles on a stretch of its own. The pieces start as tangents of a flat "
        "parabola: were all biases 0, only the two steepest would ever win, and the rest would never be "
        "trained.",
        "拟合 x² 之前与之后。每个点只训练在该处胜出的那一段,于是各段分占一处。初始时各段取一条平缓抛物线"
        "的切线:倘若偏置全为 0,只有最陡的两段会胜出,其余各段永远得不到训练。",
    )


def _digits_picture(profiles: Array, spread: Array) -> Picture:
    figure, panels = plt.subplots(2, SHOWN_UNITS // 2, figsize=(11, 3.6), layout="constrained")
    for j, axes in enumerate(panels.flat):
        _draw(axes, spread[j], profiles[j])
        bare(axes)
        axes.set_title(f"unit {j}", fontsize=9, color=GREY, fontweight="normal")
    used = [len(np.unique(values.argmax(axis=1))) for values in profiles]
    return Picture(
        figure,
        f"What the first {SHOWN_UNITS} units of a network trained on digits learned, each along the "
        f"direction in pixel space in which its {profiles.shape[2]} pieces differ most, over the range "
        f"of the digits. Along this direction they use {min(used)} to {max(used)} of "
        "their pieces.",
        f"在数字图像上训练好的网络,其前 {SHOWN_UNITS} 个单元学到的激活函数,每个都沿着各段差别最大的像素方"
        f"向画出。沿此方向用到 {profiles.shape[2]} 段中的 {min(used)} 到 {max(used)} 段。",
    )
