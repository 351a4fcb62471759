"""Dropout from a counter-based generator: published vectors, statistics, the same bits everywhere."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from support.variants import needs_c

import fastact as fa
from fastact import backends, settings
from fastact.backends.numpy import philox4x32
from fastact.nn import network

# A block of the kernels is 32 to 128 numbers, a task 4096.
SIZES = (0, 1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 97, 127, 128, 129, 513, 4095, 4096, 4097, 100_003)
SEEDS = (0, 1, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1)
PROBABILITIES = (0.0, 5e-324, 2**-33, 1e-9, 2**-32, 0.1, 0.5, 0.9, 1 - 2**-32, 1 - 2**-53)


def keep_of(seed, p, shape, backend=None, threads=0):
    keep = np.full(shape, 99, np.uint8)
    module = backends.active() if backend is None else backends.get(backend)
    module.dropout_keep(seed, p, keep, threads)
    return keep


# ---- the specification


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_of_random123s_vectors_is_the_published_result(counter, key, wanted):
    low, high = words(key)
    actual = philox4x32(np.array([words(counter)] * 2, np.uint32), high << 32 | low)
    assert actual.tolist() == [words(wanted)] * 2
    assert actual.dtype == np.uint32


@pytest.mark.parametrize("number", range(4))
def test_keep_of_the_first_counter_compares_its_words_with_the_threshold(backend, number):
    word = words("6627e8d5 e169c58d bc57ac4c 9b00dbd8")[number]
    assert keep_of(0, word / 2**32, 4)[number] == 1
    assert keep_of(0, (word + 1) / 2**32, 4)[number] == 0


@pytest.mark.parametrize("halves", [1, 3, 5])
def test_threshold_halfway_between_whole_numbers_is_rounded_to_even(backend, halves):
    word = words("6627e8d5 e169c58d bc57ac4c 9b00dbd8")[0]  # odd
    keep = keep_of(0, (word + halves / 2 - 1) / 2**32, 1)[0]
    assert keep == (round(word + halves / 2 - 1) <= word)


# ---- the same bits everywhere


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_keep_equals_the_reference_at_every_size(compiled, seed, p):
    for n in SIZES:
        np.testing.assert_array_equal(keep_of(seed, p, n), keep_of(seed, p, n, "numpy"))


def test_keep_is_the_same_for_any_number_of_threads(compiled):
    wanted = keep_of(7, 0.3, 300_001, threads=1)
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(keep_of(7, 0.3, 300_001, threads=threads), wanted)


def test_keep_of_fewer_numbers_is_the_beginning_of_that_of_more(backend):
    wanted = keep_of(3, 0.5, 1000)
    for n in (1, 31, 97, 513):
        np.testing.assert_array_equal(keep_of(3, 0.5, n), wanted[:n])


def test_keep_of_a_matrix_is_that_of_its_elements_in_order(backend):
    np.testing.assert_array_equal(keep_of(3, 0.5, (7, 33)).ravel(), keep_of(3, 0.5, 7 * 33))


def test_keep_writes_nothing_beyond_the_array(compiled):
    for n in (0, 1, 31, 97, 129, 4097):
        whole = np.full(n + 64, 99, np.uint8)
        backends.active().dropout_keep(5, 0.5, whole[32 : 32 + n])
        assert (whole[:32] == 99).all()
        assert (whole[32 + n :] == 99).all()
        assert (whole[32 : 32 + n] <= 1).all()


# ---- statistics, of fixed seeds: within 5 standard deviations

N = 1 << 20


def within(total, n, p):
    return abs(total - n * p) <= 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", [1e-4, 0.1, 0.35, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63])
def test_share_of_dropped_numbers_is_p(each_backend, seed, p):
    assert within(N - int(keep_of(seed, p, N).sum()), N, p)


@pytest.mark.parametrize("p", [0.0, 5e-324, 2**-34])
def test_keep_with_p_below_the_resolution_keeps_all(backend, p):
    assert keep_of(11, p, 100_000).all()


def test_keep_with_p_next_to_one_drops_all(backend):
    assert not keep_of(11, 1 - 2**-53, 100_000).any()


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 16, 32, 64, 96, 128, 4096])
def test_numbers_a_lag_apart_are_dropped_independently(each_backend, lag):
    drop = keep_of(20, 0.3, N) == 0
    assert within(int((drop[lag:] & drop[:-lag]).sum()), N - lag, 0.09)


def test_rows_and_columns_are_dropped_independently(each_backend):
    p, (rows, columns) = 0.2, (4096, 96)
    drop = keep_of(99, p, (rows, columns)) == 0
    for sums, n in ((drop.sum(axis=0), rows), (drop.sum(axis=1), columns)):
        assert all(within(int(total), n, p) for total in sums)
        # the sum of squared deviations has len(sums) degrees of freedom
        chi2 = float(((sums - n * p) ** 2).sum() / (n * p * (1 - p)))
        assert abs(chi2 - len(sums)) <= 5 * math.sqrt(2 * len(sums))
    for i, j in ((0, 1), (0, 4), (17, 53), (94, 95)):
        assert within(int((drop[:, i] & drop[:, j]).sum()), rows, p * p)


@pytest.mark.parametrize("step", [1, 2, 1 << 31, 1 << 32, 1 << 63])
def test_numbers_of_seeds_a_step_apart_are_dropped_independently(each_backend, step):
    first, second = (keep_of(seed, 0.5, N) for seed in (1000, 1000 + step))
    assert within(int((first != second).sum()), N, 0.5)


# ---- a dropout with a seed in a network of one call


class Dropout:
    def __init__(self, p, factor, keep):
        self.p, self.factor, self.keep = p, factor, keep


def call_forward(x, dropouts, training=True):
    parts = tuple((network.DROPOUT, dropout, ("p", "factor", "keep")) for dropout in dropouts)
    return backends.get("c").network_forward(network._objects(), parts, x, training, None, 0, 0)


@needs_c
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (97, 33), (1000, 96)])
def test_network_with_a_seed_drops_the_numbers_that_dropout_keep_names(dtype, rng, shape):
    x = rng.standard_normal(shape).astype(dtype)
    for seed in SEEDS:
        with settings.num_threads(2):
            y, _ = call_forward(x, [Dropout(0.4, 1.5, seed)])
        np.testing.assert_array_equal(y, x * keep_of(seed, 0.4, shape) * dtype.type(1.5))


@needs_c
def test_network_with_a_seed_has_the_gradient_of_the_mask_of_its_forward(rng):
    x, grad_y = rng.standard_normal((2, 97, 33))
    dropouts = [Dropout(0.5, 2.0, 3), Dropout(0.25, 1.25, 4)]
    parts = tuple((network.DROPOUT, dropout, ("p", "factor", "keep")) for dropout in dropouts)
    c = backends.get("c")
    y, tape = c.network_forward(network._objects(), parts, x, True, None, 0, 0)
    grad_x = c.network_backward(network._objects(), parts, x, y, tape, grad_y, False, True, 0)
    mask = keep_of(3, 0.5, x.shape) * 2.0 * keep_of(4, 0.25, x.shape) * 1.25
    np.testing.assert_array_equal(y, x * mask)
    np.testing.assert_array_equal(grad_x, grad_y * mask)


@needs_c
def test_network_in_inference_ignores_the_seed_of_a_dropout(rng):
    x = rng.standard_normal((5, 4))
    linear = fa.Linear(4, 3, rng=0, dtype=np.float64)
    steps, _ = network.parts_of(linear)
    parts = ((network.DROPOUT, Dropout(0.5, 2.0, 3), ("p", "factor", "keep")), *steps)
    y = backends.get("c").network_forward(network._objects(), parts, x, False, None, 0, 0)
    np.testing.assert_array_equal(y, linear(x))


@needs_c
@pytest.mark.parametrize(
    "dropout",
    [
        Dropout(0.5, 2.0, -1),
        Dropout(0.5, 2.0, 2**64),
        Dropout(0.5, 2.0, True),
        Dropout(0.5, 2.0, 3.0),
        Dropout(0.5, 2.0, np.uint64(3)),
        Dropout(0.5, 2.0, None),
        Dropout(0.5, 2, 3),
        Dropout(0.5, True, 3),
        Dropout(1.0, 2.0, 3),
        Dropout(-0.5, 2.0, 3),
        Dropout(math.nan, 2.0, 3),
        SimpleNamespace(p=0.5, factor=2.0),
    ],
    ids=lambda dropout: " ".join(f"{value!r}" for value in vars(dropout).values()),
)
def test_network_with_an_invalid_seed_or_factor_is_not_run(dropout):
    assert call_forward(np.ones((3, 4)), [dropout]) is None
