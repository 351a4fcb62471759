"""The operations in PyTorch's own operators, for exporters to ONNX, which has no operators of fastact's.

Each function takes the arguments of an operation's kernel and returns what that returns.  The products are
float32's or float64's own: ONNX has no precision tiers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import activations

# The activations, as functions of z and the parameter.
_ACTIVATIONS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: F.relu(z),
    "leaky_relu": F.leaky_relu,
    "prelu": lambda z, slope: torch.where(z > 0, z, z * slope),  # F.prelu has a slope for each z[:, i]
    "elu": F.elu,
    "selu": lambda z, p: F.selu(z),
    "gelu": lambda z, p: F.gelu(z),
    "gelu_tanh": lambda z, p: F.gelu(z, approximate="tanh"),
    "silu": lambda z, p: F.silu(z),
    "softplus": lambda z, p: F.softplus(z),
    "mish": lambda z, p: F.mish(z),
    "sigmoid": lambda z, p: torch.sigmoid(z),
    "tanh": lambda z, p: torch.tanh(z),
    "softsign": lambda z, p: F.softsign(z),
    "hardswish": lambda z, p: F.hardswish(z),
    "hardsigmoid": lambda z, p: F.hardsigmoid(z),
    "hardtanh": lambda z, p: F.hardtanh(z),
    "relu6": lambda z, p: F.relu6(z),
    "logsigmoid": lambda z, p: -F.softplus(-z),  # F.logsigmoid becomes log(sigmoid z), -inf at z = -104
}


def maxout(z: Tensor, dim: int, save: bool) -> tuple[Tensor, Tensor | None]:
    if not save:
        return z.amax(dim), None
    y, argmax = z.max(dim)
    return y, argmax.to(torch.uint8)


def linear_maxout(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    z = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return maxout(z.view(*x.shape[:-1], *weight.shape[:2]), -1, save)


def linear_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    slope: Tensor | None,
    negative_slope: float | None,
    alpha: float | None,
    approximate: str | None,
    precision: str | None,
    save: bool,
) -> tuple[Tensor, Tensor | None]:
    name = activations.canonical(activation)  # type: ignore[arg-type]
    if name not in _ACTIVATIONS:
        raise TypeError(
            f"activation: got the custom {activation!r}, which has no form in PyTorch's own operators"
        )
    given = (slope, negative_slope, alpha)
    parameter = next((value for value in given if value is not None), None)
    if parameter is None and name in ("leaky_relu", "elu"):
        (parameter,) = activations.TABLE[name].defaults.values()
    z = F.linear(x, weight, bias)
    y = _ACTIVATIONS["gelu_tanh" if approximate == "tanh" else name](z, parameter)
    return y, z if save else None
