"""Checks of the arguments of `ops` and of the layers, and arrays in the form that the backends take.

A bad argument raises before anything is written.  The message names the argument, what it got and what it
wanted; where a common slip explains the value, the message ends with its cure (`hint`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Needs = tuple[bool, ...]

# Other subclasses (masked arrays, quantities, np.matrix) are refused: kernels would drop their semantics.
ARRAYS = (np.ndarray, np.memmap)
MAX_PIECES = 256  # an argmax is one byte
MAX_SIZE = int(np.iinfo(np.intp).max) // 8  # of float64 in an address space
LARGEST = {char: float(np.finfo(char).max) for char in "fd"}  # the largest finite number, by a dtype's char
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
UINT8 = np.dtype(np.uint8)


def shown(value: Any) -> str:
    """The repr of `value` on one line of at most 80 characters, or the type's name if repr fails."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a caller's own __repr__, or an int of more digits than Python writes
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


# How to convert the arrays of a package to NumPy's; others take `np.asarray(...)`.
_CONVERSIONS = {
    "cupy": ".get()",
    "fastact": ".data",  # a Parameter
    "jax": "fastact.jax or np.asarray(...)",
    "jaxlib": "fastact.jax or np.asarray(...)",
    "pandas": ".to_numpy()",
    "polars": ".to_numpy()",
    "tensorflow": ".numpy()",
    "torch": "fastact.torch or .numpy()",
}


def hint(got: Any, wanted: np.dtype[Any] | None = None) -> str:
    """The end of a message: how to convert `got`, a value or a dtype, to an array of `wanted`; or "".

    None for `wanted` means float32.  Packages are recognised by the names of modules and never imported.
    """
    dtype = "float32" if wanted is None else wanted.name
    if isinstance(got, np.dtype):
        return f": try .astype(np.{dtype})" if got.kind in "biufO" else ""  # not complex, not text
    kind = type(got)
    convertible = isinstance(got, list | tuple | float | int) or hasattr(kind, "__array__")
    if isinstance(got, np.ndarray | bool) or not convertible:
        return ""
    packages = [str(base.__module__).partition(".")[0] for base in kind.__mro__]
    known = next((_CONVERSIONS[package] for package in packages if package in _CONVERSIONS), None)
    return f": try {known or f'np.asarray(..., np.{dtype})'}"


def unknown_name(name: str, value: Any, names: Iterable[str]) -> ValueError:
    """The error for a `value` that is not one of `names`; its message suggests the closest one."""
    import difflib  # slow to import, and needed for a message only

    names = list(names)
    close = difflib.get_close_matches(value.lower(), names, 1, 0.72) if isinstance(value, str) else []
    cure = f": try {close[0]!r}" if close else ""
    return ValueError(f"{name}: got {shown(value)}, wanted one of {', '.join(names)}{cure}")


def check_type(name: str, value: Any, wanted: np.dtype[Any] | None = None) -> None:
    """`value` is an array of any dtype; `wanted` is the dtype that the hint suggests."""
    if type(value) not in ARRAYS:
        raise TypeError(f"{name}: got {type(value).__name__}, wanted a numpy.ndarray{hint(value, wanted)}")


def check_dtype(name: str, got: np.dtype[Any], wanted: np.dtype[Any] | None = None) -> None:
    """An array's dtype is `wanted`, or a supported float type where that is None."""
    if wanted is None:
        if got not in FLOATS:
            raise TypeError(f"{name}: got dtype {got}, wanted float32 or float64{hint(got)}")
    elif got != wanted:
        raise TypeError(f"{name}: got dtype {got}, wanted {wanted}{hint(got, wanted)}")


def check_shape(name: str, got: Shape, wanted: Shape) -> None:
    if got != wanted:
        raise ValueError(f"{name}: got shape {got}, wanted {wanted}")


def check_last_axis(name: str, got: Shape, weight: Shape) -> None:
    """An array (..., in_features) fits the weight, whose last axis is in_features too."""
    if got[-1:] != weight[-1:]:
        raise ValueError(f"{name}: got shape {got}, wanted (..., {weight[-1]}) to match weight")


def check_array(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> None:
    """`value` is an array of `dtype`, or of a supported float type where `dtype` is None."""
    if type(value) not in ARRAYS:
        check_type(name, value, dtype)
    check_dtype(name, value.dtype, dtype)


def check_number(name: str, value: Any) -> float:
    """`value`, a real number, as a float; infinite if the number is beyond the range of float64."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {shown(value)}, wanted a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def check_finite(name: str, value: Any, largest: float = LARGEST["d"]) -> float:
    number = check_number(name, value)
    if not abs(number) <= largest:
        raise ValueError(f"{name}: got {shown(value)}, wanted a finite number, at most {largest:.3g}")
    return number


def check_not_negative(name: str, value: Any, largest: float = LARGEST["d"]) -> float:
    number = check_number(name, value)
    if not 0 <= number <= largest:
        raise ValueError(f"{name}: got {shown(value)}, wanted a number from 0 to {largest:.3g}")
    return number


def check_positive(name: str, value: Any, largest: float = LARGEST["d"]) -> float:
    number = check_number(name, value)
    if not 0 < number <= largest:
        raise ValueError(f"{name}: got {shown(value)}, wanted a number above 0, at most {largest:.3g}")
    return number


def check_below_one(name: str, value: Any) -> float:
    number = check_number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name}: got {shown(value)}, wanted 0 <= {name} < 1")
    return number


def finite_numbers(name: str, value: Any, dtype: Any) -> Array:
    """`value`, a number, a sequence or an array of numbers, as a new array of at least one axis."""
    numbers = value
    if isinstance(value, np.ndarray):
        check_type(name, value)
    elif isinstance(value, Real):
        numbers = check_number(name, value)
    elif isinstance(value, list | tuple):
        numbers = [check_number(name, number) for number in value]
    try:
        given = np.array(numbers, ndmin=1)
    except Exception as error:  # an __array__ may raise anything
        raise TypeError(f"{name}: got {shown(value)}, wanted finite numbers") from error
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name}: got {shown(value)}, wanted finite numbers")
    with np.errstate(all="ignore"):
        rounded: Array = given.astype(dtype)
    if not np.isfinite(rounded).all():
        raise ValueError(f"{name}: got {shown(value)}, wanted finite numbers of {rounded.dtype}")
    return rounded


def check_int(name: str, value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):  # a NumPy integer is one too
        raise TypeError(f"{name}: got {shown(value)}, wanted an int")
    return int(value)


def check_size(name: str, value: Any, smallest: int = 0, largest: int = MAX_SIZE) -> int:
    size = check_int(name, value)
    if not smallest <= size <= largest:
        upwards = f"to {largest}" if size > largest or largest < MAX_SIZE else "or more"
        raise ValueError(f"{name}: got {shown(value)}, wanted {smallest} {upwards}")
    return size


def check_sizes(name: str, shape: Any) -> Shape:
    """`shape`, a tuple or list of at least one size, as a tuple; such an array could fit in memory."""
    if not isinstance(shape, tuple | list):
        raise TypeError(f"{name}: got {shown(shape)}, wanted a tuple of ints")
    if not shape:
        raise ValueError(f"{name}: got {shape}, wanted at least one size")
    sizes = tuple(check_size(f"{name}[{i}]", size) for i, size in enumerate(shape))
    if math.prod(max(size, 1) for size in sizes) > MAX_SIZE:  # NumPy refuses an empty array of such sizes too
        raise ValueError(f"{name}: got {sizes}, wanted a product of at most {MAX_SIZE}")
    return sizes


def check_flag(name: str, value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    if type(value) is not np.bool_:
        raise TypeError(f"{name}: got {shown(value)}, wanted True or False")
    return bool(value)


def check_float_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype that `dtype` names, which has to be float32 or float64."""
    named: np.dtype[Any] | None = None
    if dtype is not None:  # np.dtype takes None for float64
        with contextlib.suppress(Exception):  # `dtype` names no dtype
            named = np.dtype(dtype)
    if named is None or named not in FLOATS:
        got = dtype if isinstance(dtype, str) else shown(dtype) if named is None else named
        raise TypeError(f"dtype: got {got}, wanted float32 or float64")
    return named


def check_rng(rng: Any) -> np.random.Generator:
    """`np.random.default_rng(rng)`: the generator itself, or a new one for a seed or None."""
    if isinstance(rng, np.ndarray):
        check_type("rng", rng)  # NumPy would iterate for ever over a matrix, whose rows are matrices
    try:
        return np.random.default_rng(rng)
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"rng: got {shown(rng)}, wanted a numpy.random.Generator, a seed or None") from error


def contiguous(value: Array) -> Array:
    """`value` itself if a kernel can read it, else a C-contiguous, aligned copy."""
    flags = value.flags
    if flags.carray or (flags.c_contiguous and flags.aligned):  # `carray` is both, and writeable
        return value
    return np.array(value, order="C")


def as_rows(value: Any) -> Any:
    """A C-contiguous `value` (..., features) as (rows, features), () as (1, 1), and None as None."""
    if value is None or value.ndim == 2:
        return value
    *rows, features = value.shape or (1,)
    return value.reshape(math.prod(rows), features)


def contiguous_rows(value: Array) -> Array:
    """`value` (..., features) as a C-contiguous (rows, features)."""
    rows: Array = as_rows(contiguous(value))
    return rows


def as_blocks(z: Array, axis: int) -> Array:
    """A C-contiguous z as (outer, pieces, inner)."""
    return z.reshape(math.prod(z.shape[:axis]), z.shape[axis], math.prod(z.shape[axis + 1 :]))


def check_operand(name: str, value: Any, dtype: np.dtype[Any], shape: Shape) -> Array:
    """`value`, which has to be of `dtype` and `shape`, in a form that a kernel can read."""
    if type(value) not in ARRAYS or value.dtype != dtype or value.shape != shape:
        check_array(name, value, dtype)
        check_shape(name, value.shape, shape)
    return contiguous(value)


# A program has few different shapes and passes each many times, so each is checked once.
_once_each = functools.lru_cache(maxsize=1024)
MAXOUT_WEIGHT = ("out_features", "pieces", "in_features")
LINEAR_WEIGHT = ("out_features", "in_features")


@_once_each
def forward_shape(
    sizes: tuple[str, ...],
    x: Shape,
    x_dtype: np.dtype[Any],
    weight: Shape,
    weight_dtype: np.dtype[Any],
    bias: Shape | None = None,
    bias_dtype: np.dtype[Any] | None = None,
) -> Shape:
    """The shape of y for x (..., in_features), weight (`sizes`) and bias (`sizes` without in_features).

    All three have one dtype.
    """
    check_dtype("x", x_dtype)
    if (x_dtype, weight_dtype) == FLOATS[::-1]:  # x is float64, as NumPy makes arrays
        check_dtype("x", x_dtype, weight_dtype)
    check_dtype("weight", weight_dtype, x_dtype)
    if len(weight) != len(sizes):
        raise ValueError(f"weight: got shape {weight}, wanted ({', '.join(sizes)})")
    if x and x[-1] != weight[-1] and x[-1] in weight[:-1] and bias != weight[:-1]:
        cure = "transpose it, weight.T" if sizes is LINEAR_WEIGHT else "transpose it, see fastact.convert"
        raise ValueError(
            f"weight: got shape {weight}, wanted ({', '.join(sizes)}) with in_features = {x[-1]} "
            f"to match x: {cure}"
        )
    check_last_axis("x", x, weight)
    if sizes is MAXOUT_WEIGHT:
        check_pieces(weight[1])
    if bias is not None and bias_dtype is not None:  # a backward has no bias
        check_dtype("bias", bias_dtype, x_dtype)
        check_shape("bias", bias, weight[:-1])
    return (*x[:-1], weight[0])


def check_forward(sizes: tuple[str, ...], x: Any, weight: Any, bias: Any) -> Shape:
    """The shape of y; TypeError if x, weight or bias is not an array.  bias may be None."""
    if type(x) not in ARRAYS or type(weight) not in ARRAYS:
        check_type("x", x)
        check_type("weight", weight, _float_dtype(x))
    if bias is None:
        return forward_shape(sizes, x.shape, x.dtype, weight.shape, weight.dtype)
    if type(bias) not in ARRAYS:
        check_type("bias", bias, _float_dtype(x))
    return forward_shape(sizes, x.shape, x.dtype, weight.shape, weight.dtype, bias.shape, bias.dtype)


def _float_dtype(array: Array) -> np.dtype[Any] | None:
    """The dtype of an array if it is a supported one, else None."""
    return array.dtype if array.dtype in FLOATS else None


@_once_each
def _check_backward_shapes(
    sizes: tuple[str, ...],
    x: Shape,
    x_dtype: np.dtype[Any],
    weight: Shape,
    weight_dtype: np.dtype[Any],
    grad_y: Shape,
    grad_y_dtype: np.dtype[Any],
    saved: Shape,
    saved_dtype: np.dtype[Any],
) -> None:
    """x and weight fit as in the forward; grad_y and `saved` have the shape of y."""
    # where grad_y agrees with the weight about out_features, like a bias would, x is to blame
    units = weight[:-1] if grad_y[-1:] == weight[:1] else None
    y = forward_shape(sizes, x, x_dtype, weight, weight_dtype, units)
    check_dtype("grad_y", grad_y_dtype, x_dtype)
    check_shape("grad_y", grad_y, y)
    dtype = UINT8 if sizes is MAXOUT_WEIGHT else x_dtype
    check_dtype(_saved_name(sizes), saved_dtype, dtype)
    check_shape(_saved_name(sizes), saved, y)


def _saved_name(sizes: tuple[str, ...]) -> str:
    """The name of the argument that a backward gets from its forward."""
    return "argmax" if sizes is MAXOUT_WEIGHT else "saved"


def check_backward(sizes: tuple[str, ...], grad_y: Any, x: Any, weight: Any, saved: Any) -> None:
    """The arguments of a backward fit; `saved` is the argmax for maxout.  TypeError for non-arrays."""
    if (
        type(grad_y) not in ARRAYS
        or type(x) not in ARRAYS
        or type(weight) not in ARRAYS
        or type(saved) not in ARRAYS
    ):
        check_type("grad_y", grad_y)
        dtype = _float_dtype(grad_y)
        check_type("x", x, dtype)
        check_type("weight", weight, dtype)
        check_type(_saved_name(sizes), saved, UINT8 if sizes is MAXOUT_WEIGHT else dtype)
    _check_backward_shapes(
        sizes,
        x.shape,
        x.dtype,
        weight.shape,
        weight.dtype,
        grad_y.shape,
        grad_y.dtype,
        saved.shape,
        saved.dtype,
    )


def check_norm(x: Any, weight: Any, bias: Any) -> None:
    """x is (..., features) with features >= 1; weight and bias are None, or (features,) of x's dtype."""
    check_array("x", x)
    if weight is not None:
        check_type("weight", weight, x.dtype)
        if (x.dtype, weight.dtype) == FLOATS[::-1]:  # x is float64, as NumPy makes arrays
            check_dtype("x", x.dtype, weight.dtype)
        check_dtype("weight", weight.dtype, x.dtype)
        if weight.ndim != 1:
            raise ValueError(f"weight: got shape {weight.shape}, wanted (features,)")
        check_last_axis("x", x.shape, weight.shape)
    if not x.shape or x.shape[-1] == 0:
        raise ValueError(f"x: got shape {x.shape}, wanted (..., features) with at least one feature")
    if bias is not None:
        check_operand("bias", bias, x.dtype, x.shape[-1:])


def label_error(labels: Array, classes: int, ignore_index: int) -> ValueError:
    """The error for labels of which one is neither a class nor ignore_index."""
    used = labels[labels != ignore_index]
    return ValueError(f"labels: got {used.min()} to {used.max()}, wanted 0 to {classes - 1}")


def check_pieces(pieces: int) -> None:
    if not 1 <= pieces <= MAX_PIECES:
        raise ValueError(f"pieces: got {shown(pieces)}, wanted 1 to {MAX_PIECES}")


def check_axis(axis: Any, ndim: int) -> int:
    number = check_int("axis", axis)
    if ndim == 0:
        raise ValueError("axis: got an array without axes, wanted one of at least 1")
    if not -ndim <= number < ndim:
        raise ValueError(f"axis: got {shown(axis)}, wanted {-ndim} to {ndim - 1}")
    return number % ndim


def check_needs(needs: Any, names: tuple[str, ...]) -> Needs:
    if not isinstance(needs, (tuple, list)) or len(needs) != len(names):
        raise ValueError(f"needs: got {shown(needs)}, wanted {len(names)} booleans for ({', '.join(names)})")
    for need in needs:
        if need is not True and need is not False and not isinstance(need, np.bool_):
            raise TypeError(f"needs: got {shown(need)}, wanted booleans for ({', '.join(names)})")
    return tuple(needs)
