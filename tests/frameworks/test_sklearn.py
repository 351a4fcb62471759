"""The estimators: scikit-learn's own checks, and what each parameter, method and attribute promises."""

from __future__ import annotations

import copy
import math
import pickle

import joblib
import numpy as np
import pytest
from scipy import sparse
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support.processes import output_of
from support.variants import in_force

import fastact as fa
from fastact.sklearn import MaxoutClassifier, MaxoutRegressor
from fastact.sklearn.base import LEAST_RATE
from fastact.sklearn.losses import LOSSES

KINDS = (MaxoutClassifier, MaxoutRegressor)
BATCHES = {"batch_size": 16, "max_iter": 4, "random_state": 0}  # several batches of the data below: float32


def data(kind, samples=60):
    """Standardised X (samples, 6), and y of three classes or standardised numbers."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, 6))
    if kind is MaxoutClassifier:
        return X, X[:, :3].argmax(axis=1)
    return X, X[:, 0] * X[:, 1]


def same(a, b):
    """The networks of two estimators have the same parameters to the bit."""
    return all(
        np.array_equal(p.data, q.data)
        for p, q in zip(a.network_.parameters(), b.network_.parameters(), strict=True)
    )


# ---- scikit-learn's own checks


@parametrize_with_checks([kind(**iterations) for kind in KINDS for iterations in ({}, {"max_iter": 20})])
def test_estimator_passes_check_of_scikit_learn(estimator, check):
    check(estimator)


# ---- the mathematics


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_fit_in_float64_is_that_of_mlp_classifier(activation):
    X, y = data(MaxoutClassifier)
    shared = {
        **{"hidden_layer_sizes": (7, 5), "activation": activation, "solver": "sgd", "warm_start": True},
        **{"batch_size": len(X), "learning_rate": "constant", "n_iter_no_change": 100, "momentum": 0.8},
    }
    ours = MaxoutClassifier(max_iter=1, learning_rate_init=0.0, alpha=0.01, **shared)
    theirs = MLPClassifier(max_iter=1, alpha=0.01 * len(X), **shared)  # it divides alpha by the samples
    with pytest.warns(ConvergenceWarning):
        ours.fit(X, y)
    with pytest.warns(ConvergenceWarning):
        theirs.fit(X, y)
    layers = list(ours.network_)
    theirs.coefs_ = [layer.weight.data.T.copy() for layer in layers]
    theirs.intercepts_ = [layer.bias.data.copy() for layer in layers]
    for estimator in (ours, theirs):
        estimator.set_params(learning_rate_init=0.1, max_iter=20)
        with pytest.warns(ConvergenceWarning):
            estimator.fit(X, y)
    assert ours.network_[0].weight.data.dtype == np.float64
    # 20 steps, each of which rounds sums of at most 60 terms
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-12)


def test_fit_in_float64_is_that_of_mlp_regressor():
    X, y = data(MaxoutRegressor)
    shared = {
        **{"hidden_layer_sizes": 7, "activation": "relu", "solver": "sgd", "warm_start": True},
        **{"batch_size": len(X), "learning_rate": "constant", "n_iter_no_change": 100, "shuffle": False},
    }
    ours = MaxoutRegressor(max_iter=1, learning_rate_init=0.0, alpha=0.0, **shared)
    theirs = MLPRegressor(max_iter=1, alpha=0.0, **shared)
    for estimator in (ours, theirs):
        with pytest.warns(ConvergenceWarning):
            estimator.fit(X, y)
    theirs.coefs_ = [layer.weight.data.T.copy() for layer in ours.network_]
    theirs.intercepts_ = [layer.bias.data.copy() for layer in ours.network_]
    for estimator, rate in ((ours, 0.05), (theirs, 0.1)):  # its loss is half the mean of the squares
        estimator.set_params(learning_rate_init=rate, max_iter=20)
        with pytest.warns(ConvergenceWarning):
            estimator.fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-11, atol=1e-12)


def example(loss, rng):
    """Outputs (5, 3) and a target for a loss."""
    outputs = rng.standard_normal((5, 3))
    targets = {
        "softmax": rng.integers(0, 3, 5),
        "logistic": rng.integers(0, 2, (5, 3)).astype(float),
        "identity": rng.standard_normal((5, 3)),
    }
    return outputs, targets[loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_weighted_loss_is_the_mean_of_terms_and_its_gradient_a_difference(rng, loss):
    outputs, target = example(loss, rng)
    weight = rng.uniform(0.5, 2, 5)
    mean, grad = LOSSES[loss].weighted(outputs, target, weight)
    terms = [LOSSES[loss].mean(outputs[i : i + 1], target[i : i + 1])[0] for i in range(5)]
    assert math.isclose(mean, np.average(terms, weights=weight), rel_tol=1e-14)
    step = 1e-5
    for place in np.ndindex(outputs.shape):
        above, below = outputs.copy(), outputs.copy()
        above[place] += step
        below[place] -= step
        difference = LOSSES[loss].weighted(above, target, weight)[0]
        difference -= LOSSES[loss].weighted(below, target, weight)[0]
        # a central difference is off by step² / 6 times a third derivative below 2, and by rounding
        assert math.isclose(grad[place], difference / (2 * step), abs_tol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_weighted_loss_with_equal_weights_is_the_mean(rng, loss):
    outputs, target = example(loss, rng)
    mean, grad = LOSSES[loss].mean(outputs, target)
    weighted, weighted_grad = LOSSES[loss].weighted(outputs, target, np.full(5, 0.25))
    assert math.isclose(weighted, mean, rel_tol=1e-14)
    np.testing.assert_allclose(weighted_grad, grad, rtol=1e-15)


def test_loss_curve_is_the_mean_cross_entropy_of_the_epoch():
    X, y = data(MaxoutClassifier)
    model = MaxoutClassifier(max_iter=2, batch_size=60, learning_rate_init=0.0).fit(X, y)
    logits = log_softmax(model._outputs(X), axis=1)
    assert model.loss_curve_ == pytest.approx([model.loss_] * 2, rel=1e-12)
    assert math.isclose(model.loss_, -logits[np.arange(60), y].mean(), rel_tol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_has_the_result_of_the_numpy_backend(kind):
    X, y = data(kind)
    model = kind(max_iter=10, batch_size=60, random_state=0).fit(X, y)
    with in_force("numpy"):
        reference = kind(max_iter=10, batch_size=60, random_state=0).fit(X, y)
    np.testing.assert_allclose(model.loss_curve_, reference.loss_curve_, rtol=1e-10)


# ---- weights


@pytest.mark.parametrize("kind", KINDS)
def test_fit_with_scaled_weights_is_the_same(kind, rng):
    X, y = data(kind)
    weight = rng.uniform(0, 1, len(X))
    a, b = (kind(batch_size=60, random_state=0).fit(X, y, weight * scale) for scale in (1, 1e-3))
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-9)


def test_class_weight_is_a_weight_of_the_samples_of_the_class():
    X, y = data(MaxoutClassifier)
    y[:30] = 0
    by_hand = MaxoutClassifier(**BATCHES).fit(X, y, len(y) / (3 * np.bincount(y))[y])
    assert same(MaxoutClassifier(class_weight="balanced", **BATCHES).fit(X, y), by_hand)
    weight = np.linspace(0, 1, len(y))
    both = MaxoutClassifier(class_weight={0: 2.0}, **BATCHES).fit(X, y, weight)
    assert same(both, MaxoutClassifier(**BATCHES).fit(X, y, np.where(y == 0, 2, 1) * weight))


def test_samples_of_weight_zero_are_left_out():
    X, y = data(MaxoutRegressor)
    weight = np.repeat([0.0, 1.0], 30)
    X[:30] = 1e30
    assert same(
        MaxoutRegressor(**BATCHES).fit(X, y, weight),
        MaxoutRegressor(**BATCHES).fit(X[30:], y[30:], weight[30:]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_fit_refuses_weights_without_a_sample(kind):
    X, y = data(kind)
    with pytest.raises(ValueError, match="weight"):
        kind().fit(X, y, np.zeros(len(X)))
    with pytest.raises(ValueError, match="sample_weight"):
        kind().fit(X, y, -np.ones(len(X)))


# ---- parameters


OTHERS = {
    **{"hidden_layer_sizes": (9,), "activation": "tanh", "pieces": 3, "dropout": 0.5, "max_norm": 0.1},
    **{"solver": "sgd", "alpha": 0.1, "batch_size": 20, "learning_rate": "constant", "max_iter": 5},
    **{"learning_rate_init": 0.1, "shuffle": False, "random_state": 1, "early_stopping": True},
    **{"beta_1": 0.5, "beta_2": 0.5, "epsilon": 0.1},
}
WITHIN = {
    "power_t": (0.1, {"learning_rate": "invscaling"}),
    "momentum": (0.5, {"solver": "sgd"}),
    "nesterovs_momentum": (False, {"solver": "sgd"}),
    "validation_fraction": (0.3, {"early_stopping": True}),
    "tol": (1e9, {"n_iter_no_change": 1}),
    "n_iter_no_change": (1, {"tol": 1e9}),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", [*OTHERS, *WITHIN])
@pytest.mark.parametrize("kind", KINDS)
def test_parameter_changes_the_fit(kind, name):
    X, y = data(kind)
    value, others = (OTHERS[name], {}) if name in OTHERS else WITHIN[name]
    usual = kind(**{**BATCHES, **others}).fit(X, y)
    changed = kind(**{**BATCHES, **others, name: value}).fit(X, y)
    assert usual.loss_curve_ != changed.loss_curve_


def test_every_parameter_has_a_test():
    elsewhere = {"verbose", "warm_start", "class_weight", "precision"}
    assert {*OTHERS, *WITHIN, *elsewhere} == set(MaxoutClassifier().get_params())
    assert set(MaxoutClassifier().get_params()) - set(MaxoutRegressor().get_params()) == {"class_weight"}


BAD = (
    *(("hidden_layer_sizes", value) for value in ((0,), (5, -1), (2.5,), "ab")),
    *(("activation", value) for value in ("swish", "linear", 3, None)),
    *(("pieces", value) for value in (0, 257, 1.5)),
    *((name, value) for name in ("dropout", "beta_1", "beta_2") for value in (-0.1, 1.0, math.nan, "0")),
    *(
        (name, value)
        for name in ("alpha", "power_t", "tol", "momentum", "epsilon")
        for value in (-1, math.nan)
    ),
    *(("learning_rate_init", value) for value in (-1.0, math.inf, None)),
    *(("max_norm", value) for value in (0.0, -1.0, math.inf, "1")),
    *(("solver", value) for value in ("lbfgs", "SGD", None)),
    *(("learning_rate", value) for value in ("linear", 0.1)),
    *((name, value) for name in ("max_iter", "batch_size", "n_iter_no_change") for value in (0, 1.5, "many")),
    *((name, 1) for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping")),
    *(("validation_fraction", value) for value in (0.0, 1.0)),
    *(("precision", value) for value in ("low", 1)),
)


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: str(value))
@pytest.mark.parametrize("kind", KINDS)
def test_fit_refuses_invalid_parameter(kind, name, value):
    X, y = data(kind)
    model = kind(**{name: value})
    with pytest.raises((TypeError, ValueError), match=rf"^{name}.*: got .*, wanted "):
        model.fit(X, y)
    assert not hasattr(model, "network_")


def test_precision_is_that_of_every_layer():
    X, y = data(MaxoutRegressor)
    model = MaxoutRegressor(precision="medium", hidden_layer_sizes=(5, 4), **BATCHES).fit(X, y)
    assert [layer.precision for layer in model.network_] == ["medium"] * 3


def test_network_has_the_layers_of_the_parameters():
    X, y = data(MaxoutClassifier)
    model = MaxoutClassifier((5, 4), pieces=3, dropout=0.2, max_norm=0.5, **BATCHES).fit(X, y)
    sizes = [
        "Maxout(6, 5, pieces=3)",
        "Dropout(0.2)",
        "Maxout(5, 4, pieces=3)",
        "Dropout(0.2)",
        "Linear(4, 3)",
    ]
    assert [repr(layer) for layer in model.network_] == sizes
    for layer in (model.network_[0], model.network_[2]):
        assert np.linalg.norm(layer.weight.data, axis=-1).max() <= 0.5 * (1 + 1e-6)
    assert MaxoutClassifier((), **BATCHES).fit(X, y).network_.layers[0].in_features == 6


@pytest.mark.parametrize(("samples", "size"), [(5, 5), (33, 32), (2000, 40), (20_000, 256)])
def test_batch_size_auto_is_a_fiftieth_within_bounds(samples, size):
    assert MaxoutClassifier()._batch(samples) == size
    assert MaxoutClassifier(batch_size=7)._batch(samples) == min(7, samples)


def test_network_is_of_float64_within_one_batch_and_float32_beyond():
    X, y = data(MaxoutRegressor)
    for size, dtype in ((60, np.float64), (59, np.float32)):
        model = MaxoutRegressor(batch_size=size, max_iter=1).fit(X.astype(np.float32), y)
        assert model.network_[0].weight.data.dtype == dtype
        assert model.predict(X).dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_fits_from_the_same_seed_have_the_same_bits(kind):
    X, y = data(kind)
    a, b = (kind(dropout=0.5, early_stopping=True, **BATCHES).fit(X, y) for _ in range(2))
    assert same(a, b)
    assert a.loss_curve_ == b.loss_curve_
    assert same(a, a.fit(X, y))
    state = np.random.RandomState(0)
    c, d = (kind(random_state=state).fit(X, y) for _ in range(2))
    assert not same(c, d)


# ---- learning rates and the end of training


def rates_of(monkeypatch, model, X, y):
    """The learning rate of each step of a fit."""
    rates = []
    step = fa.Adam.step

    def recorded(optimizer):
        rates.append(optimizer.lr)
        step(optimizer)

    monkeypatch.setattr(fa.Adam, "step", recorded)
    model.fit(X, y)
    return rates


def test_cosine_falls_to_zero_within_max_iter(monkeypatch):
    X, y = data(MaxoutClassifier)
    rates = rates_of(monkeypatch, MaxoutClassifier(batch_size=20, max_iter=10, learning_rate_init=0.02), X, y)
    assert rates == [fa.schedules.cosine(i, 30, 0.02) for i in range(30)]


def test_constant_and_invscaling_follow_their_formulas(monkeypatch):
    X, y = data(MaxoutRegressor)
    for name, formula in (
        ("constant", lambda seen: 0.01),
        ("invscaling", lambda seen: 0.01 / (seen + 1) ** 0.3),
    ):
        model = MaxoutRegressor(
            batch_size=20, max_iter=3, learning_rate=name, learning_rate_init=0.01, power_t=0.3
        )
        with pytest.warns(ConvergenceWarning, match="max_iter=3"):
            rates = rates_of(monkeypatch, model, X, y)
        assert rates == pytest.approx(
            [formula(60 * epoch) for epoch in range(3) for _ in range(3)], rel=1e-15
        )


def test_adaptive_divides_by_five_until_the_least_rate(monkeypatch):
    X, y = data(MaxoutRegressor)
    model = MaxoutRegressor(batch_size=60, learning_rate="adaptive", learning_rate_init=1e-3)
    model.set_params(tol=1e9, n_iter_no_change=1, max_iter=99)  # the first epoch alone is an improvement
    rates = rates_of(monkeypatch, model, X, y)
    assert rates == pytest.approx([1e-3, *(1e-3 / 5**i for i in range(6) for _ in range(2))], rel=1e-15)
    assert rates[-1] <= LEAST_RATE < rates[-3]


def test_training_stops_after_epochs_without_improvement():
    X, y = data(MaxoutClassifier)
    model = MaxoutClassifier(tol=1e9, n_iter_no_change=3).fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 5  # the first is an improvement on nothing


@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_keeps_the_network_of_the_best_validation_score(monkeypatch, kind):
    X, y = data(kind, 200)
    y = np.random.default_rng(1).permutation(y)  # nothing to learn: scores go up and down
    model = kind(early_stopping=True, validation_fraction=0.2, batch_size=32, random_state=0)
    split = []
    monkeypatch.setattr(model, "_split", lambda y: split.append(kind._split(model, y)) or split[-1])
    model.fit(X, y)
    scores, (_, held_out) = model.validation_scores_, split[0]
    assert len(held_out) == 40
    assert len(scores) == len(model.loss_curve_) == model.n_iter_ < 30
    assert model.best_validation_score_ == max(scores) > scores[-1]
    assert math.isclose(model.score(X[held_out], y[held_out]), max(scores), rel_tol=1e-5)


def test_early_stopping_refuses_a_validation_set_of_one_sample():
    X, y = data(MaxoutRegressor)
    with pytest.raises(ValueError, match=r"^validation_fraction: got 0.01 of 60 samples"):
        MaxoutRegressor(early_stopping=True, validation_fraction=0.01).fit(X, y)


def test_fit_refuses_a_loss_that_is_not_finite():
    X, y = data(MaxoutRegressor)
    with pytest.raises(
        ValueError, match=r"^MaxoutRegressor: the loss of epoch \d+ is (inf|nan): standardise X"
    ):
        MaxoutRegressor(solver="sgd", learning_rate_init=1e6, batch_size=20).fit(X * 1e6, y)


def test_fit_refuses_numbers_beyond_float32():
    X, y = data(MaxoutRegressor)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="float32"):  # scikit-learn's cast warns
        MaxoutRegressor(batch_size=20).fit(X * 1e39, y)
    with pytest.raises(ValueError, match=r"^y: got a number beyond float32"):
        MaxoutRegressor(batch_size=20).fit(X, y * 1e39)


def test_verbose_shows_the_epochs_and_their_losses(capsys):
    pytest.importorskip("rich")
    X, y = data(MaxoutClassifier)
    model = MaxoutClassifier(verbose=True, max_iter=3, early_stopping=True).fit(X, y)
    shown = capsys.readouterr().out
    assert f"epoch 3, loss {model.loss_:.6f}, validation score {model.validation_scores_[-1]:.4f}" in shown
    MaxoutClassifier(max_iter=3).fit(X, y)
    assert capsys.readouterr().out == ""


# ---- warm starts and partial fits


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_partial_fits_are_the_epochs_of_a_fit(kind):
    X, y = data(kind)
    whole = kind(**BATCHES, learning_rate="constant", dropout=0.2).fit(X, y)
    parts = kind(**BATCHES, learning_rate="constant", dropout=0.2)
    classes = {"classes": [0, 1, 2]} if kind is MaxoutClassifier else {}
    for _ in range(2):
        parts.partial_fit(X, y, **classes)
    parts = pickle.loads(pickle.dumps(parts))  # optimiser and generator too
    for _ in range(2):
        parts.partial_fit(X, y)
    assert same(whole, parts)
    assert whole.loss_curve_ == parts.loss_curve_
    assert (whole.t_, whole.n_iter_) == (parts.t_, 4) == (240, 4 * parts.n_iter_)


def test_partial_fit_learns_labels_that_come_later():
    X, y = data(MaxoutClassifier)
    model = MaxoutClassifier(batch_size=10, random_state=0, learning_rate_init=0.02)
    for _ in range(30):
        for label in range(3):
            model.partial_fit(X[y == label], y[y == label], classes=[2, 0, 1])
    assert model.score(X, y) > 0.9


def test_partial_fit_refuses_what_it_cannot_know():
    X, y = data(MaxoutClassifier)
    with pytest.raises(ValueError, match=r"^classes: got None in the first call"):
        MaxoutClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"^class_weight: got 'balanced'"):
        MaxoutClassifier(class_weight="balanced").partial_fit(X, y, [0, 1, 2])
    with pytest.raises(ValueError, match=r"^early_stopping: got True"):
        MaxoutClassifier(early_stopping=True).partial_fit(X, y, [0, 1, 2])
    model = MaxoutClassifier().partial_fit(X, y, [0, 1, 2])
    with pytest.raises(ValueError, match=r"^classes: got \[0 1\], wanted \[0 1 2\]"):
        model.partial_fit(X, y, [0, 1])
    with pytest.raises(ValueError, match="unseen"):
        model.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match=r"^y: got shape \(60, 2\), wanted 1 number"):
        MaxoutRegressor().partial_fit(X, X[:, 0]).partial_fit(X, X[:, :2])


def test_warm_start_goes_on_and_refuses_another_network():
    X, y = data(MaxoutClassifier)
    model = MaxoutClassifier(warm_start=True, **BATCHES).fit(X, y)
    first = copy.deepcopy(model)
    model.fit(X, y)
    assert len(model.loss_curve_) == 8
    assert model.loss_curve_[:4] == first.loss_curve_
    assert model.loss_ < first.loss_
    assert not same(model, first)
    for name, value in (("hidden_layer_sizes", (9,)), ("pieces", 3), ("dropout", 0.1), ("precision", "high")):
        with pytest.raises(
            ValueError, match=r"^MaxoutClassifier: got other hidden_layer_sizes, .*, wanted the same"
        ):
            copy.deepcopy(model).set_params(**{name: value}).fit(X, y)
    copy.deepcopy(model).set_params(hidden_layer_sizes=[100]).fit(X, y)
    with pytest.raises(ValueError, match="unseen"):
        model.fit(X, y + 1)


# ---- targets


def test_classes_may_be_words_and_one_class_is_enough():
    X, y = data(MaxoutClassifier)
    words = np.array(["no", "yes", "maybe"], object)[y]
    model = MaxoutClassifier(max_iter=30, random_state=0).fit(X, words)
    assert model.classes_.tolist() == ["maybe", "no", "yes"]
    assert model.score(X, words) > 0.9
    one = MaxoutClassifier(max_iter=2).fit(X, ["only"] * 60)
    assert one.predict(X).tolist() == ["only"] * 60
    assert (one.predict_proba(X) == 1).all()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_classifier_learns_several_labels(early_stopping):
    X, _ = data(MaxoutClassifier, 400)
    y = (X[:, :3] > 0).astype(int)
    model = MaxoutClassifier(random_state=0, early_stopping=early_stopping, warm_start=True).fit(X, y)
    assert model.out_activation_ == "logistic"
    assert accuracy_score(y, model.predict(X)) > 0.85
    np.testing.assert_array_equal(model.predict_proba(X) > 0.5, model.predict(X))
    np.testing.assert_array_equal(
        MaxoutClassifier(**BATCHES).fit(X, sparse.csr_array(y)).predict(X),
        MaxoutClassifier(**BATCHES).fit(X, y).predict(X),
    )
    with pytest.raises(ValueError, match=r"^y: got binary of shape \(400,\), wanted a multi-label indicator"):
        model.fit(X, y[:, 0])


def test_classifier_refuses_several_classes_for_each_output():
    X, y = data(MaxoutClassifier)
    with pytest.raises(ValueError, match=r"^y: got multiclass-multioutput .* use MultiOutputClassifier"):
        MaxoutClassifier().fit(X, np.column_stack([y, y]))


def test_regressor_learns_several_outputs():
    X, y = make_regression(500, 6, n_targets=2, random_state=0)
    X, y = StandardScaler().fit_transform(X), StandardScaler().fit_transform(y)
    model = MaxoutRegressor(random_state=0).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.99


# ---- within scikit-learn


def test_grid_search_in_two_processes_finds_the_better_network():
    X, y = data(MaxoutClassifier, 200)
    pipeline = make_pipeline(StandardScaler(), MaxoutClassifier(random_state=0))
    grid = {"maxoutclassifier__max_iter": [1, 30]}
    search = GridSearchCV(pipeline, grid, n_jobs=2, cv=3).fit(X, y)
    assert search.best_params_ == {"maxoutclassifier__max_iter": 30}
    here = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"])


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_and_clone_keep_what_they_should(kind):
    X, y = data(kind)
    model = kind(hidden_layer_sizes=[5, 4], **BATCHES).fit(X, y)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert same(fresh.fit(X, y), model)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_on_joblibs_memory_maps_is_that_on_arrays(kind, tmp_path):
    X, y = data(kind)
    for dtype in (np.float32, np.float64):
        joblib.dump((X.astype(dtype), y), tmp_path / "data")
        mapped_X, mapped_y = joblib.load(tmp_path / "data", mmap_mode="r")
        assert isinstance(mapped_X, np.memmap)
        model = kind(**BATCHES).fit(mapped_X, mapped_y)
        assert same(model, kind(**BATCHES).fit(X.astype(dtype), y))
        np.testing.assert_array_equal(model.predict(mapped_X), model.predict(X.astype(dtype)))


def test_fit_on_a_data_frame_knows_its_columns():
    pandas = pytest.importorskip("pandas")
    X, y = data(MaxoutClassifier)
    frame = pandas.DataFrame(X, columns=list("abcdef")).assign(g=["x", "y", "z"] * 20)
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["g"]), remainder="passthrough")
    columns.set_output(transform="pandas")
    model = make_pipeline(columns, MaxoutClassifier(**BATCHES)).fit(frame, pandas.Series(y))
    assert model[-1].n_features_in_ == 9
    assert model[-1].feature_names_in_[-1] == "remainder__f"
    assert model.predict(frame).shape == y.shape
    with pytest.raises(ValueError, match="feature names should match"):
        model[-1].predict(columns.transform(frame).rename(columns={"remainder__f": "other"}))
    early = MaxoutClassifier(early_stopping=True, **BATCHES).fit(frame[list("abcdef")], y)  # no warning
    assert early.feature_names_in_.tolist() == list("abcdef")


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_samples_are_refused(kind):
    X, y = data(kind)
    with pytest.raises(TypeError, match="parse data was passed"):
        kind().fit(sparse.csr_array(X), y)
    with pytest.raises(TypeError, match="parse data was passed"):
        kind(**BATCHES).fit(X, y).predict(sparse.csr_array(X))


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_of_a_sample_does_not_depend_on_the_others(kind):
    X, y = data(kind)
    model = kind(**BATCHES, precision="highest").fit(X, y)
    method = model.predict_proba if kind is MaxoutClassifier else model.predict
    np.testing.assert_array_equal(np.concatenate([method(X[i : i + 1]) for i in range(60)]), method(X))


def test_digits_are_learned_as_well_as_by_mlp_classifier():
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    train, test = np.split(np.random.default_rng(0).permutation(len(X)), [1400])
    model = MaxoutClassifier(random_state=0).fit(X[train], y[train])
    assert model.score(X[test], y[test]) > 0.97
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1, rtol=0, atol=1e-14)


def test_import_without_scikit_learn_names_the_extra():
    code = """if True:
        import sys
        sys.modules["sklearn"] = None
        try:
            import fastact.sklearn
        except ImportError as error:
            print(error)
    """
    assert output_of(code).endswith("pip install 'fastact[sklearn]'\n")
