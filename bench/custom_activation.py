"""Times custom activations beside the built-in ones and PyTorch's: `python -m bench.custom_activation`.

Forward and backward of linear + silu and linear + softplus of 1024 rows, 512 inputs and 512 outputs, float32,
one thread.  "formula" is the custom activation's formula written in PyTorch's operations, run eagerly with
autograd; "torch" is PyTorch's own function.  Each figure is the processor time of the quickest of many calls,
interleaved with those of the others: on a machine that is shared, medians tell of its other users.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastact as fa

from . import records
from .threads import pin

ROWS, IN_FEATURES, OUT_FEATURES = 1024, 512, 512
ROUNDS = 100

Call = Callable[[], Any]


def _silu_derivative(z: float) -> float:
    s = 1 / (1 + math.exp(-z))
    return s * (1 + z * (1 - s))


CUSTOM = {
    "silu": fa.custom_activation("silu", lambda z: z / (1 + math.exp(-z)), _silu_derivative),
    "softplus": fa.custom_activation(
        "softplus", lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), lambda z: 1 / (1 + math.exp(-z))
    ),
}


def calls_of(name: str) -> dict[str, Call]:
    """A step of each contender."""
    rng = np.random.default_rng(0)
    x, grad_y = (rng.standard_normal((ROWS, size), np.float32) for size in (IN_FEATURES, OUT_FEATURES))
    weight = rng.standard_normal((OUT_FEATURES, IN_FEATURES), np.float32) / np.float32(math.sqrt(IN_FEATURES))
    bias = np.zeros(OUT_FEATURES, np.float32)

    def step(activation: Any) -> Call:
        def run() -> Any:
            _, saved = fa.linear_activation(x, weight, bias, activation)
            return fa.linear_activation_backward(grad_y, x, weight, saved, activation)

        return run

    return {
        "custom": step(CUSTOM[name]),
        "built-in": step(name),
        **_torch_calls(name, x, weight, bias, grad_y),
    }


def _torch_calls(name: str, *arrays: np.ndarray[Any, Any]) -> dict[str, Call]:
    """{} without PyTorch."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    *parameters, grad_y = (torch.from_numpy(array) for array in arrays)
    for parameter in parameters:
        parameter.requires_grad_()

    def silu(z: Any) -> Any:
        return z / (1 + torch.exp(-z))

    def softplus(z: Any) -> Any:
        return torch.clamp(z, min=0) + torch.log1p(torch.exp(-torch.abs(z)))

    def step(activation: Callable[[Any], Any]) -> Call:
        def run() -> Any:
            y = activation(torch.nn.functional.linear(*parameters))
            return torch.autograd.grad(y, parameters, grad_y)

        return run

    formula = {"silu": silu, "softplus": softplus}[name]
    return {"formula": step(formula), "torch": step(getattr(torch.nn.functional, name))}


def measure(rounds: int) -> list[dict[str, Any]]:
    """A record for each activation: the milliseconds of each contender."""
    rows = []
    for name in CUSTOM:
        calls = calls_of(name)
        best = dict.fromkeys(calls, math.inf)
        for call in calls.values():
            call()  # which compiles
        for _ in range(rounds):
            for who, call in calls.items():
                started = time.thread_time()
                call()
                best[who] = min(best[who], time.thread_time() - started)
        rows.append({"activation": name} | {who: round(1e3 * seconds, 3) for who, seconds in best.items()})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The records as text."""
    lines = [f"{'activation':12}{'custom ms':>10}{'x built-in':>12}{'x formula':>11}{'x torch':>9}"]
    for row in rows:
        ratios = [
            f"{row[who] / row['custom']:.2f}" if who in row else ""
            for who in ("built-in", "formula", "torch")
        ]
        lines.append(
            f"{row['activation']:12}{row['custom']:10.2f}{ratios[0]:>12}{ratios[1]:>11}{ratios[2]:>9}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.custom_activation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="calls of each contender")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "rows"))
    pin(1)
    fa.set_num_threads(1)
    rows = measure(options.rounds)
    print(table(rows))
    records.save(options.out, {"threads": 1, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
