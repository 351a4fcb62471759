"""What a backend is: a module with the functions of `Backend`.

The type checker holds each backend against `Backend`, and a test compares names and defaults.  `numpy.py`
says what each function computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ..activations import Activation
from ..settings import Precision

Array = np.ndarray[Any, Any]


class Update(NamedTuple):
    """A parameter in a step of an optimiser, checked."""

    data: Array  # (..., columns), writeable
    grad: Array  # of data's shape and dtype
    decay: bool  # whether weight decay applies
    max_norm: float | None  # after the step no data[..., :] is longer


class HashTable(NamedTuple):
    """One of several hash embeddings side by side, or its gradient."""

    data: Array  # (rows, columns), 1 <= rows < 2**32
    column: int  # of the ids
    seed: int  # 0 to 2**32 - 1
    scale: Array | None  # (columns,), a factor of each column of the result


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
        threads           how many threads may work, 0 for the backend's own default; plus
                          settings.REPRODUCIBLE, on the C backend alone
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

    # ---- a product alone

    def matmul(
        self,
        x: Array,
        y: Array,
        trans1: bool,
        trans2: bool,
        out: Array,
        threads: int = 0,
        precision: Precision = "highest",
    ) -> None:
        """out (rows, columns) = x @ y, of x.T where trans1, and y.T where trans2; zeros for a depth of 0."""

    # ---- layer norm: x, y and their gradients (rows, features), features >= 1; weight and bias (features,)
    # or None; saved (rows, 2) holds the mean and 1 / sqrt(variance + eps) of each row

    def layer_norm(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        y: Array,
        saved: Array | None,
        threads: int = 0,
    ) -> None:
        """y = (x - mean) / sqrt(variance + eps) * weight + bias, of each row."""

    def layer_norm_backward(
        self,
        grad_y: Array,
        x: Array,
        weight: Array | None,
        saved: Array,
        grad_x: Array | None,
        grad_weight: Array | None,
        grad_bias: Array | None,
        accumulate: bool = False,
        threads: int = 0,
    ) -> None:
        """The gradients."""

    # ---- dropout

    def dropout_keep(self, seed: int, p: float, keep: Array, threads: int = 0) -> None:
        """keep, uint8 of any shape = 1 where a random number is at least p, else 0; 0 <= p < 1.

        Number i is word i % 4 of Philox4x32-10 with the counter i // 4 and the key `seed`, 0 to 2**64 - 1;
        it is compared with p 2^32, rounded to the nearest whole number, to even if halfway.
        """

    # ---- hash embeddings: ids (rows, columns), uint64; y and grad_y (rows, the sum of the tables' columns);
    # keys (tables, rows, 4), uint32, which a backward takes as its forward wrote them; at least one table

    def hash_embed(
        self, ids: Array, tables: tuple[HashTable, ...], y: Array, keys: Array, threads: int = 0
    ) -> None:
        """y = for each table (0 + data[k0] + data[k1] + data[k2] + data[k3]) * scale, side by side.

        k0 to k3, the keys, are the 32-bit words of MurmurHash3 of the id with the seed, modulo the table's
        rows.  The hash is that of 128 bits for x64, over the id's 8 bytes, as in Thinc's HashEmbed.
        """

    def hash_embed_backward(
        self, grad_y: Array, keys: Array, tables: tuple[HashTable, ...], threads: int = 0
    ) -> None:
        """Add grad_y * scale to the rows `keys` of each table's gradient: all k0, then all k1, k2, k3.

        The gradients do not overlap.
        """

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

    # ---- optimisers, in place
    #
    # A step takes the parameters of an optimiser, unchecked, and `checked`, which checks and converts them:
    # it returns an `Update` for each parameter, or raises.  A backend calls it before anything is written,
    # unless the backend itself finds that each parameter is as an `Update` would be.  The state has an array
    # of data's shape for each parameter.

    def sgd(
        self,
        parameters: Sequence[Any],
        checked: Callable[[], Sequence[Update]],
        velocity: Sequence[Array],
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        threads: int = 0,
    ) -> None:
        """A step of SGD, which leaves `velocity` as it is where momentum is 0."""

    def adam(
        self,
        parameters: Sequence[Any],
        checked: Callable[[], Sequence[Update]],
        mean: Sequence[Array],
        square: Sequence[Array],
        rate: float,
        beta1: float,
        beta2: float,
        unbias: float,
        eps: float,
        weight_decay: float,
        keep: float,
        threads: int = 0,
    ) -> None:
        """A step of Adam: rate = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t).

        First data *= keep, where the parameter decays: 1 for Adam, 1 - lr * weight_decay for AdamW.
        """

    def update_parameter(
        self,
        data: Any,
        grad: Any,
        mean: Any,
        square: Any,
        average: Any,
        max_norm: float,
        decay: float,
        rate: float,
        beta1: float,
        beta2: float,
        eps: float,
        shrink: float,
        new_share: float,
        threads: int = 0,
    ) -> bool:
        """A step of Adam, or of SGD where `mean` is None, and all that goes with it, for one parameter.

            g = grad + decay * data
            g *= max_norm / |g|                         if max_norm is not 0 and |g| >= max_norm
            mean = beta1 * mean + (1 - beta1) * g       the betas are rounded to data's dtype before
            square = beta2 * square + (1 - beta2) * g²
            data -= rate * mean / (sqrt(square) + eps)  SGD: data -= rate * g
            data -= shrink * data
            average += new_share * (data - average)     unless average is None
            grad = 0                                    SGD: 0 * g, which a NaN or an infinity makes NaN

        |g| is the root of a sum in float64, which is then rounded to data's dtype: beyond its range |g| is
        infinite.  Returns False, and changes nothing, unless the arguments are as follows.  The arrays are
        NumPy's own, of one dtype, float32 or float64, C-contiguous, aligned, writeable, and share no memory.
        data has an axis or more, grad and average have its shape, mean and square are vectors of its size,
        or both None.  The numbers are ints or floats, finite in data's dtype.
        """

    def max_norm(self, data: Array, max_norm: float, threads: int = 0) -> None:
        """Scale down each data[..., :] that is longer than `max_norm`."""

    def clip_grad_norm(self, grads: list[Array], max_norm: float, threads: int = 0) -> float:
        """The Euclidean norm over all arrays; each is scaled by max_norm / (norm + 1e-6) if that is below 1.

        The arrays may have several dtypes.  A NaN makes the norm NaN, else an infinity makes it infinite.
        Products are rounded once, from float64.
        """


if TYPE_CHECKING:
    from . import c, numba, numpy

    _c: Backend = c
    _numba: Backend = numba
    _numpy: Backend = numpy
