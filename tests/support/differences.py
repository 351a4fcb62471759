"""Gradients by central differences."""

from __future__ import annotations

import numpy as np

# The error of a central difference is h² f''' / 6 for a smooth f, and up to about 100 eps |f| / h by
# rounding in the models here: with |f| and |f'''| of at most about 30 each is below 5e-9.
STEP = 2.0**-16
TOLERANCE = 1e-8


def differences(f, array):
    """The gradient of f(), a float, with respect to the float64 `array` that it depends on."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + STEP
        above = f()
        array[index] = value - STEP
        below = f()
        array[index] = value
        gradient[index] = (above - below) / (2 * STEP)
    return gradient
