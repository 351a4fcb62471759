"""Times the Numba backend beside C on every shape of the benchmark: `python -m bench.numba_vs_c`.

Float32, one thread, forward and backward, as calls of the functional API that allocate their results.  Both
backends are in every round, and a ratio is that of their medians: C's time divided by Numba's.  `no rows` is
Numba's time of the same call on a batch without rows, which no kernel can undercut.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, cast

from rich.progress import Progress

import fastact as fa
from fastact.backends import BackendName

from . import machine, records
from .networks import Network
from .problem import Problem
from .shapes import GROUPS, MAXOUT, Shape, select
from .threads import pin
from .timing import interleaved

SECONDS = 0.6  # for the contenders of one figure together
WANTED = 0.75  # of C's speed
DIRECTIONS = ("forward", "backward")

Call = Callable[[], Any]


def calls_of(problem: Problem, backend: BackendName, rows: int) -> dict[str, Call]:
    """The forward and the backward of the layer on the first `rows` rows, on a backend."""
    _, in_features, out_features, pieces, activation = problem.shape
    x, grad_y = problem.x[:rows], problem.grad_y[:rows]
    if activation == MAXOUT:
        weight = problem.weight.reshape(out_features, pieces, in_features)
        bias = problem.bias.reshape(out_features, pieces)
        _, argmax = fa.linear_maxout(x, weight, bias, backend=backend)
        return {
            "forward": lambda: fa.linear_maxout(x, weight, bias, backend=backend),
            "backward": lambda: fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend),
        }
    weight, bias, name = problem.weight, problem.bias, cast("Any", activation)
    _, saved = fa.linear_activation(x, weight, bias, name, backend=backend)
    return {
        "forward": lambda: fa.linear_activation(x, weight, bias, name, backend=backend),
        "backward": lambda: fa.linear_activation_backward(grad_y, x, weight, saved, name, backend=backend),
    }


def measure(shape: Shape, seconds: float) -> list[dict[str, Any]]:
    """A record for the forward and one for the backward of `shape`."""
    problem = Problem(shape)
    found = []
    contenders = {
        "c": calls_of(problem, "c", shape.rows),
        "numba": calls_of(problem, "numba", shape.rows),
        "no rows": calls_of(problem, "numba", 0),
    }
    for direction in DIRECTIONS:
        samples = interleaved({who: calls[direction] for who, calls in contenders.items()}, seconds)
        ratio = round(samples["c"].p50 / samples["numba"].p50, 3)
        record = {"shape": str(shape), "direction": direction, "ratio": ratio}
        found.append(record | {who: sample._asdict() for who, sample in samples.items()})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The records as text, at most 80 columns wide."""
    lines = [f"{'shape':19} {'':8}{'C us':>10}{'Numba us':>10}{'no rows':>9}{'C / Numba':>11}"]
    for row in rows:
        times = f"{row['c']['p50']:10.1f}{row['numba']['p50']:10.1f}{row['no rows']['p50']:9.1f}"
        low = "" if row["ratio"] >= WANTED else "  low"
        lines.append(f"{row['shape']:19} {row['direction']:8}{times}{row['ratio']:11.2f}{low}")
    low_count = sum(row["ratio"] < WANTED for row in rows)
    return "\n".join([*lines, f"{len(rows) - low_count} of {len(rows)} are at least {WANTED} of C's speed"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.numba_vs_c", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=["main", "linear", "odd"],
        help=f"shapes or groups ({', '.join(GROUPS)})",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for one figure")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "neighbours", "rows"))
    try:
        shapes = [shape for shape in select(options.shapes) if not isinstance(shape, Network)]
    except ValueError as error:
        parser.error(str(error))
    pin(1)
    fa.set_num_threads(1)
    neighbours = machine.Neighbours()
    rows = []
    with Progress() as progress:
        for shape in progress.track(shapes):
            rows += measure(shape, options.seconds)
    share = neighbours.share()
    print(table(rows))
    machine.warn(share, "meanwhile")
    records.save(options.out, {"threads": 1, "neighbours": share, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
