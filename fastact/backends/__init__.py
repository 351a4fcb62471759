"""Which backend runs: the C extension where it imports, else Numba; NumPy is the specification.

A backend is a module or package of this room with the functions of `numpy.py`.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from ..checks import shown

NAMES = ("c", "numba", "numpy")

_loaded: dict[str, ModuleType] = {}
_active: ModuleType | None = None


def get(name: str | None) -> ModuleType:
    """The backend called `name`, the one in force for None.

    Raises ValueError for an unknown name, ImportError where it can't load.
    """
    if name is None:
        return _active or active()
    module = _loaded.get(name) if isinstance(name, str) else None
    if module is None:
        if not isinstance(name, str) or name not in NAMES:
            raise ValueError(f"backend: got {shown(name)}, wanted one of {', '.join(NAMES)}")
        if name == "c" and (reason := why_c_is_missing()) is not None:
            raise ImportError(reason)
        module = _loaded[name] = importlib.import_module(f".{name}", __package__)
    return module


def why_c_is_missing() -> str | None:
    """Why the C extension can't be used here, or None where it can."""
    try:
        importlib.import_module(".c", __package__)
    except ImportError as error:  # there is none, or it does not load, or what it needs is missing
        absent = isinstance(error, ModuleNotFoundError) and error.name == "fastact._native"
        return _why_it_was_not_built() if absent else str(error)
    return None


def _why_it_was_not_built() -> str:
    """pip hides what the compiler said, so look for what a build needs."""
    import shutil
    import sysconfig

    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"fastact._native was not built: no C compiler here ({compiler})"
    headers = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return f"fastact._native was not built: no Python.h in {headers}"
    return "fastact._native was not built when fastact was installed; pip install -v shows why"


def set_backend(name: str | None) -> None:
    """Choose the backend for the whole process: "c", "numba" or "numpy"; None for the default again.

    Raises ValueError for another name and ImportError where the backend can't load.
    """
    global _active
    _active = None if name is None else get(name)


def active() -> ModuleType:
    """The backend in force: set_backend's, else FASTACT_BACKEND's, else the first that loads."""
    global _active
    if _active is None:
        asked = os.environ.get("FASTACT_BACKEND")
        if asked is not None:
            if asked not in NAMES:
                raise ValueError(f"FASTACT_BACKEND: got {asked!r}, wanted one of {', '.join(NAMES)}")
            _active = get(asked)
        else:
            _active = get("c" if why_c_is_missing() is None else "numba")
    return _active


def get_backend() -> str:
    """The name of the backend in force."""
    return active().__name__.rpartition(".")[2]
