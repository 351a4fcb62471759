"""The Thinc adapter: the fused layer against Thinc's own, the Ops, the layer, and Thinc's own tests."""

import copy
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.tolerance import assert_within, sum_bound
from thinc.api import (
    Adam,
    Dropout,
    Gelu,
    LayerNorm,
    Linear,
    Mish,
    Model,
    NumpyOps,
    Ops,
    Relu,
    Softmax,
    chain,
    clone,
    fix_random_seed,
    get_current_ops,
    get_ops,
    list2padded,
    list2ragged,
    padded2list,
    ragged2list,
    registry,
    residual,
    use_ops,
    with_array,
    with_array2d,
)
from thinc.api import Maxout as thinc_Maxout
from thinc.layers.maxout import forward as thinc_forward
from thinc.util import data_validation

import fastact
import fastact.thinc
from fastact import backends
from fastact.backends import get_backend
from fastact.thinc import FastactOps, Maxout, accelerate, restore

SHAPES = [(1, 5, 3, 2), (0, 5, 3, 2), (7, 1, 1, 4), (5, 7, 4, 1), (37, 288, 96, 3), (20, 33, 17, 5)]


def bound(magnitude: np.ndarray, terms: int) -> np.ndarray:
    return sum_bound(magnitude, terms, np.float32, get_backend())


def make_layer(in_features: int, out_features: int, pieces: int, seed: int = 0) -> Model:
    fix_random_seed(seed)
    model = thinc_Maxout(out_features, in_features, pieces)
    model.initialize()
    model.set_param("b", np.random.uniform(-1, 1, (out_features, pieces)).astype("f"))  # noqa: NPY002
    return model


def arrays(rows: int, in_features: int, out_features: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, in_features), dtype="f")
    return x, rng.standard_normal((rows, out_features), dtype="f")


# ---- the fused layer


@pytest.mark.parametrize(("rows", "in_features", "out_features", "pieces"), SHAPES)
def test_forward_and_backward_within_the_error_bound(rows, in_features, out_features, pieces):
    model = make_layer(in_features, out_features, pieces)
    x, grad_y = arrays(rows, in_features, out_features)
    accelerate(model)
    y, backprop = model(x, is_train=True)
    grad_x = backprop(grad_y)

    weight, bias = (model.get_param(name).astype("f8") for name in ("W", "b"))
    z = np.einsum("ni,opi->nop", x, weight) + bias
    error = bound(np.einsum("ni,opi->nop", abs(x), abs(weight)) + abs(bias), in_features + 1)
    assert_within(y, z.max(-1), error.max(-1))

    # A near tie may go either way, so take the winners as the kernel saw them, once they are seen to be such.
    argmax = fastact.linear_maxout(x, model.get_param("W"), model.get_param("b"))[1][..., None]
    assert_within(np.take_along_axis(z, argmax, -1)[..., 0], z.max(-1), 2 * error.max(-1))
    won = argmax == np.arange(pieces)
    grad_z = won * grad_y[..., None].astype("f8")

    def check(got: np.ndarray, subscripts: str, operand: np.ndarray, terms: int) -> None:
        magnitude = np.einsum(subscripts, abs(grad_z), abs(operand))
        assert_within(got, np.einsum(subscripts, grad_z, operand), bound(magnitude, terms))

    check(grad_x, "nop,opi->ni", weight, out_features)
    check(model.get_grad("W"), "nop,ni->opi", x, rows)
    check(model.get_grad("b"), "nop,n->op", np.ones(rows), rows)
    for array in (y, grad_x, model.get_grad("W"), model.get_grad("b")):
        assert array.dtype == np.float32


def test_fused_gradients_add_up_until_an_update():
    model = make_layer(6, 4, 3)
    x, grad_y = arrays(9, 6, 4)
    accelerate(model)
    for _ in range(2):
        model(x, is_train=True)[1](grad_y)
    twice = model.get_grad("W").copy()
    model = make_layer(6, 4, 3)
    accelerate(model)
    model(x, is_train=True)[1](grad_y)
    np.testing.assert_array_equal(twice, 2 * model.get_grad("W"))  # doubling is exact


def test_backprop_after_predict_behaves_as_in_thinc():
    model = make_layer(6, 4, 3)
    x, grad_y = arrays(9, 6, 4)
    accelerate(model)
    trained = model(x, is_train=True)[1](grad_y)
    np.testing.assert_array_equal(model(x, is_train=False)[1](grad_y), trained)


def test_fused_layer_takes_strided_and_read_only_inputs():
    model = make_layer(6, 4, 3)
    accelerate(model)
    x, grad_y = arrays(9, 6, 4)
    y, backprop = model(x, is_train=True)
    grad_x = backprop(grad_y)
    wide, tall = np.repeat(x, 2, axis=1)[:, ::2], np.asfortranarray(grad_y)
    wide.flags.writeable = tall.flags.writeable = False
    y_strided, backprop = model(wide, is_train=True)
    np.testing.assert_array_equal(y_strided, y)
    np.testing.assert_array_equal(backprop(tall), grad_x)


def test_float64_layer_is_fused():
    model = make_layer(6, 4, 3)
    for name in ("W", "b"):
        model.set_param(name, model.get_param(name).astype("f8"))
    accelerate(model)
    x, grad_y = (array.astype("f8") for array in arrays(9, 6, 4))
    y, backprop = model(x, is_train=True)
    assert y.dtype == backprop(grad_y).dtype == model.get_grad("W").dtype == np.float64


class DeviceArray(np.ndarray):
    """Stands in for a GPU's array: not a plain numpy.ndarray."""


@pytest.mark.parametrize("foreign", [lambda x: x.astype("f8"), lambda x: x.view(DeviceArray)])
def test_unsupported_inputs_are_passed_to_thinc(monkeypatch, foreign):
    model = make_layer(6, 4, 3)
    accelerate(model)
    seen = []
    monkeypatch.setattr(fastact.thinc.fused, "thinc_forward", lambda *args: seen.append(args) or ("Y", None))
    x = foreign(arrays(9, 6, 4)[0])
    assert model.predict(x) == "Y"
    assert seen == [(model, x, False)]


def test_mixed_dtypes_raise_thincs_own_error():
    model = make_layer(6, 4, 3)
    accelerate(model)
    with pytest.raises(ValueError, match="float32"):
        model.predict(arrays(9, 6, 4)[0].astype("f8"))


def test_input_of_wrong_width_raises():
    model = make_layer(6, 4, 3)
    accelerate(model)
    with pytest.raises(ValueError, match=r"x: got shape \(9, 5\)"):
        model.predict(arrays(9, 5, 4)[0])


@pytest.mark.parametrize("use_blis", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_backprop_dY_of_a_wrong_shape_raises_and_leaves_the_gradients(use_blis, dtype):
    model = make_layer(6, 4, 3)
    model.ops = NumpyOps(use_blis=use_blis)
    accelerate(model)
    backprop = model(arrays(9, 6, 4)[0], is_train=True)[1]
    for shape in ((9, 5), (8, 4), (36,)):
        with pytest.raises(ValueError, match=rf"dY: got shape {re.escape(str(shape))}, wanted \(9, 4\)"):
            backprop(np.ones(shape, dtype))
    assert not model.has_grad("W")
    assert not model.has_grad("b")


# ---- another dtype for dY, and Ops with methods of their own


def whole_layer(model_ops: NumpyOps) -> tuple[Model, np.ndarray, np.ndarray]:
    """A layer, x and dY of small whole numbers: every sum is exact, so Thinc's results are ours."""
    rng = np.random.default_rng(0)
    model = make_layer(6, 4, 3)
    model.ops = model_ops
    for name in ("W", "b"):
        model.set_param(name, whole_numbers(rng, *model.get_param(name).shape))
    return model, whole_numbers(rng, 9, 6), whole_numbers(rng, 9, 4)


def results(model: Model, x: np.ndarray, grad_y: np.ndarray) -> list[np.ndarray]:
    y, backprop = model(x, is_train=True)
    return [y, backprop(grad_y), model.get_grad("W"), model.get_grad("b")]


@pytest.mark.parametrize("foreign", [lambda dY: dY.astype("f8"), lambda dY: dY.view(DeviceArray)])
def test_backprop_takes_the_dY_that_thinc_takes(foreign):
    plain, x, grad_y = whole_layer(NumpyOps(use_blis=False))
    wanted = results(plain, x, foreign(grad_y))
    model = whole_layer(NumpyOps(use_blis=False))[0]
    accelerate(model)
    for got, theirs in zip(results(model, x, foreign(grad_y)), wanted, strict=True):
        np.testing.assert_array_equal(got, theirs)
        assert got.dtype == theirs.dtype


def test_backprop_float64_dY_gives_thincs_error_under_blis_and_leaves_the_gradients():
    model, x, grad_y = whole_layer(NumpyOps(use_blis=True))
    accelerate(model)
    backprop = model(x, is_train=True)[1]
    with pytest.raises(ValueError, match="BLIS gemm requires float32"):
        backprop(grad_y.astype("f8"))
    assert not model.has_grad("W")
    assert not model.has_grad("b")


def test_backprop_float64_dY_uses_the_weights_of_the_forward():
    model, x, grad_y = whole_layer(NumpyOps(use_blis=False))
    accelerate(model)
    wanted = model(x, is_train=True)[1](grad_y)
    backprop = model(x, is_train=True)[1]
    model.set_param("W", np.full((4, 3, 6), 7, "f"))
    np.testing.assert_array_equal(backprop(grad_y.astype("f8")), wanted)


def counting_ops(base: type, method: str) -> NumpyOps:
    """Ops of a subclass of `base` that overrides one method, which counts its calls."""

    def counted(self, *args, **kwargs):
        self.calls += 1
        return getattr(base, method)(self, *args, **kwargs)

    ops = type("Own", (base,), {method: counted})()
    ops.calls = 0
    return ops


METHODS = ("gemm", "maxout", "backprop_maxout", "reshape1f", "reshape2f", "reshape3f")


@pytest.mark.parametrize("base", [NumpyOps, FastactOps])
@pytest.mark.parametrize("method", METHODS)
def test_overridden_method_of_the_models_ops_is_called(base, method):
    model, x, grad_y = whole_layer(NumpyOps())
    wanted = results(model.copy(), x, grad_y)
    plain = model.copy()
    plain.ops = counting_ops(base, method)
    results(plain, x, grad_y)
    model.ops = counting_ops(base, method)
    report = accelerate(model)
    assert report.deferred
    assert not report.replaced
    assert "1 maxout layer left to Ops with methods of their own" in repr(report)
    for got, theirs in zip(results(model, x, grad_y), wanted, strict=True):
        np.testing.assert_array_equal(got, theirs)
    assert model.ops.calls == plain.ops.calls > 0


def test_replaced_gemm_of_ops_is_called():
    model, x, _ = whole_layer(NumpyOps())
    accelerate(model)
    model.ops.gemm = mock.Mock(side_effect=NumpyOps().gemm)
    model.predict(x)
    model.ops.gemm.assert_called_once()
    model.ops = NumpyOps()
    with mock.patch.object(NumpyOps, "gemm", side_effect=model.ops.gemm) as gemm:
        model.predict(x)
    gemm.assert_called_once()


def test_model_moved_to_other_ops_is_fused_while_they_allow():
    model, x, grad_y = whole_layer(counting_ops(NumpyOps, "gemm"))
    accelerate(model)
    own = model.ops
    model.ops = NumpyOps()
    with mock.patch.object(fastact.thinc.fused, "thinc_forward", side_effect=AssertionError):
        y, backprop = model(x, is_train=True)
    assert len(accelerate(model).already) == 1
    model.ops = own
    assert len(accelerate(model).deferred) == 1
    backprop(grad_y)  # the forward was fused, the backward is not
    assert own.calls == 2
    np.testing.assert_array_equal(model.predict(x), y)
    assert own.calls == 3


# ---- in a larger model


def window_model() -> Model:
    """An encoder of residual maxout layers with layer normalisation and dropout, and a linear layer."""
    fix_random_seed(0)
    layer = thinc_Maxout(8, 8, 3, normalize=True, dropout=0.2)
    return chain(clone(residual(layer), 2), Linear(5, 8))


def whole_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small whole numbers: every sum of a few layers' products is exact, whatever its order."""
    return rng.integers(-2, 3, shape).astype("f")


@pytest.mark.parametrize("lengths", [(3, 2, 1, 12), (1,)])
@pytest.mark.parametrize(
    "wrap",
    [
        with_array,
        lambda model: chain(list2ragged(), with_array(model), ragged2list()),
        lambda model: chain(list2padded(), with_array2d(model), padded2list()),
    ],
    ids=["list", "ragged", "padded"],
)
def test_fused_layer_takes_list_ragged_and_padded_inputs(wrap, lengths):
    rng = np.random.default_rng(0)
    model = wrap(chain(clone(residual(thinc_Maxout(8, 8, 3)), 2), Linear(5, 8)))
    model.initialize()
    for node in model.walk():
        for name in node.param_names:
            node.set_param(name, whole_numbers(rng, *node.get_param(name).shape))
    xs = [whole_numbers(rng, length, 8) for length in lengths]
    fused = model.copy()
    assert len(accelerate(fused).replaced) == 2
    results = []
    for m in (model, fused):
        ys, backprop = m(xs, is_train=True)
        grads = backprop([whole_numbers(np.random.default_rng(1), *y.shape) for y in ys])
        params = [node.get_grad(name) for node in m.walk() for name in node.param_names]
        results.append([*ys, *grads, *params])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fused_layer_takes_empty_sequences():
    model = with_array(chain(thinc_Maxout(4, 8, 3), Linear(5, 4)))
    model.initialize()
    accelerate(model)
    for lengths in ([0], [0, 3, 0]):
        xs = [np.ones((length, 8), "f") for length in lengths]
        ys, backprop = model(xs, is_train=True)
        assert [y.shape for y in ys] == [(length, 5) for length in lengths]
        assert [grad.shape for grad in backprop(ys)] == [x.shape for x in xs]


def test_uninitialised_dimensions_are_inferred_later():
    model = chain(thinc_Maxout(), Linear())
    report = accelerate(model)
    assert "1 x Maxout(nO=?, nP=3, nI=?)" in repr(report)
    model.layers[0].set_dim("nO", 4)
    x, grad_y = arrays(9, 6, 2)
    with data_validation(True):
        model.initialize(x, grad_y)
    y, backprop = model(x, is_train=True)
    assert y.shape == grad_y.shape
    assert backprop(grad_y).shape == x.shape


@pytest.fixture
def _c_backend():
    """Reports say what runs on the C backend."""
    if reason := backends.why_c_is_missing():
        pytest.skip(f"needs the C extension: {reason}")
    fastact.set_backend("c")
    yield
    fastact.set_backend(None)


@pytest.mark.usefixtures("_c_backend")
def test_accelerate_reports_and_restore_undoes():
    model = window_model()
    own = Model("maxout", lambda model, X, is_train: (X, None))
    model = chain(model, own)
    report = accelerate(model)
    assert repr(report).splitlines() == [
        "1 block in one call",
        "  1 x encoder of 2 blocks (Maxout(nO=8, nP=3, nI=8), layer norm, dropout, residual), "
        "Linear(nO=5, nI=8)",
        "2 maxout layers now fused",
        "  2 x Maxout(nO=8, nP=3, nI=8)",
        "1 maxout layer left alone, with a forward of its own",
        "  1 x Maxout(nO=?, nP=?, nI=?)",
        "3 other layers fused",
        "  1 x linear",
        "  2 x layernorm",
        "17 nodes with fastact's Ops",
    ]
    again = accelerate(model)
    assert (len(again.replaced), len(again.already), len(again.skipped)) == (0, 2, 1)
    assert "2 maxout layers fused before" in repr(again)
    restore(model)
    forwards = [node._func for node in model.walk() if node.name == "maxout" and node is not own]
    assert forwards == [thinc_forward, thinc_forward]


@pytest.mark.usefixtures("_c_backend")
def test_report_of_a_model_without_maxout_layers_names_its_layers():
    model = chain(Relu(4, 6), Mish(4, 4), Gelu(4, 4), Dropout(0.1), Linear(2, 4))
    report = accelerate(model)
    assert repr(report).splitlines() == [
        "1 block in one call",
        "  1 x Relu(nO=4, nI=6), Mish(nO=4, nI=4), Gelu(nO=4, nI=4), dropout, Linear(nO=2, nI=4)",
        "4 other layers fused",
        "  1 x relu",
        "  1 x mish",
        "  1 x gelu",
        "  1 x linear",
        "6 nodes with fastact's Ops",
    ]
    assert [layer.name for layer in report.fused] == ["relu", "mish", "gelu", "linear"]
    assert repr(accelerate(Softmax(4, 6))).splitlines() == [
        "0 maxout layers now fused",
        "1 other layer left alone: fastact has no forward of that kind",
        "  1 x softmax",
        "1 node with fastact's Ops",
    ]
    assert repr(accelerate(Dropout(0.1))) == "no layer with parameters was found"


def test_nodes_with_equal_ids_are_both_fused():
    layer = make_layer(8, 8, 3)
    model = chain(layer, copy.deepcopy(layer))  # a deep copy keeps the id, as does a pickle
    assert layer.id == model.layers[1].id
    assert len(accelerate(model).replaced) == 2
    shared = chain(layer, layer)
    assert len(accelerate(shared).already) == 1


def test_accelerate_rejects_other_objects():
    for function in (accelerate, restore):
        with pytest.raises(TypeError, match="model_or_nlp: got list, wanted a thinc Model or a spaCy"):
            function([])


def test_fused_model_survives_bytes_pickle_and_copy():
    model = window_model()
    model.initialize()
    x = arrays(9, 8, 1)[0]
    before, plain = model.to_bytes(), model.predict(x)
    accelerate(model)
    assert model.to_bytes() == before
    y = model.predict(x)
    for twin in (pickle.loads(pickle.dumps(model)), model.copy()):
        assert len(accelerate(twin).already) == 2
        np.testing.assert_array_equal(twin.predict(x), y)
    loaded = window_model().from_bytes(model.to_bytes())
    assert len(accelerate(loaded).replaced) == 2
    np.testing.assert_array_equal(loaded.predict(x), y)
    restore(model)
    np.testing.assert_array_equal(model.predict(x), plain)


def test_pickle_of_0_1_0_loads_fused():
    """In 0.1.0 `fastact.thinc` was one module, by which pickles name the forward, an init and the Ops."""
    with use_ops("fastact"):
        model = chain(Maxout(4, 6, 3), Maxout(5, 4, 2))
    model.initialize()
    data = pickle.dumps(model, protocol=2)  # which writes module names as lines
    old = re.sub(rb"fastact\.thinc\.(fused|layer|ops)\n", b"fastact.thinc\n", data)
    assert {b"forward", b"maxout_init", b"FastactOps"} <= set(re.findall(rb"cfastact\.thinc\n(\w+)\n", old))
    twin = pickle.loads(old)
    assert len(accelerate(twin).already) == 2
    x = arrays(9, 6, 1)[0]
    np.testing.assert_array_equal(twin.predict(x), model.predict(x))


def test_fused_training_learns_the_same_task():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 10), dtype="f")
    target = (x[:, :1] * x[:, 1:2] > 0).astype("f")  # no linear model learns this
    for prepare in (lambda model: None, accelerate):
        fix_random_seed(0)
        model = chain(thinc_Maxout(32, 10, 3), LayerNorm(32), Dropout(0.1), Linear(1, 32))
        model.initialize(x, target)
        prepare(model)
        optimizer = Adam(0.01)
        for _ in range(150):
            y, backprop = model(x, is_train=True)
            backprop((y - target) / len(x))
            model.finish_update(optimizer)
        assert np.mean((model.predict(x) > 0.5) == target) > 0.95


# ---- Ops


def test_ops_are_found_by_name():
    assert type(get_ops("fastact")) is FastactOps
    assert type(get_ops("cpu")) is NumpyOps
    with use_ops("fastact"):
        assert type(get_current_ops()) is FastactOps
        assert type(thinc_Maxout(3, 2).ops) is FastactOps


@pytest.mark.parametrize(
    "method", [name for name in vars(FastactOps) if not name.startswith("_") and name != "name"]
)
def test_ops_methods_have_the_parameters_and_annotations_of_thincs_ops(method):
    ours = inspect.signature(getattr(FastactOps, method)).parameters.values()
    theirs = inspect.signature(getattr(Ops, method)).parameters.values()
    for p, wanted in zip(ours, theirs, strict=True):
        assert (p.name, p.default, str(p.annotation)) == (wanted.name, wanted.default, str(wanted.annotation))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 3), (2, 1, 1), (6, 2, 256)])
def test_ops_maxout_and_backprop_equal_thincs(dtype, shape):
    rng = np.random.default_rng(0)
    X = rng.integers(-9, 9, shape).astype(dtype)  # small integers: many ties
    best, which = FastactOps().maxout(X)
    np.testing.assert_array_equal(best, X.max(-1))
    np.testing.assert_array_equal(which, X.argmax(-1))
    assert (best.dtype, which.dtype) == (dtype, np.int32)
    dX = FastactOps().backprop_maxout(best, which, shape[2])
    wanted = np.zeros_like(X)
    np.put_along_axis(wanted, which[..., None], best[..., None], axis=-1)
    np.testing.assert_array_equal(dX, wanted)
    assert dX.dtype == dtype


def test_ops_maxout_takes_the_first_nan():
    best, which = FastactOps().maxout(np.array([[[1, np.nan, 3, np.nan], [0, 1, np.inf, 2]]], "f"))
    np.testing.assert_array_equal(best, [[np.nan, np.inf]])
    np.testing.assert_array_equal(which, [[1, 2]])


@pytest.mark.parametrize("bad", [-1, 3, 256, 259])
def test_ops_backprop_maxout_checks_the_range_before_the_cast_to_a_byte(bad):
    which = np.array([[0, bad]], "i")
    with pytest.raises(IndexError, match=f"which: got values .*{bad}.*, wanted 0 to 2"):
        FastactOps().backprop_maxout(np.ones((1, 2), "f"), which, 3)


def test_layer_passes_more_than_256_pieces_to_thinc():
    model = make_layer(4, 3, 300)
    X = arrays(5, 4, 3)[0]
    wanted = model.predict(X)
    assert len(accelerate(model).deferred) == 1
    assert_within(model.predict(X), wanted, 2 * bound(abs(X).sum(-1, keepdims=True), 5))  # |W| < 1, b = 0


def test_ops_pass_more_than_256_pieces_to_thinc():
    X = np.zeros((2, 3, 300), "f")
    X[..., 299] = 1
    best, which = FastactOps().maxout(X)
    np.testing.assert_array_equal(which, np.full((2, 3), 299))
    assert FastactOps().backprop_maxout(best, which, 300)[..., 299].sum() == 6


ACTIVATIONS = ("relu", "gelu", "gelu_approx", "mish")


def run_activation(ops: NumpyOps, name: str, X: np.ndarray, inplace: bool) -> tuple[np.ndarray, np.ndarray]:
    """What `ops` makes of X and of a gradient of -2 everywhere."""
    dY = np.full_like(X, -2)
    saved = X.copy()
    Y = getattr(ops, name)(X, inplace=inplace)
    assert (Y is X) == inplace
    dX = getattr(ops, f"backprop_{name}")(dY, Y if name == "relu" else saved, inplace=inplace)
    assert (dX is dY) == inplace
    return Y, dX


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ops_activations_equal_thincs(name, dtype, inplace):
    X = np.linspace(-6, 6, 1001, dtype=dtype).reshape(7, 143)
    for ours, theirs in zip(
        run_activation(FastactOps(), name, X.copy(), inplace),
        run_activation(NumpyOps(), name, X.copy().astype("f8"), inplace),
        strict=True,
    ):
        # Thinc's constants are given to six digits, some multiply X cubed; its erf is right to 1.5e-7.
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ops_pass_other_dtypes_to_thinc(name):
    X = np.linspace(-2, 2, 8).astype("float16").reshape(2, 4)
    with np.errstate(over="ignore"):
        for ours, theirs in zip(
            run_activation(FastactOps(), name, X.copy(), False),
            run_activation(NumpyOps(), name, X.copy(), False),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_ops_pass_another_threshold_of_mish_to_thinc():
    X = np.array([[0.5, 1.5]], "f")
    assert FastactOps().mish(X, threshold=1.0)[0, 1] == 1.5
    assert FastactOps().backprop_mish(np.ones_like(X), X, threshold=1.0)[0, 1] == 1


# ---- the layer


def test_registered_layer_is_fused():
    config = {"layer": {"@layers": "fastact.Maxout.v1", "nO": 4, "nI": 6, "normalize": True, "dropout": 0.1}}
    model = registry.resolve(config)["layer"]
    report = accelerate(model)
    assert [layer[1:] for layer in report.already] == [(4, 3, 6)]
    assert not report.replaced
    assert [node.name for node in model.walk() if not node.layers] == ["dropout", "maxout", "layernorm"]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_layer_initialisation_keeps_the_scale(pieces):
    fix_random_seed(0)
    model = Maxout(2000, 100, pieces)
    model.initialize()
    assert model.get_param("W").dtype == np.float32
    assert not model.get_param("b").any()
    y = model.predict(np.random.default_rng(0).standard_normal((500, 100), dtype="f"))
    # E[y**2] = E[x**2] = 1; the mean of 2000 nearly independent units strays by some 2000**-0.5
    assert abs(np.mean(y**2) - 1) < 5 * 2000**-0.5
    fix_random_seed(0)
    twin = Maxout(2000, 100, pieces)
    twin.initialize()
    np.testing.assert_array_equal(twin.get_param("W"), model.get_param("W"))


def test_layer_uses_the_initialiser_it_is_given():
    model = Maxout(4, 6, 3, init_W=lambda ops, shape: ops.alloc_f(shape) + 2)
    model.initialize()
    np.testing.assert_array_equal(model.get_param("W"), np.full((4, 3, 6), 2, "f"))


# ---- Thinc's own tests


def outcomes_of_thincs_tests(modules: tuple[str, ...], *options: str, only: list[str] | None = None) -> dict:
    """Thinc ships its tests: run them with a plugin, all of them or some."""
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder) / "outcomes.json", Path(folder) / "only.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "fastact_in_thinc"]
        command += ["-c", os.devnull, "--hypothesis-seed=0", f"--outcomes={path}", *options]
        command += ["--ignore-glob=*/tests/mypy/*"]  # checks types for a minute, and runs no layer
        if only is not None:
            names.write_text(json.dumps(only))
            command += [f"--only={names}"]
        command += ["--pyargs", *modules]
        run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
        assert run.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), run.stdout + run.stderr
        return json.loads(path.read_text()) | {"said": run.stdout}


# All of them take about two minutes for each way.
@pytest.mark.parametrize(
    "modules",
    [
        ("thinc.tests.layers", "thinc.tests.model", "thinc.tests.test_optimizers"),
        pytest.param(("thinc.tests",), marks=pytest.mark.full),
    ],
    ids=["layers", "all"],
)
@pytest.mark.parametrize("how", ["ops", "accelerate"])
def test_thincs_own_tests_that_pass_without_fastact_pass_with_it(how, modules):
    ours = outcomes_of_thincs_tests(modules, f"--fastact={how}")
    outcomes = ours["outcomes"]
    assert sum(outcome == "passed" for outcome in outcomes.values()) > 300
    failed = [test for test, outcome in outcomes.items() if outcome != "passed"]
    plain = outcomes_of_thincs_tests(modules, only=failed)["outcomes"] if failed else {}
    assert plain.keys() == set(failed)
    lost = [test for test in failed if plain[test] == "passed"]
    assert not lost, "\n".join(lost) + ours["said"][-8000:]
    # the exchange worked
    if how == "accelerate":
        assert ours["exchanged"] > 0
    elif modules == ("thinc.tests",):
        assert {"test_maxout", "test_backprop_maxout", "test_get_dropout_not_empty"} <= {
            re.findall(r"::(\w+)", test)[0] for test in ours["given"]
        }
