"""What a training forward of several layers in one call keeps for their backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .network import Run

Array = np.ndarray[Any, Any]


class Tape:
    """The arrays of one training forward of a `Run`.

    A layer whose `_saved` is this object has had no backward since, and no other training forward.

    Args:
        run: what the forward ran.
        x: (rows, in_features), y: (rows, out_features), C-contiguous.
        shape: x's shape as the caller gave it, without the last axis.
        memory: what the layers save, in the backend's layout.
    """

    __slots__ = ("_memory", "run", "shape", "x", "y")

    def __init__(self, run: Run, x: Array, y: Array, shape: tuple[int, ...], memory: Array) -> None:
        self.run = run
        self.x = x
        self.y = y
        self.shape = shape
        self._memory = [memory]

    def take(self) -> Array | None:
        """The memory, for one user alone: another thread, like a second call, gets None."""
        try:
            return self._memory.pop()
        except IndexError:
            return None

    def put_back(self, memory: Array) -> None:
        """Undo `take`."""
        self._memory.append(memory)
