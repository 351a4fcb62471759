"""What the package shows to the world, and what importing it costs."""

import inspect

import pytest
from support.processes import output_of
from support.variants import COMPILED_BACKENDS

import fastact as fa
from fastact import activations, backends
from fastact.backends import numpy as reference

OPERATIONS = (
    "linear_maxout",
    "linear_maxout_backward",
    "maxout",
    "maxout_backward",
    "linear_activation",
    "linear_activation_backward",
    "activation",
    "activation_backward",
)


def test_import_of_fastact_imports_no_heavy_package():
    loaded = set(output_of("import sys, fastact; print(*sys.modules)").split())
    heavy = {"numba", "llvmlite", "scipy", "sklearn", "torch", "thinc", "spacy", "rich", "matplotlib", "cffi"}
    assert not loaded & heavy


def test_c_backend_runs_without_numba():
    if reason := backends.why_c_is_missing():
        pytest.skip(f"needs the C extension: {reason}")
    code = "import sys, numpy, fastact as fa; fa.maxout(numpy.ones(2), backend='c'); print(*sys.modules)"
    assert "numba" not in output_of(code).split()


def test_numba_backend_runs_without_the_c_extension():
    code = """if True:
        import sys
        sys.modules["fastact._native"] = None  # as if it had not been built
        import numpy as np, fastact as fa
        y, argmax = fa.linear_maxout(np.ones((2, 3)), np.ones((4, 2, 3)))
        assert (y == 3).all() and not argmax.any()
        try:
            fa.set_backend("c")
        except ImportError as error:
            assert str(error) == fa.get_config()["c_missing"]
        print(fa.get_backend(), "_native" in fa.get_config()["c_missing"])
    """
    assert output_of(code).split() == ["numba", "True"]


@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
@pytest.mark.parametrize("operation", [*OPERATIONS, "mse", "sgd", "adam", "max_norm"])
def test_backend_functions_have_the_reference_signatures(backend, operation):
    theirs = inspect.signature(getattr(backends.get(backend), operation)).parameters.values()
    wanted = inspect.signature(getattr(reference, operation)).parameters.values()
    own = [
        p for p in theirs if p.kind is p.KEYWORD_ONLY
    ]  # a backend's own settings, which nobody has to know
    assert all(p.default is not p.empty for p in own)
    assert [(p.name, p.default, p.kind) for p in theirs if p not in own] == [
        (p.name, p.default, p.kind) for p in wanted
    ]


def test_public_names_have_docstrings():
    public = {name: getattr(fa, name) for name in fa.__all__ if name != "__version__"}
    for name, value in list(public.items()):
        if inspect.isclass(value):
            methods = inspect.getmembers(value, inspect.isfunction)
            public |= {f"{name}.{method}": f for method, f in methods if not method.startswith("_")}
    assert [name for name, value in public.items() if not inspect.getdoc(value)] == []


def test_all_lists_every_public_name():
    assert sorted(set(fa.__all__)) == sorted(fa.__all__)
    public = {
        name for name, value in vars(fa).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public - {"annotations"} | {"__version__", "init"} == set(fa.__all__)
    assert set(OPERATIONS) <= set(fa.__all__)
    for name in activations.NAMES:
        assert {name, f"{name}_backward"} <= set(fa.__all__)
