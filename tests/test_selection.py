"""The default part of the cases keeps every pair of levels."""

import itertools
from types import SimpleNamespace

import pytest
from support.selection import kept
from support.shapes import SHAPES, Shape


def product(name, **levels):
    """Items as pytest makes them of fixtures with these levels."""
    return [
        SimpleNamespace(
            originalname=name,
            callspec=SimpleNamespace(params=dict(zip(levels, case, strict=True))),
            iter_markers=lambda kind: (),
        )
        for case in itertools.product(*levels.values())
    ]


def pairs(items):
    return {
        pair for item in items for pair in itertools.combinations(sorted(item.callspec.params.items()), 2)
    }


@pytest.mark.parametrize(
    "sizes", [(5, 2, 21), (2, 2, 2), (4, 2, 3, 3, 3), (22, 6, 5, 1), (2, 2, 2, 2, 9)], ids=str
)
@pytest.mark.parametrize("name", ["test_a", "test_b", "test_c"])
def test_default_part_keeps_every_pair(name, sizes):
    levels = {f"factor{i}": [f"{i}-{level}" for level in range(size)] for i, size in enumerate(sizes)}
    items = product(name, **levels)
    part = kept(items, full=False)
    assert pairs(part) == pairs(items)
    assert len(part) <= len(items) / 2 + 1
    assert kept(items, full=True) == items


def test_two_factors_keep_their_whole_product():
    items = product("test_a", backend=["numpy", "numba", "c-scalar"], dtype=["float32", "float64"])
    assert kept(items, full=False) == items


def test_names_of_one_mark_are_one_factor():
    items = product("test_a", both=[(1, "a"), (2, "a"), (3, "b")], dtype=["float32", "float64"])
    for item in items:
        item.callspec.params["first"], item.callspec.params["second"] = item.callspec.params.pop("both")
        item.iter_markers = lambda kind: [SimpleNamespace(args=("first, second", []))]
    assert kept(items, full=False) == items


def test_two_threads_run_where_the_work_is_enough_for_a_team():
    small, large = Shape(8, 8, 8, 2), Shape(100, 300, 60, 2)
    items = product("test_a", backend=["numpy", "numba", "c-avx2"], shape=[small, large], threads=[1, 2])
    for full in (False, True):
        cases = [item.callspec.params for item in kept(items, full)]
        threaded = [(case["backend"], case["shape"]) for case in cases if case["threads"] == 2]
        assert threaded == [("numba", large), ("c-avx2", large)]
        assert len(cases) == 6 + 2


def test_sizes_beside_other_neighbours_run_with_full_alone():
    items = product("test_a", backend=["c-avx2"], shape=SHAPES)
    sizes = [[item.callspec.params["shape"] for item in kept(items, full)] for full in (False, True)]
    assert sizes[1] == SHAPES
    assert len(sizes[0]) == len(SHAPES) - 21
    for place in range(3):
        assert {shape[place] for shape in sizes[0]} == {shape[place] for shape in SHAPES}
