"""A fuzzer of the whole public API: `python -m tests.fuzz --help`, and the README beside this file."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for _path in (ROOT, ROOT / "tests"):  # of `bench` and of `support`
    if str(_path) not in sys.path:
        sys.path.insert(0, str(_path))
