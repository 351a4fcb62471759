"""The handlers of csrc/api/xla_ffi.c as targets of XLA's FFI, and calls of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .. import backends, settings

Shape = tuple[int, ...]
Result = tuple[Shape, Any]  # the shape and the dtype of a result

_c: Any = backends.get("c")
for _name, _address in _c.xla_handlers().items():
    jax.ffi.register_ffi_target(f"fastact_{_name}", jax.ffi.pycapsule(_address), platform="cpu")
_c.set_xla_defaults(settings.DEFAULTS)


def call(name: str, results: Sequence[Result], operands: Sequence[Any], **attributes: float) -> list[Any]:
    """The results of a handler, whose operands and attributes csrc/api/fastact.h describes.

    vmap adds an axis in front of every operand, of size 1 where an operand is not mapped; the handler runs
    over it.
    """
    wanted = [like(jax.typeof(operands[0]), shape, dtype) for shape, dtype in results]
    run = jax.ffi.ffi_call(f"fastact_{name}", wanted, vmap_method="expand_dims")
    numbers = {key: (np.float64 if key == "parameter" else np.int64)(v) for key, v in attributes.items()}
    return list(run(*operands, **numbers))


def like(operand: Any, shape: Shape, dtype: Any) -> Any:
    """The abstract value of a result: on the mesh of an operand, alike over the axes of a shard_map."""
    sharding = operand.sharding.update(spec=jax.sharding.PartitionSpec(*[None] * len(shape)))
    return jax.core.ShapedArray(shape, dtype, sharding=sharding, manual_axis_type=operand.manual_axis_type)


def precision_code(precision: object) -> int:
    """The number of the tier of a call that asks for `precision`."""
    code: int = _c.precision_code(settings.precision_in_force(precision))
    return code
