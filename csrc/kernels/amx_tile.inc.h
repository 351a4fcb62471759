/* The multiply of the AMX kernels: 2 x 2 tiles of sums, two tiles of rows and two of columns.
 *
 * Numbers in parts a0 + a1 + a2 and b0 + b1 + b2 have the products ai bj of weight 2^(-8 (i + j)); those of weight down
 * to that of the last part are summed, a whole run of depth of the small ones first, so that the sum of the large ones
 * is rounded as often as a float32 sum is. */

#define TILE_ROWS 32
#define TILE_WORDS 16 /* words of depth of a tile */

/* The products but a0 b0, in an order that changes one side at a time: only that side's tiles are loaded. */
static const struct {
  int count;
  struct {
    int left, right;
  } parts[5];
} small_products[MAX_PARTS + 1] = {
    [2] = {2, {{1, 0}, {0, 1}}},
    [3] = {5, {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}}},
};

/* Two tiles of rows of one part at one step of depth, and one or two of columns. */
static ALWAYS_INLINE void load_rows(const float *left, int64_t row_bytes) {
  tile_load(4, left, row_bytes);
  tile_load(5, left + 16 * row_bytes / (int64_t)sizeof(float), row_bytes);
}

static ALWAYS_INLINE void load_columns(int vectors, const float *right, int64_t row_bytes) {
  tile_load(6, right, row_bytes);
  if (vectors == 2) tile_load(7, right + LANES, row_bytes);
}

static ALWAYS_INLINE void multiply_tiles(int vectors) {
  tile_dpbf16(0, 4, 6);
  tile_dpbf16(2, 5, 6);
  if (vectors == 2) {
    tile_dpbf16(1, 4, 7);
    tile_dpbf16(3, 5, 7);
  }
}

/* One or two vectors of the sums, sums [TILE_ROWS][2][LANES].  left (rows, [steps][parts][16]),
 * right ([steps][parts][16], all the vectors) */
static ALWAYS_INLINE void multiply_vectors(int parts, int vectors, const struct tile_f32 *t, const float *right,
                                           float *sums) {
  int64_t left_bytes = t->left_stride * (int64_t)sizeof(float), right_bytes = t->right_stride * (int64_t)sizeof(float);
  int64_t steps = t->depth / (TILE_WORDS * parts), right_part = TILE_WORDS * t->right_stride;
  UNROLL
  for (int i = 0; i < 4; i++) tile_zero(i);
  for (int64_t s = 0; s < steps && parts > 1; s++) {
    const float *rows = t->left + s * parts * TILE_WORDS, *columns = right + s * parts * right_part;
    UNROLL
    for (int i = 0; i < small_products[parts].count; i++) {
      int l = small_products[parts].parts[i].left, r = small_products[parts].parts[i].right;
      if (i == 0 || l != small_products[parts].parts[i - 1].left) load_rows(rows + l * TILE_WORDS, left_bytes);
      if (i == 0 || r != small_products[parts].parts[i - 1].right)
        load_columns(vectors, columns + r * right_part, right_bytes);
      multiply_tiles(vectors);
    }
  }
  for (int64_t s = 0; s < steps; s++) {
    load_rows(t->left + s * parts * TILE_WORDS, left_bytes);
    load_columns(vectors, right + s * parts * right_part, right_bytes);
    multiply_tiles(vectors);
  }
  UNROLL
  for (int i = 0; i < 4; i++)
    if (i % 2 < vectors) tile_store(i, sums + (i / 2 * 16 * 2 + i % 2) * LANES, 2 * LANES * sizeof(float));
}

static ALWAYS_INLINE void multiply_run(int parts, int vectors, const struct tile_f32 *t) {
  float sums[TILE_ROWS * 2 * LANES];
  for (int v = 0; v < vectors; v += 2) {
    int taken = vectors - v < 2 ? 1 : 2;
    if (taken == 2)
      multiply_vectors(parts, 2, t, t->right + v * LANES, sums);
    else
      multiply_vectors(parts, 1, t, t->right + v * LANES, sums);
    for (int r = 0; r < t->rows; r++)
      for (int i = 0; i < taken; i++) {
        float *to = t->sums + r * t->sums_stride + (v + i) * LANES;
        vec sum = vec_load(sums + (r * 2 + i) * LANES);
        vec_store(to, t->add ? vec_add(vec_load(to), sum) : sum);
      }
  }
}

static ALWAYS_INLINE void multiply_tile(int parts, int vectors, const struct tile_f32 *t) {
  struct tile_f32 run = *t;
  int64_t d = 0;
  do {
    run.depth = t->depth - d < t->run ? t->depth - d : t->run;
    run.left = t->left + d;
    run.right = t->right + d * t->right_stride;
    multiply_run(parts, vectors, &run);
    run.add = 1;
    d += t->run;
  } while (d < t->depth);
}
