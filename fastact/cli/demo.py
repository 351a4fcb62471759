"""The demo: one maxout network on real handwritten digits, trained with each backend from the same seed.

The data are scikit-learn's 1,797 digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), of which a fifth is
for testing.  The backends take turns, an epoch each, so that other load on the machine slows all of them
alike.  Each runs on one thread, NumPy's BLAS too: threads of one backend that wait for work keep a core busy,
and would slow down the next backend.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import backends, info, settings
from ..backends import BackendName
from ..nn import SGD, Linear, Maxout, Sequential, softmax_cross_entropy
from ..study.data import Digits, load_digits

Array = np.ndarray[Any, Any]

EPOCHS = 30
BATCH = 128
LEARNING_RATE = 0.1  # at the start; it falls to 0, else rounding alone would move the accuracy by points
MOMENTUM = 0.9

# How far rounding alone may move the losses of the first steps, relatively.
# "highest": the longest sum has 256 terms, so its error is at most about 256 half units in the last place.
# "medium": each product is off by up to 2^-7 of itself, and terms of random signs are together up to about 16
# times their sum.
# "high": about every second step, two pieces of one of the batch's 128 x 512 units are nearer than the error,
# 3e-6, and rounding picks another winner.  The gradient of one of 128 samples then passes through other
# weights at one of 256 units, which is about 1 / (128 sqrt(256)) of the gradient.
COMPARED_LOSSES = 20
LOSS_TOLERANCES = {
    "highest": 256 * 2.0**-24,
    "high": COMPARED_LOSSES / 2 / (BATCH * 16),
    "medium": 16 * 2.0**-7,
}


@contextmanager
def _using(backend: BackendName) -> Iterator[None]:
    before = backends.get_backend()
    backends.set_backend(backend)
    try:
        yield
    finally:
        backends.set_backend(before)


class Trainer:
    """The network on one backend, trained an epoch at a time."""

    def __init__(self, backend: BackendName, digits: Digits, epochs: int, seed: int) -> None:
        self.backend = backend
        self.digits = digits
        self.rng = np.random.default_rng(seed)
        self.model = Sequential(
            Maxout(64, 256, pieces=4, rng=self.rng),
            Maxout(256, 256, pieces=4, rng=self.rng),
            Linear(256, 10, rng=self.rng),
        )
        self.optimizer = SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        batches = -(-len(digits.x_train) // BATCH)
        self.steps = epochs * batches
        self.losses: list[float] = []  # one a step
        self.seconds: list[float] = []  # one an epoch

    def train_epoch(self) -> None:
        with _using(self.backend):
            start = time.perf_counter()
            order = self.rng.permutation(len(self.digits.x_train))
            for first in range(0, len(order), BATCH):
                self._step(order[first : first + BATCH])
            self.seconds.append(time.perf_counter() - start)

    def _step(self, batch: Array) -> None:
        logits = self.model(self.digits.x_train[batch], training=True)
        loss, grad = softmax_cross_entropy(logits, self.digits.labels_train[batch])
        self.model.backward(grad, needs_input_grad=False)
        self.optimizer.lr = LEARNING_RATE * (1 - len(self.losses) / self.steps)
        self.optimizer.step()
        self.losses.append(loss)

    def test_accuracy(self) -> float:
        with _using(self.backend):
            predicted = self.model(self.digits.x_test).argmax(axis=1)
        return float(np.mean(predicted == self.digits.labels_test))


def train(
    names: tuple[BackendName, ...], epochs: int, seed: int, advance: Callable[[str], None] = lambda what: None
) -> dict[BackendName, Trainer]:
    """Train the network with each backend; `advance` is called before each epoch, with what comes next.

    Each backend first trains a throw-away network for an untimed epoch: Numba compiles at its first calls.
    """
    import threadpoolctl

    digits = load_digits(seed)
    trainers = {name: Trainer(name, digits, epochs, seed) for name in names}
    with settings.num_threads(1), threadpoolctl.threadpool_limits(1, "blas"):
        for name in names:
            advance(f"{name}: warming up")
            Trainer(name, digits, 1, seed).train_epoch()
        for epoch in range(1, epochs + 1):
            for name, trainer in trainers.items():
                advance(f"{name}: epoch {epoch}")
                trainer.train_epoch()
    return trainers


def loss_difference(trainers: dict[BackendName, Trainer]) -> float:
    """The largest relative difference between a backend's first losses and naive NumPy's."""
    first = {name: np.array(trainer.losses[:COMPARED_LOSSES]) for name, trainer in trainers.items()}
    expected = first["numpy"]
    return max(float(np.max(np.abs(losses / expected - 1))) for losses in first.values())


def run(epochs: int = EPOCHS, seed: int = 0) -> int:
    """Train with a progress bar, then print the table; returns 1 where the first losses disagree, else 0.

    The C backend multiplies at the precision tier in force.  Raises ImportError where scikit-learn or
    rich is missing.
    """
    import sklearn  # noqa: F401  (raises before anything is shown)
    from rich.console import Console
    from rich.progress import Progress

    in_force = info.get_config()
    names = in_force["backends"]
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(names) * (1 + epochs))

        def advance(what: str) -> None:
            progress.update(task, description=what, advance=1)

        trainers = train(names, epochs, seed, advance)

    naive = trainers["numpy"]
    console.print(_table(trainers, in_force))
    console.print(
        f"{naive.model!r}\n{epochs} epochs of {len(naive.digits.x_train)} digits, {BATCH} a batch, "
        f"{len(naive.digits.x_test)} for testing.  CPU: {in_force['cpu']}; one thread.",
        markup=False,
    )
    precision = in_force["precision"]
    if precision != "highest" and "c" in names:
        unit = in_force["tier_units"][precision]
        console.print(f'Precision "{precision}": c multiplies on {unit}; numba and numpy ignore tiers.')
    difference, tolerance = loss_difference(trainers), LOSS_TOLERANCES[precision]
    agree = difference <= tolerance
    console.print(
        f"The first {COMPARED_LOSSES} losses {'agree' if agree else 'DISAGREE'}: all within {difference:.1e} "
        f"of naive NumPy's, relatively; rounding may explain {tolerance:.1e}."
    )
    return 0 if agree else 1


def _table(trainers: dict[BackendName, Trainer], in_force: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="One maxout network on handwritten digits")
    table.add_column("backend")
    for heading in ("time per epoch", "speed-up", "test accuracy"):
        table.add_column(heading, justify="right")
    table.add_column("")
    if in_force["c_missing"] is not None:
        table.add_row("c", "-", "-", "-", escape(f"missing: {in_force['c_missing']}"))
    notes = {"c": in_force["isa"], "numba": "compiled before the timing", "numpy": "the naive version"}
    medians = {name: statistics.median(trainer.seconds) for name, trainer in trainers.items()}
    for name, trainer in trainers.items():
        table.add_row(
            name,
            f"{medians[name] * 1e3:.1f} ms",
            f"{medians['numpy'] / medians[name]:.1f}x",
            f"{trainer.test_accuracy():.1%}",
            notes[name],
        )
    return table
