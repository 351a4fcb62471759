"""The demo: every backend learns the digits to the same accuracy, over the same first losses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastact import backends, cli, settings
from fastact.cli import demo


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The bits are the same on any number, and several wait for each other for long on a busy machine."""
    with settings.num_threads(1):
        yield


@pytest.fixture(scope="module")
def trainers():
    """The demo's own network, epochs and seed, on every backend that is here."""
    names = tuple(name for name in backends.NAMES if name != "c" or backends.why_c_is_missing() is None)
    return demo.train(names, demo.EPOCHS, seed=0)


def test_demo_reaches_the_same_accuracy_on_every_backend(trainers):
    accuracies = {name: trainer.test_accuracy() for name, trainer in trainers.items()}
    assert min(accuracies.values()) >= 0.97
    assert max(accuracies.values()) - min(accuracies.values()) <= 0.01


def test_first_losses_of_the_backends_agree_within_rounding(trainers):
    assert demo.loss_difference(trainers) <= demo.LOSS_TOLERANCES["highest"]


def test_learning_rate_ends_near_zero(trainers):
    for trainer in trainers.values():
        assert len(trainer.losses) == trainer.steps
        assert trainer.optimizer.lr == pytest.approx(demo.LEARNING_RATE / trainer.steps)
        assert trainer.losses[-1] < 0.1 * trainer.losses[0]


def test_load_digits_splits_stratified():
    digits = demo.load_digits(seed=0)
    assert digits.x_train.shape == (1437, 64)
    assert digits.x_test.shape == (360, 64)
    assert digits.x_train.dtype == np.float32
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1
    counts = np.bincount(digits.labels_test)
    assert counts.min() >= 34  # a fifth of the 174 to 183 images of each digit, rounded
    assert counts.max() <= 37


def test_demo_prints_a_row_per_backend_and_restores_the_backend(capsys):
    before = backends.get_backend()
    assert demo.run(epochs=2, seed=1) == 0
    assert backends.get_backend() == before
    printed = capsys.readouterr().out
    rows = [line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")]
    assert [name for name in rows if name] == list(backends.NAMES)
    assert "The first 20 losses agree" in printed


@pytest.mark.parametrize("precision", settings.PRECISIONS)
def test_demo_with_each_precision_reaches_the_same_accuracy(capsys, precision):
    assert cli.main(["demo", "--precision", precision, "--epochs", "4"]) == 0
    assert settings.get_float32_matmul_precision() == "highest"
    printed = capsys.readouterr().out
    assert "The first 20 losses agree" in printed
    has_c = backends.why_c_is_missing() is None
    assert ("c multiplies on" in printed) == (has_c and precision != "highest")
    accuracies = [float(match) for match in re.findall(r"([0-9.]+)% │", printed)]
    assert len(accuracies) >= 2
    assert max(accuracies) - min(accuracies) <= 1


def test_demo_without_the_c_extension_gives_the_reason(capsys, monkeypatch):
    monkeypatch.setattr(backends, "why_c_is_missing", lambda: "no [compiler]")
    assert demo.run(epochs=2, seed=1) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│ c "))
    assert "missing: no [compiler]" in row


def test_demo_with_disagreeing_losses_fails(capsys, monkeypatch):
    monkeypatch.setattr(demo, "loss_difference", lambda trainers: 0.01)
    assert demo.run(epochs=2, seed=1) == 1
    assert "DISAGREE" in capsys.readouterr().out
