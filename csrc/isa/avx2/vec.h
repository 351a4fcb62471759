/* Vectors of AVX2: a register of 8 floats or 4 doubles.  Include this inside a target region.  The functions are listed
 * in isa/README.md. */
#ifndef FA_AVX2_VEC_H
#define FA_AVX2_VEC_H

#ifndef REAL_BITS /* in an editor */
#include <immintrin.h>
#define REAL_BITS 32
#include "isa/region_begin.h"
#endif

#define VECTOR_REGISTERS 16

#if REAL_BITS == 32

#define LANES 8
typedef __m256 vec;
typedef __m256 mask; /* all bits of a lane set, or none */

static inline vec vec_set1(real a) { return _mm256_set1_ps(a); }
static inline vec vec_load(const real *p) { return _mm256_loadu_ps(p); }
static inline void vec_store(real *p, vec a) { _mm256_storeu_ps(p, a); }
static inline __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec vec_load_first(const real *p, int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
static inline void vec_store_first(real *p, vec a, int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
static inline vec vec_interleave_low(vec a, vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
static inline vec vec_interleave_high(vec a, vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
/* Loads of 4 elements put them where shuffles within 128 bits do the rest.  bench/tuning: transpose-block */
#define FAST_TRANSPOSE
static inline vec load_halves(const real *p, int64_t step) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + step), 1);
}
static inline void transpose_halves(const vec *rows, vec *columns) {
  __m256d low_01 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1]));
  __m256d low_23 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3]));
  __m256d high_01 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1]));
  __m256d high_23 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
  columns[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(low_01, low_23));
  columns[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low_01, low_23));
  columns[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high_01, high_23));
  columns[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high_01, high_23));
}
static inline void vec_load_transposed(const real *p, int64_t step, vec *columns) {
  vec rows[2][4]; /* rows[c][r]: 4 columns of the rows r, r + 4 */
  UNROLL
  for (int r = 0; r < 4; r++, p += step) {
    UNROLL
    for (int c = 0; c < 2; c++) rows[c][r] = load_halves(p + 4 * c, 4 * step);
  }
  UNROLL
  for (int c = 0; c < 2; c++) transpose_halves(rows[c], columns + 4 * c);
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  return _mm256_setr_ps(p[0], p[step], p[2 * step], p[3 * step], p[4 * step], p[5 * step], p[6 * step], p[7 * step]);
}
static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_sqrt(vec a) { return _mm256_sqrt_ps(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
/* Assembly, because GCC otherwise chooses FMA forms that rotate the accumulators among the registers, and spills some
 * of a tall tile's.  bench/tuning: fma-form */
static inline void vec_accumulate(vec *acc, vec a, vec b) {
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(*acc) : "x"(a), "xm"(b));
}
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vec vec_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline mask mask_gt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline mask mask_le(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline mask mask_nan(vec a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline int mask_any(mask a) { return _mm256_movemask_ps(a) != 0; }
static inline mask mask_or(mask a, mask b) { return _mm256_or_ps(a, b); }
static inline vec vec_select(mask m, vec a, vec b) { return _mm256_blendv_ps(b, a, m); }
static inline vec vec_scale2(vec a, vec n) {
  __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(a, _mm256_castsi256_ps(bits));
}
static inline vec vec_sign(vec a, vec b) { return _mm256_or_ps(a, _mm256_and_ps(b, _mm256_set1_ps(-0.0f))); }
/* An index of 16: its low 3 bits are those of `low`, whose higher bits are ignored, and its fourth bit is the sign of
 * `upper`. */
typedef struct {
  __m256i low;
  __m256 upper;
} lane_index;
static inline lane_index vec_interval(vec a) {
  __m256i i = _mm256_srli_epi32(_mm256_castps_si256(a), 21);
  return (lane_index){i, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28))};
}
static inline vec vec_lookup(const real *table, lane_index i) {
  vec low = _mm256_permutevar8x32_ps(vec_load(table), i.low);
  vec high = _mm256_permutevar8x32_ps(vec_load(table + LANES), i.low);
  return _mm256_blendv_ps(low, high, i.upper);
}
static inline real vec_sum(vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline void vec_store_bytes(uint8_t *p, vec a) {
  __m256i i = _mm256_cvtps_epi32(a);
  __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(w, w));
}
#define FAST_MASK_BYTES
static inline mask mask_bytes(const uint8_t *p, uint8_t value) {
  __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(bytes, _mm256_set1_epi32(value)));
}

#else

#define LANES 4
typedef __m256d vec;
typedef __m256d mask;

static inline vec vec_set1(real a) { return _mm256_set1_pd(a); }
static inline vec vec_load(const real *p) { return _mm256_loadu_pd(p); }
static inline void vec_store(real *p, vec a) { _mm256_storeu_pd(p, a); }
static inline __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline vec vec_load_first(const real *p, int64_t n) { return _mm256_maskload_pd(p, first_lanes(n)); }
static inline void vec_store_first(real *p, vec a, int64_t n) { _mm256_maskstore_pd(p, first_lanes(n), a); }
static inline vec vec_interleave_low(vec a, vec b) {
  return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
}
static inline vec vec_interleave_high(vec a, vec b) {
  return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
}
#define FAST_TRANSPOSE
static inline vec load_halves(const real *p, int64_t step) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(p + step), 1);
}
static inline void vec_load_transposed(const real *p, int64_t step, vec *columns) {
  vec rows[2][2]; /* rows[c][r]: 2 columns of the rows r, r + 2 */
  UNROLL
  for (int r = 0; r < 2; r++, p += step) {
    UNROLL
    for (int c = 0; c < 2; c++) rows[c][r] = load_halves(p + 2 * c, 2 * step);
  }
  UNROLL
  for (int c = 0; c < 2; c++) {
    columns[2 * c] = _mm256_unpacklo_pd(rows[c][0], rows[c][1]);
    columns[2 * c + 1] = _mm256_unpackhi_pd(rows[c][0], rows[c][1]);
  }
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  return _mm256_setr_pd(p[0], p[step], p[2 * step], p[3 * step]);
}
static inline vec vec_load_f32(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
static inline void vec_store_f32(float *p, vec a) { _mm_storeu_ps(p, _mm256_cvtpd_ps(a)); }
static inline vec vec_add(vec a, vec b) { return _mm256_add_pd(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_pd(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_pd(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_pd(a, b); }
static inline vec vec_sqrt(vec a) { return _mm256_sqrt_pd(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
static inline void vec_accumulate(vec *acc, vec a, vec b) {
  __asm__("vfmadd231pd %2, %1, %0" : "+x"(*acc) : "x"(a), "xm"(b));
}
static inline vec vec_min(vec a, vec b) { return _mm256_min_pd(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_pd(a, b); }
static inline vec vec_round(vec a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vec vec_abs(vec a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
static inline mask mask_gt(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_GT_OQ); }
static inline mask mask_le(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_LE_OQ); }
static inline mask mask_nan(vec a) { return _mm256_cmp_pd(a, a, _CMP_UNORD_Q); }
static inline int mask_any(mask a) { return _mm256_movemask_pd(a) != 0; }
static inline mask mask_or(mask a, mask b) { return _mm256_or_pd(a, b); }
static inline vec vec_select(mask m, vec a, vec b) { return _mm256_blendv_pd(b, a, m); }
static inline vec vec_scale2(vec a, vec n) {
  /* AVX2 has no conversion from double to int64, but a sum with 1.5 * 2^52 has its integer in the low bits */
  __m256i low = _mm256_castpd_si256(_mm256_add_pd(n, _mm256_set1_pd(0x1.8p52 + 1023)));
  return _mm256_mul_pd(a, _mm256_castsi256_pd(_mm256_slli_epi64(low, 52)));
}
#define FAST_MULTIPLY_LOW
static inline vec vec_multiply_low(vec a, uint32_t b) {
  return _mm256_castsi256_pd(_mm256_mul_epu32(_mm256_castpd_si256(a), _mm256_set1_epi64x(b)));
}
static inline real vec_sum(vec a) {
  __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
static inline void vec_store_bytes(uint8_t *p, vec a) {
  __m128i w = _mm_packs_epi32(_mm256_cvtpd_epi32(a), _mm_setzero_si128());
  int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(w, w));
  memcpy(p, &bytes, 4);
}

#endif

static inline void vec_store_bytes_first(uint8_t *p, vec a, int64_t n) {
  uint8_t lanes[LANES];
  vec_store_bytes(lanes, a);
  memcpy(p, lanes, (size_t)n);
}
static inline void vec_keep(vec *a) { __asm__("" : "+x"(*a)); }
static inline uint64_t byte_set(const uint8_t *bytes, uint8_t value) {
  __m256i v = _mm256_set1_epi8((char)value);
  __m256i low = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)bytes), v);
  __m256i high = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(bytes + 32)), v);
  return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

#endif
