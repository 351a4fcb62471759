"""Models that exist, run fused: `accelerate` and `restore`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from .containers import (
    Step,
    exchange,
    is_ours,
    maxout_linear_forward,
    maxout_step,
    next_step,
    runs_children_in_order,
    sequential_forward,
    withdraw,
)

_STANZA = "stanza.models.common.maxout_linear.MaxoutLinear"


class Change(NamedTuple):
    """Layers that run as one operator: the name of the first, what they are, and the operator."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name or 'the model'}: {self.before} -> {self.after}"


class Report:
    """What `accelerate` did; `print(report)` tells.

    Attributes:
        replaced: a `Change` for each run of layers that one operator does the work of.
        skipped: (name, reason) for each Linear, and each container of Linears, that was left alone.
    """

    def __init__(self) -> None:
        self.replaced: list[Change] = []
        self.skipped: list[tuple[str, str]] = []
        self._containers: list[nn.Module] = []

    def restore(self) -> None:
        """Give the containers their own forward again."""
        for container in self._containers:
            withdraw(container)

    def __repr__(self) -> str:
        lines = [f"{len(self.replaced)} replaced", *(f"  {change}" for change in self.replaced)]
        if self.skipped:
            lines.append(f"{len(self.skipped)} left alone")
            lines += [f"  {name or 'the model'}: {why}" for name, why in self.skipped]
        return "\n".join(lines)


def _is_accelerated(container: nn.Module) -> bool:
    forward = vars(container).get("forward")
    return is_ours(forward) and forward.__self__ is container


def _is_maxout_linear(module: nn.Module) -> bool:
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}" == _STANZA


def _class_obstacle(container: nn.Module) -> str | None:
    """Why it is not known what the forward of a container of Linears does with them."""
    kind = type(container)
    if not (isinstance(container, nn.Sequential) or _is_maxout_linear(container)):
        return f"{kind.__name__} is not a Sequential, so what follows its Linear is not known"
    forward = vars(container).get("forward", kind.forward)  # in the instance, the class's own does no harm
    changed = not (is_ours(forward) or getattr(forward, "__func__", forward) is kind.forward)
    if changed or (isinstance(container, nn.Sequential) and not runs_children_in_order(kind)):
        return f"{kind.__name__} has a forward of its own"
    return None


def _steps(container: nn.Module) -> Iterator[tuple[str, list[Any], Step | str]]:
    """The name of each Linear's place, the modules that its step runs, and the step or why there is none."""
    if _is_maxout_linear(container):
        yield "", [container], maxout_step(container)
        return
    names, children = list(container._modules), list(container._modules.values())
    for start, name in enumerate(names):
        step = next_step(children, start)
        if step is not None:
            yield name, children[start : start + (step.children if isinstance(step, Step) else 1)], step


def accelerate(module: nn.Module) -> Report:
    """Run what fastact knows of a model fused, in place, in inference and in training.

    Within an `nn.Sequential`, a Linear followed by ReLU, ReLU6, LeakyReLU, ELU, SELU, GELU, SiLU, Softplus,
    Softsign, Mish, Sigmoid, LogSigmoid, Tanh, Hardtanh (from -1 to 1), Hardsigmoid or Hardswish runs as one
    `linear_activation`; a Linear followed by a MaxPool1d over whole groups of
    units, which is maxout, runs as one `linear_maxout`, and so does stanza's `MaxoutLinear`.

    Every module stays where it is.  Only the `forward` of such a container is exchanged, in the instance:
    it reads its children at each call and calls each one that it cannot fuse at that moment.  These are
    modules with hooks, a parametrisation or a forward of their own, subclasses, parameters or inputs that
    are not dense float32 or float64 tensors on the CPU, and modules under `torch.jit`, `torch.fx`,
    `torch.export`, `torch.onnx`, `torch.func`, forward-mode differentiation and dispatch modes.
    `torch.compile` takes the fused operators.  A second derivative (`create_graph=True`) of a fused layer
    is an error.

    A deep copy is accelerated as well.  A model that is pickled or saved whole is the model as it was: it
    loads without fastact, and runs plainly until `accelerate` is called again.

    Returns:
        A report of what was replaced and what was left alone, which prints well; its `restore()` undoes it,
        as `fastact.torch.restore(module)` does.

    Raises:
        TypeError: `module` is not an `nn.Module`.
    """
    _check_module(module)
    report = Report()
    for path, container in module.named_modules():
        if not any(isinstance(child, nn.Linear) for child in container.children()):
            continue
        if _is_accelerated(container):
            report.skipped.append((path, "it is accelerated already"))
            continue
        if obstacle := _class_obstacle(container):
            report.skipped.append((path, obstacle))
            continue
        fused = False
        for child, modules, step in _steps(container):
            name = ".".join(filter(None, (path, child)))
            if isinstance(step, str):
                report.skipped.append((name, step))
                continue
            before = " + ".join(type(module).__name__ for module in modules)
            report.replaced.append(Change(name, before, str(step)))
            fused = True
        if fused:
            report._containers.append(container)
    if not report.replaced and not report.skipped:
        kinds = ", ".join(sorted({type(child).__name__ for child in module.modules()}))
        report.skipped.append(("", f"it has no container of a Linear, but {kinds}"))
    for container in report._containers:
        exchange(container, maxout_linear_forward if _is_maxout_linear(container) else sequential_forward)
    return report


def restore(module: nn.Module) -> None:
    """Give every container in a model that `accelerate` has changed its own forward again.

    Deep copies and unpickled models may be given too.  A Sequential that was given to `torch.compile` itself
    while it was accelerated has to be given to it again.

    Raises:
        TypeError: `module` is not an `nn.Module`.
    """
    _check_module(module)
    for container in module.modules():
        withdraw(container)


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: got {type(module).__name__}, wanted a torch.nn.Module")
