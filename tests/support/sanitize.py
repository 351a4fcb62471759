"""`--sanitize NAMES` of pytest and of tests.fuzz: a child runs on an extension with sanitizers of GCC.

NAMES are `address`, `undefined`, both with a comma, or `thread`.  The build is in build/sanitize-NAMES, and
the next run compiles only what changed; the normal build stays.  The child preloads the sanitizers'
libraries, since Python is built without them.  Reports go to files, because a test may expect its process
to fail, and pytest captures what tests print; one report is enough for the run to fail.

Numba's tests do not run: sanitizers do not see the code that it generates.  `-k` overrides that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Tests that call kernels, for a run that names none.
KERNELS = [
    "activations",
    "custom_activation",
    "dropout_keep",
    "frozen",
    "hash_embed",
    "layer_norm",
    "linear_activation",
    "linear_maxout",
    "losses",
    "matmul",
    "max_norm",
    "maxout",
    "network",
    "optim",
    "reproducible",
    "residual",
    "threads",
    "tiers",
    "update_parameter",
    "window",
]
# Tests with several threads, for ThreadSanitizer; those of test_races.py write to arrays that a call reads.
THREADS = ["network", "optim", "python_threads", "threads"]
# What is preloaded; UBSan's library is loaded with the extension.
_ASAN, _TSAN = "libasan.so", "libtsan.so"
_PRELOADED = {"address": _ASAN, "undefined": "", "address,undefined": _ASAN, "thread": _TSAN}
CHOICES = tuple(_PRELOADED)
# detect_leaks: the interpreter keeps memory when it ends; tests/test_memory.py looks for leaks.
# allocator_may_return_null: tests ask for more memory than there is, and expect MemoryError.
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


def running() -> bool:
    """Whether this process is a sanitized one."""
    return "SANITIZED_EXTENSION" in os.environ


def run(names: str, arguments: list[str], named: bool) -> int:
    """Build, then run pytest with `arguments`, in which tests are `named` or not; its exit status, or 1."""
    default = THREADS if names == "thread" else KERNELS
    tests = [] if named else [str(ROOT / f"tests/test_{name}.py") for name in default]
    # Without faulthandler it is the sanitizer that reports a crash.
    return run_command(names, "pytest", ["-p", "no:faulthandler", "-k", "not numba", *arguments, *tests])


def run_command(names: str, module: str, arguments: list[str]) -> int:
    """Build, then run `python -m module` with `arguments`; its exit status, or 1 for a report."""
    folder = ROOT / "build" / f"sanitize-{names.replace(',', '-')}"
    return run_on(names, build(names, folder), folder / "reports", [module, *arguments])


def run_on(names: str, extension: Path, reports: Path, arguments: list[str]) -> int:
    """Run `python -m` on `extension`, and print the reports; its exit status, or 1 for a report."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    command = [sys.executable, "-m", *arguments]
    status = subprocess.run(command, env=environment(names, extension, reports), check=False).returncode
    for path in sorted(reports.iterdir()):
        report = path.read_text(errors="replace")
        if re.search(
            "ERROR: |runtime error: |WARNING: ThreadSanitizer", report
        ):  # others say that memory lacked
            print(report, file=sys.stderr)
            status = status or 1
    return status


def build(names: str, folder: Path) -> Path:
    """The path of the extension, after what changed is compiled."""
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build_ext"]
    command += ["--build-lib", str(folder), "--build-temp", str(folder / "objects")]
    asked = os.environ | {"FASTACT_SANITIZE": names, "FASTACT_RELEASE": "1"}
    subprocess.run(command, cwd=ROOT, env=asked, check=True)
    (extension,) = (folder / "fastact").glob("_native*.so")
    return extension


def environment(names: str, extension: Path, reports: Path) -> dict[str, str]:
    """The variables of a process that runs on `extension`; each report is a file in `reports`."""
    report, preloaded = str(reports / "report"), _PRELOADED[names]
    options = {key: f"{value}:log_path={report}" for key, value in _OPTIONS.items()}
    path = [str(Path(__file__).with_name("sanitized")), os.environ.get("PYTHONPATH")]
    return {
        **os.environ,
        **options,
        # beside libstdc++, in which a sanitizer that is loaded first has to find how C++ throws
        "LD_PRELOAD": " ".join(map(_library, (preloaded, "libstdc++.so.6"))) if preloaded else "",
        "PYTHONMALLOC": "malloc",  # each object is a block of its own
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "SANITIZED_EXTENSION": str(extension),
        "UBSAN_LIBRARY": _library("libubsan.so") if "undefined" in names else "",
        "UBSAN_REPORT": report,
    }


def _library(file: str) -> str:
    """The path of a library of GCC's."""
    path = subprocess.check_output(["gcc", f"-print-file-name={file}"], text=True).strip()
    return os.path.realpath(path)
