"""Kernels written in LLVM's vector types: the register tile, gathers, a transpose, a maximum."""

# Kernels are typed by Numba, and an intrinsic's first parameter is Numba's own.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, disable-error-code="call-arg"

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


def _target() -> tuple[int, int]:
    """Bytes in a vector register, and the rows of a register tile, on the CPU that Numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    features = features.split(",")
    if "+avx512f" in features:
        return 64, 12
    if "+avx" in features:
        return 32, 6
    return 16, 6 if triple.startswith("x86_64") else 12  # 16 registers, or the 32 of other CPUs


VECTOR_BYTES, TILE_ROWS = _target()
# Height of the remainder tile.  A lower tile is no faster: it is bound by FMA latency.  One row of
# 1024 x 1024 x 2 takes 290 us instead of 390 with it, 64 x 288 x 96 x 3 takes 68 us instead of 77.
_LOW_TILE_ROWS = 4
TILE_VECTORS = 2  # 6 x 2 sums, 2 vectors of weights and 1 of x fill 16 registers
GATHER_VECTORS = 12  # sums in registers, of a gathered row


class Vectors:
    """Loads, stores and multiply-adds on vectors of an array's dtype."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.itemsize = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.itemsize
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
def multiply_tile(
    typing, x, x_at, rows, row_step, depth_step, panel, panel_at, depth, tile, tile_at, tile_step
):
    """The register tile: add x @ panel to TILE_ROWS rows x TILE_VECTORS vectors of `tile`.

    Where no more than _LOW_TILE_ROWS rows are left, it is only that high.

    All arrays are flat.  Element (row, d) of x is at x_at + row * row_step + d * depth_step; panel is
    (depth, TILE_VECTORS * lanes); the rows of the tile are tile_step apart.
    """
    signature = types.void(
        x, x_at, rows, row_step, depth_step, panel, panel_at, depth, tile, tile_at, tile_step
    )

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        vectors = Vectors(context, builder, x.dtype)
        _, x_at, rows, row_step, depth_step, _, panel_at, depth, _, tile_at, tile_step = arguments
        x_pointer = _pointer(context, builder, kinds[0], arguments[0], x_at)
        panel_pointer = _pointer(context, builder, kinds[5], arguments[5], panel_at)
        tile_pointer = _pointer(context, builder, kinds[8], arguments[8], tile_at)

        def along(pointer, step, count):
            return builder.gep(pointer, [builder.mul(step, step.type(count))])

        def multiply(height):
            sums = [[vectors.zero() for _ in range(TILE_VECTORS)] for _ in range(height)]
            x_rows = [along(x_pointer, row_step, row) for row in range(height)]
            with cgutils.for_range(builder, depth) as loop:
                d = loop.index
                line = along(panel_pointer, d, TILE_VECTORS * vectors.lanes)
                weights = [vectors.load(along(line, d.type(vectors.lanes), v)) for v in range(TILE_VECTORS)]
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
                multiply(TILE_ROWS)
        return context.get_dummy_value()

    return signature, generate


def _sum_rows(builder, kind, vectors, out, walk):
    """Add sums of rows of `vectors` vectors, 1 to GATHER_VECTORS, to the memory at `out`.

    `walk(width, add)` writes a loop that calls add(pointer to a row, scale); the number of registers has to
    be known to the compiler, so there is one for each width.
    """
    done = builder.append_basic_block("summed")
    cases = builder.switch(vectors, done)
    for width in range(1, GATHER_VECTORS + 1):
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
def gather_row(typing, table, pieces, argmax, scale, at, count, vectors, out, out_at):
    """Add the sum over i < count of scale[at + i] * row i * pieces + argmax[at + i] of the table to out.

    All arrays are flat; the rows of the table have `vectors` vectors.  A value of argmax counts as less than
    `pieces`, whatever another thread writes there.
    """
    signature = types.void(table, pieces, argmax, scale, at, count, vectors, out, out_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = Vectors(context, builder, table.dtype)
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
def gather_set(typing, table, winner_bits, scale, at, vectors, out, out_at):
    """Add the sum over the bits r that are set in `winner_bits` of scale[at + r] * row r of the table to out.

    All arrays are flat; the rows of the table have `vectors` vectors.
    """
    signature = types.void(table, winner_bits, scale, at, vectors, out, out_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = Vectors(context, builder, table.dtype)
        _, winner_bits, _, at, vectors, _, out_at = arguments
        table_pointer = make_array(kinds[0])(context, builder, arguments[0]).data
        scale_pointer = _pointer(context, builder, kinds[2], arguments[2], at)
        out_pointer = _pointer(context, builder, kinds[5], arguments[5], out_at)
        integer = winner_bits.type

        def walk(width, add):
            before = builder.block
            body = builder.append_basic_block("winner")
            after = builder.append_basic_block("all_winners")
            builder.branch(body)
            builder.position_at_end(body)
            left = builder.phi(integer)
            left.add_incoming(winner_bits, before)
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
def transpose_square(typing, source, starts, first, column, target, target_at, target_step):
    """A square of lanes x lanes elements, its rows becoming columns.

    All arrays are flat.  Row i of the square is at starts[first + i] + column of the source, and column i
    of it goes to target_at + i * target_step.
    """
    signature = types.void(source, starts, first, column, target, target_at, target_step)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = Vectors(context, builder, source.dtype)
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
def maximum_of_vectors(typing, z, at, step, pieces, y, y_at, argmax, argmax_at):
    """A vector of maxima, and their indices, over `pieces` vectors z[at + k * step :].  Arrays are flat."""
    signature = types.void(z, at, step, pieces, y, y_at, argmax, argmax_at)

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        kind = Vectors(context, builder, z.dtype)
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
def copy_line(typing, source, source_at, target, target_at, count):
    """target[target_at :][:count] = source[source_at :][:count], of flat arrays of one dtype."""
    signature = types.void(source, source_at, target, target_at, count)

    def generate(context, builder, signature, arguments):
        source_pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        target_pointer = _pointer(context, builder, signature.args[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, target_pointer, source_pointer, arguments[4], source.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, generate
