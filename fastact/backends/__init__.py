"""Which backend runs: the C extension where it imports, else Numba; NumPy is the specification.

A backend is a module or package of this room that satisfies `interface.Backend`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Literal, cast, get_args

from .. import settings
from ..checks import unknown_name

if TYPE_CHECKING:
    from .interface import Backend

BackendName = Literal["c", "numba", "numpy"]
NAMES: tuple[BackendName, ...] = get_args(BackendName)

_loaded: dict[BackendName, Backend] = {}
_active: Backend | None = None


def get(name: BackendName | None) -> Backend:
    """The backend called `name`, the one in force for None.

    Raises ValueError for an unknown name, ImportError where the backend can't load, RuntimeError for another
    backend than "c" where results are to be reproducible.
    """
    if name is None:
        return active()
    module = _loaded.get(name) if isinstance(name, str) else None
    if module is None:
        if not isinstance(name, str) or name not in NAMES:
            raise unknown_name("backend", name, NAMES)
        if name == "c" and (reason := why_c_is_missing()) is not None:
            raise ImportError(reason)
        if name == "numba" and (reason := why_numba_is_missing()) is not None:
            raise ImportError(f'the backend "numba" needs Numba, which cannot be used: {reason}')
        module = _loaded[name] = cast("Backend", importlib.import_module(f".{name}", __package__))
    if settings.get_reproducible():
        check_reproducible(name)
    return module


def check_reproducible(name: BackendName) -> None:
    """Raise RuntimeError for a backend whose results depend on the CPU."""
    if name != "c":
        raise RuntimeError(f'backend: got "{name}", wanted "c", the only one that has reproducible results')


def why_c_is_missing() -> str | None:
    """Why the C extension can't be used here, or None where it can."""
    try:
        importlib.import_module(".c", __package__)
    except ImportError as error:  # the extension is absent, or does not load, or what it needs is missing
        absent = isinstance(error, ModuleNotFoundError) and error.name == "fastact._native"
        return _why_it_is_absent() if absent else str(error)
    return None


def why_numba_is_missing() -> str | None:
    """Why Numba can't be used here, or None where it can."""
    try:
        importlib.import_module("numba")
    except Exception as error:  # a broken installation raises errors of many types
        return f"{type(error).__name__}: {error}; pip install numba"
    return None


def _why_it_is_absent() -> str:
    """pip hides what the compiler said, so look for a hidden installation, then for what a build needs."""
    import shutil
    import sysconfig

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if (installed := _installed_beside(package)) is not None:
        return (
            f"{package} has no extension and hides the installed {installed}, which has one: "
            "run elsewhere, or pip install -e . in the checkout"
        )
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"fastact._native was not built: no C compiler here ({compiler})"
    headers = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return f"fastact._native was not built: no Python.h in {headers}"
    return "fastact._native was not built when fastact was installed; pip install -v shows why"


def _installed_beside(package: str) -> str | None:
    """Another folder `fastact` on `sys.path`, with an extension for this Python; None if there is none."""
    from importlib.machinery import EXTENSION_SUFFIXES

    for entry in sys.path:
        other = os.path.join(os.path.abspath(entry), "fastact")
        if other != package and any(
            os.path.isfile(os.path.join(other, f"_native{suffix}")) for suffix in EXTENSION_SUFFIXES
        ):
            return other
    return None


def set_backend(name: BackendName | None) -> None:
    """Choose the backend for the whole process: "c", "numba" or "numpy"; None for the default again.

    Raises ValueError for another name and ImportError where the backend can't load.
    """
    global _active
    _active = None if name is None else get(name)


def active() -> Backend:
    """The backend in force: set_backend's, else FASTACT_BACKEND's, else the first that loads."""
    global _active
    if _active is None:
        asked = os.environ.get("FASTACT_BACKEND")
        if asked is None:
            c_missing = why_c_is_missing()
            if c_missing is not None and (numba_missing := why_numba_is_missing()) is not None:
                raise ImportError(
                    f"neither C nor Numba can be used: {c_missing}; {numba_missing}; "
                    "FASTACT_BACKEND=numpy runs the reference, which is slow"
                )
            _active = get("c" if c_missing is None else "numba")
        elif asked in NAMES:
            _active = get(asked)
        else:
            raise unknown_name("FASTACT_BACKEND", asked, NAMES)
    if _active is not _loaded.get("c") and settings.get_reproducible():
        check_reproducible(name_of(_active))
    return _active


def get_backend() -> BackendName:
    """The name of the backend in force."""
    return name_of(_active or active())


def name_of(backend: Backend) -> BackendName:
    """The name of a backend."""
    return cast("BackendName", backend.__name__.rpartition(".")[2])
