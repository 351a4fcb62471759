"""The parts of bench/ that compute: statistics, error bounds, tables, goals.  They need no peer."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

# last, so that nothing of the checkout comes before what is installed
sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import goals, records, shapes, tables, timing
from bench.measure import Run
from bench.peers import LAYERS, load
from bench.problem import BFLOAT16_ROUNDOFF, FLOAT32_ROUNDOFF, Interval, Problem, Truth
from bench.shapes import MAIN, Shape

SMALL = Shape(7, 5, 3, 4)
BEGIN, END = "<!-- times:begin -->", "<!-- times:end -->"


def result(
    contender: str, p50: float, shape: Shape = MAIN[0], mode: str = "forward", threads: int = 1
) -> dict:
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


def results(*found: dict) -> dict:
    about = {
        "cpu": "Example CPU",
        "family_model": "1/2",
        "instructions": ["avx2"],
        "cores": 2,
        "system": "Linux x86_64",
        "versions": {"numpy": "2.0"},
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


class TestShapes:
    def test_text_and_back(self) -> None:
        assert str(SMALL) == "7x5x3x4"
        assert Shape.parse("7x5x3x4") == SMALL

    @pytest.mark.parametrize("text", ["7x5x3", "7x5x3x0", "7x5x3x4x1", "7,5,3,4", "x"])
    def test_bad_text_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="shape: got"):
            Shape.parse(text)

    def test_select_keeps_order_and_names_each_once(self) -> None:
        assert shapes.select(["main", "1024x288x96x3", "7x5x3x4"]) == [*MAIN, SMALL]
        with pytest.raises(ValueError, match="shapes: got 'mian'"):
            shapes.select(["mian"])

    def test_a_main_shape_is_no_sweep(self) -> None:
        assert not shapes.is_sweep(Shape(1024, 288, 96, 3))  # it is one of `rows` as well
        assert shapes.is_sweep(Shape(512, 288, 96, 3))
        assert not shapes.is_sweep(SMALL)


class TestTiming:
    def test_quantiles_in_microseconds(self) -> None:
        sample = timing.summarise([k * 1e-6 for k in range(11)], calls=3)
        assert sample == (2.0, 5.0, 8.0, 11, 3)

    def test_rounds_stay_within_limits(self) -> None:
        assert timing.rounds_for(0.1, budget=1.0) == 10
        assert timing.rounds_for(1e-6, budget=1.0) == timing.MAX_ROUNDS
        assert timing.rounds_for(1.0, budget=1.0) == timing.MIN_ROUNDS
        assert timing.rounds_for(100.0, budget=1.0) == timing.MIN_LONG_ROUNDS

    def test_every_contender_has_a_sample_in_every_round(self) -> None:
        calls: list[str] = []

        def record(name: str) -> None:
            calls.append(name)
            time.sleep(max(timing.SAMPLE_SECONDS, timing.WARM_SECONDS))  # one call is a sample

        samples = timing.interleaved({name: lambda name=name: record(name) for name in "abc"}, budget=0.0)
        assert {sample[3:] for sample in samples.values()} == {(timing.MIN_ROUNDS, 1)}
        assert "".join(calls) == "aabbcc" + "aabbccbbccaaccaabbaabbccbbccaa"  # first, how long a call takes

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of a process's threads")
    def test_settling_waits_for_busy_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timing, "QUIET_SECONDS", 60.0)
        # about 0.2 s without the GIL
        busy = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 500_000))
        busy.start()
        while timing._others_sleep():  # it has not come to its work yet
            assert busy.is_alive()
        timing.settle()
        busy.join(timeout=0.1)  # what it does after its work
        assert not busy.is_alive()

    def test_settling_does_not_wait_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timing, "_others_sleep", lambda: False)
        monkeypatch.setattr(timing, "QUIET_SECONDS", 0.02)
        started = time.perf_counter()
        timing.settle()
        assert time.perf_counter() - started >= timing.QUIET_SECONDS


class TestErrorBounds:
    def float32_results(self, problem: Problem) -> tuple:
        rows, in_features, out_features, pieces = problem.shape
        weight = problem.weight.reshape(-1, in_features)
        z = (problem.x @ weight.T + problem.bias.reshape(-1)).reshape(rows, out_features, pieces)
        grad_z = np.where(z.argmax(-1)[..., None] == np.arange(pieces), problem.grad_y[..., None], 0)
        grad_z = grad_z.reshape(rows, -1)
        return z.max(-1), (grad_z @ weight, grad_z.T @ problem.x, grad_z.sum(0))

    @pytest.mark.parametrize("shape", [SMALL, Shape(1, 1, 1, 1), Shape(64, 300, 20, 3)], ids=str)
    def test_float32_is_within_and_a_real_mistake_is_not(self, shape: Shape) -> None:
        problem = Problem(shape)
        truth = Truth(problem)
        y, grads = self.float32_results(problem)
        exact = problem.grad_y.astype(float)
        wanted = truth.gradients(Interval(exact, 0 * exact))
        assert truth.y.excess(y) <= 1
        assert all(interval.excess(grad) <= 1 for interval, grad in zip(wanted, grads, strict=True))
        y.flat[0] += 0.01
        assert truth.y.excess(y) > 1
        grads[1].flat[0] += 0.01
        assert wanted[1].excess(grads[1]) > 1

    def test_nan_is_no_right_answer(self) -> None:
        truth = Truth(Problem(SMALL))
        assert not truth.y.excess(np.full((7, 3), np.nan)) <= 1

    def test_bfloat16_inputs_are_allowed_their_own_error_only(self) -> None:
        problem = Problem(Shape(16, 64, 8, 2))
        coarse = (problem.x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        near = coarse + (problem.x - coarse) / 2  # half of what truncation to bfloat16 takes off
        weight = problem.weight.reshape(16, -1)
        y = (near @ weight.T + problem.bias.reshape(-1)).reshape(16, 8, 2).max(-1)
        assert Truth(problem, BFLOAT16_ROUNDOFF).y.excess(y) <= 1
        assert Truth(problem, FLOAT32_ROUNDOFF).y.excess(y) > 1

    def test_one_term_of_rounded_factors_is_right(self) -> None:
        problem = Problem(Shape(256, 1, 256, 3))

        def rounded(array: np.ndarray) -> np.ndarray:
            bits = array.view(np.uint32)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)

        y = rounded(problem.x) @ rounded(problem.weight.reshape(-1, 1)).T + problem.bias.reshape(-1)
        assert Truth(problem, BFLOAT16_ROUNDOFF).y.excess(y.reshape(256, 256, 3).max(-1)) <= 1


class TestTables:
    def test_losses_show(self) -> None:
        found = results(result("fastact C", 200.0), result("NumPy", 100.0), result("JAX", 400.0))
        text = tables.section(found, ("forward",), [1])
        assert "| shape | fastact C | NumPy | JAX | C vs best other |" in text
        assert "| 1024x288x96x3 | 200 | **100** | 400 | 0.50x |" in text

    def test_a_contender_that_is_missing_leaves_its_cell_empty(self) -> None:
        found = results(result("fastact C", 2.0), result("NumPy", 3.0), result("NumPy", 5.5, MAIN[1]))
        assert "| 64x288x96x3 |  | **5.5** |  |" in tables.section(found, ("forward",), [1])
        assert "Thinc: not installed" in tables.missing_line(found)

    def test_the_machine_and_the_commits_are_named(self) -> None:
        found = results(result("NumPy", 1.0), result("JAX", 1.0), result("Thinc", 1.0) | {"commit": None})
        line = tables.machine_line(found)
        assert (
            line == "Example CPU (family/model 1/2, 2 cores; avx2), Linux x86_64; numpy 2.0; commit 0123abc."
        )

    def test_a_disturbed_run_says_so(self) -> None:
        assert "0.4% (1 thread)" in tables.neighbours_line(results())

    def test_bfloat16_is_no_rival_of_float32(self) -> None:
        assert tables.speedup({"fastact C": 2.0, "OpenVINO": 3.0, "OpenVINO bf16": 1.0}) == 1.5

    @pytest.mark.parametrize("mode", ["tiers", "tiers_backward"])
    def test_a_tier_shows_its_error(self, mode: str) -> None:
        found = results(
            result("fastact C medium", 200.0, mode=mode), result("PyTorch medium", 300.0, mode=mode)
        )
        text = tables.section(found, (mode,), [1])
        assert "| 1024x288x96x3 | **200 (1.0e-07)** | 300 (1.0e-07) | 1.50x |" in text

    def test_a_tier_is_no_rival_of_float32(self) -> None:
        found = results(result("fastact C", 200.0), result("fastact C medium", 100.0), result("JAX", 300.0))
        text = tables.section(found, ("forward",), [1])
        assert "| 1024x288x96x3 | **200** | 100 (1.0e-07) | 300 | 1.50x |" in text

    def test_only_the_text_between_the_markers_changes(self) -> None:
        text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
        new = tables.replace_between_markers(text, "times", "new\n")
        assert new == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
        assert tables.replace_between_markers(new, "times", "new") == new

    @pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN, 2 * (BEGIN + END)])
    def test_bad_markers_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="markers"):
            tables.replace_between_markers(text, "times", "new")

    def test_the_summary_names_the_fastest_other(self) -> None:
        found = results(
            *(result(*of) for of in (("fastact C", 2.0), ("naive NumPy", 8.0), ("NumPy", 5.0), ("JAX", 3.0))),
            *(result(*of, mode="frozen") for of in (("fastact C", 2.0), ("OpenVINO", 1.0))),
        )
        assert "| 1024x288x96x3 | 2 | 4.0x | 1.50x JAX |  |  |  | 2 | 0.50x OpenVINO |" in tables.summary(
            found, MAIN[:1]
        )


class TestRecords:
    def test_file_and_back(self, tmp_path: Path) -> None:
        found = results(result("NumPy", 1.0), result("JAX", 2.0))
        path = tmp_path / "new" / "file.json"
        records.write(path, found)
        assert records.read(path) == found

    def test_no_other_file_is_taken_for_one(self, tmp_path: Path) -> None:
        path = tmp_path / "file.json"
        path.write_text("[]")
        with pytest.raises(ValueError, match="bench --out"):
            records.read(path)
        path.write_text("{")
        with pytest.raises(ValueError, match="not JSON"):
            records.read(path)

    def test_merge_replaces_what_was_measured_again(self) -> None:
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


class TestGoals:
    def find(self, found: dict, mode: str, contender: str, against: str) -> goals.Outcome:
        (outcome,) = [
            outcome
            for outcome in goals.outcomes(found)
            if (outcome.mode, outcome.shape, outcome.contender) == (mode, MAIN[0], contender)
            and outcome.against.startswith(against)
            and outcome.lacking is None
        ]
        return outcome

    def test_the_best_rival_counts(self) -> None:
        found = results(
            result("fastact C", 2000.0),
            result("JAX", 3000.0),
            result("PyTorch", 2600.0),
            result("NumPy", 100.0),
        )
        outcome = self.find(found, "forward", "fastact C", "PyTorch")
        assert outcome.against == "PyTorch, best of 2"
        assert outcome.got == pytest.approx(1.3)
        assert outcome.passed is False
        assert outcome.possible == pytest.approx(2600 * 100e3 / MAIN[0].dense_flop)

    def test_what_was_not_measured_is_neither_met_nor_missed(self) -> None:
        assert all(outcome.passed is None for outcome in goals.outcomes(results()))

    def test_threads(self) -> None:
        found = results(result("fastact C", 1000.0), result("fastact C", 540.0, threads=2))
        assert self.find(found, "forward", "fastact C, 2 threads", "fastact C, 1 thread").passed is True

    def test_what_needs_amx_is_said_where_there_is_none(self) -> None:
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

    def test_errors(self) -> None:
        found = results(
            result("fastact C", 1.0) | {"norm_error": 2e-7},
            result("NumPy", 1.0) | {"norm_error": 1e-7},
            result("fastact C medium", 1.0) | {"norm_error": 3e-3},
            result("fastact C medium", 1.0, MAIN[1]) | {"norm_error": 5e-3},
        )
        beside_numpy = self.find(found, "error", "fastact C", "NumPy, worst of 1")
        assert (beside_numpy.got, beside_numpy.passed) == (0.5, False)
        (medium,) = [
            o for o in goals.outcomes(found) if o.mode == "error" and o.contender == "fastact C medium"
        ]
        assert (medium.shape, medium.wanted, medium.got, medium.passed) == (MAIN[1], 4e-3, 5e-3, False)

    def test_backward_needs_the_winners_alone(self) -> None:
        assert goals.useful_flop("forward_backward", MAIN[4]) == 2 * MAIN[4].dense_flop


class TestSuite:
    def test_pytest_runs_the_suites(self) -> None:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "bench",
            "--shapes",
            str(SMALL),
            "--benchmark-disable",
            "-rA",
        ]
        done = subprocess.run(
            command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for test in (
            "layer[7x5x3x4-NumPy-forward]",
            "layer[7x5x3x4-NumPy-step]",
            "frozen[7x5x3x4-fastact Numba]",
        ):
            assert f"PASSED bench/test_layers.py::test_{test}" in done.stdout

    def test_a_run_checks_and_times(self) -> None:
        run = Run(1, 0.0)
        run.measure(SMALL, "layers", {"NumPy": load(LAYERS["NumPy"])})
        assert [record["mode"] for record in run.records] == ["forward", "forward_backward", "step"]
        assert all(record["p50"] > 0 and record["error"] <= 1 for record in run.records)
        assert run.wrong == []

    def test_a_wrong_result_is_not_timed(self) -> None:
        class Wrong(load(LAYERS["NumPy"])):
            def forward(self):
                return super().forward() + 1

        run = Run(1, 0.0)
        run.measure(SMALL, "layers", {"wrong": Wrong})
        assert run.records == []
        assert len(run.wrong) == 1
        assert "wrong, forward: the error is" in run.wrong[0]
