"""Blocks: layers of Thinc in one call, against Thinc's own forwards and gradients."""

import contextlib
import copy
import functools
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
from thinc.api import (
    Dropout,
    Gelu,
    HashEmbed,
    LayerNorm,
    Linear,
    Maxout,
    Mish,
    Model,
    NumpyOps,
    Relu,
    Softmax,
    add,
    chain,
    clone,
    concatenate,
    expand_window,
    fix_random_seed,
    list2ragged,
    ragged2list,
    residual,
    with_array,
)
from thinc.layers.chain import forward as thinc_chain
from thinc.layers.residual import forward as thinc_residual

import fastact
from fastact import backends
from fastact.nn.steps import MAX_BRANCHES, MAX_WINDOW
from fastact.thinc import FastactOps, accelerate, blocks, restore

pytestmark = pytest.mark.skipif(backends.why_c_is_missing() is not None, reason="blocks run on the C backend")

WIDTH = 8
FLOAT32_EPS = float(np.finfo("f").eps)


@pytest.fixture(autouse=True)
def _c_backend():
    fastact.set_backend("c")
    yield
    fastact.set_backend(None)


def encoder(depth: int = 2, window: int = 1, rate: float = 0.0, pieces: int = 3) -> Model:
    """spaCy's MaxoutWindowEncoder without its with_array."""
    size = WIDTH * (2 * window + 1)
    layer = chain(expand_window(window), Maxout(WIDTH, size, pieces, normalize=True, dropout=rate))
    return clone(residual(layer), depth)


# Each structure, with the number of its blocks.
STRUCTURES: dict[str, tuple[Callable[[], Model], int]] = {
    "maxout and layer norm": (lambda: Maxout(WIDTH, WIDTH, 3, normalize=True), 1),
    "maxout and dropout": (lambda: Maxout(WIDTH, WIDTH, 3, dropout=0.3), 1),
    "maxout, layer norm, dropout": (lambda: Maxout(WIDTH, WIDTH, 2, normalize=True, dropout=0.3), 1),
    "bracketed to the right": (
        lambda: chain(Maxout(WIDTH, WIDTH, 3), chain(LayerNorm(WIDTH), Dropout(0.3))),
        1,
    ),
    "flat": (lambda: chain(Maxout(WIDTH, WIDTH, 3), LayerNorm(WIDTH), Dropout(0.3)), 1),
    "residual of a maxout": (lambda: residual(Maxout(WIDTH, WIDTH, 3)), 1),
    "encoder of one block": (lambda: encoder(1, rate=0.3), 1),
    "encoder of three blocks": (lambda: encoder(3, rate=0.3), 1),
    "window of 2": (lambda: encoder(2, window=2), 1),
    "window of 5, one piece": (lambda: encoder(1, window=5, pieces=1), 1),
    "window without a residual": (lambda: chain(expand_window(1), Maxout(WIDTH, 3 * WIDTH, 3)), 1),
    "window and mish": (
        lambda: residual(chain(expand_window(1), Mish(WIDTH, 3 * WIDTH, normalize=True, dropout=0.3))),
        1,
    ),
    "residual in a residual": (
        lambda: residual(chain(residual(Maxout(WIDTH, WIDTH, 3)), Maxout(WIDTH, WIDTH, 2))),
        1,
    ),
    "relu, mish, gelu, linear": (
        lambda: chain(
            Relu(7, WIDTH, normalize=True), Mish(6, 7), Gelu(5, 6, dropout=0.3), Relu(4, 5), Linear(3, 4)
        ),
        1,
    ),
    "relu alone": (lambda: Relu(5, WIDTH), 0),
    "mish alone": (lambda: Mish(5, WIDTH), 0),
    "gelu alone": (lambda: Gelu(5, WIDTH), 0),
    "linear alone": (lambda: Linear(5, WIDTH), 0),
    "another layer between": (
        lambda: chain(
            Relu(7, WIDTH), Relu(6, 7), Softmax(5, 6), Maxout(4, 5, 3, normalize=True), Linear(3, 4)
        ),
        2,
    ),
    "a sum of two": (lambda: chain(add(Relu(WIDTH, WIDTH), Linear(WIDTH, WIDTH)), encoder(2)), 1),
    "a window that no product follows": (
        lambda: chain(Maxout(4, WIDTH, 3, normalize=True), expand_window(1), LayerNorm(12)),
        1,
    ),
    "a window at the end": (lambda: chain(Linear(4, WIDTH), LayerNorm(4), expand_window(1)), 1),
}


def prepared(make: Callable[[], Model], dtype: str = "f") -> Model:
    """An initialised model, with random numbers for all parameters."""
    fix_random_seed(0)
    model = make()
    model.initialize(np.ones((2, WIDTH), "f"))
    rng = np.random.default_rng(0)
    for node in model.walk():
        node.ops = NumpyOps(use_blis=False)  # BLIS takes float32 alone
        for name in node.param_names:
            value = node.get_param(name)
            node.set_param(name, (value + rng.uniform(-0.2, 0.2, value.shape)).astype(dtype))
    return model


def results(model: Model, rows: int, dtype: str = "f", is_train: bool = True) -> list[np.ndarray]:
    """Y, dX and the gradients of two backwards, with the masks of one seed."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((rows, WIDTH)).astype(dtype)
    fix_random_seed(2)
    Y, backprop = model(X, is_train)
    dY = rng.standard_normal(Y.shape).astype(dtype)
    first = backprop(dY)
    np.testing.assert_array_equal(backprop(dY), first)
    grads = [node.get_grad(name) for node in model.walk() for name in node.param_names]
    return [Y, first, *grads]


def norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(array.astype("f8") ** 2) for array in arrays)))


def error(got: list[np.ndarray], exact: list[np.ndarray]) -> float:
    return norm([a - b for a, b in zip(got, exact, strict=True)]) / norm(exact)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 17, 97])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_block_results_are_as_accurate_as_thincs(structure, rows, is_train):
    """At most twice Thinc's own error against Thinc in float64, or a few roundings."""
    make, count = STRUCTURES[structure]
    exact = results(prepared(make, "f8"), rows, "f8", is_train)
    thinc = error(results(prepared(make), rows, "f", is_train), exact)
    model = prepared(make)
    assert len(accelerate(model, same_draws=True).blocks) == count
    got = results(model, rows, "f", is_train)
    assert all(array.dtype == np.float32 for array in got)
    assert error(got, exact) <= max(2 * thinc, 4 * FLOAT32_EPS)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_block_in_float64_gives_thincs_results(structure):
    """Within what float64 rounds; Thinc's Gelu has constants of fewer digits, and its mask is float32."""
    make, _ = STRUCTURES[structure]
    thinc = results(prepared(make, "f8"), 17, "f8")
    model = prepared(make, "f8")
    accelerate(model, same_draws=True)
    got = results(model, 17, "f8")
    assert all(array.dtype == np.float64 for array in got)
    assert error(got, thinc) <= (1e-6 if "gelu" in structure else 1e-13)


# ---- masks


def masks(model: Model, rows: int = 50) -> np.ndarray:
    """Which numbers a model of layers that pass on what they get keeps."""
    return model(np.ones((rows, WIDTH), "f"), True)[0] != 0


def dropouts(count: int, rate: float) -> Model:
    """Layers that return their input, each with a dropout."""
    layers = []
    for _ in range(count):
        layer = Linear(WIDTH, WIDTH)
        layer.initialize()
        layer.set_param("W", np.eye(WIDTH, dtype="f"))
        layers += [layer, Dropout(rate)]
    return chain(*layers)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.97])
def test_same_draws_are_thincs_masks_and_factors(rate):
    model = dropouts(2, rate)
    X = np.ones((50, WIDTH), "f")
    fix_random_seed(3)
    thinc = model(X, True)[0]
    after = np.random.random()  # noqa: NPY002
    accelerate(model, same_draws=True)
    fix_random_seed(3)
    np.testing.assert_array_equal(model(X, True)[0], thinc)
    assert np.random.random() == after  # noqa: NPY002


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(Dropout(0.3), expand_window(MAX_WINDOW + 1), Linear(3, (2 * MAX_WINDOW + 3) * WIDTH)),
        lambda: functools.reduce(
            lambda layer, _: residual(layer), range(MAX_BRANCHES + 1), Maxout(WIDTH, WIDTH, 2, dropout=0.3)
        ),
    ],
    ids=["window", "residuals"],
)
def test_same_draws_beyond_the_limits_of_a_block_are_thincs(make):
    model = prepared(make)
    expected = results(model, 5)
    state = np.random.get_state()[2]  # noqa: NPY002
    accelerate(model, same_draws=True)
    for got, wanted in zip(results(model, 5), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert np.random.get_state()[2] == state  # noqa: NPY002


def test_limits_of_a_block_are_those_of_c():
    lib = backends.get("c").lib
    assert (MAX_BRANCHES, MAX_WINDOW) == (lib.FA_MAX_BRANCHES, lib.FA_MAX_WINDOW)


def test_mask_is_reproducible_and_differs_from_layer_to_layer_and_call_to_call():
    model = dropouts(1, 0.5)
    twice = dropouts(2, 0.5)
    accelerate(model)
    accelerate(twice)
    fix_random_seed(3)
    first, second = masks(model), masks(model)
    assert (first != second).any()
    fix_random_seed(3)
    np.testing.assert_array_equal(masks(model), first)
    fix_random_seed(3)
    np.testing.assert_array_equal(masks(twice), first & second)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mask_drops_the_share_that_it_should(rate):
    model = dropouts(1, rate)
    accelerate(model)
    fix_random_seed(0)
    rows = 20_000
    Y = model(np.ones((rows, WIDTH), "f"), True)[0]
    np.testing.assert_array_equal(np.unique(Y), np.array([0, 1 / (1 - rate)], "f"))
    deviation = np.sqrt(rate * (1 - rate) / Y.size)
    assert abs((Y == 0).mean() - rate) < 5 * deviation


def test_mask_takes_one_draw_of_numpys_generator():
    model = dropouts(2, 0.5)
    accelerate(model)
    fix_random_seed(3)
    masks(model)
    after = np.random.random()  # noqa: NPY002
    fix_random_seed(3)
    np.random.randint(0, 2**63, 2)  # noqa: NPY002
    assert np.random.random() == after  # noqa: NPY002


def test_accelerate_again_changes_the_draws_and_restore_gives_thincs_dropout_back():
    model = dropouts(1, 0.5)
    before = [node._func for node in model.walk()]
    fix_random_seed(3)
    thinc = masks(model)
    for same_draws in (True, False, True):
        accelerate(model, same_draws=same_draws)
        fix_random_seed(3)
        assert (masks(model) == thinc).all() == same_draws
    restore(model)
    assert [node._func for node in model.walk()] == before


@pytest.mark.parametrize("rate", [0, -0.5, 1.0, 1.5])
def test_dropout_of_other_rates_does_what_thincs_does(rate):
    make = STRUCTURES["maxout, layer norm, dropout"][0]
    results_of = []
    for prepare in (lambda model: None, accelerate):
        model = prepared(make)
        prepare(model)
        model.layers[1].attrs["dropout_rate"] = rate
        results_of.append(results(model, 9))
    for ours, theirs in zip(*reversed(results_of), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_that_is_disabled_is_left_out():
    model = prepared(STRUCTURES["maxout, layer norm, dropout"][0])
    accelerate(model)
    X = np.ones((5, WIDTH), "f")
    model.layers[1].attrs["is_enabled"] = False
    np.testing.assert_array_equal(model(X, True)[0], model.predict(X))


# ---- what runs one by one


class DeviceArray(np.ndarray):
    """Stands in for a GPU's array: not a plain numpy.ndarray."""


def whole_encoder() -> Model:
    """Windows, maxouts, a residual and small whole numbers: Thinc's results are ours to the bit."""
    layer = chain(expand_window(1), Maxout(WIDTH, 3 * WIDTH, 2, dropout=0.5))
    model = chain(residual(layer), residual(layer.copy()), Relu(5, WIDTH))
    model.initialize()
    rng = np.random.default_rng(0)
    for node in model.walk():
        node.ops = NumpyOps(use_blis=False)
        for name in node.param_names:
            node.set_param(name, rng.integers(-2, 3, node.get_param(name).shape).astype("f"))
    return model


def whole_results(model: Model, X: np.ndarray, dY_dtype: str = "f") -> list[np.ndarray]:
    fix_random_seed(0)
    Y, backprop = model(X, True)
    dX = backprop(np.random.default_rng(1).integers(-2, 3, Y.shape).astype(dY_dtype))
    return [Y, dX, *(node.get_grad(name) for node in model.walk() for name in node.param_names)]


@contextlib.contextmanager
def network_calls(wanted: int):
    """Checks how often C runs a network forward."""
    backend = backends.get("c")
    with mock.patch.object(backend, "network_forward", side_effect=backend.network_forward) as call:
        yield
    assert call.call_count == wanted


def whole_numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(-2, 3, shape).astype("f")


def change_ops(method: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        def own(self, *args, **kwargs):
            self.calls += 1
            return getattr(NumpyOps, method)(self, *args, **kwargs)

        ops = type("Own", (NumpyOps,), {method: own})(use_blis=False)
        ops.calls = 0
        for node in model.walk():
            node.ops = ops

    return change


def change_attribute(name: str, value: object) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        next(node for node in model.walk() if name in node.attrs).attrs[name] = value

    return change


def change_parameter(model: Model) -> None:
    node = next(node for node in model.walk() if node.name == "maxout")
    node.set_param("W", np.asfortranarray(node.get_param("W")))


def change_forward(model: Model) -> None:
    node = next(node for node in model.walk() if node.name == "relu")
    forward = node._func
    node.replace_callbacks(lambda model, X, is_train: forward(model, X, is_train), init=node.init)


def change_layers(model: Model) -> None:
    model.layers.append(Softmax(3, 5).initialize())


def change_inner_layers(model: Model) -> None:
    layer = chain(expand_window(2), Maxout(WIDTH, 5 * WIDTH, 2))
    layer.initialize()
    layer.layers[1].set_param("W", whole_numbers(WIDTH, 2, 5 * WIDTH))
    model.layers[0].layers[0] = layer


CHANGES = {
    "nothing": (lambda model: None, 1),
    "gemm": (change_ops("gemm"), 0),
    "seq2col": (change_ops("seq2col"), 1),  # the Relu alone
    "backprop_seq2col": (change_ops("backprop_seq2col"), 1),
    "get_dropout_mask": (change_ops("get_dropout_mask"), 1),
    "backprop_relu": (change_ops("backprop_relu"), 0),
    "other layers inside": (change_inner_layers, 1),
    "a rate of 1": (change_attribute("dropout_rate", 1.0), 1),
    "strided weights": (change_parameter, 1),
    "a forward of its own": (change_forward, 1),
    "a layer more": (change_layers, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_block_that_was_changed_after_accelerate_does_what_thincs_layers_do(change):
    apply, calls = CHANGES[change]
    X = whole_numbers(9, WIDTH)
    thinc, model = whole_encoder(), whole_encoder()
    accelerate(model, same_draws=True)
    apply(thinc)
    apply(model)
    with network_calls(calls):
        got = whole_results(model, X)
    for ours, theirs in zip(got, whole_results(thinc, X), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    own = [node.ops.calls for node in (thinc, model) if hasattr(node.ops, "calls")]
    assert len(set(own)) <= 1  # as many as with Thinc's forwards
    assert 0 not in own


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_block_on_another_backend_runs_layer_by_layer(backend):
    X = whole_numbers(9, WIDTH)
    thinc, model = whole_encoder(), whole_encoder()
    report = accelerate(model, same_draws=True)
    assert "1 block in one call\n" in repr(report)
    fastact.set_backend(backend)
    assert "1 block layer by layer, as the C backend is not active\n" in repr(report)
    with network_calls(0):
        got = whole_results(model, X)
    for ours, theirs in zip(got, whole_results(thinc, X), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_callback_outlives_a_change_of_the_backend():
    model = whole_encoder()
    accelerate(model)
    X = whole_numbers(9, WIDTH)
    fix_random_seed(0)
    wanted = model(X, True)[1](np.ones((9, 5), "f"))
    fix_random_seed(0)
    Y, backprop = model(X, True)
    fastact.set_backend("numpy")
    np.testing.assert_array_equal(backprop(np.ones_like(Y)), wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.astype("f8"),
        lambda X: X.view(DeviceArray),
        lambda X: X[:0],
    ],
    ids=["float64", "a subclass", "zero rows"],
)
def test_inputs_that_c_does_not_take_go_to_thincs_forward(change):
    X = change(whole_numbers(9, WIDTH))
    thinc, model = whole_encoder(), whole_encoder()
    accelerate(model, same_draws=True)
    with network_calls(0):
        Y = model.predict(X)
    wanted = thinc.predict(X)
    np.testing.assert_array_equal(Y, wanted)
    assert Y.dtype == wanted.dtype


def test_ragged_and_list_inputs_go_through_a_recognised_chain():
    rng = np.random.default_rng(0)
    xs = [whole_numbers(length, WIDTH) for length in (3, 1, 7)]
    inner = chain(Maxout(WIDTH, WIDTH, 2), Dropout(0.0))
    model = chain(list2ragged(), with_array(inner), Dropout(0.5), ragged2list())
    model.initialize()
    for name in ("W", "b"):
        inner.layers[0].set_param(
            name, rng.integers(-2, 3, inner.layers[0].get_param(name).shape).astype("f")
        )
    outputs = []
    for prepare in (lambda model: None, lambda model: accelerate(model, same_draws=True)):
        prepare(model)
        fix_random_seed(0)
        outputs.append(model(xs, True)[0])
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_input_that_is_strided_or_read_only_is_taken():
    model = prepared(STRUCTURES["maxout, layer norm, dropout"][0])
    accelerate(model)
    X = whole_numbers(9, WIDTH)
    Y = model.predict(X)
    wide, tall = np.repeat(X, 2, axis=1)[:, ::2], np.asfortranarray(X)
    wide.flags.writeable = tall.flags.writeable = False
    with network_calls(2):
        np.testing.assert_array_equal(model.predict(wide), Y)
        np.testing.assert_array_equal(model.predict(tall), Y)


def test_block_without_parameters_yet_is_initialised_by_thinc():
    models = []
    for prepare in (lambda model: None, accelerate):
        fix_random_seed(0)
        model = chain(Relu(7), Maxout(6, nP=2, normalize=True, dropout=0.1), residual(Maxout(nP=2)), Linear())
        model.layers[2].layers[0].set_dim("nO", 6)
        prepare(model)
        with pytest.raises((KeyError, ValueError)):
            model.predict(np.ones((2, 5), "f"))
        model.initialize(np.ones((2, 5), "f"), np.ones((2, 3), "f"))
        models.append(model)
    assert models[0].to_bytes() == models[1].to_bytes()
    with network_calls(1):
        assert models[1].predict(np.ones((2, 5), "f")).shape == (2, 3)


def test_wrong_width_gives_thincs_error():
    model = prepared(STRUCTURES["flat"][0])
    accelerate(model)
    with pytest.raises(ValueError, match="x: got shape"):
        model.predict(np.ones((2, WIDTH + 1), "f"))


def test_large_batch_is_the_same_as_its_parts():
    """Rows that are far from each other's windows do not depend on the rest of the batch."""
    model = prepared(lambda: encoder(2))
    accelerate(model)
    X = np.random.default_rng(0).standard_normal((100_000, WIDTH)).astype("f")
    Y, backprop = model(X, True)
    part = model.predict(X[50_000:50_100])
    np.testing.assert_allclose(Y[50_010:50_090], part[10:90], rtol=1e-4, atol=1e-5)
    assert backprop(Y).shape == X.shape


# ---- backward


def test_gradients_are_added_where_they_are():
    model = prepared(lambda: encoder(2))
    accelerate(model)
    once = results_of_one_backward(model)
    arrays = [node.get_grad(name) for node in model.walk() for name in node.param_names]
    results_of_one_backward(model)
    again = [node.get_grad(name) for node in model.walk() for name in node.param_names]
    assert all(a is b for a, b in zip(arrays, again, strict=True))
    for array, first in zip(again, once, strict=True):
        np.testing.assert_array_equal(array, 2 * first)  # doubling is exact


def results_of_one_backward(model: Model) -> list[np.ndarray]:
    """Copies of the gradients after a backward."""
    X = np.random.default_rng(1).standard_normal((9, WIDTH)).astype("f")
    Y, backprop = model(X, True)
    backprop(np.ones_like(Y))
    return [node.get_grad(name).copy() for node in model.walk() for name in node.param_names]


@pytest.mark.parametrize("missing", ["one", "another dtype", "strided", "read-only"])
def test_gradients_that_c_can_not_add_to_are_added_to(missing):
    model = prepared(lambda: encoder(2))
    accelerate(model)
    once = results_of_one_backward(model)
    node = next(node for node in model.walk() if node.name == "maxout")
    grad = node.get_grad("W")
    if missing == "one":
        del node._params._grads[node.id, "W"]
    elif missing == "another dtype":
        node.set_grad("W", grad.astype("f8"))
    elif missing == "strided":
        node.set_grad("W", np.asfortranarray(grad))
    else:
        fixed = grad.copy()
        fixed.flags.writeable = False
        node.set_grad("W", fixed)
    if missing == "read-only":
        with pytest.raises(ValueError, match="read-only"):  # as in Thinc
            results_of_one_backward(model)
        return
    twice = results_of_one_backward(model)
    names = [(n, name) for n in model.walk() for name in n.param_names]
    for (owner, name), first, second in zip(names, once, twice, strict=True):
        factor = 1 if missing == "one" and (owner is node and name == "W") else 2
        np.testing.assert_allclose(second, factor * first, rtol=1e-6)


class Proxy:
    """Parameters and gradients of another process, as Thinc takes them."""

    def __init__(self, params: dict):
        self.params, self.grads = params, {}

    def get_param(self, model_id: int, name: str) -> np.ndarray:
        return self.params[model_id, name]

    def inc_grad(self, model_id: int, name: str, value: np.ndarray) -> None:
        self.grads[model_id, name] = self.grads.get((model_id, name), 0) + value


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoder(2),
        lambda: LayerNorm(WIDTH),
        lambda: HashEmbed(WIDTH, 20, seed=1),
        lambda: concatenate(HashEmbed(WIDTH, 20, seed=1), HashEmbed(WIDTH, 30, seed=2)),
    ],
    ids=["block", "layer norm", "hash embedding", "concatenation"],
)
def test_gradients_go_to_a_proxy_that_comes_after_the_first_of_them(make):
    embeds = "embed" in make().name
    model = make().initialize() if embeds else prepared(make)
    X = np.arange(9, dtype="u8") if embeds else np.random.default_rng(0).standard_normal((9, WIDTH), "f")
    accelerate(model)
    params = [(node, name) for node in model.walk() for name in node.param_names]
    Y, backprop = model(X, True)
    backprop(np.ones_like(Y))
    first = [node.get_grad(name).copy() for node, name in params]
    assert len(params) == len(first) > 0
    proxy = Proxy({(node.id, name): node.get_param(name) for node, name in params})
    for node, _ in params:
        node._params.proxy = proxy
    Y, backprop = model(X, True)
    backprop(np.ones_like(Y))
    for (node, name), expected in zip(params, first, strict=True):
        np.testing.assert_array_equal(proxy.grads[node.id, name], expected)
        np.testing.assert_array_equal(node.get_grad(name), expected)


def test_layer_that_is_twice_in_a_block_gets_both_gradients():
    layer = Maxout(WIDTH, WIDTH, 2)
    layer.initialize()
    layer.set_param("W", whole_numbers(WIDTH, 2, WIDTH))
    layer.ops = NumpyOps(use_blis=False)
    X = whole_numbers(5, WIDTH)
    grads = []
    for prepare in (lambda model: None, accelerate):
        model = chain(layer, layer).copy()
        prepare(model)
        for _ in range(2):  # without gradients, and with
            Y, backprop = model(X, True)
            grads.append([backprop(np.ones_like(Y)), *(model.layers[0].get_grad(n).copy() for n in "Wb")])
    for theirs, ours in zip(grads[:2], grads[2:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_dY_of_a_wrong_shape_raises_and_leaves_the_gradients():
    model = prepared(lambda: encoder(2))
    accelerate(model)
    backprop = model(np.ones((9, WIDTH), "f"), True)[1]
    for shape in ((9, WIDTH + 1), (8, WIDTH), (9 * WIDTH,)):
        with pytest.raises(ValueError, match=r"dY: got shape .*, wanted \(9, 8\)"):
            backprop(np.ones(shape, "f"))
    assert not any(node.has_grad(name) for node in model.walk() for name in node.param_names)


@pytest.mark.parametrize(
    "change",
    [
        lambda dY: dY.astype("f8"),
        lambda dY: dY.view(DeviceArray),
        np.asfortranarray,
        lambda dY: np.repeat(dY, 2, axis=0)[::2],
    ],
)
def test_dY_of_another_dtype_or_layout_is_converted(change):
    model = prepared(lambda: encoder(2))
    accelerate(model)
    X = np.random.default_rng(1).standard_normal((9, WIDTH)).astype("f")
    Y, backprop = model(X, True)
    wanted = backprop(Y)
    got = backprop(change(Y))
    assert type(got) is np.ndarray
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)


def test_dY_that_is_a_gradient_is_read_before_it_is_written():
    model = prepared(lambda: chain(Linear(WIDTH, WIDTH), Dropout(0.5)))
    accelerate(model)
    X = np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype("f")
    Y, backprop = model(X, True)
    wanted = backprop(np.ones_like(Y)), model.layers[0].get_grad("W").copy()
    ones = np.ones_like(Y)
    model.layers[0].set_grad("W", ones)
    np.testing.assert_array_equal(backprop(ones), wanted[0])
    np.testing.assert_allclose(model.layers[0].get_grad("W"), 1 + wanted[1], rtol=1e-6)


def test_backward_uses_the_arrays_of_the_forward():
    model = prepared(lambda: encoder(2))
    accelerate(model)
    X = np.random.default_rng(1).standard_normal((9, WIDTH)).astype("f")
    Y, backprop = model(X, True)
    wanted = backprop(Y)
    for node in model.walk():
        for name in node.param_names:
            node.set_param(name, node.get_param(name) + 1)
    np.testing.assert_array_equal(backprop(Y), wanted)


def test_callback_frees_what_it_keeps():
    model = prepared(lambda: encoder(2))
    accelerate(model)
    X = np.ones((9, WIDTH), "f")
    gc.collect()
    gc.disable()
    try:
        _, backprop = model(X.view(), True)
        callback = weakref.ref(backprop)
        del backprop
        assert callback() is None
    finally:
        gc.enable()


def test_callbacks_of_threads_do_not_disturb_each_other():
    model = prepared(lambda: encoder(3))
    accelerate(model)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((rows, WIDTH)).astype("f") for rows in (5, 30, 200, 1)]

    def backward(X: np.ndarray) -> np.ndarray:
        Y, backprop = model(X, True)
        return backprop(Y)

    wanted = [backward(X) for X in inputs]
    failures = []

    def work(X: np.ndarray, dX: np.ndarray) -> None:
        for _ in range(30):
            if not np.array_equal(backward(X), dX):
                failures.append(len(X))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- copies, and what is exchanged


@pytest.mark.parametrize(
    "twin_of", [Model.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_run_their_own_layers(twin_of):
    model = prepared(lambda: encoder(2))
    accelerate(model)
    X = np.random.default_rng(1).standard_normal((9, WIDTH)).astype("f")
    Y = model.predict(X)
    twin = twin_of(model)
    with network_calls(1):
        np.testing.assert_array_equal(twin.predict(X), Y)
    for node in twin.walk():
        for name in node.param_names:
            node.set_param(name, node.get_param(name) * 2)
    assert (twin.predict(X) != Y).any()
    np.testing.assert_array_equal(model.predict(X), Y)
    twin(X, True)[1](Y)
    assert not any(node.has_grad(name) for node in model.walk() for name in node.param_names)
    restore(twin)
    assert twin._func is thinc_chain
    assert model._func is blocks.chain_forward


def test_accelerated_blocks_are_saved_as_thincs():
    model = prepared(lambda: encoder(2))
    saved = model.to_bytes()
    accelerate(model)
    assert model.to_bytes() == saved
    twin = encoder(2).from_bytes(saved)
    accelerate(twin)
    X = np.ones((9, WIDTH), "f")
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))


def test_outermost_forwards_are_exchanged_and_given_back():
    model = prepared(lambda: chain(encoder(2), Softmax(4, WIDTH)))
    before = [(node._func, node.ops) for node in model.walk()]
    for _ in range(2):
        accelerate(model)
        assert model._func is thinc_chain
        assert model.layers[0]._func is blocks.chain_forward
        assert {layer._func for layer in model.layers[0].layers} == {thinc_residual}
    restore(model)
    assert [(node._func, node.ops) for node in model.walk()] == before


def test_inner_layers_run_alone():
    model = prepared(lambda: encoder(2))
    X = np.random.default_rng(1).standard_normal((9, WIDTH)).astype("f")
    inner = model.layers[0]
    Y = inner.predict(X)
    accelerate(model)
    np.testing.assert_allclose(inner.predict(X), Y, rtol=1e-4, atol=1e-5)


def test_layer_inside_and_outside_of_a_block_is_exchanged():
    inner = residual(Maxout(WIDTH, WIDTH, 2, normalize=True))
    model = chain(chain(inner, LayerNorm(WIDTH)), Softmax(WIDTH, WIDTH), inner)
    accelerate(model)
    assert inner._func is blocks.residual_forward
    assert model.layers[0]._func is blocks.chain_forward


def test_report_describes_blocks():
    model = chain(encoder(4, rate=0.1), Softmax(5, WIDTH), Relu(4, 5, normalize=True))
    report = accelerate(model)
    texts = [
        "encoder of 4 blocks (window 1, Maxout(nO=8, nP=3, nI=24), layer norm, dropout, residual)",
        "Relu(nO=4, nI=5), layer norm",
    ]
    assert [(block.component, block.text, block.layers) for block in report.blocks] == [
        ("", texts[0], 8),
        ("", texts[1], 2),
    ]
    assert repr(report).splitlines()[:3] == ["2 blocks in one call each", *(f"  1 x {t}" for t in texts)]
    assert [layer.name for layer in report.others] == ["softmax"]
    assert {layer.name for layer in report.fused} == {"layernorm", "relu"}


def test_report_names_blocks_that_are_left_to_ops():
    model = encoder(2)
    change_ops("seq2col")(model)
    report = accelerate(model)
    assert not report.blocks
    assert [block.layers for block in report.deferred_blocks] == [4]
    assert "1 block left to Ops with methods of their own\n  1 x encoder of 2 blocks (" in repr(report)
    assert len(report.replaced) == 2  # each by itself


def test_fastacts_ops_are_no_hindrance():
    model = prepared(lambda: encoder(2))
    for node in model.walk():
        node.ops = FastactOps()
    accelerate(model)
    with network_calls(1):
        model.predict(np.ones((3, WIDTH), "f"))
