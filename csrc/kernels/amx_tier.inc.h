/* One tier's packers, tiles and table: include with PARTS defined, as often as needed. */
#define TIER_OF(name, parts) name##_##parts
#define TIER_WITH(name, parts) TIER_OF(name, parts)
#define TIER(name) TIER_WITH(name, PARTS)

static int TIER(pack_left)(int64_t rows, int64_t depth, const float *src, int64_t row_stride, int64_t depth_stride,
                           float *dst, int64_t dst_stride) {
  return pack_rows(PARTS, TILE_ROWS, rows, depth, src, row_stride, depth_stride, dst, dst_stride);
}

static int TIER(transpose)(int64_t rows, int64_t columns, const float *src, int64_t src_stride, float *dst,
                           int64_t dst_stride) {
  return pack_lanes(PARTS, TILE_WORDS, rows, columns, src, src_stride, 1, dst, dst_stride);
}

static int TIER(copy_lanes)(int64_t rows, int64_t columns, const float *src, int64_t src_stride, float *dst,
                            int64_t dst_stride) {
  return pack_lanes(PARTS, TILE_WORDS, columns, rows, src, 1, src_stride, dst, dst_stride);
}

#define MULTIPLY(tiles, vectors)                                                                                       \
  static void TIER(multiply_##tiles##x##vectors)(const struct tile_f32 *t) { multiply_tile(PARTS, tiles, vectors, t); }
MULTIPLY(1, 1)
MULTIPLY(1, 2)
MULTIPLY(2, 1)
MULTIPLY(2, 2)
#undef MULTIPLY
#define HEIGHTS(vectors) {[1 ... 16] = TIER(multiply_1x##vectors), [17 ... TILE_ROWS] = TIER(multiply_2x##vectors)}

/* An instruction sums 32 terms before it adds them to the rest, so that runs of 512 terms of three parts have half the
 * error of NumPy's float32 product.  With runs half as long (2048, 2048, 2048, 2) took 148 ms instead of 136 of three
 * parts, 93 instead of 84 of two and 42 instead of 41 of one (here and below on a Xeon, family 6 model 207). */
#define RUN_TERMS (PARTS == 3 ? 512 : PARTS == 2 ? 1024 : 2048)
const struct kernels_f32 TIER(kernels_amx) = {
    .unit = "AMX-BF16",
    .lanes = LANES,
    .step_terms = 2 * TILE_WORDS,
    .step_words = TILE_WORDS * PARTS,
    .run_words = RUN_TERMS / 2 * PARTS,
    .left_block = TILE_ROWS,
    /* of the 2 MiB of every CPU that has AMX.  With 1.5, 1.75, 2 and 2.5 MiB (1024, 1024, 1024, 2)
     * took 17.0, 17.4, 18.1 and 18.9 ms of three parts, 11.0, 10.6, 10.5 and 10.5 of two. */
    .l2_bytes = PARTS == 3 ? 3 << 19 : 2 << 20,
    /* about 300, 500 and 1200 GFLOP/s where float32 tiles reach 160 */
    .tile_tenths = PARTS == 3   ? 6
                   : PARTS == 2 ? 3
                                : 1,
    .begin = tiles_begin,
    .end = tiles_end,
    .pack_left = TIER(pack_left),
    .scatter = scatter,
    .transpose = TIER(transpose),
    .copy_lanes = TIER(copy_lanes),
    .panel_vectors = 2,
    .max_vectors = 2,
    .paired = 1,
    .tile_rows = {0, TILE_ROWS, TILE_ROWS},
    .multiply = {{NULL}, HEIGHTS(1), HEIGHTS(2)},
    .finish_linear = finish_linear,
    .finish_maxout = finish_maxout,
};
#undef RUN_TERMS
#undef HEIGHTS
#undef TIER
#undef TIER_WITH
#undef TIER_OF
