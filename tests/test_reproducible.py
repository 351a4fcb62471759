"""Reproducible results: a training run, and each row of a forward, have the same bits whatever runs them.

`python -m bench.bits --reproducible` compares random calls of every operation among instruction sets, and
files of it among builds and CPUs.
"""

import hashlib
import pickle
import threading
from decimal import Decimal

import numpy as np
import pytest
from support.variants import COMPILED, COMPILED_BACKENDS, in_force, needs_c

import fastact as fa
from fastact import settings
from fastact.nn import portable

pytestmark = needs_c
ISAS = [variant for variant in COMPILED if variant.startswith("c-")]

# The SHA-256 of the trained parameters: one for every CPU, instruction set, compiler and number of threads.
TRAINED = {
    "float32": "480c7abe3e0c8c3781b334c9afa7ab398005676b0147f32979588869a2a97498",
    "float64": "0c6542e560505795c73227bec555b5f1aec91f3cda98f1742ed543f41594b096",
}


@pytest.fixture(autouse=True)
def _c():
    with in_force("c"):
        yield


@pytest.fixture(params=ISAS)
def isa(request):
    with in_force(request.param):
        yield request.param


def sixteenths(rng, *shape, dtype=np.float32, most=16):
    """Numbers that no library's functions had a part in."""
    return (rng.integers(-most, most + 1, shape) / 16).astype(dtype)


def network(dtype=np.float32):
    """The demo's network with a dropout and a layer norm, on parameters that depend on a seed alone."""
    rng = np.random.default_rng(0)
    model = fa.Sequential(
        fa.Maxout(64, 96, pieces=4, rng=rng, dtype=dtype),
        fa.Dropout(0.25, rng=1),
        fa.LayerNorm(96, dtype=dtype),
        fa.Linear(96, 70, activation="gelu", rng=rng, dtype=dtype),
        fa.Maxout(70, 64, pieces=3, rng=rng, dtype=dtype),
        fa.Linear(64, 10, rng=rng, dtype=dtype),
    )
    for parameter in model.parameters():
        parameter.data[...] = sixteenths(rng, *parameter.data.shape, dtype=dtype, most=4)
    return model


def digest(arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def train(dtype, optimizer_type=fa.SGD, steps=6):
    """The digest of the parameters after some steps on random mini-batches."""
    rng = np.random.default_rng(2)
    model = network(dtype)
    optimizer = optimizer_type(model.parameters(), lr=0.05)
    for step in range(steps):
        x, labels = sixteenths(rng, 150, 64, dtype=dtype), rng.integers(0, 10, 150)
        _, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
        model.backward(grad)
        fa.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.lr = fa.schedules.cosine(step, steps, 0.05)
        optimizer.step()
    return digest([parameter.data for parameter in model.parameters()])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_run_has_one_digest(isa, dtype, threads):
    with fa.reproducible(), fa.num_threads(threads):
        assert train(dtype) == TRAINED[np.dtype(dtype).name]


@pytest.mark.parametrize("optimizer", [fa.Adam, fa.AdamW])
def test_adam_has_the_same_bits_on_every_isa(optimizer):
    digests = set()
    for variant in ISAS:
        with in_force(variant), fa.reproducible():
            digests.add(train(np.float32, optimizer, 3))
    assert len(digests) == 1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_row_of_network_has_its_own_bits_in_any_batch(isa, dtype, training):
    model = network(dtype)
    model.layers[1].p = 0.0  # the masks of rows come one after the other
    x = sixteenths(np.random.default_rng(3), 300, 64, dtype=dtype)
    with fa.reproducible():
        whole = model(x, training=training)
        for rows in (1, 2, 3, 5, 8, 15, 16, 17, 33, 97, 256):
            assert model(x[:rows], training=training).tobytes() == whole[:rows].tobytes(), rows
        assert model(x[123:124], training=training).tobytes() == whole[123:124].tobytes()


@pytest.mark.parametrize(
    ("in_features", "out_features", "pieces"),
    [
        (0, 3, 2),
        (1, 1, 1),
        (3, 17, 2),
        (15, 16, 2),
        (16, 15, 1),
        (17, 33, 7),
        (33, 1, 5),
        (31, 3, 256),
        (40, 300, 1),
        (64, 64, 3),
        (257, 40, 2),
        (288, 96, 3),
        (700, 31, 1),
        (1030, 15, 2),
    ],
)
def test_row_of_product_has_its_own_bits_in_any_batch(isa, dtype, in_features, out_features, pieces):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((130, in_features)).astype(dtype)
    weight = rng.standard_normal((out_features, pieces, in_features)).astype(dtype)
    bias = rng.standard_normal((out_features, pieces)).astype(dtype)
    with fa.reproducible():
        whole, argmax = fa.linear_maxout(x, weight, bias)
        layer = fa.Maxout(in_features, out_features, pieces=pieces, dtype=dtype)
        layer.weight.data[...], layer.bias.data[...] = weight, bias
        frozen = fa.freeze(layer)
        for rows in (1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 130):
            y, winners = fa.linear_maxout(x[:rows], weight, bias)
            assert y.tobytes() == whole[:rows].tobytes()
            assert winners.tobytes() == argmax[:rows].tobytes()
            assert frozen(x[:rows]).tobytes() == whole[:rows].tobytes()


@pytest.mark.parametrize("in_features", [512, 1024, 1536])
@pytest.mark.parametrize("begin", [0, 1, 4, 15])
def test_few_rows_on_weights_that_begin_within_a_line_are_those_of_many(isa, dtype, in_features, begin):
    """Rows of the weight fall into few sets of L1; each cut begins with the elements before a line."""
    rng = np.random.default_rng(6)
    memory = rng.standard_normal(19 * 2 * in_features + 64).astype(dtype)
    begin += -memory.ctypes.data % 64 // memory.itemsize
    weight = memory[begin : begin + 19 * 2 * in_features].reshape(19, 2, in_features)
    x = rng.standard_normal((24, in_features)).astype(dtype)
    with fa.reproducible():
        whole = fa.linear_maxout(x, weight)[0]
        for rows in (1, 2, 3, 4):
            assert fa.linear_maxout(x[:rows], weight)[0].tobytes() == whole[:rows].tobytes()


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_few_rows_of_special_values_are_those_of_many(isa, dtype, rows):
    """NaN, infinities and denormal numbers; arrays with strides are copied before the kernels see them."""
    rng = np.random.default_rng(5)
    special = np.array([np.nan, np.inf, -np.inf, np.finfo(dtype).smallest_subnormal, -0.0, 1.0], dtype)
    x = np.where(rng.random((64, 2 * 37)) < 0.02, rng.choice(special, (64, 2 * 37)), 1.5).astype(dtype)[
        :, ::2
    ]
    weight = np.where(rng.random((19, 3, 37)) < 0.01, rng.choice(special, (19, 3, 37)), -0.5).astype(dtype)
    for transposed in (False, True):
        w = np.asfortranarray(weight) if transposed else weight
        with fa.reproducible():
            whole, argmax = fa.linear_maxout(x, w)
            y, winners = fa.linear_maxout(x[:rows], w)
        np.testing.assert_array_equal(y, whole[:rows])
        np.testing.assert_array_equal(winners, argmax[:rows])
        np.testing.assert_array_equal(
            np.isnan(y), np.isnan(fa.linear_maxout(x[:rows], w, backend="numpy")[0])
        )


def test_frozen_network_has_the_bits_of_its_layers(isa):
    model = network()
    x = sixteenths(np.random.default_rng(5), 100, 64)
    with fa.reproducible():
        frozen = fa.freeze(model)
        for rows in (1, 17, 100):
            assert frozen(x[:rows]).tobytes() == model(x[:rows]).tobytes()
        assert pickle.loads(pickle.dumps(frozen))(x).tobytes() == frozen(x).tobytes()
    assert frozen(x).tobytes() == model_bits(model, x)  # afterwards too


def model_bits(model, x):
    with fa.reproducible():
        return model(x).tobytes()


def test_model_frozen_without_reproducible_results_raises():
    frozen = fa.freeze(network())
    x = np.zeros((3, 64), np.float32)
    frozen(x)
    with (
        fa.reproducible(),
        pytest.raises(RuntimeError, match="model: got one frozen without reproducible results"),
    ):
        frozen(x)


def test_tiers_are_ignored():
    rng = np.random.default_rng(6)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in ((256, 128), (96, 2, 128)))
    with fa.reproducible():
        expected = fa.linear_maxout(x, weight)[0].tobytes()
        for tier in settings.PRECISIONS:
            assert fa.linear_maxout(x, weight, precision=tier)[0].tobytes() == expected


def test_custom_activation_is_refused():
    pytest.importorskip("numba")
    own = fa.custom_activation("own", lambda z: z * z, lambda z: 2 * z)
    z = np.ones((2, 3), np.float32)
    fa.activation(z, own)
    model = fa.Sequential(fa.Linear(3, 2, activation=own), fa.Linear(2, 2))
    model(z)
    calls = (
        lambda: fa.activation(z, own),
        lambda: model(z),
        lambda: model(z, training=True),
        lambda: fa.freeze(model),
    )
    for call in calls:
        with (
            fa.reproducible(),
            pytest.raises(RuntimeError, match=r"activation: got .*own.*, which is compiled"),
        ):
            call()


def test_mean_square_beyond_float32_is_reproducible():
    rng = np.random.default_rng(7)
    y = (rng.standard_normal(1000) * 1e30).astype(np.float32)
    losses = set()
    for variant in ISAS:
        with in_force(variant), fa.reproducible():
            losses.add(fa.mse(y, np.zeros_like(y))[0])
    assert len(losses) == 1
    assert losses.pop() == pytest.approx(np.mean(np.square(y.astype(np.float64))), rel=1e-12)


# ---- the setting


def test_set_reproducible_holds_for_other_threads():
    seen = []
    fa.set_reproducible(True)
    try:
        thread = threading.Thread(target=lambda: seen.append(fa.get_reproducible()))
        thread.start()
        thread.join()
        with fa.reproducible(False):
            assert not fa.get_reproducible()
        assert fa.get_reproducible()
        assert fa.get_config()["reproducible"]
    finally:
        fa.set_reproducible(False)
    assert seen == [True]
    assert not fa.get_reproducible()


def test_context_manager_leaves_other_threads_alone():
    seen = []
    with fa.reproducible():
        thread = threading.Thread(target=lambda: seen.append(fa.get_reproducible()))
        thread.start()
        thread.join()
        assert fa.get_reproducible()
        with fa.num_threads(3):
            assert settings.threads_and_mode() == 3 | settings.REPRODUCIBLE
            assert settings.threads_and_mode_of_context() == 3 | settings.REPRODUCIBLE
            assert fa.get_num_threads() == 3
        assert settings.threads_and_mode(5) == 5 | settings.REPRODUCIBLE
        assert settings.threads_and_mode_of_context() > settings.REPRODUCIBLE
    assert seen == [False]
    assert not fa.get_reproducible()
    assert settings.threads_and_mode_of_context() == 0


@pytest.mark.parametrize("enabled", [1, None, "yes"])
@pytest.mark.parametrize(
    "function", [fa.set_reproducible, lambda enabled: fa.reproducible(enabled).__enter__()]
)
def test_rejects_what_is_not_a_bool(function, enabled):
    with pytest.raises(TypeError, match="enabled: got"):
        function(enabled)
    assert not fa.get_reproducible()


@pytest.mark.parametrize("name", sorted({*COMPILED_BACKENDS, "numpy"} - {"c"}))
def test_other_backends_are_refused(name):
    x, weight = np.zeros((2, 3), np.float32), np.zeros((4, 2, 3), np.float32)
    with in_force(name), pytest.raises(RuntimeError, match=f'backend: got "{name}", wanted "c"'):
        fa.set_reproducible(True)
    with fa.reproducible():
        with pytest.raises(RuntimeError, match=f'backend: got "{name}", wanted "c"'):
            fa.set_backend(name)
        with pytest.raises(RuntimeError, match=f'backend: got "{name}", wanted "c"'):
            fa.linear_maxout(x, weight, backend=name)
    with in_force(name), fa.reproducible(False):
        fa.linear_maxout(x, weight)


@pytest.mark.parametrize("name", sorted({*COMPILED_BACKENDS, "numpy"} - {"c"}))
def test_backend_that_another_context_chose_is_refused(name):
    layer = fa.Maxout(3, 4, pieces=2)
    x = np.zeros((2, 3), np.float32)
    with in_force(name):
        frozen = fa.freeze(layer)
    with fa.reproducible():
        with fa.reproducible(False):
            fa.set_backend(name)
        for call in (layer, lambda x: fa.mse(x, x)):
            with pytest.raises(RuntimeError, match=f'backend: got "{name}", wanted "c"'):
                call(x)
        fa.set_backend("c")
        with pytest.raises(RuntimeError, match=f'backend: got "{name}", wanted "c"'):
            frozen(x)


def test_configuration_names_no_unit_of_a_tier():
    with fa.reproducible():
        assert set(fa.get_config()["tier_units"].values()) == {"float32"}


def test_nopython_code_follows_set_reproducible(isa):
    numba = pytest.importorskip("numba")

    @numba.njit
    def forward(x, weight):
        return fa.linear_maxout(x, weight)[0]

    rng = np.random.default_rng(8)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in ((3, 300), (7, 2, 300)))
    fa.set_reproducible(True)
    try:
        assert forward(x, weight).tobytes() == fa.linear_maxout(x, weight)[0].tobytes()
    finally:
        fa.set_reproducible(False)
    assert forward(x, weight).tobytes() == fa.linear_maxout(x, weight)[0].tobytes()


# ---- functions of numbers


@pytest.mark.parametrize("base", [0.0, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("exponent", [0, 1, 2, 1000, 123457, 2**62])
def test_power_is_rounded_once(base, exponent):
    mpmath = pytest.importorskip("mpmath")
    with fa.reproducible(), mpmath.workdps(60):
        assert portable.power(base, exponent) == float(mpmath.mpf(base) ** exponent)
    assert portable.power(base, exponent) == base**exponent


def test_power_of_a_fraction_is_rounded_once():
    mpmath = pytest.importorskip("mpmath")
    with fa.reproducible(), mpmath.workdps(60):
        assert portable.power(7.0, 0.3) == float(mpmath.mpf(7) ** mpmath.mpf(0.3))


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.999, 1.0])
def test_cosine_is_rounded_once(x):
    mpmath = pytest.importorskip("mpmath")
    with fa.reproducible(), mpmath.workdps(60):
        assert portable.cos_pi(x) == float(mpmath.cospi(mpmath.mpf(x)))


def test_decimal_context_of_the_caller_is_left_alone():
    before = Decimal(1) / 3
    with fa.reproducible():
        portable.cos_pi(0.3)
    assert Decimal(1) / 3 == before
