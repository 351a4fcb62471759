"""What is built from a checkout: the sdist, a wheel without the extension, the compiler's flags."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).resolve().parents[1]
HOOK = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def tracked_files() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(filter(None, listed.stdout.split("\0")))


def run_hook(
    hook: str, source: Path, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a hook of setuptools' build backend, which writes what it makes of `source` into `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTACT_")}
    return subprocess.run(
        [sys.executable, "-c", HOOK, hook, str(folder)],
        cwd=source,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )


def build(hook: str, source: Path, folder: Path, **environment: str) -> Path:
    """What a hook of setuptools' build backend makes of `source`, in `folder`."""
    done = run_hook(hook, source, folder, environment)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the checkout's tracked files."""
    copy = tmp_path / "source"
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


def test_sdist_holds_every_file_of_the_repository(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build("build_sdist", source, tmp_path)) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert [name for name in tracked_files() if name not in held] == []


def test_sdist_of_the_same_files_is_equal_to_the_byte(source: Path, tmp_path: Path) -> None:
    first = build("build_sdist", source, tmp_path, SOURCE_DATE_EPOCH="1764000000")
    expected, size = first.read_bytes(), first.stat().st_size
    assert int.from_bytes(expected[4:8], "little") == 1764000000  # gzip's own time
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    second = build("build_sdist", source, tmp_path / "again", SOURCE_DATE_EPOCH="1764000000")
    assert (second.stat().st_size, second.read_bytes() == expected) == (size, True)


def test_release_build_without_a_compiler_fails(source: Path, tmp_path: Path) -> None:
    done = run_hook("build_wheel", source, tmp_path, {"CC": "/bin/false", "FASTACT_RELEASE": "1"})
    assert done.returncode != 0
    assert "/bin/false" in done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_wheel_without_the_extension_is_tagged_as_pure(source: Path, tmp_path: Path) -> None:
    wheel = build("build_wheel", source, tmp_path, CC="/bin/false")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (description,) = [name for name in names if name.endswith(".dist-info/WHEEL")]
        assert "Root-Is-Purelib: true" in archive.read(description).decode().splitlines()
    assert {"fastact/__init__.py", "fastact/py.typed"} <= set(names)
    assert not [name for name in names if name.endswith((".so", ".md"))]


@pytest.mark.parametrize(
    ("environment", "debug", "strict"),
    [
        ({}, False, False),
        ({"CFLAGS": "-O1 -fno-gcse"}, False, False),
        ({"CFLAGS": "-fsanitize=address -g"}, True, False),
        ({"FASTACT_DEVELOP": "1"}, True, True),
    ],
    ids=["release", "other-cflags", "cflags-with-g", "develop"],
)
def test_extension_has_debug_information_and_symbols_only_if_asked_for(
    environment: dict[str, str], debug: bool, strict: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from setuptools.dist import Distribution
    from setuptools.extension import Extension

    monkeypatch.syspath_prepend(ROOT)
    module: Any = importlib.import_module("csrc.build")
    for name in ("CFLAGS", "FASTACT_DEVELOP"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = module.build_ext(Distribution())
    command.build_temp = str(tmp_path)
    monkeypatch.setattr(command, "_builds", lambda *arguments: True)
    monkeypatch.setattr(command, "_compile", lambda sources, ext: [])
    monkeypatch.setattr(module._build_ext, "build_extension", lambda self, ext: None)
    extension = Extension("fastact._native", [])
    command.build_extension(extension)
    assert ("-g0" not in extension.extra_compile_args) == debug
    assert ("-Wl,-s" not in extension.extra_link_args) == debug
    assert ("-Werror" in extension.extra_compile_args) == strict


@pytest.mark.parametrize("free_threaded", [False, True])
def test_build_asks_for_the_limited_api_where_python_has_one(
    free_threaded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from setuptools.dist import Distribution
    from setuptools.extension import Extension

    monkeypatch.syspath_prepend(ROOT)
    module: Any = importlib.import_module("csrc.build")
    monkeypatch.setattr(module, "_FREE_THREADED", free_threaded)
    extension = Extension("fastact._native", [])
    distribution = Distribution({"name": "fastact", "ext_modules": [extension]})
    command = module.build_ext(distribution)
    command.build_temp = str(tmp_path)
    command.ensure_finalized()
    monkeypatch.setattr(command, "_builds", lambda *arguments: True)
    monkeypatch.setattr(command, "_compile", lambda sources, ext: [])
    monkeypatch.setattr(module._build_ext, "build_extension", lambda self, ext: None)
    command.build_extension(extension)
    wheel = module.bdist_wheel(distribution)
    monkeypatch.setattr(wheel, "plat_name", "any")
    wheel.ensure_finalized()
    assert bool(extension.py_limited_api) == (not free_threaded)
    assert (("_CFFI_NO_LIMITED_API", None) in extension.define_macros) == free_threaded
    assert wheel.py_limited_api == (False if free_threaded else "cp310")
