"""layer_norm, its backward and the layer: every backend and instruction set against extended precision."""

from __future__ import annotations

import copy
import itertools
import pickle

import mpmath
import numpy as np
import pytest
from support.differences import TOLERANCE, differences
from support.inputs import normal
from support.layer_norm import assert_backward, assert_forward
from support.layouts import INPUT_LAYOUTS, OUT_LAYOUTS
from support.tolerance import assert_same_bits
from support.variants import needs_c

import fastact as fa
from bench.accuracy.layer_norm import moments
from fastact import backends

F32 = np.float32
EPS = 1e-5
# Every kind of rest of a vector, more than a block of 1024 elements, and several cuts of the rows.
SIZES = [
    (0, 5), (1, 1), (5, 1), (7, 3), (3, 7), (3, 8), (9, 15), (3, 16), (9, 17), (2, 31), (33, 32), (4, 33),
    (130, 64), (300, 97), (20, 1000), (3, 1025), (2, 5000), (5000, 6),
]  # fmt: skip


def inputs(rng, size, dtype, mean=0.0, std=1.0):
    """x, weight, bias and grad_y."""
    features = size[1]
    x = (mean + std * rng.standard_normal(size)).astype(dtype)
    return x, normal(rng, features, dtype), normal(rng, features, dtype), normal(rng, size, dtype)


def assert_right(x, weight, bias, grad_y, backend, eps=EPS):
    y, saved = fa.layer_norm(x, weight, bias, eps)
    assert (y.shape, saved.shape) == (x.shape, (len(x), 2))
    assert_forward(x, weight, bias, eps, y, saved, backend)
    grads = fa.layer_norm_backward(grad_y, x, weight, saved)
    assert [grad.shape for grad in grads] == [x.shape, x.shape[1:], x.shape[1:]]
    assert {array.dtype for array in (y, saved, *grads)} == {x.dtype}
    assert_backward(grad_y, x, weight, eps, grads, backend)


# ---- values


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_layer_norm_of_every_size_is_within_the_error_bound(backend, dtype, size, rng):
    assert_right(*inputs(rng, size, dtype, 0.5), backend)


@pytest.mark.parametrize(
    ("mean", "std"), [(1e4, 1), (-3e6, 1), (1, 1e-6), (0, 1e-20), (0, 1e-42), (1e12, 1e11)]
)
def test_layer_norm_of_any_mean_and_deviation_is_within_the_error_bound(backend, dtype, mean, std, rng):
    for size in ((9, 3), (9, 97), (4, 1100)):
        assert_right(*inputs(rng, size, dtype, mean, std), backend)


@pytest.mark.parametrize("eps", [0.0, 1e-12, 0.5, 1e30])
def test_layer_norm_of_any_eps_is_within_the_error_bound(backend, dtype, eps, rng):
    assert_right(*inputs(rng, (9, 33), dtype), backend, eps)


def test_float32_row_far_from_zero_is_right_to_a_few_roundings(backend, rng):
    """With the mean alone, rounded to float32, y is off by 5e-4.

    Here |y| < 5, so that six roundings of y are 30 u, and the sum of 16 lanes of 64 terms has 22 u more.
    """
    x = inputs(rng, (50, 1000), F32, 1e4)[0]
    exact = moments(x, EPS, backend).normal
    assert abs(fa.layer_norm(x)[0] - exact).max() < 32 * np.finfo(F32).eps


def test_extended_precision_agrees_with_mpmath(dtype, rng):
    x = inputs(rng, (3, 17), dtype, 1e4)[0]
    m = moments(x, EPS, "numpy")
    bound = float(100 * np.finfo(np.longdouble).eps * 1e4)
    with mpmath.workdps(50):
        for row, normals in zip(x, m.normal, strict=True):
            values = [mpmath.mpf(float(value)) for value in row]
            mean = mpmath.fsum(values) / len(values)
            variance = mpmath.fsum((value - mean) ** 2 for value in values) / len(values)
            for value, found in zip(values, normals, strict=True):
                exact = (value - mean) / mpmath.sqrt(variance + mpmath.mpf(EPS))
                high = float(found)
                assert abs(mpmath.mpf(high) + mpmath.mpf(float(found - high)) - exact) < bound


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e8, 1e30, 1e-40])
@pytest.mark.parametrize("features", [1, 3, 17, 1000, 1025])
def test_row_of_equal_numbers_gives_the_bias(backend, dtype, value, features, rng):
    _, weight, bias, grad_y = inputs(rng, (3, features), dtype)
    x = np.full((3, features), value, dtype)
    y, saved = fa.layer_norm(x, weight, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, y.shape))
    np.testing.assert_array_equal(saved[:, 0], x[:, 0])
    np.testing.assert_allclose(saved[:, 1], EPS**-0.5, rtol=4 * np.finfo(dtype).eps)
    assert not fa.layer_norm_backward(grad_y, x, weight, saved)[1].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [0, 16, 40])
def test_row_with_nan_or_infinity_becomes_nan_and_no_other_row(backend, dtype, value, place, rng):
    x, weight, bias, grad_y = inputs(rng, (7, 41), dtype)
    expected, saved = fa.layer_norm(x, weight, bias)
    expected_grads = fa.layer_norm_backward(grad_y, x, weight, saved)
    x[3, place] = value
    y, saved = fa.layer_norm(x, weight, bias)
    grads = fa.layer_norm_backward(grad_y, x, weight, saved)
    others = np.arange(7) != 3
    for result, wanted in ((y, expected), (grads[0], expected_grads[0])):
        assert np.isnan(result[3]).all()
        assert_same_bits(result[others], wanted[others])
    assert np.isnan(grads[1]).all()
    assert_same_bits(grads[2], expected_grads[2])


def test_layer_norm_without_weight_and_bias_has_ones_and_zeros(backend, dtype, rng):
    x, weight, bias, grad_y = inputs(rng, (9, 37), dtype)
    ones, zeros = np.ones_like(weight), np.zeros_like(bias)
    for given in itertools.product((None, weight), (None, bias)):
        y, saved = fa.layer_norm(x, *given)
        filled = [fill if array is None else array for array, fill in zip(given, (ones, zeros), strict=True)]
        np.testing.assert_array_equal(y, fa.layer_norm(x, *filled)[0])
        grads = fa.layer_norm_backward(grad_y, x, given[0], saved)
        for grad, wanted in zip(grads, fa.layer_norm_backward(grad_y, x, filled[0], saved), strict=True):
            np.testing.assert_array_equal(grad, wanted)


@pytest.mark.parametrize("size", [(600, 300), (40, 5000), (20000, 3), (100, 700)], ids=str)
def test_layer_norm_of_any_threads_has_the_same_bits(compiled, dtype, size, rng):
    x, weight, bias, grad_y = inputs(rng, size, dtype)
    results = []
    for threads in (1, 2, 3):
        with fa.num_threads(threads):
            y, saved = fa.layer_norm(x, weight, bias)
            results.append((y, saved, *fa.layer_norm_backward(grad_y, x, weight, saved)))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_row_has_the_same_bits_in_any_batch(backend, dtype, rng):
    x, weight, bias, grad_y = inputs(rng, (300, 45), dtype)
    y, saved = fa.layer_norm(x, weight, bias)
    grad_x = fa.layer_norm_backward(grad_y, x, weight, saved)[0]
    for rows in (slice(1), slice(7, 9), slice(250, 300)):
        part, part_saved = fa.layer_norm(x[rows], weight, bias)
        assert_same_bits((part, part_saved), (y[rows], saved[rows]))
        assert_same_bits(fa.layer_norm_backward(grad_y[rows], x[rows], weight, part_saved)[0], grad_x[rows])


# ---- needs, out, accumulate, layouts


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3), (2, 0, 3), (2, 1, 3, 1)], ids=str)
def test_layer_norm_keeps_any_leading_shape(backend, dtype, lead, rng):
    x, weight, bias, grad_y = inputs(rng, (int(np.prod(lead)), 5), dtype)
    y, saved = fa.layer_norm(x.reshape(*lead, 5), weight, bias)
    grads = fa.layer_norm_backward(grad_y.reshape(*lead, 5), x.reshape(*lead, 5), weight, saved)
    assert (y.shape, saved.shape, grads[0].shape) == ((*lead, 5), (*lead, 2), (*lead, 5))
    flat_y, flat_saved = fa.layer_norm(x, weight, bias)
    assert_same_bits(y.reshape(-1, 5), flat_y)
    flat_grads = fa.layer_norm_backward(grad_y, x, weight, flat_saved)
    assert_same_bits((grads[0].reshape(-1, 5), *grads[1:]), flat_grads)


def test_layer_norm_without_saved_has_the_same_y(backend, dtype, rng):
    x, weight, bias, _ = inputs(rng, (9, 37), dtype)
    y, saved = fa.layer_norm(x, weight, bias, return_saved=False)
    assert saved is None
    assert_same_bits(y, fa.layer_norm(x, weight, bias)[0])


def test_layer_norm_backward_computes_only_what_is_needed(backend, dtype, rng):
    x, weight, bias, grad_y = inputs(rng, (300, 37), dtype)
    _, saved = fa.layer_norm(x, weight, bias)
    every = fa.layer_norm_backward(grad_y, x, weight, saved)
    for needs in itertools.product((False, True), repeat=3):
        some = fa.layer_norm_backward(grad_y, x, weight, saved, needs=needs)
        assert_same_bits(some, tuple(grad if need else None for need, grad in zip(needs, every, strict=True)))


@OUT_LAYOUTS
def test_layer_norm_out_of_any_layout_receives_the_result(backend, dtype, layout, rng):
    x, weight, bias, grad_y = inputs(rng, (9, 37), dtype)
    out = layout((9, 37), dtype), layout((9, 2), dtype)
    results = fa.layer_norm(x, weight, bias, out=out)
    assert all(result is given for result, given in zip(results, out, strict=True))
    assert_same_bits(results, expected := fa.layer_norm(x, weight, bias))
    out = layout((9, 37), dtype), layout((37,), dtype), layout((37,), dtype)
    grads = fa.layer_norm_backward(grad_y, x, weight, expected[1], out=out)
    assert all(grad is given for grad, given in zip(grads, out, strict=True))
    assert_same_bits(grads, fa.layer_norm_backward(grad_y, x, weight, expected[1]))


@OUT_LAYOUTS
@pytest.mark.parametrize("rows", [0, 5, 700])
def test_layer_norm_accumulate_adds_the_finished_sum(backend, dtype, layout, rows, rng):
    x, weight, bias, grad_y = inputs(rng, (rows, 37), dtype)
    _, saved = fa.layer_norm(x, weight, bias)
    sums = fa.layer_norm_backward(grad_y, x, weight, saved)
    out = layout((rows, 37), dtype), layout((37,), dtype), layout((37,), dtype)
    fa.layer_norm_backward(grad_y, x, weight, saved, out=out, accumulate=True)
    assert_same_bits(out[0], sums[0])
    for given, total in zip(out[1:], sums[1:], strict=True):
        np.testing.assert_array_equal(given, total + dtype.type(99))


@INPUT_LAYOUTS
def test_layer_norm_of_any_input_layout_has_the_same_bits(backend, dtype, layout, rng):
    x, weight, bias, grad_y = inputs(rng, (9, 37), dtype)
    expected = fa.layer_norm(x, weight, bias)
    assert_same_bits(fa.layer_norm(layout(x), layout(weight), layout(bias)), expected)
    grads = fa.layer_norm_backward(layout(grad_y), layout(x), layout(weight), layout(expected[1]))
    assert_same_bits(grads, fa.layer_norm_backward(grad_y, x, weight, expected[1]))


@needs_c
def test_kernels_work_in_place(dtype, rng):
    from fastact.backends import c

    x, weight, bias, grad_y = inputs(rng, (300, 37), dtype)
    before = c.isa()
    try:
        for isa in c.supported_isas():
            c.set_isa(isa)
            y, saved = fa.layer_norm(x, weight, bias, backend="c")
            grads = fa.layer_norm_backward(grad_y, x, weight, saved, backend="c")
            in_place, kept = x.copy(), np.empty_like(saved)
            c.layer_norm(in_place, weight, bias, EPS, in_place, kept)
            assert_same_bits((in_place, kept), (y, saved))
            grad = grad_y.copy()
            c.layer_norm_backward(grad, x, weight, saved, grad, in_place[0], in_place[1])
            assert_same_bits((grad, in_place[0], in_place[1]), grads)
    finally:
        c.set_isa(before)


# ---- errors


def message_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


X, ONES, GRAD = np.ones((4, 3), F32), np.ones(3, F32), np.ones((4, 3), F32)
SAVED = np.ones((4, 2), F32)


NORM, BACKWARD, LAYER = fa.layer_norm, fa.layer_norm_backward, fa.LayerNorm


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: NORM(X[:, :0]), ValueError, "x: got shape (4, 0), wanted (..., features) with at least one"),
        (lambda: NORM(np.array(1, F32)), ValueError, "x: got shape (), wanted (..., features) with at least"),
        (lambda: NORM(X[:, :2], ONES), ValueError, "x: got shape (4, 2), wanted (..., 3) to match weight"),
        (lambda: NORM(X, X), ValueError, "weight: got shape (4, 3), wanted (features,)"),
        (lambda: NORM(X, None, ONES[:2]), ValueError, "bias: got shape (2,), wanted (3,)"),
        (lambda: NORM(X.astype("d"), ONES), TypeError, "x: got dtype float64, wanted float32: try"),
        (lambda: NORM(X, ONES.astype("d")), TypeError, "weight: got dtype float64, wanted float32: try"),
        (lambda: NORM(X, bias=ONES.astype("d")), TypeError, "bias: got dtype float64, wanted float32"),
        (lambda: NORM(X, eps=-1), ValueError, "eps: got -1, wanted a number from 0 to 3.4e+38"),
        (lambda: NORM(X, eps=np.nan), ValueError, "eps: got nan, wanted a number from 0"),
        (lambda: NORM(X, eps=1e39), ValueError, "eps: got 1e+39, wanted a number from 0"),
        (lambda: NORM(X, eps="1"), TypeError, "eps: got '1', wanted a number"),
        (lambda: BACKWARD(GRAD[:2], X, ONES, SAVED), ValueError, "grad_y: got shape (2, 3), wanted (4, 3)"),
        (lambda: BACKWARD(GRAD, X, ONES, GRAD), ValueError, "saved: got shape (4, 3), wanted (4, 2)"),
        (lambda: BACKWARD(GRAD, X, ONES, None), TypeError, "saved: got NoneType, wanted a numpy.ndarray"),
        (lambda: LAYER(0), ValueError, "features: got 0, wanted 1 or more"),
        (lambda: LAYER(3.0), TypeError, "features: got 3.0, wanted an int"),
        (lambda: LAYER((3, 4)), TypeError, "features: got (3, 4), wanted an int"),
        (lambda: LAYER(3, -1.0), ValueError, "eps: got -1.0, wanted a number from 0"),
        (lambda: LAYER(3, 1e39), ValueError, "eps: got 1e+39, wanted a number from 0"),
        (lambda: LAYER(3, bias=None), TypeError, "bias: got None, wanted True or False"),
        (lambda: LAYER(3, dtype=np.float16), TypeError, "dtype: got float16, wanted float32 or float64"),
        (lambda: LAYER(3)(X.tolist()), TypeError, "x: got list, wanted a numpy.ndarray: try"),
        (lambda: LAYER(3)(X.astype("d")), TypeError, "x: got dtype float64, wanted float32"),
        (lambda: LAYER(5)(X), ValueError, "x: got shape (4, 3), wanted (..., 5) to match weight"),
    ],
)
def test_invalid_argument_is_refused_by_name(call, kind, message):
    assert message_of(kind, call).startswith(message)


# ---- the layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (6, 5), (2, 3, 5)], ids=str)
def test_layer_norm_gradients_equal_finite_differences(each_backend, rng, bias, shape):
    model = fa.Sequential(fa.LayerNorm(5, 0.5, bias, dtype=np.float64), fa.Activation("tanh"))
    for parameter in model.parameters():
        parameter.data[...] = rng.standard_normal(parameter.data.shape)
    x, weights = rng.standard_normal(shape), rng.standard_normal(shape)

    def loss():
        return float(np.sum(weights * model(x, training=True)))

    loss()
    grad_x = model.backward(weights)
    grads = [parameter.grad.copy() for parameter in model.parameters()]
    for grad, array in zip((grad_x, *grads), (x, *(p.data for p in model.parameters())), strict=True):
        np.testing.assert_allclose(grad, differences(loss, array), rtol=TOLERANCE, atol=TOLERANCE)


def test_layer_starts_as_the_function_without_parameters(each_backend, dtype, rng):
    x = inputs(rng, (9, 37), dtype, 3)[0]
    for layer in (fa.LayerNorm(37, 0.1, dtype=dtype), fa.LayerNorm(37, 0.1, False, dtype=dtype)):
        np.testing.assert_array_equal(layer(x), fa.layer_norm(x, eps=0.1)[0])
        np.testing.assert_array_equal(layer(x, training=True), layer(x))


def test_layer_parameters_have_names_and_no_decay():
    layer = fa.LayerNorm(4)
    parameters = {name: (p.data.tolist(), p.decay) for name, p in layer.named_parameters()}
    assert parameters == {"weight": ([1] * 4, False), "bias": ([0] * 4, False)}
    assert [name for name, _ in fa.LayerNorm(4, bias=False).named_parameters()] == ["weight"]


def test_layer_repr_shows_its_arguments():
    assert repr(fa.LayerNorm(4)) == "LayerNorm(4)"
    other = fa.LayerNorm(4, 0.1, False, dtype=np.float64)
    assert repr(other) == "LayerNorm(4, eps=0.1, bias=False, dtype=float64)"


def test_layer_backward_overwrites_accumulates_and_skips_the_input(each_backend, rng):
    layer = fa.LayerNorm(5, dtype=np.float64)
    x, _, _, grad_y = inputs(rng, (6, 5), np.float64)
    layer(x, training=True)
    grad_x = layer.backward(grad_y)
    first = [parameter.grad.copy() for parameter in layer.parameters()]
    arrays = [parameter.grad for parameter in layer.parameters()]
    layer(x, training=True)
    assert layer.backward(grad_y, needs_input_grad=False) is None
    layer(x, training=True)
    assert_same_bits(layer.backward(grad_y, accumulate=True), grad_x)
    for parameter, array, grad in zip(layer.parameters(), arrays, first, strict=True):
        assert parameter.grad is array
        np.testing.assert_array_equal(parameter.grad, grad + grad)


def test_layer_backward_of_an_invalid_gradient_leaves_the_layer_ready():
    layer = fa.LayerNorm(3)
    layer(X, training=True)
    assert (
        message_of(ValueError, lambda: layer.backward(GRAD[:2])) == "grad_y: got shape (2, 3), wanted (4, 3)"
    )
    assert message_of(TypeError, lambda: layer.backward(GRAD.astype("d"))).startswith(
        "grad_y: got dtype float64"
    )
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert layer.backward(GRAD).shape == X.shape


def test_layer_in_a_sequential_is_checked_against_its_neighbours():
    wanted = "layers[1], LayerNorm(5): in_features: got 5, wanted 3 to match layers[0], Linear(4, 3)"
    assert message_of(ValueError, lambda: fa.Sequential(fa.Linear(4, 3), fa.LayerNorm(5))) == wanted
    assert message_of(ValueError, lambda: fa.Sequential(fa.LayerNorm(5), fa.Linear(4, 3))).startswith(
        "layers[1]"
    )
    message = message_of(TypeError, lambda: fa.Sequential(fa.Linear(4, 3), fa.LayerNorm(3, dtype=np.float64)))
    assert message.startswith("layers[1], LayerNorm(3, dtype=float64): dtype: got float64, wanted float32")
    message = message_of(ValueError, lambda: fa.Sequential(fa.LayerNorm(5))(X))
    assert message == "layers[0], LayerNorm(5): x: got shape (4, 3), wanted (..., 5) to match weight"


@pytest.mark.parametrize("value", [None, [1.0], np.ones(3, int), np.ma.ones(3, F32)], ids=repr)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_layer_refuses_data_that_is_not_a_float_array(name, value):
    layer, waiting = fa.LayerNorm(3), fa.LayerNorm(3)
    waiting(X, training=True)
    for changed in (layer, waiting):
        getattr(changed, name).data = value
    for call in (
        lambda: layer(X),
        layer.state_dict,
        lambda: fa.summary(layer),
        lambda: waiting.backward(GRAD),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"\b(grad_)?{name}\b.*: got .*, wanted"):
            call()
    assert isinstance(repr(fa.Sequential(layer, fa.Sequential())), str)


def test_layer_is_saved_loaded_copied_and_pickled(tmp_path, rng):
    def model(seed):
        made = fa.Sequential(fa.Linear(3, 4, rng=seed), fa.LayerNorm(4), fa.Linear(4, 2, rng=seed))
        made[1].weight.data[...] = np.random.default_rng(seed).standard_normal(4)
        return made

    one, other, third = model(1), model(2), model(3)
    fa.save(tmp_path / "run.npz", model=one)
    fa.load(tmp_path / "run.npz", model=other)
    third.load_state_dict(one.state_dict())
    for twin in (other, third, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert_same_bits(twin(X), one(X))
    assert list(one.state_dict()) == [f"{i}.{name}" for i in range(3) for name in ("weight", "bias")]


def test_summary_shows_the_layer():
    for table in (fa.summary(fa.LayerNorm(3), (4, 3)), fa.summary(fa.Sequential(fa.LayerNorm(3)), (4, 3))):
        assert [row[1:] for row in table.rows] == [("LayerNorm(3)", "(4, 3)", 6, 24)]
    assert fa.summary(fa.LayerNorm(3)).rows[0].output_shape == "(..., 3)"


def test_layer_is_not_piecewise_linear():
    model = fa.Sequential(fa.Linear(3, 3), fa.LayerNorm(3))
    for call in (fa.linear_region, lambda m, x: fa.region_boundaries(m, x, 2 * x)):
        message = message_of(ValueError, lambda: call(model, X[0]))  # noqa: B023
        assert message.startswith(
            "model: got layers[1], LayerNorm(3), wanted layers that are piecewise linear"
        )


def test_layer_trains_to_reproduce_another(each_backend, rng):
    teacher, student = (fa.Sequential(fa.LayerNorm(6), fa.Linear(6, 2, rng=0)) for _ in range(2))
    teacher[0].weight.data[...], teacher[0].bias.data[...] = 2, 1
    x = inputs(rng, (64, 6), F32, 5)[0]
    optimizer = fa.Adam(student.parameters(), lr=0.05)
    losses = []
    for _ in range(200):
        loss, grad = fa.mse(student(x, training=True), teacher(x))
        student.backward(grad, needs_input_grad=False)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.skipif(backends.why_c_is_missing() is not None, reason="needs the C extension")
def test_layer_of_a_large_batch_uses_threads_with_the_same_bits(rng):
    layer = fa.LayerNorm(256)
    x, _, _, grad_y = inputs(rng, (2000, 256), F32)
    results = []
    for threads in (1, 2):
        with fa.num_threads(threads):
            y = layer(x, training=True)
            results.append((y, layer.backward(grad_y), layer.weight.grad.copy(), layer.bias.grad.copy()))
    assert_same_bits(*results)
