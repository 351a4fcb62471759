"""What only the Numba backend has to promise: concurrency, fork, lazy import, its cache, its memory."""

import ast
import errno
import importlib
import importlib.util
import itertools
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from support.processes import output_of
from support.variants import needs_fork

import fastact as fa
from fastact import activations, settings
from fastact.backends import numba as backend
from fastact.backends.numba import compile as numba_compile
from fastact.backends.numba import linear, pool, product

ROOT = Path(fa.__file__).parents[1]


def run_python(code: str, **environment: str) -> str:
    """The output of `code` in a new interpreter that knows this checkout alone."""
    return output_of(
        textwrap.dedent(code), 120, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error", **environment
    ).strip()


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 96)).astype(np.float32)
    weight = rng.standard_normal((130, 3, 96)).astype(np.float32)
    bias = rng.standard_normal((130, 3)).astype(np.float32)
    grad_y = rng.standard_normal((500, 130)).astype(np.float32)
    return x, weight, bias, grad_y


def step(problem, threads):
    x, weight, bias, grad_y = problem
    with settings.num_threads(threads):
        y, argmax = fa.linear_maxout(x, weight, bias, backend="numba")
        grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, backend="numba")
        z, saved = fa.linear_activation(x, weight[:, 0], bias[:, 0], "gelu", backend="numba")
        more = fa.linear_activation_backward(grad_y, x, weight[:, 0], saved, "gelu", backend="numba")
    return (y, argmax, *grads, z, *more)


@pytest.fixture
def always_threaded(monkeypatch):
    monkeypatch.setattr(pool, "_WORK_PER_THREAD", 1)


def assert_same_bits(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(problem, always_threaded, threads):
    assert_same_bits(step(problem, threads), step(problem, 1))


def test_row_has_the_same_bits_in_tiles_of_any_height(problem):
    x, weight, bias, _ = problem
    whole = fa.linear_maxout(x, weight, bias, backend="numba")
    for rows in range(product.DOT_ROWS + 1, 26):  # fewer take dots
        few = fa.linear_maxout(x[:rows], weight, bias, backend="numba")
        assert_same_bits(few, [result[:rows] for result in whole])


def test_several_callers_at_once_get_the_same_bits(problem, always_threaded):
    expected = step(problem, 1)
    with ThreadPoolExecutor(8) as callers:
        for results in callers.map(lambda _: step(problem, 3), range(24)):
            assert_same_bits(results, expected)


def test_kernel_releases_the_gil(problem):
    x, weight, bias, _ = problem
    y = np.empty((500, 130), np.float32)
    backend.linear_maxout(x, weight, bias, y, None, threads=1)  # compiled now
    big = np.ones((4000, 2000), np.float32), np.ones((300, 3, 2000), np.float32), None
    caller = threading.Thread(
        target=backend.linear_maxout, args=(*big, np.empty((4000, 300), np.float32), None, 1)
    )
    caller.start()
    ticks = 0
    while caller.is_alive():  # under the GIL, this loop would come round once or twice
        ticks += 1
    caller.join()
    assert ticks > 1000


FORKED = """
    import os, sys, threading
    import numpy as np
    import fastact as fa
    from fastact.backends.numba import pool
    pool._WORK_PER_THREAD = 1
    fa.settings.set_num_threads(3)
    x, weight = np.ones((300, 40), np.float32), np.ones((90, 2, 40), np.float32)
    {before}
    child = os.fork()
    if child == 0:
        y, _ = fa.linear_maxout(x, weight, backend="numba")
        os._exit(0 if (y == 40).all() else 1)
    {after}
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
def test_forked_child_works_after_the_parent_used_threads():
    # Python 3.12 warns of a fork while threads run: that is the case under test
    before = 'import warnings; warnings.simplefilter("ignore"); fa.linear_maxout(x, weight, backend="numba")'
    assert run_python(FORKED.format(before=before, after="")) == "0"


@needs_fork
def test_forked_child_works_while_the_parent_compiles(tmp_path):
    before = """import time, warnings; warnings.simplefilter("ignore")
    thread = threading.Thread(target=lambda: fa.linear_maxout(x, weight, backend="numba"))
    thread.start(); time.sleep(0.5)"""
    code = FORKED.format(before=before, after="thread.join()")
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0"


def test_fastact_imports_numba_only_when_asked():
    assert run_python("import fastact, sys; print('numba' in sys.modules)") == "False"


# ---- the cache on disk


def halve(kernel):
    """A kernel small enough to be compiled in every test."""
    return kernel / 2


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty folder for Numba's cache, in which a first process has compiled `halve`; its files."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    quietly(3.0, 0)
    quietly(3, 0)
    assert len(cached_files(tmp_path, "nbi")) == 1
    assert len(cached_files(tmp_path, "nbc")) == 2
    return lambda kind: cached_files(tmp_path, kind)


def cached_files(tmp_path, kind):
    return sorted((tmp_path / "cache").rglob(f"*.{kind}"))


def another_process(monkeypatch, value):
    """What `halve` gives where nothing is compiled yet; how often it came from the cache, and warnings."""
    monkeypatch.setattr(numba_compile, "_warned", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kernel = numba_compile.compiled(halve)
        assert kernel(value) == value / 2
        assert kernel(value + 1) == (value + 1) / 2
    return sum(kernel.stats.cache_hits.values()), [str(warning.message) for warning in caught]


def quietly(value, hits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel = numba_compile.compiled(halve)
        assert kernel(value) == value / 2
    assert sum(kernel.stats.cache_hits.values()) == hits


def flip(at):
    """Change one bit of the byte at the share `at` of the file."""

    def damage(file):
        content = bytearray(file.read_bytes())
        content[int(at * len(content))] ^= 1
        file.write_bytes(content)

    return damage


DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "one byte": lambda file: os.truncate(file, 1),
    "cut in half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "last byte lost": lambda file: os.truncate(file, file.stat().st_size - 1),
    "random bytes": lambda file: file.write_bytes(np.random.default_rng(0).bytes(1000)),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "text": lambda file: file.write_text("<html>404</html>"),
}
CODE_DAMAGES = DAMAGES | {
    "a bit of the code": flip(0.5),
    "a bit near the end": flip(0.95),
    "a list": lambda file: file.write_bytes(pickle.dumps([1, 2])),
    "None": lambda file: file.write_bytes(pickle.dumps(None)),
    "wrong types": lambda file: file.write_bytes(pickle.dumps((1, b"", "code"))),
    "a name that cannot be imported": lambda file: file.write_bytes(b"cno_such_module\nname\n."),
}


def write_index(content):
    """An index of this version whose second part is `content`."""

    def damage(file):
        with open(file, "rb") as old:
            version = pickle.load(old)
        file.write_bytes(pickle.dumps(version) + content(file))

    return damage


def stamp_and(overloads):
    def content(file):
        with open(file, "rb") as old:
            pickle.load(old)
            stamp, names = pickle.load(old)
        return pickle.dumps((stamp, overloads(names)))

    return content


INDEX_DAMAGES = DAMAGES | {
    "nothing after the version": write_index(lambda file: b""),
    "an integer": write_index(lambda file: pickle.dumps(3)),
    "a list for a dict": write_index(stamp_and(list)),
    "None for a dict": write_index(stamp_and(lambda names: None)),
    "names of another type": write_index(stamp_and(lambda names: dict.fromkeys(names, 7))),
    "a name that cannot be imported": write_index(lambda file: b"cno_such_module\nname\n."),
}


@pytest.mark.parametrize(
    ("kind", "name"), [*itertools.product(["nbi"], INDEX_DAMAGES), *itertools.product(["nbc"], CODE_DAMAGES)]
)
def test_damaged_cache_file_is_named_once_and_replaced(monkeypatch, cache, kind, name):
    files = cache(kind)
    for file in files:
        (INDEX_DAMAGES if kind == "nbi" else CODE_DAMAGES)[name](file)
    hits, messages = another_process(monkeypatch, 5.0)
    assert hits == 0
    assert len(messages) == 1
    assert any(str(file) in messages[0] for file in files)
    assert f"delete {files[0].parent}" in messages[0]
    quietly(5.0, 1)


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_damaged_cache_file_raises_once_where_warnings_are_errors(monkeypatch, cache, kind):
    for file in cache(kind):
        os.truncate(file, 20)
    monkeypatch.setattr(numba_compile, "_warned", False)
    kernel = numba_compile.compiled(halve)
    with pytest.raises(RuntimeWarning, match="damaged"):
        kernel(3.0)
    assert kernel(3.0) == 1.5
    quietly(3.0, 1)


def test_cache_index_with_a_flipped_bit_gives_the_right_result(monkeypatch, cache):
    (index,) = cache("nbi")
    content = index.read_bytes()
    for at in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        index.write_bytes(damaged)
        _, messages = another_process(monkeypatch, 5.0)
        assert len(messages) <= 1


def test_cache_code_of_another_signature_is_not_run(cache):
    first, second = cache("nbc")
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    quietly(3.0, 0)
    quietly(3, 0)
    quietly(3.0, 1)
    quietly(3, 1)


def test_cache_code_of_an_older_source_is_not_run(monkeypatch, cache):
    """A process that is killed between the new index and the new code leaves this state."""
    old = {file: file.read_bytes() for file in cache("nbc")}
    stamp = "numba.core.caching._SourceFileBackedLocatorMixin.get_source_stamp"
    monkeypatch.setattr(stamp, lambda self: "another source")
    quietly(3.0, 0)
    for file, content in old.items():
        file.write_bytes(content)
    quietly(3.0, 0)
    quietly(3.0, 1)


def test_cache_of_another_room_stamp_is_not_run(monkeypatch, cache):
    cache("nbc")
    monkeypatch.setattr(numba_compile, "room_stamp", lambda: "another source of vectors.py")
    hits, messages = another_process(monkeypatch, 3.0)
    assert (hits, messages) == (0, [])


def test_cache_after_an_edit_that_moves_the_kernel_replaces_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "edited.py"
    files = []
    for lines_above, factor in ((0, 2), (1, 3)):
        source.write_text("# a line\n" * lines_above + f"def scale(z):\n    return {factor} * z\n")
        spec = importlib.util.spec_from_file_location("edited", source)
        edited = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(edited)
        assert numba_compile.compiled(edited.scale)(5.0) == factor * 5
        files.append(cached_files(tmp_path, "nb?"))
    assert len(files[0]) == 2
    assert files[1] == files[0]


def copy_package(folder, *sources):
    """The folder of a copy of the package's Python sources, or of some of them."""
    package = Path(fa.__file__).parent
    for source in sources or package.rglob("*.py"):
        target = folder / "fastact" / source.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return folder / "fastact"


# 16 float32 fill a vector of every CPU
MAXIMUM = """
import numpy as np
import fastact as fa
y, _ = fa.maxout(np.float32([[[1] * 16, [3] * 16]]), axis=1, backend="numba")
print(fa.__file__, y[0, 0], sum(fa.backends.numba.maximum._maxout_cells.stats.cache_hits.values()))
"""


def run_maximum(tmp_path, copy):
    """The maximum of 1 and 3 by the package in `copy`, in a new process; and how often the cache had it."""
    cache = str(tmp_path / "cache")
    environment = os.environ | {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
    command = [sys.executable, "-c", MAXIMUM]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    file, value, hits = done.stdout.split()
    assert file.startswith(str(copy))
    return float(value), int(hits)


def test_cache_after_an_edit_of_a_called_file_is_compiled_again(tmp_path):
    copy = tmp_path / "copy"
    room = copy_package(copy) / "backends" / "numba"

    def run():
        return *run_maximum(tmp_path, copy), [cached_files(tmp_path, kind) for kind in ("nbi", "nbc")]

    value, hits, files = run()
    assert (value, hits) == (3, 0)
    assert files[0]
    assert run() == (3, 1, files)
    source = (room / "vectors.py").read_text()
    larger = 'builder.fcmp_unordered(">", value, largest)'
    assert source.count(larger) == 1
    (room / "vectors.py").write_text(source.replace(larger, larger.replace(">", "<")))
    assert run() == (1, 0, files)


def kernels_of(module):
    """The kernels defined in a module, by name."""
    return {
        name: kernel
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.__name__
    }


def room_modules():
    room = Path(numba_compile.__file__).parent
    names = sorted(path.stem for path in room.glob("*.py") if path.stem != "__init__")
    return [importlib.import_module(f"{backend.__name__}.{name}") for name in names]


def imported_from_elsewhere(module):
    """The names that a module of the room imports from fastact outside the room, and from where."""
    found = {}
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level > 1:
            source = importlib.util.resolve_name("." * node.level + node.module, backend.__name__)
            found |= {alias.asname or alias.name: source for alias in node.names}
    return found


def test_kernels_import_from_their_room_and_activations_alone():
    """The room's stamp covers the room and `fastact/activations.py`."""
    kernels = [(module, kernel) for module in room_modules() for kernel in kernels_of(module).values()]
    assert len(kernels) > 30
    used = {
        source
        for module, kernel in kernels
        for name, source in imported_from_elsewhere(module).items()
        if name in kernel.py_func.__code__.co_names
    }
    assert used == {"fastact.activations"}


@pytest.mark.parametrize("terminal", [True, False])
def test_long_compilation_is_said_on_a_terminal_once(monkeypatch, capsys, terminal):
    monkeypatch.setattr(numba_compile, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    for method in ("load_overload", "save_overload"):
        monkeypatch.setattr(numba_compile._Cache, method, lambda *_: None)

    def inner(x):
        return x + 1

    kernel = numba_compile.compiled(inner)
    outer = numba_compile.compiled(lambda x: kernel(x) * 2)
    assert outer(1.0) == 4.0
    said = capsys.readouterr().err.count("fastact: Numba compiles kernels")
    assert said == terminal


def test_room_stamp_changes_with_every_source(monkeypatch, tmp_path):
    room = Path(numba_compile.__file__).parent
    package = copy_package(tmp_path, *room.glob("*.py"), Path(activations.__file__))
    folders = {"fastact": package, backend.__name__: package / "backends" / "numba"}
    monkeypatch.setattr("importlib.resources.files", folders.__getitem__)
    stamp = numba_compile.room_stamp.__wrapped__
    assert stamp() == numba_compile.room_stamp()
    sources = list(package.rglob("*.py"))
    assert len(sources) == len(list(room.glob("*.py"))) + 1
    stamps = {stamp()}
    for source in sources:
        source.write_text(source.read_text() + "# edited\n")
        stamps.add(stamp())
    assert len(stamps) == 1 + len(sources)


def test_numba_backend_runs_from_a_zip_file(tmp_path):
    copy_package(tmp_path / "tree")
    archive = shutil.make_archive(str(tmp_path / "app"), "zip", tmp_path / "tree")
    assert run_maximum(tmp_path, Path(archive))[0] == 3


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_cache_folder_in_the_place_of_a_file_is_named_once(monkeypatch, cache, kind):
    for file in cache(kind):
        file.unlink()
        file.mkdir()
    for _ in range(2):
        hits, messages = another_process(monkeypatch, 5.0)
        assert hits == 0
        assert len(messages) == 1
        assert str(cache(kind)[0].parent) in messages[0]


def test_cache_without_its_code_compiles_again_without_a_warning(cache):
    for file in cache("nbc"):
        file.unlink()
    quietly(3.0, 0)
    quietly(3.0, 1)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_cache_that_cannot_be_written_is_named_once(monkeypatch, cache, error):
    for file in (*cache("nbc"), *cache("nbi")):
        file.unlink()

    def fail(self, path):
        raise OSError(error, os.strerror(error), path)

    with monkeypatch.context() as patch:
        patch.setattr("numba.core.caching.IndexDataCacheFile._open_for_write", fail)
        _, messages = another_process(monkeypatch, 5.0)
    assert len(messages) == 1
    assert os.strerror(error) in messages[0]
    assert "NUMBA_CACHE_DIR" in messages[0]
    assert not cache("nbc")
    quietly(5.0, 0)
    quietly(5.0, 1)


def test_cache_that_cannot_be_read_is_named_once_and_left(monkeypatch, cache):
    before = {file: file.read_bytes() for file in (*cache("nbc"), *cache("nbi"))}

    def fail(path, mode="r"):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr("numba.core.caching.open", fail, raising=False)
        hits, messages = another_process(monkeypatch, 5.0)
    assert hits == 0
    assert len(messages) == 1
    assert str(cache("nbi")[0]) in messages[0]
    assert {file: file.read_bytes() for file in before} == before  # they may be another user's


def test_cache_dir_that_is_a_file_is_named_once(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "file"))
    _, messages = another_process(monkeypatch, 5.0)
    assert len(messages) == 1
    assert f"NUMBA_CACHE_DIR: {tmp_path / 'file'} is not a folder that can be written to" in messages[0]


def test_cache_without_a_place_is_named_once(monkeypatch):
    # as where neither the package nor a home can be written to
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    _, messages = another_process(monkeypatch, 5.0)
    assert len(messages) == 1
    assert "no place for its cache" in messages[0]
    assert "Set NUMBA_CACHE_DIR to a folder" in messages[0]


MAXOUT = """
    import sys
    import numpy as np
    import fastact as fa
    for dtype in sys.argv[1:] or ("float32", "float64"):
        y, argmax = fa.maxout(np.array([[1, 3, 3]], dtype), backend="numba")
        print(y, argmax)
    print("from the cache:", sum(fa.backends.numba.maximum._maxout_cells.stats.cache_hits.values()))
"""


def run_maxout(tmp_path, *dtypes):
    """A process that compiles or loads kernels, with its cache in tmp_path."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "always::RuntimeWarning", "-c", textwrap.dedent(MAXOUT), *dtypes]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )


def test_cache_with_every_file_damaged_warns_in_one_process_alone(tmp_path):
    outputs = []
    for _ in range(3):
        outputs.append(run_maxout(tmp_path).communicate(timeout=120))
        if len(outputs) == 1:
            files = [*cached_files(tmp_path, "nbi"), *cached_files(tmp_path, "nbc")]
            assert len(files) == 3  # an index, and the code for each dtype
            for file in files:
                os.truncate(file, file.stat().st_size * 2 // 3)
    assert [out for out, _ in outputs] == [f"[3.] [1]\n[3.] [1]\nfrom the cache: {n}\n" for n in (0, 0, 2)]
    assert [errors.count("RuntimeWarning: fastact: ") for _, errors in outputs] == [0, 1, 0]


def test_cache_written_by_several_processes_stays_whole(tmp_path):
    dtypes = [("float32",), ("float64",), ("float64", "float32")]
    processes = [run_maxout(tmp_path, *names) for names in dtypes]
    for process, names in zip(processes, dtypes, strict=True):
        out, errors = process.communicate(timeout=300)
        assert out.startswith("[3.] [1]\n" * len(names))
        assert errors == ""
    run_maxout(tmp_path).communicate(timeout=300)  # what one lost to another is compiled and saved
    out, errors = run_maxout(tmp_path).communicate(timeout=300)
    assert out == "[3.] [1]\n[3.] [1]\nfrom the cache: 2\n"
    assert errors == ""


def test_disabled_jit_raises_and_names_the_variable():
    code = """
        import numpy as np
        import fastact as fa
        z = np.float32([[1, 3, 3]])
        try:
            fa.maxout(z, backend="numba")
        except ImportError as error:
            print(error)
        print(*fa.maxout(z, backend="numpy"))
    """
    message, result = run_python(code, NUMBA_DISABLE_JIT="1").splitlines()
    assert message.startswith('backend "numba": NUMBA_DISABLE_JIT is set')
    assert 'choose the backend "c" or "numpy"' in message
    assert result == "[3.] [1]"


def test_read_only_inputs_compile_nothing_new(problem):
    x, weight, bias, _ = problem
    expected = fa.linear_maxout(x, weight, bias, backend="numba")
    versions = len(linear._linear_cells.signatures)
    for array in (x, weight, bias):
        array.flags.writeable = False
    assert_same_bits(fa.linear_maxout(x, weight, bias, backend="numba"), expected)
    assert len(linear._linear_cells.signatures) == versions


@pytest.mark.parametrize(
    ("setting", "threads"), [("3", 3), ("4,2", 4), ("0", None), ("many", None), ("", None)]
)
def test_default_threads_follow_omp_num_threads(monkeypatch, setting, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert settings.default_threads() == (threads or min(cores, settings._MAX_DEFAULT_THREADS))


def test_exception_in_a_helper_reaches_the_caller():
    def kernel(first, last):
        if first > 0:
            raise MemoryError

    with pytest.raises(MemoryError):
        pool.run(kernel, 8, 1e12, 4)


# ---- the memory of a slope's gradient


def prelu_problem(shape, slopes, dtype):
    rng = np.random.default_rng(0)
    grad_y, saved = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    act = activations.resolve("prelu", shape[1], np.dtype(dtype), {"slope": np.full(slopes, 0.25, dtype)})
    return grad_y, saved, act


SLOPES = [
    ((1, 300_000), 1),
    ((1, 300_000), 300_000),
    ((300, 1001), 1),
    ((300, 1001), 1001),
    ((300_000, 1), 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "slopes"), SLOPES)
def test_prelu_backward_memory_beside_its_results_is_bounded(shape, slopes, dtype):
    grad_y, saved, act = prelu_problem(shape, slopes, dtype)
    grad_z, grad_slope = np.empty_like(saved), np.empty(slopes, dtype)
    backend.activation_backward(grad_y, saved, act, grad_z, grad_slope)  # compiled now
    tracemalloc.start()
    try:
        backend.activation_backward(grad_y, saved, act, grad_z, grad_slope)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.05 * saved.size  # bytes; 8 an element of a row before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "slopes"), SLOPES)
def test_prelu_backward_slope_gradient_within_bound_for_any_threads(always_threaded, shape, slopes, dtype):
    grad_y, saved, act = prelu_problem(shape, slopes, dtype)
    terms = np.where(saved > 0, 0, grad_y.astype("f8") * saved)
    exact, magnitude = terms.sum(0, keepdims=True), abs(terms).sum(0, keepdims=True)
    if slopes == 1:
        exact, magnitude = exact.sum(1), magnitude.sum(1)
    start = np.full(slopes, 2, dtype)
    results = []
    for threads, accumulate in ((1, False), (3, False), (3, True)):
        grad_slope = start.copy()
        backend.activation_backward(
            grad_y, saved, act, np.empty_like(saved), grad_slope, accumulate, threads=threads
        )
        results.append(grad_slope)
    # sums in float64 of at most 128 terms, of at most 128 partial sums, and their sum; rounded once
    eps = np.finfo(dtype).eps
    bound = eps * abs(exact) + 4 * 300 * np.finfo("f8").eps * magnitude
    assert (abs(results[0] - exact.reshape(slopes)) <= bound.reshape(slopes)).all()
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0] + start)
