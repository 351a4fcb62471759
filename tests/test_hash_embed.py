"""Hash embeddings: every backend against a plain NumPy computation, and the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from support.tolerance import assert_same_bits
from support.variants import in_force, needs_c

from fastact import backends
from fastact.backends.interface import HashTable
from fastact.backends.numpy import murmur_hash

MASK = 2**64 - 1
ROWS = (0, 1, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)
COLUMNS = (0, 1, 3, 15, 16, 17, 31, 32, 33, 96, 97)
EXTREMES = (0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, MASK)


def hash_words(number, seed):
    """MurmurHash3_x64_128 of one 64-bit number, in Python's integers."""

    def mix(h):
        h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
        h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
        return h ^ h >> 33

    k = number * 0x87C37B91114253D5 & MASK
    k = (k << 31 & MASK | k >> 33) * 0x4CF5AD432745937F & MASK
    h1, h2 = seed ^ k ^ 8, seed ^ 8
    h1 = h1 + h2 & MASK
    h2 = h2 + h1 & MASK
    h1, h2 = mix(h1), mix(h2)
    h1 = h1 + h2 & MASK
    h2 = h2 + h1 & MASK
    return [h1 & 0xFFFFFFFF, h1 >> 32, h2 & 0xFFFFFFFF, h2 >> 32]


def make_tables(rng, dtype, sizes, id_columns=1, scaled=()):
    """A table for each (rows, columns) of `sizes`; those of `scaled` have a scale with zeros."""
    tables = []
    for t, (rows, columns) in enumerate(sizes):
        scale = (rng.random(columns) < 0.7).astype(dtype) * dtype.type(1.25) if t in scaled else None
        data = rng.standard_normal((rows, columns)).astype(dtype)
        tables.append(HashTable(data, t % id_columns, int(rng.integers(2**32)), scale))
    return tuple(tables)


def forward(ids, tables, threads=0):
    """y and the keys; both have guards around them that nothing writes to."""
    dtype, columns = tables[0].data.dtype, sum(table.data.shape[1] for table in tables)
    memory = np.full((len(ids) + 2, columns), 99, dtype)
    keys = np.full((len(tables) + 2, len(ids), 4), 99, np.uint32)
    backends.active().hash_embed(ids, tables, memory[1:-1], keys[1:-1], threads)
    assert (memory[[0, -1]] == 99).all()
    assert (keys[[0, -1]] == 99).all()
    return memory[1:-1], keys[1:-1]


def backward(grad_y, keys, tables, starts, threads=0):
    """The gradients, added to copies of `starts`."""
    guarded = [np.full((len(start) + 2, start.shape[1]), 99, start.dtype) for start in starts]
    for memory, start in zip(guarded, starts, strict=True):
        memory[1:-1] = start
    grads = tuple(table._replace(data=memory[1:-1]) for table, memory in zip(tables, guarded, strict=True))
    backends.active().hash_embed_backward(grad_y, keys, grads, threads)
    assert all((memory[[0, -1]] == 99).all() for memory in guarded)
    return [memory[1:-1] for memory in guarded]


def random_ids(rng, rows, columns=1):
    """Few different ids, so that some repeat, and the extremes."""
    return rng.choice(np.array([*EXTREMES, *range(1000, 1030)], np.uint64), (rows, columns))


# ---- the specification


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_murmur_hash_equals_the_algorithm_in_whole_numbers(seed):
    ids = np.array([*EXTREMES, 123456789, 0x0123456789ABCDEF], np.uint64)
    assert murmur_hash(ids, seed).tolist() == [hash_words(int(number), seed) for number in ids]


def test_result_is_the_scaled_sum_of_the_rows_that_the_keys_name(backend, dtype, rng):
    (table,) = make_tables(rng, dtype, [(50, 33)], scaled={0})
    ids = random_ids(rng, 20)
    y, keys = forward(ids, (table,))
    for i, number in enumerate(ids[:, 0]):
        wanted = [word % 50 for word in hash_words(int(number), table.seed)]
        assert keys[0, i].tolist() == wanted
        total = np.zeros(33, dtype)
        for key in wanted:
            total += table.data[key]
        np.testing.assert_array_equal(y[i], total * table.scale)


@pytest.mark.parametrize("rows", [1, 2, 3, 255, 256, 641, 65_537, 1_000_003])
def test_keys_are_remainders_for_any_number_of_rows(backend, rng, rows):
    table = HashTable(np.zeros((rows, 1), np.float32), 0, 5, None)
    ids = rng.integers(2**64, size=(2000, 1), dtype=np.uint64)
    _, keys = forward(ids, (table,))
    np.testing.assert_array_equal(keys[0], murmur_hash(ids[:, 0], 5).astype(np.uint64) % rows)


# ---- every backend against it, to the bit


def reference(ids, tables, grad_y, starts):
    reference_backend = backends.get("numpy")
    y = np.empty_like(grad_y)
    keys = np.empty((len(tables), len(ids), 4), np.uint32)
    reference_backend.hash_embed(ids, tables, y, keys)
    grads = [start.copy() for start in starts]
    named = tuple(table._replace(data=grad) for table, grad in zip(tables, grads, strict=True))
    reference_backend.hash_embed_backward(grad_y, keys, named)
    return y, keys, *grads


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_both_directions_equal_the_reference_at_every_size(compiled, dtype, rng, rows, columns):
    sizes = [(7, columns), (13, 5), (1, columns)]
    tables = make_tables(rng, dtype, sizes, 2, scaled={0, 1})
    ids = random_ids(rng, rows, 2)
    grad_y = rng.standard_normal((rows, 2 * columns + 5)).astype(dtype)
    starts = [rng.standard_normal(size).astype(dtype) for size in sizes]
    y, keys = forward(ids, tables)
    grads = backward(grad_y, keys, tables, starts)
    assert_same_bits((y, keys, *grads), reference(ids, tables, grad_y, starts))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_both_directions_are_the_same_for_any_number_of_threads(compiled, dtype, rng, threads):
    sizes = [(500, 96), (250, 96), (250, 33), (40, 1), (250, 130)]
    tables = make_tables(rng, dtype, sizes, 4, scaled={1, 4})
    ids = random_ids(rng, 1500, 4)
    grad_y = rng.standard_normal((1500, 356)).astype(dtype)
    starts = [np.zeros(size, dtype) for size in sizes]
    y, keys = forward(ids, tables, threads)
    grads = backward(grad_y, keys, tables, starts, threads)
    assert_same_bits((y, keys, *grads), reference(ids, tables, grad_y, starts))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -0.0, 5e-324, 1e-45, 3e38])
def test_unusual_values_go_through_as_in_the_reference(compiled, dtype, rng, value):
    with np.errstate(all="ignore"):
        value = dtype.type(value)
    tables = make_tables(rng, dtype, [(3, 35)], scaled={0})
    tables[0].data[1] = value
    tables[0].scale[:2] = 0, value
    ids = random_ids(rng, 17)
    grad_y = np.full((17, 35), value)
    y, keys = forward(ids, tables)
    grads = backward(grad_y, keys, tables, [np.zeros((3, 35), dtype)])
    wanted = reference(ids, tables, grad_y, [np.zeros((3, 35), dtype)])
    for got, expected in zip((y, *grads), (wanted[0], wanted[2]), strict=True):
        np.testing.assert_array_equal(got, expected)  # NaN equals NaN
        np.testing.assert_array_equal(np.signbit(got)[got == 0], np.signbit(expected)[got == 0])


# ---- what the gradient is


def test_backward_is_the_derivative_of_the_forward(backend, rng):
    dtype = np.dtype(np.float64)
    tables = make_tables(rng, dtype, [(5, 3), (4, 2)], 2, scaled={1})
    ids = random_ids(rng, 9, 2)
    y, keys = forward(ids, tables)
    grad_y = rng.standard_normal(y.shape)
    grads = backward(grad_y, keys, tables, [np.zeros_like(table.data) for table in tables])
    step = 2.0**-10  # the forward is linear, so any step will do
    for table, grad in zip(tables, grads, strict=True):
        for at in np.ndindex(*table.data.shape):
            before = table.data[at]
            table.data[at] = before + step
            slope = ((forward(ids, tables)[0] - y) * grad_y).sum() / step
            table.data[at] = before
            # a y below 16 is off by at most 2^-49 / 2 for each of five additions, which the step magnifies
            assert abs(slope - grad[at]) <= 2.0**-49 * 5 / step * np.abs(grad_y).sum() * 2


@needs_c
def test_keys_beyond_the_table_write_nothing(rng):
    # as if another thread wrote to keys after the forward
    tables = make_tables(rng, np.dtype(np.float32), [(5, 16)])
    ids = random_ids(rng, 9)
    with in_force("c"):
        y, keys = forward(ids, tables)
        keys[...] = np.array([5, 6, 2**31, 2**32 - 1], np.uint32)
        (grad,) = backward(np.ones_like(y), keys, tables, [np.zeros((5, 16), np.float32)])
    assert not grad.any()


def test_backward_adds_to_what_is_there(backend, dtype, rng):
    tables = make_tables(rng, dtype, [(5, 16)])
    ids = random_ids(rng, 1)
    y, keys = forward(ids, tables)
    once = backward(np.ones_like(y), keys, tables, [np.zeros((5, 16), dtype)])
    twice = backward(np.ones_like(y), keys, tables, once)
    np.testing.assert_array_equal(twice[0], 2 * once[0])
    assert once[0].sum() == 4 * 16
