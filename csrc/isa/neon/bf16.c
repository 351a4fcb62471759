/* The tier "medium" on the bfloat16 instructions of AArch64: the float32 micro-tiles, with a pair of terms in each
 * word. */
#if defined(__AARCH64EL__)
#define REAL_BITS 32
#define REGION_NEON_BF16
#include "isa/region_begin.h"
#include "isa/neon/vec.h"

/* acc += the two products of each word */
#define BFDOT(lane)                                                                                                    \
  __asm__ volatile("bfdot %0.4s, %2.8h, %4." lane "\n\tbfdot %1.4s, %3.8h, %4." lane                                   \
                   : "+w"(acc->low), "+w"(acc->high)                                                                   \
                   : "w"(b.low), "w"(b.high), "w"(a))
static ALWAYS_INLINE void accumulate_pairs(vec *acc, factors a, int i, vec b) {
  switch (i) {
  case 0: BFDOT("2h[0]"); break;
  case 1: BFDOT("2h[1]"); break;
  case 2: BFDOT("2h[2]"); break;
  case 3: BFDOT("2h[3]"); break;
  }
}
#define accumulate_factor accumulate_pairs /* used by the micro-tiles */

#include "isa/neon/tuning.h"
#include "kernels/epilogue.h"
#include "kernels/tile.h"
#include "kernels/transpose.h"

/* The largest magnitudes so far, as bits.  From UNREPRESENTABLE_BITS on, bfloat16 cannot represent a number: the number
 * is rounded to an infinity, or is an infinity or NaN itself. */
typedef uint32x4_t magnitudes;
#define UNREPRESENTABLE_BITS 0x7f7f8000u

/* The numbers of `a`, rounded to the nearest bfloat16 */
static ALWAYS_INLINE half rounded(vec a, magnitudes *largest) {
  *largest = vmaxq_u32(*largest, vmaxq_u32((uint32x4_t)vabsq_f32(a.low), (uint32x4_t)vabsq_f32(a.high)));
  return (half)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(a.low), a.high);
}

/* src(unit, term), one stride being 1 -> words, which pair a term of even index with the next, zeros beyond `terms`.
 * The words of a unit are side by side in dst, or with `by_depth` those of a pair of terms.  Units come in blocks of 8,
 * terms of 16.  Returns whether bfloat16 can represent all the numbers. */
static ALWAYS_INLINE int pack_words(int by_depth, int64_t units, int64_t terms, const float *src, int64_t unit_stride,
                                    int64_t depth_stride, float *dst, int64_t dst_stride) {
  const int units_in_lanes = unit_stride == 1 && depth_stride != 1;
  magnitudes largest = vdupq_n_u32(0);
  for (int64_t u = 0; u < units; u += LANES) {
    const int64_t block_units = units - u < LANES ? units - u : LANES;
    for (int64_t d = 0; d < terms; d += 2 * LANES) {
      const int64_t block_terms = terms - d < 2 * LANES ? terms - d : 2 * LANES;
      const float *from = src + u * unit_stride + d * depth_stride;
      vec words[LANES];
      for (int64_t i = 0; i < LANES; i++) {
        if (units_in_lanes) { /* pair i */
          const float *pair = from + 2 * i * depth_stride;
          half first = rounded(vec_load_first(pair, 2 * i < block_terms ? block_units : 0), &largest);
          half second =
              rounded(vec_load_first(pair + depth_stride, 2 * i + 1 < block_terms ? block_units : 0), &largest);
          words[i].low = (half)vzip1q_u16((uint16x8_t)first, (uint16x8_t)second);
          words[i].high = (half)vzip2q_u16((uint16x8_t)first, (uint16x8_t)second);
        } else { /* unit i */
          const float *unit = from + i * unit_stride;
          const int64_t inside = i < block_units ? block_terms : 0, first = inside < LANES ? inside : LANES;
          words[i].low = rounded(vec_load_first(unit, first), &largest);
          words[i].high = rounded(vec_load_first(unit + LANES, inside - first), &largest);
        }
      }
      if (units_in_lanes != by_depth) transpose_vectors(words);
      const int64_t count = by_depth ? (block_terms + 1) / 2 : block_units;
      float *to = dst + (by_depth ? d / 2 * dst_stride + u : u * dst_stride + d / 2);
      for (int64_t i = 0; i < count; i++) vec_store(to + i * dst_stride, words[i]);
    }
  }
  return vmaxvq_u32(largest) < UNREPRESENTABLE_BITS;
}

static int pack_left(int64_t rows, int64_t depth, const void *src, int64_t row_stride, int64_t depth_stride, void *dst,
                     int64_t dst_stride) {
  return pack_words(0, rows, depth, src, row_stride, depth_stride, dst, dst_stride);
}

static int transpose(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                     int64_t dst_stride) {
  return pack_words(1, rows, columns, src, src_stride, 1, dst, dst_stride);
}

static int copy_lanes(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                      int64_t dst_stride) {
  return pack_words(1, columns, rows, src, 1, src_stride, dst, dst_stride);
}

const struct kernels kernels_neon_bf16 = {
    .unit = "NEON-BF16",
    .itemsize = sizeof(float),
    .lanes = LANES,
    .tuning = &tuning_bf16,
    .step_terms = 2,
    .step_words = 1,
    .cut_words = 1024, /* as AVX512-BF16's: bench/tuning, bf16-cut-words */
    .left_block = 1,
    .pack_left = pack_left,
    .transpose = transpose,
    .copy_lanes = copy_lanes,
    MICRO_TILES,
    .store_linear = store_linear,
    .store_maxout = store_maxout,
};
#include "isa/region_end.h"
#endif
