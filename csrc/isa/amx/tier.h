/* One tier's packing, micro-tiles and table.  Include it with PARTS defined, the number of bfloat16 parts of a number,
 * as often as needed. */
#ifndef PARTS /* in an editor */
#define PARTS 1
#endif

#include "isa/amx/tile.h"
#include "isa/amx/tuning.h"
#include "isa/avx512/pack_bf16.h"
#include "kernels/epilogue.h"

#define TIER_OF(name, parts) name##_##parts
#define TIER_WITH(name, parts) TIER_OF(name, parts)
#define TIER(name) TIER_WITH(name, PARTS)

static int TIER(pack_left)(int64_t rows, int64_t depth, const void *src, int64_t row_stride, int64_t depth_stride,
                           void *dst, int64_t dst_stride) {
  return pack_rows(PARTS, TILE_ROWS, rows, depth, src, row_stride, depth_stride, dst, dst_stride);
}

static int TIER(transpose)(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                           int64_t dst_stride) {
  return pack_lanes(PARTS, TILE_WORDS, rows, columns, src, src_stride, 1, dst, dst_stride);
}

static int TIER(copy_lanes)(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                            int64_t dst_stride) {
  return pack_lanes(PARTS, TILE_WORDS, columns, rows, src, 1, src_stride, dst, dst_stride);
}

#define MULTIPLY(tiles, vectors)                                                                                       \
  static void TIER(multiply_##tiles##x##vectors)(const struct tile *t) { multiply_tile(PARTS, tiles, vectors, t); }
MULTIPLY(1, 1)
MULTIPLY(1, 2)
MULTIPLY(2, 1)
MULTIPLY(2, 2)
#undef MULTIPLY
#define HEIGHTS(vectors) {[1 ... 16] = TIER(multiply_1x##vectors), [17 ... TILE_ROWS] = TIER(multiply_2x##vectors)}

static const struct tuning TIER(tuning) = TUNING(AMX_L2_BYTES, AMX_TILE_TERM);

/* kernels_amx_1, kernels_amx_2 or kernels_amx_3 */
const struct kernels TIER(kernels_amx) = {
    .unit = "AMX-BF16",
    .itemsize = sizeof(float),
    .lanes = LANES,
    .tuning = &TIER(tuning),
    .step_terms = 2 * TILE_WORDS,
    .step_words = TILE_WORDS * PARTS,
    .cut_words = CUT_TERMS / 2 * PARTS,
    .left_block = TILE_ROWS,
    .begin = tiles_begin,
    .end = tiles_end,
    .pack_left = TIER(pack_left),
    .transpose = TIER(transpose),
    .copy_lanes = TIER(copy_lanes),
    .scatter = scatter,
    .max_vectors = 2,
    .paired = 1,
    .panel_vectors = 2,
    .tile_rows = {0, TILE_ROWS, TILE_ROWS},
    .multiply = {{NULL}, HEIGHTS(1), HEIGHTS(2)},
    .store_linear = store_linear,
    .store_maxout = store_maxout,
};
#undef HEIGHTS
#undef TIER
#undef TIER_WITH
#undef TIER_OF
