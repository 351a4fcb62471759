/* One tier's packers, tiles and table: include with PARTS defined, as often as needed. */
#define TIER_OF(name, parts) name##_##parts
#define TIER_WITH(name, parts) TIER_OF(name, parts)
#define TIER(name) TIER_WITH(name, PARTS)

static int TIER(pack_left)(int64_t rows, int64_t depth, const float *src, int64_t row_stride, int64_t depth_stride,
                           float *dst, int64_t dst_stride) {
  return pack_rows(PARTS, rows, depth, src, row_stride, depth_stride, dst, dst_stride);
}

static int TIER(transpose)(int64_t rows, int64_t columns, const float *src, int64_t src_stride, float *dst,
                           int64_t dst_stride) {
  return pack_lanes(PARTS, TILE_WORDS, rows, columns, src, src_stride, 1, dst, dst_stride);
}

static int TIER(copy_lanes)(int64_t rows, int64_t columns, const float *src, int64_t src_stride, float *dst,
                            int64_t dst_stride) {
  return pack_lanes(PARTS, TILE_WORDS, columns, rows, src, 1, src_stride, dst, dst_stride);
}

#define MULTIPLY(vectors)                                                                                              \
  static void TIER(multiply_##vectors)(const struct tile_f32 *t) { multiply_tile(PARTS, vectors, t); }
MULTIPLY(1)
MULTIPLY(2)
MULTIPLY(3)
MULTIPLY(4)
#undef MULTIPLY

const struct kernels_f32 TIER(kernels_amx) = {
    .unit = "AMX-BF16",
    .lanes = LANES,
    .step_terms = 2 * TILE_WORDS,
    .step_words = TILE_WORDS * PARTS,
    .run_words = DEPTH_CUT / 2 * PARTS,
    /* 203 to 231, 430 to 520 and 710 to 830 GFLOP/s of a prototype, packing included, where float32 reached 168 to 189
     * (Xeon, Sapphire Rapids), rounded up.  An estimate: these kernels' own speed was not seen. */
    .tile_tenths = PARTS == 3   ? 9
                   : PARTS == 2 ? 4
                                : 3,
    .begin = tiles_begin,
    .end = tiles_end,
    .pack_left = TIER(pack_left),
    .scatter = scatter,
    .transpose = TIER(transpose),
    .copy_lanes = TIER(copy_lanes),
    .panel_vectors = 2,
    .max_vectors = 4,
    .tile_rows = {0, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS},
    .multiply = {{NULL},
                 {[1 ... TILE_ROWS] = TIER(multiply_1)},
                 {[1 ... TILE_ROWS] = TIER(multiply_2)},
                 {[1 ... TILE_ROWS] = TIER(multiply_3)},
                 {[1 ... TILE_ROWS] = TIER(multiply_4)}},
    .finish_linear = finish_linear,
    .finish_maxout = finish_maxout,
};
#undef TIER
#undef TIER_WITH
#undef TIER_OF
