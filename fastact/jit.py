"""The Numba backend: the operations of `reference.py`, compiled when they are first called.

Shapes are those of `reference.py`.  Every product of the forward passes, and of the dense backward
passes, is made of tiles: a block of outputs is summed in a buffer that stays in the L2 cache, by a
register tile that is written in LLVM's vector types, and is finished (maximum, activation) from
there.  The backward of maxout touches the winners alone: it adds up rows of a table by a list of
indices, with the sums in registers.

Kernels are serial and run over ranges of cells; `pool.run` shares the cells among threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from . import pool
from .activations import Activation

Array = np.ndarray[Any, Any]

_CUT = 256  # terms in one running sum; the partial sums are then added, which bounds the rounding error


def _target() -> tuple[int, int]:
    """Bytes in a vector register, and the rows of a register tile, on the CPU that Numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    features = features.split(",")
    if "+avx512f" in features:
        return 64, 12
    if "+avx" in features:
        return 32, 6
    return 16, 6 if triple.startswith("x86_64") else 12  # 16 registers, or the 32 of other CPUs


_VECTOR_BYTES, _TILE_ROWS = _target()
_TILE_VECTORS = 2  # 6 x 2 sums, 2 vectors of weights and 1 of x fill 16 registers
_GATHER_VECTORS = 12  # sums in registers, of a gathered row
_BLOCK_ROWS = 240  # a block of rows x _BLOCK_COLUMNS stays in L2; a multiple of _TILE_ROWS
_BLOCK_COLUMNS = 256
_TABLE_BYTES = 24 * 1024  # a table of rows to gather from stays in L1
_CELL = 4096  # elements in a cell of an element-wise operation
_ELEMENT_WORK = 20  # floating-point operations that an activation takes as long as, roughly
_SORTED_ROWS = 1024  # rows whose winners are sorted at a time


def _compiled(function: Callable[..., Any]) -> Any:
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no directory can be written to
        return njit(**options)(function)


# ---- vectors in LLVM


class _Vectors:
    """Loads, stores and multiply-adds on vectors of an array's dtype."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.itemsize = dtype.bitwidth // 8
        self.lanes = _VECTOR_BYTES // self.itemsize
        self.type = ir.VectorType(context.get_value_type(dtype), self.lanes)
        name = f"llvm.fmuladd.v{self.lanes}f{dtype.bitwidth}"  # one FMA where the CPU has it
        signature = ir.FunctionType(self.type, [self.type] * 3)
        self._fmuladd = cgutils.get_or_insert_function(builder.module, signature, name)

    def zero(self) -> Any:
        return cgutils.alloca_once_value(self.builder, ir.Constant(self.type, None))

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def broadcast(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def multiply_add(self, a: Any, b: Any, total: Any) -> None:
        self.builder.store(self.builder.call(self._fmuladd, [a, b, self.builder.load(total)]), total)

    def add_to(self, pointer: Any, total: Any) -> None:
        self.store(self.builder.fadd(self.load(pointer), self.builder.load(total)), pointer)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.gep(make_array(array_type)(context, builder, array).data, [at])


@intrinsic
def _multiply(typing, x, x_at, row_step, depth_step, panel, panel_at, depth, tile, tile_at, tile_step):
    """The register tile: add x @ panel to _TILE_ROWS rows x _TILE_VECTORS vectors of `tile`.

    All arrays are flat.  Element (row, d) of x is at x_at + row * row_step + d * depth_step; panel is
    (depth, _TILE_VECTORS * lanes); the rows of the tile are tile_step apart.
    """
    signature = types.void(x, x_at, row_step, depth_step, panel, panel_at, depth, tile, tile_at, tile_step)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        vectors = _Vectors(context, builder, x.dtype)
        _, x_at, row_step, depth_step, _, panel_at, depth, _, tile_at, tile_step = arguments
        x_pointer = _pointer(context, builder, kinds[0], arguments[0], x_at)
        panel_pointer = _pointer(context, builder, kinds[4], arguments[4], panel_at)
        tile_pointer = _pointer(context, builder, kinds[7], arguments[7], tile_at)

        def along(pointer, step, count):
            return builder.gep(pointer, [builder.mul(step, step.type(count))])

        sums = [[vectors.zero() for _ in range(_TILE_VECTORS)] for _ in range(_TILE_ROWS)]
        x_rows = [along(x_pointer, row_step, row) for row in range(_TILE_ROWS)]
        with cgutils.for_range(builder, depth) as loop:
            d = loop.index
            line = along(panel_pointer, d, _TILE_VECTORS * vectors.lanes)
            weights = [vectors.load(along(line, d.type(vectors.lanes), v)) for v in range(_TILE_VECTORS)]
            x_step = builder.mul(d, depth_step)
            for x_row, row_sums in zip(x_rows, sums, strict=True):
                value = vectors.broadcast(builder.load(builder.gep(x_row, [x_step])))
                for weight, total in zip(weights, row_sums, strict=True):
                    vectors.multiply_add(value, weight, total)
        for row, row_sums in enumerate(sums):
            tile_row = along(tile_pointer, tile_step, row)
            for v, total in enumerate(row_sums):
                vectors.add_to(along(tile_row, d.type(vectors.lanes), v), total)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _gather(typing, table, index, index_at, scale, scale_at, count, vectors, out, out_at):
    """Add the sum over i < count of scale[scale_at + i] * table[index[index_at + i] :] to out[out_at :].

    All arrays are flat; `vectors` vectors of each row are read and added, 1 to _GATHER_VECTORS.
    """
    signature = types.void(table, index, index_at, scale, scale_at, count, vectors, out, out_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = _Vectors(context, builder, table.dtype)
        _, _, index_at, _, scale_at, count, vectors, _, out_at = arguments
        table_pointer = make_array(kinds[0])(context, builder, arguments[0]).data
        index_pointer = _pointer(context, builder, kinds[1], arguments[1], index_at)
        scale_pointer = _pointer(context, builder, kinds[3], arguments[3], scale_at)
        out_pointer = _pointer(context, builder, kinds[7], arguments[7], out_at)

        def gather(width):
            sums = [kind.zero() for _ in range(width)]
            with cgutils.for_range(builder, count) as loop:
                start = builder.load(builder.gep(index_pointer, [loop.index]))
                row = builder.gep(table_pointer, [builder.zext(start, count.type)])
                value = kind.broadcast(builder.load(builder.gep(scale_pointer, [loop.index])))
                for v, total in enumerate(sums):
                    kind.multiply_add(value, kind.load(builder.gep(row, [count.type(v * kind.lanes)])), total)
            for v, total in enumerate(sums):
                kind.add_to(builder.gep(out_pointer, [count.type(v * kind.lanes)]), total)

        done = builder.append_basic_block("gathered")
        cases = builder.switch(vectors, done)  # the number of registers has to be known to the compiler
        for width in range(1, _GATHER_VECTORS + 1):
            block = builder.append_basic_block(f"gather{width}")
            cases.add_case(vectors.type(width), block)
            builder.position_at_end(block)
            gather(width)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


# ---- blocks


@_compiled
def _blocks(total, limit):
    """Into how many blocks of at most `limit`, and of what size, to split `total`, as evenly as can be."""
    count = max(1, (total + limit - 1) // limit)
    return count, (total + count - 1) // count


@_compiled
def _lanes(array):
    return _VECTOR_BYTES // array.itemsize


@_compiled
def _panel(array):
    """Columns of a register tile."""
    return _TILE_VECTORS * _lanes(array)


@_compiled
def _round_up(count, multiple):
    return (count + multiple - 1) // multiple * multiple


@_compiled
def _buffer(count, like):
    """`count` zeros of like's dtype, aligned to a cache line."""
    raw = np.zeros(count + 64 // like.itemsize, like.dtype)
    skip = -raw.ctypes.data % 64 // raw.itemsize
    return raw[skip : skip + count]


@_compiled
def _copy_rows(source, row, rows, column, columns, block, step):
    """source[row : row + rows, column : column + columns] to a flat block whose rows are `step` apart."""
    for r in range(rows):
        for c in range(columns):
            block[r * step + c] = source[row + r, column + c]


@_compiled
def _pack_columns(source, row, depth, column, columns, width, panels):
    """source[row : row + depth, column : column + columns] to panels (columns / width, depth, width)."""
    for first in range(0, columns, width):
        count = min(width, columns - first)
        for d in range(depth):
            for c in range(count):
                panels[first * depth + d * width + c] = source[row + d, column + first + c]


@_compiled
def _pack_units(weight, pieces, output, outputs, start, depth, panels):
    """The units of `outputs` outputs from `output` on, to panels (units / width, depth, width).

    weight is (out_features * pieces, in_features), of which [start, start + depth) is taken.  The units
    are put in the order (pieces, outputs), so that a maximum runs over whole rows of outputs.
    """
    width = _panel(weight)
    for unit in range(outputs * pieces):
        row = (output + unit % outputs) * pieces + unit // outputs
        at = unit // width * width * depth + unit % width
        for d in range(depth):
            panels[at + d * width] = weight[row, start + d]


@_compiled
def _multiply_block(x, rows, row_step, depth_step, panels, columns, depth, tile, tile_step):
    """tile (rows, columns) += x @ panels, where _TILE_ROWS rows of x take _TILE_ROWS * depth elements."""
    width = _panel(tile)
    for column in range(0, columns, width):
        for row in range(0, rows, _TILE_ROWS):
            tile_at = row * tile_step + column
            _multiply(
                x, row * depth, row_step, depth_step, panels, column * depth, depth, tile, tile_at, tile_step
            )


# ---- forward products


@_compiled
def _tile_buffers(rows, columns, like):
    """The tile, a block of x and the panels of weights, each padded to whole register tiles."""
    rows = _round_up(rows, _TILE_ROWS)
    columns = _round_up(columns, _panel(like))
    return _buffer(rows * columns, like), _buffer(rows * _CUT, like), _buffer(columns * _CUT, like)


@_compiled
def _preactivations(x, row, rows, weight, pieces, output, outputs, bias, buffers):
    """The pre-activations of a block, (rows, pieces, outputs) in buffers[0]; returns the step of its rows.

    weight is (out_features * pieces, in_features), bias flat of that length, or empty.
    """
    tile, block, panels = buffers
    units = outputs * pieces
    step = _round_up(units, _panel(x))
    tile[: rows * step] = 0
    if bias.size:
        for r in range(rows):
            for k in range(pieces):
                for j in range(outputs):
                    tile[r * step + k * outputs + j] = bias[(output + j) * pieces + k]
    in_features = x.shape[1]
    for start in range(0, in_features, _CUT):
        depth = min(_CUT, in_features - start)
        _copy_rows(x, row, rows, start, depth, block, depth)
        _pack_units(weight, pieces, output, outputs, start, depth, panels)
        _multiply_block(block, rows, depth, 1, panels, units, depth, tile, step)
    return step


@_compiled
def _running_maximum(z, at, step, pieces, best, index, count):
    """Of the `pieces` values z[at + k * step + i], best[i] at index[i]: the first NaN, else the largest."""
    for i in range(count):
        best[i] = z[at + i]
        index[i] = 0
    for k in range(1, pieces):
        for i in range(count):
            value = z[at + k * step + i]
            wins = (value > best[i]) | ((value != value) & (best[i] == best[i]))
            best[i] = value if wins else best[i]
            index[i] = k if wins else index[i]


@_compiled
def _linear_maxout_cells(x, weight, pieces, bias, y, argmax, first, last):
    """Cells are (blocks of outputs) x (blocks of rows); argmax may be empty."""
    rows, out_features = y.shape
    _, outputs = _blocks(out_features, max(1, _BLOCK_COLUMNS // pieces))
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    buffers = _tile_buffers(block_rows, outputs * pieces, x)
    best = np.empty(outputs, x.dtype)
    index = np.empty(outputs, np.uint8)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = _preactivations(x, row, stop - row, weight, pieces, output, count, bias, buffers)
        for n in range(row, stop):
            _running_maximum(buffers[0], (n - row) * step, count, pieces, best, index, count)
            for j in range(count):
                y[n, output + j] = best[j]
            if argmax.size:
                for j in range(count):
                    argmax[n, output + j] = index[j]


# ---- backward of maxout: the winners alone


@_compiled
def _table_width(columns, like):
    """Into how many tables, and of how many vectors, to split `columns`."""
    lanes = _lanes(like)
    return _blocks((columns + lanes - 1) // lanes, _GATHER_VECTORS)


@_compiled
def _grad_x_cells(grad_y, weight, pieces, argmax, grad_x, first, last):
    """Cells are (blocks of columns) x (blocks of rows); weight is (out_features * pieces, in_features)."""
    rows, in_features = grad_x.shape
    out_features = grad_y.shape[1]
    flat_grad = grad_y.reshape(grad_y.size)
    _, vectors = _table_width(in_features, weight)
    width = vectors * _lanes(weight)
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    _, outputs = _blocks(out_features, max(16, _TABLE_BYTES // max(1, pieces * width * weight.itemsize)))
    outputs = max(1, outputs)
    table = _buffer(outputs * pieces * width, weight)
    sums = _buffer(block_rows * width, weight)
    index = np.empty(outputs, np.uint32)
    for cell in range(first, last):
        column, row = cell // row_blocks * width, cell % row_blocks * block_rows
        columns = min(width, in_features - column)
        stop = min(row + block_rows, rows)
        sums[:] = 0
        for output in range(0, out_features, outputs):
            count = min(outputs, out_features - output)
            _copy_rows(weight, output * pieces, count * pieces, column, columns, table, width)
            for n in range(row, stop):
                for j in range(count):
                    index[j] = (j * pieces + argmax[n, output + j]) * width
                at = n * out_features + output
                _gather(table, index, 0, flat_grad, at, count, vectors, sums, (n - row) * width)
        for n in range(row, stop):
            for c in range(columns):
                grad_x[n, column + c] = sums[(n - row) * width + c]


@_compiled
def _sort_winners(grad_y, argmax, pieces, row, rows, output, outputs, width, starts, order, scale):
    """A counting sort of a block of rows by winning piece, for each of `outputs` outputs.

    Rows that piece k of output j won stand at starts[j, k] to starts[j, k + 1] of order[j] (the place of
    the row in a table of that width) and of scale[j] (its grad_y).
    """
    starts[:] = 0
    for r in range(rows):
        for j in range(outputs):
            starts[j, argmax[row + r, output + j] + 2] += 1
    for j in range(outputs):
        for k in range(2, pieces + 1):
            starts[j, k + 1] += starts[j, k]
    for r in range(rows):
        for j in range(outputs):
            k = argmax[row + r, output + j] + 1
            at = starts[j, k]
            starts[j, k] = at + 1
            order[j, at] = r * width
            scale[j, at] = grad_y[row + r, output + j]


@_compiled
def _grad_weight_cells(grad_y, x, argmax, pieces, grad_weight, grad_bias, accumulate, first, last):
    """Cells are blocks of outputs; grad_weight (.., in_features) or grad_bias may be empty, shape (0, ..)."""
    rows, in_features = x.shape
    out_features = grad_y.shape[1]
    _, outputs = _blocks(out_features, max(16, _BLOCK_COLUMNS // pieces))
    tables, vectors = _table_width(in_features if grad_weight.size else 0, x)
    width = vectors * _lanes(x)
    block_rows = min(_CUT, max(1, _TABLE_BYTES // max(1, width * x.itemsize)))
    blocks = min(_SORTED_ROWS, rows) // block_rows + 1

    table = _buffer(block_rows * width, x)
    sums = _buffer(tables * outputs * pieces * width, x)
    bias_sums = np.empty(outputs * pieces, x.dtype)
    starts = np.empty((blocks, outputs, pieces + 2), np.int64)
    order = np.empty((blocks, outputs, block_rows), np.uint32)
    scale = np.empty((blocks, outputs, block_rows), x.dtype)
    flat_order, flat_scale = order.reshape(order.size), scale.reshape(scale.size)

    for cell in range(first, last):
        output = cell * outputs
        count = min(outputs, out_features - output)
        sums[:] = 0
        bias_sums[:] = 0
        for chunk in range(0, rows, blocks * block_rows):
            chunk_blocks = min(blocks, (rows - chunk + block_rows - 1) // block_rows)
            for b in range(chunk_blocks):
                row = chunk + b * block_rows
                _sort_winners(
                    grad_y,
                    argmax,
                    pieces,
                    row,
                    min(block_rows, rows - row),
                    output,
                    count,
                    width,
                    starts[b],
                    order[b],
                    scale[b],
                )
                for j in range(count):
                    for k in range(pieces):
                        partial = x.dtype.type(0)
                        for i in range(starts[b, j, k], starts[b, j, k + 1]):
                            partial += scale[b, j, i]
                        bias_sums[j * pieces + k] += partial
            for t in range(tables):
                columns = min(width, in_features - t * width)
                for b in range(chunk_blocks):
                    row = chunk + b * block_rows
                    _copy_rows(x, row, min(block_rows, rows - row), t * width, columns, table, width)
                    for j in range(count):
                        for k in range(pieces):
                            at = (b * outputs + j) * block_rows + starts[b, j, k]
                            winners = starts[b, j, k + 1] - starts[b, j, k]
                            sum_at = ((t * outputs + j) * pieces + k) * width
                            _gather(table, flat_order, at, flat_scale, at, winners, vectors, sums, sum_at)
        for t in range(tables):
            for unit in range(count * pieces):
                for c in range(min(width, in_features - t * width)):
                    value = sums[(t * outputs * pieces + unit) * width + c]
                    if accumulate:
                        value += grad_weight[output * pieces + unit, t * width + c]
                    grad_weight[output * pieces + unit, t * width + c] = value
        if grad_bias.size:
            for unit in range(count * pieces):
                value = bias_sums[unit]
                if accumulate:
                    value += grad_bias[output * pieces + unit]
                grad_bias[output * pieces + unit] = value


# ---- bare maxout


@_compiled
def _maxout_grid(inner):
    """Rows, and values of a row, in a cell of a bare maxout over (outer, pieces, inner)."""
    return max(1, _CELL // max(1, inner)), max(1, min(inner, _CELL))


@_compiled
def _maxout_cells(z, y, argmax, first, last):
    """Cells are blocks of (outer, inner), as _maxout_grid has them; argmax may be empty."""
    outer, pieces, inner = z.shape
    flat = z.reshape(z.size)
    rows, count = _maxout_grid(inner)
    across = (inner + count - 1) // count
    best = np.empty(count, z.dtype)
    index = np.empty(count, np.uint8)
    for cell in range(first, last):
        row, start = cell // across * rows, cell % across * count
        stop = min(start + count, inner)
        for o in range(row, min(row + rows, outer)):
            _running_maximum(flat, o * pieces * inner + start, inner, pieces, best, index, stop - start)
            for i in range(start, stop):
                y[o, i] = best[i - start]
            if argmax.size:
                for i in range(start, stop):
                    argmax[o, i] = index[i - start]


@_compiled
def _maxout_backward_cells(grad_y, argmax, grad_z, first, last):
    outer, pieces, inner = grad_z.shape
    rows, count = _maxout_grid(inner)
    across = (inner + count - 1) // count
    for cell in range(first, last):
        row, start = cell // across * rows, cell % across * count
        stop = min(start + count, inner)
        for o in range(row, min(row + rows, outer)):
            for k in range(pieces):
                for i in range(start, stop):
                    grad_z[o, k, i] = 0
            for i in range(start, stop):
                grad_z[o, argmax[o, i], i] = grad_y[o, i]


# ---- activations: in float64, rounded once for a float32 array

(
    _LINEAR,
    _RELU,
    _LEAKY_RELU,
    _PRELU,
    _ELU,
    _SELU,
    _GELU,
    _GELU_TANH,
    _SILU,
    _SOFTPLUS,
    _MISH,
    _SIGMOID,
    _TANH,
) = range(13)  # `enum fa_activation`
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_SQRT_HALF = math.sqrt(0.5)
_TANH_GELU = math.sqrt(2 / math.pi)
_LARGEST = np.finfo(np.float64).max


@_compiled
def _sigmoid(z):
    e = math.exp(-abs(z))
    return (e if z < 0 else 1.0) / (1.0 + e)


@_compiled
def _softplus(z):
    return (z if not z <= 0 else 0.0) + math.log1p(math.exp(-abs(z)))


@_compiled
def _normal_cdf(z):
    return 0.5 * math.erfc(-z * _SQRT_HALF)


@_compiled
def _activate(code, parameter, z):
    """parameter is the negative slope, or alpha."""
    if code == _LINEAR:
        return z
    if code == _RELU:
        return z if not z <= 0 else 0.0
    if code in (_LEAKY_RELU, _PRELU):
        return z if z > 0 else parameter * z
    if code == _ELU:
        return z if z > 0 else parameter * math.expm1(z)
    if code == _SELU:
        return _SELU_SCALE * (z if z > 0 else _SELU_ALPHA * math.expm1(z))
    if code == _SOFTPLUS:
        return _softplus(z)
    if code == _SIGMOID:
        return _sigmoid(z)
    if code == _TANH:
        return math.tanh(z)
    if z == np.inf:
        return z
    z = -_LARGEST if z < -_LARGEST else z  # so that -inf * 0 is 0, the limit
    if code == _GELU:
        return z * _normal_cdf(z)
    if code == _GELU_TANH:
        return z * _sigmoid(2 * _TANH_GELU * (z + 0.044715 * z * z * z))  # 0.5 (1 + tanh u) = sigmoid(2 u)
    if code == _SILU:
        return z * _sigmoid(z)
    return z * math.tanh(_softplus(z))  # _MISH


@_compiled
def _derivative(code, parameter, saved):
    """dy/dz from what the forward saved: y for sigmoid and tanh, z for the others; not for relu."""
    if code == _LINEAR:
        return 1.0
    if code in (_LEAKY_RELU, _PRELU):
        return 1.0 if saved > 0 else parameter
    if code == _ELU:
        return 1.0 if saved > 0 else parameter * math.exp(saved)
    if code == _SELU:
        return _SELU_SCALE * (1.0 if saved > 0 else _SELU_ALPHA * math.exp(saved))
    if code == _SOFTPLUS:
        return _sigmoid(saved)
    if code == _SIGMOID:
        return saved * (1 - saved)
    if code == _TANH:
        return (1 - saved) * (1 + saved)
    # beyond +-1e4 the derivative is 0 or 1, and infinities would make NaN of it
    z = -1e4 if saved < -1e4 else 1e4 if saved > 1e4 else saved
    if code == _GELU:
        return _normal_cdf(z) + z * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    if code == _GELU_TANH:
        s = _sigmoid(2 * _TANH_GELU * (z + 0.044715 * z * z * z))
        return s + z * s * (1 - s) * 2 * _TANH_GELU * (1 + 3 * 0.044715 * z * z)
    if code == _SILU:
        return _sigmoid(z) * (1 + z * _sigmoid(-z))
    t = math.tanh(_softplus(z))  # _MISH
    return t + z * (1 - t * t) * _sigmoid(z)


@_compiled
def _propagate(code, parameter, saved, grad):
    if code == _RELU:
        return 0.0 if saved <= 0 else grad  # an infinite grad times 0 would be NaN
    return grad * _derivative(code, parameter, saved)


@_compiled
def _activation_cells(code, parameters, z, y, first, last):
    """z and y are flat; parameters (n,), float64, repeats along them.  A cell is _CELL of them."""
    for i in range(first * _CELL, min(last * _CELL, z.size)):
        y[i] = _activate(code, parameters[i % parameters.size], np.float64(z[i]))


@_compiled
def _activation_backward_cells(code, parameters, grad_y, saved, grad_z, first, last):
    for i in range(first * _CELL, min(last * _CELL, saved.size)):
        parameter = parameters[i % parameters.size]
        grad_z[i] = _propagate(code, parameter, np.float64(saved[i]), np.float64(grad_y[i]))


@_compiled
def _grad_slope_cells(grad_y, saved, total, first, last):
    """total[c] = the sum of grad_y * saved over rows with saved <= 0 or NaN; a cell is a column."""
    for c in range(first, last):
        total[c] = 0
        for start in range(0, len(saved), _CUT):
            partial = 0.0
            for n in range(start, min(start + _CUT, len(saved))):
                if not saved[n, c] > 0:
                    partial += np.float64(grad_y[n, c]) * saved[n, c]
            total[c] += partial


# ---- linear + activation


@_compiled
def _linear_activation_cells(x, weight, bias, code, parameters, y, z, first, last):
    """Cells as in _linear_maxout_cells, with one piece; z may be empty."""
    rows, out_features = y.shape
    _, outputs = _blocks(out_features, _BLOCK_COLUMNS)
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    buffers = _tile_buffers(block_rows, outputs, x)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = _preactivations(x, row, stop - row, weight, 1, output, count, bias, buffers)
        for n in range(row, stop):
            at = (n - row) * step
            for j in range(count):
                parameter = parameters[(output + j) % parameters.size]
                y[n, output + j] = _activate(code, parameter, np.float64(buffers[0][at + j]))
            if z.size:
                for j in range(count):
                    z[n, output + j] = buffers[0][at + j]


@_compiled
def _product_cells(a, transposed, b, out, accumulate, first, last):
    """out (rows, columns) = a @ b, of a (rows, depth) or, transposed, (depth, rows); b is (depth, columns).

    Cells are (blocks of columns) x (blocks of rows).
    """
    rows, columns = out.shape
    _, block_columns = _blocks(columns, _BLOCK_COLUMNS)
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    tile, block, panels = _tile_buffers(block_rows, block_columns, b)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        width = min(block_columns, columns - column)
        height = min(block_rows, rows - row)
        step = _round_up(width, _panel(b))
        tile[: height * step] = 0
        for start in range(0, len(b), _CUT):
            depth = min(_CUT, len(b) - start)
            if transposed:
                _pack_columns(a, start, depth, row, height, _TILE_ROWS, block)
            else:
                _copy_rows(a, row, height, start, depth, block, depth)
            row_step, depth_step = (1, _TILE_ROWS) if transposed else (depth, 1)
            _pack_columns(b, start, depth, column, width, _panel(b), panels)
            _multiply_block(block, height, row_step, depth_step, panels, width, depth, tile, step)
        for r in range(height):
            for c in range(width):
                value = tile[r * step + c]
                if accumulate:
                    value += out[row + r, column + c]
                out[row + r, column + c] = value


@_compiled
def _column_sums_cells(a, out, accumulate, first, last):
    """out (columns,) = the sum over the rows of a; a cell is _CUT columns."""
    total = np.empty(_CUT, a.dtype)
    partial = np.empty(_CUT, a.dtype)
    for start in range(first * _CUT, min(last * _CUT, out.size), _CUT):
        count = min(_CUT, out.size - start)
        total[:] = 0
        for row in range(0, len(a), _CUT):
            partial[:] = 0
            for n in range(row, min(row + _CUT, len(a))):
                for c in range(count):
                    partial[c] += a[n, start + c]
            total += partial
        for c in range(count):
            out[start + c] = out[start + c] + total[c] if accumulate else total[c]


# ---- the backend's functions, as in reference.py


def _own(array: Array) -> Array:
    """`array`, or a copy where it is read-only or misaligned: Numba would compile every kernel again."""
    return array if array.flags.carray else np.array(array)


def _or_empty(array: Array | None, like: Array, dims: int) -> Array:
    """None as an empty array, so that a kernel is compiled once."""
    return np.empty((0,) * dims, like.dtype) if array is None else _own(array)


def _cells(*counts_and_limits: tuple[int, int]) -> int:
    return math.prod(-(-count // limit) for count, limit in counts_and_limits)


def linear_maxout(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    argmax: Array | None,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    out_features, pieces, in_features = weight.shape
    units = out_features * pieces
    pool.run(
        _linear_maxout_cells,
        _cells((out_features, max(1, _BLOCK_COLUMNS // pieces)), (len(x), _BLOCK_ROWS)),
        2.0 * len(x) * in_features * units,
        threads,
        _own(x),
        _own(weight).reshape(units, in_features),
        pieces,
        np.empty(0, x.dtype) if bias is None else _own(bias).reshape(units),
        y,
        np.empty((0, 0), np.uint8) if argmax is None else argmax,
    )


def linear_maxout_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    argmax: Array,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    accumulate: bool = False,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    out_features, pieces, in_features = weight.shape
    units = out_features * pieces
    work = 2.0 * grad_y.size * in_features
    grad_y, x, argmax = _own(grad_y), _own(x), _own(argmax)
    if grad_x is not None:
        table_columns = _GATHER_VECTORS * _VECTOR_BYTES // x.itemsize
        pool.run(
            _grad_x_cells,
            _cells((in_features, table_columns), (len(x), _BLOCK_ROWS)),
            work,
            threads,
            grad_y,
            _own(weight).reshape(units, in_features),
            pieces,
            argmax,
            grad_x,
        )
    if grad_weight is not None or grad_bias is not None:
        pool.run(
            _grad_weight_cells,
            _cells((out_features, max(16, _BLOCK_COLUMNS // pieces))),
            work,
            threads,
            grad_y,
            x,
            argmax,
            pieces,
            np.empty((0, 0), x.dtype) if grad_weight is None else grad_weight.reshape(units, in_features),
            np.empty(0, x.dtype) if grad_bias is None else grad_bias.reshape(units),
            accumulate,
        )


def _maxout_cell_count(outer: int, inner: int) -> int:
    rows, count = _maxout_grid.py_func(inner)
    return _cells((outer, rows), (inner, count))


def maxout(z: Array, y: Array, argmax: Array | None, threads: int = 0) -> None:
    outer, _, inner = z.shape
    pool.run(
        _maxout_cells,
        _maxout_cell_count(outer, inner),
        float(z.size),
        threads,
        _own(z),
        y,
        np.empty((0, 0), np.uint8) if argmax is None else argmax,
    )


def maxout_backward(grad_y: Array, argmax: Array, grad_z: Array, threads: int = 0) -> None:
    outer, _, inner = grad_z.shape
    cells = _maxout_cell_count(outer, inner)
    pool.run(_maxout_backward_cells, cells, float(grad_z.size), threads, _own(grad_y), _own(argmax), grad_z)


def _parameters(act: Activation, dtype: np.dtype[Any]) -> Array:
    """The parameter, rounded to the dtype as NumPy does, or the slopes; in float64."""
    values = np.array([act.parameter], dtype) if act.slope is None else act.slope
    return values.astype(np.float64)


def activation(z: Array, act: Activation, y: Array, threads: int = 0) -> None:
    parameters = _parameters(act, z.dtype)
    flat = _own(z).reshape(z.size)
    work = float(_ELEMENT_WORK * z.size)
    pool.run(
        _activation_cells,
        _cells((z.size, _CELL)),
        work,
        threads,
        act.code,
        parameters,
        flat,
        y.reshape(y.size),
    )


def activation_backward(
    grad_y: Array,
    saved: Array,
    act: Activation,
    grad_z: Array,
    grad_slope: Array | None = None,
    accumulate: bool = False,
    threads: int = 0,
) -> None:
    grad_y, saved = _own(grad_y), _own(saved)
    work = float(_ELEMENT_WORK * saved.size)
    if grad_slope is not None:
        _grad_slope(grad_y, saved, grad_slope, accumulate, work, threads)
    pool.run(
        _activation_backward_cells,
        _cells((saved.size, _CELL)),
        work,
        threads,
        act.code,
        _parameters(act, saved.dtype),
        grad_y.reshape(saved.size),
        saved.reshape(saved.size),
        grad_z.reshape(saved.size),
    )


def _grad_slope(
    grad_y: Array, saved: Array, grad_slope: Array, accumulate: bool, work: float, threads: int
) -> None:
    features = saved.shape[1]
    totals = np.empty(features)
    pool.run(_grad_slope_cells, features, work, threads, grad_y, saved, totals)
    total = totals if grad_slope.size == features else totals.sum(keepdims=True)
    np.add(total, grad_slope if accumulate else 0, out=grad_slope, casting="same_kind")


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None,
    act: Activation,
    y: Array,
    z: Array | None,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    out_features, in_features = weight.shape
    pool.run(
        _linear_activation_cells,
        _cells((out_features, _BLOCK_COLUMNS), (len(x), _BLOCK_ROWS)),
        2.0 * y.size * in_features,
        threads,
        _own(x),
        _own(weight),
        _or_empty(bias, x, 1),
        act.code,
        _parameters(act, x.dtype),
        y,
        _or_empty(z, x, 2),
    )


def linear_activation_backward(
    grad_y: Array,
    x: Array,
    weight: Array,
    saved: Array,
    act: Activation,
    grad_x: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    grad_slope: Array | None,
    accumulate: bool = False,
    threads: int = 0,
    precision: str = "highest",
) -> None:
    out_features, in_features = weight.shape
    work = 2.0 * grad_y.size * in_features
    grad_z = np.empty_like(grad_y)
    activation_backward(grad_y, saved, act, grad_z, grad_slope, accumulate, threads)
    if grad_x is not None:
        cells = _cells((in_features, _BLOCK_COLUMNS), (len(x), _BLOCK_ROWS))
        pool.run(_product_cells, cells, work, threads, grad_z, False, _own(weight), grad_x, False)
    if grad_weight is not None:
        cells = _cells((in_features, _BLOCK_COLUMNS), (out_features, _BLOCK_ROWS))
        pool.run(_product_cells, cells, work, threads, grad_z, True, _own(x), grad_weight, accumulate)
    if grad_bias is not None:
        cells = _cells((out_features, _CUT))
        pool.run(_column_sums_cells, cells, float(grad_z.size), threads, grad_z, grad_bias, accumulate)
