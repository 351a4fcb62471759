"""Dropout's bytes and hash embeddings, operations of a backend that adapters call: equal to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastact import backends
from fastact.backends.interface import HashTable

from ..bounds import assert_equal
from ..case import Case, Option, Result, Results
from ..draw import AWKWARD, Array, Draw
from .products import plain, threads_now


def dropout_keep(draw: Draw) -> Case:
    shape = draw.rows()
    if draw.chance(0.003):
        shape = draw.choice(((1, 70001), (4096, 33)))
    seed = int(draw.rng.integers(2**64, dtype=np.uint64))
    p = float(draw.choice((0.0, 2.0**-32, 0.1, 0.5, 0.9)))
    expected = np.empty(shape, np.uint8)
    backends.get("numpy").dropout_keep(seed, p, expected)

    def call(out: Array | None = None) -> Array:
        keep = np.empty(shape, np.uint8) if out is None or not out.flags.carray else out
        backends.active().dropout_keep(seed, p, keep, threads_now())
        return keep

    def check(option: Option, results: Results, backend: str) -> None:
        assert_equal("keep", results[0], expected)

    return Case(call, {}, check, (Result("keep", shape, np.uint8),), work=4 * expected.size)


def hash_embed(draw: Draw) -> Case:
    """Both directions."""
    rows, columns = draw.choice(AWKWARD), draw.choice((1, 2, 3))
    if draw.chance(0.005):
        rows = 2000
    ids = draw.rng.integers(2**64, size=(rows, columns), dtype=np.uint64)
    inputs: dict[str, Array | None] = {"ids": ids}
    tables, widths = [], []
    for i in range(draw.choice((1, 1, 2, 4))):
        shape = draw.choice((1, 17, 300)), draw.choice((0, 1, 3, 8, 16, 17, 64, 97))
        inputs[f"data{i}"], inputs[f"scale{i}"] = draw.numbers(*shape), draw.some(0.5, shape[1])
        tables.append((draw.choice(range(columns)), int(draw.rng.integers(2**32))))
        widths.append(shape[1])
    inputs["grad_y"] = draw.numbers(rows, sum(widths))
    results = [
        Result("y", (rows, sum(widths)), draw.dtype),
        Result("keys", (len(tables), rows, 4), np.uint32),
    ]
    results += [Result(f"grad{i}", inputs[f"data{i}"].shape, draw.dtype) for i in range(len(tables))]  # type: ignore[union-attr]

    def run(backend: Any, arrays: Any, out: Any) -> Any:
        y, keys, *grads = out
        made = tuple(
            HashTable(arrays[f"data{i}"], column, seed, arrays[f"scale{i}"])
            for i, (column, seed) in enumerate(tables)
        )
        backend.hash_embed(arrays["ids"], made, y, keys, threads_now())
        for grad in grads:
            grad[...] = 1
        added = tuple(table._replace(data=grad) for table, grad in zip(made, grads, strict=True))
        backend.hash_embed_backward(arrays["grad_y"], keys, added, threads_now())
        return tuple(out)

    def call(out: Any = None, **arrays: Any) -> Any:
        given = out or (None,) * len(results)
        own = [
            a if a is not None and a.flags.carray else np.empty(r.shape, r.dtype)
            for a, r in zip(given, results, strict=True)
        ]
        taken = {name: None if a is None else plain(a) for name, a in arrays.items()}
        return run(backends.active(), taken, own)

    expected = run(backends.get("numpy"), inputs, [np.empty(r.shape, r.dtype) for r in results])

    def check(option: Option, got: Results, backend: str) -> None:
        for result, array, wanted in zip(results, got, expected, strict=True):
            assert_equal(result.name, array, wanted)

    work = 30 * rows * (sum(widths) + 8 * len(tables)) + 2 * sum(a.size for a in expected)
    return Case(call, inputs, check, results, work=work, calls=2)


OPERATIONS = {"dropout_keep": (dropout_keep, 1.0), "hash_embed": (hash_embed, 2.0)}
