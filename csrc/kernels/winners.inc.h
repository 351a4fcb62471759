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

/* sums [vectors][LANES] (+)= sum over j < outputs of grad[j] * table(j * pieces + argmax[j], :) */
static ALWAYS_INLINE void sum_chosen(int vectors, const struct REAL(chosen) * c) {
  vec acc[MAX_WINNER_VECTORS];
  begin_sums(vectors, acc);
  const real *group = c->table;
  for (int64_t j = 0; j < c->outputs; j++, group += c->pieces * c->table_stride)
    add_row(vectors, acc, c->grad[j], group + c->argmax[j] * c->table_stride);
  end_sums(vectors, acc, c->add, c->sums);
}

/* For each piece k: sums(k) [vectors][LANES] (+)= sum over the rows i that k won of grad[i] * table(i, :), i < 64 */
static ALWAYS_INLINE void sum_won(int vectors, const struct REAL(won) * w) {
  for (int64_t k = 0; k < w->pieces; k++) {
    vec acc[MAX_WINNER_VECTORS];
    begin_sums(vectors, acc);
    for (uint64_t rows = w->rows[k]; rows; rows &= rows - 1) {
      int i = __builtin_ctzll(rows);
      add_row(vectors, acc, w->grad[i], w->table + i * w->table_stride);
    }
    end_sums(vectors, acc, w->add, w->sums + k * vectors * LANES);
  }
}

#define WINNERS(vectors)                                                                                     \
  static void sum_chosen_##vectors(const struct REAL(chosen) * c) { sum_chosen(vectors, c); }                \
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
