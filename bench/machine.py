"""What a measurement was made on and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from .peers import PACKAGES

_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    first = text.split("\n\n")[0]
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def describe() -> dict[str, Any]:
    """CPU, instruction sets, cores, system, and the versions of everything that runs."""
    import fastact
    from fastact import backends

    info = _cpuinfo()
    flags = set(re.split(r"\s+", info.get("flags", info.get("Features", ""))))
    versions = {"python": platform.python_version(), "fastact": fastact.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "family_model": f"{info.get('cpu family', '?')}/{info.get('model', '?')}",
        "instructions": [flag for flag in _FLAGS if flag in flags],
        "fastact_isa": backends.get("c").isa() if backends.why_c_is_missing() is None else None,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }
