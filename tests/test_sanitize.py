"""`pytest --sanitize` fails for a planted fault of each kind, also in a process that may fail."""

from __future__ import annotations

import functools
import importlib
import re
import shutil
import subprocess
import sysconfig

import pytest
from support import sanitize

PLANTED = r"""
#include <pthread.h>
#include <stdlib.h>

int overrun(int n) { /* reads one element beyond */
  int *memory = calloc((size_t)n, sizeof *memory), value;
  value = memory[n];
  free(memory);
  return value;
}

int overflow(int n) { return 0x7fffffff + n; }

int cast(int n) { return (int)(1e10 * n); }

int misaligned(int n) {
  char memory[16] = {0};
  return *(int *)(memory + n);
}

static int shared;

static void *increment(void *times) {
  for (int i = 0; i < *(int *)times; i++) shared++;
  return NULL;
}

int race(int n) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, increment, &n)) return 1;
  increment(&n);
  return pthread_join(thread, NULL);
}

int nothing(int n) { return n; }
"""

TESTS = """
import ctypes, os, subprocess, sys

CALL = "import ctypes, os; ctypes.CDLL(os.environ['SANITIZED_EXTENSION']).FAULT(1)"

def test_calls():
    exec(CALL)

def test_expects_a_failure():
    subprocess.run([sys.executable, "-c", CALL], check=False)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A function that compiles PLANTED with sanitizers, as csrc/build.py does, to a library."""
    build = importlib.import_module("csrc.build")
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted.c").write_text(PLANTED)

    @functools.cache
    def compiled(names):
        library = folder / f"{names}.so"
        flags = [*sysconfig.get_config_var("CFLAGS").split(), "-fPIC", "-shared", *build._sanitizers(names)]
        command = ["gcc", *flags, str(folder / "planted.c"), "-pthread", "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "cannot find" in done.stderr:
            pytest.skip(f"needs GCC's library of the {names} sanitizer")
        assert done.returncode == 0, done.stderr
        return library

    return compiled


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs GCC")
@pytest.mark.parametrize(
    ("names", "fault", "report", "test"),
    [
        ("address", "overrun", "heap-buffer-overflow", "test_expects_a_failure"),
        ("address,undefined", "overrun", "heap-buffer-overflow", "test_calls"),
        ("address,undefined", "overflow", "signed integer overflow", "test_expects_a_failure"),
        ("address,undefined", "nothing", None, "test_calls"),
        ("undefined", "overflow", "signed integer overflow", "test_calls"),
        ("undefined", "cast", "outside the range of representable values", "test_expects_a_failure"),
        ("undefined", "misaligned", "misaligned address", "test_expects_a_failure"),
        ("thread", "race", "data race", "test_expects_a_failure"),
        ("thread", "nothing", None, "test_calls"),
    ],
)
def test_sanitized_run_fails_for_a_planted_fault(planted, tmp_path, capfd, names, fault, report, test):
    (tmp_path / "test_planted.py").write_text(TESTS.replace("FAULT", fault))
    arguments = ["pytest", "-p", "no:faulthandler", "-p", "no:cacheprovider"]
    arguments += [f"{tmp_path}/test_planted.py::{test}"]
    status = sanitize.run_on(names, planted(names), tmp_path / "reports", arguments)
    printed = capfd.readouterr().err
    if report is None:
        assert (status, printed) == (0, "")
    else:
        assert status != 0
        assert report in printed
        assert re.search(rf"#\d+ .*\b{fault}\b.*planted\.c:\d", printed), printed  # a line of the stack
