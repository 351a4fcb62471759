"""How an operation becomes a function that JAX's transformations take."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .arrays import aligned
from .targets import Result, like


@jax.tree_util.register_static
class Needs(tuple[bool, ...]):
    """Which operands need a gradient: among the residuals of a forward, but no array."""

    def bits(self) -> int:
        """A bit for each, 1 for the first."""
        return sum(need << i for i, need in enumerate(self))


class Operation:
    """A function of some operands with a gradient of its own, on the CPU.

    The gradient is that of a `jax.custom_vjp`.  vmap of such a function would map its backward too, which
    makes a gradient of shared weights for every example, and sums them.  So there is a primitive around it:
    vmap folds the batch into the rows of one call, where the operation can (`fold`), and only then is the
    call differentiated.

    `options` are the keywords of a call, a NamedTuple of plain values with a flag `both`: whether to return
    what the backward needs besides y.  An operand may be None.
    """

    name: str
    first: str  # what its function calls the first operand

    def __init__(self) -> None:
        primitive = self._primitive = Primitive(f"fastact_{self.name}")
        primitive.multiple_results = True
        primitive.def_impl(self._evaluate)
        primitive.def_abstract_eval(self._abstract_eval)
        mlir.register_lowering(
            primitive, mlir.lower_fun(self._evaluate, multiple_results=True), platform="cpu"
        )
        mlir.register_lowering(primitive, self._refuse)
        ad.primitive_jvps[primitive] = self._jvp
        batching.primitive_batchers[primitive] = self._batch
        self._differentiable: Any = jax.custom_vjp(self._primal, nondiff_argnums=(0,))
        self._differentiable.defvjp(self._vjp_forward, self._vjp_backward, symbolic_zeros=True)
        self._jitted = jax.jit(self._bind, static_argnums=0, inline=True)

    def __call__(self, options: Any, *operands: Array | None) -> Any:
        """y, or (y, saved) for `both`."""
        results = self._jitted(options, *operands)
        return tuple(results) if options.both else results[0]

    # ---- what an operation has to say

    def results(self, options: Any, operands: list[Any]) -> list[Result]:
        """The shapes and dtypes of y and of saved."""
        raise NotImplementedError

    def forward(self, options: Any, operands: list[Any], save: bool) -> tuple[Array, Any]:
        """y, and with `save` what the backward needs, else None."""
        raise NotImplementedError

    def backward(
        self, options: Any, operands: list[Any], saved: Array, grad_y: Array, needs: Needs
    ) -> list[Array | None]:
        """The gradient of each operand, None where it is not needed."""
        raise NotImplementedError

    def fold(self, options: Any, operands: list[Any], dims: list[Any]) -> tuple[Any, list[Any], int] | None:
        """The options and operands of one call for a whole batch, and the axis of the batch in its results.

        `dims` are the axes of the batch in the operands, None for those without.  None is returned if each
        example needs a call of its own.
        """
        raise NotImplementedError

    # ---- the primitive

    def _bind(self, options: Any, *operands: Any) -> Any:
        present = tuple(operand is not None for operand in operands)
        given = aligned([operand for operand in operands if operand is not None])
        return self._primitive.bind(*given, options=options, present=present)

    def _evaluate(self, *given: Any, options: Any, present: tuple[bool, ...]) -> Any:
        return self._primal(options, *_with_none(given, present))

    def _abstract_eval(self, *given: Any, options: Any, present: tuple[bool, ...]) -> Any:
        results = self.results(options, _with_none(given, present))
        count = 2 if options.both else 1
        return [like(given[0], shape, dtype) for shape, dtype in results[:count]]

    def _refuse(self, ctx: Any, *_: Any, **__: Any) -> Any:
        platform = ", ".join(ctx.module_context.platforms)
        raise TypeError(
            f"{self.first}: got an array on {platform}, wanted one on the CPU: "
            "try jax.device_put(x, jax.devices('cpu')[0])"
        )

    def _jvp(self, primals: Any, tangents: Any, *, options: Any, present: tuple[bool, ...]) -> Any:
        moving = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

        def run(*some: Any) -> Any:
            values = list(primals)
            for i, value in zip(moving, some, strict=True):
                values[i] = value
            return self._differentiable(options, *_with_none(values, present))

        results, derivatives = jax.jvp(run, [primals[i] for i in moving], [tangents[i] for i in moving])
        floats = [jnp.issubdtype(result.dtype, jnp.floating) for result in results]
        return results, [
            derivative if real else ad.Zero(jax.typeof(result).to_tangent_aval())
            for result, derivative, real in zip(results, derivatives, floats, strict=True)
        ]

    def _batch(self, given: Any, given_dims: Any, *, options: Any, present: tuple[bool, ...]) -> Any:
        operands, dims = _with_none(given, present), _with_none(given_dims, present)
        folded = self.fold(options, operands, dims)
        if folded is None:
            run = jax.vmap(
                lambda *args: self._differentiable(options, *_with_none(args, present)), given_dims
            )
            results, dim = run(*given), 0
        else:
            options, operands, dim = folded
            results = self._bind(options, *operands)
        return results, [dim] * len(results)

    # ---- the gradient

    def _primal(self, options: Any, *operands: Any) -> Any:
        y, saved = self.forward(options, list(operands), options.both)
        return (y, saved) if options.both else (y,)

    def _vjp_forward(self, options: Any, *operands: Any) -> Any:
        values = [None if operand is None else operand.value for operand in operands]
        needs = Needs(operand is not None and operand.perturbed for operand in operands)
        y, saved = self.forward(options, values, True)
        return ((y, saved) if options.both else (y,)), (needs, values, saved)

    def _vjp_backward(self, options: Any, residuals: Any, grads: Any) -> Any:
        needs, operands, saved = residuals
        grad_y = grads[0]
        if isinstance(grad_y, SymbolicZero):
            return (None,) * len(operands)
        return tuple(self.backward(options, operands, saved, grad_y, needs))


def _with_none(given: Any, present: tuple[bool, ...]) -> list[Any]:
    rest = iter(given)
    return [next(rest) if is_there else None for is_there in present]
