/* Vectors of AVX-512's length on an ISA with half as many lanes: pairs of the ISA's own.  With as many lanes as
 * AVX-512, and its formulas, every sum and every function has AVX-512's bits, which reproducible results need.
 *
 * Include this after the line that includes "isa/paired_begin.h" and the ISA's vec.h. */
#ifndef FA_PAIRED_H
#define FA_PAIRED_H

#ifndef REAL_BITS
#include "isa/paired_begin.h"
#include "kernels/editor.h"
#endif

#include "isa/paired_end.h"

enum { OWN_LANES = LANES };
#undef LANES
#if REAL_BITS == 32
#define LANES 16
#else
#define LANES 8
#endif
_Static_assert(LANES == 2 * OWN_LANES, "an ISA with half of AVX-512's lanes");

/* Sums of a micro-tile are pairs too: half of 16 registers. */
#undef VECTOR_REGISTERS
#define VECTOR_REGISTERS 8
#undef FACTORS

typedef struct {
  own_vec low, high;
} vec;

typedef struct {
  own_mask low, high;
} mask;

#define OWN_VECTORS 2
static inline own_vec *own_of(vec *a, int i) { return i ? &a->high : &a->low; }

/* How many of the first n lanes are in each half */
static inline int64_t in_low(int64_t n) { return n < OWN_LANES ? n : OWN_LANES; }
static inline int64_t in_high(int64_t n) { return n - in_low(n); }

static inline vec vec_set1(real a) { return (vec){own_set1(a), own_set1(a)}; }
static inline vec vec_load(const real *p) { return (vec){own_load(p), own_load(p + OWN_LANES)}; }
static inline void vec_store(real *p, vec a) {
  own_store(p, a.low);
  own_store(p + OWN_LANES, a.high);
}
static inline vec vec_load_first(const real *p, int64_t n) {
  return (vec){own_load_first(p, in_low(n)), own_load_first(p + in_low(n), in_high(n))};
}
static inline void vec_store_first(real *p, vec a, int64_t n) {
  own_store_first(p, a.low, in_low(n));
  own_store_first(p + in_low(n), a.high, in_high(n));
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  return (vec){own_load_strided(p, step), own_load_strided(p + OWN_LANES * step, step)};
}
static inline vec vec_interleave_low(vec a, vec b) {
  return (vec){own_interleave_low(a.low, b.low), own_interleave_high(a.low, b.low)};
}
static inline vec vec_interleave_high(vec a, vec b) {
  return (vec){own_interleave_low(a.high, b.high), own_interleave_high(a.high, b.high)};
}
static inline vec vec_add(vec a, vec b) { return (vec){own_add(a.low, b.low), own_add(a.high, b.high)}; }
static inline vec vec_sub(vec a, vec b) { return (vec){own_sub(a.low, b.low), own_sub(a.high, b.high)}; }
static inline vec vec_mul(vec a, vec b) { return (vec){own_mul(a.low, b.low), own_mul(a.high, b.high)}; }
static inline vec vec_div(vec a, vec b) { return (vec){own_div(a.low, b.low), own_div(a.high, b.high)}; }
static inline vec vec_sqrt(vec a) { return (vec){own_sqrt(a.low), own_sqrt(a.high)}; }
static inline vec vec_fma(vec a, vec b, vec c) {
  return (vec){own_fma(a.low, b.low, c.low), own_fma(a.high, b.high, c.high)};
}
static inline void vec_accumulate(vec *acc, vec a, vec b) {
  own_accumulate(&acc->low, a.low, b.low);
  own_accumulate(&acc->high, a.high, b.high);
}
static inline void vec_keep(vec *a) {
  own_keep(&a->low);
  own_keep(&a->high);
}
static inline vec vec_min(vec a, vec b) { return (vec){own_min(a.low, b.low), own_min(a.high, b.high)}; }
static inline vec vec_max(vec a, vec b) { return (vec){own_max(a.low, b.low), own_max(a.high, b.high)}; }
static inline vec vec_round(vec a) { return (vec){own_round(a.low), own_round(a.high)}; }
static inline vec vec_abs(vec a) { return (vec){own_abs(a.low), own_abs(a.high)}; }
static inline vec vec_scale2(vec a, vec n) { return (vec){own_scale2(a.low, n.low), own_scale2(a.high, n.high)}; }
static inline real vec_sum(vec a) { return own_sum(own_add(a.low, a.high)); }
static inline mask mask_gt(vec a, vec b) { return (mask){own_gt(a.low, b.low), own_gt(a.high, b.high)}; }
static inline mask mask_le(vec a, vec b) { return (mask){own_le(a.low, b.low), own_le(a.high, b.high)}; }
static inline mask mask_nan(vec a) { return (mask){own_nan(a.low), own_nan(a.high)}; }
static inline mask mask_or(mask a, mask b) { return (mask){own_or(a.low, b.low), own_or(a.high, b.high)}; }
static inline int mask_any(mask a) { return own_any(own_or(a.low, a.high)); }
static inline vec vec_select(mask m, vec a, vec b) {
  return (vec){own_select(m.low, a.low, b.low), own_select(m.high, a.high, b.high)};
}
static inline void vec_store_bytes(uint8_t *p, vec a) {
  own_store_bytes(p, a.low);
  own_store_bytes(p + OWN_LANES, a.high);
}
static inline void vec_store_bytes_first(uint8_t *p, vec a, int64_t n) {
  own_store_bytes_first(p, a.low, in_low(n));
  own_store_bytes_first(p + in_low(n), a.high, in_high(n));
}
#ifdef FAST_MASK_BYTES
static inline mask mask_bytes(const uint8_t *p, uint8_t value) {
  return (mask){own_mask_bytes(p, value), own_mask_bytes(p + OWN_LANES, value)};
}
#endif

#if REAL_BITS == 32

static inline vec vec_sign(vec a, vec b) { return (vec){own_sign(a.low, b.low), own_sign(a.high, b.high)}; }

typedef struct {
  own_index low, high;
  mask second; /* the lanes that look up the second of two tables */
} lane_index;

static inline lane_index vec_interval(vec a) {
  vec zero = vec_set1(0);
  return (lane_index){own_interval(a.low), own_interval(a.high), mask_gt(zero, zero)};
}
static inline vec vec_lookup(const real *table, lane_index i) {
  return (vec){own_lookup(table, i.low), own_lookup(table, i.high)};
}
#define FAST_LOOKUP
static inline lane_index vec_signed_interval(vec a, vec sign) {
  lane_index i = vec_interval(a);
  i.second = mask_gt(vec_set1(0), vec_sign(vec_set1(1), sign)); /* -0 counts as negative */
  return i;
}
static inline vec vec_lookup_two(const real *first, const real *second, lane_index i) {
  return vec_select(i.second, vec_lookup(second, i), vec_lookup(first, i));
}

#else

static inline vec vec_load_f32(const float *p) { return (vec){own_load_f32(p), own_load_f32(p + OWN_LANES)}; }
static inline void vec_store_f32(float *p, vec a) {
  own_store_f32(p, a.low);
  own_store_f32(p + OWN_LANES, a.high);
}
#ifdef FAST_MULTIPLY_LOW
static inline vec vec_multiply_low(vec a, uint32_t b) {
  return (vec){own_multiply_low(a.low, b), own_multiply_low(a.high, b)};
}
#endif

#endif

#endif
