"""`freeze`: what the layers compute, of one row the same bits in any batch, and nothing that changes."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from support.cases import CASES
from support.inputs import normal, reference
from support.layouts import INPUT_LAYOUTS, OUT_LAYOUTS
from support.networks import assert_computes
from support.processes import output_of
from support.shapes import SHAPES
from support.tolerance import assert_same_bits, assert_within, sum_bound
from support.variants import COMPILED_BACKENDS, needs_fork, needs_plain_build, needs_proc

import fastact as fa

F32 = np.float32
SAME_BITS = [
    (1, 288, 96, 3),
    (50, 784, 33, 5),
    (29, 513, 70, 2),
    (17, 4, 260, 1),
    (30, 40, 31, 9),
    (26, 1030, 5, 4),
    (9, 300, 3, 1),
]


def maxout(shape, dtype, rng, **keywords):
    _, in_features, out_features, pieces = shape
    layer = fa.Maxout(in_features, out_features, pieces, rng=rng, dtype=dtype, **keywords)
    if layer.bias is not None:
        layer.bias.data[...] = normal(rng, layer.bias.data.shape, dtype)
    return layer


def network(dtype=np.float32, rng=0):
    rng = np.random.default_rng(rng)
    return fa.Sequential(
        fa.Maxout(20, 33, pieces=3, rng=rng, dtype=dtype),
        fa.Dropout(0.5),
        fa.Sequential(fa.Linear(33, 18, activation="silu", rng=rng, dtype=dtype), fa.Dropout(0.2)),
        fa.PReLU(18, dtype=dtype),
        fa.Activation("leaky_relu", negative_slope=0.5),
        fa.Linear(18, 10, bias=False, rng=rng, dtype=dtype),
    )


# ---- what it computes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_frozen_maxout_is_within_the_error_bound(compiled, dtype, threads, rng, shape):
    layer = maxout(shape, dtype, rng)
    x = normal(rng, (shape.rows, shape.in_features), dtype)
    weight, bias = layer.weight.data, layer.bias.data
    expected, _ = reference("linear_maxout", x, weight, bias)
    magnitudes, _ = reference("linear_maxout", np.abs(x), np.abs(weight), np.abs(bias))
    y = fa.freeze(layer)(x)
    assert y.dtype == dtype
    assert y.shape == (shape.rows, shape.out_features)
    assert_within(y, expected, sum_bound(magnitudes, shape.in_features, dtype, compiled))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frozen_linear_with_each_activation_is_within_the_error_bound(backend, dtype, rng, case):
    keywords = case.keywords(21, dtype)
    layer = fa.Linear(17, 21, activation=case.name, rng=rng, dtype=dtype, **keywords)
    layer.bias.data[...] = normal(rng, 21, dtype)
    for rows in (1, 3, 40):
        assert_computes(fa.freeze(layer), layer, normal(rng, (rows, 17), dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frozen_activation_has_the_bits_of_the_layer(backend, dtype, rng, case):
    slopes = case.keywords(21, dtype).get("slope")
    if slopes is None:
        layer = fa.Activation(case.name, **case.parameters)
    else:
        layer = fa.PReLU(slopes.size, dtype=dtype)
        layer.slope.data[...] = slopes
    x = normal(rng, (5, 21), dtype)
    assert_same_bits(fa.freeze(layer)(x), layer(x))
    between = fa.Sequential(layer, fa.Linear(21, 4, rng=rng, dtype=dtype))
    assert_computes(fa.freeze(between), between, x)


def test_frozen_maxout_of_whole_numbers_is_exact(backend, dtype, threads, rng):
    layer = maxout((0, 300, 40, 3), dtype, rng)
    for parameter in layer.parameters():
        parameter.data[...] = rng.integers(-2, 3, parameter.data.shape)
    x = rng.integers(-2, 3, (37, 300)).astype(dtype)
    assert_same_bits(fa.freeze(layer)(x), layer(x))


def test_frozen_maxout_of_nan_infinity_and_ties_equals_the_reference(backend, dtype, rng):
    layer = maxout((0, 8, 19, 4), dtype, rng)
    for parameter in layer.parameters():
        parameter.data[...] = rng.integers(-2, 3, parameter.data.shape)  # no sum rounds
    x = rng.integers(-2, 3, (6, 8)).astype(dtype)
    x[0, 3], x[1, 2], x[2, 0] = np.nan, np.inf, -np.inf
    layer.weight.data[3, 2, 1] = layer.weight.data[5, 0, 1] = np.nan
    layer.weight.data[4] = layer.weight.data[4, 0]
    expected, _ = reference("linear_maxout", x, layer.weight.data, layer.bias.data)
    np.testing.assert_array_equal(fa.freeze(layer)(x), expected)


def test_frozen_network_is_within_the_error_bound(backend, dtype, rng):
    model = network(dtype)
    x = normal(rng, (30, 20), dtype)
    assert_computes(fa.freeze(model), model, x)


def test_frozen_batch_split_over_hidden_layers_has_the_same_bits(compiled, dtype, threads, rng):
    model = fa.Sequential(
        fa.Maxout(3, 2500, rng=rng, dtype=dtype),
        fa.PReLU(2500, dtype=dtype),
        fa.Linear(2500, 2, activation="tanh", rng=rng, dtype=dtype),
    )
    frozen = fa.freeze(model)
    x = normal(rng, (4099, 3), dtype)  # 32 MB hold 3072 rows of floats, 1024 of doubles
    expected = np.concatenate([frozen(part) for part in np.array_split(x, 7)])
    assert_same_bits(frozen(x), expected)


@pytest.mark.parametrize("model", [fa.Dropout(0.5), fa.Sequential(), fa.Sequential(fa.Dropout(0.5))])
def test_frozen_model_without_steps_returns_a_copy(each_backend, dtype, rng, model):
    x = normal(rng, (3, 4), dtype)
    y = fa.freeze(model)(x)
    assert_same_bits(y, x)
    assert not np.shares_memory(x, y)


def test_frozen_activation_keeps_any_shape(backend, dtype, rng):
    for layer in (fa.Activation("relu"), fa.PReLU(dtype=dtype)):
        frozen = fa.freeze(layer)
        for shape in ((), (3,), (0,), (2, 0), (2, 3, 4)):
            x = normal(rng, shape, dtype) if shape else np.array(-2, dtype)
            assert_same_bits(frozen(x), layer(x))


@pytest.mark.parametrize("leading", [(), (1,), (0,), (3,), (2, 3), (2, 0, 3), (1, 2, 1, 3)])
def test_frozen_network_keeps_any_leading_shape(backend, dtype, rng, leading):
    model = network(dtype)
    x = normal(rng, (*leading, 20), dtype)
    frozen = fa.freeze(model)
    assert frozen(x).shape == (*leading, 10)
    assert_computes(frozen, model, x)


@INPUT_LAYOUTS
def test_frozen_network_of_any_input_layout_has_the_same_bits(backend, dtype, rng, layout):
    frozen = fa.freeze(network(dtype))
    x = normal(rng, (7, 20), dtype)
    assert_same_bits(frozen(layout(x)), frozen(x))


@OUT_LAYOUTS
def test_frozen_out_of_any_layout_receives_the_result(backend, dtype, rng, layout):
    frozen = fa.freeze(network(dtype))
    x = normal(rng, (7, 20), dtype)
    out = layout((7, 10), dtype)
    assert frozen(x, out=out) is out
    assert_same_bits(np.ascontiguousarray(out), frozen(x))


# ---- the same bits


@pytest.mark.parametrize("shape", SAME_BITS, ids=lambda shape: "x".join(map(str, shape)))
def test_frozen_row_has_the_same_bits_in_any_batch(compiled, dtype, rng, shape):
    rows = 60
    model = fa.Sequential(
        maxout(shape, dtype, rng),
        fa.Linear(shape[2], 37, activation="tanh", rng=rng, dtype=dtype),
    )
    frozen = fa.freeze(model)
    x = normal(rng, (rows, shape[1]), dtype)
    with fa.num_threads(1):
        y = frozen(x)
    for threads in (1, 2):
        with fa.num_threads(threads):
            for size in (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 24, 25, 49):
                for first in (0, 1, rows - size):
                    assert_same_bits(frozen(x[first : first + size]), y[first : first + size])
            assert_same_bits(frozen(x), y)


# ---- a copy


def test_frozen_model_ignores_later_changes_of_parameters(each_backend, dtype, rng):
    model = network(dtype)
    x = normal(rng, (9, 20), dtype)
    frozen = fa.freeze(model)
    before = frozen(x)
    for parameter in model.parameters():
        parameter.data[...] = 7
    assert_same_bits(frozen(x), before)
    assert not np.array_equal(fa.freeze(model)(x), before)


def test_frozen_model_keeps_its_backend_and_instruction_set(compiled, dtype, rng):
    frozen = fa.freeze(network(dtype))
    x = normal(rng, (9, 20), dtype)
    before = frozen(x)
    name = fa.get_backend()
    with_others = []
    try:
        for other in ("numpy", *COMPILED_BACKENDS):
            fa.set_backend(other)
            with_others.append(frozen(x))
        if name == "c":
            from fastact.backends import c

            isa = c.isa()
            for other in c.supported_isas():
                c.set_isa(other)
                with_others.append(frozen(x))
            c.set_isa(isa)
    finally:
        fa.set_backend(name)
    assert frozen.backend == name
    for y in with_others:
        assert_same_bits(y, before)


@pytest.mark.parametrize("duplicate", [lambda f: pickle.loads(pickle.dumps(f)), copy.copy, copy.deepcopy])
def test_frozen_copy_and_pickle_have_the_same_bits(each_backend, dtype, rng, duplicate):
    frozen = fa.freeze(network(dtype))
    x = normal(rng, (9, 20), dtype)
    again = duplicate(frozen)
    assert_same_bits(again(x), frozen(x))
    assert repr(again) == repr(frozen)
    assert (again.in_features, again.out_features, again.dtype) == (20, 10, dtype)


def test_unpickled_frozen_uses_the_backend_in_force_or_its_own(rng):
    pytest.importorskip("numba")
    x = normal(rng, (9, 20), np.dtype(np.float32))
    data, bound = (
        pickle.dumps(fa.freeze(network(), backend=None)),
        pickle.dumps(fa.freeze(network(), backend="numba")),
    )
    try:
        fa.set_backend("numpy")
        assert pickle.loads(data).backend == "numpy"
        assert pickle.loads(bound).backend == "numba"
        assert_computes(pickle.loads(data), network(), x)
    finally:
        fa.set_backend(None)


def test_freeze_uses_the_backend_it_is_given(rng):
    x = normal(rng, (9, 20), np.dtype(np.float32))
    results = {name: fa.freeze(network(), backend=name) for name in ("numpy", *COMPILED_BACKENDS)}
    for name, frozen in results.items():
        assert frozen.backend == name
        assert_computes(frozen, network(), x)


@pytest.mark.parametrize("precision", [None, "highest", "high", "medium"])
def test_freeze_fixes_the_precision(compiled, rng, precision):
    model = fa.Sequential(fa.Maxout(40, 30, precision="high"), fa.Linear(30, 4))
    x = normal(rng, (9, 40), np.dtype(np.float32))
    with fa.float32_matmul_precision("medium"):
        frozen = fa.freeze(model, precision)
        tiers = [step.tier for step in frozen._steps]
        expected = frozen(x)
    assert tiers == (["high", "medium"] if precision is None else [precision] * 2)
    assert_same_bits(frozen(x), expected)


# ---- threads, processes, memory


@pytest.mark.parametrize("backend_name", COMPILED_BACKENDS)
def test_frozen_model_called_by_several_threads_has_the_same_bits(backend_name, rng):
    frozen = fa.freeze(network(), backend=backend_name)
    batches = [normal(rng, (rows, 20), np.dtype(np.float32)) for rows in (1, 3, 8, 40, 100, 257)]
    expected = [frozen(x) for x in batches]
    wrong = []

    def work(start):
        for i in range(200):
            k = (start + i) % len(batches)
            if frozen(batches[k]).tobytes() != expected[k].tobytes():
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


FORK = """
import os, warnings
import numpy as np, fastact as fa

warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks with threads around
fa.set_num_threads(2)
rng = np.random.default_rng(0)
frozen = fa.freeze(fa.Sequential(fa.Maxout(300, 129, pieces=3), fa.Linear(129, 70)), backend={backend!r})
x = rng.random((257, 300), np.float32)
expected = frozen(x).tobytes()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if frozen(x).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
assert frozen(x).tobytes() == expected
print("done")
"""


@needs_fork
@pytest.mark.parametrize("backend_name", COMPILED_BACKENDS)
def test_frozen_model_in_a_forked_child_has_the_same_bits(backend_name):
    assert output_of(FORK.format(backend=backend_name)) == "done\n"


MEMORY = """
import fastact as fa
from pathlib import Path

def resident():
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmRSS"))
    return int(line.split()[1]) / 1024  # MB

layer = fa.Maxout(1024, 512, pieces=2)  # 4 MB of weights
for i in range(60):
    fa.freeze(layer)
    if i == 30:  # malloc has found its balance
        before = resident()
print(resident() - before)
"""


@needs_plain_build
@needs_proc
def test_frozen_memory_is_freed():
    assert float(output_of(MEMORY)) < 8


def test_packed_weights_live_as_long_as_the_frozen_model(compiled, rng):
    x = normal(rng, (9, 20), np.dtype(np.float32))
    expected = fa.freeze(network())(x)
    frozen = pickle.loads(pickle.dumps(fa.freeze(network())))
    gc.collect()
    assert_same_bits(frozen(x), expected)


# ---- errors, and what it says of itself


class Doubled(fa.Maxout):
    def _forward(self, x, training):
        y, saved = super()._forward(x, training)
        return 2 * y, saved


class Mine(fa.Layer):
    pass


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Doubled(3, 4), "got Doubled"),
        (fa.Sequential(fa.Linear(3, 3), Mine()), r"layers\[1\]: got Mine"),
        (fa.Sequential(fa.Sequential(Doubled(3, 3))), r"layers\[0\]\.layers\[0\]: got Doubled"),
        (type("Net", (fa.Sequential,), {})(fa.Linear(3, 3)), "got Net"),
        (lambda x: x, "got function"),
        (None, "got NoneType"),
        (fa.freeze(fa.Linear(3, 3)), "got Frozen"),
    ],
)
def test_freeze_rejects_other_models(model, name):
    with pytest.raises(TypeError, match=f"^model: {name}, wanted Maxout, Linear"):
        fa.freeze(model)


def test_freeze_of_layers_that_no_longer_fit_names_both():
    model = fa.Sequential(fa.Linear(3, 4), fa.Activation("relu"), fa.Sequential(fa.Linear(4, 6)), fa.PReLU(6))
    inner = model[2][0]
    inner.weight.data = np.zeros((6, 5), F32)
    with pytest.raises(
        ValueError, match=r"^layers\[2\]\.layers\[0\], Linear\(4, 6\): in_features: got 5, wanted 4"
    ):
        fa.freeze(model)
    inner.weight.data, inner.bias.data = np.zeros((7, 4), F32), np.zeros(7, F32)
    with pytest.raises(
        ValueError, match=r"^layers\[3\], PReLU\(6\): in_features: got 6, wanted 7 to match layers\[2\]"
    ):
        fa.freeze(model)
    inner.weight.data, inner.bias.data = np.zeros((6, 4)), np.zeros(6)
    with pytest.raises(
        TypeError, match=r"^layers\[2\]\.layers\[0\], .*: dtype: got float64, wanted float32 to match"
    ):
        fa.freeze(model)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            (np.zeros((4, 3), F32), np.zeros((6, 5), F32)),
            ValueError,
            r"steps\[1\] \(b\): got 4 features, wanted 5",
        ),
        (
            (np.zeros((4, 3), F32), np.zeros((6, 4))),
            TypeError,
            r"steps\[1\] \(b\): got dtype float64, wanted float32",
        ),
    ],
)
def test_frozen_rejects_steps_that_do_not_fit_each_other(weights, error, message):
    linear = fa.freeze(fa.Linear(3, 4))._steps[0]
    made = [
        linear._replace(text=text, weight=weight, bias=None)
        for text, weight in zip("ab", weights, strict=True)
    ]
    with pytest.raises(error, match=message):
        fa.Frozen(tuple(made), None)


@pytest.mark.parametrize(
    ("attribute", "data", "error", "message"),
    [
        ("weight", np.zeros((1000, 4), np.float32), ValueError, r"bias: got shape \(6,\), wanted \(1000,\)"),
        ("weight", np.zeros((6, 2, 4), np.float32), ValueError, r"weight: got shape \(6, 2, 4\)"),
        ("weight", np.zeros((6, 4), np.float16), TypeError, "got dtype float16"),
        ("weight", [[0.0]], TypeError, "weight: got list"),
        ("bias", np.zeros(5, np.float32), ValueError, r"bias: got shape \(5,\), wanted \(6,\)"),
        ("bias", np.zeros(6), TypeError, "bias: got dtype float64, wanted float32"),
        ("slope", np.zeros(5, np.float32), ValueError, r"slope: got shape \(5,\)"),
    ],
)
def test_freeze_rejects_parameters_that_do_not_fit(attribute, data, error, message):
    layer = fa.Linear(4, 6, activation="prelu")
    getattr(layer, attribute).data = data
    with pytest.raises(error, match=message):
        fa.freeze(fa.Sequential(layer))


@pytest.mark.parametrize("data", [np.zeros(3, np.float16), np.zeros(3, np.int32), [0.0, 0.0, 0.0]])
def test_freeze_rejects_slope_of_wrong_type(data):
    layer = fa.PReLU(3)
    layer.slope.data = data
    with pytest.raises(TypeError, match=r"^model: PReLU\(3.*\): slope: got"):
        fa.freeze(layer)


def test_freeze_rejects_more_than_256_pieces():
    layer = fa.Maxout(2, 3, bias=False)
    layer.weight.data = np.zeros((3, 257, 2), np.float32)
    with pytest.raises(
        ValueError, match=r"^model: Maxout\(2, 3, pieces=2.*\): pieces: got 257, wanted 1 to 256"
    ):
        fa.freeze(layer)


def test_freeze_rejects_unknown_precision_and_backend():
    with pytest.raises(ValueError, match="precision: got 'low', wanted one of highest, high, medium"):
        fa.freeze(fa.Linear(3, 4), "low")
    with pytest.raises(ValueError, match="backend: got 'cuda'"):
        fa.freeze(fa.Linear(3, 4), backend="cuda")


def steps(**changes):
    """The steps of a frozen Linear(4, 6) with a learned slope, one of them changed."""
    layer = fa.Linear(4, 6, activation="prelu")
    (step,) = fa.freeze(layer)._steps
    return (step._replace(**changes),)


PRELU = steps()[0].act


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (lambda: None, TypeError, "steps: got NoneType, wanted a tuple of Steps"),
        (lambda: ("Linear",), TypeError, r"steps\[0\]: got str, wanted a Step"),
        (lambda: steps(text=None), TypeError, r"steps\[0\]: text: got NoneType, wanted a str"),
        (lambda: steps(bias=np.zeros(1, F32)), ValueError, r"bias: got shape \(1,\), wanted \(6,\)"),
        (lambda: steps(bias=np.zeros(6)), TypeError, "bias: got dtype float64, wanted float32"),
        (lambda: steps(bias=[0.0] * 6), TypeError, "bias: got list"),
        (lambda: steps(weight=np.zeros((6, 4), np.int32)), TypeError, "weight: got dtype int32"),
        (lambda: steps(weight=np.zeros(4, F32)), ValueError, r"weight: got shape \(4,\)"),
        (lambda: steps(weight=np.zeros((6, 300, 4), F32), bias=None), ValueError, "pieces: got 300"),
        (
            lambda: steps(weight=np.zeros((6, 2, 4), F32), bias=None),
            ValueError,
            "act: got prelu after a maximum",
        ),
        (lambda: steps(weight=None), ValueError, "bias: got ndarray without a weight"),
        (lambda: steps(act=PRELU._replace(slope=np.zeros(2, F32))), ValueError, r"slope: got shape \(2,\)"),
        (lambda: steps(act=PRELU._replace(slope=None)), TypeError, "slope: got NoneType"),
        (lambda: steps(act=PRELU._replace(code=99)), ValueError, "act: got .*99"),
        (lambda: steps(act=PRELU._replace(name="relu")), TypeError, "slope: relu takes no parameter"),
        (lambda: steps(act=PRELU._replace(name="what")), ValueError, "activation: got 'what'"),
        (lambda: steps(act=("relu", 1, "y")), TypeError, "act: got tuple, wanted an Activation"),
        (lambda: steps(tier="low"), ValueError, "precision: got 'low'"),
    ],
)
def test_frozen_rejects_steps_that_do_not_fit(changed, error, message):
    with pytest.raises(error, match=message):
        fa.Frozen(changed(), None)


def test_unpickling_a_short_bias_raises():
    data = pickle.dumps(fa.freeze(fa.Linear(4, 6)))
    rebuild, (own, asked) = fa.freeze(fa.Linear(4, 6)).__reduce__()
    short = own[0]._replace(bias=own[0].bias[:1])

    class Damaged:
        def __reduce__(self):
            return rebuild, ((short,), asked)

    assert pickle.loads(data).out_features == 6
    with pytest.raises(
        ValueError, match=r"steps\[0\] \(Linear\(4, 6\)\): bias: got shape \(1,\), wanted \(6,\)"
    ):
        pickle.loads(pickle.dumps(Damaged()))


def test_frozen_copies_the_arrays_it_is_made_of(each_backend, rng):
    weight, bias = normal(rng, (6, 4), F32), normal(rng, 6, F32)
    step = steps()[0]._replace(weight=weight, bias=bias)
    frozen, x = fa.Frozen((step,), None), normal(rng, (3, 4), F32)
    before = frozen(x)
    weight[...] = bias[...] = np.nan
    assert_same_bits(frozen(x), before)


def test_frozen_rejects_invalid_inputs_and_out(each_backend, dtype):
    frozen = fa.freeze(fa.Maxout(3, 4, dtype=dtype))
    other = np.float64 if dtype == np.float32 else np.float32
    for x, error, message in (
        ([[1.0, 2.0, 3.0]], TypeError, "x: got list, wanted a numpy.ndarray"),
        (np.ones((2, 3), other), TypeError, f"x: got dtype {np.dtype(other)}, wanted {dtype}"),
        (np.ones((2, 3), int), TypeError, "x: got dtype int64"),
        (np.ma.ones((2, 3), dtype), TypeError, "x: got MaskedArray"),
        (np.ones((2, 4), dtype), ValueError, r"x: got shape \(2, 4\), wanted \(..., 3\)"),
        (np.ones(4, dtype), ValueError, r"x: got shape \(4,\), wanted \(..., 3\)"),
        (np.array(1, dtype), ValueError, r"x: got shape \(\), wanted \(..., 3\)"),
    ):
        with pytest.raises(error, match=message):
            frozen(x)
    x = np.ones((2, 3), dtype)
    for out, error, message in (
        (np.empty((2, 3), dtype), ValueError, r"out\[0\] \(y\): got shape \(2, 3\), wanted \(2, 4\)"),
        (np.empty((2, 4), other), TypeError, r"out\[0\] \(y\): got dtype"),
    ):
        with pytest.raises(error, match=message):
            frozen(x, out=out)
    square = fa.freeze(fa.Maxout(3, 3, dtype=dtype))
    with pytest.raises(ValueError, match="overlaps an input"):
        square(x, out=x)
    with pytest.raises(TypeError, match="x: got dtype int64, wanted float32 or float64"):
        fa.freeze(fa.Activation("relu"))(np.ones(3, int))


def test_frozen_repr_lists_steps_and_backend():
    frozen = fa.freeze(fa.Maxout(3, 4, pieces=5))
    assert repr(frozen) == f"Frozen(Maxout(3, 4, pieces=5))  # on {fa.get_backend()}"
    assert repr(fa.freeze(network(), backend="numpy")).split("\n") == [
        "Frozen(",
        "  0: Maxout(20, 33, pieces=3)",
        "  1: Linear(33, 18, activation='silu')",
        "  2: PReLU(18)",
        "  3: Activation('leaky_relu', negative_slope=0.5)",
        "  4: Linear(18, 10, bias=False)",
        ")  # on numpy",
    ]


# ---- layer norms and residuals


def exact_network(dtype):
    """Products of small integers, which are exact in any order, then steps that are not products."""
    rng = np.random.default_rng(3)

    def linear(in_features, out_features):
        layer = fa.Linear(in_features, out_features, activation="relu", dtype=dtype)
        layer.weight.data[...] = rng.integers(-2, 3, layer.weight.data.shape)
        layer.bias.data[...] = rng.integers(-2, 3, out_features)
        return layer

    norm = fa.LayerNorm(7, eps=0.1, dtype=dtype)
    norm.weight.data[...] = rng.standard_normal(7)
    norm.bias.data[...] = rng.standard_normal(7)
    return fa.Sequential(
        linear(5, 33),
        fa.Residual(
            fa.Sequential(linear(33, 16), fa.Residual(linear(16, 16)), fa.Dropout(0.5), linear(16, 33))
        ),
        fa.Residual(fa.Sequential()),
        linear(33, 7),
        norm,
        fa.Residual(fa.Sequential(fa.Activation("tanh"), fa.LayerNorm(7, bias=False, dtype=dtype))),
        fa.Residual(fa.Dropout(0.5)),
    )


@pytest.mark.parametrize("rows", [1, 3, 17, 97])
def test_frozen_residuals_and_layer_norms_have_the_bits_of_the_model(rows, dtype, backend):
    model = exact_network(dtype)
    x = np.random.default_rng(0).integers(-3, 4, (rows, 5)).astype(dtype)
    frozen = fa.freeze(model)
    assert_same_bits(frozen(x), model(x))
    assert_same_bits(pickle.loads(pickle.dumps(frozen))(x), model(x))
    assert (frozen.in_features, frozen.out_features, frozen.dtype) == (5, 7, dtype)


def test_freeze_of_a_residual_or_a_layer_norm_alone(each_backend):
    x = normal(np.random.default_rng(0), (5, 4), F32)
    for layer in (fa.LayerNorm(4), fa.Residual(fa.LayerNorm(4)), fa.Residual(fa.Activation("relu"))):
        assert_same_bits(fa.freeze(layer)(x), layer(x))


def test_freeze_names_a_broken_layer_inside_a_residual():
    model = fa.Sequential(fa.Activation("relu"), fa.Residual(fa.Sequential(fa.Linear(3, 3), fa.LayerNorm(3))))
    model[1].layer[1].bias.data = np.zeros(4, F32)
    place = r"layers\[1\].layer.layers\[1\], LayerNorm\(3\)"
    with pytest.raises(ValueError, match=rf"^model: {place}: bias: got shape \(4,\), wanted \(3,\)"):
        fa.freeze(model)


def test_frozen_steps_of_a_damaged_pickle_are_refused():
    frozen = fa.freeze(fa.Sequential(fa.LayerNorm(3), fa.Residual(fa.Linear(3, 3))))
    norm, branch, linear, total = frozen._steps
    for steps, message in (
        ((norm, total), "sum without a branch"),
        ((branch, linear), "1 branches without a sum"),
        ((norm._replace(kind="no such"),), "kind: got 'no such'"),
        ((norm._replace(eps=-1.0),), "eps: got -1.0"),
        ((norm._replace(weight=np.zeros((2, 3), F32)),), r"weight: got shape \(2, 3\), wanted \(features,\)"),
        ((branch._replace(weight=np.zeros(3, F32)), total), "weight: got ndarray for a branch"),
        ((linear, branch, linear._replace(weight=np.zeros((2, 3), F32), bias=None), total), "got 2 features"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            type(frozen)(steps, None)


def test_freeze_refuses_more_residuals_inside_each_other_than_c_takes():
    if "c" not in COMPILED_BACKENDS:
        pytest.skip("needs the C extension")
    model = fa.Linear(2, 2)
    for _ in range(17):
        model = fa.Residual(model)
    with pytest.raises(ValueError, match="got 17 residuals inside each other, wanted 16 at most"):
        fa.freeze(model, backend="c")
