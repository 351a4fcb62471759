"""What each Python of a sanitized run starts with: support/sanitize.py sets the variables.

The extension of SANITIZED_EXTENSION takes the place of `fastact._native`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "fastact._native":
            return importlib.util.spec_from_file_location(name, os.environ["SANITIZED_EXTENSION"])
        return None


sys.meta_path.insert(0, _Finder)
if os.environ["UBSAN_LIBRARY"]:  # beside ASan, UBSan does not read log_path
    ctypes.CDLL(os.environ["UBSAN_LIBRARY"]).__sanitizer_set_report_path(os.environ["UBSAN_REPORT"].encode())
