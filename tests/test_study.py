"""The study: its sanity numbers, a resumed run, the readers, and what it writes."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest

import fastact as fa
from fastact.cli import main
from fastact.cli import study as command
from fastact.study import data, goodfellow, learned, recipe, vanishing, winners
from fastact.study.data import load_digits
from fastact.study.findings import Options


@pytest.fixture(scope="module")
def digits():
    return load_digits(0)


@pytest.fixture
def images():
    """A few images of noise, as many as the recipe needs for three batches."""
    rng = np.random.default_rng(4)
    x = rng.random((300, 784), np.float32)
    labels = rng.integers(0, 10, 300)
    return data.Images(x, labels, x[:50], labels[:50], "noise")


# ---- the vanishing gradient


def median_ratio(activation, digits, depth=10):
    norms = [
        vanishing.gradient_norms(
            vanishing.network(activation, depth, seed), digits.x_train, digits.labels_train
        )
        for seed in range(5)
    ]
    assert all(len(n) == depth for n in norms)
    return np.median([vanishing.ratio(n) for n in norms])


def test_the_gradient_vanishes_through_sigmoids(digits):
    assert median_ratio("sigmoid", digits) < 1e-3


@pytest.mark.parametrize("activation", ["maxout 2", "maxout 3", "maxout 5"])
def test_maxout_with_its_own_initialisation_keeps_the_gradient(digits, activation):
    assert 0.1 < median_ratio(activation, digits) < 10


def test_gradient_norms_are_those_of_the_loss_by_finite_differences(digits):
    model = vanishing.network("tanh", 3, 0, np.float64)
    x, labels = digits.x_train[:20].astype(np.float64), digits.labels_train[:20]
    (first, *_), rest = vanishing.gradient_norms(model, x, labels), fa.Sequential(*model.layers[1:])
    hidden = model.layers[0](x)
    step = 1e-6
    grad = np.zeros_like(hidden)
    for index in np.ndindex(hidden.shape):
        moved = hidden.copy()
        moved[index] += step
        up = fa.softmax_cross_entropy(rest(moved), labels)[0]
        moved[index] -= 2 * step
        grad[index] = (up - fa.softmax_cross_entropy(rest(moved), labels)[0]) / (2 * step)
    # a central difference of a loss of about 1 is off by about eps / step in each element
    off = np.finfo(np.float64).eps / step * 10 * np.sqrt(hidden.size)
    assert abs(np.linalg.norm(grad) - first) < off


def test_a_nudge_leaves_the_weights_as_they_were(digits, rng):
    model = vanishing.network("relu", 3, 0, np.float64)
    before = model.state_dict()
    x = digits.x_train[:50].astype(np.float64)
    assert vanishing.nudged_loss(model, x, digits.labels_train[:50], rng) > 0
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# ---- learned activations


def test_one_unit_learns_what_is_convex_and_two_what_is_not():
    def error(name, pieces):
        unit = learned.unit(1, pieces, np.random.default_rng(0))
        return learned.fit_curve(unit, unit, learned.TARGETS[name](learned.X))

    assert error("ReLU", 2) < 0.02
    assert error("|x|", 2) < 0.02
    assert error("x²", 5) < error("x²", 2) / 2
    target = learned.TARGETS["sin 2x"](learned.X)
    model, units = learned.difference(5, np.random.default_rng(0))
    best_line = np.polyval(np.polyfit(learned.X[:, 0], target[:, 0], 1), learned.X)
    assert error("sin 2x", 5) > 0.5 * np.sqrt(np.mean((best_line - target) ** 2))
    assert learned.fit_curve(model, units, target) < 0.2 * error("sin 2x", 5)


def test_all_pieces_of_a_unit_win_somewhere_at_the_start():
    for seed in range(5):
        unit = learned.unit(1, 5, np.random.default_rng(seed))
        assert len(np.unique(learned.lines(unit).argmax(axis=1))) == 5


# ---- winners


def test_shares_by_rank(digits):
    model = winners.fit(digits, 1, 0)[1]
    shares, never = winners.rank_shares(model, digits.x_train)
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 0).all()
    assert 0 <= never <= 1


# ---- Goodfellow et al.'s recipe


def test_the_two_networks_have_as_many_parameters():
    counts = {
        kind: sum(p.data.size for p in recipe.build(kind, np.random.default_rng(0)).parameters())
        for kind in recipe.KINDS
    }
    assert counts["maxout"] == 1_233_610
    # one unit more or less would change a ReLU network of this width by 2,360
    assert abs(counts["relu"] - counts["maxout"]) <= 2_360 / 2


@pytest.mark.parametrize("kind", recipe.KINDS)
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path, images, kind, stopped_after):
    def train(run, epochs):
        for _ in range(epochs):
            run.train_epoch()
        return run

    whole = train(recipe.Run(kind, 7, 2, images), 4)
    train(recipe.Run(kind, 7, 2, images), stopped_after).save(tmp_path / "run.npz")
    resumed = recipe.Run(kind, 7, 2, images)
    resumed.load(tmp_path / "run.npz")
    train(resumed, 4 - stopped_after)
    for name, array in whole.trainer.model.state_dict().items():
        np.testing.assert_array_equal(resumed.trainer.model.state_dict()[name], array)
    seconds = recipe.COLUMNS.index("seconds")
    np.testing.assert_array_equal(resumed.history[:, :seconds], whole.history[:, :seconds])
    assert (resumed.epoch, resumed.best) == (whole.epoch, whole.best)


def test_a_checkpoint_of_another_run_is_refused(tmp_path, images):
    run = recipe.Run("relu", 7, 2, images)
    run.save(tmp_path / "run.npz")
    other = recipe.Run("relu", 8, 2, images)
    before = other.trainer.model.state_dict()
    with pytest.raises(ValueError, match=r"wanted \[8, 2, 300\]"):
        other.load(tmp_path / "run.npz")
    for name, array in other.trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_max_norm_holds_after_every_epoch(images):
    trainer = recipe.Trainer("maxout", 0)
    weights = [p.data for p in trainer.model.parameters() if p.name == "weight"]
    assert len(weights) == 3
    weights[0] *= 200
    trainer.train_epoch(images.x_train, images.labels_train, 0.0)
    for weight in weights:
        assert np.linalg.norm(weight, axis=-1).max() <= recipe.MAX_NORM * (1 + 1e-5)


def test_the_second_phase_starts_from_the_best_epoch(images):
    run = recipe.Run("maxout", 0, 2, images)
    run.train_epoch()
    run.train_epoch()
    assert run.phase == 2
    for name, array in run.trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, run.best_model[name])


# ---- MNIST's files


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_idx_files_compressed_or_not(tmp_path, rng):
    arrays = [
        rng.integers(0, 256, (7, 28, 28)),
        np.arange(7),
        rng.integers(0, 256, (3, 28, 28)),
        np.arange(3),
    ]
    for name, array, ending in zip(data.MNIST_FILES, arrays, ("", ".gz", ".gz", ""), strict=True):
        write_idx(tmp_path / (name + ending), array)
    images = data.load_mnist(tmp_path)
    assert images.x_train.shape == (7, 784)
    assert images.x_train.dtype == np.float32
    np.testing.assert_array_equal(
        images.x_test.reshape(3, 28, 28), (arrays[2] / np.float32(255)).astype(np.float32)
    )
    np.testing.assert_array_equal(images.labels_train, np.arange(7))


def test_bad_or_missing_idx_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.load_mnist(tmp_path)
    path = tmp_path / data.MNIST_FILES[0]
    path.write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    with pytest.raises(ValueError, match=r"11 bytes do not hold an array of shape \(5,\)"):
        data.load_mnist(tmp_path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="not an IDX file"):
        data.load_mnist(tmp_path)


# ---- what it writes


def test_a_part_reports_each_step_and_writes_page_pictures_and_numbers(tmp_path):
    page = command.run(["relu"], Options(tmp_path))
    text = page.read_text(encoding="utf-8")
    assert "![ReLU is a maxout: relu_is_maxout](relu_is_maxout.png)" in text
    assert "绝对值" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "relu_is_maxout.csv", "relu_is_maxout.png", "relu_is_maxout.svg",
    }  # fmt: skip
    with (tmp_path / "relu_is_maxout.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    exact = [row for row in rows if row["backend"] == "c" and row["dtype"] == "float32"]
    assert all(row["different"] == "0" for row in exact)


def test_the_same_seed_writes_the_same_numbers_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(learned, "STEPS", 50)
    monkeypatch.setattr(learned, "DIGITS_EPOCHS", 1)
    monkeypatch.setattr(winners, "EPOCHS", 1)
    for name in ("a", "b"):
        command.run(["learned", "winners"], Options(tmp_path / name))
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len([name for name in written if name.endswith(".svg")]) == 5
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("part", [vanishing, learned, winners])
def test_steps_is_how_often_a_part_reports(part, tmp_path, monkeypatch):
    monkeypatch.setattr(vanishing, "EPOCHS", 1)
    monkeypatch.setattr(vanishing, "SEEDS", 1)
    monkeypatch.setattr(learned, "STEPS", 5)
    monkeypatch.setattr(learned, "DIGITS_EPOCHS", 1)
    monkeypatch.setattr(winners, "EPOCHS", 1)
    options, reported = Options(tmp_path), []
    for picture in part.run(options, reported.append).pictures.values():
        picture.figure.clear()
    assert len(reported) == part.steps(options)


def test_goodfellow_writes_and_resumes(tmp_path, images, monkeypatch):
    monkeypatch.setattr(goodfellow, "load_mnist", lambda folder: images)
    monkeypatch.setattr(goodfellow, "TIMED_EPOCHS", 1)
    options = Options(tmp_path, epochs=1, seeds=2)
    reported: list[str] = []
    first = goodfellow.run(options, reported.append)
    assert len(reported) == goodfellow.steps(options)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4
    monkeypatch.setattr(recipe.Run, "train_epoch", lambda self: pytest.fail("a finished run trains again"))
    again = goodfellow.run(options._replace(resume=True), reported.append)
    assert again.tables["goodfellow"] == first.tables["goodfellow"]


def test_the_command_line_names_what_it_does_not_know():
    with pytest.raises(SystemExit, match="got 'elephants', wanted one of vanishing, relu"):
        main(["study", "elephants"])


def test_a_folder_without_mnist_is_an_error_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="has no train-images-idx3-ubyte"):
        main(["study", "goodfellow", "--mnist", str(tmp_path), "--out", str(tmp_path / "out")])
