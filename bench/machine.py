"""Describes the machine and the software of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console

from .peers import PACKAGES

FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
QUIET_SHARE = 0.02  # of the machine's CPU time; more taken by others shows in the figures


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    first = text.split("\n\n")[0]
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


class Neighbours:
    """The share of the machine's CPU time that others took since this object was made."""

    def __init__(self) -> None:
        self._start = self._times()

    @staticmethod
    def _times() -> tuple[float, float] | None:
        """Seconds of all cores, and seconds in which they ran something else than this process."""
        try:
            fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        except OSError:
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal (the time of other machines on this host)
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields]
        own = os.times()
        working = sum(ticks) - ticks[3] - ticks[4]
        return sum(ticks), working - sum(own[:4])  # children included: compilers

    def share(self) -> float | None:
        """From 0 to 1; None where the system does not tell."""
        now = self._times()
        if self._start is None or now is None:
            return None
        return round(max(0.0, now[1] - self._start[1]) / max(now[0] - self._start[0], 1e-9), 4)


def is_busy(share: float | None) -> bool:
    """Whether others took more of the CPU's time than trustworthy figures allow."""
    return share is not None and share > QUIET_SHARE


def warn(share: float | None, when: str) -> None:
    """Warn on standard error where others took too much of the CPU's time."""
    if is_busy(share):
        message = f"others took {share:.0%} of the CPU's time {when}: don't trust these figures"
        Console(stderr=True).print(message, style="red", highlight=False)


def commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of the checkout at `folder`, with "-dirty" where its files differ; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def released(versions: dict[str, str]) -> dict[str, str]:
    """The dates of release of the pinned ones of `versions`, by package, from the files of requirements."""
    dates = {}
    for path in Path(__file__).parent.glob("requirements*.txt"):
        pins = re.findall(r"^([\w-]+)==(\S+) +# (\d{4}-\d\d-\d\d)$", path.read_text(), re.MULTILINE)
        for package, version, date in pins:
            if versions.get(package, "").partition("+")[0] == version:  # PyTorch has +cpu at the end
                dates[package] = date
    return dates


def describe() -> dict[str, Any]:
    """CPU, instruction sets, cores, system, and the versions of everything that runs."""
    import fastact

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
        "instructions": [flag for flag in FLAGS if flag in flags],
        "fastact_isa": fastact.get_config()["isa"],
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }
