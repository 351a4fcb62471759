"""Layers: gradients of whole models by finite differences, and what a layer promises its user."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from support.differences import TOLERANCE, differences

import fastact as fa
from fastact import activations, ops


def check_gradients(model, x, rng, training_forward=None):
    """Every gradient of sum(weights * model(x)) agrees with finite differences."""
    forward = training_forward or (lambda: model(x, training=True))
    weights = rng.standard_normal(forward().shape)

    def loss():
        return float(np.sum(weights * forward()))

    loss()
    grad_x = model.backward(weights)
    np.testing.assert_allclose(grad_x, differences(loss, x), rtol=TOLERANCE, atol=TOLERANCE)
    for name, parameter in model.named_parameters():
        grad = parameter.grad.copy()
        expected = differences(loss, parameter.data)
        np.testing.assert_allclose(grad, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def randomise(model, rng):
    """Give biases and slopes values that a mistake would show in."""
    for parameter in model.parameters():
        parameter.data[...] = rng.standard_normal(parameter.data.shape)
    return model


SEVERAL = [
    *((name, {}) for name in activations.NAMES),
    ("gelu", {"approximate": "tanh"}),
    ("elu", {"alpha": 0.5}),
]


@pytest.mark.parametrize(("name", "keywords"), SEVERAL)
def test_linear_gradients_equal_finite_differences(each_backend, rng, name, keywords):
    model = fa.Sequential(
        fa.Linear(5, 4, activation=name, dtype=np.float64, **keywords), fa.Linear(4, 3, dtype=np.float64)
    )
    check_gradients(randomise(model, rng), rng.standard_normal((2, 3, 5)), rng)


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_maxout_gradients_equal_finite_differences(each_backend, rng, pieces):
    model = fa.Sequential(
        fa.Maxout(5, 4, pieces, dtype=np.float64), fa.Maxout(4, 3, pieces, bias=False, dtype=np.float64)
    )
    check_gradients(randomise(model, rng), rng.standard_normal((6, 5)), rng)


@pytest.mark.parametrize(("name", "keywords"), [pair for pair in SEVERAL if pair[0] != "prelu"])
def test_activation_gradients_equal_finite_differences(each_backend, rng, name, keywords):
    model = fa.Sequential(fa.Linear(3, 4, dtype=np.float64), fa.Activation(name, **keywords))
    check_gradients(randomise(model, rng), rng.standard_normal((6, 3)), rng)


@pytest.mark.parametrize("features", [1, 4])
def test_prelu_gradients_equal_finite_differences(each_backend, rng, features):
    model = fa.Sequential(fa.Linear(3, 4, dtype=np.float64), fa.PReLU(features, dtype=np.float64))
    check_gradients(randomise(model, rng), rng.standard_normal((6, 3)), rng)


def test_linear_with_a_slope_per_feature_gradients_equal_finite_differences(each_backend, rng):
    model = fa.Linear(3, 4, activation="prelu", slope=np.full(4, 0.25), dtype=np.float64)
    assert model.slope.data.shape == (4,)
    check_gradients(randomise(model, rng), rng.standard_normal((6, 3)), rng)


@pytest.mark.parametrize("rescale", [True, False])
def test_dropout_gradients_equal_finite_differences(each_backend, rng, rescale):
    dropout = fa.Dropout(0.4, rescale)
    model = fa.Sequential(
        dropout,
        fa.Maxout(6, 5, 3, dtype=np.float64),
        dropout_2 := fa.Dropout(0.3),
        fa.Linear(5, 2, dtype=np.float64),
    )
    x = rng.standard_normal((4, 6))

    def same_masks():
        dropout.rng, dropout_2.rng = np.random.default_rng(1), np.random.default_rng(2)
        return model(x, training=True)

    check_gradients(randomise(model, rng), x, rng, same_masks)


def test_dropout_of_a_single_number_is_an_array():
    y = fa.Dropout(0.5, rng=0)(np.array(1.0, np.float32), training=True)
    assert isinstance(y, np.ndarray)
    assert (y.shape, y.dtype) == ((), np.float32)


def test_dropout_drops_a_share_p_and_rescales_or_not():
    x = np.ones((200, 100), np.float32)
    kept = fa.Dropout(0.25, rng=0)(x, training=True)
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    share = np.mean(kept == 0)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / x.size)  # five standard deviations
    assert set(np.unique(fa.Dropout(0.25, rescale=False, rng=0)(x, training=True))) == {0, 1}
    for rescale in (True, False):
        np.testing.assert_array_equal(fa.Dropout(0.25, rescale)(x), x)
    assert fa.Dropout(0.0)(x, training=True).dtype == np.float32


# ---- backward


def small_model(rng=0, dtype=np.float32):
    rng = np.random.default_rng(rng)
    return fa.Sequential(
        fa.Dropout(0.2, rng=rng),
        fa.Activation("tanh"),
        fa.Maxout(6, 5, pieces=3, rng=rng, dtype=dtype),
        fa.PReLU(5, dtype=dtype),
        fa.Sequential(fa.Linear(5, 4, activation="prelu", rng=rng, dtype=dtype), fa.Dropout(0.5, rng=rng)),
        fa.Linear(4, 3, bias=False, rng=rng, dtype=dtype),
    )


def gradients(model):
    return {name: parameter.grad.copy() for name, parameter in model.named_parameters()}


def step(model, x, **keywords):
    y = model(x, training=True)
    return model.backward(np.ones_like(y), **keywords)


def test_backward_overwrites_or_accumulates(each_backend, rng):
    x = rng.standard_normal((7, 6))
    model = small_model(dtype=np.float64)
    step(model, x)
    first = gradients(model)
    step(model, x)
    second = gradients(model)
    step(model, x, accumulate=True)
    third = gradients(model)

    same_masks = small_model(dtype=np.float64)  # the same seed: the same three sets of dropout masks
    step(same_masks, x, accumulate=True)  # to nothing
    for name, grad in gradients(same_masks).items():
        np.testing.assert_array_equal(grad, first[name])
    step(same_masks, x)
    step(same_masks, x)
    for name, grad in gradients(same_masks).items():
        # one rounding of the sum
        np.testing.assert_allclose(third[name] - second[name], grad, rtol=1e-12, atol=1e-13)


def test_backward_twice_reuses_the_gradient_arrays(rng):
    model = small_model()
    x = rng.standard_normal((7, 6)).astype(np.float32)
    step(model, x)
    arrays = [parameter.grad for parameter in model.parameters()]
    step(model, x)
    assert all(parameter.grad is array for parameter, array in zip(model.parameters(), arrays, strict=True))


def test_backward_without_needs_input_grad_returns_none(each_backend, rng):
    x = rng.standard_normal((7, 6))
    model, other = small_model(dtype=np.float64), small_model(dtype=np.float64)
    assert step(model, x).shape == x.shape
    assert step(other, x, needs_input_grad=False) is None
    for name, grad in gradients(other).items():
        np.testing.assert_array_equal(grad, gradients(model)[name])
    for layer in (fa.Dropout(0.5), fa.Activation("relu"), fa.Linear(6, 2, dtype=np.float64), fa.Sequential()):
        assert step(layer, x, needs_input_grad=False) is None


def test_backward_uses_the_precision_of_its_forward(one_by_one, monkeypatch, rng):
    seen = []

    def spied(run):
        def spy(*args, precision, **keywords):
            seen.append(precision)
            return run(*args, precision=precision, **keywords)

        return spy

    for operation in ("linear_maxout", "linear_activation"):
        for name in (operation, f"{operation}_backward"):
            monkeypatch.setattr(ops, name, spied(getattr(ops, name)))
    x = rng.standard_normal((3, 4)).astype(np.float32)
    model = fa.Sequential(fa.Maxout(4, 3), fa.Linear(3, 2, precision="medium"))
    with fa.float32_matmul_precision("high"):
        y = model(x, training=True)
    model.backward(y)
    assert seen == ["high", "medium", "medium", "high"]


def test_backward_without_a_training_forward_raises(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    layer = fa.Maxout(4, 3)
    y = layer(x)
    with pytest.raises(RuntimeError, match="Maxout: backward without a training forward"):
        layer.backward(y)
    layer(x, training=True)
    layer.backward(y)
    with pytest.raises(RuntimeError, match="one backward"):
        layer.backward(y)


def test_backward_after_a_failed_training_forward_raises(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    model = fa.Sequential(fa.PReLU(), fa.Linear(4, 2))
    y = model(x, training=True)
    with pytest.raises(ValueError, match="x: got shape"):
        model(x[:, :3], training=True)  # the PReLU takes it, the Linear does not
    with pytest.raises(RuntimeError, match="Sequential: backward without a training forward"):
        model.backward(y)


def test_layer_used_twice_raises(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    layer = fa.Linear(4, 4)
    with pytest.raises(ValueError, match=r"Linear\(4, 4\) appears twice"):
        fa.Sequential(layer, fa.Sequential(fa.Activation("relu"), layer))
    y = layer(layer(x, training=True), training=True)
    grad = layer.backward(y)
    with pytest.raises(RuntimeError, match="one place"):
        layer.backward(grad)


def test_backward_of_an_invalid_gradient_leaves_the_layer_ready(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    layers = (
        fa.Linear(4, 2),
        fa.Linear(4, 2, activation="prelu"),
        fa.Maxout(4, 2),
        fa.Activation("elu"),
        fa.PReLU(),
        fa.Sequential(fa.Linear(4, 2), fa.Dropout(0.5)),
    )
    for layer in layers:
        y = layer(x, training=True)
        with pytest.raises(ValueError, match="grad_y"):
            layer.backward(y[:2])
        with pytest.raises(TypeError, match="grad_y"):
            layer.backward(y.astype(np.float64))
        assert all(parameter.grad is None for parameter in layer.parameters())
        assert layer.backward(y).shape == x.shape


# ---- inference


def test_inference_changes_nothing_and_skips_the_argmax(one_by_one, each_backend, monkeypatch, rng):
    x = rng.standard_normal((7, 6))
    model = small_model(dtype=np.float64)
    trained = model(x, training=True)
    model(x[:3])  # between a training forward and its backward
    assert model.backward(np.ones_like(trained)).shape == x.shape

    calls = []
    run = ops.linear_maxout
    monkeypatch.setattr(
        ops, "linear_maxout", lambda *a, **k: calls.append(k["return_argmax"]) or run(*a, **k)
    )
    model(x)
    model(x, training=True)
    assert calls == [False, True]


def test_inference_from_several_threads_has_the_same_bits(each_backend, rng):
    x = rng.standard_normal((32, 6))
    model = small_model(dtype=np.float64)
    expected = model(x)
    wrong = []

    def infer():
        for _ in range(20):
            if not np.array_equal(model(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=infer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_training_step_allocates_nothing_the_size_of_a_weight(compiled):
    """Beside the activations, which here are small: gradients and the optimiser's state are reused."""
    import tracemalloc

    model = fa.Sequential(fa.Maxout(512, 256, pieces=4), fa.Linear(256, 128, activation="relu"))
    optimizer = fa.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    x = np.ones((4, 512), np.float32)
    for _ in range(2):
        step(model, x, needs_input_grad=False)
        optimizer.step()
    tracemalloc.start()
    try:
        step(model, x, needs_input_grad=False)
        optimizer.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < model.layers[0].weight.data.nbytes / 2


# ---- parameters and state


def test_parameters_have_names_and_decay():
    names = {name: parameter.decay for name, parameter in small_model().named_parameters()}
    assert names == {
        "2.weight": True,
        "2.bias": False,
        "3.slope": False,
        "4.0.slope": False,
        "4.0.weight": True,
        "4.0.bias": False,
        "5.weight": True,
    }
    shapes = [parameter.data.shape for parameter in small_model().parameters()]
    assert shapes == [(5, 3, 6), (5, 3), (5,), (1,), (4, 5), (4,), (3, 4)]


class Doubled(fa.Layer):
    """Twice what an inner layer says, plus a parameter of its own."""

    def __init__(self):
        self.inner = fa.Sequential(fa.Linear(3, 3))
        self.shift = fa.Parameter(np.zeros(3, np.float32), "shift")

    def _forward(self, x, training):
        return 2 * self.inner(x, training) + self.shift.data, True

    def _backward(self, grad_y, saved, accumulate, needs_input_grad):
        self.shift.grad = grad_y.sum(axis=0)
        return self.inner.backward(2 * grad_y, accumulate, needs_input_grad)


def test_layers_inside_a_layer_are_trained_and_saved(rng):
    model = fa.Sequential(Doubled(), fa.Linear(3, 2))
    assert list(model.state_dict()) == [
        "0.inner.0.weight", "0.inner.0.bias", "0.shift", "1.weight", "1.bias"
    ]  # fmt: skip
    model(rng.standard_normal((4, 3)).astype(np.float32), training=True)
    model.backward(np.ones((4, 2), np.float32), needs_input_grad=False)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_state_dict_rejects_two_parameters_of_one_name():
    layer = Doubled()
    layer.scale = fa.Parameter(np.ones(3, np.float32), "shift")
    assert len(layer.parameters()) == 4
    for call in (layer.state_dict, lambda: layer.load_state_dict({})):
        with pytest.raises(ValueError, match="Doubled: got two parameters of one name"):
            call()


def test_state_dict_is_a_copy_and_loads_in_place(rng):
    model, other = small_model(1), small_model(2)
    state = model.state_dict()
    arrays = [parameter.data for parameter in other.parameters()]
    other.load_state_dict(state)
    assert all(parameter.data is array for parameter, array in zip(other.parameters(), arrays, strict=True))
    x = rng.standard_normal((7, 6)).astype(np.float32)
    np.testing.assert_array_equal(model(x), other(x))
    other.layers[2].weight.data += 1
    np.testing.assert_array_equal(state["2.weight"], model.layers[2].weight.data)


def test_load_state_dict_of_a_wrong_state_raises_and_changes_nothing():
    model = small_model(1)
    before = model.state_dict()
    wrong = small_model(2).state_dict()
    del wrong["2.bias"]
    wrong["3.slope"] = wrong["3.slope"][:2]
    wrong["5.weight"] = wrong["5.weight"].astype(np.float64)
    wrong["6.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"2\.bias: missing") as error:
        model.load_state_dict(wrong)
    assert "3.slope: got shape (2,), wanted (5,)" in str(error.value)
    assert "5.weight: got dtype float64, wanted float32" in str(error.value)
    assert "6.weight: unexpected" in str(error.value)
    with pytest.raises(TypeError, match="state: got list, wanted a dict of arrays"):
        model.load_state_dict(list(before.values()))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("duplicate", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_copied_model_has_the_parameters_without_saved_activations(duplicate, rng):
    model = small_model()
    x = rng.standard_normal((1000, 6)).astype(np.float32)
    y = model(x, training=True)
    assert len(pickle.dumps(model)) < 10_000  # x alone has 24,000 bytes
    twin = duplicate(model)
    with pytest.raises(RuntimeError, match="without a training forward"):
        twin.backward(y)
    np.testing.assert_array_equal(twin(x), model(x))
    twin.layers[2].weight.data += 1
    assert not np.array_equal(twin(x), model(x))


def test_layers_of_one_seed_are_the_same():
    def weights(seed):
        return [parameter.data.tobytes() for parameter in small_model(seed).parameters()]

    assert weights(3) == weights(3) != weights(4)
    one = fa.Maxout(4, 3, rng=5).weight.data
    other = fa.Maxout(4, 3, rng=np.random.default_rng(5), dtype=np.float64).weight.data
    np.testing.assert_array_equal(one, other.astype(np.float32))


# ---- what a user sees


def test_layer_repr_shows_its_arguments():
    assert repr(fa.Maxout(784, 240, pieces=5)) == "Maxout(784, 240, pieces=5)"
    assert repr(fa.Linear(3, 2)) == "Linear(3, 2)"
    linear = fa.Linear(
        3, 2, bias=False, activation="leaky_relu", negative_slope=0.2, precision="high", dtype=np.float64
    )
    assert repr(linear) == (
        "Linear(3, 2, activation='leaky_relu', negative_slope=0.2, bias=False, precision='high', "
        "dtype=float64)"
    )
    assert repr(fa.Parameter(np.zeros((2, 3)), "bias", decay=False)) == (
        "Parameter('bias', (2, 3), float64, decay=False)"
    )
    assert repr(small_model()) == (
        "Sequential(\n"
        "  0: Dropout(0.2)\n"
        "  1: Activation('tanh')\n"
        "  2: Maxout(6, 5, pieces=3)\n"
        "  3: PReLU(5)\n"
        "  4: Sequential(\n"
        "    0: Linear(5, 4, activation='prelu')\n"
        "    1: Dropout(0.5)\n"
        "  )  # 25 parameters\n"
        "  5: Linear(4, 3, bias=False)\n"
        ")  # 147 parameters"
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fa.Linear(-1, 2), ValueError, "in_features: got -1, wanted 0 or more"),
        (lambda: fa.Linear(2, 2.0), TypeError, "out_features: got 2.0, wanted an int"),
        (lambda: fa.Linear(2, 2, activation="swish"), ValueError, "activation: got 'swish'"),
        (lambda: fa.Linear(2, 2, activation="relu", alpha=1.0), TypeError, "alpha: relu takes no parameter"),
        (lambda: fa.Linear(2, 2, activation="prelu", slope=np.ones(3)), ValueError, "slope: got shape"),
        (
            lambda: fa.Linear(2, 2, activation="prelu", slope=None),
            TypeError,
            "slope: got None, wanted finite",
        ),
        (lambda: fa.PReLU(2, np.inf), ValueError, "slope: got .*inf.*, wanted finite numbers"),
        (lambda: fa.PReLU(2, 1j), TypeError, "slope: got 1j, wanted finite numbers"),
        (lambda: fa.PReLU(2, [0.1, 1j]), TypeError, "slope: got 1j, wanted a number"),
        (lambda: fa.PReLU(2, np.array([1j, 1])), TypeError, "slope: got array.*, wanted finite numbers"),
        (lambda: fa.PReLU(2, np.ma.zeros(2)), TypeError, "slope: got MaskedArray, wanted a numpy.ndarray"),
        (lambda: fa.PReLU(2, [0.1, 0.2, 0.3]), ValueError, r"slope: got shape \(3,\), wanted"),
        (lambda: fa.PReLU(2, 1e39), ValueError, r"slope: got 1e\+39, wanted finite numbers of float32"),
        (lambda: fa.PReLU(2, 10**400), ValueError, "slope: got 1000.*, wanted finite numbers"),
        (lambda: fa.Maxout(2**40, 2**40), ValueError, r"weight: got \(.*\), wanted a product of at most"),
        (lambda: fa.Linear(2, 10**400), ValueError, "out_features: got 1000.*, wanted 0 to"),
        (lambda: fa.Linear(2, 2, init="he"), TypeError, "init: got 'he', wanted a function"),
        (lambda: fa.Linear(2, 2, init=lambda s, r, d: np.ma.zeros(s, d)), TypeError, "init: returned Masked"),
        (lambda: fa.Linear(2, 2, rng="x"), TypeError, "rng: got 'x', wanted a numpy.random.Generator"),
        (lambda: fa.Dropout(rng=-1), ValueError, "rng: got -1, wanted a numpy.random.Generator"),
        (lambda: fa.Parameter([1.0], "w"), TypeError, "data: got list, wanted a numpy.ndarray"),
        (lambda: fa.Parameter(np.ones(2), 3), TypeError, "name: got 3, wanted a str"),
        (lambda: fa.Parameter(np.ones(2), "w", 1), TypeError, "decay: got 1, wanted True or False"),
        (
            lambda: fa.Parameter(np.ones(2), "w", True, -1),
            ValueError,
            "max_norm: got -1, wanted a number above",
        ),
        (lambda: fa.Linear(2, 2, precision="low"), ValueError, "precision: got 'low'"),
        (lambda: fa.Linear(2, 2, dtype=np.float16), TypeError, "dtype: got float16"),
        (lambda: fa.Linear(2, 2, dtype=None), TypeError, "dtype: got None, wanted float32 or float64"),
        (lambda: fa.Linear(2, 2, dtype="half a float"), TypeError, "dtype: got half a float, wanted"),
        (lambda: fa.Linear(2, 2, "relu"), TypeError, "bias: got 'relu', wanted True or False"),
        (lambda: fa.Maxout(2, 2, 2, None), TypeError, "bias: got None, wanted True or False"),
        (lambda: fa.Linear(2, 2, init=lambda s, r, d: np.zeros(3, d)), ValueError, "init: returned"),
        (lambda: fa.Linear(2, 2, init=lambda s, r, d: [[0.0]]), TypeError, "init: returned list, wanted"),
        (lambda: fa.Maxout(2, 2, pieces=0), ValueError, "pieces: got 0, wanted 1 to 256"),
        (lambda: fa.Maxout(2, 2, pieces=257), ValueError, "pieces: got 257, wanted 1 to 256"),
        (lambda: fa.Activation("prelu"), ValueError, "PReLU"),
        (lambda: fa.PReLU(0), ValueError, "features: got 0"),
        (lambda: fa.Dropout(1.0), ValueError, "p: got 1.0, wanted 0 <= p < 1"),
        (lambda: fa.Dropout(0.5, 0), TypeError, "rescale: got 0, wanted True or False"),
        (lambda: fa.Dropout("0.5"), TypeError, "p: got '0.5', wanted a number"),
        (lambda: fa.Activation(["relu"]), ValueError, r"activation: got \['relu'\]"),
        (lambda: fa.Linear(2, 2, init=fa.init.maxout_normal), ValueError, r"shape: got \(2, 2\), wanted"),
        (lambda: fa.Sequential(fa.Linear(2, 2), np.tanh), TypeError, r"layers\[1\]: got ufunc"),
    ],
)
def test_layer_rejects_invalid_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_layers_of_an_initialiser_that_returns_one_array_are_not_tied():
    shared = np.ones((3, 3), np.float32)
    one, other = (fa.Linear(3, 3, init=lambda shape, rng, dtype: shared) for _ in range(2))
    one.weight.data += 1
    assert (other.weight.data == 1).all()
    assert (shared == 1).all()
    shared.flags.writeable = False
    assert fa.Linear(3, 3, init=lambda shape, rng, dtype: shared).weight.data.flags.carray


def test_prelu_starts_at_one_slope_or_one_per_feature():
    np.testing.assert_array_equal(fa.PReLU(3, 0.5).slope.data, [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(fa.PReLU(2, [0.5, 0.25]).slope.data, [0.5, 0.25])
    given = np.array([0.5, 0.25], np.float32)
    fa.PReLU(2, given).slope.data[0] = 9
    assert given[0] == 0.5


NOT_ARRAYS = ["x", [1.0], None, np.float32(1), np.ma.ones((2, 3), np.float32), np.ones((2, 3), int)]


@pytest.mark.parametrize("value", NOT_ARRAYS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: fa.Linear(3, 2), "weight"),
        (lambda: fa.Linear(3, 2), "bias"),
        (lambda: fa.Maxout(3, 2), "weight"),
        (lambda: fa.Maxout(3, 2), "bias"),
        (lambda: fa.Linear(3, 2, activation="prelu"), "slope"),
        (lambda: fa.PReLU(3), "slope"),
    ],
    ids=["Linear.weight", "Linear.bias", "Maxout.weight", "Maxout.bias", "Linear.slope", "PReLU.slope"],
)
def test_layer_rejects_data_that_is_not_a_float_array(make, name, value):
    x = np.ones((4, 3), np.float32)
    layer, waiting = make(), make()
    y = waiting(x, training=True)
    for changed in (layer, waiting):
        getattr(changed, name).data = value
    for call in (
        lambda: layer(x),
        lambda: fa.Sequential(layer)(x, training=True),
        layer.state_dict,
        lambda: fa.freeze(layer),
        lambda: fa.linear_region(layer, x[0]),
        lambda: fa.region_boundaries(layer, x[0], 2 * x[0]),
        lambda: fa.SGD(layer.parameters(), 0.1),
    ):
        with pytest.raises(TypeError, match=rf"\b{name}\b.*: got .*, wanted"):
            call()
    # the gradient of a bias does not read it, but has its shape and dtype
    with pytest.raises((TypeError, ValueError), match=rf"\b(grad_)?{name}\b.*: got .*, wanted"):
        waiting.backward(np.ones_like(y))
    assert isinstance(repr(fa.Sequential(layer)), str)


def test_layer_rejects_an_array_in_place_of_a_parameter():
    layer = fa.Linear(3, 2)
    layer.weight = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="weight: got ndarray, wanted a Parameter"):
        layer(np.ones((4, 3), np.float32))


def test_backward_with_an_invalid_flag_writes_no_gradient():
    model = small_model()
    x = np.ones((4, 6), np.float32)
    for flag in ("accumulate", "needs_input_grad"):
        for value in (1, 0, None, "yes", np.ones(2)):
            y = model(x, training=True)
            with pytest.raises(TypeError, match=f"{flag}: got .*, wanted True or False"):
                model.backward(y, **{flag: value})
            assert all(parameter.grad is None for parameter in model.parameters())
            with pytest.raises(TypeError, match=r"training: got .*, wanted True or False"):
                model(x, training=value)
    y = model(x, training=np.True_)
    model.backward(y, accumulate=np.False_)


def test_dropout_with_p_out_of_range_draws_nothing():
    layer = fa.Dropout(0.5, rng=0)
    before = layer.rng.bit_generator.state
    for value, error in ((1.0, ValueError), (np.nan, ValueError), (-0.1, ValueError), ("x", TypeError)):
        layer.p = value
        with pytest.raises(error, match=r"p: got .*, wanted"):
            layer(np.ones(3, np.float32), training=True)
    assert layer.rng.bit_generator.state == before


def test_dropout_ignores_the_callers_errstate():
    x = np.array([3e38, 1e-45, 2.0] * 20, np.float32)
    layer = fa.Dropout(0.5, rng=0)
    with np.errstate(all="raise"):
        y = layer(x, training=True)
        layer.backward(x)
    assert np.isinf(y).any()  # twice 3e38, as in a kernel


def test_layer_rejects_invalid_inputs(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    for layer in (fa.Linear(4, 2), fa.Maxout(4, 2), fa.PReLU(), fa.Activation("relu"), fa.Dropout()):
        with pytest.raises(TypeError, match="got list"):
            layer(x.tolist())
        with pytest.raises(TypeError, match="dtype"):
            layer(x.astype(np.int32))
    for layer in (fa.Linear(4, 2), fa.Maxout(4, 2), fa.PReLU()):
        with pytest.raises(TypeError, match="x: got dtype float64, wanted float32"):
            layer(x.astype(np.float64))
    for layer in (fa.Linear(5, 2), fa.Maxout(5, 2), fa.PReLU(5)):
        with pytest.raises(ValueError, match="shape"):
            layer(x)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4)])
def test_layers_keep_any_leading_shape(each_backend, shape):
    model = fa.Sequential(fa.Maxout(4, 3), fa.PReLU(3), fa.Linear(3, 2, activation="mish"), fa.Dropout(0.5))
    y = model(np.ones(shape, np.float32), training=True)
    assert y.shape == (*shape[:-1], 2)
    assert model.backward(y).shape == shape
    assert all(np.isfinite(parameter.grad).all() for parameter in model.parameters())
