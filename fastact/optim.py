"""Optimisers: `step` changes the parameters in place, by the gradients that backward left in them.

The updates are PyTorch's (torch.optim.SGD and Adam), formula by formula.  Any hyperparameter may be
changed between steps: `optimizer.lr = 0.01`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from . import backends, settings
from .activations import ARRAYS
from .checks import check_array, check_flag, check_number, check_types, contiguous
from .layers import Parameter
from .state import check_entries

Array = np.ndarray[Any, Any]


class Optimizer:
    """What `SGD` and `Adam` share: the list of parameters, and a state that can be saved."""

    hyperparameters: ClassVar[dict[str, type]]  # what a state holds beside arrays
    _state: list[Array]  # an array a parameter, of its shape and dtype

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float) -> None:
        if not isinstance(parameters, Iterable):
            got = type(parameters).__name__
            raise TypeError(f"parameters: got {got}, wanted Parameters, as model.parameters() gives them")
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters: got none, wanted at least one")
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters[{i}]: got {type(parameter).__name__}, wanted a Parameter")
            check_array(f"parameters[{i}] ({parameter.name})", parameter.data)
        if len(set(map(id, self.parameters))) < len(self.parameters):
            raise ValueError("parameters: got one twice, wanted each once")
        self.lr = _not_negative("lr", lr)
        self.weight_decay = _not_negative("weight_decay", weight_decay)

    def _zeros(self) -> list[Array]:
        """One array a parameter; a system that hands out zero pages lazily charges only those in use."""
        return [np.zeros(parameter.data.shape, parameter.data.dtype) for parameter in self.parameters]

    def _updates(self) -> list[tuple[Array, Array, float, float]]:
        """Each parameter's data, gradient, weight decay and norm bound, checked before any is changed."""
        updates = []
        for i, parameter in enumerate(self.parameters):
            data, grad, state = parameter.data, parameter.grad, self._state[i]
            if grad is None:
                raise RuntimeError(f"parameters[{i}] ({parameter.name}) has no gradient: run backward first")
            if type(data) not in ARRAYS or type(grad) not in ARRAYS:
                name = f"parameters[{i}] ({parameter.name})"
                check_types(**{name: data, f"{name}.grad": grad})
            shape, dtype = data.shape, data.dtype
            if grad.shape != shape or grad.dtype != dtype:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): got a gradient of {grad.dtype} {grad.shape}, "
                    f"wanted {dtype} {shape}"
                )
            if state.shape != shape or state.dtype != dtype:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): got data of {dtype} {shape}, "
                    f"wanted {state.dtype} {state.shape} as when the optimiser was made"
                )
            if not data.flags.carray:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): data is not C-contiguous and writeable"
                )
            decay = float(self.weight_decay) if parameter.decay else 0.0
            bound = math.inf
            if parameter.max_norm is not None:
                if data.ndim == 0:
                    raise ValueError(f"parameters[{i}] ({parameter.name}): max_norm wants data with an axis")
                bound = _above_zero(f"parameters[{i}] ({parameter.name}): max_norm", parameter.max_norm)
            updates.append((data, contiguous(grad), decay, bound))
        return updates

    def _buffers(self) -> dict[str, Array]:
        """The arrays of the state, by name: views, not copies."""
        raise NotImplementedError

    def _entries(self) -> dict[str, Array]:
        values = {name: kind(getattr(self, name)) for name, kind in self.hyperparameters.items()}
        return {name: np.asarray(value) for name, value in values.items()} | self._buffers()

    def state_dict(self) -> dict[str, Array]:
        """A copy of the state: hyperparameters, and an array a parameter, numbered in their order."""
        return {name: array.copy() for name, array in self._entries().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Go on from a state that `state_dict` returned: the next steps are the same to the bit.

        Raises ValueError, and changes nothing, where entries are missing, unexpected, or of another shape
        or dtype; the message names them.
        """
        check_entries(self._entries(), state)
        for name, kind in self.hyperparameters.items():
            setattr(self, name, kind(state[name]))
        for name, array in self._buffers().items():
            array[...] = state[name]

    def __repr__(self) -> str:
        values = [f"{name}={getattr(self, name)!r}" for name in self.hyperparameters]
        return f"{type(self).__name__}({len(self.parameters)} parameters, {', '.join(values)})"


def _not_negative(name: str, value: Any) -> float:
    number = check_number(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: got {value}, wanted a number of 0 or more")
    return number


def _below_one(name: str, value: Any) -> float:
    number = check_number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name}: got {value}, wanted 0 <= {name} < 1")
    return number


def _above_zero(name: str, value: Any) -> float:
    number = check_number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: got {value}, wanted a number above 0")
    return number


def _numbered(name: str, arrays: list[Array]) -> dict[str, Array]:
    return {f"{name}.{i}": array for i, array in enumerate(arrays)}


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and weight decay, as `torch.optim.SGD`.

        g = grad + weight_decay * data
        velocity = momentum * velocity + g
        data -= lr * (g + momentum * velocity  with nesterov, else  velocity)

    Args:
        parameters: as `model.parameters()` gives them.
        lr: the learning rate.
        momentum: 0 for none.
        nesterov: look ahead by one step of the velocity (Sutskever et al. 2013).
        weight_decay: for the parameters that decay: not for biases and PReLU slopes.

    Raises:
        TypeError, ValueError: the parameters are none, or a hyperparameter is negative.
    """

    hyperparameters: ClassVar = {"lr": float, "momentum": float, "nesterov": bool, "weight_decay": float}

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = _not_negative("momentum", momentum)
        self.nesterov = check_flag("nesterov", nesterov)
        self._state = self._velocity = self._zeros()

    def step(self) -> None:
        """One update of every parameter.

        Raises RuntimeError where a parameter has no gradient yet; nothing is changed then.
        """
        step, threads = backends.active().sgd, settings.requested_threads()
        lr, momentum = float(self.lr), float(self.momentum)
        for i, (data, grad, decay, bound) in enumerate(self._updates()):
            velocity = self._velocity[i] if momentum else None
            step(data, grad, velocity, lr, momentum, self.nesterov, decay, bound, threads)

    def _buffers(self) -> dict[str, Array]:
        return _numbered("velocity", self._velocity)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), as `torch.optim.Adam`.

        g = grad + weight_decay * data
        mean   = beta1 * mean   + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * g²
        data -= lr * (mean / (1 - beta1^t)) / (sqrt(square / (1 - beta2^t)) + eps)        at step t

    Args:
        parameters: as `model.parameters()` gives them.
        lr: the learning rate.
        beta1, beta2: how slowly the two averages forget.
        eps: keeps the quotient finite.
        weight_decay: for the parameters that decay: not for biases and PReLU slopes.

    Raises:
        TypeError, ValueError: the parameters are none, or a hyperparameter is out of range.
    """

    hyperparameters: ClassVar = {
        "lr": float,
        "beta1": float,
        "beta2": float,
        "eps": float,
        "weight_decay": float,
        "steps": int,
    }

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.beta1 = _below_one("beta1", beta1)
        self.beta2 = _below_one("beta2", beta2)
        self.eps = _not_negative("eps", eps)
        self.steps = 0
        self._state = self._mean = self._zeros()
        self._square = self._zeros()

    def step(self) -> None:
        """One update of every parameter.

        Raises RuntimeError where a parameter has no gradient yet; nothing is changed then.
        """
        step, threads = backends.active().adam, settings.requested_threads()
        updates, steps = self._updates(), self.steps + 1
        beta1, beta2, eps = float(self.beta1), float(self.beta2), float(self.eps)
        rate = float(self.lr) / (1 - beta1**steps)
        unbias = 1 / (1 - beta2**steps) ** 0.5
        self.steps = steps
        for i, (data, grad, decay, bound) in enumerate(updates):
            mean, square = self._mean[i], self._square[i]
            step(data, grad, mean, square, rate, beta1, beta2, unbias, eps, decay, bound, threads)

    def _buffers(self) -> dict[str, Array]:
        return _numbered("mean", self._mean) | _numbered("square", self._square)


def max_norm_(weight: Array | Parameter, max_norm: float) -> None:
    """Scale down, in place, each vector of incoming weights that is longer than `max_norm`.

    The constraint of Srivastava et al. 2014 (section 5.1), which Goodfellow et al. 2013 use: after an
    update, each weight[j, k, :] of a maxout layer, and each weight[j, :] of a linear one, has an
    Euclidean norm of at most `max_norm` within rounding.  An optimiser does the same in the
    pass of its update for a `Parameter` whose `max_norm` is set.

    No vector of finite numbers is too large or too small for its norm, and none changes another.  A vector
    with a NaN becomes NaN; in one with an infinity but no NaN, infinities become NaN and other numbers 0, as
    weight * (max_norm / norm) says.

    Args:
        weight: (..., in_features), an array or a `Parameter`.
        max_norm: the bound, above 0.

    Raises:
        TypeError: weight is no float array.
        ValueError: weight has no axis or is read-only, or max_norm is not positive.
    """
    data = weight.data if isinstance(weight, Parameter) else weight
    check_array("weight", data)
    if data.ndim == 0 or not data.flags.writeable:
        raise ValueError("weight: wanted a writeable array of shape (..., in_features)")
    bound = _above_zero("max_norm", max_norm)
    array = contiguous(data)
    backends.active().max_norm(array, bound, settings.requested_threads())
    if array is not data:
        data[...] = array
