"""Every activation of the table, with its default and another value of its parameter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastact import activations


class Case(NamedTuple):
    """An activation and its keywords; for a PReLU, how many slopes it has instead."""

    name: str
    parameters: dict
    slopes: str = ""

    def __str__(self):
        return "-".join(str(part) for part in (self.name, *self.parameters.values(), self.slopes) if part)

    def keywords(self, features, dtype):
        if self.name != "prelu":
            return self.parameters
        slopes = np.array([0.25, -0.5, 1.5], dtype)
        return {"slope": np.array(slopes[0]) if self.slopes == "one" else np.resize(slopes, features)}


# Values of keywords beside the defaults; one entry for each activation that has a keyword.
OTHER_PARAMETERS = {
    "leaky_relu": {"negative_slope": 0.5},
    "elu": {"alpha": 0.5},
    "gelu": {"approximate": "tanh"},
}


def _cases(name):
    if name == "prelu":
        return Case(name, {}, "one"), Case(name, {}, "per-feature")
    if not activations.TABLE[name].defaults:
        return (Case(name, {}),)
    return Case(name, {}), Case(name, OTHER_PARAMETERS[name])


CASES = tuple(case for name in activations.NAMES for case in _cases(name))
# Exact on whole numbers: these multiply by halves and quarters at most.
EXACT_CASES = tuple(
    case
    for case in CASES
    if case.name in ("identity", "relu", "prelu") or case.parameters.get("negative_slope") == 0.5
)
KINKS = np.array([-3.0, -1, 0, 1, 3, 6])  # where the derivative of an activation jumps
STEEPEST = 1.8  # no |dy/dz| is above it: selu's, 1.7581, is the largest
SAVES_Y = tuple(name for name, row in activations.TABLE.items() if row.saves == "y")
