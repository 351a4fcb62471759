"""The factories of "fastact.accelerate.v1" and "fastact.use_ops.v1", callbacks for a spaCy config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thinc.api import get_current_ops, set_current_ops

from .acceleration import FusingLinker, accelerate_and_log
from .ops import FastactOps


def accelerate_callback() -> Callable[[Any], Any]:
    """A callback for `after_pipeline_creation` that accelerates the pipeline, whether new or loaded.

    Components that `nlp.add_pipe`, `nlp.replace_pipe` or `nlp.initialize` bring in later are fused too,
    until `restore(nlp)`.
    """

    def after_pipeline_creation(nlp: Any) -> Any:
        accelerate_and_log(nlp)
        nlp._link_components = FusingLinker(nlp)
        return nlp

    return after_pipeline_creation


def use_ops_callback() -> Callable[[Any], Any]:
    """A callback for `before_creation` that makes "fastact" the current Ops, unless those are a GPU's.

    The new Ops use BLIS if the Ops before did.  Current Ops that are a `FastactOps`, or of a subclass, stay.
    """

    def before_creation(language: Any) -> Any:
        current = get_current_ops()
        if current.device_type == "cpu" and not isinstance(current, FastactOps):
            set_current_ops(FastactOps(use_blis=getattr(current, "use_blis", True)))
        return language

    return before_creation
