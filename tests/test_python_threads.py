"""Python threads share layers and frozen models as documented, also where Python has no GIL."""

from __future__ import annotations

import copy
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.variants import COMPILED_BACKENDS

import fastact as fa
from fastact import backends

THREADS, CALLS = 8, 40


@pytest.fixture(params=COMPILED_BACKENDS)
def backend(request):
    """A backend that is compiled, with Python's threads switching as often as they can."""
    backends.set_backend(request.param)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield request.param
    sys.setswitchinterval(interval)
    backends.set_backend(None)


def network():
    return fa.Sequential(
        fa.Maxout(24, 40, pieces=3, rng=0),
        fa.LayerNorm(40),
        fa.Residual(fa.Linear(40, 40, activation="gelu", rng=1)),
        fa.Linear(40, 5, activation="prelu", rng=2),
    )


def at_once(function):
    """What `function(i)` returns for each of the threads, which begin together."""
    barrier = threading.Barrier(THREADS)

    def run(i):
        barrier.wait()
        return function(i)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def inputs(rows):
    return np.random.default_rng(rows).standard_normal((rows, 24)).astype(np.float32)


def train(model, steps=CALLS):
    """The bytes of the parameters after some steps."""
    optimizer = fa.Adam(model.parameters(), lr=0.01)
    x, labels = inputs(64), np.arange(64) % 5
    for _ in range(steps):
        _, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
        model.backward(grad)
        fa.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return b"".join(parameter.data.tobytes() for parameter in model.parameters())


@pytest.mark.parametrize("team", [1, 2])
@pytest.mark.parametrize("frozen", [False, True], ids=["layers", "frozen"])
def test_model_that_threads_share_computes_the_same_bits(backend, frozen, team):
    model = fa.freeze(network()) if frozen else network()
    expected = [model(inputs(1 + 37 * i)).tobytes() for i in range(THREADS)]

    def run(i):
        with fa.num_threads(team):
            return all(model(inputs(1 + 37 * i)).tobytes() == expected[i] for _ in range(CALLS))

    assert at_once(run) == [True] * THREADS


def test_models_of_threads_of_their_own_train_to_the_same_bits(backend):
    models = [copy.deepcopy(network()) for _ in range(THREADS)]
    expected = train(network())
    assert at_once(lambda i: train(models[i])) == [expected] * THREADS


def test_frozen_copies_made_while_others_run_compute_the_same_bits(backend):
    model, x = network(), inputs(33)
    expected = fa.freeze(model)(x).tobytes()
    assert (
        at_once(lambda i: all(fa.freeze(model)(x).tobytes() == expected for _ in range(CALLS)))
        == [True] * THREADS
    )


def test_threads_set_their_own_thread_count_and_tier(backend):
    tiers = ("highest", "high", "medium")

    def run(i):
        for _ in range(CALLS):
            with fa.num_threads(i + 1), fa.float32_matmul_precision(tiers[i % 3]):
                model_output = fa.linear_maxout(inputs(5), np.ones((3, 2, 24), np.float32))[0]
                if (fa.get_num_threads(), fa.get_float32_matmul_precision()) != (i + 1, tiers[i % 3]):
                    return None
        return model_output.shape

    assert at_once(run) == [(5, 3)] * THREADS


def test_extension_leaves_the_gil_off_in_a_free_threaded_python():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("needs a free-threaded Python")
    assert backends.why_c_is_missing() is None
    assert not sys._is_gil_enabled()
