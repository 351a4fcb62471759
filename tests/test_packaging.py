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


def build(hook: str, source: Path, folder: Path, **environment: str) -> Path:
    """What a hook of setuptools' build backend makes of `source`, in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", HOOK, hook, str(folder)],
        cwd=source,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
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
def test_extension_has_debug_information_only_if_asked_for(
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
    assert ("-Werror" in extension.extra_compile_args) == strict
