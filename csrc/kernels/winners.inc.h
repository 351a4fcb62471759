/* Sums over winners: rows of a table, each times one number, the table's columns in the lanes.
 *
 * `vectors` accumulators stay in registers while the rows of a table in the L1 cache stream past: one
 * load a multiply-add, so the rate is that of L1 loads. */

static ALWAYS_INLINE void begin_sums(int vectors, vec *acc) {
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_set1(0);
}

static ALWAYS_INLINE void add_row(int vectors, vec *acc, real factor, const real *row) {
  vec f = vec_set1(factor);
  UNROLL
  for (int v = 0; v < vectors; v++) acc[v] = vec_fma(f, vec_load(row + v * LANES), acc[v]);
}

static ALWAYS_INLINE void end_sums(int vectors, const vec *acc, int add, real *sums) {
  UNROLL
  for (int v = 0; v < vectors; v++)
    vec_store(sums + v * LANES, add ? vec_add(vec_load(sums + v * LANES), acc[v]) : acc[v]);
}

/* For each row n: sums(n) [vectors][LANES] (+)= sum over j < outputs of grad(n, j) * table(j * pieces + argmax(n, j),
 * :) */
static ALWAYS_INLINE void sum_chosen(int vectors, const struct REAL(chosen) * c) {
  const real *grad = c->grad;
  const uint8_t *argmax = c->argmax;
  real *sums = c->sums;
  for (int64_t n = 0; n < c->rows; n++) {
    vec acc[MAX_WINNER_VECTORS];
    begin_sums(vectors, acc);
    /* the rows of grad and argmax to come lie a whole row apart, where no hardware prefetcher looks */
    for (int64_t j = 0; j < c->outputs; j += 64 / (int64_t)sizeof(real))
      __builtin_prefetch(grad + 2 * c->row_stride + j);
    __builtin_prefetch(argmax + 2 * c->row_stride);
    const real *group = c->table;
    for (int64_t j = 0; j < c->outputs; j++, group += c->pieces * vectors * LANES)
      add_row(vectors, acc, grad[j], group + argmax[j] * vectors * LANES);
    end_sums(vectors, acc, c->add, sums);
    grad += c->row_stride;
    argmax += c->row_stride;
    sums += vectors * LANES;
  }
}

/* For each output j and piece k: sums(j, k) [vectors][LANES] (+)= sum over the rows i that k won of
 * grad(j, i) * table(i, :), i < 64 */
static ALWAYS_INLINE void sum_won(int vectors, const struct REAL(won) * w) {
  const real *grad = w->grad;
  const uint64_t *sets = w->rows;
  real *sums = w->sums;
  for (int64_t j = 0; j < w->outputs; j++) {
    for (int64_t k = 0; k < w->pieces; k++) {
      vec acc[MAX_WINNER_VECTORS];
      begin_sums(vectors, acc);
      for (uint64_t rows = sets[k]; rows; rows &= rows - 1) {
        int i = __builtin_ctzll(rows);
        add_row(vectors, acc, grad[i], w->table + i * vectors * LANES);
      }
      end_sums(vectors, acc, w->add, sums);
      sums += vectors * LANES;
    }
    grad += w->grad_stride;
    sets += w->rows_stride;
  }
}

#define WINNERS(vectors)                                                                                               \
  static void sum_chosen_##vectors(const struct REAL(chosen) * c) { sum_chosen(vectors, c); }                          \
  static void sum_won_##vectors(const struct REAL(won) * w) { sum_won(vectors, w); }
WINNERS(1)
WINNERS(2)
WINNERS(3)
WINNERS(4)
WINNERS(5)
WINNERS(6)
WINNERS(7)
WINNERS(8)
WINNERS(9)
WINNERS(10)
WINNERS(11)
WINNERS(12)
#undef WINNERS

/* argmax of 64 rows -> for each piece the set of rows that it won, a bit a row */
static void winner_sets(int64_t pieces, const uint8_t *argmax, uint64_t *rows) {
  for (int64_t k = 0; k < pieces; k++) rows[k] = byte_set(argmax, (uint8_t)k);
}
