/* Vectors of the baseline: 16 bytes of the compiler's own vectors, 4 floats or 2 doubles.  They are SSE2 on x86-64,
 * NEON without its multiply-adds on AArch64, and scalar code elsewhere.  The functions are listed in isa/README.md.
 *
 * For reproducible results, VECTOR_BYTES is 64: the vectors have AVX-512's lanes, a multiply-add is rounded once, and
 * the activations take the formulas that AVX-512 takes. */
#ifndef FA_SCALAR_VEC_H
#define FA_SCALAR_VEC_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#ifdef VECTOR_BYTES
#define VECTOR_REGISTERS 8
/* Optimised for size: 16 lanes of scalar code, unrolled, would be half of the library. */
#undef UNROLL
#define UNROLL
#ifndef __clang__
#pragma GCC optimize("Os")
#endif
#else
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 16
#endif

#if REAL_BITS == 32
#define LANES (VECTOR_BYTES / 4)
#define EXPONENT_SHIFT 23
#define EXPONENT_BIAS 127
typedef int32_t lane_int;
#else
#define LANES (VECTOR_BYTES / 8)
#define EXPONENT_SHIFT 52
#define EXPONENT_BIAS 1023
typedef int64_t lane_int;
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef lane_int mask __attribute__((vector_size(VECTOR_BYTES))); /* all bits of a lane set, or none */

static inline vec vec_set1(real a) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = a;
  return v;
}
static inline vec vec_load(const real *p) {
  vec v = {0};
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void vec_store(real *p, vec a) { memcpy(p, &a, sizeof a); }
static inline vec vec_load_first(const real *p, int64_t n) {
  vec v = {0};
  for (int64_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}
static inline void vec_store_first(real *p, vec a, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = a[i];
}
static inline vec vec_interleave_low(vec a, vec b) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = (i % 2 ? b : a)[i / 2];
  return v;
}
static inline vec vec_interleave_high(vec a, vec b) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = (i % 2 ? b : a)[(i + LANES) / 2];
  return v;
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = p[i * step];
  return v;
}
#if REAL_BITS == 64
static inline vec vec_load_f32(const float *p) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = (double)p[i];
  return v;
}
static inline void vec_store_f32(float *p, vec a) {
  for (int i = 0; i < LANES; i++) p[i] = (float)a[i];
}
#endif
static inline vec vec_add(vec a, vec b) { return a + b; }
static inline vec vec_sub(vec a, vec b) { return a - b; }
static inline vec vec_mul(vec a, vec b) { return a * b; }
static inline vec vec_div(vec a, vec b) { return a / b; }
static inline vec vec_sqrt(vec a) {
  for (int i = 0; i < LANES; i++) a[i] = (real)sqrt((double)a[i]); /* rounds like a square root in `real` */
  return a;
}
#if VECTOR_BYTES == 16
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; } /* two roundings: the baseline may have no FMA */
#elif REAL_BITS == 64
static __attribute__((noinline)) vec vec_fma(vec a, vec b, vec c) {
  for (int i = 0; i < LANES; i++) c[i] = fma(a[i], b[i], c[i]);
  return c;
}
#else
/* a b + c rounded once.  The product is exact in double.  The sum is rounded to odd: if it is not exact, its last bit
 * is 1, so that the sum never looks like a tie of floats (Boldo & Melquiond 2008).  fmaf() would be a call for each
 * lane. */
static inline float fused(float a, float b, float c) {
  double product = (double)a * (double)b, sum = product + (double)c, seen = sum - product;
  double error = (product - (sum - seen)) + ((double)c - seen);
  int64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  int64_t inexact = (error > 0) | (error < 0); /* NaN, of an infinite sum, is neither */
  bits += (inexact & ~bits) * ((error > 0) == (sum > 0) ? 1 : -1);
  memcpy(&sum, &bits, sizeof sum);
  return (float)sum;
}
static __attribute__((noinline)) vec vec_fma(vec a, vec b, vec c) {
  for (int i = 0; i < LANES; i++) c[i] = fused(a[i], b[i], c[i]);
  return c;
}
#endif
static inline void vec_accumulate(vec *acc, vec a, vec b) { *acc = vec_fma(a, b, *acc); }
static inline void vec_keep(vec *a) { (void)a; }
static inline mask mask_gt(vec a, vec b) { return a > b; }
static inline mask mask_le(vec a, vec b) { return a <= b; }
static inline mask mask_nan(vec a) { return a != a; }
static inline int mask_any(mask a) {
  lane_int any = 0;
  for (int i = 0; i < LANES; i++) any |= a[i];
  return any != 0;
}
static inline mask mask_or(mask a, mask b) { return a | b; }
static inline vec vec_select(mask m, vec a, vec b) { return (vec)((m & (mask)a) | (~m & (mask)b)); }
static inline vec vec_min(vec a, vec b) { return vec_select(a < b, a, b); }
static inline vec vec_max(vec a, vec b) { return vec_select(a > b, a, b); }
/* `a` as an integer in the low bits of the result, which are those of a number near 1.5 * 2^EXPONENT_SHIFT: the
 * baseline has no conversion to integers and back.  |a| is less than a quarter of that number. */
static inline vec vec_integer_bits(vec a) { return a + (real)1.5 * (real)((lane_int)1 << EXPONENT_SHIFT); }
static inline vec vec_round(vec a) { return vec_integer_bits(a) - vec_integer_bits(vec_set1(0)); }
static inline vec vec_abs(vec a) { return vec_select(a < 0, -a, a); }
static inline vec vec_scale2(vec a, vec n) {
  return a * (vec)((mask)vec_integer_bits(n + EXPONENT_BIAS) << EXPONENT_SHIFT);
}
#if REAL_BITS == 32
static inline vec vec_sign(vec a, vec b) { return (vec)((mask)a | ((mask)b & INT32_MIN)); }
typedef mask lane_index;
static inline lane_index vec_interval(vec a) { return ((mask)a >> 21) & 15; }
static inline vec vec_lookup(const real *table, lane_index index) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = table[index[i]];
  return v;
}
#if VECTOR_BYTES == 64
#define FAST_LOOKUP
static inline lane_index vec_signed_interval(vec a, vec sign) { return vec_interval(a) | (((mask)sign < 0) & 16); }
static inline vec vec_lookup_two(const real *first, const real *second, lane_index index) {
  vec v = {0};
  for (int i = 0; i < LANES; i++) v[i] = (index[i] < 16 ? first : second)[index[i] & 15];
  return v;
}
#endif
#endif
static inline real vec_sum(vec a) {
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a[i] += a[i + half];
  return a[0];
}
static inline void vec_store_bytes(uint8_t *p, vec a) {
  for (int i = 0; i < LANES; i++) p[i] = (uint8_t)a[i];
}
static inline void vec_store_bytes_first(uint8_t *p, vec a, int64_t n) {
  uint8_t lanes[LANES];
  vec_store_bytes(lanes, a);
  memcpy(p, lanes, (size_t)n);
}
static inline uint64_t byte_set(const uint8_t *bytes, uint8_t value) {
  uint64_t set = 0;
  for (int i = 0; i < 64; i++) set |= (uint64_t)(bytes[i] == value) << i;
  return set;
}

#endif
