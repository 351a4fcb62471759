"""The benchmark of whole networks: their texts, contenders, checks, records, tables and picture."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from support.processes import output_of

# last, so that nothing of the checkout comes before what is installed
sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import closest, peers, plots, records, report, run, shapes, tables
from bench.measure import NETWORK_MODES, Run, WrongResult, check_network
from bench.network_truth import LEARNING_RATE, NetworkTruth
from bench.networks import DTYPES, NETWORKS, Network, NetworkProblem
from bench.peers.base import NotAvailable
from bench.peers.networks.numpy_plain import NumpyPlain
from bench.shapes import Shape
from fastact import backends, settings

ROOT = Path(__file__).resolve().parents[1]
TANH = Network(16, (8, 6, 5, 4))
ROW = Network(1, (8, 6, 4))
MAXOUT = Network(16, (8, 6, 4), pieces=3)
DROPOUT = Network(16, (8, 6, 5, 4), pieces=2, dropout=True)

needs_c = pytest.mark.skipif(backends.why_c_is_missing() is not None, reason="no C backend")


@pytest.fixture(autouse=True)
def keep_settings(monkeypatch):
    """The backend and the threads of the process, which contenders choose, and PyTorch's threads."""
    monkeypatch.setattr(backends, "_active", backends._active)
    monkeypatch.setattr(settings, "_default_threads", settings._default_threads)
    torch = importlib.util.find_spec("torch") and importlib.import_module("torch")
    threads = torch and torch.get_num_threads()
    yield
    if torch:
        torch.set_num_threads(threads)


def load(name):
    try:
        return peers.load(peers.NETWORKS[name])
    except NotAvailable as error:
        pytest.skip(str(error))


# ---- networks


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (TANH, "16x8-6-5-4:tanh"),
        (ROW, "1x8-6-4:tanh"),
        (MAXOUT, "16x8-6x3-4"),
        (DROPOUT, "16x8-6x2-5x2-4:dropout"),
        (NETWORKS[-1], "100x784-240x5-240x5-10:dropout"),
    ],
)
def test_network_as_text_parses_back(network, text):
    assert str(network) == text
    assert Network.parse(text) == network


@pytest.mark.parametrize(
    "text",
    [
        "16x8-6-4",
        "16x8-4:tanh",
        "16x8-6x1-4",
        "16x8-6x2-5x3-4",
        "16x8-6x2-5-4",
        "16x8-6x2-4:tanh",
        "16x8-6-4:dropout",
        "16x8-6-4:relu",
        "0x8-6-4:tanh",
        "16x8-06-4:tanh",
        "8-6-4:tanh",
    ],
)
def test_network_with_bad_text_is_refused(text):
    with pytest.raises(ValueError, match=f"network: got '{text}'"):
        Network.parse(text)


def test_network_sizes_count_pieces_and_biases():
    assert MAXOUT.parameters == 18 * 9 + 4 * 7
    assert MAXOUT.multiply_adds == 16 * (18 * 8 + 4 * 6)


def test_select_takes_networks_among_shapes():
    chosen = shapes.select(["networks", "7x5x3:relu", "16x8-6-5-4:tanh", str(NETWORKS[0])])
    assert chosen == [*NETWORKS, Shape(7, 5, 3, activation="relu"), TANH]
    assert not any(shapes.is_sweep(each) for each in chosen)
    with pytest.raises(ValueError, match="network: got '16x8-6-4'"):
        shapes.select(["16x8-6-4"])


def test_problems_of_both_dtypes_and_without_dropout_have_equal_numbers():
    single, double = (NetworkProblem(DROPOUT, dtype) for dtype in DTYPES)
    without = single.without_dropout()
    assert (single.drop_shares(), without.drop_shares()) == ([0.2, 0.5, 0.5], [0.0] * 3)
    for other in (double, single.in_float64(), without):
        assert all(map(np.array_equal, single.parameters(), other.parameters()))
        assert np.array_equal(single.x, other.x)
        assert np.array_equal(single.labels, other.labels)
    assert {array.dtype for array in double.parameters()} == {np.dtype(np.float64)}


# ---- contenders and checks


class Gradients(NumpyPlain):
    def _adam(self, grads):
        self.grads = grads


@pytest.mark.parametrize("network", [TANH, ROW, MAXOUT], ids=str)
def test_numpy_gradients_equal_finite_differences(network):
    contender = Gradients(NetworkProblem(network, "float64"), 1)
    contender.start_training(LEARNING_RATE)
    contender.step()
    grads, step = contender.grads, 1e-6
    for array, grad in zip((*contender._weights, *contender._biases), grads, strict=True):
        for place in np.ndindex(array.shape):
            value, losses = array[place], []
            for moved in (value - step, value + step):
                array[place] = moved
                losses.append(contender.step())
            array[place] = value
            # the truncation error is below step² and rounding below eps / step, times small numbers
            assert abs((losses[1] - losses[0]) / (2 * step) - grad[place]) < 1e-8


# torch.compile is the eager model, frozen or not, and takes seconds: bench/test_networks.py has both.
# JAX has threads that a test which forks would meet.
SLOW_OR_THREADED = ("torch.compile", "torch.compile frozen", "JAX")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("network", [TANH, ROW, MAXOUT, DROPOUT], ids=str)
@pytest.mark.parametrize("name", [name for name in peers.NETWORKS if name not in SLOW_OR_THREADED])
def test_contender_agrees_with_float64(name, network, dtype):
    problem, kind = NetworkProblem(network, dtype), load(name)
    if name == "scikit-learn" and network.pieces > 1:
        with pytest.raises(NotAvailable, match="neither maxout nor dropout"):
            kind(problem, 1)
        return
    contender, truth = kind(problem, 1), NetworkTruth(problem)
    for mode in kind.modes:
        assert 0 <= check_network(name, contender, problem, truth, 1, mode) <= 1


JAX = f"""
import sys
sys.path.append({str(ROOT)!r})
from bench import peers
from bench.measure import NETWORK_MODES, check_network
from bench.network_truth import NetworkTruth
from bench.networks import DTYPES, Network, NetworkProblem

kind = peers.load(peers.NETWORKS["JAX"])
for dtype in DTYPES:
    for text in {[str(each) for each in (TANH, MAXOUT, DROPOUT)]}:
        problem = NetworkProblem(Network.parse(text), dtype)
        contender, truth = kind(problem, 1), NetworkTruth(problem)
        for mode in NETWORK_MODES:
            assert check_network("JAX", contender, problem, truth, 1, mode) <= 1
print("checked")
"""


def test_jax_agrees_with_float64():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("no JAX")
    assert output_of(JAX, timeout=300, JAX_PLATFORMS="cpu") == "checked\n"


@needs_c
@pytest.mark.parametrize("name", ["fastact C", "floor"])
def test_contender_on_two_threads_agrees_with_float64(name):
    problem = NetworkProblem(Network(256, (64, 64, 4)), "float32")
    contender = load(name)(problem, 2)
    for mode in NETWORK_MODES:
        assert check_network(name, contender, problem, NetworkTruth(problem), 2, mode) <= 1


def test_scikit_learn_of_two_classes_is_not_available():
    with pytest.raises(NotAvailable, match="one logistic output for two classes"):
        load("scikit-learn")(NetworkProblem(Network(16, (8, 6, 2)), "float32"), 1)


class Moved(NumpyPlain):
    """Logits that are off by as little as a hundredth."""

    def forward(self):
        logits = super().forward().copy()
        logits[0, 0] += 0.01
        return logits


class WithoutBias(NumpyPlain):
    """The last bias stays."""

    def _adam(self, grads):
        super()._adam([*grads[:-1], np.zeros_like(grads[-1])])


class SumOfRows(NumpyPlain):
    """The loss is no mean; Adam hardly notices, the loss does."""

    def step(self):
        return super().step() * self._problem.network.rows


class Descent(NumpyPlain):
    """Plain gradient descent in place of Adam."""

    def _adam(self, grads):
        for parameter, grad in zip((*self._weights, *self._biases), grads, strict=True):
            parameter -= self._learning_rate * grad


class NotANumber(NumpyPlain):
    def step(self):
        return float("nan")


MISTAKES = [
    (Moved, "forward"),
    (WithoutBias, "step"),
    (SumOfRows, "step"),
    (Descent, "step"),
    (NotANumber, "step"),
]


@pytest.mark.parametrize("network", [TANH, MAXOUT], ids=str)
@pytest.mark.parametrize(("kind", "mode"), MISTAKES)
def test_check_network_refuses_a_mistake(kind, mode, network):
    problem = NetworkProblem(network, "float32")
    with pytest.raises(WrongResult, match=f"wrong, {mode}: the error is (nan|[0-9.e+]+) times its bound"):
        check_network("wrong", kind(problem, 1), problem, NetworkTruth(problem), 1, mode)


def test_check_network_refuses_a_contender_that_does_not_drop():
    class WithoutMasks(NumpyPlain):
        def _mask(self, x, share):
            return None

    problem = NetworkProblem(DROPOUT, "float32")
    with pytest.raises(WrongResult, match="wrong, step: the losses with dropout are those without"):
        check_network("wrong", WithoutMasks(problem, 1), problem, NetworkTruth(problem), 1, "step")


def test_run_of_a_network_checks_and_times_both_modes():
    measured = Run(1, 0.0)
    measured.measure_network(DROPOUT, "float64", {"naive NumPy": NumpyPlain})
    assert measured.wrong == []
    assert [(record["mode"], record["dtype"]) for record in measured.networks] == [
        ("forward", "float64"),
        ("step", "float64"),
    ]
    for record in measured.networks:
        assert record["network"] == str(DROPOUT)
        assert record["p50"] > 0
        assert record["error"] <= 1


@needs_c
def test_run_of_a_network_times_frozen_and_floor():
    names = ("fastact C", "fastact C frozen", "floor")
    measured = Run(1, 0.0)
    measured.measure_network(
        Network(64, (64, 32, 32, 4), 2, True), "float32", {name: load(name) for name in names}
    )
    found = [(record["contender"], record["mode"]) for record in measured.networks]
    assert found == [*((name, "forward") for name in names), ("fastact C", "step"), ("floor", "step")]
    assert all(record["p50"] > 0 for record in measured.networks)


def test_run_of_a_network_does_not_time_a_wrong_result():
    measured = Run(1, 0.0)
    measured.measure_network(TANH, "float32", {"wrong": Descent, "naive NumPy": NumpyPlain})
    timed = [(record["contender"], record["mode"]) for record in measured.networks]
    assert timed == [("wrong", "forward"), ("naive NumPy", "forward"), ("naive NumPy", "step")]
    assert len(measured.wrong) == 1
    assert measured.wrong[0].startswith(f"{TANH}, float32: wrong, step: the error is")


def test_run_of_a_network_names_contenders_that_lack_something():
    class Lacking(NumpyPlain):
        def __init__(self, problem, threads):
            raise NotAvailable("it has no tanh")

    measured = Run(1, 0.0)
    measured.measure_network(TANH, "float32", {"lacking": Lacking})
    assert (measured.networks, measured.wrong) == ([], [])
    assert measured.missing == {str(TANH): {"lacking": "it has no tanh"}}


def test_timed_steps_leave_the_parameters():
    measured = []

    class Kept(NumpyPlain):
        def __init__(self, problem, threads):
            super().__init__(problem, threads)
            measured.append(self)

    problem = NetworkProblem(TANH, "float32")
    Run(1, 0.0).measure_network(TANH, "float32", {"kept": Kept})
    (contender,) = measured
    assert contender._steps > 0
    for array, initial in zip(contender._weights, problem.weights, strict=True):
        assert np.array_equal(array, initial)


# ---- records, tables, pictures


def record(contender, p50, network=TANH, mode="step", dtype="float32", threads=1):
    return {
        "threads": threads,
        "network": str(network),
        "dtype": dtype,
        "mode": mode,
        "contender": contender,
        "p20": p50,
        "p50": p50,
        "p80": p50,
        "rounds": 5,
        "calls": 1,
        "error": 0.1,
        "commit": "0123abc",
        "date": "2026-01-01T00:00:00+00:00",
    }


def results(*networks):
    about = {
        "cpu": "Example CPU",
        "family_model": "1/2",
        "instructions": ["avx2"],
        "fastact_isa": "avx2",
        "cores": 2,
        "system": "Linux x86_64",
        "versions": {"fastact": "0.1", "numpy": "2.0"},
    }
    return {
        "environment": about,
        "limits": {},
        "neighbours": {"1": 0.004},
        "missing": {"networks": {"JAX": "not installed (no module)"}},
        "results": [],
        "networks": list(networks),
    }


def full_results():
    return results(
        *(
            record(name, 100.0 * (i + 1), network, mode, dtype)
            for i, name in enumerate(tables.NETWORK_CONTENDERS)
            for network in NETWORKS
            for mode in NETWORK_MODES
            for dtype in DTYPES
        )
    )


def test_merge_of_networks_replaces_older_records():
    old = results(record("JAX", 1.0), record("JAX", 2.0, dtype="float64"))
    new = results(record("JAX", 3.0), record("JAX", 4.0, mode="forward"), record("JAX", 5.0, MAXOUT))
    merged = records.merge(old, new)
    assert [each["p50"] for each in merged["networks"]] == [3.0, 2.0, 4.0, 5.0]
    assert merged["results"] == []


def test_merge_with_an_older_file_without_networks_keeps_both():
    old = results()
    del old["networks"]
    old["missing"] = {"layers": {"Thinc": "not installed"}}
    merged = records.merge(old, results(record("JAX", 1.0)))
    assert len(merged["networks"]) == 1
    assert set(merged["missing"]) == {"layers", "networks"}
    assert run.text(old) == run.text(old | {"networks": []})


def test_merge_keeps_the_dates_of_release_of_both():
    old = results() | {"released": {"jax": "2026-10-21"}}
    new = results() | {"released": {"numpy": "2026-11-15"}}
    assert records.merge(old, new)["released"] == old["released"] | new["released"]


def test_merge_takes_versions_of_packages_that_only_one_of_both_has():
    old, new = results(), results()
    old["environment"]["versions"] |= {"thinc": "8.3"}
    new["environment"]["versions"] |= {"scikit-learn": "1.9"}
    both = {"fastact": "0.1", "numpy": "2.0", "thinc": "8.3", "scikit-learn": "1.9"}
    assert records.merge(old, new)["environment"]["versions"] == both
    new["environment"]["versions"]["numpy"] = "2.1"
    with pytest.raises(ValueError, match="versions: the file has"):
        records.merge(old, new)


def test_write_and_read_of_networks_return_equal_results(tmp_path):
    found = results(record("NumPy", 1.0), record("JAX", 2.0))
    records.write(tmp_path / "file.json", found)
    assert records.read(tmp_path / "file.json") == found
    assert len((tmp_path / "file.json").read_text().split('"contender"')) == 3


def test_network_table_has_ratios_and_marks_the_fastest_but_the_floor():
    times = {
        TANH: {"fastact C": 50.0, "accelerated": 60.0, "PyTorch": 100.0, "JAX": 40.0, "floor": 20.0},
        MAXOUT: {"PyTorch": 100.0},
    }
    text = tables.markdown(tables.network_table(times))
    assert text.splitlines()[0] == (
        "| network | fastact C | accelerated | PyTorch | JAX | floor | C vs best other |"
    )
    assert f"| {TANH} | 50 | 60 (1.20) | 100 (2.00) | **40 (0.80)** | 20 (0.40) | 0.80x |" in text
    assert f"| {MAXOUT} |  |  | **100** |  |  |  |" in text


def test_text_of_a_run_of_networks_has_80_columns():
    found = full_results()
    for each in found["networks"]:
        each["p50"] *= 1e4
    lines = run.text(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert "Not measured (networks): JAX: not installed (no module)." in lines
    assert (
        len([line for line in lines if line.startswith("floor")])
        == 4 * len([line for line in lines if line.startswith("PyTorch")]) // 4
    )
    assert sum(line.startswith("Training step of a network, float64, 1 thread") for line in lines) == 1


def test_tables_of_networks_come_by_threads_mode_and_dtype():
    found = results(*(record("JAX", 1.0, dtype=dtype, threads=t) for t in (2, 1) for dtype in DTYPES))
    titles = [title.partition(", median")[0] for title, _ in tables.of_networks(found)]
    assert titles == [
        f"Training step of a network, {dtype}, {count}"
        for count in ("1 thread", "2 threads")
        for dtype in DTYPES
    ]


def test_frozen_rival_of_a_network_is_compared_with_the_frozen_one_of_fastact():
    times = {
        "fastact C": 10.0,
        "fastact C frozen": 5.0,
        "JAX": 11.5,
        "torch.compile frozen": 5.5,
        "floor": 1.0,
    }
    found = results(*(record(name, time, mode="forward") for name, time in times.items()))
    ((_, table),) = tables.of_networks(found)
    assert table.ratios == ["1.10x"]
    (close,) = closest.closest(found)
    assert (close.peer, close.peers, close.ours) == ("torch.compile frozen", 5.5, 5.0)
    assert close.what == "forward of a network, float32, 1 thread"
    without_frozen = {name: time for name, time in times.items() if name != "fastact C frozen"}
    assert tables.best_network_rival(without_frozen) == "JAX"


def test_picture_of_networks_has_a_line_for_each_contender_and_a_dashed_floor():
    figure = plots.networks(full_results(), 1)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == set(tables.NETWORK_CONTENDERS)
        assert [name for name, line in lines.items() if line.get_linestyle() == "--"] == ["floor"]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        x = list(lines["JAX"].get_xdata())
        assert x == sorted(network.multiply_adds for network in NETWORKS)


def test_picture_of_networks_has_no_empty_panels():
    assert plots.networks(results(), 1) is None
    few = plots.networks(results(record("JAX", 1.0), record("JAX", 1.0, threads=2, dtype="float64")), 1)
    assert [len(axes.lines) for axes in few.axes] == [1]


def test_report_of_networks_writes_their_picture_and_tables(tmp_path):
    records.write(tmp_path / "machine.json", full_results())
    assert report.main([str(tmp_path / "machine.json")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "machine.json",
        "machine.md",
        "machine-networks.svg",
    }
    page = (tmp_path / "machine.md").read_text()
    assert "](machine-networks.svg)" in page
    assert "commit 0123abc" in page
    assert len(re.findall(r"^\| network \|", page, re.MULTILINE)) == 4
    assert len(re.findall(rf"^\| {NETWORKS[0]} \|", page, re.MULTILINE)) == 4


def test_readme_section_has_the_training_steps_of_one_thread_in_float32():
    results = full_results()
    results["environment"]["versions"] |= dict.fromkeys(("fastact", "torch", "jax", "numpy"), "1.0")
    section = report.readme_section(results, {"light": "light.svg", "dark": "dark.svg"}, "machine.md")
    header = (
        "| training step, µs | fastact | PyTorch, accelerated | PyTorch | torch.compile | JAX | naive NumPy |"
    )
    assert header in section.splitlines()
    times = records.network_medians(results)[1, "float32", "step"]
    for network, each in times.items():
        cells = [
            tables.microseconds(each[name]) if name in each else ""
            for name in report.README_NETWORK_CONTENDERS
        ]
        assert f"| {network} | {' | '.join(cells)} |" in section.splitlines()


def test_measuring_process_answers_with_records_of_networks(monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes longer than all the rest
    part, failed, stopped = run._measure(1, [Network(2, (3, 2, 3))], 0.0)
    assert not failed
    assert not stopped
    assert part["results"] == []
    assert set(part["missing"]) <= {"networks", "2x3-2-3:tanh"}
    found = {(each["dtype"], each["mode"], each["contender"]) for each in part["networks"]}
    measured = {(dtype, mode, "naive NumPy") for dtype in DTYPES for mode in NETWORK_MODES}
    assert measured <= found
    assert json.loads(json.dumps(part)) == part
