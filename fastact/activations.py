"""The table of activations: their codes, parameters, costs and formulas, and what each one's forward saves.

| name        | y                                   | parameter (default)    | backward needs |
|-------------|-------------------------------------|------------------------|----------------|
| identity    | z                                   |                        | y              |
| relu        | max(z, 0)                           |                        | y              |
| leaky_relu  | z if z > 0 else negative_slope z    | negative_slope (0.01)  | z              |
| prelu       | z if z > 0 else slope z             | slope (an array)       | z              |
| elu         | z if z > 0 else alpha (exp z - 1)   | alpha (1.0)            | z              |
| selu        | scale elu(z), its own alpha         |                        | z              |
| gelu        | z Phi(z)                            | approximate ("none")   | z              |
| silu        | z sigmoid(z)                        |                        | z              |
| softplus    | log(1 + exp z)                      |                        | z              |
| mish        | z tanh(softplus z)                  |                        | z              |
| sigmoid     | 1 / (1 + exp -z)                    |                        | y              |
| tanh        | tanh z                              |                        | y              |
| softsign    | z / (1 + abs z)                     |                        | z              |
| hardswish   | z hardsigmoid(z)                    |                        | z              |
| hardsigmoid | min(max(z + 3, 0), 6) / 6           |                        | z              |
| hardtanh    | min(max(z, -1), 1)                  |                        | y              |
| relu6       | min(max(z, 0), 6)                   |                        | y              |
| logsigmoid  | log sigmoid(z)                      |                        | z              |

An activation whose derivative follows from y without loss saves y, which the caller has anyway; the others
save z.  At an infinite z, y and the derivative are their limits.  NaN gives NaN.  "linear", Keras's name for
identity, is accepted wherever a name is, and so is a `CustomActivation`.  csrc/README.md says how to add an
activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np

from .checks import LARGEST, check_array, check_finite, shown, unknown_name
from .custom import CustomActivation

Array = np.ndarray[Any, Any]

CUSTOM = 255  # the code of a `CustomActivation`, which no row of the table has


class Activation(NamedTuple):
    """One activation with its parameters, as the backends take it."""

    name: str
    code: int  # as in the table
    saves: str  # "y" or "z"
    parameter: float = 0.0  # negative_slope, alpha, or that of a custom activation
    slope: Array | None = None  # prelu: shape (1,) or (features,), C-contiguous, dtype of z
    custom: CustomActivation | None = None


# ---- the formulas in NumPy.  p is the parameter: a scalar of the arrays' dtype, or PReLU's slope

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
_TANH_GELU = math.sqrt(2 / math.pi)

_erfc = np.frompyfunc(math.erfc, 1, 1)


def _normal_cdf(z: Array) -> Array:
    return np.asarray(0.5 * _erfc(z * -math.sqrt(0.5)), dtype=z.dtype)


def _sigmoid(z: Array) -> Any:
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1) / (1 + e)


def _softplus(z: Array) -> Any:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _finite(z: Array) -> Any:
    """z with the largest numbers for infinities: -inf * sigmoid(-inf) becomes its limit, 0, not NaN."""
    limit = np.finfo(z.dtype).max
    return np.clip(z, -limit, limit)


def _gelu(z: Array, p: Any) -> Any:
    return np.where(z == np.inf, z, _finite(z) * _normal_cdf(z))


def _gelu_backward(grad_y: Array, z: Array, p: Any) -> Any:
    f = _finite(z)
    return grad_y * (_normal_cdf(z) + f * np.exp(-0.5 * f * f) / math.sqrt(2 * math.pi))


def _gelu_tanh(z: Array, p: Any) -> Any:
    f = _finite(z)
    # 0.5 * (1 + tanh(u)) = sigmoid(2u), which keeps its relative accuracy for z < 0
    return np.where(z == np.inf, z, f * _sigmoid(2 * _TANH_GELU * (f + 0.044715 * f**3)))


def _gelu_tanh_backward(grad_y: Array, z: Array, p: Any) -> Any:
    cubic = np.clip(_finite(z), -1e4, 1e4)  # its cube is finite, and at 1e4 the sigmoid is 0 or 1
    u = 2 * _TANH_GELU * (cubic + 0.044715 * cubic**3)
    inner = 2 * _TANH_GELU * (1 + 3 * 0.044715 * cubic**2)
    s = _sigmoid(u)
    return grad_y * (s + cubic * s * _sigmoid(-u) * inner)


def _mish_backward(grad_y: Array, z: Array, p: Any) -> Any:
    q = _sigmoid(-z) ** 2  # exp(-2 softplus z), so 1 - tanh(softplus z)^2 = 4q / (1 + q)^2
    return grad_y * (np.tanh(_softplus(z)) + _finite(z) * (4 * q / (1 + q) ** 2) * _sigmoid(z))


# ---- the table


class Row(NamedTuple):
    """What the backends, the adapters, the layers and the tests know of an activation."""

    code: int  # its number in C and in Numba, which never changes
    saves: str  # what the backward needs, "y" or "z"
    forward: Callable[[Array, Any], Any]  # (z, p) -> y
    backward: Callable[[Array, Array, Any], Any]  # (grad_y, y or z, p) -> grad_z
    exponential: tuple[bool, bool] = (False, False)  # whether the forward and the backward compute one
    defaults: Mapping[str, Any] = MappingProxyType({})  # its keyword and that keyword's default
    init: str = "he_normal"  # the function of `fastact.init` for the weights of a Linear with this activation


TABLE: dict[str, Row] = {
    "identity": Row(0, "y", lambda z, p: z, lambda grad_y, y, p: grad_y, init="glorot_uniform"),
    "relu": Row(1, "y", lambda z, p: np.maximum(z, 0), lambda grad_y, y, p: np.where(y <= 0, 0, grad_y)),
    "leaky_relu": Row(
        2,
        "z",
        lambda z, p: np.where(z > 0, z, z * p),
        lambda grad_y, z, p: np.where(z > 0, grad_y, grad_y * p),
        defaults={"negative_slope": 0.01},
    ),
    "prelu": Row(
        3,
        "z",
        lambda z, p: np.where(z > 0, z, z * p),
        lambda grad_y, z, p: np.where(z > 0, grad_y, grad_y * p),
        defaults={"slope": None},
    ),
    "elu": Row(
        4,
        "z",
        lambda z, p: np.where(z > 0, z, p * np.expm1(np.minimum(z, 0))),
        lambda grad_y, z, p: grad_y * np.where(z > 0, 1, p * np.exp(np.minimum(z, 0))),
        exponential=(True, True),
        defaults={"alpha": 1.0},
    ),
    "selu": Row(
        5,
        "z",
        lambda z, p: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))),
        lambda grad_y, z, p: (
            grad_y * (SELU_SCALE * np.where(z > 0, 1, SELU_ALPHA * np.exp(np.minimum(z, 0))))
        ),
        exponential=(True, True),
        init="lecun_normal",
    ),
    "gelu": Row(6, "z", _gelu, _gelu_backward, exponential=(True, True), defaults={"approximate": "none"}),
    "gelu_tanh": Row(7, "z", _gelu_tanh, _gelu_tanh_backward, exponential=(True, True)),
    "silu": Row(
        8,
        "z",
        lambda z, p: np.where(z == np.inf, z, _finite(z) * _sigmoid(z)),
        lambda grad_y, z, p: grad_y * (_sigmoid(z) * (1 + _finite(z) * _sigmoid(-z))),
        exponential=(True, True),
    ),
    "softplus": Row(
        9, "z", lambda z, p: _softplus(z), lambda grad_y, z, p: grad_y * _sigmoid(z), exponential=(True, True)
    ),
    "mish": Row(
        10,
        "z",
        lambda z, p: np.where(z == np.inf, z, _finite(z) * np.tanh(_softplus(z))),
        _mish_backward,
        exponential=(True, True),
    ),
    "sigmoid": Row(
        11,
        "y",
        lambda z, p: _sigmoid(z),
        lambda grad_y, y, p: grad_y * (y * (1 - y)),
        exponential=(True, False),
        init="glorot_uniform",
    ),
    "tanh": Row(
        12,
        "y",
        lambda z, p: np.tanh(z),
        lambda grad_y, y, p: grad_y * ((1 - y) * (1 + y)),
        exponential=(True, False),
        init="glorot_uniform",
    ),
    "softsign": Row(
        13,
        "z",
        lambda z, p: _finite(z) / (1 + np.abs(_finite(z))),
        lambda grad_y, z, p: grad_y / (1 + np.abs(z)) ** 2,
        init="glorot_uniform",
    ),
    "hardswish": Row(
        14,
        "z",
        lambda z, p: np.maximum(z, -3) * (np.clip(z + 3, 0, 6) / 6),
        lambda grad_y, z, p: np.where(z <= -3, 0, np.where(z >= 3, grad_y, grad_y * ((2 * z + 3) / 6))),
    ),
    "hardsigmoid": Row(
        15,
        "z",
        lambda z, p: np.clip(z + 3, 0, 6) / 6,
        lambda grad_y, z, p: np.where(np.abs(z) >= 3, 0, grad_y / 6),
        init="glorot_uniform",
    ),
    "hardtanh": Row(
        16,
        "y",
        lambda z, p: np.clip(z, -1, 1),
        lambda grad_y, y, p: np.where(np.abs(y) >= 1, 0, grad_y),
        init="glorot_uniform",
    ),
    "relu6": Row(
        17,
        "y",
        lambda z, p: np.clip(z, 0, 6),
        lambda grad_y, y, p: np.where((y <= 0) | (y >= 6), 0, grad_y),
    ),
    "logsigmoid": Row(
        18,
        "z",
        lambda z, p: -_softplus(-z),
        lambda grad_y, z, p: grad_y * _sigmoid(-z),
        exponential=(True, True),
        init="glorot_uniform",
    ),
}

NAMES = tuple(name for name in TABLE if name != "gelu_tanh")  # which is gelu with approximate="tanh"
SAVES_Z = tuple([name for name in NAMES if TABLE[name].saves == "z"])

# The names as types, in which a type checker finds a misspelt name.  FixedName: nothing is learned.
FixedName = Literal[
    "identity",
    "linear",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "mish",
    "sigmoid",
    "tanh",
    "softsign",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "relu6",
    "logsigmoid",
]
ActivationName = Literal[FixedName, "prelu"]
AnyActivation = ActivationName | CustomActivation
Approximate = Literal["none", "tanh"]


class Parameters(TypedDict, total=False):
    """The keywords of the activations."""

    negative_slope: float
    slope: Any  # an array; for a layer, which learns the slope, the numbers to start from
    alpha: float
    approximate: Approximate
    parameter: float  # of a custom activation


_ALIASES: dict[str, ActivationName] = {"linear": "identity"}

_ACTIVATIONS = {name: Activation(name, row.code, row.saves) for name, row in TABLE.items()}


def canonical(activation: AnyActivation) -> AnyActivation:
    """The table's name of an activation that may be called by an alias."""
    return activation if isinstance(activation, CustomActivation) else _ALIASES.get(activation, activation)


def initialiser(activation: AnyActivation) -> str:
    """The name of the function of `fastact.init` for the weights of a layer with this activation."""
    if isinstance(activation, CustomActivation):
        return "he_normal"
    return TABLE[canonical(activation)].init  # type: ignore[index]


def defaults_of(activation: AnyActivation) -> Mapping[str, Any]:
    """The keywords of an activation and their defaults; None for the slope of PReLU."""
    if isinstance(activation, CustomActivation):
        return activation.defaults
    return TABLE[canonical(activation)].defaults  # type: ignore[index]


def learns_slope(activation: Any) -> bool:
    """Whether the activation has a slope, which layers learn."""
    if isinstance(activation, CustomActivation):
        return "slope" in activation.defaults
    return isinstance(activation, str) and activation == "prelu"


def saves_z(activation: AnyActivation) -> bool:
    """Whether the backward of the activation needs z."""
    if isinstance(activation, CustomActivation):
        return activation.saves == "z"
    return CODES[activation].saves_z


_BY_NAME = {name: _ACTIVATIONS[name] for name in NAMES}
_BY_NAME |= {alias: _ACTIVATIONS[name] for alias, name in _ALIASES.items()}


class Code(NamedTuple):
    """An activation as C reads it for a network, see csrc/api/network.c."""

    code: int  # or an address
    parameter: float
    saves_z: bool
    takes_slope: bool
    owner: Any = None  # of the memory at the address


# Each activation with its parameter by default.
CODES: dict[str, Code] = {}
for _name, _act in _BY_NAME.items():
    (_default,) = TABLE[_act.name].defaults.values() or (0.0,)
    _number = _default if isinstance(_default, float) else 0.0
    CODES[_name] = Code(_act.code, _number, _act.saves == "z", learns_slope(_name))


def resolve(
    name: str | CustomActivation, features: int, dtype: np.dtype[Any], parameters: Mapping[str, Any]
) -> Activation:
    """The activation called `name`, or a `CustomActivation`, with its keywords checked.

    `features` is the length of z's last axis, which a PReLU slope has to match.  Raises ValueError for
    an unknown name or an invalid value, TypeError for a keyword that the activation does not take.
    """
    act = _BY_NAME.get(name) if isinstance(name, str) else None
    if act is None:
        if not isinstance(name, CustomActivation):
            raise unknown_name("activation", name, NAMES)
        act, defaults = Activation(name.name, CUSTOM, name.saves, custom=name), name.defaults
    else:
        defaults = TABLE[act.name].defaults
    if not parameters and not defaults:
        return act
    for key in parameters:
        if key not in defaults:
            wanted = ", ".join(defaults) or "no parameter"
            raise TypeError(f"{key}: {act.name} takes {wanted}")
    values = {**defaults, **parameters}
    if "slope" in defaults:
        return act._replace(slope=_check_slope(values["slope"], features, dtype))
    if name == "gelu":
        approximate = values["approximate"]
        if not isinstance(approximate, str) or approximate not in get_args(Approximate):
            raise ValueError(f'approximate: got {shown(approximate)}, wanted "none" or "tanh"')
        return _ACTIVATIONS["gelu_tanh"] if approximate == "tanh" else act
    (key,) = defaults
    return act._replace(parameter=check_finite(key, values[key], LARGEST[dtype.char]))


def _check_slope(slope: Any, features: int, dtype: np.dtype[Any]) -> Array:
    check_array("slope", slope, dtype)
    if slope.shape not in ((), (1,), (features,)):
        raise ValueError(f"slope: got shape {slope.shape}, wanted (), (1,) or ({features},)")
    return np.array(slope, order="C").reshape(-1)
