"""Code that runs in a fresh interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def run_python(code: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in a new interpreter with these environment variables; if it hangs, kill all it started."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FASTACT_", "OMP_"))}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"hung for {timeout} s; it had said:\n{output}{errors}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def output_of(code: str, timeout: float = 60, **environment: str) -> str:
    """What `code` prints in a new interpreter, which has to succeed."""
    done = run_python(code, timeout, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
