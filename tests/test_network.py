"""Several layers in one call of the C backend: the same bits and errors as one by one."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import mmap
import os
import pickle
import weakref

import numpy as np
import pytest
from support.networks import SIZES, Twice, random_network
from support.variants import COMPILED, in_force

import fastact as fa
from fastact import activations, backends
from fastact.nn import network

C_VARIANTS = [variant for variant in COMPILED if not str(variant).startswith("numba")]

if backends.why_c_is_missing() is not None:
    pytest.skip(f"no C extension: {backends.why_c_is_missing()}", allow_module_level=True)

c = backends.get("c")
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
ROWS = (1, 2, 3, 15, 16, 17, 31, 33, 97)


@pytest.fixture(params=C_VARIANTS, autouse=True)
def variant(request):
    """Each instruction set in turn."""
    with in_force(request.param):
        yield


class Calls:
    """Counts the calls that ran a network, and can switch them off."""

    def __init__(self, monkeypatch):
        self.forward = self.backward = 0
        self.off = False
        for name in ("forward", "backward"):
            monkeypatch.setattr(c, f"network_{name}", self._spied(name, getattr(c, f"network_{name}")))

    def _spied(self, name, run):
        def spy(*arguments):
            if self.off:
                return None
            result = run(*arguments)
            setattr(self, name, getattr(self, name) + (result is not None))
            return result

        return spy

    @contextlib.contextmanager
    def one_by_one(self):
        self.off = True
        yield
        self.off = False


@pytest.fixture
def calls(monkeypatch):
    return Calls(monkeypatch)


def layouts(rng, x):
    """x, or an array of the same values in another layout."""
    kind = rng.integers(4)
    if kind == 0:
        return np.asfortranarray(x)
    if kind == 1:
        return np.repeat(x, 2, axis=1)[:, ::2]
    if kind == 2:
        return x.reshape(1, len(x), -1)
    return x


def trained(model, x, weights, accumulate, needs_input_grad):
    """What three training steps compute, and the states of the generators."""
    results = [model(x)]
    for grad_of_y in weights:
        y = model(x, training=True)
        grad_x = model.backward(grad_of_y[:1] * y, accumulate, needs_input_grad)
        results += [y, *([] if grad_x is None else [grad_x])]
        results += [np.array(parameter.grad) for parameter in model.parameters()]
    return results


def generators(layer):
    if isinstance(layer, fa.Residual):
        return generators(layer.layer)
    if isinstance(layer, fa.Sequential):
        return [state for inner in layer for state in generators(inner)]
    return [layer.rng.bit_generator.state] if isinstance(layer, fa.Dropout) else []


@pytest.mark.parametrize("seed", range(60))
def test_random_network_has_the_bits_of_its_layers_one_by_one(seed, calls, threads):
    rng = np.random.default_rng(seed)
    dtype = (F32, F64)[seed % 2]
    features = int(rng.choice(SIZES))
    model, _out = random_network(rng, features, dtype)
    other = copy.deepcopy(model)
    x = layouts(rng, rng.standard_normal((int(rng.choice(ROWS)), features)).astype(dtype))
    weights = rng.standard_normal((3, 1)).astype(dtype)
    accumulate, needs_input_grad = bool(rng.integers(2)), bool(rng.integers(2))
    with np.errstate(all="ignore"):
        got = trained(model, x, weights, accumulate, needs_input_grad)
        ran = calls.forward
        with calls.one_by_one():
            wanted = trained(other, x, weights, accumulate, needs_input_grad)
    known = any(run is not None for run, _ in model._planned().runs)
    assert (ran > 0) == known
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))
    assert generators(model) == generators(other)


@pytest.mark.parametrize("tier", ["highest", "high", "medium"])
def test_network_of_a_large_batch_has_the_bits_of_each_tier_one_by_one(tier, calls, rng):
    model = fa.Sequential(
        fa.Linear(97, 256, activation="relu", rng=0),
        fa.Maxout(256, 192, rng=1),
        fa.Linear(192, 64, precision="high", rng=2),
    )
    other = copy.deepcopy(model)
    x = rng.standard_normal((1500, 97)).astype(F32)
    with fa.float32_matmul_precision(tier):
        got = trained(model, x, np.ones((2, 1), F32), False, True)
        with calls.one_by_one():
            wanted = trained(other, x, np.ones((2, 1), F32), False, True)
    assert calls.forward == 3
    assert calls.backward == 2
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_backward_uses_the_tier_of_its_forward(calls, rng):
    model, x = (
        fa.Sequential(fa.Linear(256, 256, rng=0), fa.Linear(256, 256, rng=1)),
        rng.standard_normal((512, 256)).astype(F32),
    )
    other = copy.deepcopy(model)
    results = []
    for each in (model, other):
        calls.off = each is other
        with fa.float32_matmul_precision("medium"):
            y = each(x, training=True)
        results.append(each.backward(y))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e-45, -0.0])
def test_special_values_pass_a_network_as_one_by_one(special, calls, rng):
    layers = (
        fa.Dropout(0.5, rng=0),
        fa.Activation("relu"),
        fa.Linear(5, 4, activation="silu", rng=1),
        fa.PReLU(4),
    )
    model = fa.Sequential(*layers)
    other = copy.deepcopy(model)
    x = rng.standard_normal((6, 5)).astype(F32)
    x[::2, ::2] = special
    got = trained(model, x, np.ones((2, 1), F32), False, True)
    with calls.one_by_one():
        wanted = trained(other, x, np.ones((2, 1), F32), False, True)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.SFC64, np.random.Philox])
def test_dropout_in_a_network_draws_what_its_generator_draws(bits, calls):
    model = fa.Sequential(fa.Dropout(0.3, rng=np.random.Generator(bits(7))), fa.Activation("identity"))
    generator = np.random.Generator(bits(7))
    x = np.ones((33, 17), F32)
    for _ in range(3):  # an odd number of 32-bit draws
        y = model(x, training=True)
        np.testing.assert_array_equal(y != 0, generator.random(x.shape, np.float32) >= 0.3)
    assert calls.forward == 3
    assert generator.random() == model[0].rng.random()


def test_network_takes_new_data_gradients_and_attributes_at_the_next_call(calls, rng):
    model = fa.Sequential(
        fa.Linear(4, 3, activation="relu", rng=0), fa.Dropout(0.5, rng=1), fa.Linear(3, 2, rng=2)
    )
    x = rng.standard_normal((5, 4)).astype(F32)
    model.backward(model(x, training=True))
    model[0].weight.data = model[0].weight.data * 2
    model[0].activation = "tanh"
    model[1].p = 0.25
    model[1].rng = np.random.default_rng(3)
    model[2].bias = None
    model[2].weight.grad = None
    other = copy.deepcopy(model)
    got = trained(model, x, np.ones((2, 1), F32), False, True)
    ran = calls.forward
    with calls.one_by_one():
        wanted = trained(other, x, np.ones((2, 1), F32), False, True)
    assert ran == calls.forward == 4
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_network_takes_other_layers_at_the_next_call(rng):
    inner = fa.Sequential(fa.Linear(3, 3, rng=0))
    model = fa.Sequential(fa.Linear(4, 3, rng=1), inner)
    x = rng.standard_normal((5, 4)).astype(F32)
    model(x)
    inner.layers = (fa.Linear(3, 3, rng=2), Twice())
    np.testing.assert_array_equal(model(x), 2 * inner.layers[0](model[0](x)))
    model.layers = model.layers[:1]
    np.testing.assert_array_equal(model(x), model[0](x))


def test_list_of_layers_becomes_a_tuple_at_the_next_call(rng):
    model = fa.Sequential(fa.Linear(4, 3, rng=1), fa.Sequential())
    x = rng.standard_normal((5, 4)).astype(F32)
    y = model(x)
    for sequential in (model, model[1]):
        sequential.layers = list(sequential.layers)
        sequential.layers.append(Twice())
    np.testing.assert_array_equal(model(x), 4 * y)
    assert type(model.layers) is type(model[1].layers) is tuple


def test_gradients_after_a_change_of_layers_are_those_of_the_layers_now(calls, rng):
    model = fa.Sequential(fa.Activation("relu"), fa.Linear(4, 4, rng=0))
    model.layers = model.layers[::-1]
    x = rng.standard_normal((5, 4)).astype(F32)
    grads = []
    for _ in range(2):
        model.backward(model(x, training=True), needs_input_grad=False)
        grads.append(np.array(model[0].weight.grad))
        model[0].weight.grad = None
        calls.off = True
    np.testing.assert_array_equal(*grads)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("changed", [lambda layers: layers[:1], lambda layers: (*layers, Twice())])
def test_backward_after_a_change_of_layers_raises_and_leaves_gradients_alone(changed, inner, calls):
    def run():
        model = fa.Sequential(fa.Sequential(fa.Linear(4, 4, rng=0), fa.Activation("relu")), fa.PReLU())
        target = model[0] if inner else model
        y = model(X, training=True)
        layers, target.layers = target.layers, changed(target.layers)
        failed = outcome(lambda: model.backward(y))
        assert all(parameter.grad is None for parameter in model.parameters())
        target.layers = layers
        return *failed, model.backward(y)

    got = run()
    with calls.one_by_one():
        wanted = run()
    np.testing.assert_equal(got, wanted)
    assert got[:1] == (RuntimeError,)
    assert got[1].startswith("Sequential: got other layers than in the training forward")


def test_activation_of_another_name_saves_what_that_one_needs(calls):
    def run():
        model = fa.Sequential(fa.Activation("relu"))
        model[0].name = "gelu"
        model(X, training=True)
        return model.backward(X)

    got = run()
    with calls.one_by_one():
        np.testing.assert_array_equal(got, run())


# ---- the layers of a network alone, and its state


def test_layer_of_a_network_has_a_backward_of_its_own_after_the_networks_forward(calls, rng):
    layers = (
        fa.Linear(4, 6, activation="gelu", rng=0),
        fa.Dropout(0.5, rng=1),
        fa.Sequential(fa.Maxout(6, 5, 3, rng=2), fa.PReLU(5), fa.Activation("silu"), fa.Activation("tanh")),
        fa.Residual(fa.Sequential(fa.LayerNorm(5), fa.Linear(5, 5, activation="tanh", rng=4))),
        fa.Linear(5, 3, activation="relu", rng=3),
    )
    model = fa.Sequential(*layers)
    other = copy.deepcopy(model)
    x = rng.standard_normal((2, 7, 4)).astype(F32)
    y = model(x, training=True)
    assert calls.forward
    with calls.one_by_one():
        other(x, training=True)
        wanted = other.backward(y)
    grad = y
    for layer in reversed(model.layers):
        grad = layer.backward(grad)
    np.testing.assert_array_equal(grad, wanted)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)
    with pytest.raises(
        RuntimeError, match=r"layers\[4\], Linear\(5, 3, activation='relu'\): backward without"
    ):
        model.backward(y)


def backward_of_each(model, grad):
    """As `model.backward`, from the backwards of its layers."""
    for layer in reversed(model.layers):
        grad = layer.backward(grad)
    return grad


def assert_backwards_agree(model, x, calls):
    """Of the network, of its layers after its forward, and of layers that ran one by one: the same bits."""
    models = model, copy.deepcopy(model), copy.deepcopy(model)
    given = x.copy()
    ys = [each(x, training=True) for each in models[:2]]
    with calls.one_by_one():
        ys.append(models[2](x, training=True))
        wanted = models[2].backward(ys[2])
    grads = [models[0].backward(ys[0]), backward_of_each(models[1], ys[1])]
    for each, y, grad_x in zip(models, ys, grads, strict=False):
        np.testing.assert_array_equal(y, ys[2])
        np.testing.assert_array_equal(grad_x, wanted)
        for a, b in zip(each.parameters(), models[2].parameters(), strict=True):
            np.testing.assert_array_equal(a.grad, b.grad)
    np.testing.assert_array_equal(x, given)


@pytest.mark.parametrize("seed", range(30))
def test_layers_of_a_random_network_have_backwards_of_their_own(seed, calls):
    rng = np.random.default_rng(seed)
    dtype = (F32, F64)[seed % 2]
    features = int(rng.choice(SIZES))
    model, _out = random_network(rng, features, dtype)
    x = rng.standard_normal((int(rng.choice(ROWS)), features)).astype(dtype)
    with np.errstate(all="ignore"):
        assert_backwards_agree(model, x, calls)


KINDS = {
    "linear": lambda: fa.Linear(5, 5, rng=0),
    "saves y": lambda: fa.Linear(5, 5, activation="relu", rng=1),
    "saves z": lambda: fa.Linear(5, 5, activation="gelu", rng=2),
    "maxout": lambda: fa.Maxout(5, 5, 3, rng=3),
    "tanh": lambda: fa.Activation("tanh"),
    "silu": lambda: fa.Activation("silu"),
    "prelu": lambda: fa.PReLU(5),
    "dropout": lambda: fa.Dropout(0.4, rng=4),
    "layer norm": lambda: fa.LayerNorm(5),
    "residual": lambda: fa.Residual(fa.Dropout(0.2, rng=5)),
    "empty residual": lambda: fa.Residual(fa.Sequential()),
}


@pytest.mark.parametrize("first", KINDS)
def test_layers_in_any_order_have_backwards_of_their_own(first, calls, rng):
    """Before, inside and after a residual, with dropouts and sums in place where they may be."""
    x = rng.standard_normal((3, 5)).astype(F32)
    for second, third in itertools.product(KINDS, repeat=2):
        a, b, c = KINDS[first], KINDS[second], KINDS[third]
        model = fa.Sequential(a(), b(), fa.Residual(fa.Sequential(b(), c())), a(), c())
        assert_backwards_agree(model, x, calls)


@pytest.mark.parametrize("first", KINDS)
def test_dropout_takes_the_array_of_an_output_that_no_backward_reads(first, calls):
    x = np.ones((3, 5), F32)
    model = fa.Sequential(KINDS[first](), fa.Dropout(0.5, rng=0), fa.Linear(5, 5, rng=1))
    model(x, training=True)
    before, dropout, linear = (place[0] for place in c.network_tape(model[-1]._saved.take())[-3:])
    assert (before == dropout) == (first not in {"saves y", "tanh"})
    assert min(before, dropout) >= 0
    assert linear == -1
    np.testing.assert_array_equal(x, np.ones((3, 5), F32))


def test_layer_used_by_two_networks_keeps_the_arrays_of_the_last_forward(rng):
    shared = fa.Linear(3, 3, rng=0)
    first, second = (
        fa.Sequential(shared, fa.Linear(3, 2, rng=1)),
        fa.Sequential(fa.Linear(3, 3, rng=2), shared),
    )
    x = rng.standard_normal((4, 3)).astype(F32)
    y = first(x, training=True)
    second.backward(second(x, training=True))
    with pytest.raises(RuntimeError, match=r"layers\[0\], Linear\(3, 3\): backward without"):
        first.backward(y)
    first.backward(first(x, training=True))


def test_backward_twice_raises(rng):
    model = fa.Sequential(fa.Linear(3, 3, rng=0), fa.Activation("relu"))
    y = model(rng.standard_normal((4, 3)).astype(F32), training=True)
    model.backward(y)
    with pytest.raises(RuntimeError, match="Sequential: backward without a training forward"):
        model.backward(y)


def test_pickles_and_copies_leave_tapes_and_runs_out(rng):
    model = fa.Sequential(fa.Linear(3, 3, rng=0), fa.Activation("relu"))
    x = rng.standard_normal((1000, 3)).astype(F32)
    y = model(x, training=True)
    loaded = pickle.loads(pickle.dumps(model))
    assert len(pickle.dumps(model)) < 3000
    np.testing.assert_array_equal(loaded(x), y)
    np.testing.assert_array_equal(copy.deepcopy(model)(x), y)
    with pytest.raises(RuntimeError, match="backward without"):
        loaded.backward(y)


def test_arrays_of_a_forward_live_until_its_backward_and_no_longer(rng):
    model = fa.Sequential(fa.Linear(3, 3, rng=0), fa.Activation("relu"))
    x = rng.standard_normal((4, 3)).astype(F32)
    held = weakref.ref(x)
    y = model(x, training=True)
    del x
    gc.collect()
    assert held() is not None
    model.backward(y)
    gc.collect()
    assert held() is None


def test_memory_of_a_model_is_free_without_the_garbage_collector(rng):
    model = fa.Sequential(fa.Sequential(fa.Linear(4, 3, rng=0)), fa.Residual(fa.LayerNorm(3)))
    model.backward(model(X, training=True))
    held = weakref.ref(model[0][0].weight)
    gc.disable()
    try:
        del model
        assert held() is None
    finally:
        gc.enable()


def test_skipped_layers_keep_no_array_one_by_one_and_in_a_network(calls):
    for calls.off in (False, True):
        model = fa.Sequential(fa.Residual(fa.Activation("relu")), Twice(), fa.Linear(4, 3, rng=0))
        model.backward(model(X, training=True), needs_input_grad=False)
        assert model[0].layer._saved is None


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
def test_interrupted_backward_of_a_network_can_be_repeated(kind, calls, monkeypatch):
    model = fa.Sequential(fa.Linear(4, 3, rng=0), fa.Activation("relu"))
    y = model(X, training=True)

    def fails(parameter):
        raise kind("mine")

    with monkeypatch.context() as patch:
        patch.setattr(fa.Parameter, "grad_out", fails)
        with pytest.raises(kind, match="mine"):
            model.backward(y)
    assert model[0].weight.grad is None
    model.backward(y)
    assert calls.backward == 1


def test_network_of_a_size_beyond_any_memory_raises(tmp_path):
    rows, hidden = 1 << 22, 1 << 40
    try:
        with open(tmp_path / "zeros", "w+b") as file:
            os.truncate(file.fileno(), 4 * hidden)
            zeros = np.frombuffer(mmap.mmap(file.fileno(), 4 * hidden, access=mmap.ACCESS_READ), F32)
    except (OSError, ValueError, OverflowError):
        pytest.skip("no sparse file of 4 TiB here")
    model = fa.Sequential(fa.Linear(1, 1, bias=False, rng=0), fa.Linear(1, 1, rng=0))
    model[0].weight.data = zeros.reshape(hidden, 1)
    model[1].weight.data = zeros.reshape(1, hidden)
    with pytest.raises(MemoryError):
        model(np.ones((rows, 1), F32), training=True)


# ---- wrong arguments: the errors of the layers one by one


def outcome(call):
    """A value, or the type and the text of the error."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def small():
    return fa.Sequential(
        fa.Linear(4, 3, activation="tanh", rng=0),
        fa.Dropout(0.5, rng=1),
        fa.Maxout(3, 2, rng=2),
        fa.LayerNorm(2),
    )


X = np.linspace(-1, 1, 20, dtype=F32).reshape(5, 4)

BROKEN = {
    "weight of another size": lambda m: setattr(m[0].weight, "data", np.zeros((3, 5), F32)),
    "weight of another dtype": lambda m: setattr(m[2].weight, "data", np.zeros((2, 2, 3))),
    "weight a list": lambda m: setattr(m[2].weight, "data", [1.0]),
    "bias of another size": lambda m: setattr(m[2].bias, "data", np.zeros((2, 3), F32)),
    "bias an array": lambda m: setattr(m[0], "bias", np.zeros(3, F32)),
    "weight missing": lambda m: delattr(m[0], "weight"),
    "gradient of another size": lambda m: setattr(m[0].weight, "grad", np.zeros((4, 3), F32)),
    "gradient of another dtype": lambda m: setattr(m[2].bias, "grad", np.zeros((2, 2))),
    "gradient read-only": lambda m: setattr(m[2].bias, "grad", np.broadcast_to(F32.type(0), (2, 2))),
    "gradient not contiguous": lambda m: setattr(m[0].weight, "grad", np.zeros((4, 3), F32).T),
    "gradients that overlap": lambda m: setattr(m[0].weight, "grad", m[2].weight.grad),
    "gradient that is the data": lambda m: setattr(m[0].weight, "grad", m[0].weight.data),
    "unknown activation": lambda m: setattr(m[0], "activation", "no such"),
    "activation a list": lambda m: setattr(m[0], "activation", []),
    "p too large": lambda m: setattr(m[1], "p", 1.5),
    "p a str": lambda m: setattr(m[1], "p", "half"),
    "rescale a str": lambda m: setattr(m[1], "rescale", "yes"),
    "rescale a number": lambda m: setattr(m[1], "rescale", 0.3),
    "generator an array": lambda m: setattr(m[1], "rng", np.ones((5, 3), np.uint8)),
    "layer norm without a weight": lambda m: setattr(m[3], "weight", None),
    "unknown tier": lambda m: setattr(m[0], "precision", "best"),
    "byte order": lambda m: setattr(m[0].weight, "data", m[0].weight.data.astype(">f4")),
    "nothing": lambda m: None,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("when", ["before", "between"])
def test_broken_layer_in_a_network_fails_as_one_by_one(name, when, calls):
    """Before the forward, or between the forward and the backward."""

    def run():
        model = small()
        model.backward(model(X, training=True))
        if when == "before":
            BROKEN[name](model)
        forward = outcome(lambda: model(X, training=True))
        if when == "between":
            BROKEN[name](model)
        before = [(p.name, copy.deepcopy(p.grad)) for p in model.parameters()]
        back = outcome(lambda: model.backward(np.ones((5, 2), F32)))
        after = [(p.name, copy.deepcopy(p.grad)) for p in model.parameters()]
        return forward, back, before, after

    got = run()
    with calls.one_by_one():
        wanted = run()
    np.testing.assert_equal(got, wanted)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((5, 3), F32),
        np.zeros((5, 4)),
        np.zeros(4, F32),
        np.zeros((0, 4), F32),
        np.zeros((2, 0, 4), F32),
        np.zeros((), F32),
        np.zeros((5, 4), ">f4"),
        np.zeros((5, 4), np.int64),
        [[1.0, 2.0, 3.0, 4.0]],
        None,
        np.ma.zeros((5, 4), F32),
        np.zeros((5, 4), F32)[::-1],
        np.broadcast_to(F32.type(1), (5, 4)),
    ],
    ids=str,
)
def test_any_x_gives_a_network_the_result_or_the_error_of_one_by_one(x, calls):
    got = [outcome(lambda: small()(x)), outcome(lambda: small()(x, training=True))]
    with calls.one_by_one():
        wanted = [outcome(lambda: small()(x)), outcome(lambda: small()(x, training=True))]
    np.testing.assert_equal(got, wanted)


@pytest.mark.parametrize(
    "grad_y",
    [
        np.ones((5, 3), F32),
        np.ones((5, 2)),
        np.ones((10,), F32),
        np.ones((), F32),
        np.ones((5, 2), ">f4"),
        [[1.0]],
        None,
        np.ones((2, 5), F32).T,
        np.ones((5, 4), F32)[:, ::2],
        np.broadcast_to(F32.type(1), (5, 2)),
    ],
    ids=str,
)
def test_any_grad_y_gives_a_network_the_result_or_the_error_of_one_by_one(grad_y, calls):
    def run():
        model = small()
        model(X, training=True)
        got = outcome(lambda: model.backward(grad_y))
        again = outcome(lambda: model.backward(np.ones((5, 2), F32)))  # after an error, still allowed
        return got, again, [p.grad for p in model.parameters()]

    got = run()
    with calls.one_by_one():
        wanted = run()
    np.testing.assert_equal(got, wanted)


def test_memmaps_run_in_one_call(calls, tmp_path):
    arrays = [np.memmap(tmp_path / name, F32, "w+", shape=X.shape) for name in "xg"]
    for array in arrays:
        array[...] = X
    model = fa.Sequential(fa.Linear(4, 4, rng=0), fa.Activation("tanh"))
    results = []
    for x, grad_y in (arrays, (X, X)):
        results.append([model(x), model(x, training=True), model.backward(grad_y)])
    assert (calls.forward, calls.backward) == (4, 2)
    for got, wanted in zip(*results, strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, wanted)


def test_number_as_the_gradient_of_one_row_raises_as_one_by_one(calls):
    def run():
        model = fa.Sequential(fa.Linear(4, 1, rng=0))
        model(X[0], training=True)
        return outcome(lambda: model.backward(np.ones((), F32)))

    got = run()
    with calls.one_by_one():
        assert got == run()
    assert got[0] is ValueError


def test_gradient_of_y_that_overlaps_a_gradient_is_as_one_by_one(calls):
    def run():
        model = small()
        model.backward(model(X, training=True))
        memory = np.ones(12, F32)
        model[0].weight.grad = memory.reshape(3, 4)
        model(X, training=True)
        return outcome(lambda: model.backward(memory[:10].reshape(5, 2))), memory

    got = run()
    with calls.one_by_one():
        wanted = run()
    np.testing.assert_equal(got, wanted)


def test_error_in_a_users_layer_names_it_and_leaves_gradients_alone(calls):
    class Fails(Twice):
        fails = True

        def _backward(self, grad_y, saved, accumulate, needs_input_grad):
            if self.fails:
                raise KeyError("mine")
            return grad_y

    model = fa.Sequential(fa.Linear(4, 3, rng=0), fa.Activation("relu"), Fails(), fa.Linear(3, 2, rng=1))
    y = model(X, training=True)
    assert calls.forward == 2
    with pytest.raises(KeyError) as caught:
        model.backward(y)
    assert caught.value.args == ("mine",)
    assert model[0].weight.grad is None
    model[2].fails = False
    model.backward(model(X, training=True))
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("known", [True, False])
def test_backward_that_fails_in_the_middle_leaves_gradients_alone(known, each_backend):
    class Fails(Twice):
        def _backward(self, grad_y, saved, accumulate, needs_input_grad):
            raise KeyError("mine")

    def network(middle):
        return fa.Sequential(
            fa.Linear(4, 3, rng=0),
            fa.Residual(fa.Sequential(fa.Activation("relu"), middle)),
            fa.Sequential(fa.Linear(3, 3, rng=1)),
            fa.Linear(3, 2, bias=False, rng=2),
        )

    model = network(fa.Linear(3, 3, rng=3) if known else Fails())
    if known:
        model.backward(model(X, training=True))
        model[3].weight.grad[...] = 7
    before = [copy.deepcopy(parameter.grad) for parameter in model.parameters()]
    arrays = [parameter.grad for parameter in model.parameters()]
    y = model(X, training=True)
    if known:
        model[1].layer[1].weight.data = np.zeros((3, 4), F32)
    with pytest.raises(ValueError if known else KeyError):
        model.backward(y, accumulate=True)
    for parameter, values, array in zip(model.parameters(), before, arrays, strict=True):
        np.testing.assert_equal(parameter.grad, values)
        assert parameter.grad is array


def test_layer_that_appears_twice_in_changed_layers_raises_as_one_by_one(calls):
    def run():
        layer = fa.Linear(4, 4, rng=0)
        model = fa.Sequential(layer, fa.Activation("relu"))
        model.layers = (layer, layer)
        y = model(X, training=True)
        return outcome(lambda: model.backward(y))

    got = run()
    with calls.one_by_one():
        assert got == run()
    assert got[0] is RuntimeError


def test_step_codes_are_those_of_c():
    names = ("LINEAR", "MAXOUT", "ACTIVATION", "DROPOUT", "LAYER_NORM", "BRANCH", "SUM")
    for name in names:
        assert getattr(network, name) == getattr(c.lib, f"FA_{name}")
    for name, code in activations.CODES.items():
        assert code.takes_slope == (name == "prelu")
        if name != "prelu":
            act = activations.resolve(name, 1, F64, {})
            assert code[:3] == (act.code, act.parameter, act.saves == "z")
