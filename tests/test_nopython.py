"""The functional API inside `@numba.njit`: equal to the Python functions, errors and threads included."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
import threading
from importlib import metadata
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError
from support.layouts import backwards, misaligned, read_only, spaced, transposed
from support.processes import output_of
from support.tolerance import assert_same_bits
from support.variants import COMPILED_BACKENDS, in_force, needs_c, needs_fork

import fastact as fa
from fastact import overloads, settings
from fastact.activations import NAMES
from fastact.overloads.table import FUNCTIONS

overloads.init()
ROOT = Path(fa.__file__).parents[1]


def pytest_generate_tests(metafunc):
    """One backend and one dtype, since a call takes Numba seconds; with --full, each pair of them."""
    if "variant" in metafunc.fixturenames:
        pairs = list(itertools.product(COMPILED_BACKENDS[::-1], (np.float32, np.float64)))
        pairs = pairs if metafunc.config.getoption("full") else pairs[:1]
        names = [pytest.param(pair, id=f"{pair[0]}-{pair[1].__name__}") for pair in pairs]
        metafunc.parametrize("variant", names, indirect=True)


@pytest.fixture
def variant(request):
    """A backend that nopython code can call, in force, and a dtype."""
    backend, dtype = request.param
    with in_force(backend):
        yield backend, dtype


@pytest.fixture(params=COMPILED_BACKENDS)
def chosen(request):
    """Each backend that nopython code can call."""
    with in_force(request.param) as name:
        yield name


def assert_alike(got, wanted, backend):
    """C's kernels are the same ones: equal bits.  Numba may compile another order of a sum into a caller."""
    if isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_alike(one, other, backend)
    elif backend == "c" and isinstance(wanted, np.ndarray):
        assert_same_bits(got, wanted)
    elif wanted is None or backend == "c":
        assert got == wanted
    elif isinstance(wanted, np.ndarray):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        # sums of at most 97 terms of order 1, each rounded once, and one more
        bound = 98 * float(np.finfo(wanted.dtype).eps) if wanted.dtype.kind == "f" else 0
        np.testing.assert_allclose(got, wanted, rtol=bound, atol=8 * bound)
    else:
        assert math.isclose(got, wanted, rel_tol=1e-6)


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


# ---- every function


def linear_maxout(x, weight, bias, grad_y):
    y, argmax = fa.linear_maxout(x, weight, bias)
    plain, none = fa.linear_maxout(x, weight, return_argmax=False)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    some = fa.linear_maxout_backward(grad_y, x, weight, argmax, needs=(False, True, False))
    return y, argmax, plain, none, grads, some


def linear_activation(x, weight, bias, grad_y):
    y, z = fa.linear_activation(x, weight, bias, "gelu", approximate="tanh")
    relu, same = fa.linear_activation(x, weight)
    plain = fa.linear_activation(x, weight, bias, "silu", return_saved=False)
    grads = fa.linear_activation_backward(grad_y, x, weight, z, "elu", alpha=0.5)
    return y, z, relu, same, plain, grads


def prelu(x, weight, bias, grad_y):
    y, z = fa.linear_activation(x, weight, bias, "prelu", slope=bias)
    grads = fa.linear_activation_backward(grad_y, x, weight, z, "prelu", slope=bias)
    alone = fa.prelu(z, bias[:1])
    return y, z, grads, alone, fa.prelu_backward(grad_y, z, bias), fa.prelu_backward(grad_y, z, bias[:1])


def layer_norm(x, weight, bias, grad_y):
    y, saved = fa.layer_norm(x, weight[0], weight[1], 1e-3)
    plain, none = fa.layer_norm(x, return_saved=False)
    return y, saved, plain, none, fa.layer_norm_backward(y, x, weight[0], saved)


@pytest.mark.parametrize("features", [1, 3, 17, 97])
@pytest.mark.parametrize("rows", [0, 1, 3, 33])
def test_linear_maxout_in_nopython_code_equals_python(variant, rows, features):
    chosen, dtype = variant
    arrays = (
        numbers(rows, features, dtype=dtype),
        numbers(15, 3, features, dtype=dtype),
        numbers(15, 3, dtype=dtype),
        numbers(rows, 15, dtype=dtype),
    )
    assert_alike(JITTED[linear_maxout](*arrays), linear_maxout(*arrays), chosen)


@pytest.mark.parametrize("function", [linear_activation, prelu, layer_norm])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_function_in_nopython_code_equals_python(variant, function, rows):
    chosen, dtype = variant
    arrays = (
        numbers(rows, 31, dtype=dtype),
        numbers(16, 31, dtype=dtype),
        numbers(16, dtype=dtype),
        numbers(rows, 16, dtype=dtype),
    )
    assert_alike(JITTED[function](*arrays), function(*arrays), chosen)


def maxout_step(x, weight, bias, labels):
    y, argmax = fa.linear_maxout(x, weight, bias)
    loss, grad = fa.softmax_cross_entropy(y, labels)
    return loss, grad, fa.linear_maxout_backward(grad, x, weight, argmax)


def activation_step(x, weight, bias, labels):
    y, saved = fa.linear_activation(x, weight[0], bias[0], "gelu")
    loss, grad = fa.mse(y, x[:, :3])
    return loss, fa.linear_activation_backward(grad, x, weight[0], saved, "gelu")


def other_kernels(x, weight, bias, labels):
    y, saved = fa.layer_norm(x, weight[0, 0], weight[0, 1])
    grads = fa.layer_norm_backward(y, x, weight[0, 0], saved)
    z, argmax = fa.maxout(weight)
    bounded = weight.copy()
    fa.max_norm_(bounded, 0.5)
    errors = fa.huber(x, y), fa.binary_cross_entropy_with_logits(x, fa.sigmoid(y))
    slopes = fa.prelu(x, weight[0, 0]), fa.prelu_backward(y, x, weight[0, 0])
    return y, grads, z, fa.maxout_backward(z, argmax, weight.shape[-1]), bounded, errors, slopes


@pytest.mark.parametrize("function", [maxout_step, activation_step, other_kernels])
def test_each_kernel_of_numba_in_nopython_code_equals_python(function):
    arrays = numbers(33, 17), numbers(5, 3, 17), numbers(5, 3), np.arange(33) % 5
    with in_force("numba"):
        for rows in (33, 1, 0):
            few = arrays[0][:rows], arrays[1], arrays[2], arrays[3][:rows]
            assert_alike(JITTED[function](*few), function(*few), "numba")


class Jitted(dict):
    """Each function compiled once for a backend, which is chosen when the function is compiled."""

    def __getitem__(self, function):
        key = function, fa.get_backend()
        if key not in self:
            self[key] = numba.njit(function)
        return self.get(key)


JITTED = Jitted()


def test_every_activation_in_nopython_code_equals_python(variant):
    chosen, dtype = variant
    names = [name for name in NAMES if name != "prelu"]
    calls = "".join(f"fa.{name}(z), fa.{name}_backward(grad_y, z), " for name in names)
    namespace = {"fa": fa}
    exec(f"def every(z, grad_y): return ({calls})", namespace)
    every = namespace["every"]
    compiled = numba.njit(every)
    z = np.linspace(-9, 9, 97, dtype=dtype)
    z[:4] = np.nan, np.inf, -np.inf, 0
    for arrays in ((z, z[::-1].copy()), (z[:0], z[:0])):
        with np.errstate(all="ignore"):
            assert_alike(compiled(*arrays), every(*arrays), chosen)


def elementwise(z, grad_y):
    y = fa.activation(z, "leaky_relu", negative_slope=0.25)
    grad_z = fa.activation_backward(grad_y, z, "linear")
    return (
        y,
        grad_z,
        fa.softplus(z),
        fa.gelu_backward(grad_y, z),
        fa.hardtanh(z),
        fa.sigmoid_backward(grad_y, z),
    )


@pytest.mark.parametrize("shape", [(), (0,), (17,), (2, 3, 5)])
def test_elementwise_in_nopython_code_equals_python(variant, shape):
    chosen, dtype = variant
    arrays = np.asarray(numbers(*shape, dtype=dtype)), np.asarray(numbers(*shape, dtype=dtype))
    assert_alike(JITTED[elementwise](*arrays), elementwise(*arrays), chosen)


def pool(z, axis):
    y, argmax = fa.maxout(z, axis)
    return (
        y,
        argmax,
        fa.maxout_backward(y, argmax, z.shape[axis], axis),
        fa.maxout(z, axis, return_argmax=False),
    )


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 31, 33), (3, 1, 1)])
def test_maxout_in_nopython_code_equals_python(variant, shape, axis):
    chosen, dtype = variant
    z = numbers(*shape, dtype=dtype)
    z[0, 0, 0] = np.nan
    assert_alike(JITTED[pool](z, axis), pool(z, axis), chosen)


def losses(y, target, labels):
    return (
        fa.softmax_cross_entropy(y, labels),
        fa.softmax_cross_entropy(y, labels, label_smoothing=0.1, ignore_index=2),
        fa.mse(y, target),
        fa.huber(y, target, delta=0.5),
        fa.binary_cross_entropy_with_logits(y, target),
    )


@pytest.mark.parametrize("rows", [0, 1, 17])
def test_losses_in_nopython_code_equal_python(variant, rows):
    chosen, dtype = variant
    labels = np.arange(rows) % 5
    arrays = numbers(rows, 5, dtype=dtype), numbers(rows, 5, dtype=dtype)[::-1].copy(), labels
    assert_alike(JITTED[losses](*arrays), losses(*arrays), chosen)


@needs_c
@pytest.mark.parametrize("index", [np.int32, np.uint64])
def test_labels_of_another_integer_dtype_give_the_same_bits(index):
    logits, labels = numbers(6, 5), np.arange(6).reshape(3, 2).T % 5
    call = numba.njit(lambda logits, labels: fa.softmax_cross_entropy(logits, labels))
    wanted = fa.softmax_cross_entropy(logits.reshape(2, 3, 5), labels)
    assert_alike(call(logits.reshape(2, 3, 5), labels.astype(index)), wanted, "c")


def unsigned(z, labels, one):
    y, argmax = fa.maxout(z, one)
    grad = fa.maxout_backward(y, argmax, one + one, one)
    return y, grad, fa.softmax_cross_entropy(y, labels, ignore_index=one)


@needs_c
def test_unsigned_numbers_in_nopython_code_are_those_of_python():
    arrays = numbers(3, 2, 5), np.array([0, 1, 4])
    call = numba.njit(unsigned)
    assert_alike(call(*arrays, np.uint64(1)), unsigned(*arrays, 1), "c")
    with pytest.raises(ValueError, match=r"^ignore_index: got .*, wanted an int64$"):
        numba.njit(lambda z, labels, index: fa.softmax_cross_entropy(z, labels, ignore_index=index))(
            arrays[0][:, 0].copy(), arrays[1], np.uint64(2**64 - 100)
        )


@needs_c
@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38])
def test_mse_in_nopython_code_neither_overflows_nor_underflows(scale):
    y = (numbers(40) * 0.2 * scale).astype(np.float32)
    loss, grad = numba.njit(lambda y, target: fa.mse(y, target))(y, -y)
    wanted, wanted_grad = fa.mse(y, -y)
    assert math.isclose(loss, wanted, rel_tol=1e-14)
    np.testing.assert_allclose(grad, wanted_grad, rtol=4 * np.finfo(np.float32).eps)


def bounded(weight, bound):
    contiguous, strided = weight.copy(), weight.copy()
    fa.max_norm_(contiguous, bound)
    fa.max_norm_(strided[:, ::2], bound)
    return contiguous, strided


def test_max_norm_in_nopython_code_equals_python(variant):
    chosen, dtype = variant
    weight = numbers(7, 3, 17, dtype=dtype)
    assert_alike(JITTED[bounded](weight, 0.5), bounded(weight, 0.5), chosen)


def test_every_function_of_the_api_is_in_the_table():
    modules = ("fastact.ops", "fastact.elementwise", "fastact.nn.losses")
    public = {name for name in fa.__all__ if getattr(getattr(fa, name), "__module__", "") in modules}
    public.add("max_norm_")
    assert {function.public.__name__ for function in FUNCTIONS} == public


# ---- layouts, out=, needs, accumulate


@needs_c
@pytest.mark.parametrize("layout", [backwards, misaligned, read_only, spaced, transposed])
def test_layout_in_nopython_code_gives_the_same_bits(layout):
    arrays = numbers(5, 7), numbers(4, 3, 7), numbers(4, 3)
    wanted = fa.linear_maxout(*arrays)
    call = numba.njit(lambda x, weight, bias: fa.linear_maxout(x, weight, bias))
    assert_alike(call(layout(arrays[0]), arrays[1], arrays[2]), wanted, "c")
    assert_alike(call(arrays[0], layout(arrays[1]), layout(arrays[2])), wanted, "c")


def written(x, weight, grad_y):
    y, argmax = np.zeros((len(x), 8), x.dtype), np.zeros((len(x), 4), np.uint8)
    fa.linear_maxout(x, weight, out=(y[:, ::2], argmax))
    grad_weight, grad_bias = np.ones(weight.shape, x.dtype), np.ones(weight.shape[:2], x.dtype)
    for accumulate in (False, True):
        fa.linear_maxout_backward(
            grad_y, x, weight, argmax, out=(None, grad_weight, grad_bias), accumulate=accumulate
        )
    z = y.copy()
    fa.gelu(z, out=z)
    fa.relu(y[:, 1::2], out=y[:, 1::2])
    return y, argmax, grad_weight, grad_bias, z


def test_out_and_accumulate_in_nopython_code_equal_python(variant):
    chosen, dtype = variant
    arrays = numbers(5, 7, dtype=dtype), numbers(4, 3, 7, dtype=dtype), numbers(5, 4, dtype=dtype)
    assert_alike(JITTED[written](*arrays), written(*arrays), chosen)


# ---- errors

X, WEIGHT, BIAS = numbers(5, 7), numbers(4, 3, 7), numbers(4, 3)
LINEAR = WEIGHT[:, 0].copy()
ARGMAX, GRAD = np.zeros((5, 4), np.uint8), numbers(5, 4)

VALUES = {
    "x: ": lambda: fa.linear_maxout(X[:, :5], WEIGHT),
    "bias: ": lambda: fa.linear_maxout(X, WEIGHT, BIAS[:3]),
    "pieces: ": lambda: fa.linear_maxout(X, WEIGHT[:, :0]),
    "grad_y: ": lambda: fa.linear_maxout_backward(GRAD[:4], X, WEIGHT, ARGMAX),
    "argmax: ": lambda: fa.linear_maxout_backward(GRAD, X, WEIGHT, ARGMAX + np.uint8(3)),
    "argmax:  ": lambda: fa.maxout_backward(GRAD, ARGMAX + np.uint8(3), 3),
    "axis: ": lambda: fa.maxout(X, 2),
    "pieces:  ": lambda: fa.maxout_backward(GRAD, ARGMAX, 257),
    "saved: ": lambda: fa.activation_backward(GRAD, GRAD[:3], "gelu"),
    "slope: ": lambda: fa.prelu(X, GRAD[0]),
    "alpha: ": lambda: fa.elu(X, np.inf),
    "eps: ": lambda: fa.layer_norm(X, None, None, -1.0),
    "x:  ": lambda: fa.layer_norm(X[:, :0]),
    "labels: ": lambda: fa.softmax_cross_entropy(GRAD, np.full(5, 4)),
    "labels:  ": lambda: fa.softmax_cross_entropy(GRAD, np.zeros(4, np.int64)),
    "label_smoothing: ": lambda: fa.softmax_cross_entropy(GRAD, np.zeros(5, np.int64), label_smoothing=1.5),
    "target: ": lambda: fa.mse(X, GRAD),
    "delta: ": lambda: fa.huber(X, X, delta=0.0),
    "max_norm: ": lambda: fa.max_norm_(X.copy(), 0.0),
    "out[0] (y): ": lambda: fa.linear_maxout(X, WEIGHT, out=(np.ones((5, 3), np.float32), None)),
    "out[0] (y):  ": lambda: fa.layer_norm(X, out=(X.copy()[:4], None)),
    "accumulate: ": lambda: fa.linear_maxout_backward(GRAD, X, WEIGHT, ARGMAX, accumulate=True),
}


@needs_c
@pytest.mark.parametrize("argument", VALUES)
def test_wrong_value_in_nopython_code_raises_as_in_python(argument):
    for call in (VALUES[argument], numba.njit(VALUES[argument])):
        with pytest.raises(ValueError, match="^" + re.escape(argument.strip())):
            call()


@pytest.mark.parametrize("argument", ["argmax:  ", "labels: "])
def test_wrong_index_in_nopython_code_is_found_by_each_backend(chosen, argument):
    with pytest.raises(ValueError, match=argument.strip()):
        numba.njit(VALUES[argument])()


DOUBLE = X.astype(np.float64)
FIXED = read_only(X)
TYPES = {
    "x: got dtype int64": lambda: fa.linear_maxout(np.zeros((2, 7), np.int64), WEIGHT),
    "weight: got dtype float32": lambda: fa.linear_maxout(DOUBLE, WEIGHT),
    "x: got": lambda: fa.linear_maxout((1.0, 2.0), WEIGHT),
    "weight: got 2 axes": lambda: fa.linear_maxout(X, LINEAR),
    "argmax: got dtype int64": lambda: fa.maxout_backward(X, np.zeros((5, 7), np.int64), 3),
    "labels: got": lambda: fa.softmax_cross_entropy(X, X[:, 0]),
    "activation: got 'gelo'": lambda: fa.activation(X, "gelo"),
    "alpha: gelu takes approximate": lambda: fa.linear_activation(X, LINEAR, None, "gelu", alpha=1.0),
    "slope: got": lambda: fa.activation(X, "prelu"),
    "approximate: got": lambda: fa.gelu(X, approximate="fast"),
    "return_argmax: got 1": lambda: fa.linear_maxout(X, WEIGHT, return_argmax=1),
    "precision: got 'low'": lambda: fa.linear_maxout(X, WEIGHT, precision="low"),
    "backend: got": lambda: fa.linear_maxout(X, WEIGHT, backend="numpy"),
    "needs: got": lambda: fa.linear_maxout_backward(GRAD, X, WEIGHT, ARGMAX, needs=(True, False)),
    "out: got": lambda: fa.linear_maxout(X, WEIGHT, out=GRAD),
    "out[0] (y): got a read-only": lambda: fa.relu(X, out=FIXED),
    "out[0] (y): got dtype float64": lambda: fa.relu(X, out=DOUBLE),
    "eps: got": lambda: fa.layer_norm(X, None, None, "small"),
    "accumulate: got": lambda: fa.linear_maxout_backward(GRAD, X, WEIGHT, ARGMAX, accumulate=1.5),
}


@needs_c
@pytest.mark.parametrize("message", TYPES)
def test_wrong_type_in_nopython_code_is_a_typing_error_that_names_the_argument(message):
    with pytest.raises(TypingError) as caught:
        numba.njit(TYPES[message])()
    assert f"fastact: {message}" in str(caught.value)


swish = fa.custom_activation("swish", lambda z: z / (1 + math.exp(-z)), lambda z: 1.0)


@needs_c
def test_custom_activation_in_nopython_code_is_a_typing_error_that_names_the_variable():
    with pytest.raises(
        TypingError, match=r"global name 'swish': Cannot determine Numba type of .*CustomActivation"
    ):
        numba.njit(lambda z: fa.activation(z, swish))(X)
    with pytest.raises(TypingError, match=r"argument 1: Cannot determine Numba type of .*CustomActivation"):
        numba.njit(lambda z, activation: fa.activation(z, activation))(X, swish)


def half_of_itself(z):
    fa.relu(z[1:], out=z[:-1])


def interleaved(buffer, weight):
    fa.linear_maxout(buffer[:, ::2], weight, out=(buffer[:, 1::2], None))


def crossed(buffer, weight):
    fa.linear_maxout(buffer[:, ::2], weight, out=(buffer[:, :4], None))


@needs_c
def test_out_that_overlaps_an_input_in_nopython_code_raises_before_it_is_written():
    weight = numbers(4, 3, 4)
    for function, arrays in ((half_of_itself, [X.copy()]), (crossed, [numbers(5, 8), weight])):
        before = arrays[0].copy()
        for call in (function, numba.njit(function)):
            with pytest.raises(ValueError, match=r"out\[0\] \(y\): got an array that overlaps an input"):
                call(*arrays)
            assert_same_bits(arrays[0], before)
    apart, wanted = numbers(5, 8), numbers(5, 8)
    numba.njit(interleaved)(apart, weight)
    interleaved(wanted, weight)
    assert_same_bits(apart, wanted)


# ---- threads, prange, fork, settings


@numba.njit(nogil=True)
def forward(x, weight, bias):
    return fa.linear_maxout(x, weight, bias)


@needs_c
def test_threads_without_the_gil_get_the_same_bits():
    x, weight, bias = numbers(130, 96), numbers(40, 3, 96), numbers(40, 3)
    wanted = forward(x, weight, bias)
    results = []

    def work():
        for _ in range(20):
            results.append(forward(x, weight, bias))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for result in results:
        assert_alike(result, wanted, "c")


@needs_c
def test_prange_gives_the_bits_of_a_loop():
    x, weight, bias = numbers(64, 31), numbers(15, 3, 31), numbers(15, 3)

    def blocks(x, weight, bias):
        y, argmax = np.zeros((64, 15), x.dtype), np.zeros((64, 15), np.uint8)
        for i in numba.prange(8):
            rows = slice(8 * i, 8 * i + 8)
            fa.linear_maxout(x[rows], weight, bias, out=(y[rows], argmax[rows]))
        return y, argmax

    wanted = numba.njit(blocks)(x, weight, bias)
    assert_alike(numba.njit(blocks, parallel=True)(x, weight, bias), wanted, "c")


@needs_c
def test_thread_count_and_tier_in_force_reach_nopython_code():
    from fastact.overloads import native

    native.c_kernel("fa_linear_maxout")
    read = numba.njit(lambda: (native.default(0), native.default(1)))
    threads, tier = settings._default_threads, fa.get_float32_matmul_precision()
    try:
        fa.set_num_threads(7)
        fa.set_float32_matmul_precision("medium")
        assert read() == (7, settings.PRECISIONS.index("medium"))
        fa.set_float32_matmul_precision("highest")
        assert read() == (7, 0)
    finally:
        settings._default_threads = settings.DEFAULTS[0] = threads
        fa.set_float32_matmul_precision(tier)


LOSS = """
import numba
import numpy as np
import fastact as fa

@numba.njit(cache=True)
def outer(y, target):
    return fa.mse(y, target)[0]

def run():
    return outer(np.arange(9.0), np.ones(9)).hex()
"""

HITS = """
def hits():
    return sum(outer.stats.cache_hits.values())
"""

PREPARE = """
import os, sys, warnings
sys.path.insert(0, {folder!r})
{before}
import numpy as np
import fastact as fa
from fastact import overloads
overloads.init()
"""

TRAINING = """
import numba
import numpy as np
import fastact as fa

@numba.njit(nogil=True, cache=True)
def epoch(x, labels, weight, bias, lr):
    total = 0.0
    for i in range(0, len(x), 10):
        y, argmax = fa.linear_maxout(x[i : i + 10], weight, bias)
        loss, grad = fa.softmax_cross_entropy(y, labels[i : i + 10])
        _, grad_weight, grad_bias = fa.linear_maxout_backward(
            grad, x[i : i + 10], weight, argmax, needs=(False, True, True)
        )
        weight -= lr * grad_weight
        bias -= lr * grad_bias
        total += loss
    return total

@numba.njit(cache=True)
def outer(x, labels, weight, bias, lr):
    return epoch(x, labels, weight, bias, lr)

def run(function=outer):
    rng = np.random.default_rng(0)
    x, weight = rng.random((40, 8), np.float32), rng.random((3, 2, 8), np.float32)
    return function(x, rng.integers(0, 3, 40), weight, np.zeros((3, 2), np.float32), np.float32(0.1)).hex()
"""


@pytest.fixture
def folder(tmp_path):
    for name, source in {"training": TRAINING, "loss": LOSS}.items():
        (tmp_path / f"{name}.py").write_text(source + HITS)
    return tmp_path


def run(folder, code, before="", **environment):
    source = PREPARE.format(folder=str(folder), before=before) + textwrap.dedent(code)
    cache = str(folder / "cache")
    return output_of(source, 120, PYTHONPATH=str(ROOT), NUMBA_CACHE_DIR=cache, **environment).split()


@needs_c
def test_second_process_starts_from_the_cache(folder):
    code = "import training; print(training.run(), training.run(training.outer.py_func), training.hits())"
    first, plain, hits = run(folder, code)
    assert (first, hits) == (plain, "0")
    assert run(folder, code) == [first, plain, "1"]


@needs_c
def test_cached_code_runs_for_the_backend_alone_that_it_was_compiled_for(folder):
    code = "import loss; print(loss.run(), loss.hits())"
    by_c, _ = run(folder, code)
    by_numba, hits = run(folder, code, FASTACT_BACKEND="numba")
    assert hits == "0"
    assert run(folder, code, FASTACT_BACKEND="numba") == [by_numba, "1"]
    assert run(folder, code) == [by_c, "0"]
    # as if the extension had not been built
    assert run(folder, code, before='sys.modules["fastact._native"] = None') == [by_numba, "0"]


@needs_c
@needs_fork
def test_forked_child_runs_compiled_code_to_the_same_bits(folder):
    code = """
    import numba
    warnings.simplefilter("ignore", DeprecationWarning)
    fa.set_num_threads(2)
    x, weight = np.random.default_rng(0).random((2, 130, 3, 96), np.float32)
    forward = numba.njit(lambda x, weight: fa.linear_maxout(x, weight)[0])
    wanted = forward(x, weight).tobytes()
    if (child := os.fork()) == 0:
        os._exit(0 if forward(x, weight).tobytes() == wanted else 1)
    print(os.waitpid(child, 0)[1])
    """
    assert run(folder, code) == ["0"]


def test_numba_finds_the_entry_point():
    points = metadata.entry_points(group="numba_extensions", name="init")
    ours = [point for point in points if point.value == "fastact.overloads:init"]
    if not ours:
        pytest.skip("needs fastact installed anew: its metadata has no entry point numba_extensions")
    assert ours[0].load() is overloads.init
    code = "import numba, numpy, fastact as fa; print(numba.njit(lambda z: fa.relu(z))(numpy.ones(1))[0])"
    assert output_of(code, 120, PYTHONPATH=str(ROOT)) == "1.0\n"
