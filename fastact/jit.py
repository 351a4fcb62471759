"""The Numba backend: the operations of `reference.py`, compiled when they are first called.

Shapes are those of `reference.py`.  Every product of the forward passes, and of the dense backward
passes, is made of tiles: a block of outputs is summed in a buffer that stays in the L2 cache, by a
register tile that is written in LLVM's vector types, or for a row or two by dots, and is finished
(maximum, activation) from there.  The backward of maxout touches the winners alone: it adds up rows
of a table, with the sums in registers; the rows are those that a list of indices names for the
gradient of x, and those whose bits of a word are set for the gradient of the weights.

Kernels are serial and run over ranges of cells; `pool.run` shares the cells among threads.  Those
that call each other are in one file: Numba's cache on disk looks at the age of a kernel's own file.
"""

# Kernels are typed by Numba, and an intrinsic's first parameter is Numba's own.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, disable-error-code="call-arg"

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from . import pool
from .activations import SELU_ALPHA as _SELU_ALPHA
from .activations import SELU_SCALE as _SELU_SCALE
from .activations import TABLE, Activation
from .jit_compile import compiled as _compiled
from .jit_updates import adam as adam
from .jit_updates import max_norm as max_norm
from .jit_updates import sgd as sgd
from .reference import check_argmax
from .reference import mse as mse  # a few passes over arrays, which NumPy does as fast

Array = np.ndarray[Any, Any]

_CUT = 128  # terms in one running sum; adding the partial sums apart keeps the rounding error small


def _target() -> tuple[int, int]:
    """Bytes in a vector register, and the rows of a register tile, on the CPU that Numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    features = features.split(",")
    if "+avx512f" in features:
        return 64, 12
    if "+avx" in features:
        return 32, 6
    return 16, 6 if triple.startswith("x86_64") else 12  # 16 registers, or the 32 of other CPUs


_CHUNK = 1024  # terms whose partial sums have a total of their own

_VECTOR_BYTES, _TILE_ROWS = _target()
# Of a tile for the last rows, or the only one: lower would take as long, in which each sum waits for itself.
# One row of 1024 x 1024 x 2 takes 290 us instead of 390, 64 x 288 x 96 x 3 takes 68 us instead of 77.
_LOW_TILE_ROWS = 4
# So few rows do not pay for packing: dots with the weights where they lie.  1, 2 and 4 rows of
# 1024 x 1024 x 2 take 135, 180 and 300 us instead of 305, 250 and 330, of 288 x 96 x 3 12, 15 and 22
# instead of 17, 17 and 18.
_DOT_ROWS = 2
_TILE_VECTORS = 2  # 6 x 2 sums, 2 vectors of weights and 1 of x fill 16 registers
_GATHER_VECTORS = 12  # sums in registers, of a gathered row
_SET = 64  # rows whose winners are bits of one word
_SET_VECTORS = 8  # of a row in a table of _SET rows: 32 KiB with AVX-512
# A block of rows x _BLOCK_COLUMNS stays in L2; a multiple of _TILE_ROWS.  480 rows or more take 3 to 8% less
# time than 240, forward and grad_x, at 1024 x 1024 x 1024 x 2 and 1024 x 288 x 96 x 3; of 516, 1024 rows are
# two blocks, which two threads can share.
_BLOCK_ROWS = 516
_BLOCK_COLUMNS = 256
_TABLE_BYTES = 32 * 1024  # a table of rows to gather from stays in L1
_CELL = 4096  # elements in a cell of an element-wise operation
_ELEMENT_WORK = 20  # floating-point operations that an activation takes as long as, roughly
# In a table at the most: as many as fit, 512 of 16 columns, had up to 1.6 times the error of NumPy's product,
# and took 640 us for grad_x of 1000 x 16 x 640 x 1, where 64 take 530 and 32 take 510.
_TABLE_OUTPUTS = 32
_GATHERED_OUTPUTS = 256  # whose sums have a total of their own in a gather: they are few partial sums
# More pieces leave a table a few terms of each sum, so fewer tables have a total of their own: as many as for
# one piece had up to 1.4 times the error of NumPy's product for grad_x at 16, 1.2 times for grad_weight.
_MANY_PIECES = 8
_TABLES = 4  # filled at a time, so that memory is read in long runs


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

    def broadcast(self, scalar: Any, kind: Any = None) -> Any:
        undefined = ir.Constant(kind or self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def swap(self, upper: Any, lower: Any, half: int) -> tuple[Any, Any]:
        """Of each 2 * half lanes, the second half of `upper` against the first half of `lower`."""

        def pick(second: int) -> Any:
            lanes = [
                i + second if not i & half else i - half + second + self.lanes for i in range(self.lanes)
            ]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), lanes)
            return self.builder.shuffle_vector(upper, lower, mask)

        return pick(0), pick(half)

    def multiply_add(self, a: Any, b: Any, total: Any) -> None:
        self.builder.store(self.builder.call(self._fmuladd, [a, b, self.builder.load(total)]), total)

    def fence(self) -> None:
        """No load moves across.  Else LLVM brings the loads of a tile's rows forward, more than there are
        registers, and spills: 98 GFLOP/s instead of 214, at 1024 x 1024 x 1024 x 2 with AVX-512."""
        kind = ir.FunctionType(ir.VoidType(), [])
        self.builder.call(ir.InlineAsm(kind, "", "~{memory}", side_effect=True), [])

    def add_to(self, pointer: Any, total: Any) -> None:
        self.store(self.builder.fadd(self.load(pointer), self.builder.load(total)), pointer)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.gep(make_array(array_type)(context, builder, array).data, [at])


@intrinsic
def _multiply(typing, x, x_at, rows, row_step, depth_step, panel, panel_at, depth, tile, tile_at, tile_step):
    """The register tile: add x @ panel to _TILE_ROWS rows x _TILE_VECTORS vectors of `tile`.

    Where no more than _LOW_TILE_ROWS rows are left, it is only that high.

    All arrays are flat.  Element (row, d) of x is at x_at + row * row_step + d * depth_step; panel is
    (depth, _TILE_VECTORS * lanes); the rows of the tile are tile_step apart.
    """
    signature = types.void(
        x, x_at, rows, row_step, depth_step, panel, panel_at, depth, tile, tile_at, tile_step
    )

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        vectors = _Vectors(context, builder, x.dtype)
        _, x_at, rows, row_step, depth_step, _, panel_at, depth, _, tile_at, tile_step = arguments
        x_pointer = _pointer(context, builder, kinds[0], arguments[0], x_at)
        panel_pointer = _pointer(context, builder, kinds[5], arguments[5], panel_at)
        tile_pointer = _pointer(context, builder, kinds[8], arguments[8], tile_at)

        def along(pointer, step, count):
            return builder.gep(pointer, [builder.mul(step, step.type(count))])

        def multiply(height):
            sums = [[vectors.zero() for _ in range(_TILE_VECTORS)] for _ in range(height)]
            x_rows = [along(x_pointer, row_step, row) for row in range(height)]
            with cgutils.for_range(builder, depth) as loop:
                d = loop.index
                line = along(panel_pointer, d, _TILE_VECTORS * vectors.lanes)
                weights = [vectors.load(along(line, d.type(vectors.lanes), v)) for v in range(_TILE_VECTORS)]
                x_step = builder.mul(d, depth_step)
                for x_row, row_sums in zip(x_rows, sums, strict=True):
                    vectors.fence()
                    value = vectors.broadcast(builder.load(builder.gep(x_row, [x_step])))
                    for weight, total in zip(weights, row_sums, strict=True):
                        vectors.multiply_add(value, weight, total)
            for row, row_sums in enumerate(sums):
                tile_row = along(tile_pointer, tile_step, row)
                for v, total in enumerate(row_sums):
                    vectors.add_to(along(tile_row, depth.type(vectors.lanes), v), total)

        low = builder.icmp_signed("<=", rows, rows.type(_LOW_TILE_ROWS))
        with builder.if_else(low) as (then, otherwise):
            with then:
                multiply(_LOW_TILE_ROWS)
            with otherwise:
                multiply(_TILE_ROWS)
        return context.get_dummy_value()

    return signature, generate


def _sum_rows(builder, kind, vectors, out, walk):
    """Add sums of rows of `vectors` vectors, 1 to _GATHER_VECTORS, to the memory at `out`.

    `walk(width, add)` writes a loop that calls add(pointer to a row, scale); the number of registers has to
    be known to the compiler, so there is one for each width.
    """
    done = builder.append_basic_block("summed")
    cases = builder.switch(vectors, done)
    for width in range(1, _GATHER_VECTORS + 1):
        block = builder.append_basic_block(f"sum{width}")
        cases.add_case(vectors.type(width), block)
        builder.position_at_end(block)
        places = [vectors.type(v * kind.lanes) for v in range(width)]
        sums = [kind.zero() for _ in places]

        def add(row, scale, places=places, sums=sums):
            for place, total in zip(places, sums, strict=True):
                kind.multiply_add(scale, kind.load(builder.gep(row, [place])), total)

        walk(width, add)
        for place, total in zip(places, sums, strict=True):
            kind.add_to(builder.gep(out, [place]), total)
        builder.branch(done)
    builder.position_at_end(done)


@intrinsic
def _sum_chosen(typing, table, pieces, argmax, scale, at, count, vectors, out, out_at):
    """Add the sum over i < count of scale[at + i] * row i * pieces + argmax[at + i] of the table to out.

    All arrays are flat; the rows of the table have `vectors` vectors.  A value of argmax counts as less than
    `pieces`, whatever another thread writes there.
    """
    signature = types.void(table, pieces, argmax, scale, at, count, vectors, out, out_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = _Vectors(context, builder, table.dtype)
        _, pieces, _, _, at, count, vectors, _, out_at = arguments
        table_pointer = make_array(kinds[0])(context, builder, arguments[0]).data
        argmax_pointer = _pointer(context, builder, kinds[2], arguments[2], at)
        scale_pointer = _pointer(context, builder, kinds[3], arguments[3], at)
        out_pointer = _pointer(context, builder, kinds[7], arguments[7], out_at)
        integer = count.type

        def walk(width, add):
            with cgutils.for_range(builder, count) as loop:
                winner = builder.zext(builder.load(builder.gep(argmax_pointer, [loop.index])), integer)
                inside = builder.icmp_signed("<", winner, pieces)
                winner = builder.select(inside, winner, builder.sub(pieces, integer(1)))
                row = builder.add(builder.mul(loop.index, pieces), winner)
                row = builder.gep(table_pointer, [builder.mul(row, integer(width * kind.lanes))])
                add(row, kind.broadcast(builder.load(builder.gep(scale_pointer, [loop.index]))))

        _sum_rows(builder, kind, vectors, out_pointer, walk)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _sum_won(typing, table, won, scale, at, vectors, out, out_at):
    """Add the sum over the bits r that are set in `won` of scale[at + r] * row r of the table to out.

    All arrays are flat; the rows of the table have `vectors` vectors.
    """
    signature = types.void(table, won, scale, at, vectors, out, out_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = _Vectors(context, builder, table.dtype)
        _, won, _, at, vectors, _, out_at = arguments
        table_pointer = make_array(kinds[0])(context, builder, arguments[0]).data
        scale_pointer = _pointer(context, builder, kinds[2], arguments[2], at)
        out_pointer = _pointer(context, builder, kinds[5], arguments[5], out_at)
        integer = won.type

        def walk(width, add):
            before = builder.block
            body = builder.append_basic_block("won")
            after = builder.append_basic_block("all_won")
            builder.branch(body)
            builder.position_at_end(body)
            left = builder.phi(integer)
            left.add_incoming(won, before)
            r = builder.cttz(left, ir.IntType(1)(1))
            row = builder.gep(table_pointer, [builder.mul(r, integer(width * kind.lanes))])
            add(row, kind.broadcast(builder.load(builder.gep(scale_pointer, [r]))))
            rest = builder.and_(left, builder.sub(left, integer(1)))
            left.add_incoming(rest, body)
            builder.cbranch(builder.icmp_unsigned("!=", rest, integer(0)), body, after)
            builder.position_at_end(after)

        _sum_rows(builder, kind, vectors, out_pointer, walk)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _transpose(typing, source, starts, first, column, target, target_at, target_step):
    """A square of lanes x lanes elements, its rows becoming columns.

    All arrays are flat.  Row i of the square is at starts[first + i] + column of the source, and column i
    of it goes to target_at + i * target_step.
    """
    signature = types.void(source, starts, first, column, target, target_at, target_step)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = _Vectors(context, builder, source.dtype)
        _, _, first, column, _, target_at, target_step = arguments
        source_pointer = _pointer(context, builder, kinds[0], arguments[0], column)
        starts_pointer = _pointer(context, builder, kinds[1], arguments[1], first)
        target_pointer = _pointer(context, builder, kinds[4], arguments[4], target_at)
        integer = column.type

        rows = []
        for i in range(kind.lanes):
            start = builder.load(builder.gep(starts_pointer, [integer(i)]))
            rows.append(kind.load(builder.gep(source_pointer, [start])))
        half = 1
        while half < kind.lanes:  # swap the off-diagonal blocks of half x half, for each size of block
            for i in range(kind.lanes):
                if not i & half:
                    rows[i], rows[i + half] = kind.swap(rows[i], rows[i + half], half)
            half *= 2
        for i, row in enumerate(rows):
            kind.store(row, builder.gep(target_pointer, [builder.mul(target_step, integer(i))]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _maximum(typing, z, at, step, pieces, y, y_at, argmax, argmax_at):
    """A vector of maxima, and their indices, over `pieces` vectors z[at + k * step :].  Arrays are flat."""
    signature = types.void(z, at, step, pieces, y, y_at, argmax, argmax_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = _Vectors(context, builder, z.dtype)
        _, at, step, pieces, _, y_at, _, argmax_at = arguments
        z_pointer = _pointer(context, builder, kinds[0], arguments[0], at)
        integers = ir.VectorType(ir.IntType(32), kind.lanes)
        best = cgutils.alloca_once_value(builder, kind.load(z_pointer))
        index = cgutils.alloca_once_value(builder, ir.Constant(integers, None))
        with cgutils.for_range(builder, pieces, start=pieces.type(1)) as loop:
            value = kind.load(builder.gep(z_pointer, [builder.mul(loop.index, step)]))
            largest = builder.load(best)
            # larger or NaN, and the best so far is no NaN
            wins = builder.and_(
                builder.fcmp_unordered(">", value, largest), builder.fcmp_ordered("ord", largest, largest)
            )
            builder.store(builder.select(wins, value, largest), best)
            k = kind.broadcast(builder.trunc(loop.index, integers.element), integers)
            builder.store(builder.select(wins, k, builder.load(index)), index)
        kind.store(builder.load(best), _pointer(context, builder, kinds[4], arguments[4], y_at))
        bytes_type = ir.VectorType(ir.IntType(8), kind.lanes)
        target = _pointer(context, builder, kinds[6], arguments[6], argmax_at)
        indices = builder.trunc(builder.load(index), bytes_type)
        builder.store(indices, builder.bitcast(target, bytes_type.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _copy(typing, source, source_at, target, target_at, count):
    """target[target_at :][:count] = source[source_at :][:count], of flat arrays of one dtype."""
    signature = types.void(source, source_at, target, target_at, count)

    def generate(context, builder, signature, arguments):
        source_pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        target_pointer = _pointer(context, builder, signature.args[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, target_pointer, source_pointer, arguments[4], source.dtype.bitwidth // 8)
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
    flat = source.reshape(source.size)
    for r in range(rows):
        _copy(flat, (row + r) * source.shape[1] + column, block, r * step, columns)


@_compiled
def _store(values, at, target, target_at, count, accumulate):
    """target[target_at :][:count] = values[at :][:count], or += where it accumulates."""
    if accumulate:
        line = target[target_at : target_at + count]
        for i, value in enumerate(values[at : at + count]):
            line[i] += value
    else:
        _copy(values, at, target, target_at, count)


@_compiled
def _pack_columns(source, row, depth, column, columns, width, panels):
    """source[row : row + depth, column : column + columns] to panels (columns / width, depth, width)."""
    flat = source.reshape(source.size)
    whole = columns // width * width
    for d in range(depth):
        at = (row + d) * source.shape[1] + column
        for first in range(0, whole, width):
            _copy(flat, at + first, panels, first * depth + d * width, width)
        _copy(flat, at + whole, panels, whole * depth + d * width, columns - whole)


@_compiled
def _unit_starts(weight, pieces, output, outputs):
    """Where the units of `outputs` outputs begin in the flat weight (out_features * pieces, in_features).

    They come in the order (pieces, outputs), so that a maximum runs over whole rows of outputs; the last
    one is repeated to fill a panel.
    """
    units = outputs * pieces
    starts = np.empty(_round_up(units, _panel(weight)), np.int64)
    for place in range(starts.size):
        unit = min(place, units - 1)
        starts[place] = ((output + unit % outputs) * pieces + unit // outputs) * weight.shape[1]
    return starts


@_compiled
def _pack_units(weight, starts, column, depth, panels):
    """Columns [column, column + depth) of the units, to panels (units / width, depth, width)."""
    flat = weight.reshape(weight.size)
    lanes, width = _lanes(weight), _panel(weight)
    whole = depth // lanes * lanes
    for first in range(0, starts.size, lanes):
        target = first // width * width * depth + first % width
        for d in range(0, whole, lanes):
            _transpose(flat, starts, first, column + d, panels, target + d * width, width)
        for i in range(lanes):
            for d in range(whole, depth):
                panels[target + d * width + i] = flat[starts[first + i] + column + d]


@_compiled
def _multiply_block(x, rows, row_step, depth_step, panels, columns, start, depth, total, tile, spare, step):
    """Add x @ panels, the terms [start, start + depth) of `total`, to the tile (rows, columns).

    _TILE_ROWS rows of x take _TILE_ROWS * depth elements; rows of the tile are `step` apart.  Each chunk
    after the first is summed in `spare`, and added when it is complete.
    """
    width = _panel(tile)
    first_chunk = start < _CHUNK
    if not first_chunk and start % _CHUNK == 0:
        spare[: rows * step] = 0
    sums = tile if first_chunk else spare
    for column in range(0, columns, width):
        for row in range(0, rows, _TILE_ROWS):
            sums_at = row * step + column
            _multiply(
                x, row * depth, rows - row, row_step, depth_step,
                panels, column * depth, depth, sums, sums_at, step,
            )  # fmt: skip
    stop = start + depth
    if not first_chunk and (stop == total or stop % _CHUNK == 0):
        _store(spare, 0, tile, 0, rows * step, True)


# ---- forward products


@partial(_compiled, reassociate=True)
def _dot(a, b):
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_compiled
def _add_dots(x, row, rows, weight, starts, units, tile, step):
    """Add x @ weight.T, of the units that begin at `starts` in flat weights, to the tile.

    Rows of the tile are `step` apart.
    """
    in_features = weight.shape[1]
    flat = weight.reshape(weight.size)
    for u in range(units):
        for r in range(rows):
            for first in range(0, in_features, _CHUNK):
                stop = min(first + _CHUNK, in_features)
                tile[r * step + u] += _dot(x[row + r, first:stop], flat[starts[u] + first : starts[u] + stop])


@_compiled
def _tile_buffers(rows, columns, depth, like):
    """Two tiles, a block of x and panels of weights, padded to whole register tiles."""
    rows = _round_up(rows, _TILE_ROWS)
    columns = _round_up(columns, _panel(like))
    tile = _buffer(rows * columns, like)
    spare = _buffer(tile.size if depth > _CHUNK else 0, like)
    return tile, spare, _buffer(rows * _CUT, like), _buffer(columns * _CUT, like)


@_compiled
def _preactivations(x, row, rows, weight, pieces, output, outputs, bias, buffers, dot_rows):
    """The pre-activations of a block, (rows, pieces, outputs) in buffers[0]; returns the step of its rows.

    weight is (out_features * pieces, in_features), bias flat of that length, or empty.
    """
    tile, spare, block, panels = buffers
    in_features = weight.shape[1]
    starts = _unit_starts(weight, pieces, output, outputs)
    step = starts.size
    first = np.zeros(step, x.dtype)
    if bias.size:
        for k in range(pieces):
            for j in range(outputs):
                first[k * outputs + j] = bias[(output + j) * pieces + k]
    for r in range(rows):
        _copy(first, 0, tile, r * step, step)
    if rows <= dot_rows:
        _add_dots(x, row, rows, weight, starts, outputs * pieces, tile, step)
        return step
    for column in range(0, in_features, _CUT):
        depth = min(_CUT, in_features - column)
        _copy_rows(x, row, rows, column, depth, block, depth)
        _pack_units(weight, starts, column, depth, panels)
        _multiply_block(block, rows, depth, 1, panels, step, column, depth, in_features, tile, spare, step)
    return step


@_compiled
def _maximum_of(z, at, step, pieces, y, y_at, argmax, argmax_at):
    """Of the `pieces` values z[at + k * step] the first NaN, else the first largest."""
    best, index = z[at], 0
    for k in range(1, pieces):
        value = z[at + k * step]
        if best == best and not value <= best:
            best, index = value, k
    y[y_at] = best
    argmax[argmax_at] = index


@_compiled
def _maximum_row(z, at, step, pieces, count, y, y_at, argmax, argmax_at):
    """Of the `pieces` values z[at + k * step + i], i < count, the first NaN, else the first largest.

    All arrays are flat.  y and argmax take it and its index from y_at and argmax_at on.
    """
    lanes = _lanes(z)
    whole = count // lanes * lanes
    for i in range(0, whole, lanes):
        _maximum(z, at + i, step, pieces, y, y_at + i, argmax, argmax_at + i)
    for i in range(whole, count):
        _maximum_of(z, at + i, step, pieces, y, y_at + i, argmax, argmax_at + i)


@_compiled
def _linear_maxout_cells(x, weight, pieces, bias, y, argmax, dot_rows, first, last):
    """Cells are (blocks of outputs) x (blocks of rows); argmax may be empty."""
    rows, out_features = y.shape
    _, outputs = _blocks(out_features, max(1, _BLOCK_COLUMNS // pieces))
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    buffers = _tile_buffers(block_rows, outputs * pieces, x.shape[1], x)
    flat_y = y.reshape(y.size)
    keep = argmax.size > 0
    flat_argmax = argmax.reshape(argmax.size) if keep else np.empty(outputs, np.uint8)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = _preactivations(x, row, stop - row, weight, pieces, output, count, bias, buffers, dot_rows)
        for n in range(row, stop):
            at = n * out_features + output
            tile_at = (n - row) * step
            argmax_at = at if keep else 0
            _maximum_row(buffers[0], tile_at, count, pieces, count, flat_y, at, flat_argmax, argmax_at)


# ---- backward of maxout: the winners alone


@_compiled
def _table_width(columns, like, limit):
    """Into how many tables, and of how many vectors, at most `limit`, to split `columns`."""
    lanes = _lanes(like)
    return _blocks((columns + lanes - 1) // lanes, limit)


@_compiled
def _fill_tables(weight, row, rows, column, columns, width, tables):
    """weight[row : row + rows, column : column + columns] to flat tables (columns / width, rows, width)."""
    flat = weight.reshape(weight.size)
    for r in range(rows):
        at = (row + r) * weight.shape[1] + column
        for first in range(0, columns, width):
            _copy(flat, at + first, tables, first * rows + r * width, min(width, columns - first))


@_compiled
def _grad_x_cells(grad_y, weight, pieces, argmax, grad_x, first, last):
    """Cells are (blocks of columns) x (blocks of rows); weight is (out_features * pieces, in_features)."""
    rows, in_features = grad_x.shape
    out_features = grad_y.shape[1]
    flat_grad, flat_argmax = grad_y.reshape(grad_y.size), argmax.reshape(argmax.size)
    flat_grad_x = grad_x.reshape(grad_x.size)
    tables_in_all, vectors = _table_width(in_features, weight, _GATHER_VECTORS)
    width = vectors * _lanes(weight)
    _, block_columns = _blocks(tables_in_all, _TABLES)
    block_columns *= width
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    # outputs whose units fill a table; at least 8, for few partial sums
    outputs = max(8, min(_TABLE_OUTPUTS, _TABLE_BYTES // max(1, pieces * width * weight.itemsize)))
    outputs = min(max(1, out_features), outputs)
    run = max(_GATHERED_OUTPUTS // 4, min(_GATHERED_OUTPUTS, 128 * _MANY_PIECES // max(1, pieces)))
    tables = _buffer(outputs * pieces * block_columns, weight)
    sums = _buffer(block_rows * block_columns, weight)
    for cell in range(first, last):
        column, row = cell // row_blocks * block_columns, cell % row_blocks * block_rows
        columns = min(block_columns, in_features - column)
        stop = min(row + block_rows, rows)
        sums[:] = 0
        added = False
        for output in range(0, out_features, outputs):
            count = min(outputs, out_features - output)
            units = count * pieces
            _fill_tables(weight, output * pieces, units, column, columns, width, tables)
            for start in range(0, columns, width):
                table = tables[start * units : (start + width) * units]
                for n in range(row, stop):
                    _sum_chosen(
                        table, pieces, flat_argmax, flat_grad, n * out_features + output, count, vectors,
                        sums, start * block_rows + (n - row) * width,
                    )  # fmt: skip
            end = output + count
            if end == out_features or end // run > output // run:
                for n in range(row, stop):
                    for start in range(0, columns, width):
                        sums_at = start * block_rows + (n - row) * width
                        at = n * in_features + column + start
                        _store(sums, sums_at, flat_grad_x, at, min(width, columns - start), added)
                sums[:] = 0
                added = True
        if not added:
            grad_x[:] = 0


@_compiled
def _find_winners(grad_y, argmax, row, rows, output, won, scale, sums):
    """Of a block of rows, which were won by each piece, for the outputs from `output` on.

    Bit r of won[j, k] is set where piece k of output j won row r; scale[j, r] is the grad_y of the two, and
    sums[j, k] the sum of those that the piece won.
    """
    outputs = len(won)
    last = won.shape[1] - 1
    won[:] = 0
    sums[:] = 0
    for r in range(rows):
        bit = np.uint64(1) << np.uint64(r)
        for j in range(outputs):
            k = min(np.int64(argmax[row + r, output + j]), last)  # another thread may write there
            grad = grad_y[row + r, output + j]
            won[j, k] |= bit
            scale[j, r] = grad
            sums[j, k] += grad


@_compiled
def _grad_weight_cells(grad_y, x, argmax, pieces, grad_weight, grad_bias, accumulate, first, last):
    """Cells are blocks of outputs; grad_weight (.., in_features) or grad_bias may be empty, shape (0, ..)."""
    rows, in_features = x.shape
    out_features = grad_y.shape[1]
    _, outputs = _blocks(out_features, max(16, _BLOCK_COLUMNS // pieces))
    tables, vectors = _table_width(in_features if grad_weight.size else 0, x, _SET_VECTORS)
    width = vectors * _lanes(x)
    chunk_rows = _CHUNK if pieces <= _MANY_PIECES else _CHUNK // 2
    blocks = max(1, min(chunk_rows // _SET, (rows + _SET - 1) // _SET))

    flat_grad = grad_weight.reshape(grad_weight.size)
    table = _buffer(_SET * width, x)
    totals = _buffer(tables * outputs * pieces * width, x)
    sums = _buffer(totals.size if rows > blocks * _SET else 0, x)  # of rows after the first chunk
    bias_sums = np.empty((outputs, pieces), x.dtype)
    partial = np.empty((outputs, pieces), x.dtype)
    won = np.empty((blocks, outputs, pieces), np.uint64)
    scale = _buffer(blocks * outputs * _SET, x)

    for cell in range(first, last):
        output = cell * outputs
        count = min(outputs, out_features - output)
        totals[:] = 0
        bias_sums[:] = 0
        for chunk in range(0, rows, blocks * _SET):
            stop = min(chunk + blocks * _SET, rows)
            for b, row in enumerate(range(chunk, stop, _SET)):
                block_scale = scale.reshape(blocks, outputs, _SET)[b]
                _find_winners(
                    grad_y, argmax, row, min(_SET, rows - row), output,
                    won[b, :count], block_scale, partial[:count],
                )  # fmt: skip
                bias_sums[:count] += partial[:count]
            chunk_sums = sums if chunk else totals
            sums[:] = 0
            for t in range(tables):
                columns = min(width, in_features - t * width)
                for b, row in enumerate(range(chunk, stop, _SET)):
                    _copy_rows(x, row, min(_SET, rows - row), t * width, columns, table, width)
                    for j in range(count):
                        scale_at = (b * outputs + j) * _SET
                        for k in range(pieces):
                            if won[b, j, k]:
                                at = ((t * outputs + j) * pieces + k) * width
                                _sum_won(table, won[b, j, k], scale, scale_at, vectors, chunk_sums, at)
            if chunk:
                _store(sums, 0, totals, 0, totals.size, True)
        if grad_weight.size:
            for unit in range(count * pieces):
                for t in range(tables):
                    at = (t * outputs * pieces + unit) * width
                    column = t * width
                    _store(
                        totals, at, flat_grad, (output * pieces + unit) * in_features + column,
                        min(width, in_features - column), accumulate,
                    )  # fmt: skip
        if grad_bias.size:
            flat_sums = bias_sums.reshape(bias_sums.size)
            _store(flat_sums, 0, grad_bias, output * pieces, count * pieces, accumulate)


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
    flat_y = y.reshape(y.size)
    rows, count = _maxout_grid(inner)
    across = (inner + count - 1) // count
    keep = argmax.size > 0
    flat_argmax = argmax.reshape(argmax.size) if keep else np.empty(count, np.uint8)
    narrow = inner < _lanes(z)
    for cell in range(first, last):
        row, start = cell // across * rows, cell % across * count
        width = min(count, inner - start)
        for o in range(row, min(row + rows, outer)):
            at, y_at = o * pieces * inner + start, o * inner + start
            argmax_at = y_at if keep else 0
            if narrow:
                for i in range(inner):
                    _maximum_of(flat, at + i, inner, pieces, flat_y, y_at + i, flat_argmax, argmax_at + i)
            else:
                _maximum_row(flat, at, inner, pieces, width, flat_y, y_at, flat_argmax, argmax_at)


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
                k = min(np.int64(argmax[o, i]), pieces - 1)  # another thread may write there
                grad_z[o, k, i] = grad_y[o, i]


# ---- activations: in float64, rounded once for a float32 array

_LINEAR = TABLE["linear"].code
_RELU = TABLE["relu"].code
_LEAKY_RELU = TABLE["leaky_relu"].code
_PRELU = TABLE["prelu"].code
_ELU = TABLE["elu"].code
_SELU = TABLE["selu"].code
_GELU = TABLE["gelu"].code
_GELU_TANH = TABLE["gelu_tanh"].code
_SILU = TABLE["silu"].code
_SOFTPLUS = TABLE["softplus"].code
_MISH = TABLE["mish"].code
_SIGMOID = TABLE["sigmoid"].code
_TANH = TABLE["tanh"].code
_SOFTSIGN = TABLE["softsign"].code
_HARDSWISH = TABLE["hardswish"].code
_HARDSIGMOID = TABLE["hardsigmoid"].code
_HARDTANH = TABLE["hardtanh"].code
_RELU6 = TABLE["relu6"].code
_LOGSIGMOID = TABLE["logsigmoid"].code
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
    """y; parameter is the negative slope, or alpha.  NaN for a code without a formula, which a test finds."""
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
    if code == _SOFTSIGN:
        return math.copysign(1.0, z) if math.isinf(z) else z / (1 + abs(z))
    if code == _HARDSWISH:
        return 0.0 if z <= -3 else z if z >= 3 else z * ((z + 3) / 6)
    if code == _HARDSIGMOID:
        return 0.0 if z <= -3 else 1.0 if z >= 3 else (z + 3) / 6
    if code == _HARDTANH:
        return -1.0 if z <= -1 else 1.0 if z >= 1 else z
    if code == _RELU6:
        return 0.0 if z <= 0 else 6.0 if z >= 6 else z
    if code == _LOGSIGMOID:
        return -_softplus(-z)
    if z == np.inf:
        return z
    z = -_LARGEST if z < -_LARGEST else z  # so that -inf * 0 is 0, the limit
    if code == _GELU:
        return z * _normal_cdf(z)
    if code == _GELU_TANH:
        return z * _sigmoid(2 * _TANH_GELU * (z + 0.044715 * z * z * z))  # 0.5 (1 + tanh u) = sigmoid(2 u)
    if code == _SILU:
        return z * _sigmoid(z)
    if code == _MISH:
        return z * math.tanh(_softplus(z))
    return math.nan


@_compiled
def _propagate(code, parameter, saved, grad):
    """grad_z from what the forward saved, y or z.  NaN for a code without a formula, which a test finds.

    Where a derivative is 0 on a whole side, an infinite grad gives 0 and not NaN.
    """
    if code == _LINEAR:
        return grad
    if code == _RELU:
        return 0.0 if saved <= 0 else grad
    if code in (_LEAKY_RELU, _PRELU):
        return grad if saved > 0 else grad * parameter
    if code == _ELU:
        return grad * (1.0 if saved > 0 else parameter * math.exp(saved))
    if code == _SELU:
        return grad * (_SELU_SCALE * (1.0 if saved > 0 else _SELU_ALPHA * math.exp(saved)))
    if code == _SOFTPLUS:
        return grad * _sigmoid(saved)
    if code == _SIGMOID:
        return grad * (saved * (1 - saved))
    if code == _TANH:
        return grad * ((1 - saved) * (1 + saved))
    if code == _SOFTSIGN:
        return grad / ((1 + abs(saved)) * (1 + abs(saved)))
    if code == _HARDSWISH:
        return 0.0 if saved <= -3 else grad if saved >= 3 else grad * ((2 * saved + 3) / 6)
    if code == _HARDSIGMOID:
        return 0.0 if abs(saved) >= 3 else grad / 6
    if code == _HARDTANH:
        return 0.0 if abs(saved) >= 1 else grad
    if code == _RELU6:
        return 0.0 if saved <= 0 or saved >= 6 else grad
    if code == _LOGSIGMOID:
        return grad * _sigmoid(-saved)
    # beyond +-1e4 the derivative is 0 or 1, and infinities would make NaN of it
    z = -1e4 if saved < -1e4 else 1e4 if saved > 1e4 else saved
    if code == _GELU:
        return grad * (_normal_cdf(z) + z * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))
    if code == _GELU_TANH:
        u = 2 * _TANH_GELU * (z + 0.044715 * z * z * z)
        s = _sigmoid(u)
        return grad * (s + z * s * _sigmoid(-u) * 2 * _TANH_GELU * (1 + 3 * 0.044715 * z * z))
    if code == _SILU:
        return grad * (_sigmoid(z) * (1 + z * _sigmoid(-z)))
    if code == _MISH:
        q = _sigmoid(-z) ** 2  # exp(-2 softplus z), so 1 - tanh(softplus z)^2 = 4q / (1 + q)^2
        return grad * (math.tanh(_softplus(z)) + z * (4 * q / (1 + q) ** 2) * _sigmoid(z))
    return math.nan


@_compiled
def _activation_cells(code, parameters, z, y, first, last):
    """z and y are flat; parameters (n,) repeats along them.  A cell is _CELL of them."""
    for i in range(first * _CELL, min(last * _CELL, z.size)):
        y[i] = _activate(code, np.float64(parameters[i % parameters.size]), np.float64(z[i]))


@_compiled
def _activation_backward_cells(code, parameters, grad_y, saved, grad_z, first, last):
    for i in range(first * _CELL, min(last * _CELL, saved.size)):
        parameter = np.float64(parameters[i % parameters.size])
        grad_z[i] = _propagate(code, parameter, np.float64(saved[i]), np.float64(grad_y[i]))


@_compiled
def _slope_term(grad_y, saved):
    """What an element adds to its slope's gradient; a NaN counts as not above 0."""
    return 0.0 if saved > 0 else np.float64(grad_y) * saved


@_compiled
def _grad_slopes_cells(grad_y, saved, grad_slope, accumulate, first, last):
    """grad_slope[c] = the sum of column c's terms; a cell is _CUT columns."""
    total = np.empty(_CUT)
    partial = np.empty(_CUT)
    rounded = np.empty(_CUT, grad_slope.dtype)
    for start in range(first * _CUT, min(last * _CUT, grad_slope.size), _CUT):
        count = min(_CUT, grad_slope.size - start)
        total[:] = 0
        for row in range(0, len(saved), _CUT):
            partial[:] = 0
            for n in range(row, min(row + _CUT, len(saved))):
                for c in range(count):
                    partial[c] += _slope_term(grad_y[n, start + c], saved[n, start + c])
            total += partial
        rounded[:] = total
        _store(rounded, 0, grad_slope, start, count, accumulate)


@_compiled
def _slope_sums_cells(grad_y, saved, totals, first, last):
    """totals[cell] = the sum of the cell's terms; grad_y and saved are flat, a cell is _CELL of them."""
    for cell in range(first, last):
        totals[cell] = 0
        stop = min((cell + 1) * _CELL, saved.size)
        for start in range(cell * _CELL, stop, _CUT):
            partial = 0.0
            for i in range(start, min(start + _CUT, stop)):
                partial += _slope_term(grad_y[i], saved[i])
            totals[cell] += partial


# ---- linear + activation


@_compiled
def _linear_activation_cells(x, weight, bias, code, parameters, y, z, dot_rows, first, last):
    """Cells as in _linear_maxout_cells, with one piece; z may be empty."""
    rows, out_features = y.shape
    _, outputs = _blocks(out_features, _BLOCK_COLUMNS)
    row_blocks, block_rows = _blocks(rows, _BLOCK_ROWS)
    buffers = _tile_buffers(block_rows, outputs, x.shape[1], x)
    for cell in range(first, last):
        output, row = cell // row_blocks * outputs, cell % row_blocks * block_rows
        count = min(outputs, out_features - output)
        stop = min(row + block_rows, rows)
        step = _preactivations(x, row, stop - row, weight, 1, output, count, bias, buffers, dot_rows)
        for n in range(row, stop):
            at = (n - row) * step
            for j in range(count):
                parameter = np.float64(parameters[(output + j) % parameters.size])
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
    tile, spare, block, panels = _tile_buffers(block_rows, block_columns, len(b), b)
    flat_out = out.reshape(out.size)
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
            _multiply_block(
                block, height, row_step, depth_step, panels, width, start, depth, len(b), tile, spare, step
            )
        for r in range(height):
            _store(tile, r * step, flat_out, (row + r) * columns + column, width, accumulate)


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
        _store(total, 0, out, start, count, accumulate)


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
    *,
    dot_rows: int = _DOT_ROWS,
) -> None:
    """As in reference.py; up to `dot_rows` rows, sums are in another order than those of more rows."""
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
        dot_rows,
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
    check_argmax(argmax, pieces)
    units = out_features * pieces
    work = 2.0 * grad_y.size * in_features
    grad_y, x, argmax = _own(grad_y), _own(x), _own(argmax)
    if grad_x is not None:
        block_columns = _TABLES * _GATHER_VECTORS * _VECTOR_BYTES // x.itemsize
        pool.run(
            _grad_x_cells,
            _cells((in_features, block_columns), (len(x), _BLOCK_ROWS)),
            work,
            threads,
            grad_y,
            _own(weight).reshape(units, in_features),
            pieces,
            argmax,
            grad_x,
        )
    if (grad_weight is not None and grad_weight.size) or grad_bias is not None:
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
    outer, pieces, inner = grad_z.shape
    check_argmax(argmax, pieces)
    cells = _maxout_cell_count(outer, inner)
    pool.run(_maxout_backward_cells, cells, float(grad_z.size), threads, _own(grad_y), _own(argmax), grad_z)


def _parameters(act: Activation, dtype: np.dtype[Any]) -> Array:
    """The slopes, or the one parameter, rounded to the dtype as NumPy does."""
    return np.array([act.parameter], dtype) if act.slope is None else _own(act.slope)


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


@np.errstate(all="ignore")
def _grad_slope(
    grad_y: Array, saved: Array, grad_slope: Array, accumulate: bool, work: float, threads: int
) -> None:
    """One slope takes memory for the sum of each cell alone, however long the rows are."""
    if grad_slope.size != 1:
        cells = _cells((grad_slope.size, _CUT))
        pool.run(_grad_slopes_cells, cells, work, threads, grad_y, saved, grad_slope, accumulate)
        return
    totals = np.empty(_cells((saved.size, _CELL)))
    flat = (array.reshape(saved.size) for array in (grad_y, saved))
    pool.run(_slope_sums_cells, len(totals), work, threads, *flat, totals)
    np.add(totals.sum().astype(grad_slope.dtype), grad_slope if accumulate else 0, out=grad_slope)


def linear_activation(
    x: Array,
    weight: Array,
    bias: Array | None,
    act: Activation,
    y: Array,
    z: Array | None,
    threads: int = 0,
    precision: str = "highest",
    *,
    dot_rows: int = _DOT_ROWS,
) -> None:
    """As in reference.py; `dot_rows` as in linear_maxout."""
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
        dot_rows,
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
