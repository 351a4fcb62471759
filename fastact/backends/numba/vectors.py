"""Numba intrinsics in LLVM's vector types: micro-tile, dot products, gathers, transpose, maximum, copy."""

# Kernels are typed by Numba, which fills in an intrinsic's first parameter itself.
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
    """Bytes of a vector register, and rows of a micro-tile, on the CPU that Numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    features = features.split(",")
    if "+avx512f" in features:
        return 64, 12
    if "+avx" in features:
        return 32, 6
    return 16, 6 if triple.startswith("x86_64") else 12  # x86-64 has 16 registers, other CPUs have 32


VECTOR_BYTES, TILE_ROWS = _target()
BYTE_LANES = 16  # of a vector of bytes
TILE_VECTORS = 2  # 6 x 2 sums, 2 vectors of weights and 1 of x fill 16 registers
# Height of the remainder tile.  A lower tile is no faster: it is bound by FMA latency.
# bench/tuning: numba-low-tile
_LOW_TILE_ROWS = 4
_SCALED_VECTORS = 8  # vectors of a sum of scaled rows, in registers
# Rows and units of a tile of dot products: 4 x 4 sums and 5 operands need more than 16 registers.
DOT_TILE_ROWS, DOT_UNITS = 4 if VECTOR_BYTES == 64 else 2, 4
# Most vectors in a row of a gathered table: their sums are in registers.  bench/tuning: gather-vectors
GATHER_VECTORS = 12
TABLE_VECTORS = 8  # the same, of a table of rows of x.  bench/tuning: numba-table-vectors


class Vectors:
    """Loads, stores and multiply-adds on vectors of an array's dtype."""

    def __init__(self, context: Any, builder: Any, dtype: Any, lanes: int = 0) -> None:
        self.builder = builder
        self.itemsize = dtype.bitwidth // 8
        self.lanes = lanes or min(BYTE_LANES, VECTOR_BYTES // self.itemsize)
        self.type = ir.VectorType(context.get_value_type(dtype), self.lanes)

    def zero(self) -> Any:
        return cgutils.alloca_once_value(self.builder, ir.Constant(self.type, None))

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def broadcast(self, scalar: Any, vector_type: Any = None) -> Any:
        undefined = ir.Constant(vector_type or self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def swap(self, upper: Any, lower: Any, half: int) -> tuple[Any, Any]:
        """Exchange, in each 2 * half lanes, the second half of `upper` and the first half of `lower`."""

        def pick(second: int) -> Any:
            lanes = [
                i + second if not i & half else i - half + second + self.lanes for i in range(self.lanes)
            ]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), lanes)
            return self.builder.shuffle_vector(upper, lower, mask)

        return pick(0), pick(half)

    def multiply_add(self, a: Any, b: Any, total: Any) -> None:
        name = f"llvm.fmuladd.v{self.lanes}f{self.itemsize * 8}"  # one FMA where the CPU has it
        signature = ir.FunctionType(self.type, [self.type] * 3)
        fmuladd = cgutils.get_or_insert_function(self.builder.module, signature, name)
        self.builder.store(self.builder.call(fmuladd, [a, b, self.builder.load(total)]), total)

    def sum(self, vector: Any) -> Any:
        """The sum of the lanes."""
        element = self.type.element
        bits = self.itemsize * 8
        signature = ir.FunctionType(element, [element, self.type])
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f{bits}"
        reduce = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(reduce, [element(0.0), vector], fastmath=("reassoc",))

    def fence(self) -> None:
        """A point that no load moves across.

        Without it, LLVM moves the loads of all rows of a tile to the front and spills registers to memory.
        bench/tuning: numba-fence
        """
        signature = ir.FunctionType(ir.VoidType(), [])
        self.builder.call(ir.InlineAsm(signature, "", "~{memory}", side_effect=True), [])

    def add_to(self, pointer: Any, total: Any) -> None:
        self.store(self.builder.fadd(self.load(pointer), self.builder.load(total)), pointer)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.gep(make_array(array_type)(context, builder, array).data, [at])


@intrinsic
def multiply_micro_tile(
    typing, x, x_at, rows, row_step, depth_step, panel, panel_at, depth, sums, sums_at, sums_step
):
    """Add x @ panel to a micro-tile of `sums`: TILE_ROWS rows x TILE_VECTORS vectors.

    If at most _LOW_TILE_ROWS `rows` are left, the micro-tile has _LOW_TILE_ROWS rows.

    All arrays are flat.  Element (row, d) of x is at x_at + row * row_step + d * depth_step; panel is
    (depth, TILE_VECTORS * lanes); the rows of `sums` begin at sums_at and are sums_step apart.
    """
    signature = types.void(
        x, x_at, rows, row_step, depth_step, panel, panel_at, depth, sums, sums_at, sums_step
    )

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, x.dtype)
        _, x_at, rows, row_step, depth_step, _, panel_at, depth, _, sums_at, sums_step = arguments
        x_pointer = _pointer(context, builder, arg_types[0], arguments[0], x_at)
        panel_pointer = _pointer(context, builder, arg_types[5], arguments[5], panel_at)
        sums_pointer = _pointer(context, builder, arg_types[8], arguments[8], sums_at)

        def along(pointer, step, count):
            return builder.gep(pointer, [builder.mul(step, step.type(count))])

        def multiply(height):
            totals = [[vectors.zero() for _ in range(TILE_VECTORS)] for _ in range(height)]
            x_rows = [along(x_pointer, row_step, row) for row in range(height)]
            with cgutils.for_range(builder, depth) as loop:
                d = loop.index
                line = along(panel_pointer, d, TILE_VECTORS * vectors.lanes)
                weights = [vectors.load(along(line, d.type(vectors.lanes), v)) for v in range(TILE_VECTORS)]
                x_step = builder.mul(d, depth_step)
                for x_row, row_totals in zip(x_rows, totals, strict=True):
                    vectors.fence()
                    value = vectors.broadcast(builder.load(builder.gep(x_row, [x_step])))
                    for weight, total in zip(weights, row_totals, strict=True):
                        vectors.multiply_add(value, weight, total)
            for row, row_totals in enumerate(totals):
                sums_row = along(sums_pointer, sums_step, row)
                for v, total in enumerate(row_totals):
                    vectors.add_to(along(sums_row, depth.type(vectors.lanes), v), total)

        low = builder.icmp_signed("<=", rows, rows.type(_LOW_TILE_ROWS))
        with builder.if_else(low) as (then, otherwise):
            with then:
                multiply(_LOW_TILE_ROWS)
            with otherwise:
                multiply(TILE_ROWS)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_dot_tile(
    typing, x, x_at, rows, x_step, weight, weight_at, starts, first, depth, sums, sums_at, sums_step
):
    """Add the dot products of DOT_UNITS units of weight and of `rows` of x, DOT_TILE_ROWS at most, to `sums`.

    All arrays are flat.  A dot product has `depth` terms.  Row r of x begins at x_at + r * x_step, unit u at
    weight_at + starts[first + u]; its sum is at sums_at + r * sums_step + u.
    """
    signature = types.void(
        x, x_at, rows, x_step, weight, weight_at, starts, first, depth, sums, sums_at, sums_step
    )

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, x.dtype)
        _, x_at, rows, x_step, _, weight_at, _, first, depth, _, sums_at, sums_step = arguments
        integer = depth.type
        x_pointer = _pointer(context, builder, arg_types[0], arguments[0], x_at)
        weight_pointer = _pointer(context, builder, arg_types[4], arguments[4], weight_at)
        starts_pointer = _pointer(context, builder, arg_types[6], arguments[6], first)
        sums_pointer = _pointer(context, builder, arg_types[9], arguments[9], sums_at)
        units = [
            builder.gep(weight_pointer, [builder.load(builder.gep(starts_pointer, [integer(u)]))])
            for u in range(DOT_UNITS)
        ]
        lanes = integer(vectors.lanes)
        whole = builder.mul(builder.sdiv(depth, lanes), lanes)

        def dots(height):
            x_rows = [builder.gep(x_pointer, [builder.mul(x_step, integer(r))]) for r in range(height)]
            totals = [[vectors.zero() for _ in units] for _ in x_rows]
            with cgutils.for_range_slice(builder, integer(0), whole, lanes, integer) as (d, _):
                weights = [vectors.load(builder.gep(unit, [d])) for unit in units]
                for x_row, row_totals in zip(x_rows, totals, strict=True):
                    value = vectors.load(builder.gep(x_row, [d]))
                    for weight, total in zip(weights, row_totals, strict=True):
                        vectors.multiply_add(value, weight, total)
            scalars = [
                [cgutils.alloca_once_value(builder, vectors.sum(builder.load(total))) for total in row_totals]
                for row_totals in totals
            ]
            with cgutils.for_range_slice(builder, whole, depth, integer(1), integer) as (d, _):
                for x_row, row_scalars in zip(x_rows, scalars, strict=True):
                    value = builder.load(builder.gep(x_row, [d]))
                    for unit, scalar in zip(units, row_scalars, strict=True):
                        product = builder.fmul(value, builder.load(builder.gep(unit, [d])))
                        builder.store(builder.fadd(builder.load(scalar), product), scalar)
            for r, row_scalars in enumerate(scalars):
                out = builder.gep(sums_pointer, [builder.mul(sums_step, integer(r))])
                for u, scalar in enumerate(row_scalars):
                    place = builder.gep(out, [integer(u)])
                    builder.store(builder.fadd(builder.load(place), builder.load(scalar)), place)

        done = builder.append_basic_block("dots_done")
        most = builder.append_basic_block(f"dots{DOT_TILE_ROWS}")
        cases = builder.switch(rows, most)
        for height in range(1, DOT_TILE_ROWS + 1):
            block = most if height == DOT_TILE_ROWS else builder.append_basic_block(f"dots{height}")
            if height < DOT_TILE_ROWS:
                cases.add_case(integer(height), block)
            builder.position_at_end(block)
            dots(height)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sum_scaled_rows(
    typing, source, starts, starts_at, scales, scales_at, terms, columns, out, out_at, accumulate
):
    """out = the sum over i < terms of scales[scales_at + i] * source[starts[starts_at + i] :][: columns].

    All arrays are flat; `out` begins at out_at.  With `accumulate`, the sum is added to it.
    """
    signature = types.void(
        source, starts, starts_at, scales, scales_at, terms, columns, out, out_at, accumulate
    )

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, source.dtype)
        _, _, starts_at, _, scales_at, terms, columns, _, out_at, accumulate = arguments
        integer = columns.type
        source_pointer = make_array(arg_types[0])(context, builder, arguments[0]).data
        starts_pointer = _pointer(context, builder, arg_types[1], arguments[1], starts_at)
        scales_pointer = _pointer(context, builder, arg_types[3], arguments[3], scales_at)
        out_pointer = _pointer(context, builder, arg_types[7], arguments[7], out_at)

        def sum_columns(begin, end, count, vectors):
            """The columns [begin, end), `count` vectors at once."""
            step = integer(count * vectors.lanes)
            with cgutils.for_range_slice(builder, begin, end, step, integer) as (column, _):
                places = [builder.add(column, integer(v * vectors.lanes)) for v in range(count)]
                sums = [vectors.zero() for _ in places]
                with cgutils.for_range(builder, terms) as loop:
                    start = builder.load(builder.gep(starts_pointer, [loop.index]))
                    row = builder.gep(source_pointer, [start])
                    scale = vectors.broadcast(builder.load(builder.gep(scales_pointer, [loop.index])))
                    for place, total in zip(places, sums, strict=True):
                        vectors.multiply_add(scale, vectors.load(builder.gep(row, [place])), total)
                with builder.if_else(accumulate) as (then, otherwise):
                    with then:
                        for place, total in zip(places, sums, strict=True):
                            vectors.add_to(builder.gep(out_pointer, [place]), total)
                    with otherwise:
                        for place, total in zip(places, sums, strict=True):
                            vectors.store(builder.load(total), builder.gep(out_pointer, [place]))

        begin = integer(0)
        one_lane = Vectors(context, builder, source.dtype, 1)
        for count, kind in ((_SCALED_VECTORS, vectors), (1, vectors), (1, one_lane)):
            step = integer(count * kind.lanes)
            end = builder.mul(builder.sdiv(columns, step), step)
            sum_columns(begin, end, count, kind)
            begin = end
        return context.get_dummy_value()

    return signature, generate


def _sum_rows(builder, vectors, row_vectors, most, walk, earlier, has_earlier, out, accumulate):
    """out = the sum of some rows of a table, each times a number, with two more terms if flags say so.

    These are the vectors at the pointer `earlier`, and those that are at `out` already.  A row has
    `row_vectors` vectors, 1 to `most`.  Registers are allocated at compile time, so each width has a loop of
    its own: `walk(width, add)` generates it, and calls add(row pointer, scale).
    """
    done = builder.append_basic_block("summed")
    cases = builder.switch(row_vectors, done)
    for width in range(1, most + 1):
        block = builder.append_basic_block(f"sum{width}")
        cases.add_case(row_vectors.type(width), block)
        builder.position_at_end(block)
        places = [row_vectors.type(v * vectors.lanes) for v in range(width)]
        sums = [vectors.zero() for _ in places]

        def add(row, scale, places=places, sums=sums):
            for place, total in zip(places, sums, strict=True):
                vectors.multiply_add(scale, vectors.load(builder.gep(row, [place])), total)

        walk(width, add)
        for flag, pointer in ((has_earlier, earlier), (accumulate, out)):
            with builder.if_then(flag):
                for place, total in zip(places, sums, strict=True):
                    value = vectors.load(builder.gep(pointer, [place]))
                    builder.store(builder.fadd(value, builder.load(total)), total)
        for place, total in zip(places, sums, strict=True):
            vectors.store(builder.load(total), builder.gep(out, [place]))
        builder.branch(done)
    builder.position_at_end(done)


@intrinsic
def gather_by_argmax(
    typing, table, pieces, argmax, scale, at, count, row_vectors,
    earlier, earlier_at, has_earlier, out, out_at, accumulate,
):  # fmt: skip
    """out = the sum over i < count of scale[at + i] * table[i * pieces + argmax[at + i]].

    All arrays are flat; a row of the table has `row_vectors` vectors.  With `has_earlier`, the sum that is at
    earlier_at is added, and with `accumulate` what is in `out`.  Another thread may write values beyond
    pieces - 1 to argmax meanwhile; they count as pieces - 1.
    """
    signature = types.void(
        table, pieces, argmax, scale, at, count, row_vectors,
        earlier, earlier_at, has_earlier, out, out_at, accumulate,
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, table.dtype)
        _, pieces, _, _, at, count, row_vectors, _, earlier_at, has_earlier, _, out_at, accumulate = arguments
        table_pointer = make_array(arg_types[0])(context, builder, arguments[0]).data
        argmax_pointer = _pointer(context, builder, arg_types[2], arguments[2], at)
        scale_pointer = _pointer(context, builder, arg_types[3], arguments[3], at)
        earlier_pointer = _pointer(context, builder, arg_types[7], arguments[7], earlier_at)
        out_pointer = _pointer(context, builder, arg_types[10], arguments[10], out_at)
        integer = count.type

        def walk(width, add):
            with cgutils.for_range(builder, count) as loop:
                winner = builder.zext(builder.load(builder.gep(argmax_pointer, [loop.index])), integer)
                inside = builder.icmp_signed("<", winner, pieces)
                winner = builder.select(inside, winner, builder.sub(pieces, integer(1)))
                row = builder.add(builder.mul(loop.index, pieces), winner)
                row = builder.gep(table_pointer, [builder.mul(row, integer(width * vectors.lanes))])
                add(row, vectors.broadcast(builder.load(builder.gep(scale_pointer, [loop.index]))))

        _sum_rows(
            builder, vectors, row_vectors, GATHER_VECTORS, walk,
            earlier_pointer, has_earlier, out_pointer, accumulate,
        )  # fmt: skip
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gather_by_bits(
    typing, table, winner_bits, scale, at, row_vectors,
    earlier, earlier_at, has_earlier, out, out_at, accumulate,
):  # fmt: skip
    """out = the sum over the bits r that are set in `winner_bits` of scale[at + r] * table[r].

    All arrays are flat; a row of the table has `row_vectors` vectors, TABLE_VECTORS at most.  The flags are
    those of `gather_by_argmax`.
    """
    signature = types.void(
        table, winner_bits, scale, at, row_vectors,
        earlier, earlier_at, has_earlier, out, out_at, accumulate,
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, table.dtype)
        _, winner_bits, _, at, row_vectors, _, earlier_at, has_earlier, _, out_at, accumulate = arguments
        table_pointer = make_array(arg_types[0])(context, builder, arguments[0]).data
        scale_pointer = _pointer(context, builder, arg_types[2], arguments[2], at)
        earlier_pointer = _pointer(context, builder, arg_types[5], arguments[5], earlier_at)
        out_pointer = _pointer(context, builder, arg_types[8], arguments[8], out_at)
        integer = winner_bits.type

        def walk(width, add):
            before = builder.block
            body = builder.append_basic_block("winner")
            after = builder.append_basic_block("all_winners")
            some = builder.icmp_unsigned("!=", winner_bits, integer(0))
            builder.cbranch(some, body, after)
            builder.position_at_end(body)
            left = builder.phi(integer)
            left.add_incoming(winner_bits, before)
            r = builder.cttz(left, ir.IntType(1)(1))
            row = builder.gep(table_pointer, [builder.mul(r, integer(width * vectors.lanes))])
            add(row, vectors.broadcast(builder.load(builder.gep(scale_pointer, [r]))))
            rest = builder.and_(left, builder.sub(left, integer(1)))
            left.add_incoming(rest, body)
            builder.cbranch(builder.icmp_unsigned("!=", rest, integer(0)), body, after)
            builder.position_at_end(after)

        _sum_rows(
            builder, vectors, row_vectors, TABLE_VECTORS, walk,
            earlier_pointer, has_earlier, out_pointer, accumulate,
        )  # fmt: skip
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def equal_bits(typing, values, at, wanted, most):
    """The set of the i < 64 for which values[at + i], a byte that counts as `most` beyond it, is `wanted`."""
    signature = types.uint64(values, at, wanted, most)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        vectors = Vectors(context, builder, values.dtype, 64)
        wanted, most = (
            vectors.broadcast(builder.trunc(number, vectors.type.element)) for number in arguments[2:]
        )
        value = vectors.load(pointer)
        value = builder.select(builder.icmp_unsigned("<", value, most), value, most)
        return builder.bitcast(builder.icmp_unsigned("==", value, wanted), ir.IntType(64))

    return signature, generate


@intrinsic
def sum_by_bits(typing, values, at, bits):
    """The sum of values[at + i] over the bits i that are set in `bits`."""
    signature = values.dtype(values, at, bits)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        bits = arguments[2]
        vectors = Vectors(context, builder, values.dtype)
        mask = ir.VectorType(ir.IntType(1), vectors.lanes)
        zero = total = ir.Constant(vectors.type, None)
        for first in range(0, 64, vectors.lanes):
            some = builder.trunc(builder.lshr(bits, bits.type(first)), ir.IntType(vectors.lanes))
            value = vectors.load(builder.gep(pointer, [bits.type(first)]))
            total = builder.fadd(total, builder.select(builder.bitcast(some, mask), value, zero))
        return vectors.sum(total)

    return signature, generate


@intrinsic
def lowest_bit(typing, bits):
    """The index of the lowest bit that is set in `bits`, which is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(bits), generate


@intrinsic
def transpose_square(typing, source, starts, first, column, target, target_at, target_step):
    """Transpose a square of lanes x lanes elements; bytes have BYTE_LANES.

    All arrays are flat.  Row i of the square begins at source[starts[first + i] + column]; column i is
    written to target[target_at + i * target_step :].
    """
    signature = types.void(source, starts, first, column, target, target_at, target_step)

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, source.dtype)
        _, _, first, column, _, target_at, target_step = arguments
        source_pointer = _pointer(context, builder, arg_types[0], arguments[0], column)
        starts_pointer = _pointer(context, builder, arg_types[1], arguments[1], first)
        target_pointer = _pointer(context, builder, arg_types[4], arguments[4], target_at)
        integer = column.type

        rows = []
        for i in range(vectors.lanes):
            start = builder.load(builder.gep(starts_pointer, [integer(i)]))
            rows.append(vectors.load(builder.gep(source_pointer, [start])))
        half = 1
        while half < vectors.lanes:  # swap the off-diagonal blocks of half x half, for each size of block
            for i in range(vectors.lanes):
                if not i & half:
                    rows[i], rows[i + half] = vectors.swap(rows[i], rows[i + half], half)
            half *= 2
        for i, row in enumerate(rows):
            vectors.store(row, builder.gep(target_pointer, [builder.mul(target_step, integer(i))]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def maximum_vector(typing, z, at, step, pieces, y, y_at, argmax, argmax_at):
    """`_maximum_scalar` of maximum.py for a vector: of z[at + k * step + i] for each lane i."""
    signature = types.void(z, at, step, pieces, y, y_at, argmax, argmax_at)

    def generate(context, builder, signature, arguments):
        arg_types = signature.args
        vectors = Vectors(context, builder, z.dtype)
        _, at, step, pieces, _, y_at, _, argmax_at = arguments
        z_pointer = _pointer(context, builder, arg_types[0], arguments[0], at)
        integers = ir.VectorType(ir.IntType(32), vectors.lanes)
        best = cgutils.alloca_once_value(builder, vectors.load(z_pointer))
        index = cgutils.alloca_once_value(builder, ir.Constant(integers, None))
        with cgutils.for_range(builder, pieces, start=pieces.type(1)) as loop:
            value = vectors.load(builder.gep(z_pointer, [builder.mul(loop.index, step)]))
            largest = builder.load(best)
            # the value is larger or NaN, and the largest so far is not NaN
            wins = builder.and_(
                builder.fcmp_unordered(">", value, largest), builder.fcmp_ordered("ord", largest, largest)
            )
            builder.store(builder.select(wins, value, largest), best)
            k = vectors.broadcast(builder.trunc(loop.index, integers.element), integers)
            builder.store(builder.select(wins, k, builder.load(index)), index)
        vectors.store(builder.load(best), _pointer(context, builder, arg_types[4], arguments[4], y_at))
        bytes_type = ir.VectorType(ir.IntType(8), vectors.lanes)
        target = _pointer(context, builder, arg_types[6], arguments[6], argmax_at)
        indices = builder.trunc(builder.load(index), bytes_type)
        builder.store(indices, builder.bitcast(target, bytes_type.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def power_of_two(typing, shifted):
    """2 to the power n, |n| < 1023, of `shifted`, which is n + 1.5 * 2^52 in float64."""

    def generate(context, builder, signature, arguments):
        integer = ir.IntType(64)
        exponent = builder.shl(builder.bitcast(arguments[0], integer), integer(52))
        return builder.bitcast(builder.add(exponent, integer(1023 << 52)), arguments[0].type)

    return types.float64(types.float64), generate


@intrinsic
def copy_elements(typing, source, source_at, target, target_at, count):
    """target[target_at :][:count] = source[source_at :][:count], of flat arrays of one dtype."""
    signature = types.void(source, source_at, target, target_at, count)

    def generate(context, builder, signature, arguments):
        source_pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        target_pointer = _pointer(context, builder, signature.args[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, target_pointer, source_pointer, arguments[4], source.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, generate
