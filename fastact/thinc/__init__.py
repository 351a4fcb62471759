"""Fused layers for Thinc models and spaCy pipelines.

    report = fastact.thinc.accelerate(nlp)   # a spaCy pipeline or a Thinc model, in place
    fastact.thinc.restore(nlp)

Forwards, Ops and the update of the parameters are exchanged.  Parameters, attributes and serialisation
stay Thinc's, so a saved pipeline loads with and without fastact.

Entry points also register the callbacks "fastact.accelerate.v1" and "fastact.use_ops.v1" for a
spaCy config, the Ops "fastact", the layer "fastact.Maxout.v1" and the optimiser "fastact.Adam.v1".  A
pipeline whose config has the first callback accelerates its later components too.  Thinc imports this
package through the entry points as soon as it looks for its own Ops, so the import must stay cheap.
"""

from .acceleration import Block, Layer, Report, accelerate, restore
from .callbacks import accelerate_callback, use_ops_callback
from .fused import forward as forward  # pickles of 0.1.0 look for it here
from .layer import Maxout, maxout_init
from .ops import FastactOps

__all__ = [
    "Block",
    "FastactOps",
    "Layer",
    "Maxout",
    "Report",
    "accelerate",
    "accelerate_callback",
    "maxout_init",
    "restore",
    "use_ops_callback",
]
