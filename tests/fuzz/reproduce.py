"""Scripts that repeat a failure."""

from __future__ import annotations

import faulthandler
from collections.abc import Sequence
from typing import Any

from . import memory
from .case import Failure, Given, drawn, plan, run_calls
from .operations import OPERATIONS
from .variants import chosen


def reproduce(operation: str, seed: int, case: int, variant: str, calls: Sequence[Any] = ()) -> None:
    """Make these calls of a case again, all of them by default; raises Failure, or ends as the first run did.

    A call is its number, or what `Given` holds: (option, threads, inputs, out).
    """
    faulthandler.enable()
    pool = memory.Pool()
    made = drawn(operation, OPERATIONS[operation][0], seed, case, pool)
    planned = plan(made, variant, seed, case)
    givens = [Given(*call) if isinstance(call, tuple) else planned[call] for call in calls] or planned
    with chosen(variant):
        run_calls(made, variant, givens, lambda call: None, leaks=not calls)
    pool.check()
    for name, array in made.inputs.items():
        print(f"{name}: {'None' if array is None else f'{array.dtype} {array.shape}'}")
    print(f"no failure: {operation}, case {case}, {variant}, {len(givens)} calls")


def shortest(operation: str, seed: int, case: int, variant: str, call: int) -> list[tuple[int, ...]]:
    """As few and as plain calls as still fail; none where the failure needs all of them."""
    if variant == "-":
        return []
    pool = memory.Pool()
    made = drawn(operation, OPERATIONS[operation][0], seed, case, pool)
    planned = plan(made, variant, seed, case)
    failed = planned[call]
    plain = failed._replace(threads=1, inputs=0, out=0)
    firsts = [given for given in planned[:call] if given.option == failed.option][:1]
    attempts = [[plain], [failed._replace(inputs=0, out=0)], [failed._replace(threads=1)], [failed]]
    attempts += [[*firsts, plain], [*firsts, failed._replace(threads=1)], [*firsts, failed]]
    try:
        for givens in attempts:
            with chosen(variant):
                try:
                    run_calls(made, variant, givens, lambda call: None)
                except Failure:
                    return [tuple(given) for given in givens]
    finally:
        pool.reset()
    return []


def script(failure: dict[str, Any], seed: int) -> str:
    """Python that repeats a failure, run at the root of the repository."""
    operation, case, variant = failure["operation"], failure["case"], failure["variant"]
    calls = failure.get("calls") or []
    message = " ".join(str(failure["message"]).split())[:160]
    arguments = f'"{operation}", seed={seed}, case={case}, variant="{variant}"'
    if calls:
        arguments += f", calls={[tuple(call) if isinstance(call, list) else call for call in calls]}"
    return (
        f"# {message}\n"
        "# calls: (option, threads, inputs, out)\n"
        "from tests.fuzz.reproduce import reproduce\n\n"
        f"reproduce({arguments})\n"
    )
