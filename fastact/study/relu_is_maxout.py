"""ReLU, leaky ReLU and the absolute value as maxout layers of two pieces.

Each of them is max(slope · z, z): slope 0 gives ReLU, a small one leaky ReLU, -1 the absolute value.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from .. import backends, ops
from ..backends import BackendName
from .findings import Advance, Findings, Options, Picture, Table
from .style import BLUE, ORANGE, VERMILION

Array = np.ndarray[Any, Any]

SLOPES = {"ReLU": 0.0, "leaky ReLU": 0.25, "|x|": -1.0}
SHAPE = (128, 64, 64)  # rows, in_features, out_features


def as_maxout(weight: Array, bias: Array, negative_slope: float = 0.0) -> tuple[Array, Array]:
    """The two pieces of the maxout layer that equals a linear layer with a leaky ReLU.

    The first piece is `negative_slope` times the linear layer: 0 everywhere for a ReLU.  It has to be
    the first, because the lowest index wins a tie, so that at z = 0 the slope is that of z < 0, as in
    relu'(0) = 0.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,).
        negative_slope: at most 1; above that, max(slope · z, z) is another function.

    Returns:
        weight (out_features, 2, in_features) and bias (out_features, 2) for `linear_maxout`.

    Raises:
        ValueError: negative_slope is above 1.
    """
    if not negative_slope <= 1:
        raise ValueError(f"negative_slope: got {negative_slope}, wanted 1 or less")
    factor = weight.dtype.type(negative_slope)
    return np.stack([factor * weight, weight], axis=1), np.stack([factor * bias, bias], axis=1)


def steps(options: Options) -> int:
    return 1


def run(options: Options, advance: Advance) -> Findings:
    advance("ReLU is a maxout")
    rows = [
        (backend, np.dtype(dtype).name, name, *_difference(backend, dtype, slope, options.seed))
        for backend in _backends()
        for dtype in (np.float32, np.float64)
        for name, slope in SLOPES.items()
    ]
    table = Table(("backend", "dtype", "activation", "elements", "different", "largest_difference"), rows)
    return Findings(
        "ReLU is a maxout",
        "ReLU 是 maxout 的特例",
        {"relu_is_maxout": _picture(rows)},
        {"relu_is_maxout": table},
    )


def _backends() -> list[BackendName]:
    return [name for name in backends.NAMES if name != "c" or backends.why_c_is_missing() is None]


def _difference(backend: BackendName, dtype: Any, slope: float, seed: int) -> tuple[int, int, float]:
    """Elements of y, how many differ between the fused layer and the maxout, and by how much at most."""
    rng = np.random.default_rng(seed)
    rows, in_features, out_features = SHAPE
    x = rng.standard_normal((rows, in_features)).astype(dtype)
    weight = rng.standard_normal((out_features, in_features)).astype(dtype)
    bias = rng.standard_normal(out_features).astype(dtype)
    fused, _ = ops.linear_activation(x, weight, bias, "leaky_relu", negative_slope=slope, backend=backend)
    y, _ = ops.linear_maxout(x, *as_maxout(weight, bias, slope), backend=backend)
    return y.size, int(np.sum(y != fused)), float(np.max(np.abs(y - fused)))


def _picture(rows: list[tuple[Any, ...]]) -> Picture:
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    z = np.linspace(-3, 3, 301)
    for axes, (name, slope) in zip(panels, SLOPES.items(), strict=True):
        axes.plot(z, np.maximum(slope * z, z), color=VERMILION, lw=6, alpha=0.35, label="the larger one")
        axes.plot(z, slope * z, "--", color=BLUE, label=f"piece 0: {_term(slope)}")
        axes.plot(z, z, "--", color=ORANGE, label="piece 1: z")
        axes.set(title=name, xlabel="z", ylim=(-1.6, 3.1))
        axes.legend(loc="upper center", fontsize=9)
    different = sum(row[4] for row in rows)
    total = sum(row[3] for row in rows)
    largest = max(row[5] for row in rows)
    where = ", ".join(sorted({f"{row[0]} {row[1]}" for row in rows if row[4]})) or "-"
    return Picture(
        figure,
        "With the first of two pieces fixed at zero, maxout is ReLU; with a quarter of the second it is "
        "a leaky ReLU, with its negative the absolute value. Linear layers with these activations and "
        "the maxout layers with those weights were run on the same input, in "
        f"{len({row[0] for row in rows})} backends and 2 dtypes: {different} of {total:,} outputs "
        f"differ, by at most {largest:.1g} (in: {where}).",
        "两段之中第一段固定为零,maxout 就是 ReLU;第一段取第二段的四分之一,就是 leaky ReLU;取其相反数,就"
        "是绝对值。带这些激活的线性层与相应权重的 maxout 层处理同样的输入,共 "
        f"{len({row[0] for row in rows})} 个后端、2 种精度:{total:,} 个输出中有 {different} 个不同,最大相"
        f"差 {largest:.1g}。",
    )


def _term(slope: float) -> str:
    return {0.0: "0", -1.0: "-z"}.get(slope, f"{slope:g} z")
