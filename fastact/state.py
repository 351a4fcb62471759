"""Checkpoints: the state of models, optimisers and random generators, in one .npz file without pickle.

A state is a flat dict of names and arrays.  In a file, an entry is called `<object>.<name>`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import numpy as np

# json and zipfile are imported where they are used: `import fastact` is to be quick.

Array = np.ndarray[Any, Any]
State: TypeAlias = "dict[str, Array]"


def check_entries(expected: Mapping[str, Array], state: Mapping[str, Array], prefix: str = "") -> None:
    """`state` has the names, shapes and dtypes of `expected`; ValueError names each that differs.

    TypeError where it is no mapping.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: got {type(state).__name__}, wanted a dict of arrays")
    faults = [f"{prefix}{name}: missing" for name in expected if name not in state]
    for name, array in state.items():
        if name not in expected:
            faults.append(f"{prefix}{name}: unexpected")
            continue
        got, wanted = np.asarray(array), expected[name]
        if got.shape != wanted.shape:
            faults.append(f"{prefix}{name}: got shape {got.shape}, wanted {wanted.shape}")
        elif got.dtype != wanted.dtype:
            faults.append(f"{prefix}{name}: got dtype {got.dtype}, wanted {wanted.dtype}")
    if faults:
        raise ValueError("; ".join(faults))


def save(path: str | os.PathLike[str], /, **objects: Any) -> None:
    """Write the state of each named object to one .npz file.

        fastact.save("run.npz", model=model, optimizer=optimizer, rng=rng)

    The file appears whole or not at all: it is written beside `path` and then renamed.

    Args:
        path: where to write; what is there is replaced.
        **objects: models, optimisers, or whatever else has a `state_dict()`; `np.random.Generator`s;
            dicts of arrays.  A generator that several of them draw from is saved once, by its own name.

    Raises:
        TypeError: an object is none of these, or its state holds what is no array of numbers or text.
        ValueError: a name has a dot in it.
    """
    entries: State = {}
    for group, obj in objects.items():
        if "." in group:
            raise ValueError(f"{group}: wanted a name without a dot")
        for name, array in _state_of(group, obj).items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{group}.{name}: got {type(array).__name__}, wanted an array")
            if array.dtype.hasobject:
                raise TypeError(f"{group}.{name}: got an array of objects, wanted numbers or text")
            entries[f"{group}.{name}"] = array
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **entries)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str], /, **objects: Any) -> dict[str, State]:
    """Read a file that `save` wrote, into the named objects if any are given.

        fastact.load("run.npz", model=model, optimizer=optimizer, rng=rng)
        model.load_state_dict(fastact.load("run.npz")["model"])       # the model alone

    Args:
        path: the file.
        **objects: what to load into: all that was saved, by the same names.  A dict gets what is in the file,
            whatever it held.

    Returns:
        The states, a dict of arrays for each name.

    Raises:
        ValueError: the file is no such file, or has missing, unexpected, misshapen or otherwise wrong
            entries, which the message names.  Every object is then as it was.
        TypeError: an object has no `load_state_dict()` and is no `np.random.Generator` or dict.
    """
    groups = _read(path)
    if not objects:
        return groups
    unexpected = ", ".join(sorted(groups.keys() - objects.keys()))
    if unexpected:
        raise ValueError(f"{path} also has {unexpected}: give what to load it into")
    writes = [_check(name, obj, groups.get(name, {})) for name, obj in objects.items()]
    for write in writes:
        write()
    return groups


def _read(path: str | os.PathLike[str]) -> dict[str, State]:
    import zipfile
    import zlib

    # zipfile raises RuntimeError for what it takes for encryption or an unknown compression
    damage = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
    with open(path, "rb") as stream:
        try:
            if not zipfile.is_zipfile(stream):
                raise ValueError("it is no zip archive, or not the whole of one")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            entries = {name: file[name] for name in file.files}
        except damage as error:
            raise ValueError(f"{path}: not a readable .npz file: {error}") from error
    groups: dict[str, State] = {}
    for entry, array in entries.items():
        group, dot, name = entry.partition(".")
        if not dot:
            raise ValueError(f"{path} has the entry {entry!r}, which fastact.save did not write")
        groups.setdefault(group, {})[name] = array
    return groups


def _state_of(name: str, obj: Any) -> Mapping[str, Array]:
    if isinstance(obj, np.random.Generator):
        import json

        return {"state": np.array(json.dumps(obj.bit_generator.state, default=np.ndarray.tolist))}
    if hasattr(obj, "state_dict"):
        return obj.state_dict()  # type: ignore[no-any-return]
    if isinstance(obj, Mapping):
        return obj
    raise TypeError(
        f"{name}: got {type(obj).__name__}, wanted something with a state_dict(), a Generator or a dict"
    )


def _check(name: str, obj: Any, state: State) -> Callable[[], None]:
    """Check that `state` fits `obj`; return the function that writes it there."""
    if isinstance(obj, np.random.Generator):
        return _check_generator(name, obj, state)
    if hasattr(obj, "load_state_dict"):
        check_entries(obj.state_dict(), state, f"{name}.")
        return lambda: obj.load_state_dict(state)
    if isinstance(obj, MutableMapping):
        return _check_dict(name, obj, state)
    raise TypeError(
        f"{name}: got {type(obj).__name__}, wanted something with a load_state_dict(), a Generator or a dict"
    )


def _check_dict(name: str, obj: MutableMapping[str, Array], state: State) -> Callable[[], None]:
    if not state:
        raise ValueError(f"{name}: missing, or empty when it was saved")

    def write() -> None:
        obj.clear()
        obj.update(state)

    return write


def _check_generator(name: str, rng: np.random.Generator, state: State) -> Callable[[], None]:
    import json

    if state.keys() != {"state"}:
        raise ValueError(f"{name}: got the entries ({', '.join(state)}), wanted (state)")
    bits = rng.bit_generator
    kind = type(bits)
    try:
        value = json.loads(str(state["state"]))
        if value["bit_generator"] != kind.__name__:
            raise ValueError(f"it is of a {value['bit_generator']}")
        kind().state = value  # refuses what is malformed
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"{name}.state: not the state of a {kind.__name__}: {error}") from error

    def write() -> None:
        bits.state = value

    return write
