/* Sums over winners: rows of a table, each times one number, the table's columns in the lanes.
 *
 * `vectors` accumulators stay in registers while the rows of a table in the L1 cache stream past: one
 * load a multiply-add, so the rate is that of L1 loads. */

/* How many rows ahead grad and argmax are fetched. */
#define PREFETCH_ROWS 8

static ALWAYS_INLINE void begin_sums(int vectors, vec *acc) {
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_set1(0);
}

static ALWAYS_INLINE void add_row(int vectors, vec *acc, real factor, const real *row) {
  vec f = vec_set1(factor);
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_fma(f, vec_load(row + v * LANES), acc[v]);
}

static ALWAYS_INLINE void add_sums(int vectors, vec *acc, const real *sums) {
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_add(vec_load(sums + v * LANES), acc[v]);
}

/* The sums number n of this table, and of those before, to where they go */
static ALWAYS_INLINE void end_sums(int vectors, vec *acc, const struct REAL(sums) * s, int64_t n) {
  const int last = vectors - 1;
  real *to = s->to + n * s->to_stride;
  int64_t columns = s->columns - last * LANES; /* of the last vector */
  if (s->run) add_sums(vectors, acc, s->run + n * vectors * LANES);
  if (s->total) add_sums(vectors, acc, s->total + n * vectors * LANES);
  if (s->accumulate) {
    add_sums(last, acc, to);
    acc[last] = vec_add(vec_load_first(to + last * LANES, columns), acc[last]);
  }
  UNROLL
  for (int v = 0; v < last; v++) vec_store(to + v * LANES, acc[v]);
  if (columns == LANES)
    vec_store(to + last * LANES, acc[last]);
  else
    vec_store_first(to + last * LANES, acc[last], columns);
}

/* The 8 bytes at p, or those before `end`; the first one lowest. */
static ALWAYS_INLINE uint64_t load_bytes(const uint8_t *p, const uint8_t *end) {
  uint64_t bytes = 0;
  if (end - p >= 8)
    memcpy(&bytes, p, 8);
  else if (end > p)
    memcpy(&bytes, p, (size_t)(end - p));
  return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? __builtin_bswap64(bytes) : bytes;
}

/* The same of an argmax, each byte at most `last` whatever another thread writes there. */
static ALWAYS_INLINE uint64_t load_winners(const uint8_t *p, const uint8_t *end, uint8_t last) {
  typedef uint8_t byte_lanes __attribute__((vector_size(16)));
  typedef uint64_t long_lanes __attribute__((vector_size(16)));
  byte_lanes winners = (byte_lanes)(long_lanes){load_bytes(p, end), 0}, beyond = (byte_lanes)(winners > last);
  return ((long_lanes)((winners & ~beyond) | (last & beyond)))[0];
}

/* For each row n: sums(n) [vectors][LANES] = sum over j < outputs of grad(n, j) * table(j * pieces + argmax(n, j),
 * :).  The argmax of the next 8 outputs is read before the sums of these 8: the CPU takes loads in their order, and
 * would wait for an address that comes from the load just before it (175 GFLOP/s; 215 so). */
static ALWAYS_INLINE void sum_chosen(int vectors, const struct REAL(chosen) * c) {
  const struct REAL(sums) sums = c->sums;
  const int64_t outputs = c->outputs, row_stride = c->row_stride, table_stride = c->table_stride;
  const real *grad = c->grad;
  const uint8_t *argmax = c->argmax, *end = c->argmax_end;
  const uint8_t last = (uint8_t)(c->pieces - 1);
  uint64_t next = load_winners(argmax, end, last);
  for (int64_t n = 0; n < c->rows; n++) {
    vec acc[MAX_WINNER_VECTORS];
    begin_sums(vectors, acc);
    /* the rows of grad and argmax to come lie a whole row apart, where no hardware prefetcher looks */
    for (int64_t j = 0; j < outputs; j += 64 / (int64_t)sizeof(real))
      __builtin_prefetch(grad + PREFETCH_ROWS * row_stride + j);
    __builtin_prefetch(argmax + PREFETCH_ROWS * row_stride);
    const real *group = c->table;
    for (int64_t j = 0; j < outputs; j += 8) {
      uint64_t winners = next;
      next = load_winners(j + 8 < outputs ? argmax + j + 8 : argmax + row_stride, end, last);
      for (int64_t i = j; i < j + 8 && i < outputs; i++, winners >>= 8, group += c->pieces * table_stride)
        add_row(vectors, acc, grad[i], group + (uint8_t)winners * table_stride);
    }
    end_sums(vectors, acc, &sums, n);
    grad += row_stride;
    argmax += row_stride;
  }
}

/* For each output j and piece k: sums(j, k) [vectors][LANES] = sum over the rows i that k won of
 * grad(j, i) * table(i, :) */
static ALWAYS_INLINE void sum_won(int vectors, const struct REAL(won) * w) {
  const struct REAL(sums) sums = w->sums;
  const real *grad = w->grad, *table = w->table;
  const int64_t pieces = w->pieces, units = w->outputs * pieces;
  int64_t next_output = pieces;
  for (int64_t u = 0; u < units; u++) {
    vec acc[MAX_WINNER_VECTORS];
    begin_sums(vectors, acc);
    if (u == next_output) {
      grad += TABLE_ROWS;
      next_output += pieces;
    }
    for (uint64_t rows = w->rows[u]; rows; rows &= rows - 1) {
      int64_t i = __builtin_ctzll(rows);
      add_row(vectors, acc, grad[i], table + i * vectors * LANES);
    }
    end_sums(vectors, acc, &sums, u);
  }
}

#define WINNERS(vectors)                                                                                               \
  static void sum_chosen_##vectors(const struct REAL(chosen) * c) { sum_chosen(vectors, c); }                          \
  static void sum_won_##vectors(const struct REAL(won) * w) { sum_won(vectors, w); }
#define SUM_CHOSEN_NAME(vectors) sum_chosen_##vectors,
#define SUM_WON_NAME(vectors) sum_won_##vectors,

#define WIDTHS_10(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10)
#define WIDTHS_12(X) WIDTHS_10(X) X(11) X(12)

#if VECTOR_REGISTERS == 32 /* a table of 12 vectors would fill an L1 cache of 48 KiB */
#define WIDTHS WIDTHS_10
enum { WINNER_VECTORS = 10 };
#else
#define WIDTHS WIDTHS_12
enum { WINNER_VECTORS = 12 };
#endif
WIDTHS(WINNERS)

/* src rows -> dst [rows][width], zeros from `columns` on */
static void pack_table(int64_t rows, int64_t columns, const real *src, int64_t stride, int64_t width, real *dst) {
  for (int64_t r = 0; r < rows; r++, src += stride, dst += width) {
    for (int64_t c = 0; c < width; c += LANES)
      vec_store(dst + c, c + LANES <= columns ? vec_load(src + c) : vec_load_first(src + c, columns - c));
  }
}

typedef uint8_t bytes __attribute__((vector_size(16)));

/* src (16, 16), rows src_stride apart -> dst, its transpose, rows dst_stride apart.  With the address of a byte as
 * 4 bits of row and 4 of column, each pass rotates these 8 bits by one. */
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

/* At most TABLE_ROWS rows seen from the outputs: grad_y and argmax (rows, outputs), rows `stride` apart ->
 * grad [outputs][TABLE_ROWS], and sets [outputs][pieces] of the rows that each piece won, a bit a row: all of them
 * for a single piece without argmax. */
static void find_winners(int64_t rows, int64_t outputs, int64_t pieces, const real *grad_y, const uint8_t *argmax,
                         int64_t stride, real *grad, uint64_t *sets) {
  transpose(rows, outputs, grad_y, stride, grad, TABLE_ROWS);
  uint64_t inside = rows < 64 ? ((uint64_t)1 << rows) - 1 : ~(uint64_t)0;
  if (!argmax) {
    for (int64_t j = 0; j < outputs; j++) sets[j] = inside;
    return;
  }
  uint8_t won[16][TABLE_ROWS] = {{0}};
  for (int64_t j = 0; j < outputs; j += 16) {
    int64_t count = outputs - j < 16 ? outputs - j : 16;
    int64_t r = 0;
    for (; r + 16 <= rows && count == 16; r += 16)
      transpose_bytes(argmax + r * stride + j, stride, &won[0][r], TABLE_ROWS);
    for (; r < rows; r++)
      for (int64_t i = 0; i < count; i++) won[i][r] = argmax[r * stride + j + i];
    for (int64_t i = 0; i < count; i++)
      for (int64_t k = 0; k < pieces; k++) *sets++ = byte_set(won[i], (uint8_t)k) & inside;
  }
}
