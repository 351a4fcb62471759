/* Packing for bfloat16 units: each float32 is split into bfloat16 parts, the first the number rounded to nearest even,
 * each further one what the parts before it leave.  A word holds the same part of two neighbouring terms of depth, the
 * first in its low half.  Included inside a target region. */

typedef uint32_t words16 __attribute__((vector_size(64)));
typedef uint16_t halves32 __attribute__((vector_size(64)));
typedef uint16_t halves16 __attribute__((vector_size(32)));

#define MAX_PARTS 3

/* The first `count` of 16 reals, then zeros. */
static ALWAYS_INLINE vec load_some(const float *p, int64_t count) {
  return vec_load_first(p, count < 0 ? 0 : count < 16 ? count : 16);
}

/* (a, b) rounded to bfloat16, side by side */
static ALWAYS_INLINE halves32 round_side_by_side(vec a, vec b) {
#if defined(FA_EMULATE_AVX512) || defined(FA_EMULATE_AMX)
  words16 low = (words16)a, high = (words16)b;
  low = (low + 0x7fff + (low >> 16 & 1)) >> 16;
  high = (high + 0x7fff + (high >> 16 & 1)) >> 16;
  halves16 l = __builtin_convertvector(low, halves16), h = __builtin_convertvector(high, halves16);
  halves32 both;
  memcpy(&both, &l, sizeof l);
  memcpy((char *)&both + sizeof l, &h, sizeof h);
  return both;
#else
  return (halves32)_mm512_cvtne2ps_pbh(b, a);
#endif
}

/* 16 units (rows of the left operand, or lanes) times 32 terms.  By unit: words[u][i] holds the terms 2i and 2i + 1 of
 * unit u; by depth: words[i][u] does. */
struct block {
  vec words[MAX_PARTS][16];
  int by_depth;
};

/* The largest magnitudes of first parts so far: an infinity's or NaN's where bfloat16 does not carry a number, because
 * it is none, or is rounded to an infinity. */
typedef __m512i magnitudes;

static ALWAYS_INLINE void note(words16 part, magnitudes *largest) {
  *largest = _mm512_max_epu16(*largest, (magnitudes)(part & 0x7fff7fffu));
}

static ALWAYS_INLINE int carried(magnitudes largest) {
  uint16_t halves[32], all = 0;
  memcpy(halves, &largest, sizeof halves);
  for (int i = 0; i < 32; i++)
    if (halves[i] > all) all = halves[i];
  return all < 0x7f80;
}

/* One unit's 32 terms. */
static ALWAYS_INLINE void split_unit(int parts, vec low, vec high, struct block *block, int unit, magnitudes *largest) {
  UNROLL
  for (int p = 0; p < parts; p++) {
    halves32 part = round_side_by_side(low, high);
    block->words[p][unit] = (vec)part;
    if (p == 0) note((words16)part, largest);
    if (p + 1 < parts) {
      halves16 l, h;
      memcpy(&l, &part, sizeof l);
      memcpy(&h, (char *)&part + sizeof l, sizeof h);
      low -= (vec)(__builtin_convertvector(l, words16) << 16);
      high -= (vec)(__builtin_convertvector(h, words16) << 16);
    }
  }
}

/* Two neighbouring terms of 16 units. */
static ALWAYS_INLINE void split_pair(int parts, vec even, vec odd, struct block *block, int pair, magnitudes *largest) {
  UNROLL
  for (int p = 0; p < parts; p++) {
    halves32 part = round_side_by_side(even, odd);
    words16 words = (words16)SHUFFLE(halves32, part, part, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                     24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    block->words[p][pair] = (vec)words;
    if (p == 0) note(words, largest);
    even -= (vec)(words << 16);
    odd -= (vec)(words & 0xffff0000u);
  }
}

/* src(unit, term) for units <= 16 and terms <= 32, zeros beyond */
static ALWAYS_INLINE void load_block(int parts, int64_t units, int64_t terms, const float *src, int64_t unit_stride,
                                     int64_t depth_stride, struct block *block, magnitudes *largest) {
  block->by_depth = unit_stride == 1 && depth_stride != 1;
  if (block->by_depth) {
    for (int64_t d = 0; d < 32; d += 2) {
      vec even = load_some(src + d * depth_stride, d < terms ? units : 0);
      vec odd = load_some(src + (d + 1) * depth_stride, d + 1 < terms ? units : 0);
      split_pair(parts, even, odd, block, (int)(d / 2), largest);
    }
    return;
  }
  for (int u = 0; u < 16; u++) {
    const float *unit = src + u * unit_stride;
    float gathered[32];
    if (depth_stride != 1) {
      for (int64_t t = 0; u < units && t < terms; t++) gathered[t] = unit[t * depth_stride];
      unit = gathered;
    }
    int64_t count = u < units ? terms : 0;
    split_unit(parts, load_some(unit, count), load_some(unit + 16, count - 16), block, u, largest);
  }
}

/* src(row, d) -> dst (rows, [depth / 32][parts][16 words]), zeros beyond `depth`.  Returns whether bfloat16 carries all
 * the numbers. */
static ALWAYS_INLINE int pack_rows(int parts, int64_t rows, int64_t depth, const float *src, int64_t row_stride,
                                   int64_t depth_stride, float *dst, int64_t dst_stride) {
  magnitudes largest = _mm512_setzero_si512();
  for (int64_t r = 0; r < rows; r += 16) {
    int64_t units = rows - r < 16 ? rows - r : 16;
    for (int64_t d = 0; d < depth; d += 32) {
      struct block block;
      load_block(parts, units, depth - d < 32 ? depth - d : 32, src + r * row_stride + d * depth_stride, row_stride,
                 depth_stride, &block, &largest);
      for (int p = 0; p < parts; p++) {
        if (block.by_depth) transpose_vectors(block.words[p]);
        for (int64_t u = 0; u < units; u++)
          vec_store(dst + (r + u) * dst_stride + d / 2 * parts + p * 16, block.words[p][u]);
      }
    }
  }
  return carried(largest);
}

/* src(lane, d) for at most 16 lanes -> dst ([depth / 2 / step_words][parts][step_words], 16 words), zeros beyond
 * `lanes` and `depth`.  step_words divides 16.  The result as above. */
static ALWAYS_INLINE int pack_lanes(int parts, int step_words, int64_t lanes, int64_t depth, const float *src,
                                    int64_t lane_stride, int64_t depth_stride, float *dst, int64_t dst_stride) {
  magnitudes largest = _mm512_setzero_si512();
  for (int64_t d = 0; d < depth; d += 32) {
    struct block block;
    int64_t terms = depth - d < 32 ? depth - d : 32;
    load_block(parts, lanes, terms, src + d * depth_stride, lane_stride, depth_stride, &block, &largest);
    for (int p = 0; p < parts; p++) {
      if (!block.by_depth) transpose_vectors(block.words[p]);
      for (int w = 0; w < 16; w++) {
        int step = w & -step_words;
        if (2 * step >= terms) break;
        vec_store(dst + ((d / 2 + step) * parts + p * step_words + w - step) * dst_stride, block.words[p][w]);
      }
    }
  }
  return carried(largest);
}

typedef uint8_t bytes16 __attribute__((vector_size(16)));

/* The first `count` of 16 bytes, then zeros, each in a word. */
static ALWAYS_INLINE words16 load_bytes_some(const uint8_t *p, int64_t count) {
  bytes16 loaded = {0};
  if (count >= 16)
    memcpy(&loaded, p, 16);
  else if (count > 0)
    memcpy(&loaded, p, (size_t)count);
  return __builtin_convertvector(loaded, words16);
}

static void scatter(int64_t samples, int64_t outputs, int64_t pieces, const float *grad, const uint8_t *argmax,
                    int64_t unit, int64_t units, float *dst, int64_t dst_stride) {
  for (int64_t u = 0; u < units; u += 16) {
    int64_t first = (unit + u) / pieces, count = outputs - first; /* the outputs of these 16 units start there */
    words16 output, piece;
    for (int64_t l = 0; l < 16; l++) {
      int64_t at = (unit + u) % pieces + l;
      output[l] = (uint32_t)(at / pieces);
      piece[l] = (uint32_t)(at % pieces);
    }
    for (int64_t n = 0; n < samples; n++) {
      vec g = load_some(grad + n * outputs + first, count);
      words16 winner = load_bytes_some(argmax + n * outputs + first, count);
      words16 won = (words16)(_mm512_permutexvar_epi32((__m512i)output, (__m512i)winner)) == piece;
      vec_store(dst + n * dst_stride + u, (vec)((words16)_mm512_permutexvar_ps((__m512i)output, g) & (words16)won));
    }
  }
}
