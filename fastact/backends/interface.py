"""What a backend is: a module with the functions of `Backend`.

The type checker holds each backend against `Backend`, and a test compares names and defaults.  `numpy.py`
says what each function computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..activations import Activation
from ..settings import Precision

Array = np.ndarray[Any, Any]


class Backend(Protocol):
    """The functions of a backend.

    The caller has checked the arguments: arrays are C-contiguous and aligned, their shapes agree, and they
    are of one dtype, float32 or float64; an argmax is uint8, labels are int64.  The values of an argmax and
    of labels alone are for a backend to check: one that names no piece or class raises ValueError before
    anything is written.  Results are written to arrays that the caller allocated.

        x                 (rows, in_features)
        weight            (out_features, pieces, in_features), with an activation (out_features, in_features)
        bias              weight's shape without in_features; None for no bias
        y, grad_y         (rows, out_features); likewise argmax, saved and z
        grad_<argument>   the argument's shape; None for a result that is not wanted, as for argmax and z
        accumulate        add the finished sums to grad_weight, grad_bias and grad_slope
        threads           how many threads may work; 0 for the backend's own default
        precision         the tier, which bounds the error of float32 products
    """

    __name__: str

    # ---- linear + maxout

    def linear_maxout(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        y: Array,
        argmax: Array | None,
        threads: int = 0,
        precision: Precision = "highest",
    ) -> None:
        """y = the largest piece of each output, and argmax its index."""

    def linear_maxout_backward(
        self,
        grad_y: Array,
        x: Array,
        weight: Array,
        argmax: Array,
        grad_x: Array | None,
        grad_weight: Array | None,
        grad_bias: Array | None,
        accumulate: bool = False,
        threads: int = 0,
        precision: Precision = "highest",
    ) -> None:
        """The gradients, summed over the winners."""

    def maxout(self, z: Array, y: Array, argmax: Array | None, threads: int = 0) -> None:
        """The largest of z (outer, pieces, inner) along pieces; y and argmax are (outer, inner)."""

    def maxout_backward(self, grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
        """grad_z (outer, pieces, inner) = grad_y at each winner, 0 elsewhere."""

    # ---- activations: `act` has the parameter, or PReLU's slope (1,) or (features,)

    def linear_activation(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        act: Activation,
        y: Array,
        z: Array | None,
        threads: int = 0,
        precision: Precision = "highest",
    ) -> None:
        """y = act(z), where z = x @ weight.T + bias."""

    def linear_activation_backward(
        self,
        grad_y: Array,
        x: Array,
        weight: Array,
        saved: Array,
        act: Activation,
        grad_x: Array | None,
        grad_weight: Array | None,
        grad_bias: Array | None,
        grad_slope: Array | None,
        accumulate: bool = False,
        threads: int = 0,
        precision: Precision = "highest",
    ) -> None:
        """The gradients; `saved` is y or z, as `act.saves` says."""

    def activation(self, z: Array, act: Activation, y: Array, threads: int = 0) -> None:
        """y = act(z), of any one shape, (rows, features) where there is a slope; y may be z."""

    def activation_backward(
        self,
        grad_y: Array,
        saved: Array,
        act: Activation,
        grad_z: Array,
        grad_slope: Array | None = None,
        accumulate: bool = False,
        threads: int = 0,
    ) -> None:
        """grad_z, which may be grad_y or saved; and grad_slope, summed over rows or over everything."""

    # ---- losses: the mean, 0 where there is nothing, and `grad`, its derivatives

    def softmax_cross_entropy(
        self,
        logits: Array,
        labels: Array,
        label_smoothing: float,
        ignore_index: int,
        grad: Array,
        threads: int = 0,
    ) -> float:
        """-log softmax(logits)[label] of logits (..., classes), over the labels that are not ignore_index."""

    def mse(self, y: Array, target: Array, grad: Array, threads: int = 0) -> float:
        """(y - target)², of arrays of any shape."""

    def binary_cross_entropy_with_logits(
        self, logits: Array, target: Array, grad: Array, threads: int = 0
    ) -> float:
        """log(1 + exp(logits)) - logits * target, of arrays of any shape."""

    def huber(self, y: Array, target: Array, delta: float, grad: Array, threads: int = 0) -> float:
        """Half the square of y - target up to delta, linear beyond; of arrays of any shape."""

    # ---- steps of the optimisers, in place: data (..., columns); grad and the state are of its shape

    def sgd(
        self,
        data: Array,
        grad: Array,
        velocity: Array | None,
        lr: float,
        momentum: float,
        nesterov: bool,
        decay: float,
        max_norm: float,
        threads: int = 0,
    ) -> None:
        """A step of SGD, after which no data[..., :] is longer than `max_norm`, which may be infinite."""

    def adam(
        self,
        data: Array,
        grad: Array,
        mean: Array,
        square: Array,
        rate: float,
        beta1: float,
        beta2: float,
        unbias: float,
        eps: float,
        decay: float,
        max_norm: float,
        threads: int = 0,
    ) -> None:
        """A step of Adam: rate = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t)."""

    def max_norm(self, data: Array, max_norm: float, threads: int = 0) -> None:
        """Scale down each data[..., :] that is longer than `max_norm`."""


if TYPE_CHECKING:
    from . import c, numba, numpy

    _c: Backend = c
    _numba: Backend = numba
    _numpy: Backend = numpy
