"""`fa.save` where the system refuses or ends it: the old file or the new one is there, and nothing else.

tests/test_files.py has the saves that end at a chosen place, and a limit on the size of files.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import numpy as np
import pytest
from support.variants import needs_fork

import fastact as fa


def run(script, *arguments, prefix=()):
    """Run a script in a process of its own; its exit code, and what it printed."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def save(path, value):
    """A file whose numbers are all `value`, in several entries and several pages."""
    fa.save(path, numbers={str(i): np.full(5000, value) for i in range(4)})


def saved(path):
    """The value of a file that `save` wrote."""
    values = {float(value) for array in fa.load(path)["numbers"].values() for value in np.unique(array)}
    (value,) = values  # a mixture of two saves has two
    return value


# ---- killed


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks where threads are around
def test_killed_saves_leave_a_whole_file_and_at_most_one_temporary(tmp_path):
    path = tmp_path / "run.npz"
    save(path, 0)
    start = time.monotonic()
    save(path, 0)
    longest = 3 * (time.monotonic() - start)
    delays, leftovers, last = random.Random(0), 0, 0.0
    for kill in range(100):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, b"x")
                for value in range(1, 1 << 30):
                    save(path, 1000 * kill + value)
            finally:
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"x"  # the saves begin
        os.close(reader)
        time.sleep(delays.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        value = saved(path)
        assert value == last or 1000 * kill < value < 1000 * (kill + 1)
        last = value
        others = set(os.listdir(tmp_path)) - {"run.npz"}
        assert len(others) <= 1
        leftovers += len(others)
    assert leftovers > 0  # some saves were killed in their midst
    save(path, 7)
    assert saved(path) == 7
    assert os.listdir(tmp_path) == ["run.npz"]


# ---- full, read-only


UNSHARE = ("unshare", "--mount", "--map-root-user")


def mounting(options, script, folder, *arguments):
    """Run a script in a mount namespace of its own, after a mount on `folder`; skip where none can be had."""
    mount = f"import subprocess, sys; subprocess.run(['mount', *{options!r}, sys.argv[1]], check=True)\n"
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("needs unshare and mount")
    code, output = run(mount, folder, prefix=UNSHARE)
    if code:
        pytest.skip(f"needs mounts in a namespace of its own: {output.strip().splitlines()[-1]}")
    return run(mount + textwrap.dedent(script), folder, *arguments, prefix=UNSHARE)


def test_full_file_system_keeps_the_old_file(tmp_path):
    script = """
    import os
    import numpy as np
    import fastact as fa

    path = sys.argv[1] + "/run.npz"
    fa.save(path, numbers={"x": np.full(1000, 1.0)})
    for size in range(0, 300_000, 20_000):
        try:
            fa.save(path, numbers={"x": np.full(1000, 2.0), "padding": np.zeros(size, np.uint8)})
        except OSError as error:
            print(error.errno, error.filename == path)
        else:
            fa.save(path, numbers={"x": np.full(1000, 1.0)})
        assert (fa.load(path)["numbers"]["x"] == 1).all()
        assert os.listdir(sys.argv[1]) == ["run.npz"]
    """
    code, output = mounting(["-t", "tmpfs", "-o", "size=128k", "none"], script, tmp_path)
    assert code == 0, output
    assert set(output.splitlines()) == {f"{errno.ENOSPC} True"}


def test_read_only_file_system_raises_and_keeps_the_file(tmp_path):
    save(tmp_path / "run.npz", 1)
    script = """
    import os
    import fastact as fa

    path = sys.argv[1] + "/run.npz"
    subprocess.run(["mount", "-o", "remount,bind,ro", sys.argv[1]], check=True)
    for name in ("run.npz", "new.npz"):
        try:
            fa.save(os.path.join(sys.argv[1], name))
        except OSError as error:
            print(error.errno, error.filename == os.path.join(sys.argv[1], name))
    print(len(fa.load(path)["numbers"]))
    """
    code, output = mounting(["--bind", str(tmp_path)], script, tmp_path)
    assert (code, output.split("\n")[:3]) == (0, [f"{errno.EROFS} True"] * 2 + ["4"]), output
    assert os.listdir(tmp_path) == ["run.npz"]


def test_folder_without_write_permission_raises_and_keeps_the_file(tmp_path):
    """Root, who may write everywhere, becomes another user."""
    script = """
    import os, sys
    import fastact as fa

    fa.save(sys.argv[2])  # imports what another user may not read
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for name in ("run.npz", "new.npz"):
        path = os.path.join(sys.argv[1], name)
        try:
            fa.save(path)
        except PermissionError as error:
            print(error.filename == path)
    """
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        path = os.path.join(folder, "run.npz")
        save(path, 1)
        os.chmod(folder, 0o555)
        assert run(script, folder, tmp_path / "first.npz") == (0, "True\nTrue\n")
        os.chmod(folder, 0o755)
        assert saved(path) == 1
        assert os.listdir(folder) == ["run.npz"]


def test_process_without_file_descriptors_raises_and_keeps_the_file(tmp_path):
    path = tmp_path / "run.npz"
    script = """
    import errno, os, resource, sys
    import numpy as np
    import fastact as fa

    def refused(call, descriptors, **objects):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, most))
        try:
            call(sys.argv[1], **objects)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EMFILE, sys.argv[1])
            return True
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
        return False

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fa.save(sys.argv[1], x={"x": np.ones(9)})
    free = os.dup(0)
    os.close(free)
    assert refused(fa.load, free) and refused(fa.save, free, new={})
    assert (fa.load(sys.argv[1])["x"]["x"] == 1).all()
    assert not refused(fa.load, free + 1) and not refused(fa.save, free + 1, new={})
    """
    assert run(script, path) == (0, "")
    assert os.listdir(tmp_path) == ["run.npz"]


# ---- the place changes during the save


def test_directory_that_takes_the_place_of_the_file_during_a_save_stays(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    save(path, 1)
    fsync = os.fsync

    def replaced(descriptor):
        path.unlink()
        path.mkdir()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", replaced)
    with pytest.raises(IsADirectoryError) as error:
        save(path, 2)
    assert error.value.filename == str(path)
    assert path.is_dir()
    assert os.listdir(tmp_path) == ["run.npz"]


def test_folder_that_is_removed_during_a_save_raises(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    fsync = os.fsync

    def removed(descriptor):
        shutil.rmtree(folder)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", removed)
    with pytest.raises(FileNotFoundError) as error:
        save(folder / "run.npz", 2)
    assert error.value.filename == str(folder / "run.npz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", ["write", "flush", "fsync", "replace"])
def test_error_of_the_disk_at_any_call_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "run.npz"
    save(path, 1)

    def fails(*arguments, **keywords):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if call in ("write", "flush"):
        opened = open

        def open_failing(*arguments, **keywords):
            file = opened(*arguments, **keywords)
            if "fastact-" in str(arguments[0]):
                file = Failing(file, call)
            return file

        monkeypatch.setattr("builtins.open", open_failing)
    else:
        monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match="Input/output error") as error:
        save(path, 2)
    assert error.value.filename == str(path)
    monkeypatch.undo()
    assert saved(path) == 1
    assert os.listdir(tmp_path) == ["run.npz"]


class Failing:
    """A file, one of whose methods raises an error of the disk."""

    def __init__(self, file, method):
        self.file, self.method = file, method

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        if name == self.method:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return getattr(self.file, name)
