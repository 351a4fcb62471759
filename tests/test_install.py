"""The C extension was built if it could be, and it is the one imported; each ISA says if it is untested."""

import importlib
import os
import shutil
import sysconfig
from pathlib import Path

import pytest

import fastact as fa
from fastact import backends


def cannot_build() -> str | None:
    """What is lacking to build the extension here, or None."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler {compiler}"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"no {header}"


def test_the_extension_was_built_and_is_the_one_imported():
    if lacking := cannot_build():
        pytest.skip(lacking)
    assert backends.why_c_is_missing() is None, "not built, or built elsewhere: pip install -e ."
    extension = importlib.import_module("fastact._native")
    assert Path(extension.__file__).parent == Path(fa.__file__).parent


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "amx"])
def test_the_instruction_set_is_tested_here(isa):
    if reason := backends.why_c_is_missing():
        pytest.skip(f"no C extension: {reason}")
    from fastact import native

    if isa not in native.supported_isas():
        pytest.skip(f"{isa} does not run on this CPU, only {', '.join(native.supported_isas())}")
    before = native.isa()
    native.set_isa(isa)
    assert native.isa() == isa
    native.set_isa(before)
