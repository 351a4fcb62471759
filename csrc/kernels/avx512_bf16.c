/* The tier "medium" on AVX512-BF16: the float32 register tiles, with a pair of terms in each word. */
#if defined(__x86_64__)
#include "intrinsics.h"

#include "../kernels.h"
#define REAL_BITS 32
#define REGION_BF16
#include "region.h"
#include "../real.h"
#include "vec_avx512.h"

/* acc += the two products of each word */
static inline void accumulate_pairs(vec *acc, vec a, vec b) {
#if defined(FA_EMULATE_AVX512)
  uint32_t left[LANES], right[LANES];
  float sums[LANES];
  memcpy(left, &a, sizeof left);
  memcpy(right, &b, sizeof right);
  memcpy(sums, acc, sizeof sums);
  for (int i = 0; i < LANES; i++) {
    uint32_t bits[4] = {left[i] & 0xffff0000u, right[i] & 0xffff0000u, left[i] << 16, right[i] << 16};
    float terms[4];
    memcpy(terms, bits, sizeof terms);
    sums[i] = __builtin_fmaf(terms[2], terms[3], __builtin_fmaf(terms[0], terms[1], sums[i]));
  }
  memcpy(acc, sums, sizeof sums);
#else
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(*acc) : "v"(a), "vm"(b));
#endif
}
#define vec_accumulate accumulate_pairs

#include "finish.inc.h"
#include "tile.inc.h"
#include "transpose.inc.h"

#include "bf16_pack.inc.h"

static int pack_left(int64_t rows, int64_t depth, const float *src, int64_t row_stride, int64_t depth_stride,
                     float *dst, int64_t dst_stride) {
  return pack_rows(1, 1, rows, depth, src, row_stride, depth_stride, dst, dst_stride);
}

static int transpose(int64_t rows, int64_t columns, const float *src, int64_t src_stride, float *dst,
                     int64_t dst_stride) {
  return pack_lanes(1, 1, rows, columns, src, src_stride, 1, dst, dst_stride);
}

static int copy_lanes(int64_t rows, int64_t columns, const float *src, int64_t src_stride, float *dst,
                      int64_t dst_stride) {
  return pack_lanes(1, 1, columns, rows, src, 1, src_stride, dst, dst_stride);
}

/* The sums of a run pass through memory, and the rounding of a longer one does not show beside that to bfloat16.  With
 * DEPTH_CUT words (1024, 1024, 1024, 2) took 1.03 times as long, (2048, 2048, 2048, 2) 1.05, (512, 2048, 256, 5) 1.08
 * and (64, 2048, 512, 2) 1.18, with 512 words 0.98, 1.03, 1.03 and 1.08 (Zen 5). */
#define RUN_WORDS 1024

const struct kernels_f32 kernels_avx512_bf16 = {
    .unit = "AVX512-BF16",
    .lanes = LANES,
    .step_terms = 2,
    .step_words = 1,
    .run_words = RUN_WORDS,
    .left_block = 1,
    .l2_bytes = 1 << 20,
    .tile_tenths = 5,
    .pack_left = pack_left,
    .scatter = scatter,
    .transpose = transpose,
    .copy_lanes = copy_lanes,
    REGISTER_TILES,
    .finish_linear = finish_linear,
    .finish_maxout = finish_maxout,
};
#include "region_end.h"
#endif
