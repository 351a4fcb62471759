"""Each request of the C backend to the system fails once: MemoryError or the right bits, and nothing is lost.

What is asked for: memory, a thread, a thread's own pointer (failing_malloc.c), and what the extension
allocates through Python (python_allocations.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import output_of
from support.variants import COMPILED, in_force, needs_c

HERE = Path(__file__).parent
ISAS = [variant.partition("-")[2] for variant in COMPILED if variant.startswith("c-")]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The path of failing_malloc.c, compiled."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or not os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("needs Linux with glibc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("needs LD_PRELOAD for itself")
    path = tmp_path_factory.mktemp("library") / "failing_malloc.so"
    flags = ["-O2", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", path, HERE / "failing_malloc.c", "-ldl"], check=True)
    return str(path)


def refused(library, part, every=1, **environment):
    """For each operation: (requests that failed, MemoryErrors, whether it needs memory, its name)."""
    code = f"from faults import every_allocation; every_allocation.main({library!r}, {part!r}, {every})"
    environment |= {"LD_PRELOAD": library, "PYTHONPATH": str(HERE.parent)}
    lines = output_of(code, 300, **environment).splitlines()
    return [(*map(int, numbers), name) for *numbers, name in (line.split("\t") for line in lines)]


def check(outcomes):
    assert outcomes
    for failed, errors, needs_memory, name in outcomes:
        assert failed >= errors, name
        assert (errors > 0) == needs_memory, name


class Recorder:
    """The extension; the names of its functions that were called."""

    def __init__(self, extension):
        self.extension, self.called = extension, set()

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self.extension, name)


@needs_c
def test_operations_reach_every_function_of_the_extension(monkeypatch):
    from fastact.backends import c
    from faults import operations

    functions = {name for name in dir(c._native) if type(getattr(c._native, name)) is type(len)}
    recorder = Recorder(c._native)
    monkeypatch.setattr(c, "_native", recorder)
    for name in ("network_forward", "network_backward", "network_tape", "facts_hold"):
        monkeypatch.setattr(c, name, lambda *arguments, name=name: getattr(recorder, name)(*arguments))
    with in_force("c"):
        made = operations.products() | operations.elementwise() | operations.networks(30)
        for operation in made.values():
            operation.call()
    assert functions - recorder.called == {"memory_holds"}  # which asks nothing of anybody, and needs PyTorch


@needs_c
@pytest.mark.parametrize("part", ["products", "elementwise", "networks"])
def test_operation_whose_request_fails_raises_or_is_right(library, part):
    check(refused(library, part, every=5))


@pytest.mark.full
@needs_c
@pytest.mark.parametrize("part", ["products", "elementwise", "networks"])
@pytest.mark.parametrize("isa", ISAS)
def test_every_operation_whose_request_fails_raises_or_is_right(library, isa, part):
    check(refused(library, part, every=1 if isa == ISAS[0] else 3, FASTACT_ISA=isa))


@needs_c
def test_first_call_of_a_process_whose_request_fails_raises_or_is_right(library):
    check(refused(library, "first_calls"))


@needs_c
def test_training_step_without_memory_keeps_parameters_and_can_be_repeated(library):
    check(refused(library, "training"))


@pytest.mark.full
@needs_c
def test_nopython_code_whose_request_fails_raises_or_is_right(library):
    pytest.importorskip("numba")
    check(refused(library, "nopython"))


@needs_c
def test_jax_function_whose_request_fails_raises_or_is_right(library):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs jax")
    check(refused(library, "jax"))


@needs_c
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.full)])
def test_function_whose_allocation_in_python_fails_raises_and_leaks_nothing(every):
    pytest.importorskip("_testcapi")
    code = f"from faults import python_allocations; python_allocations.main({every})"
    lines = output_of(code, PYTHONPATH=str(HERE.parent)).splitlines()
    errors = {name: int(count) for _, count, name in (line.split("\t") for line in lines)}
    for name in ("fa_add_functions", "hash_embed", "clip_grad_norm_"):
        assert errors[name] > 0, name
