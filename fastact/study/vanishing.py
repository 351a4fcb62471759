"""The vanishing gradient: what each activation does to it, layer by layer, in networks of growing depth.

Before training, the gradient itself is measured.  Then each network is trained at its own best learning rate,
which validation digits choose; the test digits take no part in the choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import SGD, Layer, Linear, Maxout, Sequential, num_threads, softmax_cross_entropy
from .data import VALIDATION_SHARE, load_digits
from .findings import Advance, Findings, Options, Table

Array = np.ndarray[Any, Any]
Network = tuple[str, int]  # activation, hidden layers

WIDTH = 64
DEPTHS = (3, 5, 10, 15, 20)  # hidden layers
TRAINED_DEPTHS = (3, 5, 10, 20)
SHOWN_DEPTH = 10
SEEDS = 5  # before training
SEARCH_SEEDS = 2  # at each learning rate
TRAINED_SEEDS = 3  # at the best one
RATES = (0.00056, 0.0018, 0.0056, 0.018, 0.056, 0.18, 0.56)  # learning rates, a factor of √10 apart
EPOCHS, BATCH, MOMENTUM = 20, 64, 0.9
LONGER_DEPTHS, LONGER = (4, 5), 10  # sigmoids again, from one seed, for 10 times as many epochs
NUDGE = 1e-3  # the length of a change of the first weights, relative to theirs
NUDGES = 8

ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "maxout 2", "maxout 3", "maxout 5",
)  # fmt: skip


class Rows(NamedTuple):
    """Some of the digits: x (rows, 64) and labels (rows,)."""

    x: Array
    labels: Array


class Trained(NamedTuple):
    """Networks trained from several seeds at one learning rate."""

    norms: Array  # (seeds, 1 + epochs, hidden layers): of the gradient, before training and after each epoch
    accuracies: Array  # (seeds,): on the test digits


class AtStart(NamedTuple):
    """What is measured before training; medians over the seeds."""

    norms: dict[Network, Array]  # (hidden layers,)
    ratios: dict[Network, float]  # the first layer's gradient / the last one's
    moves: dict[Network, float]  # of the loss, relative, when the first weights move a little


def hidden_layer(activation: str, rng: np.random.Generator, dtype: Any) -> Layer:
    """A layer of `WIDTH` units with the initialisation that is the library's default for it."""
    if activation.startswith("maxout"):
        return Maxout(WIDTH, WIDTH, pieces=int(activation.split()[1]), rng=rng, dtype=dtype)
    return Linear(WIDTH, WIDTH, activation=activation, rng=rng, dtype=dtype)


def network(activation: str, depth: int, seed: int, dtype: Any = np.float32) -> Sequential:
    """`depth` hidden layers for the digits' 64 pixels, and a linear one to 10 classes."""
    rng = np.random.default_rng(seed)
    layers = [hidden_layer(activation, rng, dtype) for _ in range(depth)]
    return Sequential(*layers, Linear(WIDTH, 10, rng=rng, dtype=dtype))


def gradient_norms(model: Sequential, x: Array, labels: Array) -> Array:
    """The norm of the loss's gradient with respect to each hidden layer's output, first to last."""
    hidden, last = model.layers[:-1], model.layers[-1]
    h = x
    for layer in hidden:
        h = layer(h, training=True)
    _, grad = softmax_cross_entropy(last(h, training=True), labels)
    norms = []
    for layer in reversed(model.layers[1:]):
        grad = layer.backward(grad)  # type: ignore[assignment]
        norms.append(float(np.linalg.norm(grad)))
    hidden[0].backward(grad, needs_input_grad=False)
    return np.array(norms[::-1])


def ratio(norms: Array) -> Any:
    """The first layer's gradient divided by the last one's, for norms (..., hidden layers)."""
    return norms[..., 0] / norms[..., -1]


def nudged_loss(model: Sequential, x: Array, labels: Array, rng: np.random.Generator) -> float:
    """How far the loss moves, relatively, when the first weights move a little; root mean square."""
    weight = model.parameters()[0].data
    before = weight.copy()
    loss, _ = softmax_cross_entropy(model(x), labels)
    moves = []
    for _ in range(NUDGES):
        change = rng.standard_normal(weight.shape)
        weight += NUDGE * np.linalg.norm(before) / np.linalg.norm(change) * change
        moves.append(softmax_cross_entropy(model(x), labels)[0] - loss)
        weight[...] = before
    return float(np.sqrt(np.mean(np.square(moves)))) / loss


def train(model: Sequential, rows: Rows, learning_rate: float, epochs: int, seed: int) -> Iterator[float]:
    """Train with SGD at a constant rate; yields the last batch's loss after each epoch."""
    rng = np.random.default_rng(seed)
    optimizer = SGD(model.parameters(), lr=learning_rate, momentum=MOMENTUM)
    for _ in range(epochs):
        order = rng.permutation(len(rows.x))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            loss, grad = softmax_cross_entropy(model(rows.x[batch], training=True), rows.labels[batch])
            model.backward(grad, needs_input_grad=False)
            optimizer.step()
        yield loss


def accuracy(model: Sequential, rows: Rows) -> float:
    return float(np.mean(model(rows.x).argmax(axis=1) == rows.labels))


def search(activation: str, depth: int, epochs: int, seeds: range, training: Rows, validation: Rows) -> Array:
    """The validation accuracies reached at each of `RATES`, from each seed: (rates, seeds)."""
    found = np.empty((len(RATES), len(seeds)))
    for (i, rate), (j, seed) in itertools.product(enumerate(RATES), enumerate(seeds)):
        model = network(activation, depth, seed)
        for loss in train(model, training, rate, epochs, seed):
            if not np.isfinite(loss):  # the weights are not finite either, whatever follows
                break
        found[i, j] = accuracy(model, validation)
    return found


def best_rate(accuracies: Array) -> int:
    """The index of the rate with the highest mean accuracy over the seeds, the smallest of equals."""
    return int(accuracies.mean(axis=1).argmax())


def train_at(activation: str, depth: int, rate: float, seeds: range, training: Rows, test: Rows) -> Trained:
    """Train from each seed at this rate, and record the gradient epoch by epoch."""
    norms, accuracies = [], []
    for seed in seeds:
        model = network(activation, depth, seed)
        course = [gradient_norms(model, *training)]
        course += [gradient_norms(model, *training) for _ in train(model, training, rate, EPOCHS, seed)]
        norms.append(course)
        accuracies.append(accuracy(model, test))
    return Trained(np.array(norms), np.array(accuracies))


def steps(options: Options) -> int:
    return len(ACTIVATIONS) * (len(DEPTHS) + 2 * len(TRAINED_DEPTHS)) + len(LONGER_DEPTHS)


def run(options: Options, advance: Advance) -> Findings:
    from sklearn.model_selection import train_test_split

    digits = load_digits(options.seed)
    start = _at_start(Rows(digits.x_train, digits.labels_train), options.seed, advance)
    x, x_validation, labels, labels_validation = train_test_split(
        digits.x_train,
        digits.labels_train,
        test_size=VALIDATION_SHARE,
        stratify=digits.labels_train,
        random_state=options.seed,
    )
    training, validation = Rows(x, labels), Rows(x_validation, labels_validation)
    test = Rows(digits.x_test, digits.labels_test)
    seeds = range(options.seed, options.seed + TRAINED_SEEDS)

    searched: dict[Network, Array] = {}
    longer: dict[Network, Array] = {}
    trained: dict[Network, Trained] = {}
    # Layers this small gain nothing from threads.  A rate that is too large overflows.
    with num_threads(1), np.errstate(over="ignore", invalid="ignore"):
        for name, depth in itertools.product(ACTIVATIONS, TRAINED_DEPTHS):
            advance(f"vanishing gradient: learning rates for {name}, {depth} layers")
            searched[name, depth] = search(name, depth, EPOCHS, seeds[:SEARCH_SEEDS], training, validation)
        for (name, depth), accuracies in searched.items():
            advance(f"vanishing gradient: training {name}, {depth} layers")
            rate = RATES[best_rate(accuracies)]
            trained[name, depth] = train_at(name, depth, rate, seeds, training, test)
        for depth in LONGER_DEPTHS:
            epochs = LONGER * EPOCHS
            advance(f"vanishing gradient: sigmoid, {depth} layers, {epochs} epochs")
            longer["sigmoid", depth] = search("sigmoid", depth, epochs, seeds[:1], training, validation)

    from . import vanishing_figures as figures

    return Findings(
        "The vanishing gradient",
        "梯度消失",
        {
            "vanishing_depth": figures.depth(start.ratios, start.moves),
            "vanishing_rates": figures.rates(searched, longer, len(training.x), len(validation.x)),
            "vanishing_training": figures.training(trained, searched),
            "vanishing_layers": figures.layers(start.norms, trained),
        },
        _tables(start, searched, longer, trained),
        _summary(start, trained),
    )


def _at_start(rows: Rows, seed: int, advance: Advance) -> AtStart:
    """Measured in float64, whose range is what the smallest gradients need."""
    x = rows.x.astype(np.float64)
    found = AtStart({}, {}, {})
    for name, depth in itertools.product(ACTIVATIONS, DEPTHS):
        advance(f"vanishing gradient: {name}, {depth} layers")
        models = [network(name, depth, seed + i, np.float64) for i in range(SEEDS)]
        norms = np.array([gradient_norms(model, x, rows.labels) for model in models])
        found.norms[name, depth] = np.median(norms, axis=0)
        found.ratios[name, depth] = float(np.median(ratio(norms)))
        rng = np.random.default_rng(seed)
        moves = [nudged_loss(model, x, rows.labels, rng) for model in models]
        found.moves[name, depth] = float(np.median(moves))
    return found


def _tables(
    start: AtStart,
    searched: dict[Network, Array],
    longer: dict[Network, Array],
    trained: dict[Network, Trained],
) -> dict[str, Table]:
    rates = []
    for epochs, networks in ((EPOCHS, searched), (LONGER * EPOCHS, longer)):
        for key, accuracies in networks.items():
            best = best_rate(accuracies)
            for i, found in enumerate(accuracies):
                spread = (found.mean(), found.min(), found.max())
                rates.append((*key, epochs, RATES[i], len(found), *spread, int(i == best)))
    layers = [
        (name, layer + 1, at_start, after)
        for name in ACTIVATIONS
        for layer, (at_start, after) in enumerate(
            zip(start.norms[name, SHOWN_DEPTH], last_norms(trained[name, SHOWN_DEPTH]), strict=True)
        )
    ]
    return {
        "vanishing_depth": Table(
            ("activation", "hidden_layers", "first_to_last_gradient", "relative_move_of_loss"),
            [(*key, start.ratios[key], start.moves[key]) for key in start.ratios],
        ),
        "vanishing_rates": Table(
            (
                "activation", "hidden_layers", "epochs", "learning_rate", "seeds",
                "validation_accuracy", "lowest", "highest", "best",
            ),
            rates,
        ),
        "vanishing_accuracy": Table(
            ("activation", "hidden_layers", "learning_rate", "test_accuracy", "lowest", "highest"),
            [
                (*key, RATES[best_rate(searched[key])], np.median(found), found.min(), found.max())
                for key, (_, found) in trained.items()
            ],
        ),
        "vanishing_training": Table(
            ("activation", "hidden_layers", "epoch", "first_to_last_gradient"),
            [
                (*key, epoch, value)
                for key, found in trained.items()
                for epoch, value in enumerate(median_course(found))
            ],
        ),
        "vanishing_layers": Table(("activation", "layer", "at_start", "trained"), layers),
    }  # fmt: skip


def last_norms(trained: Trained) -> Array:
    """The gradient's norm by layer after training, the median over the seeds."""
    return np.asarray(np.median(trained.norms[:, -1], axis=0))


def median_course(trained: Trained) -> Array:
    """The ratio of the first layer's gradient to the last one's by epoch, the median over the seeds."""
    return np.asarray(np.median(ratio(trained.norms), axis=0))


def _summary(start: AtStart, trained: dict[Network, Trained]) -> list[str]:
    deepest = DEPTHS[-1]
    reached = {key: f"{np.median(found.accuracies):.1%}" for key, found in trained.items()}
    sigmoid = ", ".join(f"{reached['sigmoid', depth]} with {depth}" for depth in TRAINED_DEPTHS)
    last = TRAINED_DEPTHS[-1]
    return [
        f"Of {deepest} hidden layers, the first gets {start.ratios['sigmoid', deepest]:.1e} of the last "
        f"one's gradient with sigmoids, {start.ratios['relu', deepest]:.2f} with ReLU.",
        f"Test accuracy of sigmoids at the best of {len(RATES)} learning rates, by hidden layers: {sigmoid}; "
        f"of ReLU {reached['relu', last]} with {last}.",
    ]
