"""Activations of a user's own: scalar functions, which Numba compiles into the kernels of every backend."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, Literal
from weakref import WeakValueDictionary

from .checks import check_finite, shown

_numbers = itertools.count(1)
_made: WeakValueDictionary[str, CustomActivation] = WeakValueDictionary()


class CustomActivation:
    """An activation made by `custom_activation`; it stands wherever an activation's name may.

    Two activations are equal only if they are one object.  A copy is the object itself.  A pickle holds the
    name of the module-level variable that the activation is assigned to, as that of a function does.

    Attributes:
        name: as given.
        saves: "y" or "z", what the derivative is a function of.
        defaults: the keywords that calls and layers take: {"parameter": its default}, {"slope": None} or {}.
        initial_slope: where layers start to learn the slope; None without one.
        functions: forward, derivative and, for a slope, slope_derivative.
        compiled: what `backends/custom.py` has made so far.
        key: a str that stands for the activation in this process, where an interface takes one: see `by_key`.
    """

    def __init__(
        self,
        name: str,
        saves: Literal["y", "z"],
        functions: dict[str, Callable[..., Any]],
        parameter: float | None,
        slope: float | None,
        module: str,
    ) -> None:
        self.name = name
        self.saves = saves
        self.initial_slope = slope
        self.__module__ = module
        self.key = f"{name}#{next(_numbers)}"
        _made[self.key] = self
        self.functions = functions
        self.compiled: dict[Any, Any] = {}
        defaults: dict[str, Any] = {} if parameter is None else {"parameter": parameter}
        if slope is not None:
            defaults = {"slope": None}
        self.defaults: Mapping[str, Any] = MappingProxyType(defaults)

    def __copy__(self) -> CustomActivation:
        return self

    def __deepcopy__(self, memo: Any) -> CustomActivation:
        return self

    def __reduce__(self) -> str:
        import pickle

        module = sys.modules.get(self.__module__)
        names = [] if module is None else [name for name, value in vars(module).items() if value is self]
        if not names:
            raise pickle.PicklingError(
                f"{self!r} is not a module-level variable of {self.__module__}, where it was made; a pickle "
                "holds an activation by the name of such a variable, as it holds a function"
            )
        return self.name if self.name in names else names[0]

    def __repr__(self) -> str:
        return f"<custom activation {self.name}>"


def by_key(key: str) -> CustomActivation | None:
    """The activation of a key, or None if there is no such activation, or no longer."""
    return _made.get(key)


def custom_activation(
    name: str,
    forward: Callable[..., float],
    derivative: Callable[..., float],
    *,
    saves: Literal["y", "z"] = "z",
    parameter: float | None = None,
    slope: float | None = None,
    slope_derivative: Callable[..., float] | None = None,
) -> CustomActivation:
    """An activation of your own, fused into linear layers as the built-in ones are.

        swish2 = fa.custom_activation(
            "swish2",
            forward=lambda z: z / (1 + math.exp(-2 * z)),
            derivative=lambda z: (1 + (1 + 2 * z) * math.exp(-2 * z)) / (1 + math.exp(-2 * z)) ** 2,
        )
        layer = fa.Linear(784, 240, activation=swish2)

    The functions take and return single numbers, float64 for arrays of any dtype; results are rounded once.
    Numba compiles them at the first use with each dtype, into loops that LLVM vectorises.  Write them for
    that: `math` and NumPy's functions of a number, arithmetic, comparisons and `x if condition else y`.
    exp, expm1, log, log1p and tanh are vectorised; others are called number by number.  What they call of
    your own has to be compiled by Numba too, which takes globals and closures as they are at the first use.
    Where float64 arithmetic has an infinity or a NaN, so have the functions: nothing raises.
    `check_gradient` tells whether a derivative is right.

    Args:
        name: an identifier, for messages and reprs, and the name of the variable for pickles.
        forward: z -> y.
        derivative: dy/dz from z, or from y with `saves="y"`.
        saves: "z" or "y", what the forward keeps for the derivative. y costs no memory.
        parameter: the default of a second argument of the functions, which calls and layers take as the
            keyword `parameter`.
        slope: makes the second argument of the functions a slope that layers learn, one or one per feature,
            as PReLU's; the number is where they start.  Functions of arrays take it as the keyword `slope`.
        slope_derivative: dy/dslope, of the arguments of `derivative`; for a slope only.

    Returns:
        A `CustomActivation`, to be given wherever an activation's name may.

    Raises:
        TypeError: a function is not one of Python or Numba, or has another number of arguments, or only one
            of slope and slope_derivative is given; or a name or a number is of the wrong type.
        ValueError: the name is not an identifier, `saves` is neither, both a parameter and a
            slope are given, or one is not finite.

        The first use raises TypeError if Numba cannot compile a function, or if it may raise.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: got {shown(name)}, wanted a str")
    if not name.isidentifier():
        raise ValueError(f"name: got {shown(name)}, wanted an identifier")
    if not isinstance(saves, str) or saves not in ("y", "z"):
        raise ValueError(f'saves: got {shown(saves)}, wanted "z" or "y"')
    if parameter is not None:
        parameter = check_finite("parameter", parameter)
    if slope is not None:
        slope = check_finite("slope", slope)
    if parameter is not None and slope is not None:
        raise ValueError("slope: got a slope beside a parameter, wanted one of the two")
    if slope is not None and slope_derivative is None:
        raise TypeError("slope_derivative: got None for an activation with a slope, wanted a function")
    if slope is None and slope_derivative is not None:
        raise TypeError("slope_derivative: got a function for an activation without a slope, wanted None")
    functions: dict[str, Any] = {"forward": forward, "derivative": derivative}
    if slope_derivative is not None:
        functions["slope_derivative"] = slope_derivative
    arguments = 1 if parameter is None and slope is None else 2
    plain = {key: _plain_function(key, function, arguments) for key, function in functions.items()}
    module = sys._getframe(1).f_globals.get("__name__", "__main__")
    return CustomActivation(name, saves, plain, parameter, slope, module)


def _plain_function(name: str, function: Any, arguments: int) -> Callable[..., Any]:
    """The Python function of `function`, which Numba may have compiled.  It takes that many arguments."""
    plain = function if type(function) is FunctionType else getattr(function, "py_func", None)
    if type(plain) is not FunctionType:
        raise TypeError(f"{name}: got {shown(function)}, wanted a function of Python or Numba")
    code = plain.__code__
    if code.co_argcount != arguments or code.co_kwonlyargcount or code.co_flags & 0x0C:
        raise TypeError(
            f"{name}: got a function of {code.co_argcount} arguments, wanted {arguments}: the number"
            f"{'' if arguments == 1 else ', and the parameter or slope'}"
        )
    return plain
