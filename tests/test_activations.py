"""The element-wise activations, forward and backward: every backend against float64."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from support.cases import CASES, EXACT_CASES, KINKS, SAVES_Y
from support.inputs import as_tuple, integers, normal, reference
from support.layouts import INPUT_LAYOUTS, OUT_LAYOUTS
from support.tolerance import activation_bound, assert_within, derivative_bound, sum_bound

import fastact as fa
from fastact import activations

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def grid(dtype, features):
    """Values (rows, features) all over the range in which any activation bends, and beyond."""
    info = np.finfo(dtype)
    small = np.geomspace(1e-30, 1, 200)
    large = np.geomspace(20, 1e4, 100)
    values = np.concatenate([np.linspace(-20, 20, 1501), small, -small, large, -large])
    ends = [0.0, -0.0, info.tiny, -info.tiny, info.smallest_subnormal, -info.smallest_subnormal]
    values = np.concatenate([values, ends])
    return np.resize(values.astype(dtype), (math.ceil(len(values) / features), features))


def saved_of(case, z, keywords):
    """What the forward would save, in the dtype of z."""
    if case.name not in SAVES_Y:
        return z
    return reference("activation", z, activation=case.name, **keywords).astype(z.dtype)


def oracle(case, z, grad_y, keywords):
    """In float64 y and the gradients, grad_z first, and between them what the forward saves in z.dtype."""
    y = reference("activation", z, activation=case.name, **keywords)
    saved = saved_of(case, z, keywords)
    grads = reference("activation_backward", grad_y, saved, activation=case.name, **keywords)
    return y, saved, *as_tuple(grads)


# ---- the specification itself


FORMULAS = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: max(z, 0.01 * z),
    "elu": lambda z: z if z > 0 else math.exp(z) - 1,
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * (math.exp(z) - 1)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "gelu_tanh": lambda z: z / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "softplus": lambda z: math.log(1 + math.exp(z)),
    "mish": lambda z: z * math.tanh(math.log(1 + math.exp(z))),
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "tanh": math.tanh,
}


def test_codes_of_activations_count_up_from_zero():
    assert [row.code for row in activations.TABLE.values()] == list(range(len(activations.TABLE)))


def test_documented_activations_equal_the_table():
    documented = {}
    for line in activations.__doc__.splitlines():
        if line.startswith("| ") and "|-" not in line:
            name, _, keyword, saves = (cell.strip() for cell in line.strip("|").split("|"))
            documented[name] = (keyword.split(" ")[0], saves)
    del documented["name"]
    rows = {name: activations.TABLE[name] for name in activations.NAMES}
    assert documented == {name: ("".join(row.defaults), row.saves) for name, row in rows.items()}


@pytest.mark.parametrize("name", activations.TABLE)
def test_backend_has_a_formula_for_each_code(compiled, name):
    """A code without a formula gives NaN in Numba, and does not compile in C."""
    code_of = {"gelu_tanh": ("gelu", {"approximate": "tanh"}), "prelu": ("prelu", {"slope": np.array(0.25)})}
    activation, keywords = code_of.get(name, (name, {}))
    z = np.array([-0.75, 0.5])
    for operation, arguments in (("activation", (z,)), ("activation_backward", (np.ones(2), z))):
        result, expected = (
            as_tuple(getattr(fa, operation)(*arguments, activation, backend=backend, **keywords))[0]
            for backend in (compiled, "numpy")
        )
        assert_within(result, expected, 2 * derivative_bound(np.ones(2), np.float64))


def test_header_of_the_c_backend_is_what_the_table_generates():
    tool = Path(__file__).resolve().parent.parent / "csrc" / "tools" / "activations.py"
    written = runpy.run_path(str(tool))
    assert written["HEADER"].read_text() == written["header"](), f"stale: run python {tool}"


@pytest.mark.parametrize("name", FORMULAS)
def test_reference_computes_the_published_formula(name):
    z = np.linspace(-6, 6, 241)
    name, approximate = ("gelu", {"approximate": "tanh"}) if name == "gelu_tanh" else (name, {})
    formula = FORMULAS["gelu_tanh" if approximate else name]
    y = fa.activation(z, name, backend="numpy", **approximate)
    assert_within(y, np.array([formula(float(value)) for value in z]), 1e-14)


# ---- values


@every_case
def test_activation_is_within_the_error_bound(backend, dtype, case):
    z = grid(dtype, 33)
    keywords = case.keywords(33, dtype)
    y = fa.activation(z, case.name, **keywords)
    assert y.dtype == dtype
    expected, _, derivative = oracle(case, z, np.ones_like(z), keywords)[:3]
    assert_within(y, expected, activation_bound(z.astype(np.float64), expected, derivative, dtype))


@every_case
def test_function_of_an_activations_name_equals_activation(case, rng):
    z, grad_y = normal(rng, (3, 5), np.float32), normal(rng, (3, 5), np.float32)
    keywords = case.keywords(5, np.float32)
    y = getattr(fa, case.name)(z, **keywords)
    np.testing.assert_array_equal(y, fa.activation(z, case.name, **keywords))
    saved = y if case.name in SAVES_Y else z
    results = as_tuple(getattr(fa, f"{case.name}_backward")(grad_y, saved, **keywords))
    expected = as_tuple(fa.activation_backward(grad_y, saved, case.name, **keywords))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@every_case
def test_activation_backward_is_within_the_error_bound(backend, dtype, case, rng):
    z = grid(dtype, 33)
    keywords = case.keywords(33, dtype)
    grad_y = normal(rng, z.shape, dtype)
    _, saved, *expected = oracle(case, z, grad_y, keywords)
    grads = as_tuple(fa.activation_backward(grad_y, saved, case.name, **keywords))
    assert_within(grads[0], expected[0], derivative_bound(grad_y, dtype))
    if case.name == "prelu":
        below = np.where(z > 0, 0, abs(grad_y.astype(np.float64) * z))
        magnitude = below.sum(0) if case.slopes == "per-feature" else below.sum()
        assert grads[1].shape == keywords["slope"].shape
        assert_within(grads[1], expected[1], sum_bound(magnitude, below.size, dtype, backend))


@pytest.mark.parametrize("case", EXACT_CASES, ids=str)
def test_activation_of_whole_numbers_is_exact(backend, dtype, case, rng):
    z, grad_y = integers(rng, (64, 129), dtype, 5), integers(rng, (64, 129), dtype)
    keywords = case.keywords(129, dtype)
    y, saved, *expected = oracle(case, z, grad_y, keywords)
    np.testing.assert_array_equal(fa.activation(z, case.name, **keywords), y)
    grads = as_tuple(fa.activation_backward(grad_y, saved, case.name, **keywords))
    for grad, wanted in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(grad, wanted)


@pytest.mark.parametrize("features", [1, 2, 3, 16, 31, 63, 64, 65, 1025, 2049])
@pytest.mark.parametrize("size", [1, 5_000, 70_000])
def test_prelu_with_a_slope_per_feature_is_exact(backend, dtype, features, size, rng):
    """Whole numbers; few features, several rows a vector, and many features with a remainder."""
    shape = (-(-size // features), features)
    z, grad_y = integers(rng, shape, dtype, 5), integers(rng, shape, dtype)
    slope = integers(rng, features, dtype)
    np.testing.assert_array_equal(fa.prelu(z, slope), np.where(z > 0, z, z * slope))
    grad_z, grad_slope = fa.prelu_backward(grad_y, z, slope)
    np.testing.assert_array_equal(grad_z, np.where(z > 0, grad_y, grad_y * slope))
    np.testing.assert_array_equal(
        grad_slope, np.where(z > 0, 0, np.multiply(z, grad_y, dtype=np.float64)).sum(0)
    )


def special(dtype):
    """NaN, infinities, and numbers near the largest, with room for a bound twice their size."""
    largest = np.finfo(dtype).max / 4
    return np.array([np.nan, np.inf, -np.inf, largest, -largest, 100, -100, 1e6, -1e6], dtype)


def assert_limits(actual, expected, dtype):
    """NaN and infinities are where they should be, and the rest is close."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    bound = activation_bound(expected[finite], expected[finite], 1, dtype)
    assert_within(actual[finite], expected[finite], bound)


@every_case
def test_activation_of_nan_infinity_and_large_numbers_equals_the_reference(backend, dtype, case):
    z = np.tile(special(dtype), (40, 1))
    keywords = case.keywords(z.shape[-1], dtype)
    y, saved, grad_z = oracle(case, z, np.ones_like(z), keywords)[:3]
    assert_limits(fa.activation(z, case.name, **keywords), y, dtype)
    grads = as_tuple(fa.activation_backward(np.ones_like(z), saved, case.name, **keywords))
    assert_limits(grads[0], grad_z, dtype)


INFINITE = {  # y and the derivative at -infinity, then both at infinity
    "softsign": (-1, 0, 1, 0),
    "hardswish": (0, 0, np.inf, 1),
    "hardsigmoid": (0, 0, 1, 0),
    "hardtanh": (-1, 0, 1, 0),
    "relu6": (0, 0, 6, 0),
    "logsigmoid": (-np.inf, 1, 0, 0),
    "silu": (0, 0, np.inf, 1),
    "softplus": (0, 0, np.inf, 1),
}


@pytest.mark.parametrize("name", INFINITE)
def test_activation_at_infinity_is_its_limit(backend, dtype, name):
    z = np.tile(np.array([-np.inf, np.inf], dtype), 20)
    y = fa.activation(z, name)
    saved = y if name in SAVES_Y else z
    grad_z = fa.activation_backward(np.ones_like(z), saved, name)
    np.testing.assert_array_equal(
        np.stack([y, grad_z], axis=-1).reshape(20, 4), np.tile(INFINITE[name], (20, 1))
    )


AT_KINKS = {  # z: y and the derivative, as PyTorch defines them
    "hardswish": {-3: (0, 0), -1.5: (-0.375, 0), 3: (3, 1)},
    "hardsigmoid": {-3: (0, 0), 0: (0.5, 1 / 6), 3: (1, 0)},
    "hardtanh": {-1: (-1, 0), 0: (0, 1), 1: (1, 0)},
    "relu6": {0: (0, 0), 3: (3, 1), 6: (6, 0)},
}


@pytest.mark.parametrize("name", AT_KINKS)
def test_activation_at_a_kink_equals_pytorchs(backend, dtype, name):
    z = np.tile(np.array(list(AT_KINKS[name]), dtype), 20)
    y = fa.activation(z, name)
    grad_z = fa.activation_backward(np.ones_like(z), y if name in SAVES_Y else z, name)
    expected = np.tile(np.array(list(AT_KINKS[name].values()), dtype), (20, 1))
    np.testing.assert_array_equal(y, expected[:, 0])
    np.testing.assert_array_equal(grad_z, expected[:, 1])


@pytest.mark.parametrize("name", ["hardswish", "hardsigmoid", "hardtanh", "relu6"])
def test_infinite_gradient_where_an_activation_is_constant_becomes_zero(backend, dtype, name):
    z = np.full(40, -8, dtype)
    saved = fa.activation(z, name) if name in SAVES_Y else z
    grad_y = np.full(40, np.inf, dtype)
    np.testing.assert_array_equal(fa.activation_backward(grad_y, saved, name), np.zeros(40))


@every_case
def test_infinite_gradient_at_an_infinite_z_equals_the_reference(backend, dtype, case):
    """Where the derivative is 0, the product is NaN."""
    z = np.repeat(np.tile(np.array([-np.inf, np.inf], dtype), 20), 2).reshape(-1, 2)
    grad_y = np.tile(np.array([-np.inf, np.inf], dtype), (40, 1))
    keywords = case.keywords(2, dtype)
    _, saved, grad_z = oracle(case, z, grad_y, keywords)[:3]
    grads = as_tuple(fa.activation_backward(grad_y, saved, case.name, **keywords))
    assert_limits(grads[0], grad_z, dtype)


@pytest.mark.parametrize("name", ["hardswish", "hardsigmoid", "hardtanh", "relu6", "softsign"])
def test_activation_of_large_numbers_does_not_overflow(backend, dtype, name):
    largest = np.finfo(dtype).max
    z = np.tile(np.array([-largest, largest], dtype), 20)
    expected = {"hardswish": (0, largest), "hardsigmoid": (0, 1), "hardtanh": (-1, 1), "relu6": (0, 6)}
    np.testing.assert_array_equal(fa.activation(z, name), np.tile(expected.get(name, (-1, 1)), 20))


def test_derivative_of_relu_at_zero_is_zero(backend, dtype):
    grad_z = fa.activation_backward(np.ones(40, dtype), np.zeros(40, dtype), "relu")
    assert not grad_z.any()


def test_relu_backward_of_an_infinite_gradient_at_zero_is_zero(backend, dtype):
    grad_y = np.full(40, np.inf, dtype)
    np.testing.assert_array_equal(fa.activation_backward(grad_y, np.zeros(40, dtype), "relu"), np.zeros(40))


# ---- derivatives


@every_case
def test_derivative_equals_finite_differences(backend, case):
    # Truncation leaves step^2 / 6 times the third derivative, under 10 for all of them; rounding leaves
    # ULPS eps |y| / step.  The kinks are more than a step away.
    z = np.linspace(-4, 4, 68).reshape(-1, 4)
    step = 1e-5
    assert abs(z[..., np.newaxis] - KINKS).min() > step
    keywords = case.keywords(4, np.float64)
    slope = (
        fa.activation(z + step, case.name, **keywords) - fa.activation(z - step, case.name, **keywords)
    ) / (2 * step)
    saved = fa.activation(z, case.name, **keywords) if case.name in SAVES_Y else z
    grad_z = as_tuple(fa.activation_backward(np.ones_like(z), saved, case.name, **keywords))[0]
    assert_within(grad_z, slope, 10 * step**2 / 6 + 8 * 2.3e-16 * 5 / step)


@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=str)
def test_grad_slope_equals_finite_differences(backend, shape, rng):
    # y is linear in the slope: rounding alone, ULPS eps |loss| / step.
    z, grad_y = normal(rng, (9, 4), np.float64), normal(rng, (9, 4), np.float64)
    slope = np.full(shape, 0.3)
    _, grad_slope = fa.activation_backward(grad_y, z, "prelu", slope=slope)
    assert grad_slope.shape == shape
    step = 1e-5
    for index in np.ndindex(shape):
        losses = []
        for moved in (0.3 + step, 0.3 - step):
            slope[index] = moved
            losses.append(float((fa.activation(z, "prelu", slope=slope) * grad_y).sum()))
        slope[index] = 0.3
        tolerance = 8 * 2.3e-16 * abs(grad_y * z).sum() / step
        assert abs((losses[0] - losses[1]) / (2 * step) - grad_slope[index]) <= tolerance


@pytest.mark.parametrize("alpha", [1e-30, 1e-25, 1e-18, 1e18, 1e30])
def test_elu_backward_of_small_and_large_alpha_is_accurate(backend, dtype, alpha):
    z = np.array([0, -1e-3, -1, -10, -30], dtype)
    grad_z = fa.activation_backward(np.ones_like(z), z, "elu", alpha=alpha)
    expected = alpha * np.exp(z.astype(np.float64))
    subnormal = np.finfo(dtype).smallest_subnormal.astype(np.float64)
    np.testing.assert_allclose(grad_z, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * subnormal)


def test_elu_of_the_largest_alpha_is_accurate(backend, dtype):
    rtol = 10 * np.finfo(dtype).eps  # of at most 10 roundings, as in bench/accuracy/limits.json
    alpha = float(np.finfo(dtype).max)
    z = np.array([-1e-30, -0.1, -0.4, -0.7, -2, -30], dtype)
    exact = z.astype(np.longdouble)
    y, grad_z = fa.elu(z, alpha), fa.elu_backward(np.ones_like(z), z, alpha)
    np.testing.assert_allclose(y, (alpha * np.expm1(exact)).astype(dtype), rtol=rtol)
    np.testing.assert_allclose(grad_z, (alpha * np.exp(exact)).astype(dtype), rtol=rtol)


# ---- shapes, layouts, out


@every_case
def test_activation_keeps_any_shape_and_its_error_bound(backend, dtype, case, rng):
    for shape in ((), (0,), (1,), (5, 0), (0, 5), (33, 7), (2, 3, 17), (3, 40000)):
        z, grad_y = (np.asarray(normal(rng, shape, dtype)) for _ in range(2))  # an array without axes too
        keywords = case.keywords(shape[-1] if shape else 1, dtype)
        expected, saved, derivative = oracle(case, z, np.ones_like(z), keywords)[:3]
        y = fa.activation(z, case.name, **keywords)
        assert y.shape == shape
        assert_within(y, expected, activation_bound(z.astype(np.float64), expected, derivative, dtype))
        grad_z = as_tuple(fa.activation_backward(grad_y, saved, case.name, **keywords))[0]
        assert grad_z.shape == shape
        assert_within(grad_z, grad_y.astype(np.float64) * derivative, derivative_bound(grad_y, dtype))


@INPUT_LAYOUTS
@every_case
def test_activation_of_any_input_layout_has_the_same_bits(backend, case, layout, rng):
    z, grad_y = normal(rng, (9, 35), np.float32), normal(rng, (9, 35), np.float32)
    keywords = case.keywords(35, np.float32)
    awkward = {k: layout(v) if np.ndim(v) else v for k, v in keywords.items()}
    y = fa.activation(z, case.name, **keywords)
    np.testing.assert_array_equal(fa.activation(layout(z), case.name, **awkward), y)
    saved = y if case.name in SAVES_Y else z
    expected = fa.activation_backward(grad_y, saved, case.name, **keywords)
    results = fa.activation_backward(layout(grad_y), layout(saved), case.name, **awkward)
    for result, wanted in zip(as_tuple(results), as_tuple(expected), strict=True):
        np.testing.assert_array_equal(result, wanted)


@OUT_LAYOUTS
def test_activation_out_of_any_layout_receives_the_result(backend, dtype, layout, rng):
    z, grad_y = normal(rng, (9, 35), dtype), normal(rng, (9, 35), dtype)
    for form in (lambda array: array, lambda array: (array,)):
        y, grad_z = layout((9, 35), dtype), layout((9, 35), dtype)
        assert fa.activation(z, "silu", out=form(y)) is y
        assert fa.activation_backward(grad_y, z, "silu", out=form(grad_z)) is grad_z
        np.testing.assert_array_equal(y, fa.activation(z, "silu"))
        np.testing.assert_array_equal(grad_z, fa.activation_backward(grad_y, z, "silu"))


@OUT_LAYOUTS
@pytest.mark.parametrize("shape", [(), (1,), (35,)], ids=str)
def test_grad_slope_goes_to_out_and_accumulates(backend, dtype, layout, shape, rng):
    z, grad_y = normal(rng, (9, 35), dtype), normal(rng, (9, 35), dtype)
    slope = np.full(shape, 0.25, dtype)
    grad_z, grad_slope = fa.activation_backward(grad_y, z, "prelu", slope=slope)
    out = layout((9, 35), dtype), np.asarray(layout(shape, dtype))
    results = fa.activation_backward(grad_y, z, "prelu", slope=slope, out=out)
    assert all(result is given for result, given in zip(results, out, strict=True))
    np.testing.assert_array_equal(out[0], grad_z)
    np.testing.assert_array_equal(out[1], grad_slope)

    out[1][...] = 99
    fa.activation_backward(grad_y, z, "prelu", slope=slope, out=(None, out[1]), accumulate=True)
    np.testing.assert_array_equal(out[1], grad_slope + dtype.type(99))


@every_case
def test_activation_in_place_has_the_same_bits(backend, dtype, case, rng):
    z, grad_y = normal(rng, (9, 35), dtype), normal(rng, (9, 35), dtype)
    keywords = case.keywords(35, dtype)
    y = fa.activation(z, case.name, **keywords)
    saved = y.copy() if case.name in SAVES_Y else z.copy()
    expected = as_tuple(fa.activation_backward(grad_y, saved, case.name, **keywords))
    assert fa.activation(z, case.name, out=z, **keywords) is z
    np.testing.assert_array_equal(z, y)
    for target in (0, 1):
        inputs = grad_y.copy(), saved.copy()
        out = (inputs[target], None)[: len(expected)]
        results = as_tuple(fa.activation_backward(*inputs, case.name, out=out, **keywords))
        assert results[0] is inputs[target]
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted)


@every_case
def test_activation_at_any_offset_in_a_cache_line_has_the_same_bits(compiled, dtype, case, rng):
    """Kernels join cache lines: results are the same wherever the arrays begin, in place as well."""
    for size in (1, 15, 16, 33, 47, 48, 49, 150):
        z, grad_y = normal(rng, size, dtype), normal(rng, size, dtype)
        keywords = case.keywords(size, dtype)
        y = fa.activation(z, case.name, **keywords)
        grad_z = as_tuple(fa.activation_backward(grad_y, z, case.name, **keywords))[0]
        for start in range(64 // dtype.itemsize):
            room = np.full((2, 16 + size + 16), np.nan, dtype)
            first, second = room[0, start : start + size], room[1, 15 - start // 2 :][:size]
            first[:], second[:] = z, grad_y
            result = as_tuple(fa.activation_backward(second, first, case.name, **keywords))[0]
            np.testing.assert_array_equal(result, grad_z)
            fa.activation(first, case.name, out=first, **keywords)
            np.testing.assert_array_equal(first, y)
            assert np.isnan(np.delete(room[0], np.arange(start, start + size))).all()


def test_activation_in_place_in_a_strided_array_has_the_same_bits(backend, dtype, rng):
    z = normal(rng, (9, 70), dtype)
    expected = fa.activation(z[:, ::-2].copy(), "silu")
    view = z[:, ::-2]
    assert fa.activation(view, "silu", out=view) is view
    np.testing.assert_array_equal(view, expected)


def test_accumulate_without_a_parameter_changes_nothing(backend, dtype):
    ones = np.ones(5, dtype)
    np.testing.assert_array_equal(fa.activation_backward(ones, ones, "relu", accumulate=True), ones)
