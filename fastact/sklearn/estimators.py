"""`MaxoutClassifier` and `MaxoutRegressor`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from .base import MaxoutNetwork

Array = np.ndarray[Any, Any]


class MaxoutClassifier(ClassifierMixin, MaxoutNetwork):
    """A network of maxout layers for classes: scikit-learn's MLPClassifier on fastact's kernels.

    The loss is softmax cross-entropy over the classes, for two as well; with several labels for a sample, the
    mean binary cross-entropy.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(100,)
        The units of each hidden layer; () for none.
    activation : str, default="maxout"
        "maxout", or a name of the table in `fastact.activations`, such as "relu", "tanh" or "gelu"; also
        scikit-learn's "logistic".  Maxout with 2 pieces learned more in the same epochs than relu on all
        data that the defaults were chosen with.
    pieces : int, default=2
        Linear pieces of a maxout unit, 1 to 256; other activations have none.  Each piece adds as many
        weights as a layer of relu has, so 2 is the least that learns its activation.
    dropout : float, default=0.0
        The probability of dropping a hidden unit in training.  0 keeps a fit with weights the same as one
        with repeated samples; 0.2 to 0.5 help wide networks on few samples.
    max_norm : float, default=None
        An upper bound of the Euclidean norm of each hidden piece's incoming weights; None for no bound.
    solver : {"sgd", "adam"}, default="adam"
        The optimiser.  Adam needs the least tuning.
    alpha : float, default=0.004
        The weight decay: the gradient of alpha / 2 times the squared weights is added to the loss's.
        scikit-learn divides by the samples of a batch: its alpha is this one times batch_size.
    batch_size : int or "auto", default="auto"
        Samples in a batch.  "auto" is 1/50 of the samples, from 32 to 256, so that small data have enough
        steps in an epoch and large data long products.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine"}, default="cosine"
        The schedule, with either solver.  "cosine" falls from learning_rate_init to 0 within max_iter epochs:
        a high rate is quick and its end accurate, in fewer epochs than a constant rate needs.  The others are
        scikit-learn's.
    learning_rate_init : float, default=0.01
        The first learning rate.  0.01 is high for Adam, as "cosine" lowers it; for the other schedules 0.001
        is usual, for SGD 0.05.
    power_t : float, default=0.5
        With "invscaling" the learning rate is learning_rate_init / (t_ + 1) ** power_t.
    max_iter : int, default=30
        The epochs of a fit, unless it stops before.  The "cosine" schedule spans them.
    shuffle : bool, default=True
        Whether each epoch has its own batches.
    random_state : int, RandomState or None, default=None
        For weights, validation samples, batches and dropout.
    tol : float, default=1e-4
        What counts as an improvement of the training loss, or of the validation score.
    verbose : bool, default=False
        Whether to show a progress bar, which needs rich.
    warm_start : bool, default=False
        Whether fit goes on with the network of the fit before, with a new optimiser.
    momentum, nesterovs_momentum : float and bool, default=0.9 and True
        The momentum of SGD, and whether it is Nesterov's.
    early_stopping : bool, default=False
        Whether to stop by the score on validation samples, and keep the best network of them.
    validation_fraction : float, default=0.1
        The share of the validation samples, with early_stopping.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999 and 1e-8
        The decay rates of Adam's averages, and the number added to its denominator.
    n_iter_no_change : int, default=10
        A fit stops, or "adaptive" divides the learning rate by 5, after more than this many epochs without an
        improvement.
    precision : {"highest", "high", "medium"} or None, default=None
        The float32 precision tier; None for the one in force (`fastact.set_float32_matmul_precision`).
    class_weight : dict, "balanced" or None, default=None
        A weight for each class, by which sample weights are multiplied.  "balanced": n_samples / (n_classes
        * samples of the class).

    Attributes
    ----------
    network_ : fastact.Sequential
        The network.
    loss_, loss_curve_ : float and list of float
        The mean training loss of the last epoch, and of all epochs since the first fit, without weight decay.
    validation_scores_, best_validation_score_ : list of float, and float
        The score of each epoch, and the best one, with early_stopping.
    n_iter_, t_ : int
        The epochs of the last call, and the samples that all epochs have seen.
    n_features_in_, feature_names_in_, n_outputs_, out_activation_, classes_
        As in MLPClassifier.

    Notes
    -----
    Networks compute in float32; where a fit's samples fit into one batch, in float64.
    """

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
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            pieces=pieces,
            dropout=dropout,
            max_norm=max_norm,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            precision=precision,
        )
        self.class_weight = class_weight

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Train for one epoch on these samples, after the epochs before.

        The learning rate is learning_rate_init, unless learning_rate is "invscaling" or "adaptive".

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
        classes : array-like, default=None
            The labels of all calls.  The first call needs them, unless y is multi-label.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit`; also where early_stopping is True, class_weight is "balanced", classes is missing in
            the first call, or not the same as in the first call.
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight: got {self.class_weight!r}, wanted a dict or None for partial_fit, which does "
                "not see all samples"
            )
        labels = None if classes is None else unique_labels(classes)
        if hasattr(self, "network_"):
            if labels is not None and not np.array_equal(labels, self.classes_):
                raise ValueError(f"classes: got {labels}, wanted {self.classes_}, as in the first call")
        elif type_of_target(y) == "multilabel-indicator":
            labels = None
        elif labels is None:
            raise ValueError("classes: got None in the first call of partial_fit, wanted all labels")
        return self._fit(X, y, sample_weight, partial=True, labels=labels)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, or of each label where y was multi-label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), float32
        """
        outputs = self._outputs(X)
        return softmax(outputs, axis=1) if self.out_activation_ == "softmax" else expit(outputs)

    def _start(self, y: Array) -> None:
        if y.ndim == 2:
            self.out_activation_, self.classes_ = "logistic", np.arange(y.shape[1])
        else:
            check_classification_targets(y)
            self.out_activation_, self._encoder = "softmax", LabelEncoder().fit(y)
            self.classes_ = self._encoder.classes_
        self.n_outputs_ = len(self.classes_)

    def _target(self, y: Array, dtype: np.dtype[Any]) -> Array:
        """Indices of classes (n_samples,), or an indicator of floats (n_samples, n_labels)."""
        kind = type_of_target(y)
        if self.out_activation_ == "softmax":
            if y.ndim == 2:
                raise ValueError(f"y: got {kind} of shape {y.shape}, wanted one label for each sample")
            return self._encoder.transform(y).astype(np.int64)
        if kind != "multilabel-indicator" or y.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y: got {kind} of shape {y.shape}, wanted a multi-label indicator "
                f"(n_samples, {self.n_outputs_}); for other targets use MultiOutputClassifier"
            )
        return y.astype(dtype)

    def _weight(self, y: Array, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        by_class = compute_sample_weight(self.class_weight, y)
        return by_class if weight is None else weight * by_class

    def _predicted(self, outputs: Array) -> Array:
        if self.out_activation_ == "softmax":
            return self.classes_[outputs.argmax(axis=1)]
        return (outputs > 0).astype(np.int64)

    def _validation_score(self, y: Array, predicted: Array, weight: Array | None) -> float:
        return float(accuracy_score(y, predicted, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MaxoutRegressor(RegressorMixin, MaxoutNetwork):
    """A network of maxout layers for numbers: scikit-learn's MLPRegressor on fastact's kernels.

    The loss is the mean squared error, over all outputs.  Scale the targets to about 1
    (`sklearn.compose.TransformedTargetRegressor`).

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(100,)
        The units of each hidden layer; () for none.
    activation : str, default="maxout"
        "maxout", or a name of the table in `fastact.activations`, such as "relu", "tanh" or "gelu"; also
        scikit-learn's "logistic".  Maxout with 2 pieces learned more in the same epochs than relu on all
        data that the defaults were chosen with.
    pieces : int, default=2
        Linear pieces of a maxout unit, 1 to 256; other activations have none.  Each piece adds as many
        weights as a layer of relu has, so 2 is the least that learns its activation.
    dropout : float, default=0.0
        The probability of dropping a hidden unit in training.  0 keeps a fit with weights the same as one
        with repeated samples; 0.2 to 0.5 help wide networks on few samples.
    max_norm : float, default=None
        An upper bound of the Euclidean norm of each hidden piece's incoming weights; None for no bound.
    solver : {"sgd", "adam"}, default="adam"
        The optimiser.  Adam needs the least tuning.
    alpha : float, default=0.004
        The weight decay: the gradient of alpha / 2 times the squared weights is added to the loss's.
        scikit-learn divides by the samples of a batch: its alpha is this one times batch_size.
    batch_size : int or "auto", default="auto"
        Samples in a batch.  "auto" is 1/50 of the samples, from 32 to 256, so that small data have enough
        steps in an epoch and large data long products.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine"}, default="cosine"
        The schedule, with either solver.  "cosine" falls from learning_rate_init to 0 within max_iter epochs:
        a high rate is quick and its end accurate, in fewer epochs than a constant rate needs.  The others are
        scikit-learn's.
    learning_rate_init : float, default=0.01
        The first learning rate.  0.01 is high for Adam, as "cosine" lowers it; for the other schedules 0.001
        is usual, for SGD 0.05.
    power_t : float, default=0.5
        With "invscaling" the learning rate is learning_rate_init / (t_ + 1) ** power_t.
    max_iter : int, default=30
        The epochs of a fit, unless it stops before.  The "cosine" schedule spans them.
    shuffle : bool, default=True
        Whether each epoch has its own batches.
    random_state : int, RandomState or None, default=None
        For weights, validation samples, batches and dropout.
    tol : float, default=1e-4
        What counts as an improvement of the training loss, or of the validation score.
    verbose : bool, default=False
        Whether to show a progress bar, which needs rich.
    warm_start : bool, default=False
        Whether fit goes on with the network of the fit before, with a new optimiser.
    momentum, nesterovs_momentum : float and bool, default=0.9 and True
        The momentum of SGD, and whether it is Nesterov's.
    early_stopping : bool, default=False
        Whether to stop by the score on validation samples, and keep the best network of them.
    validation_fraction : float, default=0.1
        The share of the validation samples, with early_stopping.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999 and 1e-8
        The decay rates of Adam's averages, and the number added to its denominator.
    n_iter_no_change : int, default=10
        A fit stops, or "adaptive" divides the learning rate by 5, after more than this many epochs without an
        improvement.
    precision : {"highest", "high", "medium"} or None, default=None
        The float32 precision tier; None for the one in force (`fastact.set_float32_matmul_precision`).

    Attributes
    ----------
    network_ : fastact.Sequential
        The network.
    loss_, loss_curve_ : float and list of float
        The mean training loss of the last epoch, and of all epochs since the first fit, without weight decay.
    validation_scores_, best_validation_score_ : list of float, and float
        The score of each epoch, and the best one, with early_stopping.
    n_iter_, t_ : int
        The epochs of the last call, and the samples that all epochs have seen.
    n_features_in_, feature_names_in_, n_outputs_, out_activation_
        As in MLPRegressor.

    Notes
    -----
    Networks compute in float32; where a fit's samples fit into one batch, in float64.
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch on these samples, after the epochs before.

        The learning rate is learning_rate_init, unless learning_rate is "invscaling" or "adaptive".

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit`; also where early_stopping is True.
        """
        return self._fit(X, y, sample_weight, partial=True)

    def _start(self, y: Array) -> None:
        self.out_activation_, self.n_outputs_ = "identity", 1 if y.ndim == 1 else y.shape[1]

    def _target(self, y: Array, dtype: np.dtype[Any]) -> Array:
        with np.errstate(over="ignore"):
            target = y.reshape(len(y), -1).astype(dtype)
        if target.shape[1] != self.n_outputs_:
            raise ValueError(f"y: got shape {y.shape}, wanted {self.n_outputs_} numbers for each sample")
        if not np.isfinite(target).all():
            raise ValueError(
                "y: got a number beyond float32: scale the targets, as with TransformedTargetRegressor"
            )
        return target

    def _predicted(self, outputs: Array) -> Array:
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _validation_score(self, y: Array, predicted: Array, weight: Array | None) -> float:
        return float(r2_score(y, predicted, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
