/* Gathers: sums of rows of a table, each times one element of the gradient, over the winners alone.  The table's
 * columns are in the lanes.
 *
 * Accumulators stay in registers while rows of a table in L1 stream past, once for each slice of SLICE_VECTORS at most.
 * Each multiply-add needs a load, so that the rate of L1 loads is the limit. */
#ifndef FA_GATHER_H
#define FA_GATHER_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/pack.h"
#include "kernels/winner.h"

/* The most vectors whose sums fit the registers. */
#if VECTOR_REGISTERS == 8
#define SLICE_VECTORS 5
#else
#define SLICE_VECTORS MAX_GATHER_VECTORS
#endif

/* Distance of the prefetch of grad and argmax, in rows. */
#define PREFETCH_ROWS 8

static ALWAYS_INLINE void begin_sums(int vectors, vec *acc) {
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_set1(0);
}

/* acc += factor * row */
static ALWAYS_INLINE void add_row(int vectors, vec *acc, real factor, const real *row) {
  vec f = vec_set1(factor);
  KEEP_POINTER(row);
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_fma(f, vec_load(row + v * LANES), acc[v]);
}

static ALWAYS_INLINE void add_sums(int vectors, vec *acc, const real *sums) {
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_add(vec_load(sums + v * LANES), acc[v]);
}

/* A slice of the vectors of a table, whose sums fit the registers. */
struct slice {
  int table; /* the vectors of a row of the table */
  int first, vectors;
};

/* Row n of the destination = acc, plus the sums of earlier tables */
static ALWAYS_INLINE void end_sums(struct slice slice, vec *acc, const struct gather_sums *s, int64_t n) {
  const int last = slice.vectors - 1;
  const int64_t row = (n * slice.table + slice.first) * LANES;
  real *to = (real *)s->to + n * s->to_stride + slice.first * LANES;
  int64_t columns = s->columns - (slice.first + last) * LANES; /* from the last vector on */
  if (s->partial) add_sums(slice.vectors, acc, (const real *)s->partial + row);
  if (s->total) add_sums(slice.vectors, acc, (const real *)s->total + row);
  if (s->accumulate) {
    add_sums(last, acc, to);
    acc[last] = vec_add(vec_load_first(to + last * LANES, columns < LANES ? columns : LANES), acc[last]);
  }
  UNROLL
  for (int v = 0; v < last; v++) vec_store(to + v * LANES, acc[v]);
  if (columns >= LANES)
    vec_store(to + last * LANES, acc[last]);
  else
    vec_store_first(to + last * LANES, acc[last], columns);
}

/* grad_x: for each row n, sums(n) [vectors][LANES] = sum over j of grad(n, j) * table(j * pieces + argmax(n, j), :).
 *
 * The argmax of the next 8 outputs is read before the sums of the present 8: the CPU issues loads in order, and a load
 * whose address comes from the load just before it would hold up the others.  bench/tuning: argmax-ahead */
static ALWAYS_INLINE void gather_x(struct slice slice, const struct gather_x *g) {
  const struct gather_sums sums = g->sums;
  const int64_t outputs = g->outputs, row_stride = g->row_stride, table_stride = g->table_stride;
  const real *grad = g->grad;
  const uint8_t *argmax = g->argmax, *end = g->argmax_end;
  const uint8_t last = (uint8_t)(g->pieces - 1);
  uint64_t next = load_winners(argmax, end, last);
  for (int64_t n = 0; n < g->rows; n++) {
    vec acc[SLICE_VECTORS];
    begin_sums(slice.vectors, acc);
    /* rows of grad and argmax are too far apart for a hardware prefetcher */
    for (int64_t j = 0; j < outputs; j += 64 / (int64_t)sizeof(real))
      __builtin_prefetch(grad + PREFETCH_ROWS * row_stride + j);
    __builtin_prefetch(argmax + PREFETCH_ROWS * row_stride);
    const real *group = (const real *)g->table + slice.first * LANES;
    for (int64_t j = 0; j < outputs; j += 8) {
      uint64_t winners = next;
      next = load_winners(j + 8 < outputs ? argmax + j + 8 : argmax + row_stride, end, last);
      for (int64_t i = j; i < j + 8 && i < outputs; i++, winners >>= 8, group += g->pieces * table_stride)
        add_row(slice.vectors, acc, grad[i], group + (uint8_t)winners * table_stride);
    }
    end_sums(slice, acc, &sums, n);
    grad += row_stride;
    argmax += row_stride;
  }
}

/* grad_weight: for each output j and piece k, sums(j, k) [vectors][LANES] = sum of grad(j, i) * table(i, :) over the
 * rows i in which piece k is the winner */
static ALWAYS_INLINE void gather_weight(struct slice slice, const struct gather_weight *g) {
  const struct gather_sums sums = g->sums;
  const real *grad = g->grad, *table = (const real *)g->table + slice.first * LANES;
  const int64_t pieces = g->pieces, units = g->outputs * pieces;
  int64_t next_output = pieces;
  for (int64_t u = 0; u < units; u++) {
    vec acc[SLICE_VECTORS];
    begin_sums(slice.vectors, acc);
    if (u == next_output) {
      grad += TABLE_ROWS;
      next_output += pieces;
    }
    for (uint64_t rows = g->rows[u]; rows; rows &= rows - 1) {
      int64_t i = __builtin_ctzll(rows);
      add_row(slice.vectors, acc, grad[i], table + i * slice.table * LANES);
    }
    end_sums(slice, acc, &sums, u);
  }
}

/* gather_x_<vectors> and gather_weight_<vectors>, in slices of about equal widths, and their places in the table */
#define GATHER(gather, vectors)                                                                                        \
  static void gather##_##vectors(const struct gather *g) {                                                             \
    enum { SLICES = (vectors + SLICE_VECTORS - 1) / SLICE_VECTORS };                                                   \
    UNROLL                                                                                                             \
    for (int i = 0, first = 0, end; i < SLICES; i++, first = end) {                                                    \
      end = (i + 1) * vectors / SLICES;                                                                                \
      gather((struct slice){vectors, first, end - first}, g);                                                          \
    }                                                                                                                  \
  }
#define GATHERS(vectors) GATHER(gather_x, vectors) GATHER(gather_weight, vectors)
#define GATHER_X_NAME(vectors) gather_x_##vectors,
#define GATHER_WEIGHT_NAME(vectors) gather_weight_##vectors,

#define WIDTHS_10(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10)
#define WIDTHS_12(X) WIDTHS_10(X) X(11) X(12)

/* The most vectors of a gather: with 12 of AVX-512 a table would fill an L1 cache of 48 KiB.
 * bench/tuning: gather-vectors */
#if VECTOR_REGISTERS != 16
#define WIDTHS WIDTHS_10
enum { GATHER_VECTORS = 10 };
#else
#define WIDTHS WIDTHS_12
enum { GATHER_VECTORS = 12 };
#endif
WIDTHS(GATHERS)
#undef GATHERS
#undef GATHER

/* src rows -> dst [rows][width], zeros from `columns` on */
static void pack_table(int64_t rows, int64_t columns, const void *src, int64_t stride, int64_t width, void *dst) {
  const real *from = src;
  real *to = dst;
  for (int64_t r = 0; r < rows; r++, from += stride, to += width) {
    for (int64_t c = 0; c < width; c += LANES)
      vec_store(to + c, c + LANES <= columns ? vec_load(from + c) : vec_load_first(from + c, columns - c));
  }
}

typedef uint8_t bytes __attribute__((vector_size(16)));

/* src (16, 16), rows src_stride apart -> dst, its transpose, rows dst_stride apart.  The address of a byte has 4 bits
 * of row and 4 of column; each of 4 passes rotates the 8 bits by one. */
static void transpose_bytes(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride) {
  bytes m[16], t[16];
  for (int i = 0; i < 16; i++) memcpy(&m[i], src + i * src_stride, sizeof m[i]);
  UNROLL
  for (int pass = 0; pass < 4; pass++) {
    UNROLL
    for (int i = 0; i < 8; i++) {
      t[2 * i] = SHUFFLE(bytes, m[i], m[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      t[2 * i + 1] = SHUFFLE(bytes, m[i], m[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    UNROLL
    for (int i = 0; i < 16; i++) m[i] = t[i];
  }
  for (int i = 0; i < 16; i++) memcpy(dst + i * dst_stride, &m[i], sizeof m[i]);
}

/* At most TABLE_ROWS rows of grad_y and argmax (rows, outputs), `stride` apart -> grad [outputs][TABLE_ROWS] and won
 * [outputs][pieces], the set of the rows in which each piece is the winner, a bit a row.  Without argmax the only piece
 * is the winner in every row. */
static void find_winners(int64_t rows, int64_t outputs, int64_t pieces, const void *grad_y, const uint8_t *argmax,
                         int64_t stride, void *grad, uint64_t *won) {
  transpose(rows, outputs, grad_y, stride, grad, TABLE_ROWS);
  uint64_t inside = rows < 64 ? ((uint64_t)1 << rows) - 1 : ~(uint64_t)0;
  if (!argmax) {
    for (int64_t j = 0; j < outputs; j++) won[j] = inside;
    return;
  }
  uint8_t winners[16][TABLE_ROWS] = {{0}};
  for (int64_t j = 0; j < outputs; j += 16) {
    int64_t count = outputs - j < 16 ? outputs - j : 16;
    int64_t r = 0;
    for (; r + 16 <= rows && count == 16; r += 16)
      transpose_bytes(argmax + r * stride + j, stride, &winners[0][r], TABLE_ROWS);
    for (; r < rows; r++)
      for (int64_t i = 0; i < count; i++) winners[i][r] = argmax[r * stride + j + i];
    for (int64_t i = 0; i < count; i++)
      for (int64_t k = 0; k < pieces; k++) *won++ = byte_set(winners[i], (uint8_t)k) & inside;
  }
}

#endif
