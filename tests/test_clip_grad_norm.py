"""`clip_grad_norm_`: against decimal numbers without limits, and with numbers that are not finite."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from support.layouts import misaligned, spaced
from support.tolerance import assert_same_bits, assert_within

import fastact as fa

SIZES = (0, 1, 3, 15, 16, 17, 31, 32, 33, 97)


def with_gradients(*grads):
    """Parameters that have these gradients."""
    made = [fa.Parameter(np.zeros(np.shape(grad), np.float32), f"p{i}") for i, grad in enumerate(grads)]
    for parameter, grad in zip(made, grads, strict=True):
        parameter.grad = grad
    return made


def exact(grads, max_norm):
    """The norm of gradients, and the gradients after the clipping, in decimal numbers."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -(10**6), 10**6
        numbers = [[Decimal(float(v)) for v in grad.flat] for grad in grads]
        norm = sum((v * v for grad in numbers for v in grad), Decimal(0)).sqrt()
        scale = min(Decimal(1), Decimal(max_norm) / (norm + Decimal("1e-6")))
        clipped = [np.array([float(v * scale) for v in grad]) for grad in numbers]
        return float(norm), [c.astype(g.dtype).reshape(g.shape) for c, g in zip(clipped, grads, strict=True)]


def assert_clipped(grads, max_norm):
    """The norm and the gradients are exact to rounding."""
    expected_norm, expected = exact(grads, max_norm)
    arrays = [grad.copy() for grad in grads]
    norm = fa.clip_grad_norm_(with_gradients(*arrays), max_norm)
    assert type(norm) is float
    # In float64 a sum of n squares, in any order, errs by n + 1 roundings at most, and its root by half of
    # that; then come two roundings for each array, whose norms are added up.
    roundings = sum(grad.size for grad in grads) / 2 + 1 + 2 * len(grads)
    assert_within(
        np.float64(norm),
        np.float64(expected_norm),
        roundings * 2.0**-53 * expected_norm + 2.0**-1074 * (1 + len(grads)),
    )
    for before, got, wanted in zip(grads, arrays, expected, strict=True):
        # the scale has three roundings more, or half of the smallest number where it is below the normal ones
        info = np.finfo(got.dtype)
        bound = (roundings + 3) * 2.0**-53 + float(info.eps)
        magnitude = abs(wanted.astype(np.float64))
        with np.errstate(under="ignore"):
            absolute = abs(before.astype(np.float64)) * 2.0**-1074 + 2 * float(info.smallest_subnormal)
            assert_within(got, wanted, bound * magnitude + absolute)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 3, 1e3, math.inf])
def test_clipping_is_exact_to_rounding(backend, dtype, rng, max_norm):
    grads = [rng.standard_normal(size).astype(dtype) for size in SIZES]
    grads += [rng.standard_normal(shape).astype(dtype) for shape in ((), (3, 0), (5, 3, 7))]
    before = [grad.copy() for grad in grads]
    if max_norm < math.inf:
        assert_clipped(grads, max_norm)
    norm = fa.clip_grad_norm_(with_gradients(*grads), max_norm)
    if norm + 1e-6 < max_norm:
        for a, b in zip(grads, before, strict=True):
            assert_same_bits(a, b)


def test_gradients_of_both_dtypes_have_one_norm(backend, rng):
    for scale in (1.0, 1e-30):
        grads = [(rng.standard_normal(97) * scale).astype(dtype) for dtype in (np.float32, np.float64) * 2]
        assert_clipped(grads, scale)


def test_norm_of_extreme_gradients_neither_overflows_nor_underflows(backend, dtype):
    info = np.finfo(dtype)
    largest, tiny, denormal = (float(v) for v in (info.max, info.tiny, info.smallest_subnormal))
    for size in (denormal * 9, tiny / 8, tiny, tiny**0.5 / 64, 1e-9, 1.0, largest**0.5 * 64, largest / 8):
        for length in (1, 3, 37):
            weights = np.linspace(-1, 1, length + 1)[1:]
            for max_norm in (size / 3, 1e-9, 1.0):
                assert_clipped([(weights * size).astype(dtype), np.zeros(5, dtype)], max_norm)
                assert_clipped([(weights * size).astype(dtype), np.full(2, size / 7, dtype)], max_norm)


def test_norms_of_extreme_arrays_are_added_without_overflow(backend):
    assert_clipped([np.full(3, 1e200), np.full(5, -1e200), np.full(2, 1e-200)], 2.5)
    assert_clipped([np.full(3, 1e-200), np.full(5, 1e-210)], 1e-201)


def test_norm_beyond_float64_is_infinite_and_clips_to_zero(backend):
    grads = [np.full(4, np.finfo(np.float64).max), np.ones(3, np.float32)]
    assert fa.clip_grad_norm_(with_gradients(*grads), 1.0) == math.inf
    assert not any(grad.any() for grad in grads)


def test_infinite_gradient_makes_infinities_nan_and_others_zero(backend, dtype):
    grads = [np.array([1, -np.inf, 3], dtype), np.arange(40, dtype=dtype), np.array([np.inf], dtype)]
    assert fa.clip_grad_norm_(with_gradients(*grads), 1.0) == math.inf
    np.testing.assert_array_equal(grads[0], [0, np.nan, 0])
    np.testing.assert_array_equal(grads[1], np.zeros(40))
    np.testing.assert_array_equal(grads[2], [np.nan])


@pytest.mark.parametrize(("numbers", "max_norm"), [([np.nan, np.inf, 1], 1.0), ([1, np.inf, 2], math.inf)])
def test_nan_norm_or_infinite_quotient_makes_all_gradients_nan(backend, dtype, numbers, max_norm):
    for order in (1, -1):
        grads = [np.array([number], dtype) for number in numbers[::order]] + [np.ones(33, dtype)]
        norm = fa.clip_grad_norm_(with_gradients(*grads), max_norm)
        assert math.isnan(norm) == np.isnan(numbers).any()
        assert all(np.isnan(grad).all() for grad in grads)


def test_same_bits_for_any_number_of_threads(compiled, dtype, rng):
    start = [rng.standard_normal(size).astype(dtype) for size in (700_001, 65_537, 5)]

    def clipped(threads):
        grads = [grad.copy() for grad in start]
        with fa.num_threads(threads):
            norm = fa.clip_grad_norm_(with_gradients(*grads), 2.0)
        return norm, [grad.tobytes() for grad in grads]

    expected = clipped(1)
    exact_norm = math.sqrt(math.fsum(v * v for grad in start for v in grad.astype(np.float64).tolist()))
    assert math.isclose(
        expected[0], exact_norm, rel_tol=1e-11
    )  # 2e5 terms in 32 sums and 64 shares, or better
    for threads in (2, 3):
        assert clipped(threads) == expected


@pytest.mark.parametrize("layout", [spaced, np.asfortranarray, misaligned, lambda a: a.view(np.memmap)])
def test_gradients_in_any_layout_are_clipped_in_place(backend, dtype, layout, rng):
    values = rng.standard_normal((5, 7)).astype(dtype)
    grad, plain = layout(values), values.copy()
    parameters = with_gradients(grad, np.ones(3, dtype))
    others = with_gradients(plain, np.ones(3, dtype))
    assert fa.clip_grad_norm_(parameters, 0.5) == fa.clip_grad_norm_(others, 0.5)
    assert parameters[0].grad is grad
    np.testing.assert_array_equal(grad, plain)


def test_parameters_without_a_gradient_are_skipped(each_backend):
    parameters = with_gradients(np.array([3.0, 4.0]), None)
    assert fa.clip_grad_norm_(parameters, 1.0) == 5.0
    np.testing.assert_allclose(parameters[0].grad, [0.6, 0.8], rtol=3e-7)
    assert parameters[1].grad is None
    assert fa.clip_grad_norm_(parameters[1:], 1.0) == 0.0


def test_one_parameter_and_an_iterator_are_taken(each_backend):
    (parameter,) = with_gradients(np.array([3.0, 4.0]))
    assert fa.clip_grad_norm_(parameter, math.inf) == 5.0
    assert fa.clip_grad_norm_(iter([parameter]), math.inf) == 5.0
    np.testing.assert_array_equal(parameter.grad, [3, 4])


def test_clipped_gradients_train_a_network(backend):
    rng = np.random.default_rng(0)
    model = fa.Sequential(fa.Maxout(6, 8, 3, rng=rng), fa.Linear(8, 4, rng=rng))
    optimizer = fa.AdamW(model.parameters(), lr=0.02)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    labels = np.argmax(x[:, :4], axis=1)
    for _ in range(150):
        loss, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
        model.backward(grad, needs_input_grad=False)
        fa.clip_grad_norm_(model.parameters(), 0.5)
        assert fa.clip_grad_norm_(model.parameters(), math.inf) <= 0.5 * (1 + 1e-6)
        optimizer.step()
    assert loss < 0.3


READ_ONLY = np.ones(3, np.float32)
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    ("parameters", "max_norm", "error", "message"),
    [
        ([], 1.0, ValueError, "parameters: got an empty list"),
        (fa.Linear(2, 2), 1.0, TypeError, r"parameters: got Linear, wanted .*parameters\(\)"),
        ([np.ones(3)], 1.0, TypeError, r"parameters\[0\]: got ndarray, wanted a Parameter"),
        (with_gradients(np.ones(3)) * 2, 1.0, ValueError, "parameters: got one of them twice"),
        (with_gradients(np.ones(3)), -1.0, ValueError, "max_norm: got -1.0, wanted 0 or more"),
        (with_gradients(np.ones(3)), math.nan, ValueError, "max_norm: got nan"),
        (with_gradients(np.ones(3)), "1", TypeError, "max_norm: got '1', wanted a number"),
        (
            with_gradients(np.ones(3), READ_ONLY),
            1.0,
            ValueError,
            r"parameters\[1\] \(p1\)\.grad: got a read-only",
        ),
        (
            with_gradients(np.ones(3), READ_ONLY),
            1e9,
            ValueError,
            r"parameters\[1\] \(p1\)\.grad: got a read-only",
        ),
        (with_gradients(np.ones(3), [1.0]), 1.0, TypeError, r"parameters\[1\] \(p1\)\.grad: got list"),
        (with_gradients(np.ones(3), np.ones(3, int)), 1.0, TypeError, r"\(p1\)\.grad: got dtype int64"),
        (with_gradients(np.ones(3), np.ones(3, ">f4")), 1.0, TypeError, r"\(p1\)\.grad: got dtype >f4"),
    ],
)
def test_invalid_argument_is_refused_before_a_gradient_changes(parameters, max_norm, error, message):
    with pytest.raises(error, match=message):
        fa.clip_grad_norm_(parameters, max_norm)
    if isinstance(parameters, list) and parameters and isinstance(parameters[0], fa.Parameter):
        np.testing.assert_array_equal(parameters[0].grad, np.ones(3))
