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

# by backend, dtype and activation: elements of y, how many differ, and the largest difference
Differences = dict[tuple[str, str, str], tuple[int, int, float]]


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
    found = {
        (backend, np.dtype(dtype).name, name): _difference(backend, dtype, slope, options.seed)
        for backend in _backends()
        for dtype in (np.float32, np.float64)
        for name, slope in SLOPES.items()
    }
    columns = ("backend", "dtype", "activation", "elements", "different", "largest_difference")
    elements, different, largest = _totals(found)
    return Findings(
        "ReLU is a maxout",
        "ReLU 是 maxout 的特例",
        {"relu_is_maxout": _picture(found)},
        {"relu_is_maxout": Table(columns, [(*key, *values) for key, values in found.items()])},
        [
            f"ReLU, leaky ReLU and |x| as maxout layers: {different:,} of {elements:,} outputs differ; the "
            f"largest difference is {largest:.1g}."
        ],
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


def _totals(found: Differences) -> tuple[int, int, float]:
    """Elements, how many differ, and the largest difference, over all cases."""
    elements, different, largest = zip(*found.values(), strict=True)
    return sum(elements), sum(different), max(largest)


def _picture(found: Differences) -> Picture:
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    z = np.linspace(-3, 3, 301)
    for axes, (name, slope) in zip(panels, SLOPES.items(), strict=True):
        axes.plot(
            z, np.maximum(slope * z, z), color=VERMILION, lw=6, alpha=0.35, label="the larger one: maxout"
        )
        axes.plot(z, slope * z, "--", color=BLUE, label=f"piece 0: {_term(slope)}")
        axes.plot(z, z, "--", color=ORANGE, label="piece 1: z")
        axes.set(title=name, xlabel="z, the output of the linear layer", ylim=(-1.6, 3.1))
        axes.legend(loc="upper center", fontsize=9)
    panels[0].set_ylabel("activation")
    elements, different, largest = _totals(found)
    backends_run = len({backend for backend, _, _ in found})
    unequal = {f"{backend} {dtype}" for (backend, dtype, _), values in found.items() if values[1]}
    where = f" (in {', '.join(sorted(unequal))})" if unequal else ""
    return Picture(
        figure,
        "Each panel shows a maxout unit of two pieces, of which the second is z. "
        "If the first piece is 0, the unit is a ReLU. "
        "If the first is a quarter of the second, the unit is a leaky ReLU. "
        "If the first is the negative of the second, the unit is the absolute value. "
        "Linear layers with these activations and maxout layers with those weights were run on the same "
        f"input, in {backends_run} backends and 2 dtypes. "
        f"Of {elements:,} outputs {different:,} differ{where}. "
        f"The largest difference is {largest:.1g}.",
        "两段的 maxout 单元,第二段为 z。第一段为 0 时,该单元就是 ReLU。"
        "第一段为第二段的四分之一时,就是 leaky ReLU。第一段为第二段的相反数时,就是绝对值。"
        f"带这些激活的线性层与相应权重的 maxout 层处理同样的输入,共 {backends_run} 个后端、2 种数据类型。"
        f"{elements:,} 个输出中有 {different:,} 个不同{where}。最大相差 {largest:.1g}。",
    )


def _term(slope: float) -> str:
    return {0.0: "0", -1.0: "-z"}.get(slope, f"{slope:g} z")
