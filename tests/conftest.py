"""Fixtures: every backend and instruction set, dtypes, thread counts; inputs; a fresh interpreter."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import NamedTuple

import hypothesis
import numpy as np
import pytest

import fastact as fa
from fastact import activations, backends, settings

hypothesis.settings.register_profile(
    "fastact",
    deadline=None,  # the first call compiles
    derandomize=True,
    max_examples=60,
    # a backend stays chosen for all examples of a test
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fastact")


FRAMEWORKS = ("spacy", "thinc", "torch")  # tests/frameworks/test_<framework>*.py need them
MISSING_FRAMEWORKS = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]


def pytest_report_header():
    return f"frameworks not installed, so not tested: {', '.join(MISSING_FRAMEWORKS) or 'none'}"


def pytest_ignore_collect(collection_path):
    if collection_path.parent.name == "frameworks" and collection_path.name.startswith("test_"):
        return collection_path.stem.split("_")[1] in MISSING_FRAMEWORKS or None
    return None


def _compiled_variants() -> tuple[str, ...]:
    """Numba, and C once for every instruction set of this CPU; test_install.py says what is lacking."""
    if backends.why_c_is_missing() is not None:
        return ("numba",)
    from fastact.backends import c

    return ("numba", *(f"c-{isa}" for isa in c.supported_isas()))


COMPILED = _compiled_variants()
COMPILED_BACKENDS = tuple(dict.fromkeys(variant.partition("-")[0] for variant in COMPILED))


@contextmanager
def _chosen(variant: str):
    """The backend of e.g. "c-avx2" in force, and afterwards the default one again; its name."""
    name, _, isa = variant.partition("-")
    backends.set_backend(name)
    try:
        if isa:
            from fastact.backends import c

            before = c.isa()
            c.set_isa(isa)
        yield name
    finally:
        if isa:
            c.set_isa(before)
        backends.set_backend(None)


@pytest.fixture(params=("numpy", *COMPILED))
def backend(request):
    """Each backend in turn, C once for every instruction set; its name."""
    with _chosen(request.param) as name:
        yield name


@pytest.fixture(params=COMPILED)
def compiled(request):
    """As `backend`, without the reference."""
    with _chosen(request.param) as name:
        yield name


@pytest.fixture(params=(np.float32, np.float64), ids=("float32", "float64"))
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=(1, 2), ids=("1thread", "2threads"))
def threads(request):
    with settings.num_threads(request.param):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20130218)


# ---- shapes


class Shape(NamedTuple):
    rows: int
    in_features: int
    out_features: int
    pieces: int

    def __str__(self):
        return "x".join(map(str, self))


SIZES = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 97, 100, 255, 256, 257, 300, 513)
PIECES = (1, 2, 3, 4, 5, 6, 7, 8, 9)

# Every size in every place, each with others beside it: 5, 8 and 13 are coprime with 21.
SHAPES = [
    Shape(size, SIZES[(5 * i + a) % 21], SIZES[(b * i + 7) % 21], PIECES[(i + a) % 9])
    for a, b in ((3, 8), (11, 13))
    for i, size in enumerate(SIZES)
]
# Every number of pieces, the largest too; 255 and 256 are the last that fit into the byte of an argmax.
SHAPES += [Shape(33, 17, 21, pieces) for pieces in (*PIECES, 16, 17, 32, 33, 255, 256)]
# Spread over threads or blocks: one row, one output, much depth, many rows.
SHAPES += [Shape(1, 300, 513, 2), Shape(513, 300, 1, 3), Shape(5, 2049, 7, 4), Shape(1500, 3, 2, 2)]
# More rows than stay in a cache beside packed weights; rows a power of two apart; few rows of much depth.
SHAPES += [Shape(600, 260, 50, 2), Shape(97, 1024, 32, 2), Shape(3, 4500, 6, 3)]
# Several slices of a packed panel, on every instruction set.
SHAPES += [Shape(20, 7000, 5, 5)]
# Rows in the lanes: whole vectors, some left over, one short of a vector; few outputs; blocks of weights.
SHAPES += [
    Shape(64, 96, 40, 3),
    Shape(100, 240, 33, 5),
    Shape(47, 65, 35, 1),
    Shape(150, 300, 5, 7),
    Shape(36, 1030, 70, 4),
]


# ---- inputs


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def integers(rng, shape, dtype, largest=2):
    """Whole numbers small enough for every sum of their products to be exact."""
    return rng.integers(-largest, largest + 1, shape).astype(dtype)


def maxout_inputs(rng, shape, dtype, values=normal):
    """x, weight, bias and grad_y of a linear_maxout."""
    rows, in_features, out_features, pieces = shape
    return (
        values(rng, (rows, in_features), dtype),
        values(rng, (out_features, pieces, in_features), dtype),
        values(rng, (out_features, pieces), dtype),
        values(rng, (rows, out_features), dtype),
    )


def linear_inputs(rng, shape, dtype, values=normal):
    """x, weight, bias and grad_y of a linear_activation."""
    rows, in_features, out_features = shape[:3]
    return (
        values(rng, (rows, in_features), dtype),
        values(rng, (out_features, in_features), dtype),
        values(rng, (out_features,), dtype),
        values(rng, (rows, out_features), dtype),
    )


def double(*arrays):
    """The float64 versions of some arrays, as the oracle takes them."""
    return tuple(_widened(a) for a in arrays)


def _widened(value):
    return value.astype(np.float64) if getattr(value, "dtype", None) == np.float32 else value


def reference(operation: str, *arguments, **keywords):
    """The result of the specification in float64."""
    keywords = {key: _widened(value) for key, value in keywords.items()}
    return getattr(fa, operation)(*double(*arguments), **keywords, backend="numpy")


def as_tuple(result):
    """The results of an operation that returns one or several."""
    return result if isinstance(result, tuple) else (result,)


# ---- activations


class Case(NamedTuple):
    """An activation and its keywords; for a PReLU, how many slopes it has instead."""

    name: str
    parameters: dict
    slopes: str = ""

    def __str__(self):
        return "-".join(str(part) for part in (self.name, *self.parameters.values(), self.slopes) if part)

    def keywords(self, features, dtype):
        if self.name != "prelu":
            return self.parameters
        slopes = np.array([0.25, -0.5, 1.5], dtype)
        return {"slope": np.array(slopes[0]) if self.slopes == "one" else np.resize(slopes, features)}


# Values of keywords beside the defaults; one entry for each activation that has a keyword.
OTHER_PARAMETERS = {
    "leaky_relu": {"negative_slope": 0.5},
    "elu": {"alpha": 0.5},
    "gelu": {"approximate": "tanh"},
}


def _cases(name):
    if name == "prelu":
        return Case(name, {}, "one"), Case(name, {}, "per-feature")
    if not activations.TABLE[name].defaults:
        return (Case(name, {}),)
    return Case(name, {}), Case(name, OTHER_PARAMETERS[name])


CASES = tuple(case for name in activations.NAMES for case in _cases(name))
# Exact on whole numbers: these multiply by halves and quarters at most.
EXACT_CASES = tuple(
    case
    for case in CASES
    if case.name in ("identity", "relu", "prelu") or case.parameters.get("negative_slope") == 0.5
)
KINKS = np.array([-3.0, -1, 0, 1, 3, 6])  # where the derivative of an activation jumps
SAVES_Y = tuple(name for name, row in activations.TABLE.items() if row.saves == "y")


# ---- layouts of arrays


def strided(shape, dtype):
    """A writeable array of this shape that is neither C- nor Fortran-contiguous, filled with 99."""
    return np.full(tuple(2 * n for n in shape), 99, dtype)[tuple(slice(None, None, -2) for _ in shape)]


def contiguous(shape, dtype):
    return np.full(shape, 99, dtype)


def fortran(shape, dtype):
    return np.full(shape, 99, dtype, order="F")


OUT_LAYOUTS = pytest.mark.parametrize("layout", [contiguous, strided, fortran])


def backwards(a):
    return np.ascontiguousarray(a[..., ::-1])[..., ::-1]


def transposed(a):
    return np.asfortranarray(a)


def spaced(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def misaligned(a):
    buffer = np.empty(a.nbytes + 1, np.uint8)[1:]
    view = buffer.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def memory_mapped(a):
    return a.view(np.memmap)


INPUT_LAYOUTS = pytest.mark.parametrize(
    "layout", [backwards, transposed, spaced, read_only, misaligned, memory_mapped]
)


# ---- a fresh interpreter


def run_python(code: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in a new interpreter with these environment variables; if it hangs, kill all it started."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FASTACT_", "OMP_"))}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"hung for {timeout} s; it had said:\n{output}{errors}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def output_of(code: str, timeout: float = 60, **environment: str) -> str:
    """What `code` prints in a new interpreter, which has to succeed."""
    done = run_python(code, timeout, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
