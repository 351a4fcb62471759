"""A case: arrays and numbers that are drawn once, the calls that are made of them, and what has to hold.

For every variant (a backend, or an instruction set of C) each call of a case differs from the others in its
threads, the layout and place of its arrays, `out=`, and its option: `needs`, `accumulate`, `return_argmax`.
The first result of an option is held against its bound.  Every other one has to have the same bits, whatever
the threads, layouts and places are; with reproducible results, on every instruction set.
"""

from __future__ import annotations

import gc
import random
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastact import settings

from .draw import Draw, other_layout, writeable_layout
from .memory import PLACES, Pool, allocated
from .variants import is_reproducible

Array = np.ndarray[Any, Any]
Option = Mapping[str, Any]
Results = Sequence[Any]

LARGEST_WORK = 12_000_000  # multiply-adds of all calls of a case on one variant
CALL_WORK = 60_000  # what a call costs beside its own work
MOST_CALLS = 48
LEAK_SHARE = 16  # one case in so many is tested for leaks
LEAK_CALLS = 10
LEAK_WORK = 1_000_000  # calls of more work are not tested for leaks
THREADS = (1, 1, 2, 3, 4)
SLOW = {"numba": 16, "numpy": 8}  # these backends make a share of the calls, and so many times fewer
REPRODUCIBLE_SHARE = 4  # one case in so many is run with reproducible results too


class Given(NamedTuple):
    """How a call is made."""

    option: int  # its place among the case's options
    threads: int
    inputs: int  # which of the sets of arrays
    out: int  # which of the sets of `out`


class Result(NamedTuple):
    """A result that `out=` takes."""

    name: str
    shape: tuple[int, ...]
    dtype: Any


class Failure(AssertionError):
    """What went wrong in a call, and the place of the call in its case."""

    def __init__(self, call: int, given: Given | None, message: str) -> None:
        super().__init__(message)
        self.call, self.given, self.message = call, given, message


class Case:
    """Calls of one public function, method or chain of them, on arrays drawn once.

    Args:
        function: called with the arrays of `inputs` by name, `out` and the keywords of an option; or, if
            there are no `results`, without `out`.
        inputs: the arrays that are only read, by argument; None for an argument that is absent.
        check: (option, results, backend) raises AssertionError where a result is out of its bound; for
            `accumulate` the arrays that were added to are in `bases`.
        results: what `out=` takes; none for a function without it.
        options: keywords, one of which a call has.
        in_place: inputs that the first result may be written to.
        work: multiply-adds of a call, or elements.
        calls: calls of public functions that one run of `function` makes.
        leaks: whether memory that calls leave allocated is a leak; frameworks keep some.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Mapping[str, Array | None],
        check: Callable[[Option, Results, str], None],
        results: Sequence[Result] = (),
        options: Sequence[Option] = ({},),
        *,
        in_place: Sequence[str] = (),
        work: float = 0,
        calls: int = 1,
        leaks: bool = True,
    ) -> None:
        self.function, self.inputs, self.check = function, dict(inputs), check
        self.results, self.options, self.in_place = tuple(results), tuple(options), tuple(in_place)
        self.work, self.calls, self.leaks = work, calls, leaks
        self.bases: tuple[Array, ...] = ()
        self.reproducible: dict[int, list[bytes | None]] = {}  # the bits of each option on every ISA

    def prepare(self, draw: Draw, pool: Pool) -> None:
        """Place the arrays in memory, in several ways, for the calls of all variants."""
        rng = draw.rng
        self.bases = tuple(_base(draw, result) for result in self.results)
        self._pristine = [(name, a.tobytes()) for name, a in self.inputs.items() if a is not None]
        self.sets = [self.inputs]
        for place in PLACES:
            read_only = bool(rng.random() < 0.5)
            self.sets.append(
                {n: None if a is None else pool.copy(a, place, read_only) for n, a in self.inputs.items()}
            )
        for _ in range(2):
            self.sets.append(
                {
                    name: a if a is None or rng.random() < 0.4 else other_layout(rng, a)
                    for name, a in self.inputs.items()
                }
            )
        self.outs: list[tuple[Array | None, ...]] = [(None,) * len(self.results)]
        if self.results:
            for place in PLACES:
                self.outs.append(tuple(pool.empty(r.shape, r.dtype, place) for r in self.results))
            strided = tuple(writeable_layout(rng, r.shape, r.dtype) for r in self.results)
            self.outs.append(tuple(a if rng.random() < 0.7 else None for a in strided))

    def run(self, given: Given, pool: Pool | None = None) -> Results:
        """The results of one call."""
        option, inputs = self.options[given.option], self.sets[given.inputs]
        if not self.results:
            done = self.function(**inputs, **option)
            return done if isinstance(done, tuple) else (done,)
        accumulate = option.get("accumulate", False)
        out: Any = self.outs[given.out]
        if accumulate and any(array is None for array in out):
            out = self.outs[1]
        for array, base in zip(out, self.bases, strict=True):
            if array is not None:
                array[...] = base
        if self.in_place and given.out == 1 and given.threads == 1 and not accumulate:
            name = self.in_place[0]
            out[0][...] = inputs[name]
            inputs = inputs | {name: out[0]}
        if given.out == 0 and not accumulate:
            out = None
        elif len(self.results) == 1:
            out = out[0]
        done = self.function(**inputs, **option, out=out)
        return done if isinstance(done, tuple) else (done,)

    def assert_inputs_untouched(self) -> None:
        """No call has changed a bit of an array that is only read."""
        for arrays in self.sets:
            for name, wanted in self._pristine:
                array = arrays[name]
                if array is not None and array.tobytes() != wanted:
                    raise AssertionError(f"{name} was changed by a call")


def _base(draw: Draw, result: Result) -> Array:
    """What an array of `out` holds before the call."""
    if np.dtype(result.dtype).kind == "f":
        return draw.moderate(*result.shape).astype(result.dtype)
    return np.full(result.shape, 0xA5, result.dtype)


def bits_of(result: Any) -> bytes | None:
    """The bits of a result, an array or a number."""
    if result is None:
        return None
    return result.tobytes() if isinstance(result, np.ndarray) else np.asarray(result).tobytes()


def same_bits(a: bytes | None, b: bytes | None, like: Any) -> bool:
    """Whether the bits are equal, every NaN being the same."""
    if a == b:
        return True
    if a is None or b is None or len(a) != len(b):
        return False
    dtype = np.asarray(like).dtype
    if dtype.kind != "f":
        return False
    x, y = np.frombuffer(a, dtype), np.frombuffer(b, dtype)
    nan = np.isnan(x)
    return bool(np.array_equal(nan, np.isnan(y)) and x[~nan].tobytes() == y[~nan].tobytes())


def drawn(operation: str, make: Callable[[Draw], Case], seed: int, number: int, pool: Pool) -> Case:
    """Case `number` of an operation, its arrays in place."""
    draw = Draw(np.random.default_rng([seed, zlib.crc32(operation.encode()), number]))
    with np.errstate(all="ignore"):
        case = make(draw)
        case.prepare(draw, pool)
    return case


def plan(case: Case, variant: str, seed: int, number: int) -> list[Given]:
    """The calls of a case on a variant."""
    choose = random.Random(f"{seed} {number} {variant}")
    backend = variant.partition("-")[0]
    if backend in SLOW and number % SLOW[backend]:
        return []
    if is_reproducible(variant) and number % REPRODUCIBLE_SHARE:
        return []
    count = int(LARGEST_WORK / (case.work + CALL_WORK * case.calls))
    count = max(2, min(MOST_CALLS // SLOW.get(backend, 1), count))
    options, sets, outs = len(case.options), len(case.sets), len(case.outs)
    pick = choose.random
    return [
        Given(
            int(pick() * options) if i else 0,
            THREADS[int(pick() * len(THREADS))],
            int(pick() * sets),
            int(pick() * outs),
        )
        for i in range(count)
    ]


class Checker:
    """Holds the results of a case on one variant against their bounds and against each other."""

    def __init__(self, case: Case, variant: str) -> None:
        self.case, self.backend = case, variant.partition("-")[0]
        self.reproducible = is_reproducible(variant)
        self.first: dict[int, tuple[int, list[bytes | None]]] = {}  # by option

    def check(self, call: int, given: Given, results: Results) -> None:
        got = [bits_of(result) for result in results]
        if given.option not in self.first:
            with np.errstate(all="ignore"):
                self.case.check(self.case.options[given.option], results, self.backend)
            self.first[given.option] = call, got
            if self.reproducible:
                of_first_isa = self.case.reproducible.setdefault(given.option, got)
                self._compare(results, got, of_first_isa, "on the first instruction set")
            return
        first, wanted = self.first[given.option]
        self._compare(results, got, wanted, f"of call {first}")

    @staticmethod
    def _compare(results: Results, got: list[bytes | None], wanted: list[bytes | None], whose: str) -> None:
        if got != wanted:
            for i, (a, b, result) in enumerate(zip(got, wanted, results, strict=True)):
                if not same_bits(a, b, result):
                    raise AssertionError(f"results[{i}] has other bits than that {whose}")


def run_calls(
    case: Case, variant: str, givens: Sequence[Given], before: Callable[[int], None], leaks: bool = False
) -> int:
    """Make the calls on the variant in force; their number.  Raises Failure."""
    checker = Checker(case, variant)
    call, given = 0, None
    try:
        with np.errstate(all="ignore"):
            for call, given in enumerate(givens):
                before(call)
                with settings.num_threads(given.threads):
                    results = case.run(given)
                checker.check(call, given, results)
            results = ()
            if leaks and given is not None and case.leaks and case.work < LEAK_WORK:
                assert_no_leak(case, given)
        case.assert_inputs_untouched()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
        at = "" if type(error) is AssertionError else f" (line {last.lineno} of {last.filename})"
        raise Failure(call, given, f"{kind}{error}{at}") from error
    return len(givens) * case.calls


def assert_no_leak(case: Case, given: Given) -> None:
    """AssertionError where the last call, made many times on one thread, leaves memory each time."""
    alone = given._replace(threads=1)
    with settings.num_threads(1):
        _allocated_after(case, alone, 2)
        before = _allocated_after(case, alone, 1)
        if not any(_grown(before, _allocated_after(case, alone, LEAK_CALLS), LEAK_CALLS)):
            return
        # Python's free lists, which a collection empties, or caches, which calls fill
        gc.freeze()  # so that a collection looks at new objects alone
        for _ in range(3):  # malloc's arenas may grow once
            _allocated_after(case, alone, 20 * LEAK_CALLS)
            gc.collect()
            before = allocated()
            _allocated_after(case, alone, 10 * LEAK_CALLS)
            gc.collect()
            grown = _grown(before, allocated(), 10 * LEAK_CALLS)
            if not any(grown):
                break
        gc.unfreeze()
    for count, unit in zip(grown, ("blocks of Python", "bytes of malloc"), strict=True):
        if count:
            raise AssertionError(f"each call leaves {count} {unit} allocated")


def _allocated_after(case: Case, given: Given, calls: int) -> tuple[int, int]:
    for _ in range(calls):
        case.run(given)
    return allocated()


def _grown(before: tuple[int, int], after: tuple[int, int], calls: int) -> list[int]:
    """What each call has added, in whole blocks and bytes."""
    return [(b - a) // calls if b > a else 0 for a, b in zip(before, after, strict=True)]
