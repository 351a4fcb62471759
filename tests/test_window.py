"""Windows of rows before a product of a network: what a matrix of windows gives, without that matrix."""

from __future__ import annotations

import numpy as np
import pytest
from support.differences import TOLERANCE, differences
from support.inputs import double, integers, maxout_inputs, normal, reference
from support.linear_maxout import assert_forward
from support.processes import output_of
from support.tolerance import assert_same_bits, assert_within, sum_bound
from support.variants import COMPILED, in_force, needs_proc

import fastact as fa
from fastact import backends, settings
from fastact.nn import network
from fastact.nn.network import ACTIVATION, BRANCH, DROPOUT, LAYER_NORM, LINEAR, MAXOUT, SUM, WINDOW

if backends.why_c_is_missing() is not None:
    pytest.skip(f"no C extension: {backends.why_c_is_missing()}", allow_module_level=True)

c = backends.get("c")
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
ATTRIBUTES = {
    LINEAR: ("precision", "weight", "bias", "activation", "keywords", "slope"),
    MAXOUT: ("precision", "weight", "bias"),
    ACTIVATION: ("activation", "keywords", "slope"),
    LAYER_NORM: ("eps", "weight", "bias"),
    DROPOUT: ("p", "factor", "keep"),
    WINDOW: ("window_size",),
    BRANCH: (),
    SUM: (),
}


@pytest.fixture(params=[v for v in COMPILED if not v.startswith("numba")], autouse=True)
def variant(request):
    """Each instruction set in turn."""
    with in_force(request.param):
        yield request.param


class Attributes:
    """The attributes of a step."""

    precision = slope = None

    def __init__(self, **values):
        vars(self).update(values)


def part(kind, **values):
    return kind, Attributes(**values), ATTRIBUTES[kind]


def parameter(values):
    return fa.Parameter(values, "parameter")


def window(size):
    return part(WINDOW, window_size=size)


def maxout(weight, bias):
    return part(MAXOUT, weight=parameter(weight), bias=None if bias is None else parameter(bias))


def linear(weight, bias, activation="identity"):
    return part(LINEAR, weight=parameter(weight), bias=parameter(bias), activation=activation, keywords={})


def layer_norm(weight, bias):
    return part(LAYER_NORM, eps=1e-5, weight=parameter(weight), bias=parameter(bias))


class Network:
    """Steps in one call; `tape` is that of the last training forward."""

    def __init__(self, *parts):
        self.parts = parts
        self.tape = None

    def forward(self, x, training=False, memory=None, tier="highest"):
        threads = settings.threads_and_mode()
        code = settings.PRECISIONS.index(tier)
        done = c.network_forward(network._objects(), self.parts, x, training, memory, code, threads)
        if done is not None and training:
            self.x, (self.y, self.tape) = x, done
            return self.y
        return done

    def backward(self, grad_y, accumulate=False, needs_input_grad=True):
        arguments = self.parts, self.x, self.y, self.tape, grad_y, accumulate, needs_input_grad
        return c.network_backward(network._objects(), *arguments, settings.threads_and_mode())

    def parameters(self):
        return [
            value
            for _, step, names in self.parts
            for name in names
            if isinstance(value := getattr(step, name), fa.Parameter)
        ]

    def gradients(self):
        return tuple(each.grad for each in self.parameters())

    def argmax(self):
        """The argmax of the only step."""
        ((_, _, start, columns, _, _, _),) = c.network_tape(self.tape)
        return self.tape[start : start + len(self.x) * columns].reshape(len(self.x), columns)


def windows_of(x, size):
    """(rows, (2 size + 1) features): each row between its neighbours, zeros beyond the first and the last."""
    padded = np.pad(x, ((size, size), (0, 0)))
    return np.concatenate([padded[i : i + len(x)] for i in range(2 * size + 1)], axis=1)


def rows_of(grad, size):
    """The gradient of x, from that of `windows_of(x, size)`."""
    rows, features = len(grad), grad.shape[1] // (2 * size + 1)
    padded = np.zeros((rows + 2 * size, features), grad.dtype)
    with np.errstate(invalid="ignore"):
        for i in range(2 * size + 1):
            padded[i : i + rows] += grad[:, i * features : (i + 1) * features]
    return padded[size : size + rows]


def window_maxout(weight, bias, size):
    return Network(window(size), maxout(weight, bias))


def window_inputs(rng, rows, features, out, pieces, size, dtype, values=normal):
    """x, weight, bias and grad_y."""
    depth = (2 * size + 1) * features
    _, *others = maxout_inputs(rng, (rows, depth, out, pieces), dtype, values)
    return values(rng, (rows, features), dtype), *others


ROWS = pytest.mark.parametrize("rows", [1, 2, 3, 5, 17, 97, 1000])
FEATURES = pytest.mark.parametrize("features", [1, 3, 8, 96])
PIECES = pytest.mark.parametrize("pieces", [1, 2, 3, 4])
SIZES = pytest.mark.parametrize("size", [1, 2, 3])


def random_outputs(rng):
    return int(rng.choice((1, 7, 16, 33, 96)))


# ---- one product


@ROWS
@FEATURES
@PIECES
@SIZES
def test_maxout_of_a_window_is_within_the_bounds_of_a_matrix_of_windows(
    rows, features, pieces, size, dtype, threads, rng
):
    out = random_outputs(rng)
    x, weight, bias, grad_y = window_inputs(rng, rows, features, out, pieces, size, dtype)
    net, matrix = window_maxout(weight, bias, size), windows_of(x, size)
    y = net.forward(x, training=True)
    argmax = net.argmax()
    assert_same_bits((y, net.forward(x)), (fa.linear_maxout(matrix, weight, bias)[0],) * 2)
    assert_forward(matrix, weight, bias, y, argmax, "c")

    grad_x = net.backward(grad_y)
    _, *others = fa.linear_maxout_backward(grad_y, matrix, weight, argmax)
    assert_same_bits(net.gradients(), tuple(others))
    exact, *_ = reference("linear_maxout_backward", grad_y, matrix, weight, argmax)
    magnitude, *_ = reference("linear_maxout_backward", abs(grad_y), matrix, abs(weight), argmax)
    bound = sum_bound(rows_of(magnitude, size), (2 * size + 1) * out, dtype, "c")
    assert_within(grad_x, rows_of(exact, size), bound)


@ROWS
@SIZES
def test_reproducible_maxout_of_a_window_has_the_bits_of_a_matrix_of_windows(rows, size, dtype, rng):
    x, weight, bias, _ = window_inputs(rng, rows, 7, 19, 3, size, dtype)
    with fa.reproducible():
        y = window_maxout(weight, bias, size).forward(x)
        expected, _ = fa.linear_maxout(windows_of(x, size), weight, bias)
    assert_same_bits((y,), (expected,))


@ROWS
@FEATURES
@SIZES
@pytest.mark.parametrize("activation", ["identity", "relu", "gelu"])
def test_linear_layer_of_a_window_is_within_the_bounds_of_a_matrix_of_windows(
    rows, features, size, activation, dtype, threads, rng
):
    out = random_outputs(rng)
    x, weight, bias, grad_y = window_inputs(rng, rows, features, out, 1, size, dtype)
    weight, bias = weight[:, 0], bias[:, 0]
    net, matrix = Network(window(size), linear(weight, bias, activation)), windows_of(x, size)
    y = net.forward(x, training=True)
    expected, saved = fa.linear_activation(matrix, weight, bias, activation)
    assert_same_bits((y, net.forward(x)), (expected, expected))

    grad_x = net.backward(grad_y)
    _, *others = fa.linear_activation_backward(grad_y, matrix, weight, saved, activation)
    assert_same_bits(net.gradients(), tuple(others))
    grad_z, weight64 = double(fa.activation_backward(grad_y, saved, activation), weight)
    bound = sum_bound(rows_of(abs(grad_z) @ abs(weight64), size), (2 * size + 1) * out, dtype, "c")
    assert_within(grad_x, rows_of(grad_z @ weight64, size), bound)


@ROWS
@FEATURES
@PIECES
@SIZES
@pytest.mark.parametrize("special", [None, np.inf, np.nan])
def test_whole_numbers_with_ties_and_special_values_give_the_results_of_numpy(
    rows, features, pieces, size, special, dtype, rng
):
    """Infinite weights of losers, and of rows beyond the ends, spoil nothing."""
    arrays = window_inputs(rng, rows, features, random_outputs(rng), pieces, size, dtype, integers)
    x, weight, bias, grad_y = arrays
    if special is not None:
        for array in (x, weight, grad_y):
            array.flat[rng.integers(array.size, size=2)] = special, -special
    net, matrix = window_maxout(weight, bias, size), windows_of(x, size)
    expected_y, expected_argmax = reference("linear_maxout", matrix, weight, bias)
    y = net.forward(x, training=True)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(net.argmax(), expected_argmax)
    grad_x = net.backward(grad_y)
    matrix_grad, *others = reference("linear_maxout_backward", grad_y, matrix, weight, expected_argmax)
    np.testing.assert_array_equal(grad_x, rows_of(matrix_grad, size))
    for grad, expected in zip(net.gradients(), others, strict=True):
        np.testing.assert_array_equal(grad, expected)


@pytest.mark.parametrize("tier", ["high", "medium"])
@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("representable", [True, False])
def test_window_on_a_tier_is_as_accurate_as_a_matrix_of_windows(tier, pieces, representable, threads, rng):
    x, weight, bias, grad_y = window_inputs(rng, 500, 96, 96, pieces, 2, F32)
    if not representable:
        x[100, 3] = np.inf
        grad_y[300] = np.finfo(F32).max
    net, matrix = window_maxout(weight, bias, 2), windows_of(x, 2)
    with np.errstate(all="ignore"):
        y = net.forward(x, training=True, tier=tier)
        assert_same_bits(y, fa.linear_maxout(matrix, weight, bias, precision=tier)[0])
        grad_x = net.backward(grad_y)
        argmax = net.argmax()
        _, *others = fa.linear_maxout_backward(grad_y, matrix, weight, argmax, precision=tier)
    assert_same_bits(net.gradients(), tuple(others))
    if representable:
        exact, *_ = reference("linear_maxout_backward", grad_y, matrix, weight, argmax)
        magnitude, *_ = reference("linear_maxout_backward", abs(grad_y), matrix, abs(weight), argmax)
        error = np.linalg.norm(grad_x - rows_of(exact, 2))
        assert error <= {"high": 1e-5, "medium": 4e-3}[tier] * np.linalg.norm(rows_of(magnitude, 2))


@pytest.mark.parametrize("features", [5, 96, 200])
@pytest.mark.parametrize("kind", [LINEAR, MAXOUT])
def test_results_are_the_same_bits_for_any_number_of_threads(features, kind, dtype, rng):
    x, weight, bias, grad_y = window_inputs(rng, 1000, features, 96, 3 if kind == MAXOUT else 1, 1, dtype)
    product = maxout(weight, bias) if kind == MAXOUT else linear(weight[:, 0], bias[:, 0], "tanh")
    results = []
    for threads in (1, 2, 3):
        net = Network(window(1), product)
        with settings.num_threads(threads):
            y = net.forward(x, training=True)
            grad_x = net.backward(grad_y)
        results.append((y, grad_x, *(np.array(grad) for grad in net.gradients())))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("rows", [1, 4, 97])
def test_gradients_accumulate_and_those_not_needed_are_not_computed(rows, dtype, rng):
    x, weight, bias, grad_y = window_inputs(rng, rows, 8, 7, 3, 2, dtype)
    net = window_maxout(weight, bias, 2)
    net.forward(x, training=True)
    grad_x = net.backward(grad_y)
    once = tuple(np.array(grad) for grad in net.gradients())
    net.forward(x, training=True)
    assert net.backward(grad_y, accumulate=True, needs_input_grad=False) is True
    for grad, first in zip(net.gradients(), once, strict=True):
        np.testing.assert_array_equal(grad, first + first)
    for each in net.parameters():
        each.grad = False
    net.forward(x, training=True)
    assert_same_bits(net.backward(grad_y), grad_x)
    assert net.gradients() == (False, False)


@pytest.mark.parametrize("size", [63, 64])
@pytest.mark.parametrize("rows", [1, 64, 130])
def test_large_window_gives_the_results_of_numpy(size, rows, dtype, rng):
    x, weight, bias, grad_y = window_inputs(rng, rows, 3, 5, 2, size, dtype, integers)
    net, matrix = window_maxout(weight, bias, size), windows_of(x, size)
    y, argmax = reference("linear_maxout", matrix, weight, bias)
    np.testing.assert_array_equal(net.forward(x, training=True), y)
    expected, *_ = reference("linear_maxout_backward", grad_y, matrix, weight, argmax)
    np.testing.assert_array_equal(net.backward(grad_y), rows_of(expected, size))


# ---- networks


def encoder(rng, depth, rows, features, pieces, size, dtype):
    """`depth` times a residual of window, maxout, layer norm and dropout."""
    parts = []
    for _ in range(depth):
        _, weight, bias, _ = window_inputs(rng, rows, features, features, pieces, size, dtype)
        keep = (rng.random((rows, features)) < 0.8).astype(np.uint8)
        parts += [
            part(BRANCH),
            window(size),
            maxout(weight, bias),
            layer_norm(normal(rng, features, dtype), normal(rng, features, dtype)),
            part(DROPOUT, p=0.2, factor=1.25, keep=keep),
            part(SUM),
        ]
    return parts


def nested(rng, rows, features, dtype):
    """A window of x itself, residuals over several windows, and products and activations between windows."""
    wide = features + 2

    def product(size, takes, returns):
        _, weight, bias, _ = window_inputs(rng, rows, takes, returns, 2, size, dtype)
        return maxout(weight, bias)

    _, weight, bias, _ = window_inputs(rng, rows, features, wide, 1, 2, dtype)
    return [
        *(window(3), product(3, features, features)),
        part(BRANCH),
        part(ACTIVATION, activation="tanh", keywords={}),
        part(BRANCH),
        *(window(2), linear(weight[:, 0], bias[:, 0], "gelu")),
        *(window(1), product(1, wide, features)),
        part(SUM),
        product(0, features, features),
        part(SUM),
        *(window(1), product(1, features, wide)),
        part(BRANCH),
        part(ACTIVATION, activation="relu", keywords={}),
        part(SUM),
    ]


def run_step_by_step(parts, x, grad_y):
    """y, grad_x and the gradients of the parameters, of a network for each step."""
    steps, branches, y = [], [], x
    parts = list(parts)
    while parts:
        taken = [parts.pop(0)]
        if taken[0][0] == WINDOW:
            taken.append(parts.pop(0))
        kind = taken[0][0]
        if kind == BRANCH:
            branches.append(y)
        elif kind == SUM:
            y = y + branches.pop()
        else:
            net = Network(*taken)
            y = net.forward(y, training=True)
        steps.append((kind, None if kind in (BRANCH, SUM) else net))
    grad = grad_y
    for kind, net in reversed(steps):
        if kind == SUM:
            branches.append(grad)
        elif kind == BRANCH:
            grad = grad + branches.pop()
        else:
            grad = net.backward(grad)
    return y, grad, *(np.array(p.grad) for _, net in steps if net for p in net.parameters())


NETWORKS = {
    **{
        f"encoder{depth}": lambda *args, depth=depth: encoder(args[0], depth, *args[1:3], 3, 1, args[3])
        for depth in (1, 2, 4)
    },
    "wide": lambda rng, rows, features, dtype: encoder(rng, 3, rows, features, 2, 3, dtype),
    "nested": nested,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [1, 2, 5, 17, 97, 1500])
@pytest.mark.parametrize("features", [1, 8, 33])
def test_network_has_the_bits_of_its_steps_one_by_one(name, rows, features, dtype, threads, rng):
    parts = NETWORKS[name](rng, rows, features, dtype)
    net = Network(*parts)
    x = normal(rng, (rows, features), dtype)
    y = net.forward(x, training=True)
    grad_y = normal(rng, y.shape, dtype)
    grad_x = net.backward(grad_y)
    got = y, grad_x, *(np.array(grad) for grad in net.gradients())
    assert_same_bits(got, run_step_by_step(parts, x, grad_y))
    assert_same_bits(
        net.forward(x), Network(*(p for p in parts if p[0] != DROPOUT)).forward(x, training=True)
    )


@pytest.mark.parametrize("name", ["encoder2", "nested"])
@pytest.mark.parametrize("features", [1, 33, 96])
@pytest.mark.parametrize("tier", ["highest", "high", "medium"])
def test_inference_of_a_large_batch_has_the_bits_of_training(name, features, tier, dtype, rng):
    parts = [p for p in NETWORKS[name](rng, 3100, features, dtype) if p[0] != DROPOUT]
    net, x = Network(*parts), normal(rng, (3100, features), dtype)
    x[2000, 0] = np.inf  # not representable on a tier
    with np.errstate(all="ignore"):
        expected = net.forward(x, training=True, tier=tier)
        for threads in (1, 2, 3):
            with settings.num_threads(threads):
                assert_same_bits(net.forward(x, tier=tier), expected)


MEMORY = """
import numpy as np, fastact as fa
from pathlib import Path
from types import SimpleNamespace
from fastact import backends
from fastact.nn import network

def peak():
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024  # MB

def parameter(values):
    return fa.Parameter(values.astype(np.float32), "parameter")

c, objects, parts = backends.get("c"), network._objects(), ()
for _ in range(3):
    weight = parameter(np.ones((48, 2, 7 * 48)))
    maxout = SimpleNamespace(precision=None, weight=weight, bias=None)
    norm = SimpleNamespace(eps=1e-5, weight=parameter(np.ones(48)), bias=None)
    parts += (
        (network.BRANCH, None, ()),
        (network.WINDOW, SimpleNamespace(window_size=3), ("window_size",)),
        (network.MAXOUT, maxout, ("precision", "weight", "bias")),
        (network.LAYER_NORM, norm, ("eps", "weight", "bias")),
        (network.SUM, None, ()),
    )
x = np.ones((60000, 48), np.float32)
c.network_forward(objects, parts, x[:2000], False, None, 0, 1)
before = peak()
if {training}:
    y, tape = c.network_forward(objects, parts, x, True, None, 0, 1)
    c.network_backward(objects, parts, x, y, tape, x, False, True, 1)
    kept = 2 * y.nbytes + tape.nbytes  # y, grad_x, the tape
else:
    kept = c.network_forward(objects, parts, x, False, None, 0, 1).nbytes
print((peak() - before) * 2**20 / x.nbytes - kept / x.nbytes)
"""


@needs_proc
@pytest.mark.parametrize(("training", "arrays"), [(False, 2), (True, 4)])
def test_windows_allocate_no_matrix_of_windows(training, arrays, variant):
    """Beside the results and the tape: two arrays between segments; three gradients, and a copy of grad_y.

    A matrix of windows would be 7 arrays more.
    """
    if variant == f"c-{c.supported_isas()[0]}":
        assert float(output_of(MEMORY.format(training=training))) < arrays + 0.5


def test_tape_of_an_encoder_has_two_arrays_for_each_block(rng):
    """What maxout returns, and what layer norm, dropout and sum do; the last block's sum is y."""
    depth, rows, features = 3, 1000, 48
    net = Network(*encoder(rng, depth, rows, features, 3, 1, F32))
    y = net.forward(normal(rng, (rows, features), F32), training=True)
    places = [place[0] for place in c.network_tape(net.tape)]
    for block in range(depth):
        maxout, *others = places[5 * block + 1 : 5 * block + 5]  # after the branch
        assert len(set(others)) == 1
        assert maxout != others[0]
    assert set(others) == {-1}
    bytes_and_norms = depth * (2 * rows * features + 8 * rows)
    arrays = 2 * depth * y.nbytes  # with the copy of x
    assert 0 < net.tape.nbytes - arrays - bytes_and_norms < 10000  # margins and the description of the steps


def test_tape_of_another_network_is_used_again(rng):
    """Margins are zeros again in memory that held other numbers."""
    parts = encoder(rng, 2, 40, 8, 3, 2, F32)
    net, x = Network(*parts), normal(rng, (40, 8), F32)
    expected = net.forward(x, training=True)
    memory = np.full(net.tape.nbytes + 1000, 0xFF, np.uint8)
    assert_same_bits(net.forward(x, training=True, memory=memory), expected)
    assert net.tape is memory
    other = Network(*encoder(rng, 1, 300, 12, 3, 2, F32))
    other.forward(np.full((300, 12), np.nan, F32))
    parts = [p for p in parts if p[0] != DROPOUT]
    assert_same_bits(Network(*parts).forward(x), Network(*parts).forward(x, training=True))


@pytest.mark.parametrize("name", ["encoder2", "nested"])
@pytest.mark.parametrize("rows", [1, 3, 6])
def test_gradients_are_those_of_finite_differences(name, rows, rng):
    net = Network(*NETWORKS[name](rng, rows, 4, F64))
    x = normal(rng, (rows, 4), F64)
    factor = normal(rng, net.forward(x, training=True).shape, F64) / 64

    def loss():
        return float((net.forward(x, training=True) * factor).sum())

    grad_x = net.backward(factor)
    grads = [np.array(grad) for grad in net.gradients()]
    np.testing.assert_allclose(grad_x, differences(loss, x), rtol=1e-7, atol=TOLERANCE)
    for each, grad in zip(net.parameters(), grads, strict=True):
        np.testing.assert_allclose(grad, differences(loss, each.data), rtol=1e-7, atol=TOLERANCE)


# ---- what is not usable


WEIGHT = np.ones((2, 3, 9), F32)
PRODUCT = maxout(WEIGHT, None)


@pytest.mark.parametrize("size", [0, -1, 65, 2**32 + 1, 2**70, True, 1.0, "1", None, np.int64(1)], ids=repr)
def test_window_size_that_is_not_an_int_in_range_is_not_usable(size):
    assert Network(window(size), PRODUCT).forward(np.ones((4, 3), F32)) is None


@pytest.mark.parametrize(
    "parts",
    [
        [window(1)],
        [PRODUCT, window(1)],
        [window(1), window(1), PRODUCT],
        [window(1), part(ACTIVATION, activation="relu", keywords={}), PRODUCT],
        [window(1), part(BRANCH), PRODUCT],
        [window(1), part(DROPOUT, p=0.5, factor=2.0, keep=np.ones((4, 3), np.uint8)), PRODUCT],
        [PRODUCT],
        [window(2), PRODUCT],
        [part(WINDOW), PRODUCT],
        [window(1), PRODUCT, part(SUM)],
    ],
    ids=lambda parts: "-".join(str(kind) for kind, _, _ in parts),
)
@pytest.mark.parametrize("training", [False, True])
def test_window_without_a_product_of_its_depth_is_not_usable(parts, training):
    assert Network(*parts).forward(np.ones((4, 3), F32), training) is None


def test_backward_of_another_window_than_the_forwards_is_not_usable(rng):
    x, weight, bias, grad_y = window_inputs(rng, 6, 3, 2, 3, 1, F32)
    net = window_maxout(weight, bias, 1)
    net.forward(x, training=True)
    wide = window_inputs(rng, 6, 3, 2, 3, 2, F32)[1]
    net.parts = window_maxout(wide, bias, 2).parts
    assert net.backward(grad_y) is None
    assert net.gradients() == (None, None)


def test_code_of_a_window_is_that_of_c():
    assert WINDOW == c.lib.FA_WINDOW
