"""The naive NumPy version of every operation: the specification of what the kernels compute.

Tests compare each compiled backend with it, and benchmarks measure against it.  `interface.Backend` describes
the arguments.  `threads` and `precision` are ignored: NumPy has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..activations import TABLE, Activation
from ..checks import ARRAYS, LARGEST, label_error
from ..settings import Precision
from .custom import kernels_of
from .interface import HashTable, Update

Array = np.ndarray[Any, Any]


def _store(target: Array, value: Array, accumulate: bool) -> None:
    if accumulate:
        target += value
    else:
        target[...] = value


def argmax_error(argmax: Array, pieces: int) -> ValueError:
    return ValueError(f"argmax: got the value {argmax.max()}, wanted 0 to {pieces - 1}")


def check_argmax(argmax: Array, pieces: int) -> None:
    """Raise ValueError where a value is not below pieces."""
    if argmax.size and argmax.max() >= pieces:
        raise argmax_error(argmax, pieces)


# ---- linear + maxout


@np.errstate(all="ignore")
def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    argmax: Array | None,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    out_features, pieces, in_features = weight.shape
    z = x @ weight.reshape(out_features * pieces, in_features).T
    z = z.reshape(len(x), out_features, pieces)
    if bias is not None:
        z += bias
    maxout(z.reshape(-1, pieces, 1), y.reshape(-1, 1), None if argmax is None else argmax.reshape(-1, 1))


@np.errstate(all="ignore")
def linear_maxout_backward(
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
    rows, out_features = grad_y.shape
    pieces, in_features = weight.shape[1:]
    check_argmax(argmax, pieces)
    units = out_features * pieces
    grad_z = np.zeros((rows, out_features, pieces), grad_y.dtype)
    maxout_backward(grad_y.reshape(-1, 1), argmax.reshape(-1, 1), grad_z.reshape(-1, pieces, 1))

    if grad_x is not None:
        if np.isfinite(weight).all():
            np.matmul(grad_z.reshape(rows, units), weight.reshape(units, in_features), out=grad_x)
        else:  # 0 * inf is NaN in a dense product: sum over the winners alone
            outputs = np.arange(out_features)
            for n in range(rows):
                grad_x[n] = grad_y[n] @ weight[outputs, argmax[n]]
    if grad_weight is not None:
        if np.isfinite(x).all():
            dense = grad_z.reshape(rows, units).T @ x
            _store(grad_weight, dense.reshape(weight.shape), accumulate)
        else:
            for j in range(out_features):
                for k in range(pieces):
                    won = argmax[:, j] == k
                    _store(grad_weight[j, k], grad_y[won, j] @ x[won], accumulate)
    if grad_bias is not None:
        _store(grad_bias, grad_z.sum(axis=0), accumulate)


# ---- bare maxout


def maxout(z: Array, y: Array, argmax: Array | None, threads: int = 0) -> None:
    z.max(axis=1, out=y)
    if argmax is not None:
        argmax[...] = z.argmax(axis=1)  # the lowest index of a tie; the first NaN


def maxout_backward(grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
    check_argmax(argmax, grad_z.shape[1])
    if not grad_z.size:  # NumPy makes indices of every axis, however long
        return
    grad_z[...] = 0
    np.put_along_axis(grad_z, argmax[:, None, :].astype(np.intp), grad_y[:, None, :], axis=1)


# ---- linear + activation


@np.errstate(all="ignore")
def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None,
    act: Activation,
    y: Array,
    z: Array | None,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    product = x @ weight.T
    if bias is not None:
        product += bias
    if z is not None:
        z[...] = product
    activation(product, act, y)


@np.errstate(all="ignore")
def linear_activation_backward(
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
    grad_z = np.empty_like(grad_y)
    activation_backward(grad_y, saved, act, grad_z, grad_slope, accumulate)
    if grad_x is not None:
        np.matmul(grad_z, weight, out=grad_x)
    if grad_weight is not None:
        _store(grad_weight, grad_z.T @ x, accumulate)
    if grad_bias is not None:
        _store(grad_bias, grad_z.sum(axis=0), accumulate)


# ---- element-wise activations


def _parameter(act: Activation, dtype: np.dtype[Any]) -> Any:
    return dtype.type(act.parameter) if act.slope is None else act.slope


@np.errstate(all="ignore")
def activation(z: Array, act: Activation, y: Array, threads: int = 0) -> None:
    if act.custom is not None:
        kernels = kernels_of(act.custom, z.dtype, vectorised=False)
        kernels.forward(act.parameter, np.atleast_1d(_parameter(act, z.dtype)), z.reshape(-1), y.reshape(-1))
        return
    y[...] = TABLE[act.name].forward(z, _parameter(act, z.dtype))


def _slope_terms(grad_y: Array, saved: Array, act: Activation) -> Array:
    """The term of each element in the gradient of its slope."""
    if act.custom is None:  # saved is z
        return np.where(saved > 0, 0, grad_y * saved)
    terms = np.zeros_like(saved)
    kernels = kernels_of(act.custom, saved.dtype, vectorised=False)
    arrays = (grad_y.reshape(-1), saved.reshape(-1), terms.reshape(-1))
    kernels.add_slope_terms(act.parameter, np.atleast_1d(_parameter(act, saved.dtype)), *arrays)
    return terms


@np.errstate(all="ignore")
def activation_backward(
    grad_y: Array,
    saved: Array,
    act: Activation,
    grad_z: Array,
    grad_slope: Array | None = None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    if grad_slope is not None:  # reduce over rows, and over features for a single slope
        terms = _slope_terms(grad_y, saved, act)
        total = terms.sum(axis=0) if grad_slope.size != 1 else terms.sum()
        _store(grad_slope, np.reshape(total, grad_slope.shape), accumulate)
    if act.custom is not None:
        kernels = kernels_of(act.custom, saved.dtype, vectorised=False)
        arrays = (grad_y.reshape(-1), saved.reshape(-1), grad_z.reshape(-1))
        kernels.backward(act.parameter, np.atleast_1d(_parameter(act, saved.dtype)), *arrays)
        return
    grad_z[...] = TABLE[act.name].backward(grad_y, saved, _parameter(act, saved.dtype))


# ---- a product alone


@np.errstate(all="ignore")
def matmul(
    x: Array,
    y: Array,
    trans1: bool,
    trans2: bool,
    out: Array,
    threads: int = 0,
    precision: Precision = "highest",
) -> None:
    np.matmul(x.T if trans1 else x, y.T if trans2 else y, out=out)


# ---- layer norm


def _deviations(x: Array, mean: Array) -> Array:
    """x - mean, less the mean of that, which the rounding of `mean` leaves in rows far from 0."""
    deviations = x - mean
    return np.asarray(deviations - deviations.mean(axis=-1, keepdims=True))


@np.errstate(all="ignore")
def layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    saved: Array | None,
    threads: int = 0,
) -> None:
    first = x[:, :1]  # equal numbers have deviations of exactly 0 from their mean
    mean = first + (x - first).mean(axis=-1, keepdims=True)
    deviations = _deviations(x, mean)
    scale = 1 / np.sqrt(np.square(deviations).mean(axis=-1, keepdims=True) + eps)
    if saved is not None:
        np.concatenate([mean, scale], axis=-1, out=saved)
    np.multiply(deviations, scale, out=y)
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias


@np.errstate(all="ignore")
def layer_norm_backward(
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
    mean, scale = saved[:, :1], saved[:, 1:]
    normal = _deviations(x, mean) * scale
    if grad_x is not None:
        g = grad_y if weight is None else grad_y * weight
        tilt = (g * normal).mean(axis=-1, keepdims=True)
        grad_x[...] = scale * (g - g.mean(axis=-1, keepdims=True) - normal * tilt)
    if grad_weight is not None:
        _store(grad_weight, (grad_y * normal).sum(axis=0), accumulate)
    if grad_bias is not None:
        _store(grad_bias, grad_y.sum(axis=0), accumulate)


# ---- dropout


def philox4x32(counters: Array, key: int) -> Array:
    """Philox4x32-10 of counters (n, 4) and a key of 64 bits -> (n, 4), all uint32, low words first.

    A generator of random numbers without a state: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
    easy as 1, 2, 3", 2011.
    """
    c0, c1, c2, c3 = np.asarray(counters, np.uint64).T
    key0, key1 = key & 0xFFFFFFFF, key >> 32
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (second >> half) ^ c1 ^ np.uint64(key0), second & low
        c2, c3 = (first >> half) ^ c3 ^ np.uint64(key1), first & low
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1).astype(np.uint32)


def dropout_keep(seed: int, p: float, keep: Array, threads: int = 0) -> None:
    counter = np.arange(-(-keep.size // 4), dtype=np.uint64)
    counters = np.zeros((len(counter), 4), np.uint64)
    counters[:, 0], counters[:, 1] = counter & np.uint64(0xFFFFFFFF), counter >> np.uint64(32)
    numbers = philox4x32(counters, seed).ravel()[: keep.size]
    keep[...] = (numbers.astype(np.uint64) >= round(p * 2**32)).reshape(keep.shape)


# ---- hash embeddings


def murmur_hash(ids: Array, seed: int) -> Array:
    """MurmurHash3 of 128 bits for x64, of ids (n,), 8 bytes each -> (n, 4) words, uint32."""

    def mix(h: Array) -> Array:
        h = (h ^ h >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
        h = (h ^ h >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
        h ^= h >> np.uint64(33)
        return h

    h1 = np.asarray(ids, np.uint64) * np.uint64(0x87C37B91114253D5)
    h1 = (h1 << np.uint64(31) | h1 >> np.uint64(33)) * np.uint64(0x4CF5AD432745937F)
    h2 = np.full_like(h1, seed ^ 8)  # 8 is the number of bytes
    h1 = (h1 ^ np.uint64(seed ^ 8)) + h2
    h2 += h1
    h1, h2 = mix(h1), mix(h2)
    h1 += h2
    h2 += h1
    words: Array = np.stack((h1, h1 >> np.uint64(32), h2, h2 >> np.uint64(32)), axis=1)
    return words.astype(np.uint32)  # the low halves


@np.errstate(all="ignore")
def hash_embed(ids: Array, tables: tuple[HashTable, ...], y: Array, keys: Array, threads: int = 0) -> None:
    start = 0
    for table, table_keys in zip(tables, keys, strict=True):
        rows, columns = table.data.shape
        table_keys[...] = murmur_hash(ids[:, table.column], table.seed) % np.uint32(rows)
        part = y[:, start : start + columns]
        part[...] = 0
        for k in range(4):
            part += table.data[table_keys[:, k]]
        if table.scale is not None:
            part *= table.scale
        start += columns


@np.errstate(all="ignore")
def hash_embed_backward(grad_y: Array, keys: Array, tables: tuple[HashTable, ...], threads: int = 0) -> None:
    start = 0
    for table, table_keys in zip(tables, keys, strict=True):
        part = grad_y[:, start : start + table.data.shape[1]]
        if table.scale is not None:
            part = part * table.scale
        for k in range(4):
            np.add.at(table.data, table_keys[:, k], part)
        start += table.data.shape[1]


# ---- losses


@np.errstate(all="ignore")
def softmax_cross_entropy(
    logits: Array, labels: Array, label_smoothing: float, ignore_index: int, grad: Array, threads: int = 0
) -> float:
    """Computed in float64.

    With m the largest logit of a row, x = z - m and e = exp(x), the sum of e is ties + rest: ties logits
    equal m, and the e of the others add up to rest.  So its logarithm is accurate even where it is nearly 1.
    """
    classes = logits.shape[-1]
    used = labels.reshape(-1) != ignore_index
    label = labels.reshape(-1)[used]
    if ((label < 0) | (label >= classes)).any():
        raise label_error(labels, classes, ignore_index)
    grad[...] = 0
    if not label.size:
        return 0.0
    rows = np.arange(label.size)
    z = logits.reshape(-1, classes)[used].astype(np.float64)
    m = z.max(axis=1, keepdims=True)
    x = z - m
    rounded = x - z
    error = (z - (x - rounded)) - (m + rounded)  # of x, which would be up to |x| / 2 ULP of e
    e = np.exp(x)
    e += e * np.where(np.isinf(x), 0, error)
    ties = np.count_nonzero(x == 0, axis=1)
    rest = np.array([math.fsum(row) for row in np.where(x == 0, 0, e).tolist()])
    target = np.full(z.shape, label_smoothing / classes)
    target[rows, label] += 1 - label_smoothing
    share = 0.5 ** label.size.bit_length()  # losses times it, and their sum, do not overflow
    share_z = np.where(target > 0, m * share - z * share, 0)  # 0 times infinity is 0
    losses = (np.log(ties) + np.log1p(rest / ties)) * share
    losses += [math.fsum(row) for row in (target * share_z).tolist()]
    grad.reshape(-1, classes)[used] = (e / (ties + rest)[:, np.newaxis] - target) / label.size
    return float(math.fsum(losses) / label.size / share)


@np.errstate(all="ignore")
def mse(y: Array, target: Array, grad: Array, threads: int = 0) -> float:
    size = max(y.size, 1)
    np.subtract(y, target, out=grad)
    loss = float(np.add.reduce(np.square(grad), axis=None, dtype=np.float64)) / size
    grad *= 2 / size
    return loss


@np.errstate(all="ignore")
def binary_cross_entropy_with_logits(logits: Array, target: Array, grad: Array, threads: int = 0) -> float:
    """Computed in float64, as log(1 + exp(-|z|)) + z ([z > 0] - target): no term is negative."""
    size = max(logits.size, 1)
    share = 0.5 ** size.bit_length()  # losses times it, and their sum, do not overflow
    z, target = logits.astype(np.float64), target.astype(np.float64)
    e = np.exp(-np.abs(z))
    losses = np.log1p(e) * share + z * share * ((z > 0) - target)
    grad[...] = (np.where(z > 0, 1, e) / (1 + e) - target) / size
    return float(np.add.reduce(losses, axis=None)) / size / share


@np.errstate(all="ignore")
def huber(y: Array, target: Array, delta: float, grad: Array, threads: int = 0) -> float:
    """Computed in float64; where that overflows, again with `share` of each difference."""
    size = max(y.size, 1)
    y, target = y.astype(np.float64), target.astype(np.float64)
    loss = math.inf
    for share in (1.0, 0.5 ** size.bit_length()):
        if loss == math.inf:
            off = y * share - target * share
            distance, limit = np.abs(off), delta * share
            losses = np.where(distance > limit, delta * (distance - limit / 2), 0.5 * off * (off / share))
            grad[...] = np.clip(off, -limit, limit) * (1 / size / share)
            loss = float(np.add.reduce(losses, axis=None)) / size / share
    return loss


# ---- optimisers, in place


def sgd(
    parameters: Sequence[Any],
    checked: Callable[[], Sequence[Update]],
    velocity: Sequence[Array],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    threads: int = 0,
) -> None:
    for (data, grad, decay, max_norm), old in zip(checked(), velocity, strict=False):
        g = grad + weight_decay * data if decay and weight_decay else grad
        if momentum:
            old *= momentum
            old += g
            g = g + momentum * old if nesterov else old
        data -= lr * g
        _limit_norm(data, max_norm)


@np.errstate(all="ignore")
def adam(
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
    for (data, grad, decay, max_norm), m, s in zip(checked(), mean, square, strict=False):
        g = grad + weight_decay * data if decay and weight_decay else grad
        _average(m, beta1, (1 - beta1) * g)
        _average(s, beta2, (1 - beta2) * g * g)
        if decay:
            data *= keep
        data -= rate * m / (np.sqrt(s) * unbias + eps)
        _limit_norm(data, max_norm)


def _average(old: Array, beta: float, new: Array) -> None:
    """old = beta * old + new, where a beta of 0 forgets infinite numbers too."""
    if beta:
        old *= beta
        old += new
    else:
        old[...] = new


@np.errstate(all="ignore")
def update_parameter(
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
    numbers = (max_norm, decay, rate, beta1, beta2, eps, shrink, new_share)
    if not can_update((data, grad, mean, square, average), numbers):
        return False
    max_norm, decay, rate, beta1, beta2, eps, shrink, new_share = map(float, numbers)
    if decay:
        grad += decay * data
    norm = clipped_norm(grad.dtype, float(np.square(grad, dtype=np.float64).sum()))
    if max_norm and norm >= max_norm:
        grad *= max_norm / norm
    if mean is None:
        data -= rate * grad
        grad *= 0
    else:
        beta1, beta2 = float(data.dtype.type(beta1)), float(data.dtype.type(beta2))
        mean, square = mean.reshape(data.shape), square.reshape(data.shape)
        _average(mean, beta1, (1 - beta1) * grad)
        _average(square, beta2, (1 - beta2) * grad * grad)
        data -= rate * mean / (np.sqrt(square) + eps)
        grad[...] = 0
    if shrink:
        data -= shrink * data
    if average is not None:
        average += new_share * (data - average)
    return True


def can_update(arrays: tuple[Any, ...], numbers: tuple[Any, ...]) -> bool:
    """Whether `update_parameter` takes these: data, grad, mean, square and average, and its numbers."""
    data, grad, mean, square, average = arrays
    present = [data, grad, *(array for array in arrays[2:] if array is not None)]
    if not all(type(array) in ARRAYS and array.dtype == data.dtype for array in present):
        return False
    if (
        data.dtype.char not in LARGEST
        or not data.ndim
        or not all(array.flags.carray and array.dtype.isnative for array in present)
        or any(array is not None and array.shape != data.shape for array in (grad, average))
        or (mean is None) != (square is None)
        or any(array is not None and array.shape != (data.size,) for array in (mean, square))
        or any(np.shares_memory(a, b) for i, a in enumerate(present) for b in present[:i])
    ):
        return False
    most = LARGEST[data.dtype.char]
    return all(isinstance(number, float | int) and abs(number) <= most for number in numbers)


@np.errstate(over="ignore")
def clipped_norm(dtype: np.dtype[Any], squares: float) -> float:
    """The norm that `update_parameter` compares with its bound, of a sum of squares."""
    return math.sqrt(dtype.type(squares))


def max_norm(data: Array, max_norm: float, threads: int = 0) -> None:
    _limit_norm(data, max_norm)


@np.errstate(all="ignore")
def _limit_norm(data: Array, max_norm: float | None) -> None:
    """Scale down each data[..., :] that is longer than `max_norm`.

    The norm is that of data / 2**exponent, whose largest number is about 1, so that no square overflows and
    none that counts underflows.  A vector with a NaN becomes NaN; in one with an infinity but no NaN,
    infinities become NaN and other numbers 0, as x * (max_norm / inf) says.  No vector changes another.
    """
    if max_norm is None or not data.size:
        return
    bound, tiny = data.dtype.type(max_norm), np.finfo(data.dtype).tiny
    largest = np.abs(data).max(axis=-1, keepdims=True)
    exponent = np.where(np.isfinite(largest), np.frexp(largest)[1], 0)
    near_one = np.ldexp(data, -exponent)
    norm = np.sqrt(np.einsum("...i,...i->...", near_one, near_one))[..., np.newaxis]
    quotient = bound / norm
    scale = np.ldexp(quotient, -exponent)
    scaled = np.where(scale >= tiny, data * scale, near_one * quotient)  # a denormal scale would not be exact
    within = np.ldexp(norm, exponent) <= bound
    data[...] = np.where(within, data, scaled)


def clip_grad_norm(grads: list[Array], max_norm: float, threads: int = 0) -> float:
    norm = total_norm([vector_norm(grad) for grad in grads])
    scale = clip_scale(norm, max_norm)
    if not scale >= 1:
        with np.errstate(all="ignore"):
            for grad in grads:
                grad[...] = np.multiply(grad, scale, dtype=np.float64)
    return norm


@np.errstate(all="ignore")
def vector_norm(data: Array) -> float:
    """The Euclidean norm, by data / 2**exponent as in `_limit_norm`."""
    largest = float(np.abs(data).max(initial=0))
    if not 0 < largest < math.inf:  # NaN too
        return largest
    exponent = math.frexp(largest)[1]
    near_one = np.ldexp(data.astype(np.float64), -exponent)
    return float(np.ldexp(np.sqrt(np.square(near_one).sum()), exponent))


def total_norm(norms: list[float]) -> float:
    """The Euclidean norm over arrays that have these norms."""
    return math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor by which gradients of this norm are clipped, if it is below 1."""
    return max_norm / (norm + 1e-6)
