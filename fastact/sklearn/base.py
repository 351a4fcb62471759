"""The base of the estimators: their parameters, the network, and the training loop of both."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from .. import activations, checks
from ..nn import SGD, Adam, Dropout, Layer, Linear, Maxout, Sequential, freeze, portable, schedules
from .losses import LOSSES

Array = np.ndarray[Any, Any]

SOLVERS = ("sgd", "adam")
LEARNING_RATES = ("constant", "invscaling", "adaptive", "cosine")
LEAST_RATE = 1e-6  # where "adaptive" ends training, as in scikit-learn
SCIKIT_LEARNS = {"logistic": "sigmoid"}  # its name of an activation
ARCHITECTURE = "hidden_layer_sizes, activation, pieces, dropout, precision"


class MaxoutNetwork(BaseEstimator):
    """The base of `MaxoutClassifier` and `MaxoutRegressor`, whose docstrings describe the parameters."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        *,
        activation: str = "maxout",
        pieces: int = 2,
        dropout: float = 0.0,
        max_norm: float | None = None,
        solver: str = "adam",
        alpha: float = 0.004,
        batch_size: int | str = "auto",
        learning_rate: str = "cosine",
        learning_rate_init: float = 0.01,
        power_t: float = 0.5,
        max_iter: int = 30,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        precision: str | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.pieces = pieces
        self.dropout = dropout
        self.max_norm = max_norm
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.precision = precision

    # ---- what an estimator defines

    n_outputs_: int
    out_activation_: str

    def _start(self, y: Array) -> None:
        """Set what the targets of the first fit decide: `n_outputs_`, `out_activation_`, the classes."""
        raise NotImplementedError

    def _target(self, y: Array, dtype: np.dtype[Any]) -> Array:
        """y as the loss takes it; `dtype` is the network's."""
        raise NotImplementedError

    def _weight(self, y: Array, weight: Array | None) -> Array | None:
        """The weight of each sample; None where all are equal."""
        return weight

    def _predicted(self, outputs: Array) -> Array:
        """Predictions from the network's outputs (n_samples, n_outputs)."""
        raise NotImplementedError

    def _validation_score(self, y: Array, predicted: Array, weight: Array | None) -> float:
        raise NotImplementedError

    # ---- fitting

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers.  Standardise them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or an indicator of several labels for each sample; for a regressor finite numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            0 or more.  A sample of weight 2 counts as two in its batch; one of weight 0 is left out.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter is of the wrong type or out of range; X, y or sample_weight has the wrong shape, or a
            value that is not finite; the loss did not stay finite; with warm_start, a label is new or the
            network would have to be another one.
        """
        return self._fit(X, y, sample_weight, partial=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, partial: bool, labels: Array | None = None) -> Any:
        """Train the network, a new one unless it is there to go on with; for one epoch if `partial`.

        `labels` are those of all calls, None where y has them all.
        """
        self._check_parameters()
        if partial and self.early_stopping:
            raise ValueError("early_stopping: got True, wanted False for partial_fit, which is one epoch")
        fresh = not hasattr(self, "network_") or not (partial or self.warm_start)
        if fresh:
            # Within one batch nothing but rounding tells apart two orders of the samples, or weights from
            # repetitions.  Among several batches the choice of the samples outweighs float32's rounding.
            rows = _num_samples(X)
            dtype = np.dtype(np.float64 if rows == self._batch(rows) and not partial else np.float32)
        else:
            dtype = self._dtype
        x, y = validate_data(
            self,
            X,
            y,
            dtype=dtype,
            order="C",
            multi_output=True,
            y_numeric=is_regressor(self),
            reset=fresh,
        )
        if issparse(y):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        if fresh:
            self._start(y if labels is None else labels)
        target, weight = self._target(y, dtype), self._weight(y, weight)
        if weight is not None and not weight.all():
            kept = np.flatnonzero(weight)
            if not kept.size:
                raise ValueError("sample_weight: got a weight of 0 for every sample, wanted one above 0")
            x, y, target, weight = x[kept], y[kept], target[kept], weight[kept]

        if fresh:
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            self._rng = np.random.default_rng(seed)  # weights, validation samples, batches, dropout
            self.network_ = self._new_network(x.shape[1], dtype)
            self._made_of = self._architecture()
            self.loss_curve_: list[float] = []
            self.validation_scores_: list[float] = []
            self.t_ = 0
        elif self._architecture() != self._made_of:
            raise ValueError(
                f"{type(self).__name__}: got other {ARCHITECTURE} than in the first fit, wanted the same"
            )
        if fresh or not partial:
            self._optimizer = self._new_optimizer()
            self._best, self._stalled, self._divisions = -math.inf, 0, 0
        self._train(x, y, target, weight, partial)
        return self

    @property
    def _dtype(self) -> np.dtype[Any]:
        """The dtype of the network that there is."""
        dtype: np.dtype[Any] = self.network_[-1].weight.data.dtype
        return dtype

    def _architecture(self) -> tuple[Any, ...]:
        """The values of `ARCHITECTURE`."""
        sizes = _hidden(self.hidden_layer_sizes)
        return sizes, self.activation, self.pieces, self.dropout, self.precision

    def _new_network(self, features: int, dtype: np.dtype[Any]) -> Sequential:
        shared: Any = {"precision": self.precision, "rng": self._rng, "dtype": dtype}
        layers: list[Layer] = []
        for units in _hidden(self.hidden_layer_sizes):
            layer: Maxout | Linear
            if self.activation == "maxout":
                layer = Maxout(features, units, self.pieces, **shared)
            else:
                activation: Any = SCIKIT_LEARNS.get(self.activation, self.activation)
                layer = Linear(features, units, activation=activation, **shared)
            layer.weight.max_norm = self.max_norm
            layers.append(layer)
            if self.dropout:
                layers.append(Dropout(self.dropout, rng=self._rng))
            features = units
        return Sequential(*layers, Linear(features, self.n_outputs_, **shared))

    def _new_optimizer(self) -> SGD | Adam:
        parameters, rate = self.network_.parameters(), self.learning_rate_init
        if self.solver == "adam":
            return Adam(parameters, rate, self.beta_1, self.beta_2, self.epsilon, self.alpha)
        nesterov = bool(self.nesterovs_momentum and self.momentum)
        return SGD(parameters, rate, self.momentum, nesterov, self.alpha)

    def _batch(self, rows: int) -> int:
        """The number of samples in a batch."""
        size = min(max(rows // 50, 32), 256) if self.batch_size == "auto" else int(self.batch_size)
        return min(rows, size)

    def _train(self, x: Array, y: Array, target: Array, weight: Array | None, partial: bool) -> None:
        """The epochs of a fit, or the one of a partial fit."""
        held_out = None
        if self.early_stopping:
            train, held_out = self._split(y)
            x_held, y_held, weight_held = x[held_out], y[held_out], _rows_of(weight, held_out)
            x, target, weight = x[train], target[train], _rows_of(weight, train)
        epochs = 1 if partial else self.max_iter
        steps = 0 if partial else epochs * -(-len(x) // self._batch(len(x)))
        best_state: dict[str, Array] = {}
        with _progress(bool(self.verbose), epochs) as advance:
            for epoch in range(epochs):
                loss = self._epoch(x, target, weight, epoch, steps)
                if not math.isfinite(loss):
                    raise ValueError(
                        f"{type(self).__name__}: the loss of epoch {epoch + 1} is {loss}: standardise X, or "
                        "choose a smaller learning_rate_init"
                    )
                self.loss_, self.n_iter_, self.t_ = loss, epoch + 1, self.t_ + len(x)
                self.loss_curve_.append(loss)
                score, text = -loss, f"epoch {epoch + 1}, loss {loss:.6f}"
                if held_out is not None:
                    score = self._validation_score(
                        y_held, self._predicted(self.network_(x_held)), weight_held
                    )
                    self.validation_scores_.append(score)
                    text += f", validation score {score:.4f}"
                advance(text)
                self._stalled = self._stalled + 1 if score < self._best + self.tol else 0
                if score > self._best:
                    self._best = score
                    best_state = {} if held_out is None else self.network_.state_dict()
                if self._stalled > self.n_iter_no_change and not self._divide_rate():
                    break
            else:
                if not partial and self.learning_rate != "cosine":  # which has come to its end
                    warnings.warn(
                        f"{type(self).__name__}: max_iter={epochs} epochs were over, and the last "
                        f"{self.n_iter_no_change} of them still had an improvement above tol={self.tol}",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
        if best_state:
            self.network_.load_state_dict(best_state)
            self.best_validation_score_ = self._best

    def _split(self, y: Array) -> tuple[Array, Array]:
        """The indices of the training samples and of the validation samples."""
        train, held_out = train_test_split(
            np.arange(len(y)),
            test_size=self.validation_fraction,
            random_state=int(self._rng.integers(2**31)),
            stratify=y if self.out_activation_ == "softmax" else None,
        )
        if len(held_out) < 2:
            raise ValueError(
                f"validation_fraction: got {self.validation_fraction} of {len(y)} samples, wanted a share of "
                "at least 2"
            )
        return train, held_out

    def _epoch(self, x: Array, target: Array, weight: Array | None, epoch: int, steps: int) -> float:
        """One step for each batch; the mean loss.  `steps` is as in `_rate`."""
        network, optimizer, loss_of = self.network_, self._optimizer, LOSSES[self.out_activation_]
        size = self._batch(len(x))
        order = self._rng.permutation(len(x)) if self.shuffle else np.arange(len(x))
        batches = [order[start : start + size] for start in range(0, len(x), size)]
        space = np.empty((size, x.shape[1]), x.dtype)
        total = 0.0
        for i, batch in enumerate(batches):
            # "clip" because other modes would write to a buffer first; every index is in range
            inputs = x.take(batch, axis=0, out=space[: len(batch)], mode="clip")
            outputs = network(inputs, training=True)
            if weight is None:
                loss, grad = loss_of.mean(outputs, target[batch])
                total += loss * len(batch)
            else:
                loss, grad = loss_of.weighted(outputs, target[batch], weight[batch])
                total += loss * float(weight[batch].sum())
            network.backward(grad, needs_input_grad=False)
            optimizer.lr = self._rate(epoch * len(batches) + i, steps)
            optimizer.step()
        return total / (len(x) if weight is None else float(weight.sum()))

    def _rate(self, step: int, steps: int) -> float:
        """The learning rate of a step of `steps`, which is 0 in a partial fit: nobody knows its last one."""
        rate = float(self.learning_rate_init)
        if self.learning_rate == "cosine" and steps:
            return schedules.cosine(step, steps, rate)
        if self.learning_rate == "invscaling":
            return rate / portable.power(float(self.t_ + 1), float(self.power_t))
        return rate / portable.power(5.0, self._divisions)

    def _divide_rate(self) -> bool:
        """Divide an adaptive learning rate by 5; False where training has to stop."""
        if self.learning_rate != "adaptive" or self._optimizer.lr <= LEAST_RATE:
            return False
        self._divisions, self._stalled = self._divisions + 1, 0
        return True

    # ---- predicting

    def _outputs(self, X: Any) -> Array:
        """The network's outputs (n_samples, n_outputs), float64."""
        check_is_fitted(self, "network_")
        x = validate_data(self, X, dtype=self._dtype, order="C", reset=False)
        return freeze(self.network_)(x).astype(np.float64)

    def predict(self, X: Any) -> Array:
        """Predictions for X; those of a sample do not depend on the others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._predicted(self._outputs(X))

    def _check_parameters(self) -> None:
        """Raise TypeError or ValueError, by its own name, for a parameter that is not as described."""
        for i, units in enumerate(_hidden(self.hidden_layer_sizes)):
            checks.check_size(f"hidden_layer_sizes[{i}]", units, 1)
        names: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("activation", ("maxout", *activations.NAMES, *SCIKIT_LEARNS)),
            ("solver", SOLVERS),
            ("learning_rate", LEARNING_RATES),
        )
        for name, allowed in names:
            if getattr(self, name) not in allowed:
                raise checks.unknown_name(name, getattr(self, name), allowed)
        for name in ("alpha", "learning_rate_init", "power_t", "tol", "momentum", "epsilon"):
            checks.check_not_negative(name, getattr(self, name), checks.LARGEST["f"])
        for name in ("dropout", "validation_fraction", "beta_1", "beta_2"):
            checks.check_below_one(name, getattr(self, name))
        checks.check_positive("validation_fraction", self.validation_fraction)
        if self.max_norm is not None:
            checks.check_positive("max_norm", self.max_norm, checks.LARGEST["f"])
        for name in ("max_iter", "n_iter_no_change"):
            checks.check_size(name, getattr(self, name), 1)
        if self.batch_size != "auto":
            checks.check_size("batch_size", self.batch_size, 1)
        for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            checks.check_flag(name, getattr(self, name))


def _hidden(sizes: Any) -> tuple[Any, ...]:
    """hidden_layer_sizes as a tuple; one number is one layer."""
    return tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)


def _rows_of(weight: Array | None, rows: Array) -> Array | None:
    return None if weight is None else weight[rows]


@contextmanager
def _progress(shown: bool, epochs: int) -> Iterator[Callable[[str], None]]:
    """A function to call after each epoch, whose text a progress bar shows."""
    if not shown:
        yield lambda text: None
        return
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("", total=epochs)
        yield lambda text: progress.update(task, description=text, advance=1)
