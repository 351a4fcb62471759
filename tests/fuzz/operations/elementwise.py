"""Maxout of an array, activations element by element, layer norm; and their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from support import layer_norm as norms
from support.cases import STEEPEST
from support.inputs import reference
from support.tolerance import activation_bound, derivative_bound, sum_bound

import fastact as fa
from bench import bits
from bench.accuracy.layer_norm import moments

from ..bounds import assert_close, assert_equal, finite
from ..case import Case, Option, Result, Results
from ..draw import AWKWARD, MOST_TERMS, PIECES, Array, Draw
from .products import GRADS, check_grads, draw_activation, flat, of_backward, saved_for


def draw_blocks(draw: Draw) -> tuple[tuple[int, ...], int]:
    """The shape of z and the axis of its pieces."""
    if draw.chance(0.002):
        outer, inner = draw.choice(((1, 70001), (20000, 1), (300, 97), (2048, 16)))
        return (outer, draw.choice((2, 3)), inner), 1
    while True:
        shape = [draw.choice(AWKWARD) for _ in range(draw.choice((0, 1, 1, 2)))]
        axis = draw.choice(range(len(shape) + 1))
        shape.insert(axis, draw.choice((*PIECES, 255, 256)))
        if math.prod(shape) <= MOST_TERMS:
            return tuple(shape), axis


def maxout(draw: Draw) -> Case:
    shape, axis = draw_blocks(draw)
    z = draw.numbers(*shape)
    y, argmax = np.asarray(z.max(axis)), np.asarray(z.argmax(axis)).astype(np.uint8)

    def check(option: Option, results: Results, backend: str) -> None:
        assert_equal("y", np.asarray(results[0]), y)
        if option["return_argmax"]:
            assert_equal("argmax", results[1], argmax)
        elif results[1] is not None:
            raise AssertionError("argmax: got an array, wanted None")

    kept = shape[:axis] + shape[axis + 1 :]
    results = Result("y", kept, draw.dtype), Result("argmax", kept, np.uint8)
    axes = axis, axis - len(shape)
    options = [{"axis": draw.choice(axes), "return_argmax": argmax} for argmax in (True, False)]
    return Case(fa.maxout, {"z": z}, check, results, options, work=z.size)


def maxout_backward(draw: Draw) -> Case:
    shape, axis = draw_blocks(draw)
    pieces, kept = shape[axis], shape[:axis] + shape[axis + 1 :]
    grad_y = draw.numbers(*kept)
    argmax = np.asarray(draw.rng.integers(0, pieces, kept)).astype(np.uint8)
    expected = fa.maxout_backward(grad_y, argmax, pieces, axis, backend="numpy")

    def check(option: Option, results: Results, backend: str) -> None:
        assert_equal("grad_z", results[0], expected)

    return Case(
        fa.maxout_backward,
        {"grad_y": grad_y, "argmax": argmax},
        check,
        (Result("grad_z", shape, draw.dtype),),
        [{"pieces": pieces, "axis": axis}],
        work=math.prod(shape),
    )


def draw_elements(draw: Draw, keywords: Any) -> tuple[int, ...]:
    if keywords.get("slope") is not None and keywords["slope"].size > 1:
        return draw.choice(AWKWARD), keywords["slope"].size
    return draw.rows() if draw.chance(0.7) else draw.shape(draw.choice((0, 1, 3)))


def activation(draw: Draw) -> Case:
    act, keywords = draw_activation(draw, draw.choice((1, 3, 16, 17, 33)))
    z = np.array(draw.numbers(*draw_elements(draw, keywords)) * draw.dtype.type(draw.choice((1, 1, 4, 30))))
    expected = np.asarray(reference("activation", z, activation=act.name, **keywords))
    wide = np.where(np.isfinite(z), z, 0).astype(np.float64)

    def check(option: Option, results: Results, backend: str) -> None:
        allowed = activation_bound(wide, expected, STEEPEST, draw.dtype)
        assert_close("y", np.asarray(results[0]), expected, allowed, finite(expected))

    # by its own name too: fa.gelu(z, approximate=...)
    by_name = draw.chance(0.5)
    function: Any = getattr(fa, act.name) if by_name else fa.activation
    fixed = keywords if by_name else {"activation": act.name, **keywords}
    result = Result("y", z.shape, draw.dtype)
    return Case(
        function,
        {"z": z},
        check,
        (result,),
        [fixed],
        in_place=("z",),
        work=40 * z.size,
    )


def activation_backward(draw: Draw) -> Case:
    act, keywords = draw_activation(draw, draw.choice((1, 3, 16, 17, 33)))
    shape = draw_elements(draw, keywords)
    grad_y, saved = draw.numbers(*shape), np.asarray(saved_for(draw, act.name, keywords, shape))
    expected = reference("activation_backward", grad_y, saved, activation=act.name, **keywords)
    wide = expected if isinstance(expected, tuple) else (np.asarray(expected),)
    in_dtype = fa.activation_backward(grad_y, saved, act.name, backend="numpy", **keywords)
    rounded = np.asarray(in_dtype[0] if isinstance(in_dtype, tuple) else in_dtype)
    # Numbers whose product with a derivative that underflows, or that rounds to 0, may be anything
    hard = ~(finite(grad_y) + finite(saved) < 1e15) | ~np.isfinite(grad_y) | ~np.isfinite(saved)

    def check(option: Option, results: Results, backend: str) -> None:
        grad_z = np.asarray(results[0])
        allowed = derivative_bound(np.where(np.isfinite(grad_y), grad_y, 0).astype(np.float64), draw.dtype)
        like_rounded = hard & ((grad_z == rounded) | (np.isnan(grad_z) & np.isnan(rounded)))
        assert_close("grad_z", grad_z, wide[0], allowed, np.where(like_rounded, math.inf, finite(grad_y)))
        if len(wide) == 2:
            below = np.where(saved > 0, 0, finite(grad_y) * finite(saved))
            size = below.sum() if keywords["slope"].size == 1 else flat(below).sum(axis=0)
            if option.get("accumulate"):
                base = case.bases[1].astype(np.float64)
                total, size = wide[1] + base, size + np.abs(base)
            else:
                total = wide[1]
            bound = sum_bound(size, below.size + 1, draw.dtype, backend)
            bound = np.reshape(bound if draw.finite else np.full(total.shape, math.inf), total.shape)
            assert_close("grad_slope", np.asarray(results[1]), total, bound, np.reshape(size, total.shape))

    fixed: dict[str, Any] = {"activation": act.name, **keywords}
    options: list[Option] = [fixed]
    results = [Result("grad_z", shape, draw.dtype)]
    if act.name == "prelu":
        results.append(Result("grad_slope", keywords["slope"].shape, draw.dtype))
        options.append(fixed | {"accumulate": True})
    case = Case(
        fa.activation_backward,
        {"grad_y": grad_y, "saved": saved},
        check,
        results,
        options,
        in_place=("grad_y",),
        work=40 * grad_y.size,
    )
    return case


def custom_elementwise(draw: Draw) -> Case:
    """A user's activation element by element."""
    shape, name = draw.rows(), draw.choice(tuple(bits.CUSTOM))
    z = draw.moderate(*shape)
    keywords = {"slope": np.asarray(0.75, draw.dtype)} if name == "custom_swish" else {}
    expected = reference("activation", z, activation=bits.CUSTOM[name], **keywords)

    def check(option: Option, results: Results, backend: str) -> None:
        allowed = activation_bound(z.astype(np.float64), expected, 2.0, draw.dtype)
        assert_close("y", results[0], expected, allowed)

    options = [{"activation": bits.CUSTOM[name], **keywords}]
    result = Result("y", shape, draw.dtype)
    return Case(fa.activation, {"z": z}, check, (result,), options, work=40 * z.size)


# ---- layer norm


class Norm:
    """The arguments of a layer norm."""

    def __init__(self, draw: Draw) -> None:
        rows, features = draw.rows()
        features = max(1, features)
        self.shape = *draw.lead(rows), features
        if draw.kind == "wide" or draw.kind == "special":
            self.x = draw.numbers(*self.shape)
        else:
            scale, offset = draw.choice((1, 1e-3, 100)), draw.choice((0, 0, 1, 1000))
            self.x = (draw.numbers(*self.shape) * scale + offset).astype(draw.dtype)
        self.weight = draw.moderate(features) if draw.chance(0.7) else None
        self.bias = draw.moderate(features) if draw.chance(0.7) else None
        self.eps = draw.choice((1e-5, 1e-5, 0.1, 1e-3))
        self.work = 10 * self.x.size
        # Nothing is promised where squares of x - mean overflow.
        self.bounded = draw.kind in ("normal", "integers") and self.x.size > 0

    def assert_rows_of_nan(self, y: Array) -> None:
        """A row with a NaN or an infinity becomes NaN."""
        bad = ~np.isfinite(flat(self.x)).all(axis=1)
        if not np.isnan(flat(y)[bad]).all():
            raise AssertionError("y: a row of x with a NaN or an infinity is not NaN")


def layer_norm(draw: Draw) -> Case:
    norm = Norm(draw)

    def check(option: Option, results: Results, backend: str) -> None:
        y, saved = results
        norm.assert_rows_of_nan(y)
        if not norm.bounded:
            return
        kept = flat(saved) if saved is not None else exact_moments(flat(norm.x), norm.eps)
        norms.assert_forward(flat(norm.x), norm.weight, norm.bias, norm.eps, flat(y), kept, backend)

    inputs = {"x": norm.x, "weight": norm.weight, "bias": norm.bias}
    results = Result("y", norm.shape, draw.dtype), Result("saved", (*norm.shape[:-1], 2), draw.dtype)
    options = [{"eps": norm.eps, "return_saved": saved} for saved in (True, False)]
    return Case(fa.layer_norm, inputs, check, results, options, work=norm.work)


def exact_moments(x: Array, eps: float) -> Array:
    """The mean and the scale of each row."""
    exact = moments(x, eps, "c")
    return np.concatenate([exact.mean, exact.scale], axis=-1)


def layer_norm_backward(draw: Draw) -> Case:
    norm = Norm(draw)
    grad_y = draw.moderate(*norm.shape)
    _, saved = fa.layer_norm(norm.x, norm.weight, norm.bias, norm.eps, backend="c")
    shapes = (norm.shape, norm.shape[-1:], norm.shape[-1:])
    results = tuple(Result(name, shape, draw.dtype) for name, shape in zip(GRADS, shapes, strict=True))

    def check(option: Option, grads: Results, backend: str) -> None:
        needs = option.get("needs", (True,) * 3)
        for grad, need in zip(grads, needs, strict=True):
            if (grad is not None) != need:
                raise AssertionError("a gradient is not there, or was not asked for")
        if not norm.bounded or not all(needs):
            return
        x, grad = flat(norm.x), flat(grad_y)
        if not option.get("accumulate"):
            norms.assert_backward(grad, x, norm.weight, norm.eps, [flat(grads[0]), *grads[1:]], backend)
            return
        # the sums alone, which the call without accumulate holds against their bounds
        alone = fa.layer_norm_backward(grad_y, norm.x, norm.weight, saved, backend=backend)
        eps = 2 * float(np.finfo(draw.dtype).eps)
        exact = [a.astype(np.float64) for a in alone]
        check_grads(case, option, grads, exact, [eps * np.abs(a) for a in exact], [0.0] * 3, GRADS[1:])

    case = Case(
        fa.layer_norm_backward,
        {"grad_y": grad_y, "x": norm.x, "weight": norm.weight, "saved": saved},
        check,
        results,
        of_backward(results, [{}], draw),
        work=2 * norm.work,
    )
    return case


OPERATIONS = {
    "maxout": (maxout, 5.0),
    "maxout_backward": (maxout_backward, 4.0),
    "activation": (activation, 7.0),
    "activation_backward": (activation_backward, 7.0),
    "custom_elementwise": (custom_elementwise, 0.5),
    "layer_norm": (layer_norm, 4.0),
    "layer_norm_backward": (layer_norm_backward, 4.0),
}
