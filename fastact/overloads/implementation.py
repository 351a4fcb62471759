"""From a row of the table and the types of a call to the function that Numba compiles.

The source of that function is written here, with what the types already say left out.  It checks sizes and
values, makes or takes the arrays of results, copies what a kernel cannot read, and calls the kernel.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError

from .. import backends
from ..activations import NAMES, TABLE, canonical
from ..backends import BackendName
from ..checks import LARGEST, MAX_PIECES, shown, unknown_name
from ..settings import PRECISIONS, check_precision
from . import native, support
from .table import Function

_KEYWORDS = ("negative_slope", "slope", "alpha", "approximate")  # of the activations
_LEADING = ("...", "before", "after")
_NEVER_FAIL = ("maxout", "activation", "layer_norm", "layer_norm_backward", "max_norm")  # return no status
_VARIES = object()  # an argument whose value is not known before the code runs
_LARGEST = {"float32": LARGEST["f"], "float64": LARGEST["d"]}
# The numbers among the arguments: the condition, and the words for it.  "largest" is that of the dtype.
_FINITE = ("abs({0}) <= {largest}", "a finite number, at most {largest:.3g}")
_NUMBERS = {
    "eps": ("0 <= {0} <= {largest}", "a number from 0 to {largest:.3g}"),
    "max_norm": ("0 < {0} <= {largest}", "a number above 0, at most {largest:.3g}"),
    "delta": ("0 < {0} < math.inf", "a finite number above 0"),
    "label_smoothing": ("0 <= {0} <= 1", "a number from 0 to 1"),
    "negative_slope": _FINITE,
    "alpha": _FINITE,
}
_STATUS = (
    (1, "MemoryError", "fastact: no memory for packed operands"),
    (3, "ValueError", "argmax: got an index that no piece has, wanted 0 to pieces - 1"),
    (
        4,
        "ValueError",
        "labels: got neither a class nor ignore_index, wanted 0 to classes - 1",
    ),
)


class PerBackend(dict[Any, Any]):
    """Numba's dict of what it compiled for the types of a call, with the backend in force in each key."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((backends.get_backend(), key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((backends.get_backend(), key), value)


def typing_function(function: Function) -> Callable[..., Any]:
    """What `numba.extending.overload` takes: types in, the function to compile out."""
    signature = _signature(function.public)

    def typed(*args: Any, **keywords: Any) -> Any:
        given = signature.bind(*args, **keywords)
        given.apply_defaults()
        return _Writer(function, given.arguments).implementation(signature)

    typed.__signature__ = signature  # type: ignore[attr-defined]
    return typed


def _signature(public: Callable[..., Any]) -> inspect.Signature:
    """The arguments of `public` as Numba takes them: none is keyword-only, **parameters are written out."""
    parameters: list[inspect.Parameter] = []
    for each in inspect.signature(public).parameters.values():
        names = _KEYWORDS if each.kind is each.VAR_KEYWORD else (each.name,)
        default = None if each.kind is each.VAR_KEYWORD else each.default
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters += [inspect.Parameter(name, kind, default=default) for name in names]
    return inspect.Signature(parameters)


def _constant(kind: Any) -> Any:
    """The value of an argument that is known from its type, else _VARIES."""
    if isinstance(kind, types.Omitted):
        return kind.value
    if isinstance(kind, types.NoneType):
        return None
    if isinstance(kind, types.Literal):
        return kind.literal_value
    if isinstance(kind, types.BaseTuple):
        values = tuple(_constant(each) for each in kind)
        return _VARIES if _VARIES in values else values
    return _VARIES if isinstance(kind, types.Type) else kind  # a default comes as it is


class _Writer:
    """The source of one function, for one call's types."""

    def __init__(self, function: Function, given: dict[str, Any]) -> None:
        self.function, self.given = function, given
        self.lines: list[str] = []
        self.expressions: dict[str, str] = {}  # of the kernel's arguments that are not arrays
        self.arrays: dict[str, Any] = {}  # the types of the arrays that were given
        self.known: dict[str, str] = {}  # each size, and the array that it was read from
        self.lead = -1  # how many sizes "..." stands for
        self.saves = "z"  # what the activation saves
        self.kept = True  # whether the second result is asked for
        self.out: list[Any] = []  # the types of the arrays of `out`
        self.deliveries: list[str] = []  # the lines that copy results to arrays which no kernel can write
        self.arguments = function.arguments.split()
        default = backends.get_backend()
        asked = self.literal("backend", None)
        if asked not in (None, *backends.NAMES):
            raise self.wrong(str(unknown_name("backend", asked, backends.NAMES)))
        self.backend: BackendName = asked or default
        if self.backend == "numpy":
            raise self.wrong('backend: got "numpy", wanted "c" or "numba" in nopython code')
        self.namespace: dict[str, Any] = {
            "__name__": __name__,  # of a function without a module Numba does not save the constants
            "np": np, "math": math, "support": support, "default": native.default,
            "stamped": native.stamped(native.stamp(default, self.backend)),
        }  # fmt: skip
        if self.backend == "c":
            self.namespace["kernel"] = native.c_kernel(f"fa_{function.kernel}")
        else:
            self.namespace["kernel"] = native.numba_kernel(function.kernel, len(self.arguments))

    # ---- helpers

    @staticmethod
    def wrong(message: str) -> TypingError:
        return TypingError(f"fastact: {message}")

    def refuse(self, condition: str, message: str, error: str = "ValueError") -> None:
        """Write a check: where `condition` holds, the compiled function raises."""
        self.lines += [f"if {condition}:", f"    raise {error}({message!r})"]

    def literal(self, name: str, default: Any) -> Any:
        """The value of an argument that has to be a literal; `default` where the function has no such one."""
        value = _constant(self.given.get(name, default))
        if value is _VARIES:
            raise self.wrong(f"{name}: got a variable, wanted a literal")
        return value

    def flag(self, name: str) -> bool:
        value = self.literal(name, True)
        if value is not True and value is not False:
            raise self.wrong(f"{name}: got {shown(value)}, wanted True or False")
        return bool(value)

    def array(self, name: str, kind: Any, dtype: Any = None) -> Any:
        """The type `kind` of an array, which has to be of `dtype`, or of a float type where that is None."""
        if not isinstance(kind, types.Array):
            raise self.wrong(f"{name}: got {kind}, wanted an array")
        if dtype is None:
            if kind.dtype not in (types.float32, types.float64):
                raise self.wrong(f"{name}: got dtype {kind.dtype}, wanted float32 or float64")
        elif kind.dtype != dtype:
            raise self.wrong(f"{name}: got dtype {kind.dtype}, wanted {dtype}")
        return kind

    def readable(self, kind: Any) -> bool:
        """Whether a kernel can read an array of this type as it is."""
        return kind.layout == "C" and kind.aligned and (self.backend == "c" or kind.mutable)

    def product(self, first: int, last: int) -> str:
        return " * ".join(f"lead_{i}" for i in range(first, last)) or "1"

    def axes(self, shape: str) -> list[str]:
        """The expressions for the sizes of a shape of the table."""
        lead = [f"lead_{i}" for i in range(max(self.lead, 0))]
        if shape == "slopes":
            return ["slopes"] * self.arrays["slope"].ndim
        if shape == "before after":
            return lead
        if shape == "before pieces after":
            ways = zip([*lead, "0"], ["0", *lead], range(self.lead + 1), strict=True)
            return [f"({a} if {i} < at else pieces if {i} == at else {b})" for a, b, i in ways]
        return [axis for name in shape.split() for axis in (lead if name == "..." else [name])]

    # ---- the parts of the function

    def implementation(self, signature: inspect.Signature) -> Any:
        self.read_types()
        self.check_sizes()
        if "code" in self.arguments:
            self.check_activation()
        self.check_numbers()
        results = self.make_results()
        self.copy_operands()
        self.call(results)
        empty = inspect.Parameter.empty
        arguments = ", ".join(
            each.name if each.default is empty else f"{each.name}={each.default!r}"
            for each in signature.parameters.values()
        )
        body = "\n    ".join(["stamped()", *self.lines])
        exec(f"def {self.function.public.__name__}({arguments}):\n    {body}", self.namespace)
        return self.namespace[self.function.public.__name__]

    def read_types(self) -> None:
        """The arrays that were given are arrays of one dtype; the first argument's."""
        dtype = None
        for name in [name for name in self.given if name in self.function.inputs]:
            kind = self.given[name]
            if self.function.inputs[name].endswith(" or None") and _constant(kind) is None:
                continue
            if name == "labels":
                if not isinstance(kind, types.Array) or not isinstance(kind.dtype, types.Integer):
                    raise self.wrong(f"labels: got {kind}, wanted an array of integers")
            elif name == "argmax":
                self.array(name, kind, types.uint8)
            else:
                dtype = self.array(name, kind, dtype).dtype
            self.arrays[name] = kind
        self.dtype = dtype
        self.namespace["DTYPE"] = np.dtype(str(dtype)).type
        self.largest = _LARGEST[str(dtype)]

    def check_sizes(self) -> None:
        """Read the sizes from the arrays, and write the checks that the arrays agree."""
        for name, shape in self.function.inputs.items():
            if name in self.arrays:
                self.check_shape(name, shape.removesuffix(" or None"))
        if "pieces" in self.arguments:
            if "pieces" in self.given:
                self.integer("pieces")
            self.refuse(
                f"not 1 <= pieces <= {MAX_PIECES}", f"pieces: got too few or many, wanted 1 to {MAX_PIECES}"
            )
            self.lines.append("pieces = np.int64(pieces)")
        rows = self.lead
        if self.function.kernel in ("activation", "activation_backward"):
            sloped = "slope" in self.given and _constant(self.given["slope"]) is not None
            rows = max(self.lead - 1, 0) if sloped else 0
            self.lines.append(f"features = {self.product(rows, self.lead)}")
        elif "features" in self.known:
            self.refuse(
                "features == 0", "x: got no features, wanted (..., features) with at least one feature"
            )
        elif "classes" in self.known:
            self.refuse(
                f"classes == 0 and {self.product(0, rows)} > 0", "logits: got no classes, wanted at least one"
            )
        if "rows" in self.arguments:
            self.lines.append(f"rows = {self.product(0, rows)}")
        if "size" in self.arguments:
            self.lines.append(f"size = {self.product(0, rows)}")

    def check_shape(self, name: str, shape: str) -> None:
        """Read the sizes of one array that are not known yet, and write the check of the others."""
        ndim, sizes = self.arrays[name].ndim, shape.split()
        named = [size for size in sizes if size not in _LEADING]
        lead = ndim - len(named)
        expected = 0 if named == sizes else lead if self.lead < 0 else self.lead
        if lead < 0 or lead != expected:
            raise self.wrong(f"{name}: got {ndim} axes, wanted ({', '.join(sizes)})")
        axes = [f"{name}.shape[{i}]" for i in range(ndim)]
        if "before" in sizes:
            self.check_axis(lead + 1)
            if "pieces" in sizes:
                axes = [f"{name}.shape[{i} if {i} < at else {i + 1}]" for i in range(lead)]
                axes.append(f"{name}.shape[at]")
        if named != sizes:
            self.lead = lead
            named = [*(f"lead_{i}" for i in range(lead)), *named]
        conditions: list[str] = []
        others: dict[str, None] = {}
        for size, axis in zip(named, axes, strict=True):
            if size in self.known or size.isdigit():
                others |= {self.known.get(size, ""): None}
                conditions.append(f"{axis} != {size}")
            else:
                self.known[size] = name
                self.lines.append(f"{size} = {axis}")
        if conditions:
            message = f"{name}: got another shape, wanted ({', '.join(sizes)})"
            message += " to match " * any(others) + " and ".join(filter(None, others))
            self.refuse(" or ".join(conditions), message)

    def check_axis(self, ndim: int) -> None:
        """`at`, the place of the axis of pieces among `ndim`, and the sizes before and after it."""
        if "at" in self.known:
            return
        self.known["at"] = "axis"
        self.integer("axis")
        self.refuse(
            f"not {-ndim} <= axis < {ndim}", f"axis: got another number, wanted {-ndim} to {ndim - 1}"
        )
        self.lines.append(f"at = np.int64(axis + {ndim} if axis < 0 else axis)")

    def integer(self, name: str) -> None:
        kind = self.given[name]
        value = _constant(kind)
        kind = types.unliteral(kind) if value is _VARIES or isinstance(kind, types.Type) else kind
        if isinstance(value, bool) or (not isinstance(value, int) and not isinstance(kind, types.Integer)):
            raise self.wrong(f"{name}: got {kind}, wanted an int")

    def check_number(self, name: str) -> None:
        """Write the check of a number among the arguments, which is then a float64 of its own name."""
        kind, value = self.given[name], _constant(self.given[name])
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number and not isinstance(kind, (types.Integer, types.Float)):
            raise self.wrong(f"{name}: got {kind}, wanted a number")
        condition, words = (text.format(name, largest=self.largest) for text in _NUMBERS[name])
        self.refuse(f"not {condition}", f"{name}: got another number, wanted {words}")
        self.expressions[name] = f"np.float64({name})"

    def check_activation(self) -> None:
        """The activation's code and parameter, and the check of its slope."""
        name: Any = self.function.activation or self.literal("activation", None)
        if canonical(name) not in NAMES:
            raise self.wrong(str(unknown_name("activation", name, NAMES)))
        name = canonical(name)
        row = TABLE[name]
        for key in _KEYWORDS:
            if key not in row.defaults and _constant(self.given.get(key)) is not None:
                raise self.wrong(f"{key}: {name} takes {', '.join(row.defaults) or 'no parameter'}")
        ((key, default),) = row.defaults.items() or (("", 0.0),)
        given = self.given.get(key)
        self.expressions |= {"parameter": "0.0", "slope": "None", "slopes": "0"}
        if name == "prelu":
            self.check_slope(given)
        elif name == "gelu":
            approximate = default if given is None else self.literal(key, default)
            if approximate not in ("none", "tanh"):
                raise self.wrong(f'approximate: got {shown(approximate)}, wanted "none" or "tanh"')
            row = TABLE["gelu_tanh"] if approximate == "tanh" else row
        elif key:
            if _constant(given) is None:
                self.expressions["parameter"] = repr(default)
            else:
                self.check_number(key)
                self.expressions["parameter"] = self.expressions[key]
        self.saves = row.saves
        self.expressions["code"] = str(row.code)

    def check_slope(self, kind: Any) -> None:
        self.arrays["slope"] = self.array("slope", kind, self.dtype)
        features = "out_features" if "out_features" in self.known else "features"
        if kind.ndim > 1:
            raise self.wrong(f"slope: got {kind.ndim} axes, wanted (), (1,) or ({features},)")
        if kind.ndim == 1:
            self.refuse(
                f"slope.shape[0] != 1 and slope.shape[0] != {features}",
                f"slope: got another shape, wanted (), (1,) or ({features},)",
            )
        self.lines.append("slopes = slope.size")
        self.expressions |= {"slope": "slope_c", "slopes": "slopes"}

    def check_numbers(self) -> None:
        for name in ("eps", "max_norm", "delta", "label_smoothing"):
            if name in self.given:
                self.check_number(name)
        if "ignore_index" in self.given:
            self.integer("ignore_index")
            self.refuse(f"ignore_index > {2**63 - 1}", "ignore_index: got another number, wanted an int64")
            self.expressions["ignore_index"] = "np.int64(ignore_index)"
        if "labels" in self.arrays and self.arrays["labels"].dtype == types.uint64:
            words = "labels: got one beyond int64, wanted 0 to classes - 1"
            self.refuse("labels.size > 0 and labels.max() > np.uint64(2**63 - 1)", words)
        if "accumulate" in self.given:
            kind = self.given["accumulate"]
            if not isinstance(kind, (bool, types.Boolean, types.BooleanLiteral)) and not isinstance(
                _constant(kind), bool
            ):
                raise self.wrong(f"accumulate: got {kind}, wanted True or False")
        self.expressions["accumulate"] = "1 if accumulate else 0" if "accumulate" in self.given else "0"
        if self.function.precision:
            tier = self.literal("precision", None)
            try:
                index = "default(1)" if tier is None else str(PRECISIONS.index(check_precision(tier)))
            except ValueError as error:
                raise self.wrong(str(error)) from None
            self.expressions["precision"] = index

    def wanted(self) -> dict[str, bool]:
        """Which results the kernel shall compute."""
        names = [name for name in self.function.results if name != "grad_slope" or "slope" in self.arrays]
        wants = dict.fromkeys(names, True)
        if self.function.keep:
            self.kept = self.flag(self.function.keep)
            wants[names[1]] = self.kept and self.saves == "z"
        needs = self.literal("needs", None)
        if needs is not None:
            if not isinstance(needs, tuple) or len(needs) != len(names) or not {*map(type, needs)} <= {bool}:
                raise self.wrong(
                    f"needs: got {shown(needs)}, wanted {len(names)} booleans for ({', '.join(names)})"
                )
            wants = dict(zip(names, needs, strict=True))
        return wants

    def given_results(self, names: list[str]) -> list[str | None]:
        """The expressions of the arrays of `out`, whose types become known; None where there is none."""
        kind = self.given.get("out")
        if _constant(kind) is None:
            return [None] * len(names)
        if isinstance(kind, types.Array) and len(names) == 1:
            self.out = [kind]
            return ["out"]
        if not isinstance(kind, types.BaseTuple) or len(kind) != len(names):
            raise self.wrong(f"out: got {kind}, wanted a tuple ({', '.join(names)})")
        self.out = list(kind)
        return [None if _constant(each) is None else f"out[{i}]" for i, each in enumerate(kind)]

    def make_results(self) -> dict[str, bool]:
        """Write the checks of `out`, then the allocations."""
        wants = self.wanted()
        names = list(wants)
        given = self.given_results(names)
        if self.function.keep and self.saves == "y" and given[1] is not None:
            label, same = f"out[1] ({names[1]})", "the activation saves y, wanted None or out[0]"
            if given[0] is None or self.out[0] != self.out[1]:
                raise self.wrong(f"{label}: {same}")
            self.refuse("not support.same_memory(out[0], out[1])", f"{label}: {same}")
        allocations: list[str] = []
        earlier: list[tuple[str, Any]] = []
        for i, (name, want) in enumerate(wants.items()):
            if not want:
                self.expressions[name] = "None"
                continue
            axes = self.axes(self.function.results[name])
            dtype = "np.uint8" if name == "argmax" else "DTYPE"
            label = f"out[{i}] ({name})"
            if given[i] is None:
                if "accumulate" in self.given and name not in ("grad_x", "grad_z"):
                    message = f"accumulate: got True and no {label}, wanted an array to add to"
                    self.refuse("accumulate", message)
                sizes = "".join(f"{axis}, " for axis in axes)
                allocations.append(f"{name}_r = {name}_c = np.empty(({sizes}), {dtype})")
            else:
                kind = self.array(label, self.out[i], types.uint8 if name == "argmax" else self.dtype)
                if kind.ndim != len(axes):
                    raise self.wrong(f"{label}: got {kind.ndim} axes, wanted {len(axes)}")
                if not kind.mutable:
                    raise self.wrong(f"{label}: got a read-only array, wanted a writeable one")
                self.lines.append(f"{name}_r = {given[i]}")
                unequal = [f"{name}_r.shape[{j}] != {axis}" for j, axis in enumerate(axes)]
                if unequal:
                    self.refuse(" or ".join(unequal), f"{label}: got another shape than the result has")
                for other, other_kind in self.arrays.items():
                    may_equal = i == 0 and other in self.function.in_place and other_kind.ndim == kind.ndim
                    self.refuse_overlap(f"{name}_r", kind, other, other_kind, may_equal, label, "an input")
                for other, other_kind in earlier:
                    self.refuse_overlap(f"{name}_r", kind, other, other_kind, False, label, "another of out")
                earlier.append((f"{name}_r", kind))
                allocations.append(f"{name}_c = {self.copied(f'{name}_r', kind)}")
                if not self.readable(kind):
                    self.deliveries.append(f"support.copy({name}_c, {name}_r)")
            self.expressions[name] = f"{name}_c"
        self.lines += allocations
        return wants

    def refuse_overlap(
        self, array: str, kind: Any, other: str, other_kind: Any, may_equal: bool, label: str, what: str
    ) -> None:
        """Write the check that an array of `out` does not overlap another array."""
        if kind.layout == other_kind.layout == "C":
            condition = f"support.contiguous_overlap({array}, {other})"
        else:  # an array of no axes is contiguous
            array, other = (
                f"{a}.reshape(1)" if k.ndim == 0 else a for a, k in ((array, kind), (other, other_kind))
            )
            condition = f"support.overlap({array}, {other})"
        if may_equal:
            condition = f"not support.same_memory({array}, {other}) and {condition}"
        self.refuse(condition, f"{label}: got an array that overlaps {what}, wanted a separate one")

    def copied(self, array: str, kind: Any) -> str:
        """The expression of an array that a kernel can read: `array` itself if it can, else a copy."""
        if array == "labels" and kind.dtype != types.int64:
            return "labels.copy().astype(np.int64)"  # astype alone keeps Fortran's order
        return array if self.readable(kind) else f"{array}.copy()"

    def copy_operands(self) -> None:
        for name, kind in self.arrays.items():
            self.lines.append(f"{name}_c = {self.copied(name, kind)}")
            self.expressions[name] = f"{name}_c"
        if self.function.kernel == "max_norm":
            kind = self.arrays["weight"]
            if not kind.mutable:
                raise self.wrong("weight: got a read-only array, wanted a writeable one")
            if not self.readable(kind):
                self.deliveries.append("support.copy(weight_c, weight)")

    def call(self, wants: dict[str, bool]) -> None:
        """Write the call of the kernel, and what follows it."""
        if "outer" in self.arguments:
            for name, side in (("outer", "<"), ("inner", ">=")):
                terms = [f"(lead_{i} if {i} {side} at else 1)" for i in range(self.lead)]
                self.lines.append(f"{name} = {' * '.join(terms) or '1'}")
        if self.function.loss == "stored":
            self.lines.append("loss_c = np.empty(1)")
            self.expressions["loss"] = "loss_c"
        absent = ("bias", "weight", "grad_slope")  # where they are not given
        arguments = [
            self.expressions.get(name, "None" if name in absent else name) for name in self.arguments
        ]
        if self.backend == "c":
            dtype = "0" if self.dtype == types.float32 else "1"
            after = ["default(0)", *([self.expressions["precision"]] if self.function.precision else [])]
            arguments = [dtype, *arguments, *after]
        else:
            arguments = [self.flattened(*each) for each in zip(self.arguments, arguments, strict=True)]
        call = f"kernel({', '.join(arguments)})"
        if self.function.loss == "returned":
            self.lines.append(f"loss = {call}")
        elif self.function.kernel in _NEVER_FAIL:
            self.lines.append(call)
        else:
            self.lines.append(f"status = {call}")
            for status, error, message in _STATUS:
                self.refuse(f"status == {status}", message, error)
        if self.function.loss == "stored":
            self.lines.append("loss = loss_c[0]")
        if self.function.finish:
            flat = ", ".join(f"{name}_c.reshape({name}_c.size)" for name in ("y", "target", "grad"))
            self.lines.append(f"loss = support.{self.function.finish}({flat}, loss)")
        self.lines += self.deliveries
        returned = [f"{name}_r" if want else "None" for name, want in wants.items()]
        if self.function.loss:
            returned.insert(0, "loss")
        if self.function.keep and self.kept and not wants[list(wants)[1]]:
            returned[1] = "y_r"
        if returned:
            self.lines.append(f"return {', '.join(returned)}")

    def flattened(self, name: str, expression: str) -> str:
        """An argument of a Numba kernel: arrays have rows, and an empty array stands for None."""
        shape = {**self.function.inputs, **self.function.results, "slope": "slopes"}.get(name)
        if shape is None:
            return expression
        shape = shape.removesuffix(" or None")
        if shape == "..." and "size" in self.arguments:
            shape = "size"
        elif shape == "..." and "features" in self.arguments:
            shape = "... features"
        for marker, size in (("...", "rows"), ("before", "outer"), ("after", "inner")):
            shape = shape.replace(marker, size)
        axes = ", ".join(shape.split())
        if expression != "None":
            return f"{expression}.reshape({axes})"
        dtype = "np.uint8" if name == "argmax" else "DTYPE"
        return f"np.empty(({'0, ' * len(shape.split())}), {dtype})"
