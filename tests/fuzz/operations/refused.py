"""Invalid calls: each has to raise TypeError or ValueError before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, Option, Results
from ..draw import Array, Draw
from . import elementwise, losses, products

_OPERATIONS = {
    name: make
    for module in (products, elementwise, losses)
    for name, (make, _) in module.OPERATIONS.items()
    if not name.startswith(("custom", "matmul", "window"))
}
# An array of one more axis does not fit these, whatever the others are.
_SHAPED = ("weight", "bias", "grad_y", "saved", "argmax", "target", "labels")


def _spoil_array(draw: Draw, name: str, array: Array) -> Any:
    """Something that the argument cannot be."""
    kinds: list[Callable[[], Any]] = [
        lambda: array.tolist(),
        lambda: np.ma.masked_array(array),
        lambda: array.astype(np.complex64),
        lambda: array.astype(np.float16),
        lambda: array.astype(object),
        lambda: array.astype(array.dtype.newbyteorder()) if array.dtype.kind == "f" else array.astype("S3"),
        lambda: memoryview(np.ascontiguousarray(array)),
    ]
    if name in _SHAPED:
        kinds += [lambda: array[np.newaxis], lambda: np.zeros((3, 1, 2, *array.shape), array.dtype)]
    return draw.choice(kinds)()


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _spoil_keyword(draw: Draw, case: Case) -> dict[str, Any]:
    """A keyword that the function refuses."""
    choices: list[dict[str, Any]] = [{"no_such_keyword": 1}]
    option = case.options[0]
    if "precision" in option:
        choices += [{"precision": "higher"}, {"precision": 1}, {"backend": "fortran"}]
    if "axis" in option:
        choices += [{"axis": 9}, {"axis": 0.5}]
    if "return_argmax" in option:
        choices += [{"return_argmax": 2}, {"return_argmax": None}]
    if "activation" in option:
        choices += [{"activation": "rely"}, {"activation": None}]
    if any("needs" in other for other in case.options):
        choices += [{"needs": (True,)}, {"needs": (1, 0, 1)}, {"accumulate": "yes"}, {"accumulate": True}]
    if "eps" in option:
        choices += [{"eps": -1.0}, {"eps": float("nan")}, {"eps": None}]
    if "label_smoothing" in option:
        choices += [{"label_smoothing": 1.5}, {"ignore_index": 0.5}]
    if "delta" in option:
        choices += [{"delta": 0.0}, {"delta": float("inf")}]
    return dict(draw.choice(choices))


def refused(draw: Draw) -> Case:
    name = draw.choice(tuple(_OPERATIONS))
    case = _OPERATIONS[name](draw)
    arrays = {n: a for n, a in case.inputs.items() if a is not None}
    kind = draw.choice(("array", "array", "keyword", "out", "overlap", "value"))
    option: dict[str, Any] = dict(case.options[0])
    changed: dict[str, Any] = {}
    spoil_out: Callable[[Array], Any] | None = None
    pieces = case.inputs["weight"].shape[1] if name == "linear_maxout_backward" else option.get("pieces", 256)  # type: ignore[union-attr]
    classes = arrays["logits"].shape[-1] if "labels" in arrays else 0
    argmax, labels = arrays.get("argmax"), arrays.get("labels")
    if kind == "value" and argmax is not None and argmax.size and pieces < 256:
        changed["argmax"] = argmax.copy()
        changed["argmax"].flat[int(draw.rng.integers(argmax.size))] = draw.choice((pieces, 255))
    elif kind == "value" and labels is not None and labels.size:
        changed["labels"] = labels.copy()
        changed["labels"].flat[int(draw.rng.integers(labels.size))] = draw.choice((classes, -1, 2**40))
    elif kind == "out" and case.results:
        spoil_out = draw.choice(
            (
                lambda out: out.astype(np.int16),
                lambda out: out[np.newaxis],
                _read_only,
                lambda out: out.tolist() if out.size else 0,
            )
        )
    elif kind == "overlap" and case.results and not case.in_place:
        first = next(iter(arrays))
        size = max(arrays[first].nbytes, 8 * int(np.prod(case.results[0].shape)))
        if arrays[first].size and np.prod(case.results[0].shape):
            buffer = np.zeros(size, np.uint8)
            changed[first] = (
                buffer[: arrays[first].nbytes].view(arrays[first].dtype).reshape(arrays[first].shape)
            )
            changed[first][...] = arrays[first]
            shape, dtype = case.results[0].shape, np.dtype(case.results[0].dtype)
            same = buffer[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            spoil_out = lambda out: same  # noqa: E731
    if not changed and spoil_out is None:
        if kind == "keyword" or not arrays:
            option |= _spoil_keyword(draw, case)
        else:
            spoilt = draw.choice(tuple(arrays))
            changed[spoilt] = _spoil_array(draw, spoilt, arrays[spoilt])

    def call(out: Any = None, **inputs: Any) -> Any:
        given = out if isinstance(out, tuple) else (out,) * len(case.results)
        given = tuple(
            np.empty(result.shape, result.dtype) if array is None else array
            for array, result in zip(given, case.results, strict=True)
        )
        before = [array.tobytes() for array in given]
        keywords: dict[str, Any] = dict(option)
        if case.results:
            passed: Any = given if spoil_out is None else (spoil_out(given[0]), *given[1:])
            if name == "linear_activation" and not keywords.get("return_saved"):
                passed = (passed[0], None)
            keywords["out"] = passed if len(passed) > 1 else passed[0]
            if keywords.get("accumulate") is True:  # there is nothing to add to
                keywords["out"] = None
        try:
            case.function(**inputs | changed, **keywords)
        except (TypeError, ValueError):
            pass
        else:
            raise AssertionError(f"{name} ({kind}): an invalid call was not refused: {what()}")
        if [array.tobytes() for array in given] != before:
            raise AssertionError(f"{name} ({kind}): a refused call wrote to an array of out: {what()}")
        return ()

    def what() -> str:
        return f"{kind}, {', '.join(changed) or option}"

    def check(option: Option, results: Results, backend: str) -> None:
        pass

    return Case(call, case.inputs, check, case.results, work=500_000)


OPERATIONS = {"refused": (refused, 4.0)}
