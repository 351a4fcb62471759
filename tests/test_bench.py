"""The benchmarks: statistics, error bounds, tables, goals, reports and command lines.  They need no peer."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

# last, so that nothing of the checkout comes before what is installed
sys.path.append(str(Path(__file__).resolve().parents[1]))

import fastact as fa
from bench import ab, bits, closest, goals, machine, plots, records, report, run, shapes, tables, timing
from bench.measure import Run
from bench.peers import DOES, FROZEN, LAYERS, NETWORKS, PACKAGES, load
from bench.problem import BFLOAT16_ROUNDOFF, FLOAT32_ROUNDOFF, Problem, Truth, exact
from bench.shapes import LINEAR, MAIN, ROWS, Shape
from bench.tuning import harness
from fastact import activations, backends

ROOT = Path(__file__).resolve().parents[1]
SIZES = (7, 5, 3, 4)
SMALL = Shape(*SIZES)
RELU, GELU = (Shape(7, 5, 3, activation=name) for name in ("relu", "gelu"))
BEGIN, END = "<!-- times:begin -->", "<!-- times:end -->"


def result(contender, p50, shape=MAIN[0], mode="forward", threads=1):
    return {
        "threads": threads,
        "shape": list(shape),
        "mode": mode,
        "contender": contender,
        "p20": p50,
        "p50": p50,
        "p80": p50,
        "rounds": 5,
        "calls": 1,
        "error": 0.1,
        "norm_error": 1e-7,
        "commit": "0123abc",
        "date": "2026-01-01T00:00:00+00:00",
    }


def results(*found):
    about = {
        "cpu": "Example CPU",
        "family_model": "1/2",
        "instructions": ["avx2"],
        "fastact_isa": "avx2",
        "cores": 2,
        "system": "Linux x86_64",
        "versions": {"fastact": "0.1", "numpy": "2.0", "torch": "2.9", "jax": "0.9"},
    }
    limits = {"1": {"register_fma_gflops": 100.0, "load_fma_gflops": 90.0, "read_gbytes": 20.0}}
    missing: dict = {"layers": {"Thinc": "not installed (no module)"}, "frozen": {}}
    return {
        "environment": about,
        "limits": limits,
        "neighbours": {"1": 0.004},
        "missing": missing,
        "results": list(found),
    }


@pytest.mark.parametrize(
    ("shape", "text", "layer"),
    [
        (SMALL, "7x5x3x4", "maxout"),
        (Shape(7, 5, 3, 1), "7x5x3x1", "maxout"),
        (RELU, "7x5x3:relu", "linear relu"),
        (GELU, "7x5x3:gelu", "linear gelu"),
    ],
)
def test_shape_as_text_parses_back(shape, text, layer):
    assert str(shape) == text
    assert Shape.parse(text) == shape
    assert shape.layer == layer


@pytest.mark.parametrize(
    "text", ["7x5x3", "7x5x3x0", "7x5x3x4x1", "7x5x3:tanh", "7x5x3x4:relu", "7,5,3,4", "x"]
)
def test_shape_with_bad_text_is_refused(text):
    with pytest.raises(ValueError, match="shape: got"):
        Shape.parse(text)


def test_select_keeps_order_and_names_each_shape_once():
    assert shapes.select(["main", "1024x288x96x3", "7x5x3x4"]) == [*MAIN, SMALL]
    assert shapes.select(["7x5x3:relu", "linear"]) == [RELU, *LINEAR]
    with pytest.raises(ValueError, match="shapes: got 'mian'"):
        shapes.select(["mian"])


def test_is_sweep_of_a_shape_of_another_group_is_false():
    assert not shapes.is_sweep(Shape(1024, 288, 96, 3))  # it is one of `rows` as well
    assert shapes.is_sweep(Shape(512, 288, 96, 3))
    assert not shapes.is_sweep(SMALL)


def test_summarise_returns_quantiles_in_microseconds():
    sample = timing.summarise([k * 1e-6 for k in range(11)], calls=3)
    assert sample == (2.0, 5.0, 8.0, 11, 3)


def test_rounds_for_any_budget_stays_within_limits():
    assert timing.rounds_for(0.1, budget=1.0) == 10
    assert timing.rounds_for(1e-6, budget=1.0) == timing.MAX_ROUNDS
    assert timing.rounds_for(1.0, budget=1.0) == timing.MIN_ROUNDS
    assert timing.rounds_for(100.0, budget=1.0) == timing.MIN_LONG_ROUNDS


def test_interleaved_times_every_contender_in_every_round():
    calls: list[str] = []

    def record(name):
        calls.append(name)
        time.sleep(max(timing.SAMPLE_SECONDS, timing.WARM_SECONDS))  # one call is a sample

    samples = timing.interleaved({name: lambda name=name: record(name) for name in "abc"}, budget=0.0)
    assert {sample[3:] for sample in samples.values()} == {(timing.MIN_ROUNDS, 1)}
    assert "".join(calls) == "aabbcc" + "aabbccbbccaaccaabbaabbccbbccaa"  # first, how long a call takes


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of a process's threads")
def test_settle_waits_for_busy_threads(monkeypatch):
    monkeypatch.setattr(timing, "QUIET_SECONDS", 60.0)
    # about 0.2 s without the GIL
    busy = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 500_000))
    busy.start()
    while timing._others_sleep():  # it has not come to its work yet
        assert busy.is_alive()
    timing.settle()
    busy.join(timeout=0.1)  # what it does after its work
    assert not busy.is_alive()


def test_settle_with_threads_that_stay_busy_gives_up(monkeypatch):
    monkeypatch.setattr(timing, "_others_sleep", lambda: False)
    monkeypatch.setattr(timing, "QUIET_SECONDS", 0.02)
    started = time.perf_counter()
    timing.settle()
    assert time.perf_counter() - started >= timing.QUIET_SECONDS


def float32_results(problem):
    """y and the gradients as float32 arithmetic has them."""
    rows, _, out_features, pieces, activation = problem.shape
    z = (problem.x @ problem.weight.T + problem.bias).reshape(rows, out_features, pieces)
    if activation == "maxout":
        y, slope = z.max(-1), z.argmax(-1)[..., None] == np.arange(pieces)
    else:
        y = fa.activation(z, activation, backend="numpy")[..., 0]
        slope = fa.activation_backward(
            np.ones_like(z), y[..., None] if activation == "relu" else z, activation
        )
    grad_z = (slope * problem.grad_y[..., None]).reshape(rows, -1)
    return y, (grad_z @ problem.weight, grad_z.T @ problem.x, grad_z.sum(0))


@pytest.mark.parametrize("shape", [SMALL, Shape(1, 1, 1, 1), Shape(64, 300, 20, 3), RELU, GELU], ids=str)
def test_truth_allows_float32_and_refuses_a_mistake(shape):
    problem = Problem(shape)
    truth = Truth(problem)
    y, grads = float32_results(problem)
    wanted = truth.gradients(exact(problem.grad_y))
    assert truth.y.excess(y) <= 1
    assert all(interval.excess(grad) <= 1 for interval, grad in zip(wanted, grads, strict=True))
    y.flat[0] += 0.01
    assert truth.y.excess(y) > 1
    grads[1].flat[0] += 0.01
    assert wanted[1].excess(grads[1]) > 1


def test_truth_of_gelu_refuses_the_form_with_tanh():
    problem = Problem(GELU)
    z = problem.x @ problem.weight.T + problem.bias
    assert Truth(problem).y.excess(fa.gelu(z)) <= 1
    assert Truth(problem).y.excess(fa.gelu(z, approximate="tanh")) > 1


def test_truth_refuses_nan():
    truth = Truth(Problem(SMALL))
    assert not truth.y.excess(np.full((7, 3), np.nan)) <= 1


def test_truth_of_bfloat16_allows_more_than_that_of_float32():
    problem = Problem(Shape(16, 64, 8, 2))
    coarse = (problem.x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    near = coarse + (problem.x - coarse) / 2  # half of what truncation to bfloat16 takes off
    y = (near @ problem.weight.T + problem.bias).reshape(16, 8, 2).max(-1)
    assert Truth(problem, BFLOAT16_ROUNDOFF).y.excess(y) <= 1
    assert Truth(problem, FLOAT32_ROUNDOFF).y.excess(y) > 1


def test_truth_of_bfloat16_allows_one_rounded_term():
    problem = Problem(Shape(256, 1, 256, 3))

    def rounded(array):
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)

    y = rounded(problem.x) @ rounded(problem.weight).T + problem.bias
    assert Truth(problem, BFLOAT16_ROUNDOFF).y.excess(y.reshape(256, 256, 3).max(-1)) <= 1


def markdown(found, mode):
    return tables.markdown(tables.table(records.Medians(found["results"]), 1, mode))


def test_markdown_shows_a_slower_fastact():
    found = results(result("fastact C", 200.0), result("NumPy", 100.0), result("JAX", 400.0))
    text = markdown(found, "forward")
    assert "| shape | fastact C | NumPy | JAX | C vs best other |" in text
    assert "| 1024x288x96x3 | 200 | **100** | 400 | 0.50x |" in text


def test_markdown_of_a_contender_not_measured_has_an_empty_cell():
    found = results(result("fastact C", 2.0), result("NumPy", 3.0), result("NumPy", 5.5, MAIN[1]))
    assert "| 64x288x96x3 |  | **5.5** |  |" in markdown(found, "forward")
    assert "Thinc: not installed" in tables.missing_line(found)


def test_machine_line_names_machine_and_commits():
    found = results(result("NumPy", 1.0), result("JAX", 1.0), result("Thinc", 1.0) | {"commit": None})
    line = tables.machine_line(found)
    assert (
        line == "Example CPU (family/model 1/2, 2 cores; avx2), Linux x86_64; "
        "fastact 0.1, numpy 2.0, torch 2.9, jax 0.9; commit 0123abc."
    )


def test_neighbours_line_names_the_share_of_others():
    assert "0.4% (1 thread)" in tables.neighbours_line(results())


def test_speedup_ignores_rivals_of_lower_precision():
    assert tables.speedup({"fastact C": 2.0, "OpenVINO": 3.0, "OpenVINO bf16": 1.0}) == 1.5


def test_closest_lists_the_fastest_peer_of_each_shape_from_the_closest_on():
    found = closest.closest(
        results(
            *(result("fastact C", 100.0, shape) for shape in MAIN[:3]),
            *(result("JAX", time, shape) for time, shape in zip((115.0, 116.0, 90.0), MAIN, strict=False)),
            result("NumPy", 114.0),
            result("fastact C high", 1.0),
            result("fastact C", 100.0, mode="frozen"),
            result("OpenVINO bf16", 50.0, mode="frozen"),
            result("tract", 101.0, mode="frozen"),
            result("fastact C", 100.0, mode="tiers"),
            result("PyTorch medium", 100.0, mode="tiers"),
        )
    )
    assert [(each.ratio, each.where, each.peer) for each in found] == [
        (0.9, str(MAIN[2]), "JAX"),
        (1.01, str(MAIN[0]), "tract"),
        (1.14, str(MAIN[0]), "NumPy"),
    ]
    assert found[1].what == "inference with frozen weights, 1 thread"
    assert "0.90x 100x784x240x5, forward, 1 thread: JAX 90 µs, fastact 100 µs" in closest.text(found)
    assert max(map(len, closest.text(found).splitlines())) <= 80


def test_closest_says_of_each_rival_what_it_does():
    rivals = {name for name in (*LAYERS, *FROZEN, *NETWORKS) if not name.startswith("fastact")}
    left_out = {"OpenVINO bf16", "accelerated", "floor"}
    assert rivals - left_out == DOES.keys()


@pytest.mark.parametrize("mode", ["tiers", "tiers_backward"])
def test_markdown_of_tiers_shows_errors(mode):
    found = results(result("fastact C medium", 200.0, mode=mode), result("PyTorch medium", 300.0, mode=mode))
    text = markdown(found, mode)
    assert "| 1024x288x96x3 | **200 (1.0e-07)** | 300 (1.0e-07) | 1.50x |" in text


def test_markdown_of_float32_leaves_lower_precision_out():
    found = results(result("fastact C", 200.0), result("fastact C medium", 100.0), result("JAX", 300.0))
    assert "| 1024x288x96x3 | **200** | 300 | 1.50x |" in markdown(found, "forward")


def test_blocks_have_80_columns_and_no_lines_without_figures():
    names = [name for name in tables.CONTENDERS if not name.endswith(tables.LOWER_PRECISION)]
    found = [result(name, 1.5e6 + i, shape) for i, name in enumerate(names) for shape in (*MAIN, *LINEAR)]
    found += [result("fastact C", 2.0, SMALL), result("JAX", 1.0, SMALL)]
    text = tables.blocks(tables.table(records.Medians(found), 1, "forward"))
    assert max(map(len, text.splitlines())) <= 80
    *others, _ = text.split("\n\n")
    for shape in (*MAIN, *LINEAR, SMALL):
        assert len(re.findall(rf"(?<!\S){shape}(?!\S)", text)) == 1
    assert all(len(block.splitlines()) == len(names) + 2 for block in others)
    assert [
        line.split()
        for line in tables.blocks(tables.table(records.Medians(found[-2:]), 1, "forward")).splitlines()
    ] == [
        ["7x5x3x4"],
        ["fastact", "C", "2"],
        ["JAX", "1*"],
        ["C", "vs", "best", "other", "0.50x"],
    ]


def test_replace_between_markers_keeps_the_text_around():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = tables.replace_between_markers(text, "times", "new\n")
    assert new == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert tables.replace_between_markers(new, "times", "new") == new


@pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN, 2 * (BEGIN + END)])
def test_replace_between_bad_markers_is_refused(text):
    with pytest.raises(ValueError, match="markers"):
        tables.replace_between_markers(text, "times", "new")


def test_write_and_read_return_equal_results(tmp_path):
    found = results(result("NumPy", 1.0), result("JAX", 2.0))
    path = tmp_path / "file.json"
    records.write(path, found)
    assert records.read(path) == found


def test_read_of_another_file_is_refused(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="not a file of results"):
        records.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        records.read(path)


def test_merge_replaces_older_records():
    old = results(result("NumPy", 1.0), result("JAX", 2.0))
    new = results(result("JAX", 3.0), result("JAX", 4.0, threads=2))
    new["neighbours"] = {"1": 0.01, "2": None}
    merged = records.merge(old, new)
    assert [r["p50"] for r in merged["results"]] == [1.0, 3.0, 4.0]
    assert merged["neighbours"] == {"1": 0.01, "2": None}
    other = json.loads(json.dumps(new))
    other["environment"]["cpu"] = "Another CPU"
    with pytest.raises(ValueError, match="cpu: the file has 'Example CPU'"):
        records.merge(old, other)


def test_read_of_a_file_without_activations_is_maxout(tmp_path):
    found = results(result("NumPy", 1.0) | {"shape": [1024, 288, 96, 3]})
    medians = records.Medians(records.merge(found, results(result("NumPy", 2.0)))["results"])
    assert medians.shapes(1, "forward") == [MAIN[0]]
    assert medians.at(1, "forward", MAIN[0]) == {"NumPy": 2.0}


def test_merge_with_a_quick_run_is_quick():
    quick = results() | {"quick": True}
    assert records.merge(quick, results())["quick"]
    assert records.merge(results(), quick)["quick"]
    assert not records.merge(results(), results())["quick"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("lacking/file.json", OSError, "lacking is not a folder"),
        ("folder", OSError, "directory"),
        ("text", ValueError, "not JSON"),
        ("other.json", ValueError, "not a file of results of this command, which has environment, rows"),
        ("machine.json", ValueError, "cpu: .*machine.json has 'Example CPU', this run"),
    ],
)
def test_check_out_refuses_a_path_that_cannot_take_the_results(tmp_path, name, error, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("{")
    (tmp_path / "other.json").write_text('{"environment": {}}')
    (tmp_path / "machine.json").write_text(json.dumps(results() | {"rows": []}))
    with pytest.raises(error, match=message):
        records.check_out(tmp_path / name, ("environment", "rows"))


def test_check_out_of_a_folder_without_space_for_files_is_refused():
    if not Path("/proc/self").is_dir():
        pytest.skip("no folder in which nobody can write")
    with pytest.raises(OSError, match=r"/proc/file\.json: cannot write in /proc"):
        records.check_out(Path("/proc/file.json"), ("environment",))


def test_check_out_accepts_a_new_file_and_one_of_this_machine(tmp_path):
    assert records.check_out(tmp_path / "new.json", ("environment", "rows")) is None
    assert list(tmp_path.iterdir()) == []
    records.save(tmp_path / "file.json", {"rows": [1]})
    assert records.check_out(tmp_path / "file.json", ("environment", "rows"))["rows"] == [1]


def test_bench_checks_out_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(OSError, match="not a folder"):
        run.run([1], [str(SMALL)], True, tmp_path / "lacking" / "file.json", False)
    path = tmp_path / "file.json"
    records.write(path, results())
    with pytest.raises(ValueError, match=r"cpu: .*file\.json has 'Example CPU'"):
        run.run([1], [str(SMALL)], True, path, False)


SPACY_SCRIPTS = ("spacy_memory", "spacy_pipelines", "spacy_profile", "spacy_train")


@pytest.mark.parametrize(
    "name",
    [
        *("ab", "activations", "bits", "custom_activation", "estimators", "jax_layers", "nopython"),
        *("numba_vs_c", "ppo", "reproducible"),
        *SPACY_SCRIPTS,
        *("torch_networks", "torch_step", "accuracy.__main__"),
    ],
)
def test_script_checks_out_before_the_work(tmp_path, capsys, name):
    if name == "jax_layers":
        pytest.importorskip("jax")
        pytest.importorskip("fastact._native")
    if name in ("estimators", "ppo", "torch_networks", "torch_step"):
        pytest.importorskip("torch")
    if name == "ppo":
        pytest.importorskip("stable_baselines3")
    script = importlib.import_module(f"bench.{name}")
    words = [str(ROOT), str(ROOT)] if name == "ab" else []
    with pytest.raises(SystemExit) as ended:
        script.main([*words, "--out", str(tmp_path / "lacking" / "file.json")])
    assert ended.value.code == 2
    assert f"--out: {tmp_path}/lacking/file.json" in capsys.readouterr().err


def outcome_of(found, mode, contender, against):
    (outcome,) = [
        outcome
        for outcome in goals.outcomes(found)
        if (outcome.mode, outcome.shape, outcome.contender) == (mode, MAIN[0], contender)
        and outcome.against.startswith(against)
        and outcome.lacking is None
    ]
    return outcome


def test_outcome_compares_with_the_best_rival():
    found = results(
        result("fastact C", 2000.0),
        result("JAX", 3000.0),
        result("PyTorch", 2600.0),
        result("NumPy", 100.0),
    )
    outcome = outcome_of(found, "forward", "fastact C", "PyTorch")
    assert outcome.against == "PyTorch, best of 2"
    assert outcome.got == pytest.approx(1.3)
    assert outcome.passed is False
    assert outcome.possible == pytest.approx(2600 * 100e3 / MAIN[0].dense_flop)


def test_outcomes_without_results_are_neither_met_nor_missed():
    assert all(outcome.passed is None for outcome in goals.outcomes(results()))


def test_outcome_of_two_threads_is_relative_to_one():
    found = results(result("fastact C", 1000.0), result("fastact C", 540.0, threads=2))
    assert outcome_of(found, "forward", "fastact C, 2 threads", "fastact C, 1 thread").passed is True


def test_outcomes_without_amx_name_it_as_lacking():
    found = results(result("fastact C", 1000.0), result("JAX", 3000.0))
    lacking = [outcome for outcome in goals.outcomes(found) if outcome.lacking]
    assert {outcome.contender for outcome in lacking} == {
        "fastact C",
        "fastact C high",
        "fastact C medium",
    }
    assert {outcome.lacking for outcome in lacking} == {"this CPU has no AMX"}
    assert all(outcome.passed is None for outcome in lacking)
    found["environment"]["instructions"] += ["amx_bf16"]
    outcomes = goals.outcomes(found)
    assert not any(outcome.lacking for outcome in outcomes)
    assert any(o.wanted == 1.4 and o.got == 3.0 and o.passed and o.shape == MAIN[0] for o in outcomes)


def test_outcomes_of_errors_take_the_worst_shape():
    found = results(
        result("fastact C", 1.0) | {"norm_error": 2e-7},
        result("NumPy", 1.0) | {"norm_error": 1e-7},
        result("fastact C medium", 1.0) | {"norm_error": 3e-3},
        result("fastact C medium", 1.0, MAIN[1]) | {"norm_error": 5e-3},
    )
    beside_numpy = outcome_of(found, "error", "fastact C", "NumPy, worst of 1")
    assert (beside_numpy.got, beside_numpy.passed) == (0.5, False)
    (medium,) = [o for o in goals.outcomes(found) if o.mode == "error" and o.contender == "fastact C medium"]
    assert (medium.shape, medium.wanted, medium.got, medium.passed) == (MAIN[1], 4e-3, 5e-3, False)


def test_useful_flop_of_a_backward_counts_winners_alone():
    assert goals.useful_flop("forward_backward", MAIN[4]) == 2 * MAIN[4].dense_flop


def test_text_of_a_run_has_80_columns():
    found = [
        result("fastact C medium", 1e6, shape, mode) for shape in (MAIN[0], RELU) for mode in tables.TITLES
    ]
    found += [result("JAX", 1e6, shape, mode) for shape in MAIN for mode in tables.TITLES]
    lines = run.text(results(*found)).splitlines()
    assert max(map(len, lines)) <= 80
    assert "Not measured (layers): Thinc: not installed (no module)." in lines


def test_goals_as_text_have_80_columns_and_measured_lines_only():
    found = [
        result(name, 100.0 + i, shape, mode)
        for i, name in enumerate(tables.CONTENDERS)
        for shape in (*MAIN, *LINEAR)
        for mode in tables.TITLES
    ]
    found += [result("fastact C", 90.0, shape, "step", 2) for shape in MAIN]
    text = goals.text(goals.outcomes(results(*found)))
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^1x2048x2048:relu +C to NumPy, best of 5 +1.00 +1.05", text, re.MULTILINE)
    empty = goals.text(goals.outcomes(results()))
    assert "x" not in empty.split("0 pass, 0 fail")[0].removeprefix("Goals: ")


def test_suite_passes_for_maxout_gelu_and_a_network():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "bench",
        "--shapes",
        str(SMALL),
        str(GELU),
        "4x3-2-3:tanh",
        "--benchmark-disable",
        "-k",
        "NumPy or fastact",
        "-rA",
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for test in (
        "layers.py::test_layer[7x5x3x4-NumPy-forward]",
        "layers.py::test_layer[7x5x3x4-NumPy-step]",
        "layers.py::test_frozen[7x5x3x4-fastact Numba]",
        "layers.py::test_layer[7x5x3:gelu-NumPy-step]",
        "layers.py::test_frozen[7x5x3:gelu-fastact Numba]",
        "networks.py::test_network[float64-4x3-2-3:tanh-naive NumPy-step]",
    ):
        assert f"PASSED bench/test_{test}" in done.stdout


def test_run_checks_and_times_every_mode():
    run = Run(1, 0.0)
    run.measure(SMALL, "layers", {"NumPy": load(LAYERS["NumPy"])})
    assert [record["mode"] for record in run.records] == ["forward", "forward_backward", "step"]
    assert all(record["p50"] > 0 and record["error"] <= 1 for record in run.records)
    assert run.wrong == []


def test_run_does_not_time_a_wrong_result():
    class Wrong(load(LAYERS["NumPy"])):
        def forward(self):
            return super().forward() + 1

    run = Run(1, 0.0)
    run.measure(SMALL, "layers", {"wrong": Wrong})
    assert run.records == []
    assert len(run.wrong) == 1
    assert "wrong, forward: the error is" in run.wrong[0]


@pytest.mark.parametrize("shape", [RELU, GELU], ids=str)
def test_run_of_linear_activation_times_every_mode(shape):
    measured = Run(1, 0.0)
    measured.measure(shape, "layers", {"NumPy": load(LAYERS["NumPy"])})
    assert (len(measured.records), measured.wrong, measured.missing) == (3, [], {})


def test_run_names_contenders_that_lack_the_activation():
    measured = Run(1, 0.0)
    measured.measure(GELU, "layers", {"naive NumPy": load(LAYERS["naive NumPy"])})
    assert measured.records == []
    assert "no erf" in measured.missing["linear gelu"]["naive NumPy"]


def test_run_that_is_stopped_writes_what_it_has_measured(tmp_path, monkeypatch, capsys):
    def stopped(command, **options):
        answer = json.loads(Path(command[-1]).read_text())["answer"]
        part = results(result("fastact C", 1.0)) | {"environment": machine.describe(), "wrong": []}
        Path(answer).write_text(json.dumps(part))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_process", stopped)
    out = tmp_path / "machine.json"
    with pytest.raises(KeyboardInterrupt):
        run.run([1, 1], [str(MAIN[0])], False, out, False)
    assert records.read(out)["results"] == [result("fastact C", 1.0)]
    assert f"wrote {out}" in capsys.readouterr().out


# ---- reports

README = "before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n"


def full_results(*more):
    """What a run of the main and linear shapes on a quiet machine may find."""
    return results(
        *(
            result(name, 100.0 * (i + 1), shape, mode)
            for i, name in enumerate(("fastact C", "naive NumPy", "PyTorch", "JAX"))
            for shape in (*MAIN, *LINEAR)
            for mode in ("forward", "forward_backward")
        ),
        *more,
    )


def report_in(folder, found, *words):
    """The exit status of a report on a file in `folder`, and the files that are then there."""
    records.write(folder / "machine.json", found)
    status = report.main([str(folder / "machine.json"), *words])
    return status, {path.name for path in folder.iterdir()}


@pytest.fixture
def readme(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text(README)
    monkeypatch.setattr(report, "README", path)
    return path


def test_report_leaves_readme_alone_and_names_its_files(tmp_path, readme, capsys):
    status, files = report_in(tmp_path, full_results())
    assert status == 0
    assert readme.read_text() == README
    written = {"machine.md", "machine-rates.svg"}  # no growth: no sweep was measured
    assert files == {"machine.json", "README.md", *written}
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {tmp_path / name}" for name in ("machine-rates.svg", "machine.md")
    ]
    picture = (tmp_path / "machine-rates.svg").read_text()
    report_in(tmp_path, full_results())
    assert (tmp_path / "machine-rates.svg").read_text() == picture  # a changed line is a changed figure
    page = (tmp_path / "machine.md").read_text()
    assert re.findall(r"!\[.*?\]\((.*?)\)", page) == ["machine-rates.svg"]
    assert "| 1x2048x2048:gelu | **100** |" in page


def test_report_begins_with_the_closest_peers_and_tells_dates_of_release(tmp_path, readme, capsys):
    found = full_results(result("Thinc", 110.0)) | {"released": {"numpy": "2026-11-15"}}
    report_in(tmp_path, found)
    printed = capsys.readouterr().out
    assert printed.startswith(
        "Closest peers: the fastest of the others takes at most 1.15 times fastact's time\n"
    )
    share = round(100 * MAIN[0].dense_flop / 100e-6 / 100e9)
    line = f"\n1.10x 1024x288x96x3, forward, 1 thread: Thinc 110 µs, fastact 100 µs, {share}%\n"
    assert line in printed
    page = (tmp_path / "machine.md").read_text()
    assert "| numpy | 2.0 | 2026-11-15 |" in page
    line = f"| 1024x288x96x3 | 1.10x | forward, 1 thread | 100 | {share}% | 110 | Thinc |"
    does = "- Thinc: BLIS's product, then C++ loops"
    assert page.index(line) < page.index(does) < page.index("| numpy |") < page.index("## Linear")


def test_released_knows_the_dates_of_pinned_versions_only():
    pins = re.findall(r"^(\S+)==(\S+)", (ROOT / "bench/requirements.txt").read_text(), re.MULTILINE)
    pinned = dict(pins)
    assert set(pinned) - set(PACKAGES) == {"onnx"}
    assert machine.released(pinned).keys() == pinned.keys()
    assert machine.released({"torch": f"{pinned['torch']}+cpu"}).keys() == {"torch"}
    assert machine.released({"torch": "2.0", "python": "3.13"}) == {}


def test_report_for_readme_writes_one_chart_and_one_table(tmp_path, readme, capsys):
    status, files = report_in(tmp_path, full_results(), "--readme")
    assert status == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench:begin -->\n<picture>")
    assert text.endswith("<!-- bench:end -->\nafter\n")
    charts = re.findall(r'(?:srcset|src)="(.*?)"', text)
    assert charts == ["machine-speedup-dark.svg", "machine-speedup-light.svg"]
    assert set(charts) < files
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == "| forward + backward, µs | layer | fastact | PyTorch | JAX | naive NumPy |"
    assert len(lines) == 2 + len(report.README_SHAPES)
    assert "| 1x2048x2048:relu | linear relu | 100 | 300 | 400 | 200 |" in lines
    assert (
        "float32, with fastact 0.1, torch 2.9, jax 0.9, numpy 2.0; commit 0123abc; [all results](machine.md)."
        in text
    )
    assert f"wrote {readme}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quick": True}, "--quick run"),
        (
            {"neighbours": {"1": 0.001, "2": 0.3}},
            "busy machine (others took 30.0% of the CPU's time, 2 threads)",
        ),
        (
            {"results": [result("fastact C", 1.0, MAIN[1], "forward_backward")]},
            "without fastact C and naive NumPy on one thread on 1024x288x96x3, 100x784",
        ),
    ],
)
def test_report_of_rough_results_for_readme_is_refused(tmp_path, readme, capsys, change, message):
    status, files = report_in(tmp_path, full_results() | change, "--readme")
    assert status == 2
    assert message in capsys.readouterr().err
    assert readme.read_text() == README
    assert files == {"machine.json", "README.md"}


def test_report_of_an_older_file_has_no_lines_for_shapes_not_measured(tmp_path, readme):
    found = results(*(record for record in full_results()["results"] if record["shape"][4] == "maxout"))
    for record in found["results"]:
        del record["shape"][4:]
    assert report_in(tmp_path, found, "--readme")[0] == 0
    for text in (readme.read_text(), (tmp_path / "machine.md").read_text()):
        lines = "\n".join(re.findall(r"^\|.*", text, re.MULTILINE))
        assert "1024x288x96x3" in lines
        assert not re.search(r"relu|\|  \|", lines)


def panels(figure):
    """The panels of a picture that show anything, and all of them."""
    filled = [
        axes
        for axes in figure.axes
        if axes.lines or axes.patches or any(len(c.get_offsets()) for c in axes.collections)
    ]
    return filled, figure.axes


def test_pictures_have_no_empty_panels():
    one_sweep = [
        result(name, 10.0, shape, mode)
        for name in ("fastact C", "JAX")
        for shape in ROWS
        for mode in ("forward", "forward_backward")
    ]
    few = results(*one_sweep)
    assert plots.growth(results(), 1) is None
    assert plots.rates(results(), 1) is None
    for figure, count in (
        (plots.growth(few, 1), 2),
        (plots.rates(full_results(), 1), 6),
        (plots.rates(few, 1), 2),
    ):
        filled, every = panels(figure)
        assert (len(filled), len(every)) == (count, count)


def test_rates_show_shares_above_the_peak():
    figure = plots.rates(results(result("fastact C", MAIN[0].dense_flop / 150e3, MAIN[0])), 1)
    assert figure.axes[0].get_xlim()[1] > 150


# ---- Ctrl-C


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "fastact", "bench", "--shapes", "2048x2048x2048x2"],
        ["-m", "bench.activations"],
        ["bench/bits.py", "--out", "hashes.json"],
    ],
    ids=["bench", "activations", "bits"],
)
def test_ctrl_c_ends_a_command_without_a_traceback(words):
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    time.sleep(3)  # it has begun to work, or still loads its libraries
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert b"Traceback" not in said


def write_hashes(path, hashes, seed=0):
    path.write_text(json.dumps({"seed": seed, "calls": 1, "hashes": hashes}))
    return str(path)


VARIANTS = ("numpy",) if backends.why_c_is_missing() else ("numpy", bits.variants()[0])


def test_hashes_of_two_runs_are_equal():
    first = bits.hashes(VARIANTS, 20, 3)
    assert first == bits.hashes(VARIANTS, 20, 3)
    assert {bits.variant_of(key) for key in first} == set(VARIANTS)
    names = {bits.operation_of(key).partition("/")[2] for key in first}
    assert names == set(bits.operations())
    assert {f"activation {name}" for name in activations.NAMES} <= names


def test_hashes_with_another_seed_differ():
    first, second = (bits.hashes(("numpy",), 1, seed) for seed in (3, 4))
    assert set(first.values()) != set(second.values())  # empty results are equal


def test_hashes_of_fewer_calls_and_activations_are_a_subset(monkeypatch):
    every = bits.hashes(("numpy",), 1000, 0)
    monkeypatch.setattr(bits, "activations", SimpleNamespace(NAMES=("relu", "tanh")))
    some = bits.hashes(("numpy",), 300, 0)
    assert len(some) < len(every)
    assert some.items() <= every.items()


def test_hashes_of_a_changed_operation_differ(monkeypatch, tmp_path, capsys):
    before = write_hashes(tmp_path / "before.json", bits.hashes(("numpy",), 200, 0))
    right = fa.maxout_backward

    def wrong(*args, **keywords):
        grad_z = right(*args, **keywords)
        if grad_z.size:
            grad_z.view(np.uint8).flat[0] ^= 1  # the last bit of the first number
        return grad_z

    monkeypatch.setattr(fa, "maxout_backward", wrong)
    after = write_hashes(tmp_path / "after.json", bits.hashes(("numpy",), 200, 0))
    assert bits.main(["--compare", before, before]) == 0
    capsys.readouterr()
    assert bits.main(["--compare", before, after]) == 1
    said = capsys.readouterr().out
    assert re.findall(r"differing: \d+ of (\S+)", said) == ["numpy/maxout_backward"]
    assert "  numpy/maxout_backward/0 float" in said


def test_compare_reports_keys_of_one_file_only(tmp_path, capsys):
    before = write_hashes(tmp_path / "before.json", {"c-avx2/activation relu/0": "1"})
    new = {"c-avx2/activation relu/0": "1", "c-avx2/activation new/0": "2", "numpy/mse/0": "3"}
    after = write_hashes(tmp_path / "after.json", new)
    assert bits.main(["--compare", before, after]) == 0
    said = capsys.readouterr().out
    assert "1 calls are in both files, 0 of them differ" in said
    assert f"only in {after}: 2 calls; the other has none of: c-avx2/activation new, numpy\n" in said
    assert f"only in {before}" not in said


def test_compare_of_files_with_nothing_in_common_fails(tmp_path):
    before = write_hashes(tmp_path / "before.json", {"numpy/mse/0": "1"})
    assert bits.main(["--compare", before, write_hashes(tmp_path / "after.json", {})]) == 1


def test_compare_of_different_seeds_is_refused(tmp_path):
    files = [write_hashes(tmp_path / f"{seed}.json", {}, seed) for seed in (1, 2)]
    with pytest.raises(ValueError, match=r"seed: .*1\.json has 1, .*2\.json has 2"):
        bits.main(["--compare", *files])


def test_digest_counts_every_nan_as_one_and_nothing_else():
    nans = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    assert bits.digest([nans[:1]]) == bits.digest([nans[1:]])
    zero = np.zeros(2, np.float32)
    others = [-zero, zero.astype(np.float64), zero.reshape(2, 1), zero[:1], None]
    assert len({bits.digest([value]) for value in (zero, *others)}) == 6


OPERATIONS = (
    *(ab.Case(name, SIZES) for name in (*ab.OPERATIONS, "grad_x", "grad_weight", "public", "paused")),
    *(ab.Case(name, (7, 5, 3, 1)) for name in ("linear", "linear_grad_x", "linear_grad_weight")),
    *(ab.Case(name, (33,)) for name in ("activation relu", "activation_backward tanh", "sgd", "mse")),
)


needs_c = pytest.mark.skipif(backends.why_c_is_missing() is not None, reason="no C backend")


@needs_c
def test_ab_measure_times_every_operation():
    figures = ab.measure(ROOT, sys.executable, OPERATIONS, 0.0)
    assert len(figures) == len(OPERATIONS)
    assert min(figures) > 0


@needs_c
def test_ab_measure_of_errors_is_near_that_of_numpy():
    shape = (64, 300, 40, 3)
    wanted = [ab.Case(name, shape) for name in ("forward", "grad_x", "grad_weight")]
    assert all(0.2 < error < 3 for error in ab.measure(ROOT, sys.executable, wanted, 0.0, errors=True))


@needs_c
def test_ab_measure_of_another_checkout_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"got fastact from .*, wanted"):
        ab.measure(tmp_path.resolve(), sys.executable, OPERATIONS[:1], 0.0)


@needs_c
def test_ab_measure_of_an_unknown_operation_is_refused():
    with pytest.raises(RuntimeError, match=r"status 1:\n(.*\n)*KeyError: 'unknown'"):
        ab.measure(ROOT, sys.executable, [ab.Case("unknown", SIZES)], 0.0)


def test_in_turn_begins_each_round_with_another_one():
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) or [0.0] for name in "abc"}
    found = ab.in_turn(runs, 3, "test")
    assert order == [*"abc", *"bca", *"cab"]
    assert found == {name: [[0.0]] * 3 for name in "abc"}


def test_ratio_is_taken_pair_by_pair():
    assert ab.ratio([2, 4, 30], [1, 1, 10]) == ab.Ratio(3.0, 2.5, 3.5)


def test_ab_table_of_all_cases_has_80_columns():
    wanted = [*ab.cases(quick=False), ab.Case("forward", (1, 1, 1, 1), 2, "medium")]
    times = {
        "before": [[1234567.8] * len(wanted)] * 3,
        "after": [[617283.9] * len(wanted)] * 3,
        "again": [[1234567.8] * len(wanted)] * 3,
    }
    rows = ab.summarise(wanted, times)
    assert {row["change"]["median"] for row in rows} == {0.5}
    lines = ab.table(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == len(wanted) + 3
    assert lines[-1].split() == ["geometric", "mean", "of", "medians", "0.500", "1.000"]
    for case, line in zip(wanted, lines[2:], strict=False):
        assert line.startswith(f"{case} ")


def test_ab_of_a_folder_without_fastact_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        ab.main([str(ROOT), str(tmp_path)])
    assert f"AFTER: got {tmp_path}, wanted a folder with a built fastact" in capsys.readouterr().err


TUNING = ROOT / "bench" / "tuning"
EXPERIMENTS = {
    path.stem: importlib.import_module(f"bench.tuning.{path.stem}").EXPERIMENT
    for path in sorted(TUNING.glob("*.py"))
    if path.stem not in ("__init__", "harness")
}


def tuning_rows():
    """The rows of the table of keys: the key, and its other cells."""
    lines = [line for line in (TUNING / "README.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if row[0] != "key"}


def test_tuning_keys_of_the_code_are_in_the_table():
    sources = [
        path
        for folder in ("csrc", "fastact")
        for path in (ROOT / folder).rglob("*.[chp]*")
        if path.suffix in (".c", ".h", ".py")
    ]
    assert len(sources) > 50
    text = "\n".join(path.read_text() for path in sources)
    assert set(re.findall(r"bench/tuning: ([a-z0-9-]+)", text)) <= set(tuning_rows())


def test_tuning_keys_of_the_table_have_numbers():
    sections = re.split(r"^## (.*)$", (TUNING / "numbers.md").read_text(), flags=re.MULTILINE)[1:]
    numbers = dict(zip(sections[::2], sections[1::2], strict=True))
    assert len(numbers) == len(sections) / 2
    assert list(numbers) == sorted(tuning_rows())
    assert all(re.search(r"\d", text) for text in numbers.values())


def test_tuning_table_says_which_keys_have_a_script():
    scripted = {key for key, row in tuning_rows().items() if row[-1].startswith("script")}
    assert scripted == {experiment.key for experiment in EXPERIMENTS.values()}


@pytest.mark.parametrize("module", EXPERIMENTS)
def test_tuning_experiment_names_constants_and_cases_that_exist(module):
    experiment = EXPERIMENTS[module]
    assert experiment.key.replace("-", "_") == module
    assert experiment.constants
    for name in experiment.constants:
        present = harness.find(name, ROOT / "csrc").value
        assert present not in [variant.get(name) for variant in experiment.variants]
        assert f"`{name}`" in tuning_rows()[experiment.key][0] or module == "highest_on_tiles"
    operations = {case.operation.split()[0] for case in OPERATIONS}
    assert {case.operation.split()[0] for case in experiment.cases} <= operations
    if experiment.errors:
        assert {case.operation for case in experiment.cases} <= {"forward", "grad_x", "grad_weight"}


@pytest.mark.parametrize(
    ("text", "value", "new"),
    [
        ("#define SIZE 4\n", "4", "#define SIZE 8\n"),
        (
            "#  define SIZE(l2) ((l2) / 2) /* a\n reason */\n",
            "((l2) / 2)",
            "#  define SIZE(l2) 8 /* a\n reason */\n",
        ),
        ("#define SIZE (1 << 4) // why", "(1 << 4)", "#define SIZE 8 // why"),
        ("#define SIZES 3\n#define SIZE 4\n", "4", "#define SIZES 3\n#define SIZE 8\n"),
    ],
)
def test_tuning_replace_changes_the_value_alone(tmp_path, text, value, new):
    path = tmp_path / "isa" / "amx" / "tuning.h"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert harness.find("SIZE", tmp_path).value == value
    harness.replace("SIZE", "8", tmp_path)
    assert path.read_text() == new


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("#define SIZES 4\n", "int SIZE = 4;\n"), r"SIZE: got 0 definitions under csrc/ \(\)"),
        (("#define SIZE 4\n", "#define SIZE 4\n"), r"SIZE: got 2 definitions under csrc/ \(0.h, 1.h\)"),
        (("#define SIZE \\\n  4\n", ""), "SIZE: got a value of several lines"),
    ],
)
def test_tuning_find_without_exactly_one_definition_is_refused(tmp_path, texts, message):
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.h").write_text(text)
    with pytest.raises(ValueError, match=message):
        harness.find("SIZE", tmp_path)


def test_tuning_table_names_every_variant_and_case():
    figures = {harness.label(variant): [1.5, 20.0] for variant in ({}, {"SIZE": "8", "ROWS": "2"})}
    text = harness.table([ab.Case("forward", SIZES), ab.Case("frozen", SIZES)], figures, "us")
    assert text.splitlines()[:2] == ["A: as it is", "B: SIZE 8, ROWS 2"]
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["us", "A", "B"],
        ["forward", "7x5x3x4", "1.5", "1.5"],
        ["frozen", "7x5x3x4", "20", "20"],
    ]


def test_tuning_tables_have_80_columns():
    for experiment in EXPERIMENTS.values():
        labels = map(harness.label, ({}, *experiment.variants))
        figures = {label: [1234567.8] * len(experiment.cases) for label in labels}
        text = harness.table(experiment.cases, figures, "median us a call")
        assert max(map(len, text.splitlines())) <= 80
