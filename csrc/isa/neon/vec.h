/* Vectors of NEON: two registers of 16 bytes each, so that a vector has the 8 floats or 4 doubles of AVX2, and every
 * result has the bits of AVX2's.  The functions are listed in isa/README.md. */
#ifndef FA_NEON_VEC_H
#define FA_NEON_VEC_H

#ifndef REAL_BITS /* in an editor */
#define REAL_BITS 32
#include "isa/region_begin.h"
#endif

#define VECTOR_REGISTERS 16

#if REAL_BITS == 32
#define LANES 8
#define FACTORS 4
#define NEON(name) v##name##_f32
typedef float32x4_t half;
typedef uint32x4_t half_mask; /* all bits of a lane set, or none */
#else
#define LANES 4
#define FACTORS 2
#define NEON(name) v##name##_f64
typedef float64x2_t half;
typedef uint64x2_t half_mask;
#endif

typedef struct {
  half low, high;
} vec;

typedef struct {
  half_mask low, high;
} mask;

static inline vec vec_set1(real a) { return (vec){NEON(dupq_n)(a), NEON(dupq_n)(a)}; }
static inline vec vec_load(const real *p) { return (vec){NEON(ld1q)(p), NEON(ld1q)(p + LANES / 2)}; }
static inline void vec_store(real *p, vec a) {
  NEON(st1q)(p, a.low);
  NEON(st1q)(p + LANES / 2, a.high);
}
static inline vec vec_load_first(const real *p, int64_t n) {
  real lanes[LANES] = {0};
  memcpy(lanes, p, (size_t)n * sizeof(real));
  return vec_load(lanes);
}
static inline void vec_store_first(real *p, vec a, int64_t n) {
  real lanes[LANES];
  vec_store(lanes, a);
  memcpy(p, lanes, (size_t)n * sizeof(real));
}
static inline vec vec_interleave_low(vec a, vec b) {
  return (vec){NEON(zip1q)(a.low, b.low), NEON(zip2q)(a.low, b.low)};
}
static inline vec vec_interleave_high(vec a, vec b) {
  return (vec){NEON(zip1q)(a.high, b.high), NEON(zip2q)(a.high, b.high)};
}
#define FAST_TRANSPOSE
/* columns[c], lane r = p[r step + c], for c < LANES / 2 */
static inline void half_transposed(const real *p, int64_t step, half *columns) {
  half row_0 = NEON(ld1q)(p), row_1 = NEON(ld1q)(p + step);
#if REAL_BITS == 32
  half row_2 = vld1q_f32(p + 2 * step), row_3 = vld1q_f32(p + 3 * step);
  half low_02 = vzip1q_f32(row_0, row_2), low_13 = vzip1q_f32(row_1, row_3);
  half high_02 = vzip2q_f32(row_0, row_2), high_13 = vzip2q_f32(row_1, row_3);
  columns[0] = vzip1q_f32(low_02, low_13);
  columns[1] = vzip2q_f32(low_02, low_13);
  columns[2] = vzip1q_f32(high_02, high_13);
  columns[3] = vzip2q_f32(high_02, high_13);
#else
  columns[0] = vzip1q_f64(row_0, row_1);
  columns[1] = vzip2q_f64(row_0, row_1);
#endif
}
static inline void vec_load_transposed(const real *p, int64_t step, vec *columns) {
  half low[LANES], high[LANES];
  UNROLL
  for (int c = 0; c < LANES; c += LANES / 2) {
    half_transposed(p + c, step, low + c);
    half_transposed(p + LANES / 2 * step + c, step, high + c);
  }
  UNROLL
  for (int c = 0; c < LANES; c++) columns[c] = (vec){low[c], high[c]};
}
static inline vec vec_load_strided(const real *p, int64_t step) {
  real lanes[LANES];
  UNROLL
  for (int i = 0; i < LANES; i++) lanes[i] = p[i * step];
  return vec_load(lanes);
}
static inline vec vec_add(vec a, vec b) { return (vec){NEON(addq)(a.low, b.low), NEON(addq)(a.high, b.high)}; }
static inline vec vec_sub(vec a, vec b) { return (vec){NEON(subq)(a.low, b.low), NEON(subq)(a.high, b.high)}; }
static inline vec vec_mul(vec a, vec b) { return (vec){NEON(mulq)(a.low, b.low), NEON(mulq)(a.high, b.high)}; }
static inline vec vec_div(vec a, vec b) { return (vec){NEON(divq)(a.low, b.low), NEON(divq)(a.high, b.high)}; }
static inline vec vec_sqrt(vec a) { return (vec){NEON(sqrtq)(a.low), NEON(sqrtq)(a.high)}; }
static inline vec vec_fma(vec a, vec b, vec c) {
  return (vec){NEON(fmaq)(c.low, a.low, b.low), NEON(fmaq)(c.high, a.high, b.high)};
}
static inline void vec_accumulate(vec *acc, vec a, vec b) { *acc = vec_fma(a, b, *acc); }
static inline void vec_keep(vec *a) { __asm__("" : "+w"(a->low), "+w"(a->high)); }
static inline vec vec_round(vec a) { return (vec){NEON(rndnq)(a.low), NEON(rndnq)(a.high)}; }
static inline vec vec_abs(vec a) { return (vec){NEON(absq)(a.low), NEON(absq)(a.high)}; }
static inline mask mask_gt(vec a, vec b) { return (mask){NEON(cgtq)(a.low, b.low), NEON(cgtq)(a.high, b.high)}; }
static inline mask mask_le(vec a, vec b) { return (mask){NEON(cleq)(a.low, b.low), NEON(cleq)(a.high, b.high)}; }
static inline mask mask_nan(vec a) { return (mask){~NEON(ceqq)(a.low, a.low), ~NEON(ceqq)(a.high, a.high)}; }
static inline mask mask_or(mask a, mask b) { return (mask){a.low | b.low, a.high | b.high}; }
static inline int mask_any(mask a) { return vmaxvq_u32((uint32x4_t)(a.low | a.high)) != 0; }
static inline vec vec_select(mask m, vec a, vec b) {
  return (vec){NEON(bslq)(m.low, a.low, b.low), NEON(bslq)(m.high, a.high, b.high)};
}
/* NEON's own minimum and maximum are NaN where either operand is. */
static inline vec vec_min(vec a, vec b) { return vec_select(mask_gt(b, a), a, b); }
static inline vec vec_max(vec a, vec b) { return vec_select(mask_gt(a, b), a, b); }

/* FMLA takes one of its factors from a lane, whose number is part of the instruction, hence the switch, which the
 * compiler folds.  Volatile, because GCC otherwise lifts the loads of several steps above the multiply-adds, and spills
 * a third of the sums. */
typedef half factors;
static inline factors load_factors(const real *p, int count) {
  return count == FACTORS ? NEON(ld1q)(p) : NEON(ld1q_dup)(p);
}
#define FMLA(sums, lane)                                                                                               \
  __asm__ volatile("fmla %0." sums ", %2." sums ", %4." lane "\n\tfmla %1." sums ", %3." sums ", %4." lane             \
                   : "+w"(acc->low), "+w"(acc->high)                                                                   \
                   : "w"(b.low), "w"(b.high), "w"(a))
static ALWAYS_INLINE void accumulate_factor(vec *acc, factors a, int i, vec b) {
  switch (i) {
#if REAL_BITS == 32
  case 0: FMLA("4s", "s[0]"); break;
  case 1: FMLA("4s", "s[1]"); break;
  case 2: FMLA("4s", "s[2]"); break;
  case 3: FMLA("4s", "s[3]"); break;
#else
  case 0: FMLA("2d", "d[0]"); break;
  case 1: FMLA("2d", "d[1]"); break;
#endif
  }
}
#undef FMLA

#if REAL_BITS == 32

static inline half half_scale2(half a, half n) { return vmulq_f32(a, (half)((vcvtnq_s32_f32(n) + 127) << 23)); }
static inline vec vec_sign(vec a, vec b) {
  uint32x4_t sign = vdupq_n_u32(1u << 31);
  return (vec){vbslq_f32(sign, b.low, a.low), vbslq_f32(sign, b.high, a.high)};
}
/* The bytes of element i of a table of 16, for each lane */
typedef struct {
  uint8x16_t low, high;
} lane_index;
static inline uint8x16_t element_bytes(half a) {
  uint32x4_t i = (uint32x4_t)a >> 21 & 15;
  return (uint8x16_t)(i * 0x04040404 + 0x03020100);
}
static inline lane_index vec_interval(vec a) { return (lane_index){element_bytes(a.low), element_bytes(a.high)}; }
static inline vec vec_lookup(const real *table, lane_index i) {
  const uint8_t *bytes = (const uint8_t *)table;
  uint8x16x4_t all = {{vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)}};
  return (vec){(half)vqtbl4q_u8(all, i.low), (half)vqtbl4q_u8(all, i.high)};
}
static inline real vec_sum(vec a) {
  half both = a.low + a.high;
  float32x2_t s = vget_low_f32(both) + vget_high_f32(both);
  return s[0] + s[1];
}
static inline void vec_store_bytes(uint8_t *p, vec a) {
  uint16x8_t words = vcombine_u16(vmovn_u32(vcvtq_u32_f32(a.low)), vmovn_u32(vcvtq_u32_f32(a.high)));
  vst1_u8(p, vmovn_u16(words));
}
#define FAST_MASK_BYTES
static inline mask mask_bytes(const uint8_t *p, uint8_t value) {
  int16x8_t equal = vmovl_s8((int8x8_t)vceq_u8(vld1_u8(p), vdup_n_u8(value)));
  return (mask){(uint32x4_t)vmovl_s16(vget_low_s16(equal)), (uint32x4_t)vmovl_s16(vget_high_s16(equal))};
}

#else

static inline vec vec_load_f32(const float *p) {
  float32x4_t a = vld1q_f32(p);
  return (vec){vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a)};
}
static inline void vec_store_f32(float *p, vec a) { vst1q_f32(p, vcvt_high_f32_f64(vcvt_f32_f64(a.low), a.high)); }
#define FAST_MULTIPLY_LOW
static inline half half_multiply_low(half a, uint32_t b) { return (half)vmull_n_u32(vmovn_u64((uint64x2_t)a), b); }
static inline vec vec_multiply_low(vec a, uint32_t b) {
  return (vec){half_multiply_low(a.low, b), half_multiply_low(a.high, b)};
}
static inline half half_scale2(half a, half n) { return vmulq_f64(a, (half)((vcvtnq_s64_f64(n) + 1023) << 52)); }
static inline real vec_sum(vec a) {
  half both = a.low + a.high;
  return both[0] + both[1];
}
static inline void vec_store_bytes(uint8_t *p, vec a) {
  uint32x4_t words = vcombine_u32(vmovn_u64(vcvtq_u64_f64(a.low)), vmovn_u64(vcvtq_u64_f64(a.high)));
  uint8x8_t bytes = vmovn_u16(vcombine_u16(vmovn_u32(words), vdup_n_u16(0)));
  memcpy(p, &bytes, 4);
}

#endif

static inline vec vec_scale2(vec a, vec n) { return (vec){half_scale2(a.low, n.low), half_scale2(a.high, n.high)}; }
static inline void vec_store_bytes_first(uint8_t *p, vec a, int64_t n) {
  uint8_t lanes[LANES];
  vec_store_bytes(lanes, a);
  memcpy(p, lanes, (size_t)n);
}
/* A byte with bit i % 8 set is added to its neighbours until 8 bytes have become one. */
static inline uint64_t byte_set(const uint8_t *bytes, uint8_t value) {
  const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint8x16_t set[4];
  UNROLL
  for (int i = 0; i < 4; i++) set[i] = vceqq_u8(vld1q_u8(bytes + 16 * i), vdupq_n_u8(value)) & bit;
  uint8x16_t pairs = vpaddq_u8(vpaddq_u8(set[0], set[1]), vpaddq_u8(set[2], set[3]));
  return vgetq_lane_u64((uint64x2_t)vpaddq_u8(pairs, pairs), 0);
}

#undef NEON

#endif
