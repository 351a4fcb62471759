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


WITHOUT_NUMBA = """if True:
    import sys
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "numba":
                raise {error}
    sys.modules.pop("numba", None)
    sys.meta_path.insert(0, Broken())
    import numpy as np
    import fastact as fa

    def message(call):
        try:
            call()
        except ImportError as error:
            return str(error)
        return "no error"
"""


@pytest.mark.parametrize(
    "error",
    ["ModuleNotFoundError(\"No module named 'numba'\")", "SystemError('llvmlite is of another version')"],
    ids=["missing", "broken"],
)
def test_without_numba_everything_runs_on_c_but_what_needs_numba(error):
    if reason := backends.why_c_is_missing():
        pytest.skip(f"needs the C extension: {reason}")
    printed = output_of(
        WITHOUT_NUMBA.format(error=error)
        + """
    model = fa.Sequential(fa.Maxout(4, 8, pieces=2, rng=0), fa.Dropout(0.5), fa.LayerNorm(8), fa.Linear(8, 3))
    optimizer, x = fa.AdamW(model.parameters()), np.ones((5, 4), np.float32)
    loss, grad = fa.softmax_cross_entropy(model(x, training=True), np.zeros(5, int))
    model.backward(grad)
    fa.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert fa.freeze(model)(x).shape == (5, 3)
    for name in ("gelu", "relu", "tanh"):
        fa.activation(x, name)
    square = fa.custom_activation("square", lambda z: z * z, lambda z: 2 * z)
    config = fa.get_config()
    fa.show_config()
    print(config["backend"], config["backends"])
    for call in (
        lambda: fa.set_backend("numba"),
        lambda: fa.maxout(np.ones((2, 2)), backend="numba"),
        lambda: fa.activation(x, square),
        lambda: fa.Linear(4, 3, activation=square)(x),
    ):
        print("-", message(call))
    """
    )
    kind, _, text = error.partition("(")
    why = f"{kind}: {text[1:-2]}; pip install numba"
    assert f"Numba        missing: {why}\n" in printed
    lines = printed.splitlines()
    assert lines[-5] == "c ('c', 'numpy')"
    assert lines[-4:-2] == [f'- the backend "numba" needs Numba, which cannot be used: {why}'] * 2
    assert lines[-2:] == [f"- <custom activation square> needs Numba, which cannot be used: {why}"] * 2


def test_without_c_and_numba_only_the_reference_runs_and_the_error_says_so():
    code = WITHOUT_NUMBA.format(error="ModuleNotFoundError('gone')")
    code += """
    sys.modules["fastact._native"] = None
    print(message(lambda: fa.maxout(np.ones((2, 2)))))
    fa.set_backend("numpy")
    assert fa.get_num_threads() > 0
    print(fa.maxout(np.ones((2, 2)))[0])
    """
    printed = output_of(code)
    assert printed.startswith("neither C nor Numba can be used: ")
    assert printed.endswith("FASTACT_BACKEND=numpy runs the reference, which is slow\n[1. 1.]\n")


# Each room may import those before it, and its own modules.
ROOMS = (
    ("checks",),
    ("custom",),
    ("activations", "outputs", "settings", "convert"),
    ("backends",),
    ("ops", "info", "reproducibility"),
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
