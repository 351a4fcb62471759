/* The tier "medium" on AVX512-BF16: the float32 micro-tiles, with a pair of terms in each word. */
#if defined(__x86_64__)
#define REAL_BITS 32
#define REGION_BF16
#include "isa/region_begin.h"
#include "isa/avx512/vec.h"

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
#define vec_accumulate accumulate_pairs /* used by the micro-tiles */

#include "isa/avx512/pack_bf16.h"
#include "isa/avx512/tuning.h"
#include "kernels/epilogue.h"
#include "kernels/tile.h"

static int pack_left(int64_t rows, int64_t depth, const void *src, int64_t row_stride, int64_t depth_stride, void *dst,
                     int64_t dst_stride) {
  return pack_rows(1, 1, rows, depth, src, row_stride, depth_stride, dst, dst_stride);
}

static int transpose(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                     int64_t dst_stride) {
  return pack_lanes(1, 1, rows, columns, src, src_stride, 1, dst, dst_stride);
}

static int copy_lanes(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                      int64_t dst_stride) {
  return pack_lanes(1, 1, columns, rows, src, 1, src_stride, dst, dst_stride);
}

/* Words after which a sum is cut.  Cuts are rare because the partial sums pass through memory, and because the rounding
 * of a long sum does not show beside the rounding to bfloat16.  bench/tuning: bf16-cut-words */
#define CUT_WORDS 1024

const struct kernels kernels_avx512_bf16 = {
    .unit = "AVX512-BF16",
    .itemsize = sizeof(float),
    .lanes = LANES,
    .tuning = &tuning_bf16,
    .step_terms = 2,
    .step_words = 1,
    .cut_words = CUT_WORDS,
    .left_block = 1,
    .pack_left = pack_left,
    .transpose = transpose,
    .copy_lanes = copy_lanes,
    .scatter = scatter,
    MICRO_TILES,
    .store_linear = store_linear,
    .store_maxout = store_maxout,
};
#include "isa/region_end.h"
#endif
