"""The functional API: checked NumPy arrays in, arrays out.

`checks` and `outputs` find a wrong argument before anything is written, so the backends see only
C-contiguous arrays of one dtype whose shapes agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from . import activations, backends, settings
from .activations import AnyActivation, FixedName, Parameters
from .backends import BackendName
from .checks import (
    LARGEST,
    LINEAR_WEIGHT,
    MAXOUT_WEIGHT,
    UINT8,
    Array,
    Needs,
    as_blocks,
    as_rows,
    check_array,
    check_axis,
    check_backward,
    check_flag,
    check_forward,
    check_int,
    check_needs,
    check_norm,
    check_not_negative,
    check_operand,
    check_pieces,
    contiguous,
    contiguous_rows,
)
from .outputs import check_out, deliver, output_arrays
from .settings import Precision

if TYPE_CHECKING:
    from typing_extensions import Unpack

# `out=` of one, two, or several results
Out = Array | tuple[Array | None] | None
Out2 = tuple[Array | None, Array | None] | None
Outs = tuple[Array | None, ...] | None
Grad = Array | None  # None where `needs` says that it is not needed

_empty = np.empty


# ---- linear + maxout


# fmt: off
@overload
def linear_maxout(
    x: Array, weight: Array, bias: Array | None = None, *, out: Out2 = None,
    return_argmax: Literal[True] = True, backend: BackendName | None = None,
    precision: Precision | None = None
) -> tuple[Array, Array]: ...
@overload
def linear_maxout(
    x: Array, weight: Array, bias: Array | None = None, *, out: Out2 = None, return_argmax: Literal[False],
    backend: BackendName | None = None, precision: Precision | None = None
) -> tuple[Array, None]: ...
@overload
def linear_maxout(
    x: Array, weight: Array, bias: Array | None = None, *, out: Out2 = None, return_argmax: bool,
    backend: BackendName | None = None, precision: Precision | None = None
) -> tuple[Array, Array | None]: ...
# fmt: on
def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    out: Out2 = None,
    return_argmax: bool = True,
    backend: BackendName | None = None,
    precision: Precision | None = None,
) -> tuple[Array, Array | None]:
    """Linear units in groups of `pieces`, and of each group the largest (Goodfellow et al. 2013).

        y[..., j] = max over k of  x[..., :] @ weight[j, k, :] + bias[j, k]

    Args:
        x: (..., in_features), float32 or float64.
        weight: (out_features, pieces, in_features), the dtype of x; 1 to 256 pieces.
        bias: (out_features, pieces), the dtype of x, or None.
        out: (y, argmax), arrays to write the results to; either may be None. They must not overlap an input.
        return_argmax: False, where no backward follows, computes no argmax: None is returned in its place.
        backend: "c", "numba" or "numpy" for this call only.
        precision: the float32 precision tier for this call only; see `set_float32_matmul_precision`.

    Returns:
        y (..., out_features), the dtype of x, and argmax, uint8 of the same shape: the index of the
        winning piece, the lowest one of a tie and the first NaN if there is one.

    Raises:
        TypeError: an argument is not an array, or of another dtype, or a flag is not a bool.
        ValueError: shapes do not agree, or pieces is not in 1 to 256.
    """
    run = backends.get(backend)
    shape = check_forward(MAXOUT_WEIGHT, x, weight, bias)
    return_argmax = check_flag("return_argmax", return_argmax)
    dtype = x.dtype
    tier = settings.precision_in_force(precision)
    if out is None:
        y, argmax = _empty(shape, dtype), _empty(shape, UINT8) if return_argmax else None
    else:
        names, wanted = ("y", "argmax"), (True, return_argmax)
        arrays = output_arrays(out, names, wanted, (shape, shape), (dtype, UINT8), (x, weight, bias))
        y, argmax = arrays
    rows, y_rows, winners = contiguous(x), y, argmax
    if len(shape) != 2:
        rows, y_rows, winners = as_rows(rows), as_rows(y), as_rows(argmax)
    run.linear_maxout(
        rows,
        contiguous(weight),
        None if bias is None else contiguous(bias),
        y_rows,
        winners,
        settings.threads_and_mode(),
        tier,
    )
    return (y, argmax) if out is None else deliver(out, arrays)


_GRADS = ("grad_x", "grad_weight", "grad_bias")
_ALL = (True, True, True)


# fmt: off
@overload
def linear_maxout_backward(
    grad_y: Array, x: Array, weight: Array, argmax: Array, *, out: Outs = None, accumulate: bool = False,
    backend: BackendName | None = None, precision: Precision | None = None
) -> tuple[Array, Array, Array]: ...
@overload
def linear_maxout_backward(
    grad_y: Array, x: Array, weight: Array, argmax: Array, *, needs: Needs, out: Outs = None,
    accumulate: bool = False, backend: BackendName | None = None, precision: Precision | None = None
) -> tuple[Grad, Grad, Grad]: ...
# fmt: on
def linear_maxout_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    argmax: Array,
    *,
    needs: Needs = _ALL,
    out: Outs = None,
    accumulate: bool = False,
    backend: BackendName | None = None,
    precision: Precision | None = None,
) -> tuple[Grad, Grad, Grad]:
    """The gradients of `linear_maxout`: only the winners get one, and only they cost anything.

        grad_x[n]         = sum over j of                    grad_y[n, j] * weight[j, argmax[n, j]]
        grad_weight[j, k] = sum over n with argmax[n, j] = k of  grad_y[n, j] * x[n]
        grad_bias[j, k]   = sum over n with argmax[n, j] = k of  grad_y[n, j]

    Args:
        grad_y: (..., out_features), the gradient of the loss with respect to y.
        x, weight: as the forward took them.
        argmax: as the forward returned it, uint8 (..., out_features).
        needs: which of (grad_x, grad_weight, grad_bias) to compute; the others come back as None.
        out: three arrays to write the gradients to; each may be None. They must not overlap an input.
        accumulate: add the finished sums to the arrays of `out` for grad_weight and grad_bias
            (never for grad_x).
        backend, precision: as for `linear_maxout`; give the precision of the forward.

    Returns:
        grad_x (..., in_features), grad_weight (out_features, pieces, in_features) and
        grad_bias (out_features, pieces), in the dtype of x.

    Raises:
        TypeError: an argument is not an array, or of another dtype, or a flag is not a bool.
        ValueError: shapes do not agree, or a value of argmax is not below pieces.
    """
    run = backends.get(backend)
    check_backward(MAXOUT_WEIGHT, grad_y, x, weight, argmax)
    accumulate = check_flag("accumulate", accumulate)
    dtype = x.dtype
    wanted = needs if needs is _ALL else check_needs(needs, _GRADS)
    tier = settings.precision_in_force(precision)
    if out is None and not accumulate:
        grad_x = _empty(x.shape, dtype) if wanted[0] else None
        grad_weight = _empty(weight.shape, dtype) if wanted[1] else None
        grad_bias = _empty(weight.shape[:2], dtype) if wanted[2] else None
    else:
        arrays = output_arrays(
            out,
            _GRADS,
            wanted,
            (x.shape, weight.shape, weight.shape[:2]),
            (dtype, dtype, dtype),
            (grad_y, x, weight, argmax),
            accumulate=accumulate,
        )
        grad_x, grad_weight, grad_bias = arrays
    grad_rows, rows, winners, grad_x_rows = contiguous(grad_y), contiguous(x), contiguous(argmax), grad_x
    if x.ndim != 2:
        grad_rows, rows, winners = as_rows(grad_rows), as_rows(rows), as_rows(winners)
        grad_x_rows = as_rows(grad_x)
    run.linear_maxout_backward(
        grad_rows,
        rows,
        contiguous(weight),
        winners,  # the backend checks its values
        grad_x_rows,
        grad_weight,
        grad_bias,
        accumulate,
        settings.threads_and_mode(),
        tier,
    )
    return (grad_x, grad_weight, grad_bias) if out is None else deliver(out, arrays)


# ---- bare maxout


# fmt: off
@overload
def maxout(
    z: Array, axis: int = -1, *, out: Out2 = None, return_argmax: Literal[True] = True,
    backend: BackendName | None = None
) -> tuple[Array, Array]: ...
@overload
def maxout(
    z: Array, axis: int = -1, *, out: Out2 = None, return_argmax: Literal[False],
    backend: BackendName | None = None
) -> tuple[Array, None]: ...
@overload
def maxout(
    z: Array, axis: int = -1, *, out: Out2 = None, return_argmax: bool, backend: BackendName | None = None
) -> tuple[Array, Array | None]: ...
# fmt: on
def maxout(
    z: Array,
    axis: int = -1,
    *,
    out: Out2 = None,
    return_argmax: bool = True,
    backend: BackendName | None = None,
) -> tuple[Array, Array | None]:
    """The largest value along `axis`, and its index.

    Args:
        z: float32 or float64; 1 to 256 pieces along `axis`.
        axis: the axis of the pieces.
        out: (y, argmax), arrays to write the results to; either may be None. They must not overlap an input.
        return_argmax: False leaves argmax out; None takes its place.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        y and argmax (uint8), of z's shape without `axis`.  The lowest index of a tie wins, and the
        first NaN if there is one, as in `np.max` and `np.argmax`.

    Raises:
        TypeError: z is not an array, or of another dtype, or return_argmax not a bool.
        ValueError: axis is out of range, or the number of pieces not in 1 to 256.
    """
    run = backends.get(backend)
    check_array("z", z)
    axis = check_axis(axis, z.ndim)
    check_pieces(z.shape[axis])
    return_argmax = check_flag("return_argmax", return_argmax)
    shape = z.shape[:axis] + z.shape[axis + 1 :]
    if out is None:
        y, argmax = _empty(shape, z.dtype), _empty(shape, UINT8) if return_argmax else None
    else:
        names, wanted = ("y", "argmax"), (True, return_argmax)
        arrays = output_arrays(out, names, wanted, (shape, shape), (z.dtype, UINT8), (z,))
        y, argmax = arrays
    blocks = as_blocks(contiguous(z), axis)
    flat = (blocks.shape[0], blocks.shape[2])
    run.maxout(
        blocks,
        y.reshape(flat),
        None if argmax is None else argmax.reshape(flat),
        settings.threads_and_mode(),
    )
    return (y, argmax) if out is None else deliver(out, arrays)


def maxout_backward(
    grad_y: Array,
    argmax: Array,
    pieces: int,
    axis: int = -1,
    *,
    out: Out = None,
    backend: BackendName | None = None,
) -> Array:
    """The gradient of `maxout`: grad_y at each winner, 0 elsewhere.

    Args:
        grad_y: float32 or float64, the shape of y.
        argmax: as the forward returned it, uint8, the shape of y.
        pieces: the length of the axis that the maximum was taken over, 1 to 256.
        axis: where that axis is in grad_z.
        out: an array to write grad_z to.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        grad_z: grad_y's shape with an axis of `pieces` at `axis`.

    Raises:
        TypeError: an argument is not an array, or of another dtype, or a flag is not a bool.
        ValueError: shapes do not agree, or a value of argmax is not below pieces.
    """
    run = backends.get(backend)
    check_array("grad_y", grad_y)
    pieces = check_int("pieces", pieces)
    check_pieces(pieces)
    winners = check_operand("argmax", argmax, UINT8, grad_y.shape)  # the backend checks its values
    axis = check_axis(axis, grad_y.ndim + 1)
    shape = (*grad_y.shape[:axis], pieces, *grad_y.shape[axis:])
    if out is None:
        grad_z = _empty(shape, grad_y.dtype)
    else:
        arrays = output_arrays(out, ("grad_z",), (True,), (shape,), (grad_y.dtype,), (grad_y, argmax))
        (grad_z,) = arrays
    blocks = as_blocks(grad_z, axis)
    flat = (blocks.shape[0], blocks.shape[2])
    run.maxout_backward(
        contiguous(grad_y).reshape(flat),
        winners.reshape(flat),
        blocks,
        settings.threads_and_mode(),
    )
    return grad_z if out is None else deliver(out, arrays)[0]


# ---- linear + activation


# fmt: off
@overload
def linear_activation(
    x: Array, weight: Array, bias: Array | None = None, activation: AnyActivation = "relu", *,
    out: Out2 = None, return_saved: Literal[True] = True, backend: BackendName | None = None,
    precision: Precision | None = None, **parameters: Unpack[Parameters]
) -> tuple[Array, Array]: ...
@overload
def linear_activation(
    x: Array, weight: Array, bias: Array | None = None, activation: AnyActivation = "relu", *,
    out: Out2 = None, return_saved: Literal[False], backend: BackendName | None = None,
    precision: Precision | None = None, **parameters: Unpack[Parameters]
) -> tuple[Array, None]: ...
@overload
def linear_activation(
    x: Array, weight: Array, bias: Array | None = None, activation: AnyActivation = "relu", *,
    out: Out2 = None, return_saved: bool, backend: BackendName | None = None,
    precision: Precision | None = None, **parameters: Unpack[Parameters]
) -> tuple[Array, Array | None]: ...
# fmt: on
def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    activation: AnyActivation = "relu",
    *,
    out: Out2 = None,
    return_saved: bool = True,
    backend: BackendName | None = None,
    precision: Precision | None = None,
    **parameters: Unpack[Parameters],
) -> tuple[Array, Array | None]:
    """A linear layer and its activation in one pass: y = activation(x @ weight.T + bias).

    Args:
        x: (..., in_features), float32 or float64.
        weight: (out_features, in_features), the dtype of x.
        bias: (out_features,), the dtype of x, or None.
        activation: a name of the table in `fastact.activations`, or a `CustomActivation`.
        out: (y, saved), arrays to write the results to; either may be None. Where the activation saves y,
            the second has to be None or the first again. They must not overlap an input.
        return_saved: False, where no backward follows, keeps nothing: None is returned in place of saved.
        backend, precision: as for `linear_maxout`.
        **parameters: the activation's own keywords.

    Returns:
        y (..., out_features), and `saved`, what the backward needs: y itself or the
        pre-activation z, as the table says.

    Raises:
        TypeError: an argument is not an array, or of another dtype, a flag is not a bool, or the activation
            does not take a keyword.
        ValueError: shapes do not agree, or the activation is unknown.
    """
    run = backends.get(backend)
    shape = check_forward(LINEAR_WEIGHT, x, weight, bias)
    return_saved = check_flag("return_saved", return_saved)
    dtype = x.dtype
    act = activations.resolve(activation, shape[-1], dtype, parameters)
    tier = settings.precision_in_force(precision)
    saves_z = act.saves == "z"
    if out is None:
        y, z = _empty(shape, dtype), _empty(shape, dtype) if saves_z and return_saved else None
    else:
        names, wanted = ("y", "saved"), (True, saves_z and return_saved)
        if not saves_z:
            given = check_out(out, names)
            if given[1] is not None and given[1] is not given[0]:
                raise ValueError(f"out[1] (saved): {activation} saves y, wanted None or out[0]")
            out = (given[0], None)
        inputs = (x, weight, bias, parameters.get("slope"))
        arrays = output_arrays(out, names, wanted, (shape, shape), (dtype, dtype), inputs)
        y, z = arrays
    run.linear_activation(
        contiguous_rows(x),
        contiguous(weight),
        None if bias is None else contiguous(bias),
        act,
        as_rows(y),
        as_rows(z),
        settings.threads_and_mode(),
        tier,
    )
    if out is not None:
        y, z = deliver(out, arrays)
    if not return_saved:
        return y, None
    return y, (z if saves_z else y)


# fmt: off
@overload
def linear_activation_backward(
    grad_y: Array, x: Array, weight: Array, saved: Array, activation: FixedName = "relu", *,
    needs: None = None, out: Outs = None, accumulate: bool = False, backend: BackendName | None = None,
    precision: Precision | None = None, **parameters: Unpack[Parameters]
) -> tuple[Array, Array, Array]: ...
@overload
def linear_activation_backward(
    grad_y: Array, x: Array, weight: Array, saved: Array, activation: FixedName = "relu", *, needs: Needs,
    out: Outs = None, accumulate: bool = False, backend: BackendName | None = None,
    precision: Precision | None = None, **parameters: Unpack[Parameters]
) -> tuple[Grad, Grad, Grad]: ...
@overload
def linear_activation_backward(
    grad_y: Array, x: Array, weight: Array, saved: Array, activation: Literal["prelu"], *, slope: Array,
    needs: None = None, out: Outs = None, accumulate: bool = False, backend: BackendName | None = None,
    precision: Precision | None = None
) -> tuple[Array, Array, Array, Array]: ...
@overload
def linear_activation_backward(
    grad_y: Array, x: Array, weight: Array, saved: Array, activation: Literal["prelu"], *, slope: Array,
    needs: Needs, out: Outs = None, accumulate: bool = False, backend: BackendName | None = None,
    precision: Precision | None = None
) -> tuple[Grad, Grad, Grad, Grad]: ...
@overload
def linear_activation_backward(
    grad_y: Array, x: Array, weight: Array, saved: Array, activation: AnyActivation, *,
    needs: Needs | None = None, out: Outs = None, accumulate: bool = False,
    backend: BackendName | None = None, precision: Precision | None = None, **parameters: Unpack[Parameters]
) -> tuple[Grad, ...]: ...
# fmt: on
def linear_activation_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    saved: Array,
    activation: AnyActivation = "relu",
    *,
    needs: Needs | None = None,
    out: Outs = None,
    accumulate: bool = False,
    backend: BackendName | None = None,
    precision: Precision | None = None,
    **parameters: Unpack[Parameters],
) -> tuple[Grad, ...]:
    """The gradients of `linear_activation`.

    Args:
        grad_y: (..., out_features), the gradient of the loss with respect to y.
        x, weight, activation, **parameters: as the forward took them.
        saved: as the forward returned it.
        needs: which of (grad_x, grad_weight, grad_bias) to compute, for "prelu" also grad_slope; all by
            default.  The others come back as None.
        out: arrays to write the gradients to; each may be None. They must not overlap an input.
        accumulate: add the finished sums to the arrays of `out`, grad_x excepted.
        backend, precision: as for `linear_maxout`; give the precision of the forward.

    Returns:
        grad_x (..., in_features), grad_weight (out_features, in_features), grad_bias
        (out_features,), and for "prelu" grad_slope, of the slope's shape.

    Raises:
        TypeError: an argument is not an array, or of another dtype, a flag is not a bool, or the activation
            does not take a keyword.
        ValueError: shapes do not agree, or the activation is unknown.
    """
    run = backends.get(backend)
    check_backward(LINEAR_WEIGHT, grad_y, x, weight, saved)
    accumulate = check_flag("accumulate", accumulate)
    dtype = x.dtype
    act = activations.resolve(activation, len(weight), dtype, parameters)
    names, shapes = _GRADS, (x.shape, weight.shape, weight.shape[:1])
    if act.slope is not None:
        names, shapes = (*names, "grad_slope"), (*shapes, parameters["slope"].shape)  # type: ignore[assignment]
    wanted = (True,) * len(names) if needs is None else check_needs(needs, names)
    tier = settings.precision_in_force(precision)
    grads: Any
    if out is None and not accumulate:
        grads = [_empty(shape, dtype) if want else None for want, shape in zip(wanted, shapes, strict=True)]
    else:
        inputs = (grad_y, x, weight, saved, parameters.get("slope"))
        grads = output_arrays(
            out, names, wanted, shapes, (dtype,) * len(names), inputs, accumulate=accumulate
        )
    grad_x, grad_weight, grad_bias = grads[:3]
    grad_slope = grads[3] if act.slope is not None else None
    run.linear_activation_backward(
        contiguous_rows(grad_y),
        contiguous_rows(x),
        contiguous(weight),
        contiguous_rows(saved),
        act,
        as_rows(grad_x),
        grad_weight,
        grad_bias,
        None if grad_slope is None else grad_slope.reshape(-1),
        accumulate,
        settings.threads_and_mode(),
        tier,
    )
    return tuple(grads) if out is None else deliver(out, grads)


# ---- layer norm


# fmt: off
@overload
def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5, *,
    out: Out2 = None, return_saved: Literal[True] = True, backend: BackendName | None = None
) -> tuple[Array, Array]: ...
@overload
def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5, *,
    out: Out2 = None, return_saved: Literal[False], backend: BackendName | None = None
) -> tuple[Array, None]: ...
@overload
def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5, *,
    out: Out2 = None, return_saved: bool, backend: BackendName | None = None
) -> tuple[Array, Array | None]: ...
# fmt: on
def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Out2 = None,
    return_saved: bool = True,
    backend: BackendName | None = None,
) -> tuple[Array, Array | None]:
    """Layer normalisation of the last axis (Ba, Kiros & Hinton 2016).

        y = (x - mean) / sqrt(variance + eps) * weight + bias

    The mean and the variance are those of each row, with a division by `features`, as in
    `torch.nn.functional.layer_norm`.  A row far from 0 keeps its accuracy: the rounding of its mean is
    corrected.  A row of equal numbers gives the bias.  A row with an infinity or a NaN becomes NaN.  Nothing
    is promised for a row in which squares of x - mean overflow (above 1e19 in float32).

    Args:
        x: (..., features), float32 or float64; at least one feature.
        weight, bias: (features,), the dtype of x, or None for 1 and 0.
        eps: added to the variance; 0 or more.
        out: (y, saved), arrays to write the results to; either may be None. They must not overlap an input.
        return_saved: False, where no backward follows, keeps nothing: None is returned in place of saved.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        y, of x's shape, and saved (..., 2), what the backward needs: the mean and 1 / sqrt(variance + eps)
        of each row.

    Raises:
        TypeError: an argument is not an array, or of another dtype, eps is not a number, or a flag is not a
            bool.
        ValueError: shapes do not agree, there are no features, or eps is negative or not finite.
    """
    run = backends.get(backend)
    check_norm(x, weight, bias)
    dtype, kept_shape = x.dtype, (*x.shape[:-1], 2)
    eps = check_not_negative("eps", eps, LARGEST[dtype.char])
    return_saved = check_flag("return_saved", return_saved)
    if out is None:
        y, saved = _empty(x.shape, dtype), _empty(kept_shape, dtype) if return_saved else None
    else:
        names, wanted, shapes = ("y", "saved"), (True, return_saved), (x.shape, kept_shape)
        arrays = output_arrays(out, names, wanted, shapes, (dtype, dtype), (x, weight, bias))
        y, saved = arrays
    run.layer_norm(
        contiguous_rows(x),
        None if weight is None else contiguous(weight),
        None if bias is None else contiguous(bias),
        eps,
        as_rows(y),
        as_rows(saved),
        settings.threads_and_mode(),
    )
    return (y, saved) if out is None else deliver(out, arrays)


# fmt: off
@overload
def layer_norm_backward(
    grad_y: Array, x: Array, weight: Array | None, saved: Array, *, out: Outs = None,
    accumulate: bool = False, backend: BackendName | None = None
) -> tuple[Array, Array, Array]: ...
@overload
def layer_norm_backward(
    grad_y: Array, x: Array, weight: Array | None, saved: Array, *, needs: Needs, out: Outs = None,
    accumulate: bool = False, backend: BackendName | None = None
) -> tuple[Grad, Grad, Grad]: ...
# fmt: on
def layer_norm_backward(
    grad_y: Array,
    x: Array,
    weight: Array | None,
    saved: Array,
    *,
    needs: Needs = _ALL,
    out: Outs = None,
    accumulate: bool = False,
    backend: BackendName | None = None,
) -> tuple[Grad, Grad, Grad]:
    """The gradients of `layer_norm`, with normal = (x - mean) / sqrt(variance + eps), g = grad_y * weight.

        grad_x      = (g - mean(g) - normal * mean(g * normal)) / sqrt(variance + eps)
        grad_weight = sum over the rows of  grad_y * normal
        grad_bias   = sum over the rows of  grad_y

    Args:
        grad_y: (..., features), the gradient of the loss with respect to y.
        x, weight: as the forward took them.
        saved: as the forward returned it, (..., 2).
        needs: which of (grad_x, grad_weight, grad_bias) to compute; the others come back as None.
        out: three arrays to write the gradients to; each may be None. They must not overlap an input.
        accumulate: add the finished sums to the arrays of `out` for grad_weight and grad_bias
            (never for grad_x).
        backend: as for `layer_norm`.

    Returns:
        grad_x (..., features), grad_weight and grad_bias (features,), in the dtype of x.

    Raises:
        TypeError: an argument is not an array, or of another dtype, or a flag is not a bool.
        ValueError: shapes do not agree, or there are no features.
    """
    run = backends.get(backend)
    check_norm(x, weight, None)
    dtype, features = x.dtype, x.shape[-1:]
    grad = check_operand("grad_y", grad_y, dtype, x.shape)
    kept = check_operand("saved", saved, dtype, (*x.shape[:-1], 2))
    accumulate = check_flag("accumulate", accumulate)
    wanted = needs if needs is _ALL else check_needs(needs, _GRADS)
    shapes = (x.shape, features, features)
    grads: Any
    if out is None and not accumulate:
        grads = [_empty(shape, dtype) if want else None for want, shape in zip(wanted, shapes, strict=True)]
    else:
        inputs = (grad_y, x, weight, saved)
        grads = output_arrays(out, _GRADS, wanted, shapes, (dtype,) * 3, inputs, accumulate=accumulate)
    grad_x, grad_weight, grad_bias = grads
    run.layer_norm_backward(
        as_rows(grad),
        contiguous_rows(x),
        None if weight is None else contiguous(weight),
        as_rows(kept),
        as_rows(grad_x),
        grad_weight,
        grad_bias,
        accumulate,
        settings.threads_and_mode(),
    )
    return (grad_x, grad_weight, grad_bias) if out is None else deliver(out, grads)


# ---- element-wise activations


def activation(
    z: Array,
    activation: AnyActivation,
    *,
    out: Out = None,
    backend: BackendName | None = None,
    **parameters: Unpack[Parameters],
) -> Array:
    """y = activation(z), element by element.

    Args:
        z: float32 or float64, any shape; a PReLU slope per feature runs along its last axis.
        activation: a name of the table in `fastact.activations`, or a `CustomActivation`.
        out: an array to write y to; it may be z itself.
        backend: "c", "numba" or "numpy" for this call only.
        **parameters: the activation's own keywords.

    Returns:
        y, of z's shape and dtype.

    Raises:
        TypeError: z is not an array, or of another dtype, or the activation does not take a keyword.
        ValueError: the activation is unknown or a parameter is out of range.
    """
    run = backends.get(backend)
    check_array("z", z)
    features = z.shape[-1] if z.ndim else 1
    act = activations.resolve(activation, features, z.dtype, parameters)
    if out is None:
        y = _empty(z.shape, z.dtype)
    else:
        slope = parameters.get("slope")
        arrays = output_arrays(out, ("y",), (True,), (z.shape,), (z.dtype,), (slope,), in_place=(z,))
        (y,) = arrays
    operand, result = contiguous(z), y
    if act.slope is not None:
        operand, result = as_rows(operand), as_rows(y)
    run.activation(operand, act, result, settings.threads_and_mode())
    return y if out is None else deliver(out, arrays)[0]


# fmt: off
@overload
def activation_backward(
    grad_y: Array, saved: Array, activation: FixedName, *, out: Out = None, accumulate: bool = False,
    backend: BackendName | None = None, **parameters: Unpack[Parameters]
) -> Array: ...
@overload
def activation_backward(
    grad_y: Array, saved: Array, activation: Literal["prelu"], *, slope: Array, out: Out2 = None,
    accumulate: bool = False, backend: BackendName | None = None
) -> tuple[Array, Array]: ...
@overload
def activation_backward(
    grad_y: Array, saved: Array, activation: AnyActivation, *, out: Out | Out2 = None,
    accumulate: bool = False, backend: BackendName | None = None, **parameters: Unpack[Parameters]
) -> Array | tuple[Array, Array]: ...
# fmt: on
def activation_backward(
    grad_y: Array,
    saved: Array,
    activation: AnyActivation,
    *,
    out: Out | Out2 = None,
    accumulate: bool = False,
    backend: BackendName | None = None,
    **parameters: Unpack[Parameters],
) -> Array | tuple[Array, Array]:
    """The gradient of `activation`: grad_z = grad_y * dy/dz.

    Args:
        grad_y: float32 or float64, the gradient of the loss with respect to y.
        saved: y or z, as the table in `fastact.activations` says, of grad_y's shape and dtype.
        activation, **parameters: as the forward took them.
        out: an array to write grad_z to, which may be grad_y or saved; for "prelu" a tuple (grad_z,
            grad_slope).
        accumulate: add grad_slope to its array of `out`.
        backend: "c", "numba" or "numpy" for this call only.

    Returns:
        grad_z, of grad_y's shape and dtype; for "prelu" (grad_z, grad_slope).

    Raises:
        TypeError: an argument is not an array, or of another dtype, a flag is not a bool, or the activation
            does not take a keyword.
        ValueError: shapes do not agree, the activation is unknown or a parameter is out of range.
    """
    run = backends.get(backend)
    check_array("grad_y", grad_y)
    dtype = grad_y.dtype
    features = grad_y.shape[-1] if grad_y.ndim else 1
    kept = check_operand("saved", saved, dtype, grad_y.shape)
    accumulate = check_flag("accumulate", accumulate)
    act = activations.resolve(activation, features, dtype, parameters)
    names, shapes = ("grad_z",), (grad_y.shape,)
    if act.slope is not None:
        names, shapes = ("grad_z", "grad_slope"), (grad_y.shape, parameters["slope"].shape)  # type: ignore[assignment]
    results: Any
    if out is None and act.slope is None:
        results = (_empty(grad_y.shape, dtype),)
    else:
        results = output_arrays(
            out,
            names,
            (True,) * len(names),
            shapes,
            (dtype,) * len(names),
            (parameters.get("slope"),),
            accumulate=accumulate,
            in_place=(grad_y, saved),
        )
    grad, grad_z, grad_slope = contiguous(grad_y), results[0], None
    if act.slope is not None:
        grad, kept, grad_z = as_rows(grad), as_rows(kept), as_rows(grad_z)
        grad_slope = results[1].reshape(-1)
    run.activation_backward(
        grad,
        kept,
        act,
        grad_z,
        grad_slope,
        accumulate,
        settings.threads_and_mode(),
    )
    if out is not None:
        results = deliver(out, results)
    return tuple(results) if act.slope is not None else results[0]
