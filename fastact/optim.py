"""Optimisers: `step` changes the parameters in place, by the gradients that backward left in them.

The updates are PyTorch's (torch.optim.SGD and Adam), formula by formula.  Any hyperparameter may be
changed between steps: `optimizer.lr = 0.01`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from .layers import Parameter
from .ops import _check_array
from .state import check_entries

Array = np.ndarray[Any, Any]

# An update runs over this many elements at a time, so that its temporaries are small and stay in cache.
_BLOCK = 65536


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Flat views of C-contiguous arrays, `_BLOCK` elements at a time."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(array[start : start + _BLOCK] for array in flat)


class Optimizer:
    """What `SGD` and `Adam` share: the list of parameters, and a state that can be saved."""

    hyperparameters: ClassVar[dict[str, type]]  # what a state holds beside arrays

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters: got none, wanted at least one")
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters[{i}]: got {type(parameter).__name__}, wanted a Parameter")
        if len(set(map(id, self.parameters))) < len(self.parameters):
            raise ValueError("parameters: got one twice, wanted each once")
        self.lr = _not_negative("lr", lr)
        self.weight_decay = _not_negative("weight_decay", weight_decay)

    def _zeros(self) -> list[Array]:
        """One array a parameter; a system that hands out zero pages lazily charges only those in use."""
        return [np.zeros(parameter.data.shape, parameter.data.dtype) for parameter in self.parameters]

    def _gradients(self) -> list[Array]:
        """The gradients, each checked, before anything is changed."""
        gradients = []
        for i, parameter in enumerate(self.parameters):
            data, grad = parameter.data, parameter.grad
            if grad is None:
                raise RuntimeError(f"parameters[{i}] ({parameter.name}) has no gradient: run backward first")
            if grad.shape != data.shape or grad.dtype != data.dtype:
                raise ValueError(
                    f"parameters[{i}] ({parameter.name}): got a gradient of {grad.dtype} {grad.shape}, "
                    f"wanted {data.dtype} {data.shape}"
                )
            if not data.flags.c_contiguous:
                raise ValueError(f"parameters[{i}] ({parameter.name}): data is not C-contiguous")
            gradients.append(grad)
        return gradients

    def _decay(self, parameter: Parameter) -> float:
        return float(self.weight_decay) if parameter.decay else 0.0

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


def _not_negative(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: got {value}, wanted a number of 0 or more")
    return float(value)


def _below_one(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name}: got {value}, wanted 0 <= {name} < 1")
    return float(value)


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
        self.nesterov = bool(nesterov)
        self._velocity = self._zeros()

    def step(self) -> None:
        """One update of every parameter.

        Raises RuntimeError where a parameter has no gradient yet; nothing is changed then.
        """
        lr, momentum = float(self.lr), float(self.momentum)
        updates = zip(self.parameters, self._gradients(), self._velocity, strict=True)
        for parameter, gradient, velocities in updates:
            decay = self._decay(parameter)
            for data, g, velocity in _blocks(parameter.data, gradient, velocities):
                if decay:
                    g = g + decay * data
                if momentum:
                    velocity *= momentum
                    velocity += g
                    g = g + momentum * velocity if self.nesterov else velocity
                data -= lr * g

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
        self._mean = self._zeros()
        self._square = self._zeros()

    def step(self) -> None:
        """One update of every parameter.

        Raises RuntimeError where a parameter has no gradient yet; nothing is changed then.
        """
        gradients = self._gradients()
        self.steps += 1
        beta1, beta2, eps = float(self.beta1), float(self.beta2), float(self.eps)
        rate = float(self.lr) / (1 - beta1**self.steps)
        unbias = 1 / (1 - beta2**self.steps) ** 0.5
        for parameter, gradient, means, squares in zip(
            self.parameters, gradients, self._mean, self._square, strict=True
        ):
            decay = self._decay(parameter)
            for data, g, mean, square in _blocks(parameter.data, gradient, means, squares):
                if decay:
                    g = g + decay * data
                mean += (1 - beta1) * (g - mean)
                square *= beta2
                square += (1 - beta2) * g * g
                data -= rate * mean / (np.sqrt(square) * unbias + eps)

    def _buffers(self) -> dict[str, Array]:
        return _numbered("mean", self._mean) | _numbered("square", self._square)


def max_norm_(weight: Array | Parameter, max_norm: float) -> None:
    """Scale down, in place, each vector of incoming weights that is longer than `max_norm`.

    The constraint of Srivastava et al. 2014 (section 5.1), which Goodfellow et al. 2013 use: after an
    update, each weight[j, k, :] of a maxout layer, and each weight[j, :] of a linear one, has an
    Euclidean norm of at most `max_norm` within rounding.

    Args:
        weight: (..., in_features), an array or a `Parameter`.
        max_norm: the bound, above 0.

    Raises:
        TypeError: weight is no float array.
        ValueError: weight has no axis or is read-only, or max_norm is not positive.
    """
    data = weight.data if isinstance(weight, Parameter) else weight
    _check_array("weight", data)
    if data.ndim == 0 or not data.flags.writeable:
        raise ValueError("weight: wanted a writeable array of shape (..., in_features)")
    if not 0 < max_norm < float("inf"):
        raise ValueError(f"max_norm: got {max_norm}, wanted a number above 0")
    max_norm = float(max_norm)
    norm = np.sqrt(np.einsum("...i,...i->...", data, data))
    data *= (max_norm / np.maximum(norm, max_norm))[..., np.newaxis]  # exactly 1 where nothing is to do
