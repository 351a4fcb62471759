"""Checkpoints: the state of models, optimisers and random generators, in one .npz file without pickle.

A state is a flat dict of names and arrays.  In a file, an entry is called `<object>.<name>`.  The entry
`fastact`, without a dot, is JSON: the version of the format and a list of the other entries.  Files of
fastact 0.1.0 lack it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from numbers import Real
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from ..checks import ARRAYS, hint
from .files import check_path, check_regular, replacing
from .npz import Entry, Npz, check_storable, write

# json is imported in the functions that use it, to keep `import fastact` quick.

Array = np.ndarray[Any, Any]
State: TypeAlias = "dict[str, Array]"
Path: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

_FORMAT = "fastact"  # the entry that lists the others
_VERSION = 1
_NAME_BYTES = 2**16 - 5  # the limit of a zip archive, less ".npy"
_GENERATOR_BYTES = 1 << 20  # the longest state by far, the text of an MT19937, has 30 thousand
# Indices that NumPy does not check: one out of range reads other memory at the next draw.
_GENERATOR_LIMITS = {"MT19937": {"pos": 624}, "Philox": {"buffer_pos": 4}}


def check_entries(expected: Mapping[str, Array], state: Mapping[str, Array], prefix: str = "") -> None:
    """`state` has the names, shapes and dtypes of `expected`; ValueError names every entry that differs.

    TypeError where `state` is not a mapping, or an entry is neither an array nor a number.  Masked arrays are
    refused, since they would lose their masks.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: got {type(state).__name__}, wanted a dict of arrays")
    for name, value in state.items():
        if type(value) not in ARRAYS and not isinstance(value, Real | np.generic):
            dtype = getattr(expected.get(name), "dtype", None)
            raise TypeError(
                f"{prefix}{name}: got {type(value).__name__}, wanted a numpy.ndarray{hint(value, dtype)}"
            )
    _check_headers(expected, {name: np.asarray(value) for name, value in state.items()}, prefix)


def _check_headers(expected: Mapping[str, Array], headers: Mapping[str, Array | Entry], prefix: str) -> None:
    faults = [f"{prefix}{name}: missing" for name in expected if name not in headers]
    for name, got in headers.items():
        if name not in expected:
            faults.append(f"{prefix}{name}: unexpected")
            continue
        wanted = expected[name]
        if got.shape != wanted.shape:
            cure = ": transpose it" if got.shape == wanted.shape[::-1] else ""
            faults.append(f"{prefix}{name}: got shape {got.shape}, wanted {wanted.shape}{cure}")
        elif got.dtype != wanted.dtype:
            cure = hint(got.dtype, wanted.dtype)
            faults.append(f"{prefix}{name}: got dtype {got.dtype}, wanted {wanted.dtype}{cure}")
    if faults:
        raise ValueError("; ".join(faults))


def check_loadable(targets: Mapping[str, Array], state: Mapping[str, Array]) -> None:
    """`check_entries`; each of `targets` is an array (TypeError) that can be written to (ValueError)."""
    for name, target in targets.items():
        if type(target) not in ARRAYS:
            raise TypeError(f"{name}: got {type(target).__name__}, wanted a numpy.ndarray to load into")
    check_entries(targets, state)
    read_only = [name for name, target in targets.items() if not target.flags.writeable]
    if read_only:
        raise ValueError(f"{', '.join(read_only)}: read-only, wanted writeable arrays to load into")


def save(path: Path, /, *unnamed: Any, **objects: Any) -> None:
    """Write the state of each named object to one .npz file.

        fastact.save("run.npz", model=model, optimizer=optimizer, rng=rng)

    The file appears whole or not at all: it is written beside `path`, synced to the disk and renamed.  A save
    that is killed leaves a file `.fastact-*.tmp`, which the next save to the same name removes.

    Args:
        path: where to write.  A file there is replaced and its mode kept; a symbolic link is followed.
        **objects: models, optimisers, and other objects with a `state_dict()`; `np.random.Generator`s;
            dicts of arrays, whose keys are saved as text.  Save a generator that several layers share once,
            under a name of its own.

    Raises:
        TypeError: an object has another type, its state has an entry that is not an array of numbers or text,
            or `path` is not a path.
        ValueError: a name has a dot or a NUL in it, two entries have the same name or names that differ only
            by ".npy", or `path` is a device, FIFO or socket.
        OSError: the file cannot be written, with `path` as its filename.
    """
    _check_named("save", unnamed)
    name = check_path(path)
    entries: State = {}
    for group, obj in objects.items():
        if "." in group:
            raise ValueError(f"{group}: wanted a name without a dot")
        for key, array in _state_of(group, obj).items():
            entry = f"{group}.{key}"
            _check_name(entry)
            if entry in entries:
                raise ValueError(f"{entry}: got two entries of this name, wanted keys that differ as text")
            if type(array) not in ARRAYS:
                kind = type(array).__name__
                raise TypeError(f"{entry}: got {kind}, wanted a numpy.ndarray{hint(array)}")
            check_storable(entry, array)
            entries[entry] = array
    entries[_FORMAT] = _text({"version": _VERSION, "entries": list(entries)})
    for entry in entries:
        if f"{entry}.npy" in entries:
            raise ValueError(f"{entry}.npy: got {entry} as well, wanted names that differ by more than .npy")
    with replacing(name) as file:
        write(file, entries)


def load(path: Path, /, *unnamed: Any, **objects: Any) -> dict[str, State]:
    """Read a file that `save` wrote, into the named objects if any are given.

        fastact.load("run.npz", model=model, optimizer=optimizer, rng=rng)
        model.load_state_dict(fastact.load("run.npz")["model"])       # the model alone

    Args:
        path: the file.
        **objects: the objects to load into: all that were saved, by the same names.  In a dict, the entries
            of the file replace all others.

    Returns:
        The states, a dict of arrays for each name.

    Raises:
        ValueError: the file is damaged or was not written by `save`, or an entry is missing, unexpected, or
            of the wrong shape, dtype or value.  The message names every such entry.
        TypeError: an object is not a dict or an `np.random.Generator`, and has no `load_state_dict()`; or
            `path` is not a path.

    After an error every object is as it was.

    A file of unknown origin runs no code, and nothing is extracted.  Before memory is taken for arrays,
    each has to have as many bytes as its shape and dtype need, a header of at most 10,000 bytes, and the
    shape and dtype of the entry that it is loaded into, unless that is a dict's.  All together may unpack
    to 16 MiB, or to 100 times the size of the file if that is more.
    """
    _check_named("load", unnamed)
    name = check_path(path)
    check_regular(name, os.stat(name))
    with open(name, "rb") as stream:
        try:
            states = _read(stream, objects)
            _write(objects, states)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return states


def _check_named(function: str, unnamed: tuple[Any, ...]) -> None:
    if unnamed:
        kind = type(unnamed[0]).__name__
        raise TypeError(f"{function}: got a {kind} without a name, wanted names, as in model=model")


def _read(stream: BinaryIO, objects: Mapping[str, Any]) -> dict[str, State]:
    """The states in the file; that their headers fit `objects`, if any, is checked before data is read."""
    file = Npz(stream)
    groups: dict[str, dict[str, Entry]] = {}
    for entry, header in file.entries.items():
        group, dot, key = entry.partition(".")
        if dot:
            groups.setdefault(group, {})[key] = header
        elif entry != _FORMAT:
            raise ValueError(f"has the entry {entry!r}, which fastact.save did not write")
    if objects:
        unexpected = ", ".join(sorted(groups.keys() - objects.keys()))
        if unexpected:
            raise ValueError(f"also has {unexpected}, wanted an object to load each into")
        for name, obj in objects.items():
            _check_fits(name, obj, groups.get(name, {}))
    file.check_sizes(stream)
    if _FORMAT in file.entries:
        _check_list(file.read(_FORMAT), file.entries.keys() - {_FORMAT})
    return {group: {key: file.read(f"{group}.{key}") for key in headers} for group, headers in groups.items()}


def _check_list(text: Array, found: set[str]) -> None:
    """The file has exactly the entries that `save` listed."""
    import json

    try:
        value = json.loads(str(text))
        version, listed = value["version"], set(value["entries"])
    except Exception as error:  # JSON that nests too deep raises RecursionError
        raise ValueError(f"{_FORMAT}: not a list of entries: {error}") from error
    if version != _VERSION:
        raise ValueError(f"got format version {version}, wanted {_VERSION}: another fastact wrote the file")
    faults = [f"{name}: missing" for name in sorted(listed - found)]
    faults += [f"{name}: unexpected" for name in sorted(found - listed)]
    if faults:
        raise ValueError("; ".join(faults))


def _write(objects: Mapping[str, Any], states: Mapping[str, State]) -> None:
    """Load each of `objects`; on an error, restore all of them."""
    writes = {name: _writes(name, obj, states.get(name, {})) for name, obj in objects.items()}
    undo: list[Callable[[], object]] = []
    try:
        for name, (write, restore) in writes.items():
            undo.append(restore)
            try:
                write()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    except BaseException:
        for restore in reversed(undo):
            with contextlib.suppress(Exception):  # an object that refuses states is unchanged
                restore()
        raise


def _check_name(entry: str) -> None:
    try:
        length = len(entry.encode())
    except UnicodeEncodeError:  # a lone surrogate
        length = 0
    if not 0 < length <= _NAME_BYTES or "\0" in entry:
        raise ValueError(
            f"{entry[:99]!r}: wanted a name of at most {_NAME_BYTES} bytes of UTF-8, without NUL"
        )


def _text(value: Any) -> Array:
    import json

    return np.array(json.dumps(value, default=np.ndarray.tolist))


def _state_of(name: str, obj: Any) -> Mapping[str, Array]:
    if isinstance(obj, np.random.Generator):
        return {"state": _text(obj.bit_generator.state)}
    state = obj.state_dict() if hasattr(obj, "state_dict") else obj
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{name}: got {type(obj).__name__}, wanted an object with a state_dict(), a Generator or a dict"
        )
    return state


def _check_fits(name: str, obj: Any, headers: Mapping[str, Entry]) -> None:
    """The headers of the entries fit `obj`; their values are checked later."""
    if isinstance(obj, np.random.Generator):
        if headers.keys() != {"state"}:
            raise ValueError(f"{name}: got the entries ({', '.join(headers)}), wanted (state)")
        shape, dtype = headers["state"].shape, headers["state"].dtype
        if shape or dtype.kind != "U" or dtype.itemsize > _GENERATOR_BYTES:
            kind = type(obj.bit_generator).__name__
            raise ValueError(f"{name}.state: not the state of a {kind}: got {dtype} of shape {shape}")
    elif hasattr(obj, "load_state_dict"):
        _check_headers(obj.state_dict(), headers, f"{name}.")
    elif not isinstance(obj, MutableMapping):
        raise TypeError(
            f"{name}: got {type(obj).__name__}, "
            "wanted an object with a load_state_dict(), a Generator or a dict"
        )
    elif not headers:
        raise ValueError(f"{name}: missing, or empty when saved")


def _writes(name: str, obj: Any, state: State) -> tuple[Callable[[], object], Callable[[], object]]:
    """A function that writes `state` to `obj`, and one that restores the present state of `obj`."""
    if isinstance(obj, np.random.Generator):
        bits = obj.bit_generator
        value = _generator_state(name, type(bits), state["state"])
        return partial(setattr, bits, "state", value), partial(setattr, bits, "state", bits.state)
    if hasattr(obj, "load_state_dict"):
        return partial(obj.load_state_dict, state), partial(obj.load_state_dict, obj.state_dict())
    return partial(_refill, obj, state), partial(_refill, obj, dict(obj))


def _refill(obj: MutableMapping[str, Array], state: Mapping[str, Array]) -> None:
    obj.clear()
    obj.update(state)


def _check_moving(title: str, state: Mapping[str, Any]) -> None:
    """Refuse states that draw the same number for ever, on which NumPy's rejection sampling never ends."""
    if title in ("PCG64", "PCG64DXSM") and state["inc"] % 2 == 0:
        raise ValueError(f"inc: got {state['inc']}, wanted an odd number")
    if title == "MT19937" and not (state["key"][0] >> 31 or any(state["key"][1:])):
        raise ValueError("key: got only zeros, wanted another number")


def _generator_state(name: str, kind: Callable[[], Any], text: Array) -> dict[str, Any]:
    """The state of a bit generator of class `kind`, which has to come back unchanged when it is set."""
    import json

    title = getattr(kind, "__name__", "")
    try:
        value: dict[str, Any] = json.loads(str(text))
        if value["bit_generator"] != title:
            raise ValueError(f"it belongs to a {value['bit_generator']}")
        for key, limit in {"has_uint32": 1, **_GENERATOR_LIMITS.get(title, {})}.items():
            got = value[key] if key in value else value["state"].get(key, 0)
            if type(got) is not int or not 0 <= got <= limit:
                raise ValueError(f"{key}: got {got!r}, wanted 0 to {limit}")
        _check_moving(title, value["state"])
        scratch = kind()
        scratch.state = value
        if json.loads(str(_text(scratch.state))) != value:
            raise ValueError(f"it has entries or values that a {title} cannot hold")
    except Exception as error:  # NumPy raises many types for malformed states
        raise ValueError(f"{name}.state: not the state of a {title}: {error}") from error
    return value
