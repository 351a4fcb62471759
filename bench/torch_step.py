"""Times maxout in PyTorch, of its own operators and of `fastact.torch`: `python -m bench.torch_step`.

One process; every contender takes its turn in every round.

- A training step of Goodfellow's network, 784 - 240 x 5 - 240 x 5 - 10, on a batch of 100 with SGD: forward,
  cross entropy, backward, update.  PyTorch runs it eager and compiled, with max and amax.
- The forward of one small layer, (8, 32, 32, 2), without gradients: all of it is overhead.
- Before both, the losses of the first steps from the same start, compared with the same steps in float64.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastact.torch
from fastact import backends
from fastact.cli.arguments import positive

from . import records, threads
from .timing import Sample, interleaved

BATCH, BATCHES, PIECES, LEARNING_RATE = 100, 16, 5, 0.01
SIZES = (784, 240, 240, 10)
SMALL = (8, 32, 32, 2)  # rows, in_features, out_features, pieces

Step = Callable[[], Tensor]


class Composed(nn.Linear):
    """Maxout of PyTorch's own operators."""

    def __init__(self, in_features: int, out_features: int, pieces: int, largest: str) -> None:
        super().__init__(in_features, out_features * pieces)
        self.pieces, self.largest = pieces, largest

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x).view(len(x), -1, self.pieces)
        return z.amax(-1) if self.largest == "amax" else z.max(-1).values


def network(contender: str) -> nn.Module:
    """The network, from the same start for every contender."""
    torch.manual_seed(0)
    *hidden, last = itertools.pairwise(SIZES)
    layers: list[nn.Module] = []
    for in_features, out_features in hidden:
        composed = Composed(in_features, out_features, PIECES, "amax" if "amax" in contender else "max")
        fused = contender == "fastact"
        layers.append(fastact.torch.Maxout.from_linear(composed, PIECES) if fused else composed)
    return nn.Sequential(*layers, nn.Linear(*last))


def training_step(contender: str, dtype: torch.dtype = torch.float32) -> Step:
    """A function that makes one step on the next batch and returns its loss."""
    model = network(contender).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, fused=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((BATCHES, BATCH, SIZES[0]), generator=generator).to(dtype)
    labels = torch.randint(SIZES[-1], (BATCHES, BATCH), generator=generator)
    forward = torch.compile(model, dynamic=False) if "compiled" in contender else model
    number = 0

    def step() -> Tensor:
        nonlocal number
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(x[number]), labels[number])
        loss.backward()
        optimizer.step()
        number = (number + 1) % BATCHES
        return loss.detach()

    return step


STEPS = ("eager, max", "eager, amax", "compiled, max", "compiled, amax", "fastact")


def losses(steps: int) -> dict[str, Any]:
    """The largest relative error of a loss within the first steps, for PyTorch and for fastact.

    In float32 two pieces may be so close that rounding decides which one wins and learns.  From then on the
    runs differ by more than rounding; in float64 that happens many steps later.
    """

    def first(contender: str, dtype: torch.dtype) -> Any:
        step = training_step(contender, dtype)
        return np.array([step().item() for _ in range(steps)], np.float64)

    exact = first("eager, max", torch.float64)
    found = {name: first(name, torch.float32) for name in ("eager, max", "fastact")}
    found["fastact, float64"] = first("fastact", torch.float64)
    return {
        "steps": steps,
        "first_loss": float(exact[0]),
        "last_loss": float(exact[-1]),
        "largest_relative_error": {
            name: float(np.max(np.abs(values / exact - 1))) for name, values in found.items()
        },
    }


def small_forwards() -> dict[str, Callable[[], Tensor]]:
    rows, in_features, out_features, pieces = SMALL
    torch.manual_seed(0)
    linear = nn.Linear(in_features, out_features * pieces)
    layer = fastact.torch.Maxout.from_linear(linear, pieces)
    x = torch.randn(rows, in_features)
    weight, bias = linear.weight, linear.bias
    grouped, grouped_bias = layer.weight, layer.bias
    shape = (rows, out_features, pieces)

    def composed_function() -> Tensor:
        return F.linear(x, weight, bias).view(shape).amax(-1)

    def composed_layer() -> Tensor:
        z: Tensor = linear(x)
        return z.view(shape).amax(-1)

    return {
        "eager, functions": composed_function,
        "fastact, function": lambda: fastact.torch.linear_maxout(x, grouped, grouped_bias),
        "eager, layer": composed_layer,
        "fastact, layer": lambda: layer(x),
    }


def table(title: str, samples: dict[str, Sample]) -> str:
    """Microseconds of each contender, as text."""
    lines = [f"{title:30}{'p20 us':>10}{'p50 us':>10}{'p80 us':>10}"]
    lines += [
        f"{name:30}" + "".join(f"{value:10,.1f}" for value in sample[:3]) for name, sample in samples.items()
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.torch_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=positive, default=1, help="of every contender (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="for each of the two tables (%(default)s)"
    )
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "losses", "training_step", "small_forward"))

    threads.pin(options.threads)
    torch.set_num_threads(options.threads)
    compared = losses(steps=50)
    training = interleaved({name: training_step(name) for name in STEPS}, options.seconds)
    with torch.no_grad():
        small = interleaved(small_forwards(), options.seconds)
    best = min(STEPS[:-1], key=lambda name: training[name].p50)
    speedup = training[best].p50 / training["fastact"].p50
    print(table("training step", training))
    print(f"\n{table(f'forward of {SMALL}', small)}")
    print(f"\nfastact's step is {speedup:.2f} times as fast as PyTorch's best ({best})")
    for name, error in compared["largest_relative_error"].items():
        print(f"losses of {compared['steps']} steps, {name}: largest relative error {error:.1e}")
    fields = {
        "backend": backends.get_backend(),
        "threads": options.threads,
        "losses": compared,
        "training_step": {name: sample._asdict() for name, sample in training.items()},
        "best_of_pytorch": best,
        "speedup_over_best": round(speedup, 3),
        "small_forward": {name: sample._asdict() for name, sample in small.items()},
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
