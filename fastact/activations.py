"""The table of activations: their names, parameters, and what each one's forward saves.

| name       | y                                   | parameter (default)    | backward needs |
|------------|-------------------------------------|------------------------|----------------|
| linear     | z                                   |                        | y              |
| relu       | max(z, 0)                           |                        | y              |
| leaky_relu | z if z > 0 else negative_slope z    | negative_slope (0.01)  | z              |
| prelu      | z if z > 0 else slope z             | slope (an array)       | z              |
| elu        | z if z > 0 else alpha (exp z - 1)   | alpha (1.0)            | z              |
| selu       | scale elu(z), its own alpha         |                        | z              |
| gelu       | z Phi(z)                            | approximate ("none")   | z              |
| silu       | z sigmoid(z)                        |                        | z              |
| softplus   | log(1 + exp z)                      |                        | z              |
| mish       | z tanh(softplus z)                  |                        | z              |
| sigmoid    | 1 / (1 + exp -z)                    |                        | y              |
| tanh       | tanh z                              |                        | y              |

An activation whose derivative follows from y without loss saves y, which the caller has anyway; the
others save z.  Adding one: a row here and in `_TABLE` with its code in `csrc/fastact.h`, a formula in
`reference.py`, one in `jit.py` and one in `csrc/kernels/activations.inc.h`, by way of `smooth.inc.h` or
`logistic.inc.h` if it has an exponential.  Its two functions are in `elementwise.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .checks import LARGEST, check_array, check_finite, shown

Array = np.ndarray[Any, Any]


class Activation(NamedTuple):
    """One activation with its parameters, as the backends take it."""

    name: str
    code: int  # its value in `enum fa_activation` of csrc/fastact.h
    saves: str  # "y" or "z"
    parameter: float = 0.0  # negative_slope or alpha
    slope: Array | None = None  # prelu: shape (1,) or (features,), C-contiguous, dtype of z


# name: (code, saves, {keyword: default})
_TABLE: dict[str, tuple[int, str, dict[str, Any]]] = {
    "linear": (0, "y", {}),
    "relu": (1, "y", {}),
    "leaky_relu": (2, "z", {"negative_slope": 0.01}),
    "prelu": (3, "z", {"slope": None}),
    "elu": (4, "z", {"alpha": 1.0}),
    "selu": (5, "z", {}),
    "gelu": (6, "z", {"approximate": "none"}),
    "silu": (8, "z", {}),
    "softplus": (9, "z", {}),
    "mish": (10, "z", {}),
    "sigmoid": (11, "y", {}),
    "tanh": (12, "y", {}),
}
_GELU_TANH = Activation("gelu_tanh", 7, "z")

NAMES = tuple(_TABLE)
SAVES_Z = tuple([name for name, (_, saves, _) in _TABLE.items() if saves == "z"])
_PLAIN = {name: Activation(name, code, saves) for name, (code, saves, keys) in _TABLE.items() if not keys}


def resolve(name: str, features: int, dtype: np.dtype[Any], parameters: dict[str, Any]) -> Activation:
    """The activation called `name` with its keywords checked.

    `features` is the length of z's last axis, which a PReLU slope has to match.  Raises ValueError for
    an unknown name or a bad value, TypeError for a keyword the activation does not take.
    """
    if not isinstance(name, str) or name not in _TABLE:
        raise ValueError(f"activation: got {shown(name)}, wanted one of {', '.join(NAMES)}")
    if not parameters and name in _PLAIN:
        return _PLAIN[name]
    code, saves, keys = _TABLE[name]
    for key in parameters:
        if key not in keys:
            wanted = ", ".join(keys) or "no parameter"
            raise TypeError(f"{key}: {name} takes {wanted}")
    values = keys | parameters
    if name == "prelu":
        slope = _check_slope(values["slope"], features, dtype)
        return Activation(name, code, saves, slope=slope)
    if name == "gelu":
        approximate = values["approximate"]
        if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
            raise ValueError(f'approximate: got {shown(approximate)}, wanted "none" or "tanh"')
        return _GELU_TANH if approximate == "tanh" else Activation(name, code, saves)
    (key,) = keys
    return Activation(name, code, saves, parameter=check_finite(key, values[key], LARGEST[dtype.char]))


def _check_slope(slope: Any, features: int, dtype: np.dtype[Any]) -> Array:
    check_array("slope", slope, dtype)
    if slope.shape not in ((), (1,), (features,)):
        raise ValueError(f"slope: got shape {slope.shape}, wanted (), (1,) or ({features},)")
    return np.array(slope, order="C").reshape(-1)
