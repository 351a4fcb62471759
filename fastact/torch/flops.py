"""Floating-point operations of the operators, for `torch.utils.flop_counter.FlopCounterMode`.

The convention is PyTorch's, so that numbers compare with those of the composition of its own operators:
two operations for each multiply-add of the dense matrix products, nothing for bias, maximum or activation.
A backward counts one product for the gradient of x and one for that of the weight, where they are needed.
For a maxout these are the dense products over all the pieces, which the composition computes; the kernels
compute the winners' share, 1 / pieces of them.

Each function takes an operator's arguments, with shapes in place of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def product(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """x (..., in_features), weight (..., in_features)."""
    return 2 * math.prod(x[:-1]) * math.prod(weight)


def products_backward(_grad_y: Any, x: Sequence[int], weight: Sequence[int], *others: Any, **__: Any) -> int:
    *_, needs, _precision = others
    return product(x, weight) * sum(needs[:2])


def no_product(*_: Any, **__: Any) -> int:
    return 0
