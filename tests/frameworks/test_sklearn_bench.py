"""The benchmark of the estimators: its PyTorch loop, medians, verdicts and file of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_classification
from sklearn.preprocessing import StandardScaler

pytest.importorskip("torch")
pytest.importorskip("rich")
pytest.importorskip("threadpoolctl")

# `bench` is not installed: it is found from the repository's root
sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import estimators

FOUND = {
    "MLPClassifier": {"seconds": [3.0, 4.0, 8.0], "epochs": [9, 7, 8], "accuracy": [0.8, 0.9, 0.85]},
    "MaxoutClassifier": {"seconds": [1.0, 2.0, 2.0], "epochs": [3, 3, 3], "accuracy": [0.9, 0.85, 0.8]},
}


@pytest.mark.parametrize("activation", ["maxout", "relu"])
def test_loop_in_pytorch_trains_the_network_of_the_classifier(activation):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    loop = estimators.TorchLoop(activation=activation, random_state=0).fit(X, y)
    shapes = [tuple(parameter.shape) for parameter in loop.network.parameters()]
    units = 200 if activation == "maxout" else 100
    assert shapes == [(units, 4), (units,), (3, 100), (3,)]
    assert loop.n_iter_ == 30
    assert loop.score(X, y) > 0.95


def test_folds_are_standardised_by_their_training_samples():
    X, y = load_iris(return_X_y=True)
    parts = list(estimators.folds(X, y, seed=3))
    assert len(parts) == estimators.FOLDS
    for x, labels, x_test, labels_test in parts:
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-13)
        np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-13)
        assert (len(x), len(x_test)) == (len(labels), len(labels_test)) == (75, 75)


def test_compared_takes_medians_over_the_seeds():
    medians = estimators.compared(FOUND)
    assert medians["MLPClassifier"] == {"seconds": 4.0, "epochs": 8, "accuracy": 0.85, "speedup": 1.0}
    assert medians["MaxoutClassifier"] == {"seconds": 2.0, "epochs": 3, "accuracy": 0.85, "speedup": 3.0}
    assert "iris, MaxoutClassifier                 2.000       3    0.8500     3.00x" in estimators.table(
        "defaults", {"iris": medians}
    )


@pytest.mark.parametrize(
    ("change", "met"), [({}, True), ({"speedup": 2.99}, False), ({"accuracy": 0.849}, False)]
)
def test_verdict_asks_for_speed_and_accuracy(change, met):
    medians = estimators.compared(FOUND)
    medians["MaxoutClassifier"] |= change
    assert estimators.verdicts({"iris": medians}) == {"iris, MaxoutClassifier": met}


def test_script_writes_what_it_found(monkeypatch, tmp_path, capsys):
    tables = {
        name: lambda seed=seed: make_classification(500, 8, n_informative=5, n_classes=3, random_state=seed)
        for seed, name in enumerate(("first", "second"))
    }
    monkeypatch.setattr(estimators, "DATA", tables)
    monkeypatch.setattr(estimators, "CONTENDERS", {"equal": estimators.CONTENDERS["equal"]})
    out = tmp_path / "found.json"
    for name in tables:  # the second run keeps what the first one found
        assert estimators.main(["--data", name, "--seeds", "1", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert list(results["medians"]["equal"]) == list(results["neighbours"]) == ["first", "second"]
    for data in tables:
        found = results["fits"]["equal"][data]
        assert {name: numbers["epochs"] for name, numbers in found.items()} == {
            name: [estimators.EPOCHS] for name in estimators.CONTENDERS["equal"]
        }
    assert "equal, second, MaxoutClassifier:" in capsys.readouterr().out
