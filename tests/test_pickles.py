"""Pickles and checkpoints of 0.1.0 load, with the results that they had.

tests/data/pickles/make.py wrote them: 0.1.0 is that release, 0.1.0-flat a later state of its flat modules.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from support.processes import output_of

import fastact as fa

PICKLES = Path(__file__).parent / "data" / "pickles"
VERSIONS = ("0.1.0", "0.1.0-flat")
pytestmark = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="the pickles hold random generators of NumPy 2"
)
# Sums of at most 6 terms, of numbers of about 1, in another order.
TOLERANCE = {"rtol": 0, "atol": 64 * 2.0**-24}


def load(version):
    with open(PICKLES / version / "numpy.pickle", "rb") as file:
        return pickle.load(file)


def step(saved, optimizer):
    _, grad = fa.softmax_cross_entropy(saved["model"](saved["x"], training=True), saved["labels"])
    saved["model"].backward(grad)
    optimizer.step()


@pytest.mark.parametrize("version", VERSIONS)
def test_old_pickles_hold_the_classes_of_today(version):
    saved = load(version)
    model = saved["model"]
    assert type(model) is fa.Sequential
    kinds = [fa.Maxout, fa.Dropout, fa.Linear, fa.Sequential, fa.Activation, fa.Activation, fa.Linear]
    assert [type(layer) for layer in model.layers] == kinds
    assert [type(layer) for layer in model.layers[3].layers] == [fa.Linear, fa.PReLU]
    assert {type(parameter) for parameter in model.parameters()} == {fa.Parameter}
    assert (type(saved["sgd"]), type(saved["adam"]), type(saved["frozen"])) == (fa.SGD, fa.Adam, fa.Frozen)
    partial, *functions = saved["functions"]
    assert partial.func is fa.init.he_normal
    names = ("relu", "mse", "freeze", "save", "softmax_cross_entropy", "piece_usage", "get_config")
    assert functions == [getattr(fa, name) for name in (*names, "linear_maxout", "max_norm_")]


@pytest.mark.parametrize("version", VERSIONS)
def test_old_pickles_compute_what_they_did(backend, version):
    saved = load(version)
    x, y = saved["x"], saved["y"]
    np.testing.assert_allclose(saved["model"](x), y, **TOLERANCE)
    np.testing.assert_allclose(saved["frozen"](x), y, **TOLERANCE)
    assert saved["frozen"].backend == backend
    np.testing.assert_allclose(fa.freeze(saved["model"])(x), y, **TOLERANCE)
    assert saved["model"].layers[0].weight.max_norm == 1.5


@pytest.mark.parametrize("version", VERSIONS)
def test_old_optimisers_go_on(backend, version):
    saved = load(version)
    for name in ("sgd", "adam"):
        step(saved, saved[name])
    expected = np.load(PICKLES / version / "two_steps_later.npy")
    # Adam divides by the root of the second moment: where gradients are small, errors grow.
    np.testing.assert_allclose(saved["model"](saved["x"]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_old_checkpoints_go_on(backend, version):
    rng = np.random.default_rng(0)
    model = fa.Sequential(fa.Maxout(6, 3, rng=rng), fa.PReLU(3), fa.Linear(3, 3, rng=rng))
    adam = fa.Adam(model.parameters(), lr=1.0)
    expected = np.load(PICKLES / version / "checkpoint_results.npz")
    x, labels = expected["x"], np.array([0, 1, 2, 0])
    fa.load(PICKLES / version / "checkpoint.npz", model=model, adam=adam, rng=rng)
    np.testing.assert_allclose(model(x), expected["y"], **TOLERANCE)
    assert rng.standard_normal() == expected["number"]
    assert (adam.lr, adam.steps) == (0.01, 1)
    step({"model": model, "x": x, "labels": labels}, adam)
    np.testing.assert_allclose(model(x), expected["later"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_old_pickles_are_pickled_anew_without_old_names(version):
    saved = load(version)
    again = pickle.dumps(saved)
    for name in ("config", "frozen", "init", "inspection", "layers", "losses", "optim", "state"):
        assert f"fastact.{name}".encode() not in again
    np.testing.assert_array_equal(pickle.loads(again)["y"], saved["y"])


def test_old_module_names_are_importable_and_not_shown():
    code = """if True:
        import fastact
        from fastact.layers import Linear, Sequential
        from fastact.optim import SGD
        from fastact.frozen import Frozen
        assert Linear is fastact.Linear and SGD is fastact.SGD and Frozen is fastact.Frozen
        print(sorted({"layers", "optim", "frozen", "losses"} & set(dir(fastact))))
    """
    assert output_of(code) == "[]\n"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["torch", "accelerated", "pooled"])
def test_old_torch_models_load(version, name):
    torch = pytest.importorskip("torch")
    path = PICKLES / version / f"{name}.pt"
    saved = torch.load(path, weights_only=False)
    np.testing.assert_allclose(saved["model"](saved["x"]).detach(), saved["y"], **TOLERANCE)


@pytest.mark.parametrize("version", VERSIONS)
def test_old_thinc_models_load_from_bytes_and_pickles(version):
    thinc = pytest.importorskip("thinc.api")
    import fastact.thinc

    with open(PICKLES / version / "thinc.pickle", "rb") as file:
        saved = pickle.load(file)
    # layer normalisation divides by a standard deviation of 5 numbers
    np.testing.assert_allclose(saved["model"].predict(saved["x"]), saved["y"], rtol=0, atol=1e-5)
    report = fastact.thinc.accelerate(saved["model"])
    assert (len(report.replaced), len(report.already)) == (0, 2)
    layers = fastact.thinc.Maxout(5, 6, nP=3, dropout=0.1, normalize=True), thinc.Maxout(4, 5, nP=2)
    model = thinc.chain(*layers).from_bytes(saved["bytes"])
    np.testing.assert_allclose(model.predict(saved["x"]), saved["y"], rtol=0, atol=1e-5)
