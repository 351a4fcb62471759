/* Packing for bfloat16 units.
 *
 * Parts: each float32 is split into bfloat16 parts.  The first part is the nearest to the number, each further part the
 * nearest to what the parts before it leave.  The last part of two that are as near is the even one.
 *
 * Words: a word holds the same part of two terms of depth.  The words of 32 terms pair the first term with the 17th,
 * the second with the 18th, and so on; of fewer terms the first half is paired with the second half.  So no number
 * changes its lane. */
#ifndef FA_PACK_BF16_H
#define FA_PACK_BF16_H

#include "isa/avx512/vec.h"
#include "kernels/transpose.h"

typedef uint32_t words16 __attribute__((vector_size(64)));

/* The most parts of a number. */
#define MAX_PARTS 3

/* The largest magnitudes so far, as bits.  From UNREPRESENTABLE_BITS on, bfloat16 cannot represent a number: the number
 * is rounded to an infinity, or is an infinity or NaN itself. */
typedef __m512i magnitudes;
#define UNREPRESENTABLE_BITS 0x7f7f8000u

static ALWAYS_INLINE void note(vec a, magnitudes *largest) {
  *largest = _mm512_max_epu32(*largest, (__m512i)((words16)a & 0x7fffffffu));
}

static ALWAYS_INLINE int representable(magnitudes largest) {
  words16 numbers = (words16)largest;
  uint32_t all = 0;
  for (int i = 0; i < 16; i++)
    if (numbers[i] > all) all = numbers[i];
  return all < UNREPRESENTABLE_BITS;
}

/* The words of two vectors, rounded to bfloat16 */
static ALWAYS_INLINE vec round_to_even(vec first, vec second) {
#if defined(FA_EMULATE_AVX512) || defined(FA_EMULATE_AMX)
  words16 low = (words16)first, high = (words16)second;
  low += 0x7fffu + (low >> 16 & 1);
  high += 0x7fffu + (high >> 16 & 1);
  return (vec)(low >> 16 | (high & 0xffff0000u));
#else
  words16 pairs = {0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007,
                   0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f};
  return (vec)_mm512_permutexvar_epi16((__m512i)pairs, (__m512i)_mm512_cvtne2ps_pbh(second, first));
#endif
}

/* The words of each of the parts of two vectors */
static ALWAYS_INLINE void split(int parts, vec first, vec second, vec *words, magnitudes *largest) {
  note(first, largest);
  note(second, largest);
  UNROLL
  for (int p = 0; p + 1 < parts; p++) {
    words16 low = ((words16)first + 0x8000u) & 0xffff0000u, high = ((words16)second + 0x8000u) & 0xffff0000u;
    words[p] = (vec)(low >> 16 | high);
    first -= (vec)low;
    second -= (vec)high;
  }
  words[parts - 1] = round_to_even(first, second);
}

/* A block of at most 16 units (rows of the left operand, or lanes) and 32 terms: src(unit, term), one stride being 1.
 */
struct block {
  int64_t units, terms;
  const float *src;
  int64_t unit_stride, depth_stride;
};

/* The destination of a block's words: `count` vectors `step` apart, and the vectors of the next part part_step further.
 */
struct words_at {
  float *dst;
  int64_t count, step, part_step;
};

/* Pair i of terms of all the units, zeros beyond the block */
static ALWAYS_INLINE void load_terms(const struct block *b, int64_t i, vec *first, vec *second) {
  int64_t half = (b->terms + 1) / 2;
  *first = vec_load_first(b->src + i * b->depth_stride, i < half ? b->units : 0);
  *second = vec_load_first(b->src + (half + i) * b->depth_stride, half + i < b->terms ? b->units : 0);
}

/* The first and the second half of the terms of unit i, zeros beyond the block */
static ALWAYS_INLINE void load_unit(const struct block *b, int64_t i, vec *first, vec *second) {
  int64_t half = (b->terms + 1) / 2;
  const float *unit = b->src + i * b->unit_stride;
  *first = vec_load_first(unit, i < b->units ? half : 0);
  *second = vec_load_first(unit + half, i < b->units ? b->terms - half : 0);
}

static ALWAYS_INLINE void load_pair(int terms, const struct block *b, int64_t i, vec *first, vec *second) {
  if (terms)
    load_terms(b, i, first, second);
  else
    load_unit(b, i, first, second);
}

/* The words of a block.  With `by_depth` a vector of words holds a pair of terms of all the units, else all the pairs
 * of a unit.  If the numbers are in memory the other way, the numbers are transposed before they are split into three
 * parts; one part or two are transposed after the split, which is fewer vectors. */
static ALWAYS_INLINE void split_some(int parts, int by_depth, const struct block *b, const struct words_at *to,
                                     magnitudes *largest) {
  const int terms = b->unit_stride == 1 && b->depth_stride != 1, transposed = terms != by_depth;
  vec first[16], second[16], words[2][16];
  if (transposed && parts > 2 && b->units == 16 && b->terms == 32 && b->depth_stride == 1) {
    transpose_block(b->src, b->unit_stride, (float *)first, LANES);
    transpose_block(b->src + 16, b->unit_stride, (float *)second, LANES);
  } else if (transposed && parts > 2) {
    for (int i = 0; i < 16; i++) load_pair(terms, b, i, &first[i], &second[i]);
    transpose_vectors(first);
    transpose_vectors(second);
  }
  for (int i = 0; i < (transposed ? 16 : to->count); i++) {
    vec one, other, split_words[MAX_PARTS];
    if (transposed && parts > 2)
      one = first[i], other = second[i];
    else
      load_pair(terms, b, i, &one, &other);
    split(parts, one, other, split_words, largest);
    UNROLL
    for (int p = 0; p < parts; p++) {
      if (transposed && parts <= 2)
        words[p][i] = split_words[p];
      else if (i < to->count)
        vec_store(to->dst + i * to->step + p * to->part_step, split_words[p]);
    }
  }
  if (!transposed || parts > 2) return;
  UNROLL
  for (int p = 0; p < parts; p++) {
    transpose_vectors(words[p]);
    for (int i = 0; i < to->count; i++) vec_store(to->dst + i * to->step + p * to->part_step, words[p][i]);
  }
}

/* The words of a block; with constant sizes and strides for whole blocks, which most are. */
static ALWAYS_INLINE void split_block(int parts, int by_depth, const struct block *b, const struct words_at *to,
                                      magnitudes *largest) {
  const struct words_at all = {to->dst, 16, to->step, to->part_step};
  int whole = b->units == 16 && b->terms == 32;
  if (whole && b->depth_stride == 1)
    split_some(parts, by_depth, &(struct block){16, 32, b->src, b->unit_stride, 1}, &all, largest);
  else if (whole && b->unit_stride == 1)
    split_some(parts, by_depth, &(struct block){16, 32, b->src, 1, b->depth_stride}, &all, largest);
  else
    split_some(parts, by_depth, b, to, largest);
}

/* src(row, d) -> dst, in blocks of `block` rows, block * dst_stride words apart.  A block of 1 row is
 * [depth / 32][parts][16 words], one of 32 rows [depth / 32][parts][32][16 words], zeros beyond `depth`.  Missing rows
 * of the last block are not written: their sums are never read.  Returns whether bfloat16 can represent all the
 * numbers. */
static ALWAYS_INLINE int pack_rows(int parts, int block, int64_t rows, int64_t depth, const float *src,
                                   int64_t row_stride, int64_t depth_stride, float *dst, int64_t dst_stride) {
  magnitudes largest = _mm512_setzero_si512();
  for (int64_t r = 0; r < rows; r += 16) {
    struct block b = {.units = rows - r < 16 ? rows - r : 16, .unit_stride = row_stride, .depth_stride = depth_stride};
    struct words_at to = {.dst = dst + r / block * block * dst_stride + r % block * 16,
                          .count = b.units,
                          .step = block == 1 ? dst_stride : 16,
                          .part_step = block * 16};
    for (int64_t d = 0; d < depth; d += 32, to.dst += parts * to.part_step) {
      b.terms = depth - d < 32 ? depth - d : 32;
      b.src = src + r * row_stride + d * depth_stride;
      split_block(parts, 0, &b, &to, &largest);
    }
  }
  return representable(largest);
}

/* src(lane, d) for at most 16 lanes -> dst ([depth / 32][parts][16], 16 words), zeros beyond `lanes` and `depth`.  The
 * last words of depth are only written as far as they are used, up to a multiple of step_words.  Returns the same as
 * pack_rows. */
static ALWAYS_INLINE int pack_lanes(int parts, int step_words, int64_t lanes, int64_t depth, const float *src,
                                    int64_t lane_stride, int64_t depth_stride, float *dst, int64_t dst_stride) {
  magnitudes largest = _mm512_setzero_si512();
  struct block b = {.units = lanes, .unit_stride = lane_stride, .depth_stride = depth_stride};
  struct words_at to = {.dst = dst, .step = dst_stride, .part_step = 16 * dst_stride};
  for (int64_t d = 0; d < depth; d += 32, to.dst += parts * to.part_step) {
    b.terms = depth - d < 32 ? depth - d : 32;
    b.src = src + d * depth_stride;
    to.count = ((b.terms + 1) / 2 + step_words - 1) / step_words * step_words;
    split_block(parts, 1, &b, &to, &largest);
  }
  return representable(largest);
}

/* The first `count` bytes at p, each in a lane of its own, and zeros up to 16. */
static ALWAYS_INLINE words16 load_bytes_some(const uint8_t *p, int64_t count) {
  uint8_t some[16] = {0};
  if (count < 16) p = memcpy(some, p, (size_t)count);
  return (words16)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/* 16 units of the gradient before the maximum: each lane has the gradient of its output if its piece is the winner,
 * else 0. */
static ALWAYS_INLINE void scatter_units(int64_t samples, int64_t outputs, int64_t count, words16 output, words16 piece,
                                        const float *grad, const uint8_t *argmax, float *dst, int64_t dst_stride) {
  for (int64_t n = 0; n < samples; n++, grad += outputs, argmax += outputs, dst += dst_stride) {
    words16 g = (words16)_mm512_permutexvar_epi32((__m512i)output, (__m512i)vec_load_first(grad, count));
    words16 winner = (words16)_mm512_permutexvar_epi32((__m512i)output, (__m512i)load_bytes_some(argmax, count));
    vec_store(dst, (vec)(g & (words16)(winner == piece)));
  }
}

/* Units [unit, unit + units) of the gradient before the maximum, as struct kernels has it */
static void scatter(int64_t samples, int64_t outputs, int64_t pieces, const void *grad, const uint8_t *argmax,
                    int64_t unit, int64_t units, void *dst, int64_t dst_stride) {
  const float *from = grad;
  float *to = dst;
  for (int64_t u = 0; u < units; u += 16) {
    int64_t first = (unit + u) / pieces, count = outputs - first; /* the outputs of these 16 units start there */
    words16 output, piece;
    for (uint32_t l = 0, o = 0, k = (uint32_t)((unit + u) % pieces); l < 16; l++, k++) {
      if (k == pieces) k = 0, o++;
      output[l] = o;
      piece[l] = k;
    }
    if (count >= 16)
      scatter_units(samples, outputs, 16, output, piece, from + first, argmax + first, to + u, dst_stride);
    else
      scatter_units(samples, outputs, count, output, piece, from + first, argmax + first, to + u, dst_stride);
  }
}

#endif
