"""Goodfellow et al. 2013's permutation-invariant MNIST recipe: the networks, and a run that can be resumed.

The numbers are those of "Maxout Networks" (arXiv 1302.4389) and of its authors' scripts for pylearn2.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import SGD, Dropout, Linear, Maxout, Sequential, load, save, softmax_cross_entropy
from ..nn.checkpoint import check_entries
from .data import Images, split_validation

Array = np.ndarray[Any, Any]

KINDS = ("maxout", "relu")
UNITS, PIECES = 240, 5
RELU_UNITS = 782  # 1,234,006 parameters, the nearest to the maxout network's 1,233,610
WEIGHT_RANGE = 0.005  # weights start uniform within ±this
DROP_INPUT, DROP_HIDDEN = 0.2, 0.5
BATCH = 100
LEARNING_RATE, LEARNING_RATE_DECAY = 0.1, 1.000004  # divided by the decay after each step
MOMENTUM, FINAL_MOMENTUM = 0.5, 0.7
MOMENTUM_EPOCHS = 250  # until the final momentum
MAX_NORM = 1.9365  # of the incoming weights of each piece

COLUMNS = ("phase", "train_loss", "train_error", "validation_loss", "validation_error", "seconds")


def _uniform(shape: tuple[int, ...], rng: np.random.Generator, dtype: Any) -> Array:
    return rng.uniform(-WEIGHT_RANGE, WEIGHT_RANGE, shape).astype(dtype)


def build(kind: str, rng: np.random.Generator) -> Sequential:
    """The network of the paper ("maxout"), or two ReLU layers with as many parameters ("relu")."""
    hidden: partial[Maxout] | partial[Linear]
    if kind == "maxout":
        units = UNITS
        hidden = partial(Maxout, pieces=PIECES, init=_uniform, rng=rng)
    else:
        units = RELU_UNITS
        hidden = partial(Linear, activation="relu", init=_uniform, rng=rng)
    return Sequential(
        Dropout(DROP_INPUT, rescale=False, rng=rng),
        hidden(784, units),
        Dropout(DROP_HIDDEN, rng=rng),
        hidden(units, units),
        Dropout(DROP_HIDDEN, rng=rng),
        Linear(units, 10, init=_uniform, rng=rng),
    )


def momentum(epoch: int, epochs: int) -> float:
    """The momentum of an epoch, of `epochs` in the first phase: it grows linearly and then stays.

    The growth takes `MOMENTUM_EPOCHS`, or all of a shorter first phase.
    """
    share = min(epoch / min(epochs, MOMENTUM_EPOCHS), 1)
    return MOMENTUM + share * (FINAL_MOMENTUM - MOMENTUM)


def evaluate(model: Sequential, x: Array, labels: Array) -> tuple[float, float]:
    """The mean loss and the error rate."""
    logits = model(x)
    loss, _ = softmax_cross_entropy(logits, labels)
    return loss, float(np.mean(logits.argmax(axis=1) != labels))


class Trainer:
    """The network, its optimiser and its random numbers."""

    def __init__(self, kind: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)  # draws the weights, the dropout masks and the batches
        self.model = build(kind, self.rng)
        self.optimizer = SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        for parameter in self.model.parameters():
            if parameter.name == "weight":
                parameter.max_norm = MAX_NORM  # after each update, in the same pass

    def train_epoch(self, x: Array, labels: Array, momentum: float) -> None:
        """One epoch; the learning rate decays after each step."""
        self.optimizer.momentum = momentum
        order = self.rng.permutation(len(x))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            _, grad = softmax_cross_entropy(self.model(x[batch], training=True), labels[batch])
            self.model.backward(grad, needs_input_grad=False)
            self.optimizer.step()
            self.optimizer.lr /= LEARNING_RATE_DECAY


class Run:
    """One seed of the recipe, in its two phases.

    1. Train without the validation images for `epochs` epochs; keep the network of the epoch with the
       smallest validation error.
    2. From there train on all images, until the validation images' loss is as small as the training loss
       was at that epoch, and for at most `epochs` epochs more.

    A run can be saved after any epoch.  The loaded run goes on to the same bits.
    """

    def __init__(self, kind: str, seed: int, epochs: int, images: Images) -> None:
        self.trainer = Trainer(kind, seed)
        self.images = images
        self.epochs = epochs
        self.seed = seed
        self.history = np.full((2 * epochs, len(COLUMNS)), np.nan)  # one row an epoch
        self.epoch = 0  # epochs done
        self.best = -1  # the epoch of phase 1 that phase 2 starts from
        self.best_model = self.trainer.model.state_dict()
        self._train, self._validation = split_validation(images)

    @property
    def phase(self) -> int:
        return 1 if self.epoch < self.epochs else 2

    @property
    def done(self) -> bool:
        if self.phase == 1:
            return False
        reached = self.epoch > self.epochs and self._row(self.epoch - 1)["validation_loss"] <= self.target
        return reached or self.epoch == 2 * self.epochs

    @property
    def target(self) -> float:
        """The training loss at the best epoch of phase 1."""
        return self._row(self.best)["train_loss"]

    def _row(self, epoch: int) -> dict[str, float]:
        return dict(zip(COLUMNS, self.history[epoch].tolist(), strict=True))

    def train_epoch(self) -> None:
        phase = self.phase
        rows = self._train if phase == 1 else np.arange(len(self.images.x_train))
        start = time.perf_counter()
        self.trainer.train_epoch(
            self.images.x_train[rows], self.images.labels_train[rows], momentum(self.epoch, self.epochs)
        )
        seconds = time.perf_counter() - start
        scores = [*self._evaluate(self._train), *self._evaluate(self._validation)]
        self.history[self.epoch] = [phase, *scores, seconds]
        if phase == 1 and (self.best < 0 or scores[-1] < self._row(self.best)["validation_error"]):
            self.best = self.epoch
            self.best_model = self.trainer.model.state_dict()
        self.epoch += 1
        if self.epoch == self.epochs:
            self._continue_from_best()

    def _continue_from_best(self) -> None:
        self.trainer.model.load_state_dict(self.best_model)
        lr = self.trainer.optimizer.lr
        self.trainer.optimizer = SGD(self.trainer.model.parameters(), lr=lr)  # at rest

    def _evaluate(self, rows: Array) -> tuple[float, float]:
        return evaluate(self.trainer.model, self.images.x_train[rows], self.images.labels_train[rows])

    def test_error(self) -> float:
        return evaluate(self.trainer.model, self.images.x_test, self.images.labels_test)[1]

    def state_dict(self) -> dict[str, Array]:
        """What `fastact.save` is to keep beside the network, the optimiser and the random numbers."""
        counters = np.array([self.seed, self.epochs, len(self.images.x_train), self.epoch, self.best])
        best_model = {f"best.{name}": array for name, array in self.best_model.items()}
        return {"history": self.history.copy(), "counters": counters, **best_model}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Take over what `state_dict` gave; ValueError if the state is of another run."""
        expected = self.state_dict()
        check_entries(expected, state)
        if (state["counters"][:3] != expected["counters"][:3]).any():
            raise ValueError(
                "the checkpoint is of a run with seed, epochs and training images "
                f"{state['counters'][:3].tolist()}, wanted {expected['counters'][:3].tolist()}"
            )
        self.epoch, self.best = (int(value) for value in state["counters"][3:])
        self.history[...] = state["history"]
        self.best_model = {name: state[f"best.{name}"] for name in self.best_model}

    def _objects(self) -> dict[str, Any]:
        trainer = self.trainer
        return {"run": self, "model": trainer.model, "optimizer": trainer.optimizer, "rng": trainer.rng}

    def save(self, path: Path) -> None:
        save(path, **self._objects())

    def load(self, path: Path) -> None:
        """Go on from the checkpoint `path`; ValueError, and nothing is changed, if it is of another run."""
        load(path, **self._objects())
