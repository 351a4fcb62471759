"""The layers: `linear_maxout` and `linear_activation` as modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import activations, checks, init, settings
from ..custom import CustomActivation
from .containers import linear_maxout as maxout_of_units
from .fused_activation import linear_activation
from .fused_maxout import linear_maxout


class Layer(nn.Module):
    """The base of the modules: it refuses torch.jit.script by name."""

    def __prepare_scriptable__(self) -> Any:  # called by torch.jit.script
        raise TypeError(
            f"obj: got a fastact.torch.{type(self).__name__}, which torch.jit.script can't compile, wanted a "
            "module of PyTorch's own; use torch.jit.trace, torch.export or torch.compile"
        )


class Maxout(Layer):
    """`linear_maxout` as a layer: in_features in, out_features maxima of `pieces` linear units each out.

    Args:
        in_features, out_features: as those of `nn.Linear`.
        pieces: how many linear units each output takes the largest of, 1 to 256.
        bias: False leaves the bias out.
        device, dtype: of the parameters.
        precision: the float32 precision tier of this layer; None for fastact's own setting.

    Parameters: weight (out_features, pieces, in_features), which starts normal with the standard deviation
    of `fastact.init.maxout_std`, and bias (out_features, pieces), which starts at 0.

    Raises:
        TypeError: bias is not a bool.
        ValueError: pieces is not in 1 to 256, or precision is not a tier.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        precision: str | None = None,
    ) -> None:
        super().__init__()
        checks.check_flag("bias", bias)
        checks.check_pieces(pieces)
        self.in_features, self.out_features, self.pieces = in_features, out_features, pieces
        self.precision = precision if precision is None else settings.check_precision(precision)
        self.weight = nn.Parameter(
            torch.empty((out_features, pieces, in_features), device=device, dtype=dtype)
        )
        self.register_parameter(
            "bias",
            nn.Parameter(torch.empty((out_features, pieces), device=device, dtype=dtype)) if bias else None,
        )
        self.reset_parameters()

    @classmethod
    def from_linear(cls, linear: nn.Linear, pieces: int, precision: str | None = None) -> Maxout:
        """A copy of a Linear, in which each `pieces` neighbouring units become the pieces of one output.

        Raises:
            ValueError: `pieces` is not in 1 to 256, or does not divide the units.
        """
        checks.check_pieces(pieces)
        if linear.out_features % pieces:
            raise ValueError(f"pieces: got {pieces}, which does not divide {linear.out_features} units")
        weight, bias = linear.weight.detach(), linear.bias
        layer = cls(
            linear.in_features,
            linear.out_features // pieces,
            pieces,
            bias=bias is not None,
            device="meta",
            precision=precision,
        )
        layer.weight = nn.Parameter(weight.clone().view(layer.weight.shape))
        if layer.bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone().view(layer.bias.shape))
        return layer.train(linear.training)

    def reset_parameters(self) -> None:
        """Draw the initial weight, from PyTorch's generator."""
        nn.init.normal_(self.weight, std=init.maxout_std(self.in_features, self.pieces))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        parameters = self._parameters  # an attribute that is a parameter takes 0.4 us to find
        if (weight := parameters.get("weight")) is None or (bias := parameters.get("bias")) is None:
            weight, bias = self.weight, self.bias  # a parametrisation computes them, or there is no bias
        return linear_maxout(x, weight, bias, precision=self.precision)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}, pieces={self.pieces}"
        text += f", bias={self.bias is not None}"
        return text if self.precision is None else f"{text}, precision={self.precision!r}"


class LinearActivation(Layer, nn.Linear):
    """`linear_activation` as a layer: an `nn.Linear` and its activation.

    The parameters weight and bias, and their initialisation, are those of `nn.Linear`.

    Args:
        in_features, out_features, bias, device, dtype: as those of `nn.Linear`.
        activation: a name of the table in `fastact.activations`, or a `CustomActivation`.
        precision: the float32 precision tier of this layer; None for fastact's own setting.
        **keywords: the activation's own.  "prelu", and a custom activation with a slope, learn the parameter
            `slope`, which starts at this keyword, 0.25 or the custom activation's own unless given: a number
            for one slope, or a sequence or tensor of out_features.

    Raises:
        TypeError: bias is not a bool, or the activation does not take a keyword.
        ValueError: the activation is unknown, or a keyword's value or the precision is invalid.
    """

    slope: nn.Parameter | None
    _initial_slope: tuple[float, ...] = (0.25,)  # modules that 0.1.0 pickled have none of their own

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str | CustomActivation = "relu",
        device: Any = None,
        dtype: torch.dtype | None = None,
        precision: str | None = None,
        **keywords: Any,
    ) -> None:
        checks.check_flag("bias", bias)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.precision = precision if precision is None else settings.check_precision(precision)
        parameter = None
        if activations.learns_slope(activation):
            start = activation.initial_slope if isinstance(activation, CustomActivation) else 0.25
            slope = keywords.pop("slope", start)
            if isinstance(slope, Tensor):
                slope = slope.tolist()  # NumPy would forbid PyTorch to resize the tensor
            values = checks.finite_numbers("slope", slope, np.float64)
            activations.resolve(activation, out_features, values.dtype, keywords | {"slope": values})
            parameter = nn.Parameter(torch.empty(values.shape, device=device, dtype=self.weight.dtype))
            self._initial_slope = tuple(values.tolist())
        else:
            activations.resolve(activation, out_features, np.dtype(np.float64), keywords)
        self.activation, self.keywords = activation, keywords
        self.register_parameter("slope", parameter)
        self._reset_slope()

    def reset_parameters(self) -> None:
        """Draw weight and bias as `nn.Linear` does, and start the slope at the keyword's value again."""
        super().reset_parameters()
        if "slope" in self._parameters:  # nn.Linear's constructor calls this first
            self._reset_slope()

    def _reset_slope(self) -> None:
        if self.slope is not None:
            with torch.no_grad():
                self.slope.copy_(
                    torch.tensor(self._initial_slope, dtype=torch.float64, device=self.slope.device)
                )

    def forward(self, x: Tensor) -> Tensor:
        return linear_activation(  # type: ignore[no-any-return]
            x,
            self.weight,
            self.bias,
            self.activation,
            slope=self.slope,
            precision=self.precision,
            **self.keywords,
        )

    def extra_repr(self) -> str:
        settings = {"precision": self.precision, **self.keywords}
        given = [f"{key}={value!r}" for key, value in settings.items() if value is not None]
        return ", ".join([super().extra_repr(), f"activation={self.activation!r}", *given])


class PooledLinear(Layer, nn.Linear):
    """A Linear and the maxout behind it, as `accelerate` of 0.1.0 put it into a model.

    Nothing makes one any more, but models that 0.1.0 accelerated and pickled hold it.
    """

    pieces: int
    piece_major: bool  # whether unit k * out_features + j is piece k of output j, not unit j * pieces + k

    def forward(self, x: Tensor) -> Tensor:
        return maxout_of_units(x, self.weight, self.bias, self.pieces, self.piece_major)
