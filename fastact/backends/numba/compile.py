"""Compiles the kernels of the Numba backend, and caches their machine code on disk.

A fault of the cache costs only time: a kernel that cannot be loaded is compiled, and a kernel that cannot be
saved is used nevertheless.  The first fault in a process gives a RuntimeWarning.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.resources
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Set
from typing import Any

from numba import config, njit
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock

if config.DISABLE_JIT:
    raise ImportError(
        'backend "numba": NUMBA_DISABLE_JIT is set, and these kernels run only when compiled; unset it, or '
        'choose the backend "c" or "numpy" (FASTACT_BACKEND, fastact.set_backend)'
    )

if hasattr(os, "register_at_fork"):
    # A child that is forked while another thread compiles would wait forever for that thread's lock.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

REASSOCIATE = frozenset({"reassoc", "contract", "nsz"})  # change the order of sums, which lets it use vectors
CONTRACT = frozenset({"contract"})  # make one FMA of a product and a sum

PATIENCE = 2.0  # seconds of a compilation without a message

_warned = False


@functools.cache
def room_stamp() -> str:
    """A digest of every source that a kernel's machine code depends on.

    A kernel includes the code of the kernels and the constants that it uses, from any file of this folder and
    from `fastact/activations.py`.  Numba's own stamp covers one file, the kernel's.
    """
    room = importlib.resources.files(__package__)
    sources = [source for source in room.iterdir() if source.name.endswith(".py")]
    sources.append(importlib.resources.files("fastact") / "activations.py")
    digests = sorted((source.name, hashlib.sha256(source.read_bytes()).digest()) for source in sources)
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"fastact: {message}", RuntimeWarning, stacklevel=2)


class _CacheFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's files of one kernel: an index, and the machine code of each signature.

    Two digests are saved beside the code.  One is of the code, since damaged code would run.  One is of what
    the code was compiled from, since an index may name the code of another signature or of older sources, if
    two processes wrote at the same time, or a process was killed after it wrote one of the two files.
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
            f"is compiled again and the file is replaced. If this happens again, delete {self._cache_path}"
        )


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one kernel; a fault of it ends no call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        # Numba's file names include the kernel's first line number, so an edit above the kernel would
        # leave the old files.  Without the number they are replaced.
        name = self._impl.filename_base.replace(f"-{locator.get_disambiguator()}.", ".")
        self._cache_file = _CacheFiles(self._cache_path, name, (locator.get_source_stamp(), room_stamp()))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Warning:  # raised where a filter turns warnings into errors
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


class _Compilation(event.Listener):  # type: ignore[misc]
    """Says on a terminal that kernels are being compiled, if that takes longer than PATIENCE.

    Meanwhile the garbage collector rests: it would take a seventh of the time, for little garbage.
    Numba compiles in one thread at a time; a kernel that another kernel calls is compiled within it.
    """

    def __init__(self) -> None:
        self.kernels = 0
        self.collects = False
        self.timer: threading.Timer | None = None

    def on_start(self, compilation: Any) -> None:
        if isinstance(compilation.data["dispatcher"]._cache, _Cache):
            self.kernels += 1
            if self.kernels > 1:
                return
            self.collects = gc.isenabled()
            gc.disable()
            if sys.stderr is not None and sys.stderr.isatty():
                self.timer = threading.Timer(PATIENCE, self.say)
                self.timer.daemon = True
                self.timer.start()

    def on_end(self, compilation: Any) -> None:
        if isinstance(compilation.data["dispatcher"]._cache, _Cache):
            self.kernels -= 1
            if self.kernels:
                return
            if self.collects:
                gc.enable()
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    def say(self) -> None:
        print("fastact: Numba compiles kernels; the next process loads them from the cache", file=sys.stderr)


event.register("numba:compile", _Compilation())


def compiled(function: Callable[..., Any], fastmath: Set[str] = frozenset()) -> Any:
    """The kernel `function`: it is compiled, or loaded from the cache, when it is first called.

    `fastmath` is what LLVM may do: REASSOCIATE or CONTRACT.
    """
    kernel = njit(function, nogil=True, error_model="numpy", fastmath=set(fastmath))
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


def inlined(function: Callable[..., Any]) -> Any:
    """The helper `function`: Numba copies it into each kernel that calls it, and compiles the whole.

    A helper that is a kernel of its own takes longer, since LLVM optimises it again in each of its callers.
    """
    return njit(function, nogil=True, error_model="numpy", inline="always")
