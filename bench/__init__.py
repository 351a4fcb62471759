"""Benchmarks of fastact against its peers.  They need a checkout, not an install."""

from __future__ import annotations

import sys
from types import TracebackType


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End a command without a traceback where Ctrl-C stops it, even while its libraries load."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("stopped", file=sys.stderr)
    sys.exit(130)  # as a shell has it for a program that Ctrl-C ends


sys.excepthook = _end
