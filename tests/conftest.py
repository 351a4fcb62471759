"""Fixtures: backends and instruction sets, dtypes, thread counts, a generator; --full and --sanitize."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

pytest.register_assert_rewrite("support")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the bounds in bench/accuracy

from support import sanitize, selection  # noqa: E402
from support.variants import COMPILED, COMPILED_BACKENDS, in_force  # noqa: E402

from fastact import backends, settings  # noqa: E402

hypothesis.settings.register_profile(
    "fastact",
    deadline=None,  # the first call compiles
    derandomize=True,
    max_examples=60,
    # a backend stays chosen for all examples of a test
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fastact")


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run every case, not a part of their product")
    parser.addoption(
        "--sanitize",
        choices=sanitize.CHOICES,
        help="run the tests of kernels, or those that are named, under sanitizers: CONTRIBUTING.md",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "full: runs with --full alone")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run the whole suite in two processes, unless -n says otherwise; tests that are named run in one.

    With --sanitize a child does that.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if config.option.sanitize and not sanitize.running():
        return sanitize.run(config.option.sanitize, list(config.invocation_params.args), named=not whole)
    if whole and not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = min(2, os.cpu_count() or 1)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector):
    """Collect the cases of a test function that support/selection.py keeps."""
    made = yield
    return selection.kept(made, collector.config.getoption("full")) if isinstance(made, list) else made


def pytest_report_teststatus(report, config):
    """Print no dot for a test that passes, unless asked for with -v."""
    quiet = config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) < 0
    return ("passed", "", "PASSED") if quiet and report.passed and report.when == "call" else None


FRAMEWORKS = ("jax", "sklearn", "spacy", "thinc", "torch")  # tests/frameworks/test_<framework>*.py need them
MISSING_FRAMEWORKS = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]


def pytest_terminal_summary(terminalreporter):
    if MISSING_FRAMEWORKS:
        missing = ", ".join(MISSING_FRAMEWORKS)
        terminalreporter.write_line(f"not tested, because not installed: {missing} (tests/frameworks)")
    if "numba" not in COMPILED_BACKENDS:
        terminalreporter.write_line("not tested, because not installed: numba")


def pytest_ignore_collect(collection_path):
    if collection_path.parent.name == "frameworks" and collection_path.name.startswith("test_"):
        return collection_path.stem.split("_")[1] in MISSING_FRAMEWORKS or None
    return None


@pytest.fixture(params=("numpy", *COMPILED))
def backend(request):
    """Each backend in turn, C once for every instruction set; its name."""
    with in_force(request.param) as name:
        yield name


@pytest.fixture(params=COMPILED)
def compiled(request):
    """Each compiled backend in turn: `backend` without the reference."""
    with in_force(request.param) as name:
        yield name


@pytest.fixture(params=("numpy", *COMPILED_BACKENDS))
def each_backend(request):
    """Each backend in turn, C on its default instruction set: for what no kernel can change."""
    with in_force(request.param) as name:
        yield name


@pytest.fixture(params=(np.float32, np.float64), ids=("float32", "float64"))
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=(1, 2), ids=("1thread", "2threads"))
def threads(request):
    """The number of threads in force; 2 only where the work is large enough for a team."""
    with settings.num_threads(request.param):
        yield request.param


@pytest.fixture
def one_by_one(monkeypatch):
    """A `Sequential` runs its layers one by one on the C backend too."""
    if backends.why_c_is_missing() is None:
        c = backends.get("c")
        monkeypatch.setattr(c, "network_forward", lambda *arguments: None)
        monkeypatch.setattr(c, "network_backward", lambda *arguments: None)


@pytest.fixture
def rng():
    return np.random.default_rng(20130218)
