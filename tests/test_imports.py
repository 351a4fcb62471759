"""What importing the package costs, which backend needs which package, and which room imports which."""

import ast
from pathlib import Path

import pytest
from support.processes import output_of

import fastact
from fastact import backends

PACKAGE = Path(fastact.__file__).parent


def test_import_of_fastact_imports_no_heavy_package():
    loaded = set(output_of("import sys, fastact; print(*sys.modules)").split())
    frameworks = {"jax", "torch", "thinc", "spacy"}
    heavy = {"numba", "llvmlite", "scipy", "sklearn", "rich", "matplotlib", "cffi"}
    assert not loaded & (frameworks | heavy)


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


# Each room may import those before it, and its own modules.
ROOMS = (
    ("checks",),
    ("custom",),
    ("activations", "outputs", "settings", "convert"),
    ("backends",),
    ("ops", "info"),
    ("elementwise",),
    ("nn",),
    ("jax", "torch", "thinc", "sklearn", "study", "overloads"),
    ("cli",),
    ("__main__",),
)


def imported_rooms(path):
    """The modules and rooms of fastact that a file imports."""
    package = ("fastact", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("fastact."))


def test_imports_go_one_way():
    rank = {room: i for i, rooms in enumerate(ROOMS) for room in rooms}
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        seen.add(room)
        for other in imported_rooms(path):
            allowed = other == room or rank.get(other, -1) < rank[room]  # -1: names of fastact/__init__.py
            assert allowed, f"{path.relative_to(PACKAGE)} imports {other}"
    assert seen == set(rank)
