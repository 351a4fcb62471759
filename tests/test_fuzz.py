"""The fuzzer: it goes on from a state, finds planted faults, and prints how to repeat a failure."""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fuzz import memory, mutants, report
from fuzz.__main__ import main
from fuzz.bounds import assert_close
from fuzz.case import Case, Failure, Given, Result, run_calls
from fuzz.draw import Draw
from fuzz.state import State
from support.variants import needs_fork, needs_proc

from fastact import backends

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("numpy",) if backends.why_c_is_missing() is not None else ("c", "numpy")
F32 = np.float32

# Put before everything else in a process, this breaks an operation of the NumPy backend.
PLANTED = """
import ctypes
import fastact.backends.numpy as reference
right = reference.maxout

def maxout(z, y, argmax, threads=0):
    right(z, y, argmax)
    {fault}

reference.maxout = maxout
"""


def fuzz(*arguments, planted=None):
    """Run the fuzzer in a process of its own; `planted` is a folder with a sitecustomize.py."""
    command = [sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
    return run(command, planted)


def run(command, planted=None):
    environment = os.environ | ({} if planted is None else {"PYTHONPATH": str(planted)})
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def statistics(done):
    """The line of JSON without what differs from run to run."""
    found = json.loads(done.stdout.splitlines()[-1])
    del found["seconds"], found["resident_mb"]
    for entry in found["operations"].values():
        del entry["calls_per_second"]
    return found


@pytest.fixture
def plant(tmp_path):
    """A function that makes a folder whose sitecustomize.py has a fault."""

    def make(fault):
        (tmp_path / "sitecustomize.py").write_text(PLANTED.format(fault=fault))
        return tmp_path

    return make


# ---- the command


def test_few_calls_pass_and_end_with_statistics():
    done = fuzz("--calls", 300, "--seed", 3, "--backend", *BACKENDS)
    assert done.returncode == 0, done.stderr
    found = statistics(done)
    assert found["calls"] >= 300
    assert found["failures"] == 0
    assert set(found["build"].split("+")) <= {"release", "asan", "tsan", "ubsan"}
    assert sum(entry["calls"] for entry in found["operations"].values()) == found["calls"]


def test_run_in_two_parts_has_the_statistics_of_one(tmp_path):
    same = ("--seed", 5, "--backend", *BACKENDS, "--operations", "maxout", "mse", "SGD")
    first = fuzz("--calls", 300, *same, "--state", tmp_path / "state")
    assert first.returncode == 0, first.stderr
    second = fuzz("--calls", 1500, *same, "--state", tmp_path / "state")
    assert statistics(second) == statistics(fuzz("--calls", 1500, *same))
    assert statistics(second)["calls"] > statistics(first)["calls"]
    assert os.listdir(tmp_path) == ["state"]


def test_state_of_another_seed_is_refused(tmp_path):
    path, job = tmp_path / "state", {"seed": 0, "threads": 1, "operations": ["mse"], "variants": ["numpy"]}
    State(job).save(path)
    assert vars(State.load(path, job)) == vars(State(job))
    with pytest.raises(ValueError, match="of other arguments"):
        State.load(path, job | {"seed": 1})


def test_several_cases_at_once_pass():
    done = fuzz(
        "--calls", 300, "--threads-of-python", 3, "--backend", *BACKENDS, "--operations", "maxout", "mse"
    )
    assert done.returncode == 0, done.stderr
    assert statistics(done)["python_threads"] == 3


def test_wrong_result_is_reported_with_a_script_that_fails(plant):
    planted = plant("y[...] = z.min(axis=1)")
    done = fuzz("--calls", 200, "--backend", "numpy", "--operations", "maxout", "mse", planted=planted)
    assert done.returncode == 1, done.stderr
    assert statistics(done)["calls"] >= 200  # it has gone on
    script = done.stderr[done.stderr.index("from tests.fuzz") :].split("\n\n\n")[0]
    assert len(script.splitlines()) <= 5
    assert run([sys.executable, "-c", script]).returncode == 0  # without the fault
    again = run([sys.executable, "-c", script], planted)
    assert again.returncode == 1
    assert "Failure" in again.stderr


@needs_fork
def test_crash_is_reported_and_the_next_cases_run(plant):
    planted = plant("ctypes.string_at(0) if z.shape[1] == 2 else None")
    done = fuzz("--calls", 400, "--backend", "numpy", "--operations", "maxout", "mse", planted=planted)
    assert done.returncode == 1, done.stderr
    assert "SIGSEGV" in done.stderr
    found = statistics(done)
    assert found["calls"] >= 400
    assert found["operations"].keys() == {"maxout", "mse"}


def test_first_failure_ends_the_run(plant):
    same = ("--calls", 100_000, "--backend", "numpy", "--operations", "maxout", "--first-failure")
    done = fuzz(*same, planted=plant("y[...] = z.min(axis=1)"))
    assert done.returncode == 1, done.stderr
    assert statistics(done)["calls"] < 100_000


@needs_fork
def test_interrupt_leaves_a_state_to_go_on_from(tmp_path):
    state = tmp_path / "state"
    same = ["--backend", "numpy", "--operations", "mse", "--state", str(state)]
    command = [sys.executable, "-m", "tests.fuzz", "--calls", str(10**9), *same]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not state.exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    made = json.loads(state.read_text())
    assert made["next"] > 0
    again = fuzz("--calls", 1, *same)
    assert again.returncode == 0
    assert statistics(again)["cases"] == made["cases"]


@pytest.mark.parametrize("arguments", [("--isa", "z80"), ("--backend", "fortran"), ("--calls", "0")], ids=str)
def test_bad_argument_ends_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "wanted" in capsys.readouterr().err


def test_help_names_the_operations(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "linear_maxout_backward" in capsys.readouterr().out


# ---- what it watches


@pytest.fixture
def pool():
    made = memory.Pool()
    yield made
    made.reset()


@needs_fork
@pytest.mark.parametrize(("place", "offset"), [("end", 12), ("start", -1)])
@pytest.mark.parametrize("access", ["string_at(address, 1)", "memset(address, 0, 1)"], ids=["read", "write"])
def test_access_beside_an_array_ends_the_process(place, offset, access):
    code = f"""
import ctypes
from tests.fuzz.memory import Pool
array = Pool().empty((3,), "float32", {place!r})
address = array.ctypes.data + {offset}
ctypes.{access}
"""
    assert run([sys.executable, "-c", code]).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("place", memory.PLACES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (5000,)])
def test_array_of_a_pool_keeps_its_numbers(pool, place, shape, rng):
    values = rng.standard_normal(shape)
    array = pool.copy(values, place)
    np.testing.assert_array_equal(array, values)
    pool.check()


def test_write_beside_an_array_is_seen(pool):
    array = pool.empty((3,), F32, "inside")
    pool.check()
    ctypes.memset(array.ctypes.data + array.nbytes, 0, 1)
    with pytest.raises(AssertionError, match="behind an array"):
        pool.check()


def run_case(function, pool, check=lambda option, results, backend: None, calls=3, leaks=False):
    """Calls of a function of one array, x, with `out`."""
    case = Case(function, {"x": np.ones((2, 3), F32)}, check, (Result("y", (2, 3), F32),))
    case.prepare(Draw(np.random.default_rng(0)), pool)
    givens = [Given(0, 1, 0, i % 2) for i in range(calls)]
    return run_calls(case, "numpy", givens, lambda call: None, leaks)


def test_calls_that_agree_pass(pool):
    assert run_case(lambda x, out: x + 1, pool) == 3


def test_changed_input_is_a_failure(pool):
    def function(x, out):
        x[0, 0] += 1
        return np.zeros((2, 3), F32)

    with pytest.raises(Failure, match="x was changed"):
        run_case(function, pool)


def test_other_bits_are_a_failure(pool):
    values = iter((1, 1, 2))
    with pytest.raises(Failure, match="other bits than that of call 0") as failure:
        run_case(lambda x, out: x * F32(next(values)), pool)
    assert failure.value.call == 2


def test_exception_is_a_failure(pool):
    def function(x, out):
        raise ValueError("no")

    with pytest.raises(Failure, match="ValueError: no"):
        run_case(function, pool)


def test_memory_left_allocated_is_a_failure(pool):
    kept = []
    assert run_case(lambda x, out: x + 1, pool, leaks=True) == 3
    with pytest.raises(Failure, match="blocks of Python allocated"):
        run_case(lambda x, out: kept.append(object()) or x + 1, pool, leaks=True)


@needs_proc
def test_memory_of_malloc_left_allocated_is_a_failure(pool):
    if memory.allocated()[1] == 0:
        pytest.skip("needs glibc's mallinfo2")
    libc = ctypes.CDLL(None)
    with pytest.raises(Failure, match="bytes of malloc allocated"):
        run_case(lambda x, out: libc.malloc(1000) and x + 1, pool, leaks=True)


def test_bound_holds_where_numbers_are_not_finite():
    exact = np.array([1.0, math.nan, math.inf, 2.0**100, 2.0])
    assert_close("y", np.array([1.25, math.nan, math.inf, 2.0**100, 2], F32), exact, 0.3)
    for i, wrong in enumerate((1.5, 0, -math.inf, math.nan, math.inf)):
        actual = exact.astype(F32)
        actual[i] = wrong
        with pytest.raises(AssertionError, match=rf"y\[{i}\]"):
            assert_close("y", actual, exact, 0.3)
        assert_close("y", actual, exact, 0.3, magnitude=3.4e38)  # the sum may have overflowed


# ---- mutants


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
def test_patch_of_a_mutant_applies(mutant):
    mutants.apply(mutant, ROOT, "--check")
    assert mutant.breaks.endswith(".")


# ---- the report


def test_readme_has_the_tables_of_the_results():
    readme = report.FOLDER / "README.md"
    assert report.with_tables(readme.read_text(), report.FOLDER / "results") == readme.read_text()
