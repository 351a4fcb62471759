"""The vanishing gradient: what each activation does to it, layer by layer, in networks of growing depth."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np

from ..activations import ActivationName
from ..nn import SGD, Layer, Linear, Maxout, Sequential, softmax_cross_entropy
from .data import Digits, load_digits
from .findings import Advance, Findings, Options, Table

Array = np.ndarray[Any, Any]

WIDTH = 64
DEPTHS = (3, 5, 10, 15, 20)  # hidden layers
TRAINED_DEPTHS = (3, 10, 20)
SHOWN_DEPTH = 10
SEEDS = 5
EPOCHS, BATCH, LEARNING_RATE, MOMENTUM = 20, 64, 0.003, 0.9
NUDGE = 1e-3  # the length of a change of the first weights, relative to theirs
NUDGES = 8

ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "maxout 2", "maxout 3", "maxout 5",
)  # fmt: skip


def hidden_layer(activation: str, rng: np.random.Generator, dtype: Any) -> Layer:
    """A layer of `WIDTH` units with the initialisation that is the library's default for it."""
    if activation.startswith("maxout"):
        return Maxout(WIDTH, WIDTH, pieces=int(activation.split()[1]), rng=rng, dtype=dtype)
    return Linear(WIDTH, WIDTH, activation=cast(ActivationName, activation), rng=rng, dtype=dtype)


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


def train(model: Sequential, digits: Digits, epochs: int, rng: np.random.Generator) -> list[Array]:
    """Train; the gradient's norm by layer before training and after each epoch."""
    x, labels = digits.x_train, digits.labels_train
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    norms = [gradient_norms(model, x, labels)]
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for first in range(0, len(x), BATCH):
            batch = order[first : first + BATCH]
            _, grad = softmax_cross_entropy(model(x[batch], training=True), labels[batch])
            model.backward(grad, needs_input_grad=False)
            optimizer.step()
        norms.append(gradient_norms(model, x, labels))
    return norms


def accuracy(model: Sequential, digits: Digits) -> float:
    return float(np.mean(model(digits.x_test).argmax(axis=1) == digits.labels_test))


def ratio(norms: Array) -> float:
    return float(norms[0] / norms[-1])


def steps(options: Options) -> int:
    return len(ACTIVATIONS) * (len(DEPTHS) + len(TRAINED_DEPTHS))


def run(options: Options, advance: Advance) -> Findings:
    digits = load_digits(options.seed)
    seeds = range(options.seed, options.seed + SEEDS)
    at_start: dict[tuple[str, int], list[Array]] = {}
    moves: dict[tuple[str, int], float] = {}
    x, labels = digits.x_train.astype(np.float64), digits.labels_train
    for activation, depth in itertools.product(ACTIVATIONS, DEPTHS):
        advance(f"vanishing gradient: {activation}, {depth} layers")
        models = [network(activation, depth, seed, np.float64) for seed in seeds]
        at_start[activation, depth] = [gradient_norms(model, x, labels) for model in models]
        rng = np.random.default_rng(options.seed)
        moves[activation, depth] = float(np.median([nudged_loss(m, x, labels, rng) for m in models]))

    in_training: dict[tuple[str, int], list[Array]] = {}
    accuracies: dict[tuple[str, int], float] = {}
    for activation, depth in itertools.product(ACTIVATIONS, TRAINED_DEPTHS):
        advance(f"vanishing gradient: training {activation}, {depth} layers")
        model = network(activation, depth, options.seed)
        rng = np.random.default_rng(options.seed)
        in_training[activation, depth] = train(model, digits, EPOCHS, rng)
        accuracies[activation, depth] = accuracy(model, digits)

    ratios = {key: float(np.median([ratio(norms) for norms in found])) for key, found in at_start.items()}
    tables = {
        "vanishing_layers": Table(
            ("activation", "layer", "at_start", "trained"),
            [
                (name, layer + 1, start, trained)
                for name in ACTIVATIONS
                for layer, (start, trained) in enumerate(
                    zip(
                        _profile(at_start[name, SHOWN_DEPTH]), in_training[name, SHOWN_DEPTH][-1], strict=True
                    )
                )
            ],
        ),
        "vanishing_depth": Table(
            ("activation", "hidden_layers", "first_to_last_gradient", "relative_move_of_loss"),
            [(name, depth, ratios[name, depth], moves[name, depth]) for name, depth in ratios],
        ),
        "vanishing_training": Table(
            ("activation", "hidden_layers", "epoch", "first_to_last_gradient"),
            [
                (name, depth, epoch, ratio(norms))
                for (name, depth), found in in_training.items()
                for epoch, norms in enumerate(found)
            ],
        ),
        "vanishing_accuracy": Table(
            ("activation", "hidden_layers", "test_accuracy"),
            [(name, depth, accuracies[name, depth]) for name, depth in accuracies],
        ),
    }
    from . import vanishing_figures as figures

    start = {name: _profile(at_start[name, SHOWN_DEPTH]) for name in ACTIVATIONS}
    trained = {name: in_training[name, SHOWN_DEPTH][-1] for name in ACTIVATIONS}
    course = {name: [ratio(norms) for norms in in_training[name, SHOWN_DEPTH]] for name in ACTIVATIONS}
    pictures = {
        "vanishing_depth": figures.depth(ratios, moves),
        "vanishing_layers": figures.layers(start, trained),
        "vanishing_training": figures.training(course, accuracies),
    }
    return Findings("The vanishing gradient", "梯度消失", pictures, tables)


def _profile(found: list[Array]) -> Array:
    """The median over seeds, layer by layer."""
    return np.asarray(np.median(found, axis=0))
