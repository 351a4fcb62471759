"""The parts of bench/ that compute: statistics, error bounds, tables, goals.  They need no peer."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
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
from bench import ab, bits, goals, records, shapes, tables, timing
from bench.measure import Run
from bench.peers import LAYERS, load
from bench.problem import BFLOAT16_ROUNDOFF, FLOAT32_ROUNDOFF, Interval, Problem, Truth
from bench.shapes import MAIN, Shape
from bench.tuning import harness
from fastact import activations, backends

ROOT = Path(__file__).resolve().parents[1]
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


def write_hashes(path: Path, hashes: dict[str, str], seed: int = 0) -> str:
    path.write_text(json.dumps({"seed": seed, "calls": 1, "hashes": hashes}))
    return str(path)


class TestBits:
    VARIANTS = ("numpy",) if backends.why_c_is_missing() else ("numpy", bits.variants()[0])

    def test_hashes_of_two_runs_are_equal(self) -> None:
        first = bits.hashes(self.VARIANTS, 20, 3)
        assert first == bits.hashes(self.VARIANTS, 20, 3)
        assert {bits.variant_of(key) for key in first} == set(self.VARIANTS)
        names = {bits.operation_of(key).partition("/")[2] for key in first}
        assert names == set(bits.operations())
        assert {f"activation {name}" for name in activations.NAMES} <= names

    def test_hashes_with_another_seed_differ(self) -> None:
        first, second = (bits.hashes(("numpy",), 1, seed) for seed in (3, 4))
        assert set(first.values()) != set(second.values())  # empty results are equal

    def test_hashes_of_fewer_calls_and_activations_are_a_subset(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        every = bits.hashes(("numpy",), 1000, 0)
        monkeypatch.setattr(bits, "activations", SimpleNamespace(NAMES=("relu", "tanh")))
        some = bits.hashes(("numpy",), 300, 0)
        assert len(some) < len(every)
        assert some.items() <= every.items()

    def test_hashes_of_a_changed_operation_differ(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
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

    def test_compare_reports_keys_of_one_file_only(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = write_hashes(tmp_path / "before.json", {"c-avx2/activation relu/0": "1"})
        new = {"c-avx2/activation relu/0": "1", "c-avx2/activation new/0": "2", "numpy/mse/0": "3"}
        after = write_hashes(tmp_path / "after.json", new)
        assert bits.main(["--compare", before, after]) == 0
        said = capsys.readouterr().out
        assert "1 calls are in both files, 0 of them differ" in said
        assert f"only in {after}: 2 calls; the other has none of: c-avx2/activation new, numpy\n" in said
        assert f"only in {before}" not in said

    def test_compare_of_files_with_nothing_in_common_fails(self, tmp_path: Path) -> None:
        before = write_hashes(tmp_path / "before.json", {"numpy/mse/0": "1"})
        assert bits.main(["--compare", before, write_hashes(tmp_path / "after.json", {})]) == 1

    def test_compare_of_different_seeds_is_refused(self, tmp_path: Path) -> None:
        files = [write_hashes(tmp_path / f"{seed}.json", {}, seed) for seed in (1, 2)]
        with pytest.raises(ValueError, match=r"seed: .*1\.json has 1, .*2\.json has 2"):
            bits.main(["--compare", *files])

    def test_digest_counts_every_nan_as_one_and_nothing_else(self) -> None:
        nans = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
        assert bits.digest([nans[:1]]) == bits.digest([nans[1:]])
        zero = np.zeros(2, np.float32)
        others = [-zero, zero.astype(np.float64), zero.reshape(2, 1), zero[:1], None]
        assert len({bits.digest([value]) for value in (zero, *others)}) == 6


OPERATIONS = (
    *(ab.Case(name, SMALL) for name in (*ab.OPERATIONS, "grad_x", "grad_weight", "public", "paused")),
    *(ab.Case(name, (7, 5, 3, 1)) for name in ("linear", "linear_grad_x", "linear_grad_weight")),
    *(ab.Case(name, (33,)) for name in ("activation relu", "activation_backward tanh", "sgd", "mse")),
)


@pytest.mark.skipif(backends.why_c_is_missing() is not None, reason="no C backend")
class TestAbWorker:
    def test_measure_of_this_checkout_times_every_operation(self) -> None:
        figures = ab.measure(ROOT, sys.executable, OPERATIONS, 0.0)
        assert len(figures) == len(OPERATIONS)
        assert min(figures) > 0

    def test_measure_of_errors_is_near_that_of_numpy(self) -> None:
        shape = (64, 300, 40, 3)
        wanted = [ab.Case(name, shape) for name in ("forward", "grad_x", "grad_weight")]
        assert all(0.2 < error < 3 for error in ab.measure(ROOT, sys.executable, wanted, 0.0, errors=True))

    def test_measure_of_another_checkout_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match=r"got fastact from .*, wanted"):
            ab.measure(tmp_path.resolve(), sys.executable, OPERATIONS[:1], 0.0)

    def test_measure_of_an_unknown_operation_is_refused(self) -> None:
        with pytest.raises(RuntimeError, match=r"status 1:\n(.*\n)*KeyError: 'unknown'"):
            ab.measure(ROOT, sys.executable, [ab.Case("unknown", SMALL)], 0.0)


class TestAb:
    def test_in_turn_begins_with_another_each_round(self) -> None:
        order: list[str] = []
        runs = {name: lambda name=name: order.append(name) or [0.0] for name in "abc"}
        found = ab.in_turn(runs, 3, "test")
        assert order == [*"abc", *"bca", *"cab"]
        assert found == {name: [[0.0]] * 3 for name in "abc"}

    def test_ratio_is_taken_pair_by_pair(self) -> None:
        assert ab.ratio([2, 4, 30], [1, 1, 10]) == ab.Ratio(3.0, 2.5, 3.5)

    def test_table_of_all_cases_has_80_columns(self) -> None:
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

    def test_main_with_a_folder_without_fastact_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            ab.main([str(ROOT), str(tmp_path)])
        assert f"AFTER: got {tmp_path}, wanted a folder with a built fastact" in capsys.readouterr().err


TUNING = ROOT / "bench" / "tuning"
EXPERIMENTS = {
    path.stem: importlib.import_module(f"bench.tuning.{path.stem}").EXPERIMENT
    for path in sorted(TUNING.glob("*.py"))
    if path.stem not in ("__init__", "harness")
}


def tuning_rows() -> dict[str, list[str]]:
    """The rows of the table of keys: the key, and its other cells."""
    lines = [line for line in (TUNING / "README.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if row[0] != "key"}


class TestTuning:
    def test_keys_of_the_code_are_in_the_table(self) -> None:
        sources = [
            path
            for folder in ("csrc", "fastact")
            for path in (ROOT / folder).rglob("*.[chp]*")
            if path.suffix in (".c", ".h", ".py")
        ]
        assert len(sources) > 50
        text = "\n".join(path.read_text() for path in sources)
        assert set(re.findall(r"bench/tuning: ([a-z0-9-]+)", text)) <= set(tuning_rows())

    def test_keys_of_the_table_have_numbers(self) -> None:
        sections = re.split(r"^## (.*)$", (TUNING / "numbers.md").read_text(), flags=re.MULTILINE)[1:]
        numbers = dict(zip(sections[::2], sections[1::2], strict=True))
        assert len(numbers) == len(sections) / 2
        assert list(numbers) == sorted(tuning_rows())
        assert all(re.search(r"\d", text) for text in numbers.values())

    def test_table_says_which_keys_have_a_script(self) -> None:
        scripted = {key for key, row in tuning_rows().items() if row[-1].startswith("script")}
        assert scripted == {experiment.key for experiment in EXPERIMENTS.values()}

    @pytest.mark.parametrize("module", EXPERIMENTS)
    def test_experiment_is_runnable(self, module: str) -> None:
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
    def test_replace_changes_the_value_alone(self, tmp_path: Path, text: str, value: str, new: str) -> None:
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
    def test_find_refuses_what_is_not_one_definition(
        self, tmp_path: Path, texts: tuple[str, str], message: str
    ) -> None:
        for i, text in enumerate(texts):
            (tmp_path / f"{i}.h").write_text(text)
        with pytest.raises(ValueError, match=message):
            harness.find("SIZE", tmp_path)

    def test_table_names_every_variant_and_case(self) -> None:
        figures = {harness.label(variant): [1.5, 20.0] for variant in ({}, {"SIZE": "8", "ROWS": "2"})}
        text = harness.table([ab.Case("forward", SMALL), ab.Case("frozen", SMALL)], figures, "us")
        assert text.splitlines()[:2] == ["A: forward 7x5x3x4", "B: frozen 7x5x3x4"]
        assert [line.split() for line in text.splitlines()[2:]] == [
            ["us", "A", "B"],
            ["as", "it", "is", "1.5", "20"],
            ["SIZE", "8,", "ROWS", "2", "1.5", "20"],
        ]
