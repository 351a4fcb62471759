"""The arrays that results are written to: new ones, or those of a caller's `out=`, checked for overlap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .checks import ARRAYS, Array, Needs, Shape, check_shape, contiguous


def check_out(out: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """`out` as a tuple of one entry a result."""
    if out is None:
        return (None,) * len(names)
    if len(names) == 1 and not isinstance(out, tuple):
        return (out,)
    if not isinstance(out, tuple):
        raise TypeError(f"out: got {type(out).__name__}, wanted a tuple ({', '.join(names)})")
    if len(out) != len(names):
        raise ValueError(f"out: got {len(out)} arrays, wanted {len(names)}: ({', '.join(names)})")
    return out


def _allocation(array: Array) -> int:
    """A number that identifies the memory block of `array`; 0 where the block is unknown."""
    owner = array if array.base is None else array.base
    return id(owner) if type(owner) in ARRAYS and owner.flags.owndata else 0


def _same_memory(a: Array, b: Array) -> bool:
    return a is b or (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.shape == b.shape
        and a.strides == b.strides
    )


def _check_overlap(
    label: str, array: Array, inputs: Iterable[Array | None], in_place: Iterable[Array], earlier: list[Any]
) -> None:
    """ValueError if `array` of `out` overlaps one of `inputs` or `earlier`, or one of `in_place` in part.

    It may be the whole of one of `in_place`.
    """
    for other in inputs:
        if other is not None and _overlap(array, other):
            raise ValueError(f"{label}: got an array that overlaps an input, wanted one that does not")
    for other in in_place:
        if not _same_memory(array, other) and _overlap(array, other):
            raise ValueError(f"{label}: got an array that overlaps an input, wanted one that does not")
    for other in earlier:
        if other is not None and _overlap(array, other):
            raise ValueError(f"{label}: got an array that overlaps another of out, wanted separate ones")


def _overlap(a: Array, b: Array) -> bool:
    return np.may_share_memory(a, b) and np.shares_memory(a, b)


def output_arrays(
    out: Any,
    names: tuple[str, ...],
    wanted: Needs,
    shapes: tuple[Shape, ...],
    dtypes: tuple[np.dtype[Any], ...],
    inputs: tuple[Array | None, ...],
    *,
    accumulate: bool = False,
    in_place: tuple[Array, ...] = (),
) -> list[Any]:
    """The C-contiguous arrays to write: one for each result, None where a result is not wanted.

    An array comes from `out`, or is new where `out` has None.  For a strided array of `out` the kernel gets a
    copy, which `deliver` writes back.  No array of `out` may overlap one of `inputs`; the first may be one of
    `in_place`, but not overlap it in part.
    """
    given = check_out(out, names)
    # Arrays in different memory blocks cannot overlap, and comparing blocks is faster than asking NumPy.
    # The inlined condition covers arrays that own their memory, which most do.
    taken = {
        id(other) if other.base is None and other.flags.owndata else _allocation(other)
        for other in (*inputs, *in_place)
        if other is not None
    }
    arrays: list[Any] = []
    for i, (array, want) in enumerate(zip(given, wanted, strict=True)):
        if not want:
            arrays.append(None)
        elif array is None:
            if accumulate and names[i] not in ("grad_x", "grad_z"):
                raise ValueError(f"accumulate: got True and no {_label(i, names)}, wanted an array to add to")
            arrays.append(np.empty(shapes[i], dtypes[i]))
        else:
            if type(array) not in ARRAYS or array.dtype != dtypes[i] or array.shape != shapes[i]:
                _check_given(_label(i, names), array, dtypes[i], shapes[i])
            flags = array.flags
            if not flags.writeable:
                raise ValueError(f"{_label(i, names)}: got a read-only array, wanted a writeable one")
            own = id(array) if array.base is None and flags.owndata else _allocation(array)
            if own in taken or 0 in taken or own == 0:
                apart, alike = (inputs, in_place) if i == 0 else ((*inputs, *in_place), ())
                earlier = [other for other, wanted_too in zip(given[:i], wanted, strict=False) if wanted_too]
                _check_overlap(_label(i, names), array, apart, alike, earlier)
            taken.add(own)
            arrays.append(array if flags.carray else contiguous(array))
    return arrays


def _check_given(label: str, array: Any, dtype: np.dtype[Any], shape: Shape) -> None:
    """The checks of an input without its hints: results written to a converted copy would be lost."""
    if type(array) not in ARRAYS:
        raise TypeError(f"{label}: got {type(array).__name__}, wanted a numpy.ndarray of {dtype}")
    if array.dtype != dtype:
        raise TypeError(f"{label}: got dtype {array.dtype}, wanted {dtype}")
    check_shape(label, array.shape, shape)


def _label(i: int, names: tuple[str, ...]) -> str:
    return f"out[{i}] ({names[i]})"


def deliver(out: Any, arrays: list[Array | None]) -> tuple[Any, ...]:
    """The results that the caller gets; copies of strided arrays of `out` are written back here."""
    given = out if isinstance(out, tuple) else (out,)
    for i, array in enumerate(arrays):
        if given[i] is not array and given[i] is not None and array is not None:
            given[i][...] = array
            arrays[i] = given[i]
    return tuple(arrays)
