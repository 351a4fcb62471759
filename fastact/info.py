"""Reports the active configuration: CPU, instruction set, threads, backends, precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import backends, settings

# Other modules are imported where they are used: they take longer than the rest of the package.


def get_num_threads() -> int:
    """How many threads an operation may use in this context.

    The number is what `set_num_threads` or `num_threads` asked for, else the backend's default:
    OMP_NUM_THREADS at the first call, or the number of usable cores.  The "numpy" backend leaves its threads
    to NumPy.
    """
    asked = settings.requested_threads()
    if asked:
        return asked
    if backends.get_backend() == "c":
        from .backends import c

        return c.max_threads()
    return settings.default_threads()


def get_config() -> dict[str, Any]:
    """The configuration in force, as a dict.

        version, python, numpy, cpu
        backend        the name of the backend in force
        backends       the names of those that can be used here
        c_missing      why the C extension can't be used, or None
        numba_missing  why Numba can't be used, or None
        isa, isas      the C backend's instruction set, or None; those that this CPU runs, best first
        amx_missing    why AMX can't be used, or None
        threads        as `get_num_threads`
        precision      the precision tier
        reproducible   whether results are reproducible
        tier_units     what large float32 products run on at each precision tier

    Raises ValueError where FASTACT_BACKEND or FASTACT_ISA is invalid or can't run on this CPU, ImportError
    where the backend that FASTACT_BACKEND names can't load.
    """
    import platform

    from . import __version__

    c_missing = backends.why_c_is_missing()
    numba_missing = backends.why_numba_is_missing()
    isa: str | None = None
    isas: tuple[str, ...] = ()
    amx_missing: str | None = None
    tier_units: dict[settings.Precision, str] = dict.fromkeys(settings.PRECISIONS, "float32")
    if c_missing is None:
        from .backends import c

        isa, isas = c.isa(), c.supported_isas()
        amx_missing = c.why_no_amx()
        if not settings.get_reproducible():  # which ignores tiers
            tier_units = c.tier_units()
    usable = {
        "c": c_missing is None,
        "numba": numba_missing is None,
        "numpy": True,
    }
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpu": _cpu(),
        "backend": backends.get_backend(),
        "backends": tuple(name for name in backends.NAMES if usable[name]),
        "c_missing": c_missing,
        "numba_missing": numba_missing,
        "isa": isa,
        "isas": isas,
        "amx_missing": amx_missing,
        "threads": get_num_threads(),
        "precision": settings.get_float32_matmul_precision(),
        "reproducible": settings.get_reproducible(),
        "tier_units": tier_units,
    }


def show_config() -> None:
    """Print the configuration in force, a line for each part; `get_config` returns it as a dict."""
    config = get_config()
    lines = {
        "fastact": f"{config['version']}, Python {config['python']}, NumPy {config['numpy']}",
        "CPU": config["cpu"],
        "backend": f"{config['backend']} (available: {', '.join(config['backends'])})",
        "C extension": _describe_c(config),
        "threads": config["threads"],
        "precision": config["precision"],
        "reproducible": "yes" if config["reproducible"] else "no",
    }
    lines |= {f'  "{tier}"': f"runs on {unit}" for tier, unit in config["tier_units"].items()}
    if config["numba_missing"]:
        lines["Numba"] = f"missing: {config['numba_missing']}"
    if config["amx_missing"]:
        lines["AMX"] = f"not used: {config['amx_missing']}"
    for name, value in lines.items():
        print(f"{name:<12} {value}")


def _describe_c(config: dict[str, Any]) -> str:
    if config["c_missing"] is not None:
        return f"missing: {config['c_missing']}"
    return f"{config['isa']} (this CPU runs: {', '.join(config['isas'])})"


def _cpu() -> str:
    """The CPU's model, from /proc/cpuinfo where there is one."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
