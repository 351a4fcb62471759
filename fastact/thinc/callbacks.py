"""Callbacks for a spaCy config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thinc.api import get_current_ops, set_current_ops

from .acceleration import FusingLinker, accelerate_and_log
from .ops import FastactOps


def accelerate_callback() -> Callable[[Any], Any]:
    """For [nlp.after_pipeline_creation]: `accelerate` the pipeline, whether new or loaded.

    What `nlp.add_pipe`, `nlp.replace_pipe` or `nlp.initialize` bring in later is fused too, until
    `restore(nlp)`.
    """

    def after_pipeline_creation(nlp: Any) -> Any:
        accelerate_and_log(nlp)
        nlp._link_components = FusingLinker(nlp)
        return nlp

    return after_pipeline_creation


def use_ops_callback() -> Callable[[Any], Any]:
    """For [nlp.before_creation]: make "fastact" the current Ops, unless those are a GPU's.

    With or without BLIS, as the Ops before; Ops that are fastact's, or of a subclass, stay.
    """

    def before_creation(language: Any) -> Any:
        current = get_current_ops()
        if current.device_type == "cpu" and not isinstance(current, FastactOps):
            set_current_ops(FastactOps(use_blis=getattr(current, "use_blis", True)))
        return language

    return before_creation
