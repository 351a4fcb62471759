"""A module's forward as a graph, and the facts that the graph was specialised on.

`record` runs a forward once on proxies of `torch.fx`, with a stand-in for `self` that notes what is read.
It refuses a forward whose graph could differ from the forward itself: one that sets attributes, catches
errors, makes tensors, reads what can change unseen, or branches on a value of its input.
"""

from __future__ import annotations

import dis
import functools
import inspect
import math
import operator
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.fx.proxy import Attribute, GraphAppendingTracer, Proxy
from torch.nn import functional as F
from torch.nn.modules import container
from torch.overrides import get_overridable_functions

MISSING: Any = object()
_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device)  # values that never change
# Those of Python's own functions that read nothing but their arguments, and refuse a proxy.
_BUILTINS: tuple[Any, ...] = (abs, all, any, bool, dict, enumerate, float, getattr, int, len, list, map, max)
_BUILTINS += (min, range, reversed, sorted, sum, tuple, zip)
_SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
# Methods of a module's class on which a stand-in for the module relies.
_USUAL = {
    "__getattribute__": inspect.getattr_static(object, "__getattribute__"),
    "__getattr__": inspect.getattr_static(nn.Module, "__getattr__"),
    "__init_subclass__": inspect.getattr_static(object, "__init_subclass__"),
}
# What an instruction of a forward does, for those that a graph does not hold.
_REFUSED = {
    "STORE_ATTR": "sets an attribute",
    "DELETE_ATTR": "deletes an attribute",
    "STORE_GLOBAL": "sets a global variable",
    "DELETE_GLOBAL": "deletes a global variable",
    "STORE_SUBSCR": "assigns to an item",
    "STORE_SLICE": "assigns to a slice",
    "DELETE_SUBSCR": "deletes an item",
    "IMPORT_NAME": "imports a module",
    "LOAD_BUILD_CLASS": "defines a class",
    "SETUP_FINALLY": "has a try or a with statement",
    "SETUP_WITH": "has a try or a with statement",
    "BEFORE_WITH": "has a try or a with statement",
    "PUSH_EXC_INFO": "has a try or a with statement",
    "MATCH_CLASS": "has a match statement",
}


# Methods that change the shape of a tensor; a graph may read shapes earlier than the forward does.
_RESHAPES: tuple[str, ...] = ("as_strided_", "resize_", "resize_as_", "set_", "squeeze_", "swapaxes_")
_RESHAPES += ("swapdims_", "t_", "transpose_", "unsqueeze_")


class Untraceable(Exception):
    """Why a forward has no graph that always does what the forward does."""


class Facts:
    """What a recorded forward read: it takes the same course as long as all of this stays the same."""

    def __init__(self) -> None:
        self.globals: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        self.modules: dict[tuple[str, ...], ModuleFacts] = {}

    def note_global(self, names: dict[str, Any], name: str, value: Any) -> None:
        self.globals[id(names), name] = names, name, value

    def hold(self, module: Any) -> bool:
        """Whether a module, and what it reads besides itself, is as it was recorded."""
        for names, name, value in self.globals.values():
            if names.get(name, MISSING) is not value:
                return False
        for path, facts in self.modules.items():
            part = module
            for name in path:
                part = part._modules.get(name)
                if part is None:
                    return False
            if not facts.hold(part):
                return False
        return True


class ModuleFacts:
    """What was read of one module.

    Attributes:
        kind: its class.
        own: the values of attributes in the instance.
        shared: those in the class.
        tensors: the names of parameters and buffers, and whether there was one; else it was None.
        children: the same of child modules.
        order: the names of all children, where the module was iterated over.
    """

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.own: dict[str, Any] = {}
        self.shared: dict[str, Any] = {}
        self.tensors: dict[str, bool] = {}
        self.children: dict[str, bool] = {}
        self.order: list[str] | None = None

    def hold(self, module: Any) -> bool:
        kind, own = self.kind, module.__dict__
        if type(module) is not kind:
            return False
        for name, value in self.own.items():
            now = own.get(name, MISSING)
            if now is not value and (type(now) is not type(value) or now != value):
                return False
        for name, value in self.shared.items():
            if name in own or getattr(kind, name, MISSING) is not value:
                return False
        for name, present in self.tensors.items():
            if name in own or (_tensor(own, name) is not None) is not present:
                return False
        children = own["_modules"]
        for name, present in self.children.items():
            if name in own or isinstance(children.get(name), nn.Module) is not present:
                return False
        return self.order is None or list(children) == self.order


def _tensor(own: dict[str, Any], name: str) -> Any:
    tensor = own["_parameters"].get(name)
    return own["_buffers"].get(name) if tensor is None else tensor


class Trace(NamedTuple):
    """The graph of a forward.

    Attributes:
        graph: with a placeholder for each required argument first.
        inputs: how many those are.
        defaults: the other arguments, which had these values.
        positions: how many of those may be given in order.
        facts: what it depends on.
    """

    graph: fx.Graph
    inputs: int
    defaults: dict[str, Any]
    positions: int
    facts: Facts


def record(module: nn.Module) -> Trace:
    """The graph of a call of `module` with its required arguments, all of them tensors and given in order.

    Children are called, not entered.

    Raises:
        Untraceable: with the reason.
    """
    try:
        return _record(module, _Tracer())
    except Untraceable:
        raise
    except Exception as error:  # of any kind, since the forward is any code
        line = str(error).partition("\n")[0]
        raise Untraceable(f"torch.fx does not trace: {line or type(error).__name__}") from error


def _record(module: nn.Module, tracer: _Tracer) -> Trace:
    forward = type(module).forward
    if not isinstance(forward, types.FunctionType):
        raise Untraceable("is not a function")
    tracer.scan(forward)
    tracer.facts.modules[()] = ModuleFacts(type(module))
    placeholders: list[Proxy] = []
    defaults: dict[str, Any] = {}
    positions, takes_any = 0, False
    for name, parameter in list(inspect.signature(forward).parameters.items())[1:]:
        takes_any |= parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is not parameter.empty:
            defaults[name] = parameter.default
            positions += parameter.kind is not parameter.KEYWORD_ONLY
        elif parameter.kind is parameter.KEYWORD_ONLY:
            raise Untraceable("needs a keyword")
        else:
            placeholders.append(tracer.create_proxy("placeholder", name, (), {}))
    if not placeholders:
        raise Untraceable("takes no input")
    result = forward(tracer.stand_in(module, ()), *placeholders)
    tracer.create_node("output", "output", (tracer.create_arg(result),), {})
    tracer.check_stars()
    positions = 0 if takes_any else positions
    return Trace(tracer.graph, len(placeholders), defaults, positions, tracer.facts)


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


@functools.cache
def _allowed() -> frozenset[int]:
    """The ids of PyTorch's functions of tensors, which a proxy turns into nodes, and of what is constant.

    Functions that make tensors, draw numbers or read the state of PyTorch are not among them.
    """
    functions = [each for group in get_overridable_functions().values() for each in group]
    functions += [F.hardswish, F.hardsigmoid, torch.rand_like, torch.randn_like]  # which the list lacks
    # False at each call that a graph is for
    functions += [torch.jit.is_scripting, torch.jit.is_tracing, torch.compiler.is_compiling]
    return frozenset(id(each) for each in functions if not isinstance(each, type))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, dict):
        yield from _leaves(tuple(value.values()))
    else:
        yield value


# ---- proxies: as those of torch.fx, and also x += y, a, b = x and f(*x, y)


class _Operations:
    """What a proxy does besides: each in-place operator is one, and iterating it makes a node."""

    def __getattr__(self, name: str) -> Any:
        return _Attribute(self, name)

    def __len__(self) -> int:
        raise TypeError("the length of a value that depends on its input")  # which a list.extend() ignores

    def __iter__(self: Any) -> Iterator[Any]:
        frame: Any = sys._getframe(1)
        instructions = list(dis.get_instructions(frame.f_code))
        place = next(i for i, each in enumerate(instructions) if each.offset >= frame.f_lasti)
        here = instructions[place]
        if here.opname == "UNPACK_SEQUENCE":
            values = self.tracer.create_proxy("call_function", unpack, (self, here.argval), {})
            return iter([values[i] for i in range(here.argval)])
        call = place if here.opname == "CALL_FUNCTION_EX" else len(instructions)
        if here.opname == "LIST_EXTEND":  # the call that gets the list as a tuple
            call = 1 + next(
                (i for i in range(place, len(instructions)) if _makes_tuple(instructions[i])), place
            )
        offsets = []
        while call < len(instructions) and instructions[call].opname in _CALLS:
            offsets.append(instructions[call].offset)
            call += 1
        if not offsets:
            raise Untraceable("iterates over a value that depends on its input")
        return iter([self.tracer.star(self, frame, offsets)])


# A call with stars, or one whose only argument behind the first is a tuple, is these instructions alone.
_CALLS = ("PUSH_NULL", "PRECALL", "CALL", "CALL_METHOD", "CALL_FUNCTION", "CALL_FUNCTION_EX")


def _makes_tuple(instruction: dis.Instruction) -> bool:
    return "LIST_TO_TUPLE" in (instruction.opname + str(instruction.argrepr))


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in dir(operator):
    if _name.startswith("__i") and hasattr(operator, _name.replace("__i", "__", 1)):  # such as __iadd__
        setattr(_Operations, _name, _in_place(getattr(operator, _name.strip("_"))))


class _Proxy(_Operations, Proxy):
    pass


class _Attribute(_Operations, Attribute):
    pass


def unpack(values: Any, count: int) -> tuple[Any, ...]:
    """The values of `a, b = values`, which is an error for another number of them."""
    values = tuple(values)
    if len(values) > count:
        raise ValueError(f"too many values to unpack (expected {count})")
    if len(values) < count:
        raise ValueError(f"not enough values to unpack (expected {count}, got {len(values)})")
    return values


class _Stars(tuple[Any, ...]):
    """Values that a call gets one by one."""


def stars(values: Any) -> _Stars:
    return _Stars(values)


class Spread:
    """A function, or the method of a name, of arguments among which are `stars`."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.__name__ = "spread"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = _spread(args)
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)


def _spread(args: tuple[Any, ...]) -> tuple[Any, ...]:
    result: list[Any] = []
    for arg in args:
        if type(arg) is _Stars:
            result += arg
        else:
            result.append(_spread(arg) if type(arg) is tuple else arg)
    return tuple(result)


# ---- the tracer


class _Tracer(GraphAppendingTracer):
    def __init__(self) -> None:
        super().__init__(fx.Graph())
        self.facts = Facts()
        self._scanned: set[Any] = set()
        # One that no call has taken yet; the frame and the instructions of the call that has to.
        self._star: tuple[fx.Node, Any, list[int]] | None = None

    def proxy(self, node: fx.Node) -> Proxy:
        return _Proxy(node, self)

    def to_bool(self, obj: Proxy) -> bool:
        raise Untraceable("branches on a value that depends on its input")

    def keys(self, obj: Proxy) -> Any:
        raise Untraceable("takes the keys of a value that depends on its input")

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, nn.Module):
            raise Untraceable("gives a module to a function")
        return super().create_arg(a)

    def star(self, values: Proxy, frame: Any, offsets: list[int]) -> Proxy:
        self.check_stars()
        proxy = self.create_proxy("call_function", stars, (values,), {})
        self._star = proxy.node, frame, offsets
        return proxy

    def check_stars(self) -> None:
        if self._star is not None:
            raise Untraceable("unpacks a value that depends on its input")

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        if self._star is not None and any(leaf is self._star[0] for leaf in _leaves((args, kwargs))):
            _, caller, offsets = self._star
            calls = _user_frame() is caller and caller.f_lasti in offsets
            if kind not in ("call_function", "call_method") or not calls:
                raise Untraceable("unpacks a value that depends on its input")
            kind, target, self._star = "call_function", Spread(target), None
        if kind == "call_method" and target in _RESHAPES:
            raise Untraceable(f"calls {target}")
        return super().create_node(kind, target, args, kwargs, *more, **named)

    # ---- code: what a function may do and read besides its arguments

    def scan(self, function: types.FunctionType) -> None:
        """Refuse a function that does more than a graph holds; note the global variables that it reads."""
        if function in self._scanned:
            return
        self._scanned.add(function)
        if hidden := set(function.__code__.co_freevars) - {"__class__"}:
            raise Untraceable(f"reads the closure variable {min(hidden)}")
        if function.__code__.co_flags & _SUSPENDS:
            raise Untraceable("is a generator or a coroutine")
        for name, value in _defaults(function):
            self.check_value(f"{name}={value}", value)
        self._scan_code(function.__code__, function.__globals__)

    def _scan_code(self, code: types.CodeType, names: dict[str, Any]) -> None:
        instructions = list(dis.get_instructions(code))
        for i, instruction in enumerate(instructions):
            name = instruction.opname
            if name in _REFUSED:
                raise Untraceable(_REFUSED[name])
            if name == "IS_OP" and not _is_plain_constant(instructions[i - 1]):
                raise Untraceable("compares with `is`")
            if name in ("LOAD_GLOBAL", "LOAD_NAME"):
                self._check_global(instructions, i, names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._scan_code(constant, names)

    def _check_global(self, instructions: list[dis.Instruction], i: int, names: dict[str, Any]) -> None:
        name = shown = instructions[i].argval
        value = names.get(name, MISSING)
        self.facts.note_global(names, name, value)
        if value is MISSING:  # one of Python's own
            builtins = names["__builtins__"]
            value = (builtins if isinstance(builtins, dict) else vars(builtins)).get(name, MISSING)
            if value not in _BUILTINS and not (isinstance(value, type) and issubclass(value, Exception)):
                raise Untraceable(f"uses {name}")
            return
        while isinstance(value, types.ModuleType):
            i += 1
            if instructions[i].opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                raise Untraceable(f"uses the module {shown} as a value")
            name = instructions[i].argval
            shown += f".{name}"
            names, value = vars(value), vars(value).get(name, MISSING)
            self.facts.note_global(names, name, value)
        self.check_value(shown, value)

    def check_value(self, name: str, value: Any) -> None:
        """Refuse a value that may change, or a function that does more than a graph holds."""
        if _is_plain(value) or id(value) in _allowed():
            return
        if getattr(value, "__module__", None) == math.__name__ and callable(value):
            return
        if isinstance(value, types.FunctionType) and not value.__module__.startswith("torch."):
            self.scan(value)
            return
        kind = "" if value is MISSING or callable(value) else f", a {type(value).__name__}"
        raise Untraceable(f"uses {name}{kind}")

    # ---- modules: what is read of them

    def stand_in(self, module: nn.Module, path: tuple[str, ...]) -> Any:
        """An object that a forward takes for `module`, and whose attributes are read by way of `read`."""
        kind: Any = type(module)
        for name, original in _USUAL.items():
            if type(kind) is not type or inspect.getattr_static(kind, name) is not original:
                raise Untraceable(f"uses a {kind.__name__}, which has a metaclass or a {name} of its own")

        def call(_self: Any, *args: Any, **kwargs: Any) -> Any:
            if not path:
                raise Untraceable("calls itself")
            return self.create_proxy("call_module", ".".join(path), args, kwargs)

        def getattribute(self_: Any, name: str) -> Any:
            return self.read(self_, module, path, name)

        def refuse(*_: Any) -> None:
            raise Untraceable("sets an attribute")

        methods = {"__getattribute__": getattribute, "__call__": call}
        return object.__new__(
            type(kind.__name__, (kind,), {**methods, "__setattr__": refuse, "__delattr__": refuse})
        )

    def read(self, stand_in: Any, module: nn.Module, path: tuple[str, ...], name: str) -> Any:
        """The attribute of a module, as Python finds it; `Facts` are told."""
        kind, own = type(module), vars(module)
        facts = self.facts.modules.setdefault(path, ModuleFacts(kind))
        shared = inspect.getattr_static(kind, name, MISSING)
        if name == "_modules":
            facts.order = list(own["_modules"])
            return {child: self._child(module, path, child, facts) for child in facts.order}
        if isinstance(shared, property) and isinstance(shared.fget, types.FunctionType):
            facts.shared[name] = shared
            self.scan(shared.fget)
            return shared.fget(stand_in)
        if shared is not MISSING and hasattr(type(shared), "__set__"):
            raise Untraceable(f"uses self.{'.'.join((*path, name))}")
        if name in own:
            value = own[name]
            self.check_value(f"self.{'.'.join((*path, name))}", value)
            facts.own[name] = value
            return value
        if isinstance(shared, (types.FunctionType, staticmethod)):
            function: Any = getattr(kind, name)
            facts.shared[name] = function
            if function.__module__ != container.__name__:
                self.check_value(f"self.{'.'.join((*path, name))}", function)
            return function if isinstance(shared, staticmethod) else types.MethodType(function, stand_in)
        if shared is not MISSING:
            self.check_value(f"self.{'.'.join((*path, name))}", shared)
            facts.shared[name] = shared
            return shared
        if name in own["_parameters"] or name in own["_buffers"]:
            facts.tensors[name] = present = _tensor(own, name) is not None
            return self.create_proxy("get_attr", ".".join((*path, name)), (), {}) if present else None
        if name in own["_modules"]:
            return self._child(module, path, name, facts)
        raise Untraceable(f"reads self.{'.'.join((*path, name))}, which it does not have")

    def _child(self, module: nn.Module, path: tuple[str, ...], name: str, facts: ModuleFacts) -> Any:
        child = module._modules[name]
        facts.children[name] = child is not None
        return None if child is None else self.stand_in(child, (*path, name))


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            yield name, parameter.default


def _is_plain_constant(instruction: dis.Instruction) -> bool:
    return instruction.opname.startswith("LOAD_CONST") and instruction.argval in (None, True, False)


def _user_frame() -> Any:
    """The frame that makes a node: the nearest one that is neither in this file nor in PyTorch."""
    frame: Any = sys._getframe(1)
    while (
        frame.f_globals.get("__name__", "").partition(".")[0] == "torch"
        or frame.f_code.co_filename == __file__
    ):
        frame = frame.f_back
    return frame
