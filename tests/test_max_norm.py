"""`max_norm_`, and max_norm in the pass of an optimiser, for vectors of any length, finite or not."""

import functools
from decimal import Decimal, localcontext

import numpy as np
import pytest
from support.tolerance import assert_same_bits

import fastact as fa


def bounded(vector, bound):
    """`vector` scaled down to a norm of `bound`, in decimal numbers without limits."""
    return _bounded(vector.tobytes(), vector.dtype, bound)


@functools.cache
def _bounded(content, dtype, bound):
    vector = np.frombuffer(content, dtype)
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -(10**6), 10**6
        numbers = [Decimal(float(v)) for v in vector]
        norm = sum(v * v for v in numbers).sqrt()
        bound = Decimal(float(dtype.type(bound)))
        if norm <= bound:
            return vector
        return np.array([float(v * bound / norm) for v in numbers]).astype(dtype)


def in_a_step(make):
    """The bound in the pass of an optimiser, by a step that changes nothing else."""

    def run(data, bound):
        parameter = fa.Parameter(data, "weight")
        parameter.grad, parameter.max_norm = np.zeros_like(data), bound
        make([parameter]).step()

    return run


LIMITERS = {
    "max_norm_": fa.max_norm_,
    "sgd": in_a_step(lambda parameters: fa.SGD(parameters, 1.0)),
    "momentum": in_a_step(lambda parameters: fa.SGD(parameters, 1.0, 0.5)),
    "adam": in_a_step(fa.Adam),
}


@pytest.fixture(params=LIMITERS)
def limit(request):
    return LIMITERS[request.param]


def extremes(dtype):
    """Vectors and bounds near every limit of `dtype`."""
    info = np.finfo(dtype)
    largest, tiny, denormal = (float(v) for v in (info.max, info.tiny, info.smallest_subnormal))
    root, small_root = largest**0.5, tiny**0.5
    for length in (1, 2, 3, 37, 500):
        weights = np.linspace(-1, 1, length + 1)[1:]
        for size in (
            denormal * 100,
            tiny / 8,
            tiny,
            small_root / 64,
            small_root,
            1e-9,
            1.0,
            root,
            root * 64,
            largest,
        ):
            for bound in (size / 3, 1.0, tiny, small_root, root, largest / 2, denormal * 7):
                yield (weights * size).astype(dtype), bound
    yield np.array([largest, 1e-20, denormal, -largest], dtype), largest / 1024
    yield np.array([largest] * 4000, dtype), 1.0
    yield np.array([small_root / 4096] * 4000 + [small_root], dtype), small_root / 2


def assert_bounded(got, vector, bound):
    """Within the roundings of the sum of squares, root, quotient and product, or a few denormal numbers."""
    info = np.finfo(vector.dtype)
    wanted = bounded(vector, bound)
    # a sum of n squares in any order errs by n / 2 roundings at the most, its root by half of that
    rtol = (len(vector) / 4 + 4) * float(info.eps)
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=4 * float(info.smallest_subnormal))


def test_max_norm_of_extreme_vectors_is_exact_to_rounding(backend, dtype, limit):
    vectors = list(extremes(dtype))
    for vector, bound in vectors:
        data = np.stack([vector, vector * dtype.type(0.5), np.zeros_like(vector)])
        before = data.copy()
        limit(data, bound)
        for got, row in zip(data, before, strict=True):
            assert_bounded(got, row, bound)


@pytest.mark.parametrize("size", [1e19, 1e-25])
def test_max_norm_of_three_four_is_point_six_point_eight(backend, limit, size):
    data = np.array([[3, 4]], np.float32) * np.float32(size)
    bound = 1.0 if size > 1 else size
    limit(data, bound)
    np.testing.assert_allclose(data, np.array([[0.6, 0.8]]) * bound, rtol=4e-7)


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 16)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_max_norm_of_a_row_that_is_not_finite_leaves_the_others(backend, dtype, limit, value, place, rng):
    data = rng.standard_normal((3, 17)).astype(dtype)
    expected = data.copy()
    limit(expected, 1.5)
    row, column = place
    data[place] = value
    expected[row] = np.nan
    if np.isinf(value):
        expected[row, np.arange(17) != column] = 0
    limit(data, 1.5)
    others = np.arange(3) != row
    assert_same_bits(data[others], expected[others])
    np.testing.assert_array_equal(data[row], expected[row])


def test_max_norm_with_a_nan_and_an_infinity_is_nan(backend, dtype, limit):
    data = np.array([[np.inf, 1, np.nan], [0, 1, 2]], dtype)
    limit(data, 4.0)
    np.testing.assert_array_equal(data, [[np.nan] * 3, [0, 1, 2]])


def test_max_norm_beyond_float32_is_refused_by_name(backend, limit):
    data = np.array([[3e38, 3e38], [1, 2]], np.float32)
    before = data.copy()
    with pytest.raises(ValueError, match=r"max_norm: got 1e\+39, wanted a number above 0"):
        limit(data, 1e39)
    np.testing.assert_array_equal(data, before)
