"""How the Numba backend compiles its kernels, and caches them on disk.

A fault of the cache costs time alone: a kernel that cannot be loaded is compiled, and one that cannot be
saved is used all the same.  The first fault that a process meets gives a RuntimeWarning.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock

if config.DISABLE_JIT:
    raise ImportError(
        'backend "numba": NUMBA_DISABLE_JIT is set, and these kernels run only when compiled; unset it, or '
        'choose the backend "c" or "numpy" (FASTACT_BACKEND, fastact.set_backend)'
    )

if hasattr(os, "register_at_fork"):
    # a child forked while another thread compiles would wait for ever for the lock of that thread
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

# A kernel's machine code holds the kernels that it calls, from any file of this room.  So a stamp of all the
# sources goes beside Numba's own stamp, which is of the kernel's file alone.
_ROOM = Path(__file__).parent
_SOURCES = (*sorted(_ROOM.glob("*.py")), _ROOM.parents[1] / "activations.py")
_ROOM_STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()

_warned = False


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"fastact: {message}", RuntimeWarning, stacklevel=2)


class _CacheFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's files of one kernel: an index, and the machine code of each signature.

    Beside the code there is a digest, as code with a flipped bit would run all the same; and what the code
    was compiled from.  An index may name the code of another signature or source: two processes wrote at
    the same time, or one was killed between index and code.
    """

    def save(self, key: Any, data: Any) -> None:
        code = self._dump(data)
        super().save(key, (self._owner(key), hashlib.sha256(code).digest(), code))

    def load(self, key: Any) -> Any:
        saved = super().load(key)
        if saved is None or saved[0] != self._owner(key):
            return None
        return pickle.loads(saved[1])

    def _owner(self, key: Any) -> bytes:
        return hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).digest()

    def _load_index(self) -> dict[Any, str]:
        try:
            index = super()._load_index()
            if any(type(name) is not str for name in index.values()):
                raise ValueError("a name in it is not a string")
        except OSError:
            raise
        except Exception as error:  # a pickle of damaged bytes may raise anything
            self._warn_damaged(self._index_path, error)
            return {}
        return dict(index)

    def _load_data(self, name: str) -> tuple[bytes, bytes] | None:
        try:
            owner, digest, code = super()._load_data(name)
            if hashlib.sha256(code).digest() != digest:
                raise ValueError("its digest is wrong")
        except FileNotFoundError:  # another process has saved the index and not the code yet
            raise
        except Exception as error:
            self._warn_damaged(self._data_path(name), error)
            return None
        return owner, code

    def _warn_damaged(self, path: str, error: Exception) -> None:
        _warn_once(
            f"{path} in Numba's cache is damaged or unreadable ({type(error).__name__}: {error}); its kernel "
            f"is compiled again and the file replaced. If this comes back, delete {self._cache_path}"
        )


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one kernel, whose faults end no call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = (self._impl.locator.get_source_stamp(), _ROOM_STAMP)
        self._cache_file = _CacheFiles(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Warning:  # by a filter that makes errors of warnings
            raise
        except Exception as error:
            self._useless(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Warning:
            raise
        except Exception as error:
            self._useless(error)

    def _useless(self, error: Exception) -> None:
        _warn_once(
            f"Numba's cache in {self._cache_path} cannot be used ({type(error).__name__}: {error}); kernels "
            "are compiled in each process. Make its files readable and writable, delete them, or set "
            "NUMBA_CACHE_DIR to another folder"
        )


def compiled(function: Callable[..., Any], reassociate: bool = False) -> Any:
    """The kernel `function`, compiled when it is first called, or loaded from the cache.

    With `reassociate` LLVM may take a sum in any order, so in vectors.
    """
    fastmath = {"reassoc", "contract", "nsz"} if reassociate else False
    kernel = njit(function, nogil=True, error_model="numpy", fastmath=fastmath)
    try:
        cache = _Cache(function)
    except (RuntimeError, OSError) as error:
        _warn_once(
            f"Numba has no place for its cache ({error}); kernels are compiled in each process. "
            "Set NUMBA_CACHE_DIR to a folder that can be written to"
        )
        return kernel
    kernel._cache = cache
    if config.CACHE_DIR and not cache.cache_path.startswith(config.CACHE_DIR):
        _warn_once(
            f"NUMBA_CACHE_DIR: {config.CACHE_DIR} is not a folder that can be written to; kernels are cached "
            f"in {cache.cache_path}. Delete what is there, or set NUMBA_CACHE_DIR to another folder"
        )
    return kernel
