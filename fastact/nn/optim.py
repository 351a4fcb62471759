"""Optimisers: `step` changes the parameters in place, by the gradients that backward left in them.

The updates are PyTorch's (torch.optim.SGD, Adam and AdamW), formula by formula.  Any hyperparameter may be
changed between steps: `optimizer.lr = 0.01`, or by a schedule (`fastact.schedules`).  The constructor,
checkpoints and each step accept the same values.  A bad value raises before a parameter or the state changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from .. import backends, settings
from ..backends.interface import Update
from ..checks import (
    ARRAYS,
    LARGEST,
    check_array,
    check_below_one,
    check_flag,
    check_not_negative,
    check_number,
    check_positive,
    check_size,
    check_type,
    contiguous,
    hint,
    shown,
)
from . import portable
from .checkpoint import check_loadable
from .layer import Layer, Parameter

Array = np.ndarray[Any, Any]

_MOST_STEPS = 2**63 - 1  # a state stores the number in an int64
# A step checks its hyperparameters anew unless each is the same Python number as before, which cannot change.
_UNCHECKED = object()


class Optimizer:
    """The base of `SGD`, `Adam` and `AdamW`: the list of parameters, and a state that can be saved."""

    hyperparameters: ClassVar[dict[str, type]]  # the numbers of a state, with their types
    _state: list[Array]  # an array for each parameter, of its shape and dtype

    def __init__(self, parameters: Iterable[Parameter], *hyperparameters: Any) -> None:
        self.parameters = _check_parameters(parameters)
        for i, parameter in enumerate(self.parameters):
            check_array(f"parameters[{i}] ({parameter.name})", parameter.data)
            _check_decay_and_bound(i, parameter)
        self._set(self._checked(*hyperparameters))

    @functools.cached_property  # pickles of 0.1.0 do not hold it
    def _largest(self) -> float:
        """The largest hyperparameter: kernels take them in the dtype of the data."""
        return min(LARGEST[parameter.data.dtype.char] for parameter in self.parameters)

    def _checked(self, *values: Any, **named: Any) -> tuple[Any, ...]:
        """The hyperparameters given, in the order of `hyperparameters`, as Python numbers in range."""
        raise NotImplementedError

    def _set(self, values: tuple[Any, ...]) -> None:
        for name, value in zip(self.hyperparameters, values, strict=True):
            setattr(self, name, value)

    def _zeros(self) -> list[Array]:
        """An array of zeros for each parameter, whose pages take memory only once they are written."""
        return [np.zeros(parameter.data.shape, parameter.data.dtype) for parameter in self.parameters]

    def _updates(self) -> list[Update]:
        """Each parameter, checked, with a gradient that is C-contiguous."""
        updates = []
        for i, parameter in enumerate(self.parameters):
            data, grad, state = parameter.data, parameter.grad, self._state[i]
            if grad is None:
                raise RuntimeError(f"parameters[{i}] ({parameter.name}) has no gradient: run backward first")
            if type(data) not in ARRAYS or type(grad) not in ARRAYS:
                name = f"parameters[{i}] ({parameter.name})"
                check_type(name, data)
                check_type(f"{name}.grad", grad, data.dtype)
            shape, dtype = data.shape, data.dtype
            if grad.shape != shape or grad.dtype != dtype:
                cure = hint(grad.dtype, dtype) if grad.shape == shape else ""
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): got a gradient of {grad.dtype} {grad.shape}, "
                    f"wanted {dtype} {shape}{cure}"
                )
            if state.shape != shape or state.dtype != dtype:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): got data of {dtype} {shape}, "
                    f"wanted {state.dtype} {state.shape}, as when the optimiser was made"
                )
            if not data.flags.carray:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): data is not C-contiguous and writeable, wanted both"
                )
            decay, bound = _check_decay_and_bound(i, parameter)
            if bound is not None and data.ndim == 0:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): got max_norm for data of shape (), wanted an axis"
                )
            updates.append(Update(data, contiguous(grad), decay, bound))
        return updates

    def _buffers(self) -> dict[str, Array]:
        """The arrays of the state, by name: views, not copies."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """A copy of the state: the hyperparameters, and the arrays of each parameter, numbered in order."""
        values = self._checked(*(getattr(self, name) for name in self.hyperparameters))
        arrays = dict(zip(self.hyperparameters, map(np.array, values), strict=True))
        return arrays | {name: array.copy() for name, array in self._buffers().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Go on from a state that `state_dict` returned: the next steps are the same to the bit.

        Raises ValueError where entries are missing, unexpected or of the wrong shape or dtype, where a
        hyperparameter is out of range, or where an array of the optimiser is read-only; TypeError where an
        entry is not an array.  The message names every such entry, and nothing is changed.
        """
        expected: dict[str, Array] = {n: np.zeros((), kind) for n, kind in self.hyperparameters.items()}
        check_loadable(expected | self._buffers(), state)
        self._set(self._checked(**{name: np.asarray(state[name]).item() for name in self.hyperparameters}))
        for name, array in self._buffers().items():
            array[...] = state[name]

    def __repr__(self) -> str:
        values = [f"{name}={getattr(self, name)!r}" for name in self.hyperparameters]
        return f"{type(self).__name__}({len(self.parameters)} parameters, {', '.join(values)})"


def _check_parameters(parameters: Any) -> list[Parameter]:
    """A list of one Parameter or more, each once."""
    try:
        checked = list(parameters)
    except TypeError as error:
        got = type(parameters).__name__
        raise TypeError(f"parameters: got {got}, wanted Parameters: try model.parameters()") from error
    if not checked:
        raise ValueError("parameters: got an empty list, wanted at least one")
    for i, parameter in enumerate(checked):
        if not isinstance(parameter, Parameter):
            cure = ": try model.parameters()" if isinstance(parameter, Layer) else ""
            kind = type(parameter).__name__
            raise TypeError(f"parameters[{i}]: got {kind}, wanted a Parameter{cure}")
    if len(set(map(id, checked))) < len(checked):
        raise ValueError("parameters: got one of them twice, wanted each once")
    return checked


def _check_decay_and_bound(i: int, parameter: Parameter) -> tuple[bool, float | None]:
    """Whether the parameter decays, and the upper bound of its norms."""
    decays, bound = parameter.decay, parameter.max_norm
    if decays is not True and decays is not False:
        decays = check_flag(f"parameters[{i}] ({parameter.name}): decay", decays)
    if bound is None:
        return decays, None
    largest = LARGEST[parameter.data.dtype.char]
    return decays, check_positive(f"parameters[{i}] ({parameter.name}): max_norm", bound, largest)


def _numbered(name: str, arrays: list[Array]) -> dict[str, Array]:
    return {f"{name}.{i}": array for i, array in enumerate(arrays)}


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and weight decay, as `torch.optim.SGD`.

        g = grad + weight_decay * data
        velocity = momentum * velocity + g
        data -= lr * velocity                        (with nesterov: lr * (g + momentum * velocity))

    Args:
        parameters: as `model.parameters()` returns them.
        lr: the learning rate, 0 or more.
        momentum: the share of the velocity that a step keeps, 0 or more; 0 for plain gradient descent.
        nesterov: look ahead by one step of the velocity (Sutskever et al. 2013); needs a momentum above 0.
        weight_decay: 0 or more.  Biases and PReLU slopes do not decay.

    Raises:
        TypeError: parameters are not Parameters, or a hyperparameter has the wrong type.
        ValueError: there are no parameters, or a hyperparameter is out of range.
    """

    hyperparameters: ClassVar = {"lr": float, "momentum": float, "nesterov": bool, "weight_decay": float}
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    _last: tuple[Any, ...] = (_UNCHECKED,) * 4  # the hyperparameters that a step has checked

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, momentum, nesterov, weight_decay)
        self._state = self._velocity = self._zeros()

    def _checked(
        self, lr: Any, momentum: Any, nesterov: Any, weight_decay: Any
    ) -> tuple[float, float, bool, float]:
        values = (
            check_not_negative("lr", lr, self._largest),
            check_not_negative("momentum", momentum, self._largest),
            check_flag("nesterov", nesterov),
            check_not_negative("weight_decay", weight_decay, self._largest),
        )
        if values[2] and values[1] == 0:
            raise ValueError("nesterov: got True without momentum, wanted a momentum above 0")
        return values

    def step(self) -> None:
        """Update every parameter once.

        Raises RuntimeError where a parameter has no gradient yet, TypeError or ValueError where its data, its
        gradient or a hyperparameter has the wrong type or does not fit.  Nothing is changed then.
        """
        update, threads = backends.active().sgd, settings.threads_and_mode()
        lr, momentum, nesterov, weight_decay = self._last
        if not (
            self.lr is lr
            and self.momentum is momentum
            and self.nesterov is nesterov
            and self.weight_decay is weight_decay
        ):
            self._last = self._checked(self.lr, self.momentum, self.nesterov, self.weight_decay)
            lr, momentum, nesterov, weight_decay = self._last
        update(self.parameters, self._updates, self._velocity, lr, momentum, nesterov, weight_decay, threads)

    def _buffers(self) -> dict[str, Array]:
        return _numbered("velocity", self._velocity)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), as `torch.optim.Adam`.

        g = grad + weight_decay * data
        mean   = beta1 * mean   + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * g²
        data -= lr * (mean / (1 - beta1^t)) / (sqrt(square / (1 - beta2^t)) + eps)        at step t

    Args:
        parameters: as `model.parameters()` returns them.
        lr: the learning rate, 0 or more.
        beta1, beta2: the share of the average that a step keeps, for mean and square; 0 <= beta < 1.
        eps: 0 or more; above 0 it keeps the quotient finite.
        weight_decay: 0 or more.  Biases and PReLU slopes do not decay.

    Attributes:
        steps: the number of steps made.

    Raises:
        TypeError: parameters are not Parameters, or a hyperparameter has the wrong type.
        ValueError: there are no parameters, or a hyperparameter is out of range.
    """

    hyperparameters: ClassVar = {
        "lr": float,
        "beta1": float,
        "beta2": float,
        "eps": float,
        "weight_decay": float,
        "steps": int,
    }
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    steps: int
    _decoupled: ClassVar = False  # whether the decay is AdamW's
    _last: tuple[Any, ...] = (_UNCHECKED,) * 6  # the hyperparameters that a step has checked

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, beta1, beta2, eps, weight_decay, 0)
        self._state = self._mean = self._zeros()
        self._square = self._zeros()

    def _checked(
        self, lr: Any, beta1: Any, beta2: Any, eps: Any, weight_decay: Any, steps: Any
    ) -> tuple[float, float, float, float, float, int]:
        beta1 = check_below_one("beta1", beta1)
        largest_lr = self._largest * (1 - beta1)  # the first step divides lr by 1 - beta1
        return (
            check_not_negative("lr", lr, largest_lr),
            beta1,
            check_below_one("beta2", beta2),
            check_not_negative("eps", eps, self._largest),
            check_not_negative("weight_decay", weight_decay, self._largest),
            check_size("steps", steps, 0, _MOST_STEPS),
        )

    def step(self) -> None:
        """Update every parameter once.

        Raises RuntimeError where a parameter has no gradient yet, TypeError or ValueError where its data, its
        gradient or a hyperparameter has the wrong type or does not fit.  Nothing is changed then.
        """
        update, threads = backends.active().adam, settings.threads_and_mode()
        lr, beta1, beta2, eps, weight_decay, steps = self._last
        if not (
            self.lr is lr
            and self.beta1 is beta1
            and self.beta2 is beta2
            and self.eps is eps
            and self.weight_decay is weight_decay
            and self.steps is steps
            and steps <= _MOST_STEPS
        ):
            lr, beta1, beta2, eps, weight_decay, steps = self._checked(
                self.lr, self.beta1, self.beta2, self.eps, self.weight_decay, self.steps
            )
        steps += 1
        rate = lr / (1 - portable.power(beta1, steps))
        unbias = 1 / math.sqrt(1 - portable.power(beta2, steps))
        decay, keep = (0.0, 1 - lr * weight_decay) if self._decoupled else (weight_decay, 1.0)
        update(
            self.parameters,
            self._updates,
            self._mean,
            self._square,
            rate,
            beta1,
            beta2,
            unbias,
            eps,
            decay,
            keep,
            threads,
        )
        self.steps = steps
        self._last = (lr, beta1, beta2, eps, weight_decay, steps)

    def _buffers(self) -> dict[str, Array]:
        return _numbered("mean", self._mean) | _numbered("square", self._square)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`.

        data -= lr * weight_decay * data

    and then a step of `Adam` without a decay.  Arguments, attributes, state and errors are those of `Adam`,
    with one more error: a weight_decay whose product with lr is beyond the range of data's dtype.
    """

    _decoupled = True

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, beta1, beta2, eps, weight_decay)

    def _checked(
        self, lr: Any, beta1: Any, beta2: Any, eps: Any, weight_decay: Any, steps: Any
    ) -> tuple[float, float, float, float, float, int]:
        values = super()._checked(lr, beta1, beta2, eps, weight_decay, steps)
        check_not_negative("weight_decay", weight_decay, self._largest / max(1.0, values[0]))
        return values


def clip_grad_norm_(parameters: Iterable[Parameter] | Parameter, max_norm: float) -> float:
    """Scale down all gradients, in place, if their norm together is larger than `max_norm`.

    The norm is the Euclidean norm of all the gradients as one vector.  As `torch.nn.utils.clip_grad_norm_`,
    the function multiplies each gradient by max_norm / (norm + 1e-6) if that is below 1, and skips parameters
    without a gradient.

    The norm is summed in float64.  The norm of finite numbers neither overflows nor underflows, unless it is
    beyond float64 itself.  A norm that is not finite is no error, as with PyTorch's error_if_nonfinite=False:
    a NaN makes all gradients NaN; an infinity but no NaN makes infinities NaN and other numbers 0, or all
    of them NaN if max_norm is infinite.

    Args:
        parameters: as `model.parameters()` returns them, or one `Parameter`.
        max_norm: 0 or more; infinite to compute the norm alone.

    Returns:
        The norm before the clipping, 0.0 where no parameter has a gradient.

    Raises:
        TypeError: parameters are not Parameters, a gradient is not a float array, or max_norm not a number.
        ValueError: there are no parameters, one is there twice, a gradient is read-only, or max_norm is below
            0 or NaN.  No gradient is changed then.
    """
    checked = _check_parameters([parameters] if isinstance(parameters, Parameter) else parameters)
    bound = check_number("max_norm", max_norm)
    if not bound >= 0:
        raise ValueError(f"max_norm: got {shown(max_norm)}, wanted 0 or more")
    grads = []
    for i, parameter in enumerate(checked):
        if parameter.grad is not None:
            name = f"parameters[{i}] ({parameter.name}).grad"
            check_array(name, parameter.grad)
            if not parameter.grad.flags.writeable:
                raise ValueError(f"{name}: got a read-only array, wanted a writeable one")
            grads.append(parameter.grad)
    arrays = [contiguous(grad) for grad in grads]
    norm = backends.active().clip_grad_norm(arrays, bound, settings.threads_and_mode())
    for grad, array in zip(grads, arrays, strict=True):
        if array is not grad:
            grad[...] = array
    return norm


def max_norm_(weight: Array | Parameter, max_norm: float) -> None:
    """Scale down, in place, each vector of incoming weights that is longer than `max_norm`.

    This is the constraint of Srivastava et al. 2014 (section 5.1), which Goodfellow et al. 2013 use.
    Afterwards each weight[j, k, :] of a maxout layer, and each weight[j, :] of a linear one, has a Euclidean
    norm of at most `max_norm` within rounding.  For a `Parameter` whose `max_norm` is set, an optimiser does
    the same in the pass of its update.

    The norm of a vector of finite numbers neither overflows nor underflows.  Vectors are independent.  A
    vector with a NaN becomes NaN.  In a vector with an infinity but no NaN, infinities become NaN and other
    numbers 0, as in weight * (max_norm / norm).

    Args:
        weight: (..., in_features), an array or a `Parameter`.
        max_norm: the upper bound, above 0 and finite.

    Raises:
        TypeError: weight is not a float array, or max_norm is not a number.
        ValueError: weight has no axis or is read-only, or max_norm is out of range.
    """
    data = weight.data if isinstance(weight, Parameter) else weight
    check_array("weight", data)
    if data.ndim == 0:
        raise ValueError("weight: got shape (), wanted (..., in_features)")
    if not data.flags.writeable:
        raise ValueError("weight: got a read-only array, wanted a writeable one")
    bound = check_positive("max_norm", max_norm, LARGEST[data.dtype.char])
    array = contiguous(data)
    backends.active().max_norm(array, bound, settings.threads_and_mode())
    if array is not data:
        data[...] = array
