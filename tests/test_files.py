"""Files that `fa.save` writes: whole or not at all, where the path says, with the mode that was there."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import fastact as fa
from fastact.nn.files import replacing


def numbers(value):
    return {"x": np.array(value)}


def saved(path):
    return fa.load(path)["numbers"]["x"].item()


def run(script, *arguments):
    """Run a script in a process of its own; return its exit code and what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_save_accepts_str_bytes_and_pathlike(tmp_path):
    path = tmp_path / "run.npz"
    for kind in (str, os.fsencode, lambda path: path):
        path.unlink(missing_ok=True)
        fa.save(kind(path), numbers=numbers(3))
        assert fa.load(kind(path))["numbers"]["x"] == 3
    fa.save(os.fsencode(tmp_path) + b"/\xff.npz", numbers=numbers(4))  # not UTF-8
    assert saved(os.fsencode(tmp_path) + b"/\xff.npz") == 4


def test_save_to_a_name_without_folder_writes_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fa.save("run.npz", numbers=numbers(3))
    assert os.listdir(tmp_path) == ["run.npz"]


def test_integer_path_is_refused_and_its_descriptor_stays_open(tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        for path in (file.fileno(), np.int64(file.fileno()), True, None, file):
            for call in (fa.load, fa.save):
                with pytest.raises(TypeError, match=r"path: got \w+, wanted str, bytes or os\.PathLike"):
                    call(path)
        os.fstat(file.fileno())  # raises OSError where it was closed
    for call in (fa.load, fa.save):
        with pytest.raises(ValueError, match=r"path: got 'a\\x00b', wanted a path without NUL"):
            call("a\0b")


@pytest.mark.parametrize("length", [1, 241, 242, 250, 255])
def test_save_accepts_every_length_of_name(tmp_path, length):
    for name in ("n" * length, "é" * (length // 2)):
        if name:
            fa.save(tmp_path / name, numbers=numbers(length))
            assert saved(tmp_path / name) == length


def test_save_through_a_symlink_writes_its_target(tmp_path):
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "run.npz"
    for link, to in (("first", "data/run.npz"), ("second", "first")):
        (tmp_path / link).symlink_to(to)
    fa.save(tmp_path / "second", numbers=numbers(1))  # the target is not there yet
    assert saved(target) == 1
    fa.save(tmp_path / "second", numbers=numbers(2))
    assert saved(target) == 2
    assert os.readlink(tmp_path / "first") == "data/run.npz"
    assert os.readlink(tmp_path / "second") == "first"
    assert sorted(os.listdir(tmp_path)) == ["data", "first", "second"]
    assert os.listdir(tmp_path / "data") == ["run.npz"]


@pytest.mark.parametrize("wanted", [0o600, 0o644, 0o400, 0o666, 0o2750])
def test_save_keeps_the_mode(tmp_path, wanted):
    path = tmp_path / "run.npz"
    fa.save(path, numbers=numbers(1))
    path.chmod(wanted)
    fa.save(path, numbers=numbers(2))
    assert saved(path) == 2
    assert mode(path) == wanted


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_save_gives_a_new_file_the_mode_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        fa.save(tmp_path / "run.npz", numbers=numbers(1))
    finally:
        os.umask(before)
    assert mode(tmp_path / "run.npz") == 0o666 & ~mask


def test_save_writes_a_private_file_privately(tmp_path):
    path = tmp_path / "run.npz"
    path.touch(0o600)
    with replacing(str(path)) as file:
        assert mode(file.name) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone may give files away")
def test_save_keeps_the_owner(tmp_path):
    path = tmp_path / "run.npz"
    path.touch(0o640)
    os.chown(path, 12345, 23456)
    fa.save(path, numbers=numbers(1))
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (12345, 23456, 0o640)


def test_special_files_are_refused_and_stay(tmp_path):
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("/dev/null")
    for path in (fifo, link, "/dev/null", "/dev/zero"):
        for call in (fa.save, fa.load):  # a load would wait for the FIFO, and read /dev/zero for ever
            with pytest.raises(ValueError, match=f"{path}: got a device, FIFO or socket, wanted a regular"):
                call(path)
    assert stat.S_ISFIFO(os.stat(fifo).st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link"]


def test_directories_are_refused(tmp_path):
    (tmp_path / "run.npz").mkdir()
    for path in (tmp_path / "run.npz", f"{tmp_path}/new.npz/"):
        with pytest.raises(IsADirectoryError) as error:
            fa.save(path, numbers=numbers(1))
        assert error.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        fa.load(tmp_path)
    assert os.listdir(tmp_path) == ["run.npz"]


def test_errors_of_the_system_name_the_given_path(tmp_path):
    path = tmp_path / "none" / "run.npz"
    with pytest.raises(FileNotFoundError) as error:
        fa.save(path, numbers=numbers(1))
    assert error.value.filename == str(path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop") as error:
        fa.save(tmp_path / "loop", numbers=numbers(1))
    assert error.value.filename == str(tmp_path / "loop")


def test_full_disk_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, numbers=numbers(1))
    script = """
        import resource, sys
        import numpy as np
        import fastact as fa

        # room for half of the data; for all of it, but not for the directory at the end
        for limit in (1 << 16, (1 << 17) + 300):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                fa.save(sys.argv[1], numbers={"x": np.zeros(1 << 17, np.uint8)})
            except OSError as error:
                print(error.filename)
    """
    code, output = run(script, path)
    assert (code, output) == (0, f"{path}\n{path}\n")
    assert saved(path) == 1
    assert os.listdir(tmp_path) == ["run.npz"]


KILLED = """
    import os, signal, sys
    import numpy as np
    import fastact as fa

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "write":
        np.lib.format.write_array = kill
    else:
        setattr(os, sys.argv[2], kill)
    fa.save(sys.argv[1], numbers={"x": np.array(2)})
"""


def test_next_save_removes_what_killed_saves_left(tmp_path):
    path, other = tmp_path / "run.npz", tmp_path / "other.npz"
    fa.save(path, numbers=numbers(1))
    for place in ("write", "fsync", "replace"):
        code, output = run(KILLED, path, place)
        assert code == -signal.SIGKILL, output
        assert saved(path) == 1
        leftovers = set(os.listdir(tmp_path)) - {"run.npz", "other.npz"}
        assert len(leftovers) == 1  # that of the kill before is gone
        assert all(name.startswith(".fastact-") and name.endswith(".tmp") for name in leftovers)
        fa.save(other, numbers=numbers(3))
        assert leftovers < set(os.listdir(tmp_path))  # other names keep away
    (tmp_path / "run.npz.tmp").touch()
    fa.save(path, numbers=numbers(4))
    assert saved(path) == 4
    assert sorted(os.listdir(tmp_path)) == ["other.npz", "run.npz", "run.npz.tmp"]


def test_save_keeps_the_temporary_file_of_another_that_is_running(tmp_path):
    path = tmp_path / "run.npz"
    with replacing(str(path)) as file:
        file.write(b"first")
        fa.save(path, numbers=numbers(1))
        assert saved(path) == 1
        script = "import sys, fastact; fastact.save(sys.argv[1])"
        assert run(script, path) == (0, "")
        assert os.path.exists(file.name)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_goes_on_when_its_file_is_removed_before_it_is_locked(tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def late(file, operation):
        if operation == fcntl.LOCK_EX and not removed:
            removed.append(file.name)
            os.unlink(file.name)  # another save found it without a lock
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    fa.save(tmp_path / "run.npz", numbers=numbers(1))
    assert removed
    assert saved(tmp_path / "run.npz") == 1
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_works_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError("no locks available")

    leftover = tmp_path / ".fastact-00000000-0.tmp"
    leftover.touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("zlib.crc32", lambda data: 0)
    fa.save(tmp_path / "run.npz", numbers=numbers(1))
    assert sorted(os.listdir(tmp_path)) == [leftover.name, "run.npz"]  # its process may live


def test_threads_may_save_to_one_name(tmp_path):
    path = tmp_path / "run.npz"
    errors = []

    def work(value):
        try:
            for _ in range(20):
                fa.save(path, numbers={"x": np.full(1000, value)})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(fa.load(path)["numbers"]["x"].tolist())) == 1
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_syncs_before_it_renames(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    fa.save(tmp_path / "run.npz", numbers=numbers(1))
    assert calls == ["fsync", "replace"]


def test_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    fa.save(path, numbers=numbers(1))

    def fail(file, array, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(KeyboardInterrupt):
        fa.save(path, numbers=numbers(2))
    assert saved(path) == 1
    assert os.listdir(tmp_path) == ["run.npz"]
