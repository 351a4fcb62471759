"""The C extension was built if it could be, and it is the one imported; each ISA says if it is untested."""

import importlib
import os
import platform
import shutil
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from support.processes import output_of

import fastact as fa
from fastact import backends


def cannot_build() -> str | None:
    """The reason why the extension cannot be built here, or None."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler {compiler}"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"no {header}"


def test_extension_that_can_be_built_is_the_one_imported():
    if lacking := cannot_build():
        pytest.skip(f"needs a compiler: {lacking}")
    assert backends.why_c_is_missing() is None, "not built, or built elsewhere: pip install -e ."
    extension = importlib.import_module("fastact._native")
    assert Path(extension.__file__).parent == Path(fa.__file__).parent


@pytest.fixture
def checkout(tmp_path):
    """A checkout without an extension, the folder of an installed package, and why C is missing with both."""
    own, site = tmp_path / "checkout", tmp_path / "site"
    package = Path(fa.__file__).parent
    shutil.copytree(package, own / "fastact", ignore=shutil.ignore_patterns("_native*"))
    (site / "fastact").mkdir(parents=True)
    code = f"""if True:
        import os, sys
        others = [entry for entry in sys.path if not os.path.isdir(os.path.join(entry, "fastact"))]
        sys.path[:] = [{str(own)!r}, {str(site)!r}, *others]
        def belongs_to_an_editable_install(finder):
            return getattr(finder, "__module__", "").startswith("__editable__")
        sys.meta_path[:] = [f for f in sys.meta_path if not belongs_to_an_editable_install(f)]
        import fastact
        print(fastact.get_config()["c_missing"])
    """
    return own / "fastact", site / "fastact", lambda: output_of(code)


@pytest.mark.parametrize("suffix", [EXTENSION_SUFFIXES[0], EXTENSION_SUFFIXES[-1]])
def test_checkout_that_hides_the_installed_package_says_so(checkout, suffix):
    own, installed, why_c_is_missing = checkout
    (installed / f"_native{suffix}").touch()
    assert why_c_is_missing() == (
        f"{own} has no extension and hides the installed {installed}, which has one: "
        "run elsewhere, or pip install -e . in the checkout\n"
    )


def test_checkout_beside_a_package_without_extension_says_what_the_build_lacked(checkout):
    _, installed, why_c_is_missing = checkout
    (installed / "_native.other-abi.so").touch()
    assert why_c_is_missing().startswith("fastact._native was not built")


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "amx", "neon"])
def test_instruction_set_runs_on_this_cpu(isa):
    if reason := backends.why_c_is_missing():
        pytest.skip(f"needs the C extension: {reason}")
    from fastact.backends import c

    if isa not in c.supported_isas():
        pytest.skip(f"needs a CPU with {isa}; this {platform.machine()} has {', '.join(c.supported_isas())}")
    before = c.isa()
    c.set_isa(isa)
    assert c.isa() == isa
    c.set_isa(before)


@pytest.mark.parametrize("flags", ["", "-fsanitize=address", "-fsanitize=undefined"])
def test_probe_of_a_flag_tells_programs_that_build_whatever_cflags_says(flags, monkeypatch):
    if lacking := cannot_build():
        pytest.skip(f"needs a compiler: {lacking}")
    pytest.importorskip("setuptools")
    from distutils.ccompiler import new_compiler  # setuptools' own
    from distutils.sysconfig import customize_compiler

    from setuptools.dist import Distribution

    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    build = importlib.import_module("csrc.build")
    monkeypatch.setenv("CFLAGS", flags)
    probe = build.build_ext(Distribution())
    probe.compiler = new_compiler()
    customize_compiler(probe.compiler)
    assert probe._builds(build._PROGRAM, [], [])
    assert not probe._builds("#error\n", [], [])


OTHER_ABI = """
import ctypes
import numpy as np

umath = getattr(np, "_core", None) or np.core
version = ctypes.CFUNCTYPE(ctypes.c_uint)(lambda: {version})
table = (ctypes.c_void_p * 1)(ctypes.cast(version, ctypes.c_void_p))
capsule = ctypes.pythonapi.PyCapsule_New
capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
umath._multiarray_umath._ARRAY_API = capsule(ctypes.addressof(table), None, None)

from fastact import backends
print(backends.why_c_is_missing())
"""


def test_numpy_of_another_abi_disables_the_c_backend():
    if reason := backends.why_c_is_missing():
        pytest.skip(f"needs the C extension: {reason}")
    assert output_of(OTHER_ABI.format(version=0x2000000)) == "None\n"
    printed = output_of(OTHER_ABI.format(version=0x3000001))
    assert printed.startswith("fastact._native reads arrays of NumPy's ABI 1.9 or 2.0, and NumPy ")
    assert printed.endswith(" has 3.1\n")
