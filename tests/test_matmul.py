"""The product of two matrices: every backend and ISA against float64, and the functions of BLAS of C."""

import itertools

import numpy as np
import pytest
from support.inputs import integers, normal
from support.processes import output_of
from support.tolerance import assert_same_bits, assert_within, sum_bound
from support.variants import COMPILED, in_force, needs_c, needs_proc

from fastact import backends, settings

SIZES = (0, 1, 3, 15, 16, 17, 31, 32, 33, 97)
FLAGS = list(itertools.product((False, True), repeat=2))
C_VARIANTS = [variant for variant in COMPILED if variant.startswith("c-")]


def operands(rng, rows, columns, depth, trans1, trans2, dtype, make=normal):
    x = make(rng, (depth, rows) if trans1 else (rows, depth), dtype)
    return x, make(rng, (columns, depth) if trans2 else (depth, columns), dtype)


def product(x, y, trans1, trans2):
    """What the backend in force makes of op(x) @ op(y)."""
    shape = x.shape[1 if trans1 else 0], y.shape[0 if trans2 else 1]
    out = np.full(shape, np.nan, x.dtype)
    backends.active().matmul(x, y, trans1, trans2, out, settings.threads_and_mode())
    return out


def exact(x, y, trans1, trans2):
    """op(x) @ op(y) in float64, and the sums of the terms' magnitudes."""
    left = (x.T if trans1 else x).astype(np.float64)
    right = (y.T if trans2 else y).astype(np.float64)
    return left @ right, abs(left) @ abs(right)


@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
@pytest.mark.parametrize("rows", SIZES)
def test_matmul_of_awkward_sizes_is_within_the_error_bound(backend, dtype, rows, trans1, trans2, rng):
    for columns, depth in itertools.product(SIZES, SIZES):
        x, y = operands(rng, rows, columns, depth, trans1, trans2, dtype)
        wanted, magnitude = exact(x, y, trans1, trans2)
        out = product(x, y, trans1, trans2)
        assert_within(out, wanted, sum_bound(magnitude, depth, dtype, backend))


@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
@pytest.mark.parametrize("sizes", [(5, 300, 1000), (300, 7, 600), (130, 130, 257), (1000, 96, 50)], ids=str)
def test_matmul_of_larger_sizes_is_within_the_error_bound(
    backend, dtype, threads, sizes, trans1, trans2, rng
):
    x, y = operands(rng, *sizes, trans1, trans2, dtype)
    wanted, magnitude = exact(x, y, trans1, trans2)
    assert_within(product(x, y, trans1, trans2), wanted, sum_bound(magnitude, sizes[2], dtype, backend))


@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
@pytest.mark.parametrize("sizes", [(300, 200, 500), (7, 1000, 300), (2000, 17, 96)], ids=str)
def test_matmul_has_the_same_bits_for_any_number_of_threads(compiled, dtype, sizes, trans1, trans2, rng):
    x, y = operands(rng, *sizes, trans1, trans2, dtype)
    results = []
    for count in (1, 2, 3):
        with settings.num_threads(count):
            results.append(product(x, y, trans1, trans2))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_matmul_of_nan_and_infinity_equals_float64(backend, dtype, value, trans1, trans2, rng):
    for sizes in ((5, 7, 11), (40, 33, 50), (100, 100, 700)):
        x, y = operands(rng, *sizes, trans1, trans2, dtype, integers)
        for operand in (x, y):
            operand[rng.random(operand.shape) < 0.01] = value
        with np.errstate(invalid="ignore"):
            wanted = exact(x, y, trans1, trans2)[0]
        np.testing.assert_array_equal(product(x, y, trans1, trans2), wanted)


def test_matmul_takes_read_only_operands(backend, dtype, rng):
    for trans1, trans2 in FLAGS:
        x, y = operands(rng, 9, 8, 7, trans1, trans2, dtype, integers)
        x.flags.writeable = y.flags.writeable = False
        np.testing.assert_array_equal(product(x, y, trans1, trans2), exact(x, y, trans1, trans2)[0])


def test_matmul_of_operands_without_elements_takes_no_time_and_no_memory(backend, dtype):
    long = 2**40
    for x, y, trans1, trans2 in (
        ((0, 3), (3, 0), False, False),
        ((0, long), (0, long), False, True),
        ((0, 0), (long, 0), False, True),
        ((long, 0), (long, 0), True, False),
    ):
        assert product(np.empty(x, dtype), np.empty(y, dtype), trans1, trans2).size == 0


@needs_c
def test_matmul_of_arrays_that_do_not_fit_raises_and_writes_nothing(rng):
    x, y = operands(rng, 4, 5, 6, False, False, np.float32)
    out = np.zeros((4, 5), np.float32)
    c = backends.get("c")
    for bad in ((x[:3], y), (x, y[:5].copy()), (x.astype(np.float64), y), (x, np.asfortranarray(y))):
        with pytest.raises(ValueError, match="changed by another thread"):
            c.matmul(*bad, False, False, out)
    assert not out.any()


# ---- C: alpha, beta and rows that are farther apart


def padded(rng, rows, columns, gap, dtype, make=normal):
    """An array of (rows, columns) whose rows are `gap` elements farther apart; NaN lies between them."""
    whole = np.full((rows, columns + gap), np.nan, dtype)
    whole[:, :columns] = make(rng, (rows, columns), dtype)
    return whole[:, :columns]


def c_matmul(dtype, trans1, trans2, alpha, a, b, beta, c, threads=1):
    lib, ffi = backends.get("c").lib, backends.get("c").ffi
    depth, rows = a.shape if trans1 else a.shape[::-1]
    status = lib.fa_matmul(
        lib.FA_FLOAT32 if dtype == np.float32 else lib.FA_FLOAT64, trans1, trans2,
        rows, c.shape[1], depth, alpha,
        *(value for array in (a, b) for value in (ffi.cast("void *", array.ctypes.data), stride(array))),
        beta, ffi.cast("void *", c.ctypes.data), stride(c), threads, lib.FA_HIGHEST,
    )  # fmt: skip
    assert status == lib.FA_OK


def stride(array):
    return array.strides[0] // array.itemsize


@pytest.fixture(params=C_VARIANTS)
def c_variant(request):
    with in_force(request.param) as name:
        yield name


COMBINATIONS = [(1, 0), (1, 1), (0.5, 0), (-1.25, 1), (1, -0.75), (3, 0.5), (0, 0), (0, 1), (0, 0.5)]
BLAS_SHAPES = [(1, 1, 1), (3, 17, 0), (0, 3, 4), (15, 33, 31), (64, 50, 64), (97, 16, 97), (120, 110, 200)]


@pytest.mark.parametrize(("alpha", "beta"), COMBINATIONS)
@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
@pytest.mark.parametrize("gap", [0, 1, 13])
def test_c_matmul_with_alpha_beta_and_strides(c_variant, dtype, alpha, beta, trans1, trans2, gap, rng):
    for rows, columns, depth in BLAS_SHAPES:
        a = padded(rng, *((depth, rows) if trans1 else (rows, depth)), gap, dtype)
        b = padded(rng, *((columns, depth) if trans2 else (depth, columns)), 2 * gap, dtype)
        c = padded(rng, rows, columns, gap, dtype)
        sums, magnitude = exact(a, b, trans1, trans2)
        before = c.astype(np.float64)
        if beta == 0:
            c[...] = np.nan  # and is not read
            before[...] = 0
        c_matmul(dtype, trans1, trans2, alpha, a, b, beta, c)
        bound = sum_bound(abs(alpha) * magnitude + abs(beta * before), depth + 3, dtype, "c")
        assert_within(c, alpha * sums + beta * before, bound)
        assert np.isnan(
            np.lib.stride_tricks.as_strided(c, (rows, columns + gap), c.strides)[:, columns:]
        ).all()


def test_c_matmul_with_an_alpha_of_zero_reads_no_operand(c_variant, dtype, rng):
    a, b = np.full((5, 6), np.nan, dtype), np.full((6, 7), np.nan, dtype)
    c = integers(rng, (5, 7), dtype)
    wanted = 2 * c
    c_matmul(dtype, False, False, 0, a, b, 2, c)
    np.testing.assert_array_equal(c, wanted)


def test_c_matmul_with_alpha_and_beta_has_the_same_bits_for_any_number_of_threads(c_variant, dtype, rng):
    a, b, start = (normal(rng, shape, dtype) for shape in ((300, 257), (257, 130), (300, 130)))
    results = []
    for threads in (1, 2, 3):
        results.append(start.copy())
        c_matmul(dtype, False, False, 0.3, a, b, -0.7, results[-1], threads)
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


WITHOUT_MEMORY = """
import resource
from pathlib import Path
import numpy as np
from fastact import backends

lib, ffi = backends.get("c").lib, backends.get("c").ffi
rows, columns, depth = 130, 257, 700

def pointer(array):
    return ffi.cast("float *", array.ctypes.data)

rng = np.random.default_rng(0)
runs = []
for trans_a in (0, 1):
    for trans_b in (0, 1):
        a = rng.integers(-9, 10, (depth, rows) if trans_a else (rows, depth)).astype("f")
        b = rng.integers(-9, 10, (columns, depth) if trans_b else (depth, columns)).astype("f")
        product = (a.T if trans_a else a) @ (b.T if trans_b else b)
        for alpha, beta in ((1, 0), (1, 1), (2, -3), (0, 2)):
            c = np.full((rows, columns), np.nan if beta == 0 else 5, "f")
            wanted = alpha * product + (0 if beta == 0 else 5 * beta)
            numbers = trans_a, trans_b, rows, columns, depth, alpha
            strides = pointer(a), a.shape[1], pointer(b), b.shape[1], beta, pointer(c), columns
            runs.append((numbers + strides, c, wanted, a, b))
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
status = lib.fa_matmul(lib.FA_FLOAT32, *runs[0][0], 1, lib.FA_HIGHEST)
for arguments, *_ in runs:
    lib.fa_sgemm(*arguments)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(status == lib.FA_NO_MEMORY, all((c == wanted).all() for _, c, wanted, *_ in runs))
"""


@needs_c
@needs_proc
def test_sgemm_without_memory_computes_the_product():
    # Without freed memory that malloc keeps, each buffer is new.
    assert output_of(WITHOUT_MEMORY, MALLOC_MMAP_THRESHOLD_="65536") == "True True\n"


AXPY_SIZES = (*SIZES, 64, 128, 1000)


@pytest.mark.parametrize(("x_step", "y_step"), [(1, 1), (2, 1), (1, 3), (2, 5), (-1, 1)])
def test_axpy_adds_the_multiple_and_nothing_else(c_variant, dtype, x_step, y_step, rng):
    c = backends.get("c")
    axpy = c.lib.fa_saxpy_in_force() if dtype == np.float32 else c.lib.fa_daxpy_in_force()
    pointer = "float *" if dtype == np.float32 else "double *"
    for n in AXPY_SIZES:
        x = normal(rng, (2 * abs(x_step) * (n + 1) + 1,), dtype)
        y = normal(rng, (y_step * n + 3,), dtype)
        middle = len(x) // 2
        wanted = y.astype(np.float64)
        terms = -0.75 * x[middle + x_step * np.arange(n)].astype(np.float64)
        magnitude = abs(wanted)
        wanted[y_step * np.arange(n)] += terms
        magnitude[y_step * np.arange(n)] += abs(terms)
        axpy(
            n, -0.75, c.ffi.cast(pointer, x.ctypes.data) + middle, x_step,
            c.ffi.cast(pointer, y.ctypes.data), y_step,
        )  # fmt: skip
        assert_within(y, wanted, sum_bound(magnitude, 1, dtype, "c"))
        untouched = np.setdiff1d(np.arange(len(y)), y_step * np.arange(n))
        np.testing.assert_array_equal(y[untouched], wanted[untouched].astype(dtype))
