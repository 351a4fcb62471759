/* Vectors of AVX-512: a register of 16 floats or 8 doubles.  Include this inside a target region.  The functions are
 * listed in isa/README.md. */
#ifndef FA_AVX512_VEC_H
#define FA_AVX512_VEC_H

#ifndef REAL_BITS /* in an editor */
#include <immintrin.h>
#define REAL_BITS 32
#include "isa/region_begin.h"
#endif

#define VECTOR_REGISTERS 32
#define FIRST(n) ((mask)((1u << (n)) - 1)) /* the mask of the first n lanes */
#define FAST_JOIN

#if REAL_BITS == 32

#define LANES 16
typedef __m512 vec;
typedef __mmask16 mask;

static inline vec vec_set1(real a) { return _mm512_set1_ps(a); }
static inline vec vec_load(const real *p) { return _mm512_loadu_ps(p); }
static inline void vec_store(real *p, vec a) { _mm512_storeu_ps(p, a); }
static inline vec vec_load_first(const real *p, int64_t n) { return _mm512_maskz_loadu_ps(FIRST(n), p); }
static inline void vec_store_first(real *p, vec a, int64_t n) { _mm512_mask_storeu_ps(p, FIRST(n), a); }
static inline vec vec_interleave_low(vec a, vec b) {
  return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
}
static inline vec vec_interleave_high(vec a, vec b) {
  return _mm512_permutex2var_ps(a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
/* Loads of 4 elements put them where shuffles within 128 bits do the rest.  Each row is read whole before the next,
 * since rows that fall into one set of L1 evict each other.  bench/tuning: transpose-block */
#define FAST_TRANSPOSE
static inline void transpose_quarters(const vec *rows, vec *columns) {
  __m512d low_01 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
  __m512d low_23 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
  __m512d high_01 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
  __m512d high_23 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
  columns[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low_01, low_23));
  columns[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low_01, low_23));
  columns[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high_01, high_23));
  columns[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high_01, high_23));
}
static inline void vec_load_transposed(const real *p, int64_t step, vec *columns) {
  vec rows[4][4]; /* rows[c][r]: 4 columns of the rows r, r + 4, r + 8, r + 12 */
  UNROLL
  for (int r = 0; r < 16; r++, p += step) {
    UNROLL
    for (int c = 0; c < 4; c++) {
      __m128 quarter = _mm_loadu_ps(p + 4 * c);
      rows[c][r % 4] = r < 4 ? _mm512_castps128_ps512(quarter)
                             : _mm512_mask_broadcast_f32x4(rows[c][r % 4], (__mmask16)(0xf << r / 4 * 4), quarter);
    }
  }
  UNROLL
  for (int c = 0; c < 4; c++) transpose_quarters(rows[c], columns + 4 * c);
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  return _mm512_setr_ps(p[0], p[step], p[2 * step], p[3 * step], p[4 * step], p[5 * step], p[6 * step], p[7 * step],
                        p[8 * step], p[9 * step], p[10 * step], p[11 * step], p[12 * step], p[13 * step], p[14 * step],
                        p[15 * step]);
}
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec vec_sqrt(vec a) { return _mm512_sqrt_ps(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
/* Assembly, because GCC otherwise spills a third of the sums of a 12x2 tile.  bench/tuning: fma-form */
static inline void vec_accumulate(vec *acc, vec a, vec b) {
#if defined(FA_EMULATE_AVX512)
  *acc = vec_fma(a, b, *acc);
#else
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(*acc) : "v"(a), "vm"(b));
#endif
}
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_round(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vec vec_abs(vec a) { return _mm512_abs_ps(a); }
static inline mask mask_gt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline mask mask_le(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline mask mask_nan(vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline int mask_any(mask a) { return a != 0; }
static inline mask mask_or(mask a, mask b) { return (mask)(a | b); }
static inline vec vec_select(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
static inline vec vec_scale2(vec a, vec n) { return _mm512_scalef_ps(a, n); }
static inline vec vec_sign(vec a, vec b) { return _mm512_or_ps(a, _mm512_and_ps(b, _mm512_set1_ps(-0.0f))); }
/* Look-ups use the low 4 bits of a lane's index, or the low 5 for two tables, and ignore the higher bits. */
typedef __m512i lane_index;
static inline lane_index vec_interval(vec a) { return _mm512_srli_epi32(_mm512_castps_si512(a), 21); }
#define FAST_LOOKUP
static inline vec vec_lookup(const real *table, lane_index i) { return _mm512_permutexvar_ps(i, vec_load(table)); }
static inline lane_index vec_signed_interval(vec a, vec sign) {
  __m512i last = _mm512_srli_epi32(_mm512_castps_si512(sign), 27);
  return _mm512_ternarylogic_epi32(vec_interval(a), last, _mm512_set1_epi32(15),
                                   0xe4); /* 4 bits of a's, the rest of sign's */
}
static inline vec vec_lookup_two(const real *first, const real *second, lane_index i) {
  return _mm512_permutex2var_ps(vec_load(first), i, vec_load(second));
}
static inline vec vec_join(vec low, vec high, int first) {
  __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutex2var_ps(low, _mm512_add_epi32(lane, _mm512_set1_epi32(first)), high);
}
static inline real vec_sum(vec a) {
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline __m128i lane_bytes(vec a) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)); }
static inline void vec_store_bytes(uint8_t *p, vec a) { _mm_storeu_si128((__m128i *)p, lane_bytes(a)); }
static inline __m128i load_lane_bytes(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }

#else

#define LANES 8
typedef __m512d vec;
typedef __mmask8 mask;

static inline vec vec_set1(real a) { return _mm512_set1_pd(a); }
static inline vec vec_load(const real *p) { return _mm512_loadu_pd(p); }
static inline void vec_store(real *p, vec a) { _mm512_storeu_pd(p, a); }
static inline vec vec_load_first(const real *p, int64_t n) { return _mm512_maskz_loadu_pd(FIRST(n), p); }
static inline void vec_store_first(real *p, vec a, int64_t n) { _mm512_mask_storeu_pd(p, FIRST(n), a); }
static inline vec vec_interleave_low(vec a, vec b) {
  return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
}
static inline vec vec_interleave_high(vec a, vec b) {
  return _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
}
#define FAST_TRANSPOSE
static inline void vec_load_transposed(const real *p, int64_t step, vec *columns) {
  vec rows[4][2]; /* rows[c][r]: 2 columns of the rows r, r + 2, r + 4, r + 6 */
  UNROLL
  for (int r = 0; r < 8; r++, p += step) {
    UNROLL
    for (int c = 0; c < 4; c++) {
      __m128d quarter = _mm_loadu_pd(p + 2 * c);
      rows[c][r % 2] = r < 2 ? _mm512_castpd128_pd512(quarter)
                             : _mm512_mask_broadcast_f64x2(rows[c][r % 2], (__mmask8)(3 << r / 2 * 2), quarter);
    }
  }
  UNROLL
  for (int c = 0; c < 4; c++) {
    columns[2 * c] = _mm512_unpacklo_pd(rows[c][0], rows[c][1]);
    columns[2 * c + 1] = _mm512_unpackhi_pd(rows[c][0], rows[c][1]);
  }
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  return _mm512_setr_pd(p[0], p[step], p[2 * step], p[3 * step], p[4 * step], p[5 * step], p[6 * step], p[7 * step]);
}
static inline vec vec_load_f32(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
static inline void vec_store_f32(float *p, vec a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_pd(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm512_sub_pd(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_pd(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm512_div_pd(a, b); }
static inline vec vec_sqrt(vec a) { return _mm512_sqrt_pd(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
static inline void vec_accumulate(vec *acc, vec a, vec b) {
#if defined(FA_EMULATE_AVX512)
  *acc = vec_fma(a, b, *acc);
#else
  __asm__("vfmadd231pd %2, %1, %0" : "+v"(*acc) : "v"(a), "vm"(b));
#endif
}
static inline vec vec_min(vec a, vec b) { return _mm512_min_pd(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_pd(a, b); }
static inline vec vec_round(vec a) { return _mm512_roundscale_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vec vec_abs(vec a) { return _mm512_abs_pd(a); }
static inline mask mask_gt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
static inline mask mask_le(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
static inline mask mask_nan(vec a) { return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q); }
static inline int mask_any(mask a) { return a != 0; }
static inline mask mask_or(mask a, mask b) { return (mask)(a | b); }
static inline vec vec_select(mask m, vec a, vec b) { return _mm512_mask_blend_pd(m, b, a); }
static inline vec vec_scale2(vec a, vec n) { return _mm512_scalef_pd(a, n); }
static inline vec vec_join(vec low, vec high, int first) {
  __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm512_permutex2var_pd(low, _mm512_add_epi64(lane, _mm512_set1_epi64(first)), high);
}
static inline real vec_sum(vec a) {
  __m256d half = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
  __m128d s = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
#if !defined(FA_EMULATE_AVX512)
#define FAST_MULTIPLY_LOW
static inline vec vec_multiply_low(vec a, uint32_t b) {
  return _mm512_castsi512_pd(_mm512_mul_epu32(_mm512_castpd_si512(a), _mm512_set1_epi64(b)));
}
#endif
static inline __m128i lane_bytes(vec a) { return _mm512_cvtepi64_epi8(_mm512_cvtepi32_epi64(_mm512_cvtpd_epi32(a))); }
static inline void vec_store_bytes(uint8_t *p, vec a) { _mm_storel_epi64((__m128i *)p, lane_bytes(a)); }
static inline __m128i load_lane_bytes(const uint8_t *p) { return _mm_loadl_epi64((const __m128i *)p); }

#endif

static inline void vec_store_bytes_first(uint8_t *p, vec a, int64_t n) {
#if defined(FA_EMULATE_AVX512)
  uint8_t lanes[LANES];
  vec_store_bytes(lanes, a);
  memcpy(p, lanes, (size_t)n);
#else
  _mm_mask_storeu_epi8(p, FIRST(n), lane_bytes(a));
#endif
}
#define FAST_MASK_BYTES
static inline mask mask_bytes(const uint8_t *p, uint8_t value) {
  __m512i bytes = _mm512_castsi128_si512(load_lane_bytes(p));
  return (mask)_mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8((char)value));
}
static inline void vec_keep(vec *a) {
#if defined(FA_EMULATE_AVX512)
  (void)a;
#else
  __asm__("" : "+v"(*a));
#endif
}
static inline uint64_t byte_set(const uint8_t *bytes, uint8_t value) {
  return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(bytes), _mm512_set1_epi8((char)value));
}

#endif
