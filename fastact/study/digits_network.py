"""The maxout network on handwritten digits that two parts of the study look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import SGD, Linear, Maxout, Sequential, softmax_cross_entropy
from .data import Digits

Array = np.ndarray[Any, Any]

WIDTH, PIECES = 32, 4
BATCH, LEARNING_RATE, MOMENTUM = 64, 0.05, 0.9


def build(rng: np.random.Generator) -> Sequential:
    return Sequential(
        Maxout(64, WIDTH, pieces=PIECES, rng=rng),
        Maxout(WIDTH, WIDTH, pieces=PIECES, rng=rng),
        Linear(WIDTH, 10, rng=rng),
    )


def fit(
    digits: Digits,
    epochs: int,
    seed: int,
    after_step: Callable[[Sequential], None] = lambda model: None,
    after_epoch: Callable[[Sequential], None] = lambda model: None,
) -> tuple[Sequential, Sequential]:
    """Train the network; returns the network before training and the trained one.

    `after_epoch` is also called before the first epoch.
    """
    before = build(np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    model = build(rng)
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    after_epoch(model)
    for epoch in range(epochs):
        optimizer.lr = LEARNING_RATE * (1 - epoch / epochs)
        order = rng.permutation(len(digits.x_train))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            _, grad = softmax_cross_entropy(
                model(digits.x_train[batch], training=True), digits.labels_train[batch]
            )
            model.backward(grad, needs_input_grad=False)
            optimizer.step()
            after_step(model)
        after_epoch(model)
    return before, model
