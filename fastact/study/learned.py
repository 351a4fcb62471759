"""Learned activations: maxout units of one input fitted to curves, and the units of a trained network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .. import Adam, Linear, Maxout, Sequential, mse, schedules
from .data import load_digits
from .digits_network import fit
from .findings import Advance, Findings, Options, Picture, Table
from .style import BLACK, GREY, PIECES, VERMILION

Array = np.ndarray[Any, Any]

# All but the last are convex, as a maximum of lines always is.
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
DIFFERENCE = "difference of two, 5 pieces each"
DIGITS_EPOCHS = 30


def unit(units: int, pieces: int, rng: np.random.Generator) -> Maxout:
    """Maxout units of one input whose pieces start as tangents of the parabola x²/2.

    Each piece then wins somewhere.  With biases of 0 all pieces would meet in one point.  Only the steepest
    two would win there, and the others would get no gradient.
    """
    layer = Maxout(1, units, pieces=pieces, rng=rng, dtype=np.float64)
    slope = np.linspace(-1.5, 1.5, pieces) + 0.1 * rng.standard_normal((units, pieces))
    layer.weight.data[..., 0] = slope
    layer.bias.data[...] = -(slope**2) / 2  # type: ignore[union-attr]
    return layer


def difference(pieces: int, rng: np.random.Generator) -> tuple[Sequential, Maxout]:
    """One maxout unit minus another: any piecewise-linear curve, convex or not.

    Returns:
        The model, and its two units.
    """
    units = unit(2, pieces, rng)
    minus = Linear(2, 1, bias=False, dtype=np.float64)
    minus.weight.data[...] = [[1, -1]]
    return Sequential(units, minus), units


def fit_curve(model: Maxout | Sequential, units: Maxout, target: Array) -> float:
    """Fit the units' weights by Adam on all points at once; returns the root mean square error reached."""
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
        errors.append((name, DIFFERENCE, fit_curve(model, units, target)))
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
        [
            f"Root mean square errors: x² by one maxout unit of 5 pieces {found['x²', '5 pieces']:.3f}; "
            f"sin 2x by one unit {found['sin 2x', '5 pieces']:.3f}, "
            f"by the difference of two {found['sin 2x', DIFFERENCE]:.3f}."
        ],
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


def _draw_target(axes: Axes, target: Array) -> None:
    axes.plot(X[:, 0], target, color=VERMILION, lw=6, alpha=0.35)


def _draw(axes: Axes, x: Array, values: Array, limits: tuple[float, float] | None = None) -> None:
    """The pieces (points, pieces), their maximum, and below it a strip that says which one wins.

    Without `limits` the panel is as high as what it shows but the pieces, and leaves room for the strip.
    """
    largest = values.max(axis=1)
    axes.plot(x, largest, color=BLACK, lw=1.8, zorder=2.5)  # above the pieces
    lowest, highest = axes.dataLim.intervaly
    height = max(highest - lowest, 0.1)
    bottom, top = limits or (lowest - 0.35 * height, highest + 0.05 * height)
    for k in range(values.shape[1]):
        axes.plot(x, values[:, k], "--", color=PIECES[k], lw=1)
        wins = values.argmax(axis=1) == k
        strip = bottom + 0.06 * (top - bottom)
        axes.fill_between(x, bottom, strip, where=wins, color=PIECES[k], lw=0, zorder=3)
    axes.set_ylim(bottom, top)


def _legend(figure: Figure, output: str, target: bool = True) -> None:
    """What `_draw` and `_draw_target` draw; `output` says what the black line is."""
    strip = tuple(Patch(color=colour) for colour in PIECES[:3])
    meanings: dict[str, Any] = {"target": Line2D([], [], color=VERMILION, lw=6, alpha=0.35)} if target else {}
    meanings["one piece"] = Line2D([], [], color=PIECES[0], ls="--", lw=1)
    meanings[output] = Line2D([], [], color=BLACK, lw=1.8)
    meanings["strip: the piece that wins there"] = strip
    figure.legend(
        list(meanings.values()),
        list(meanings),
        loc="outside upper center",
        ncols=len(meanings),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
    )


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
            _draw_target(axes, target)
            _draw(axes, x, curves[name, pieces][1])
            _note(axes, errors[name, f"{pieces} pieces"])
            panels[row, 0].set_ylabel(f"one unit,\n{pieces} pieces")
        axes = panels[-1, column]
        _draw_target(axes, target)
        axes.plot(x, differences[name], color=BLACK, lw=1.8)
        _note(axes, errors[name, DIFFERENCE])
        panels[0, column].set_title(name)
        axes.set_xlabel("x")
    panels[-1, 0].set_ylabel("difference of two\nunits, 5 pieces each")
    for axes in panels.flat:
        axes.set_xticks([-2, 0, 2])
        axes.locator_params(axis="y", nbins=4)
    _legend(figure, "output: the largest piece (last row: the difference)")
    one, two = errors["sin 2x", "5 pieces"], errors["sin 2x", DIFFERENCE]
    return Picture(
        figure,
        "One maxout unit with one input, fitted to a curve. "
        "Pale: the curve. Dashed: the unit's pieces. Black: the largest piece, which is the unit's output. "
        "The strip at the bottom has the colour of the piece that wins there. "
        "RMSE is the root mean square error. "
        "Two pieces are enough for ReLU and for |x|. "
        f"More pieces follow x² more closely: the error falls from {errors['x²', '2 pieces']:.2f} with 2 to "
        f"{errors['x²', '5 pieces']:.3f} with 5. "
        "A maximum of lines is convex, and sin 2x is not. "
        f"One unit with 5 pieces leaves an error of {one:.2f} on it. "
        f"The difference of two such units (bottom row) leaves {two:.3f}.",
        "单输入的 maxout 单元拟合一条曲线。"
        "浅色:目标曲线。虚线:单元的各段。黑色:最大的一段,即单元的输出。"
        "底部色带的颜色表示该处由哪一段胜出。RMSE 是均方根误差。"
        "两段就足以得到 ReLU 和 |x|。"
        f"段数越多,对 x² 的逼近越好:误差从 2 段的 {errors['x²', '2 pieces']:.2f} 降到 5 段的 "
        f"{errors['x²', '5 pieces']:.3f}。"
        "直线的最大值总是凸的,而 sin 2x 不是。"
        f"单个 5 段的单元误差仍有 {one:.2f}。两个这样的单元之差(最下一行)误差为 {two:.3f}。",
    )


def _note(axes: Axes, error: float) -> None:
    axes.set_title(f"RMSE {error:.3f}", loc="right", fontsize=9, fontweight="normal")


def _before_after(curves: dict[tuple[str, int], tuple[Array, Array]]) -> Picture:
    figure, panels = plt.subplots(2, len(PIECE_COUNTS), figsize=(9.5, 5), sharex=True, layout="constrained")
    x = X[:, 0]
    for column, pieces in enumerate(PIECE_COUNTS):
        for row, values in enumerate(curves["x²", pieces]):
            axes = panels[row, column]
            _draw_target(axes, x**2)
            _draw(axes, x, values, (-2.6, 4.4))
            axes.set(xticks=[-2, 0, 2])
        axes.set_xlabel("x")
        panels[0, column].set_title(f"{pieces} pieces")
    panels[0, 0].set_ylabel("before training")
    panels[1, 0].set_ylabel("after training")
    _legend(figure, "output: the largest piece")
    return Picture(
        figure,
        "The fit to x² before and after training, drawn as above. "
        "Each point trains the piece that wins there and no other. "
        "Each piece settles on a stretch of its own. "
        "The pieces start as tangents of a flat parabola, so that each wins somewhere. "
        "With all biases 0, only the two steepest would win at the start. The rest would get no gradient.",
        "拟合 x² 之前与之后,画法同上。每个点只训练在该处胜出的那一段。各段分占一处。"
        "初始时各段取一条平缓抛物线的切线,因此每段都在某处胜出。"
        "倘若偏置全为 0,开始时只有最陡的两段会胜出,其余各段得不到梯度。",
    )


def _digits_picture(profiles: Array, spread: Array) -> Picture:
    figure, panels = plt.subplots(4, SHOWN_UNITS // 4, figsize=(10, 8), layout="constrained")
    for j, axes in enumerate(panels.flat):
        _draw(axes, spread[j], profiles[j])
        axes.set_title(f"unit {j}", fontsize=9, color=GREY, fontweight="normal")
        axes.locator_params(nbins=4)
    figure.supxlabel("position along the unit's direction in pixel space; 0 is the mean digit", fontsize=10)
    figure.supylabel("value of each piece", fontsize=10)
    _legend(figure, "activation: the largest piece", target=False)
    used = [len(np.unique(values.argmax(axis=1))) for values in profiles]
    return Picture(
        figure,
        f"The activations that the first {SHOWN_UNITS} units of a network learned on digits. "
        f"A unit has {profiles.shape[2]} pieces, linear in 64 pixels, and is drawn along one line. "
        "The line goes through the mean digit, in the direction in which the unit's pieces differ most. "
        "It ends at the 1st and the 99th percentile of the training digits. "
        f"Along this line the units use {min(used)} to {max(used)} of their pieces.",
        f"在数字图像上训练的网络,其前 {SHOWN_UNITS} 个单元学到的激活函数。"
        f"每个单元有 {profiles.shape[2]} 段,每段是 64 个像素的线性函数,这里沿一条直线画出。"
        "直线经过数字的平均图像,方向是该单元各段差别最大的方向。"
        "直线的两端是训练数字的第 1 和第 99 百分位。"
        f"沿此直线,各单元用到其中 {min(used)} 到 {max(used)} 段。",
    )
