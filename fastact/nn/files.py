"""Files that are replaced as a whole: a write that fails or is killed leaves the old file."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

# fcntl is imported in the functions that use it, to keep `import fastact` quick.


def check_path(path: Any) -> str:
    """`path` as text; TypeError for open files and numbers, ValueError for a path with a NUL."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"path: got {type(path).__name__}, wanted str, bytes or os.PathLike")
    name = os.fsdecode(path)
    if "\0" in name:
        raise ValueError(f"path: got {name!r}, wanted a path without NUL")
    return name


def check_regular(path: str, status: os.stat_result) -> None:
    """`status` describes a regular file; reading a FIFO would block, and a device has no end."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: got a device, FIFO or socket, wanted a regular file")


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A new file to write, which replaces `path` when the block ends without an error.

    A symbolic link stays, and its target is replaced.  The new file gets the mode of the old one, and its
    owner where the system allows that.  Temporary files that killed processes left are removed.

    Raises OSError with `path` as its filename.
    """
    try:
        if not os.path.basename(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        target = os.path.realpath(path)
        old = os.stat(target) if os.path.lexists(target) else None
        if old is not None:
            check_regular(path, old)
        folder, name = os.path.split(target)
        # a digest, since `name` may be as long as the file system allows already
        prefix = os.path.join(folder, f".fastact-{zlib.crc32(os.fsencode(name)):08x}-")
        _remove_leftovers(prefix)
        file = _create_locked(prefix, 0o666 if old is None else stat.S_IMODE(old.st_mode))
        try:
            with file:
                if old is not None:
                    _copy_owner_and_mode(file.fileno(), old)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, target)  # before the lock ends with `file`
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), path) from error


def _create_locked(prefix: str, mode: int) -> BinaryIO:
    """A new file with a lock, by which `_remove_leftovers` sees that its process is alive."""
    import fcntl

    while True:
        temporary = f"{prefix}{os.urandom(8).hex()}.tmp"
        file = open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks, where nobody can lock and remove it
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # 0: another process took it for a leftover before it was locked
            return file
        file.close()


def _remove_leftovers(prefix: str) -> None:
    """Remove the temporary files of killed processes, which are those without a lock."""
    import fcntl

    folder, start = os.path.split(prefix)
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(start) and name.endswith(".tmp")]
    for name in names:
        temporary = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # locked, renamed, removed, or another user's
            descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(temporary)
            finally:
                os.close(descriptor)


def _copy_owner_and_mode(descriptor: int, old: os.stat_result) -> None:
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(OSError):  # only root may give files away
            os.fchown(descriptor, old.st_uid, old.st_gid)
    if os.fstat(descriptor).st_mode != old.st_mode:
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
