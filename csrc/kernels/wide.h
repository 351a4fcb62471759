/* WIDTH vectors side by side.  Each step of a formula waits for the step before it, some 60 cycles in all.  With each
 * step done for WIDTH vectors in turn, the CPU need not wait. */
#ifndef FA_WIDE_H
#define FA_WIDE_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* bench/tuning: wide-width */
#define WIDTH 4
enum { WIDE_LANES = WIDTH * LANES };

typedef struct {
  vec v[WIDTH];
} wide;

typedef struct {
  mask m[WIDTH];
} wide_mask;

/* above / below */
typedef struct {
  wide above, below;
} fraction;

/* part / whole + rest / whole = 1 */
typedef struct {
  wide part, rest, whole;
} split;

#define EACH(value)                                                                                                    \
  wide r;                                                                                                              \
  UNROLL                                                                                                               \
  for (int i = 0; i < WIDTH; i++) r.v[i] = value;                                                                      \
  return r

static ALWAYS_INLINE wide wide_set1(real a) { EACH(vec_set1(a)); }
static ALWAYS_INLINE wide REAL(wide_load)(const real *p) { EACH(vec_load(p + i * LANES)); }
static ALWAYS_INLINE wide wide_add(wide a, wide b) { EACH(vec_add(a.v[i], b.v[i])); }
static ALWAYS_INLINE wide wide_sub(wide a, wide b) { EACH(vec_sub(a.v[i], b.v[i])); }
static ALWAYS_INLINE wide wide_mul(wide a, wide b) { EACH(vec_mul(a.v[i], b.v[i])); }
static ALWAYS_INLINE wide wide_div(wide a, wide b) { EACH(vec_div(a.v[i], b.v[i])); }
static ALWAYS_INLINE wide wide_fma(wide a, wide b, wide c) { EACH(vec_fma(a.v[i], b.v[i], c.v[i])); }
static ALWAYS_INLINE wide wide_min(wide a, wide b) { EACH(vec_min(a.v[i], b.v[i])); }
static ALWAYS_INLINE wide wide_max(wide a, wide b) { EACH(vec_max(a.v[i], b.v[i])); }
static ALWAYS_INLINE wide wide_round(wide a) { EACH(vec_round(a.v[i])); }
static ALWAYS_INLINE wide wide_abs(wide a) { EACH(vec_abs(a.v[i])); }
static ALWAYS_INLINE wide wide_scale2(wide a, wide n) { EACH(vec_scale2(a.v[i], n.v[i])); }
static ALWAYS_INLINE wide wide_select(wide_mask m, wide a, wide b) { EACH(vec_select(m.m[i], a.v[i], b.v[i])); }

#if REAL_BITS == 32
typedef struct {
  lane_index i[WIDTH];
} wide_index;

static ALWAYS_INLINE wide wide_lookup(const real *table, wide_index at) { EACH(vec_lookup(table, at.i[i])); }
static ALWAYS_INLINE wide wide_sign(wide a, wide b) { EACH(vec_sign(a.v[i], b.v[i])); }

static ALWAYS_INLINE wide_index wide_interval(wide a) {
  wide_index r;
  UNROLL
  for (int i = 0; i < WIDTH; i++) r.i[i] = vec_interval(a.v[i]);
  return r;
}

#ifdef FAST_LOOKUP
static ALWAYS_INLINE wide wide_lookup_two(const real *first, const real *second, wide_index at) {
  EACH(vec_lookup_two(first, second, at.i[i]));
}

static ALWAYS_INLINE wide_index wide_signed_interval(wide a, wide sign) {
  wide_index r;
  UNROLL
  for (int i = 0; i < WIDTH; i++) r.i[i] = vec_signed_interval(a.v[i], sign.v[i]);
  return r;
}
#endif
#else
static ALWAYS_INLINE wide wide_load_f32(const float *p) { EACH(vec_load_f32(p + i * LANES)); }

static ALWAYS_INLINE void wide_store_f32(float *p, wide a) {
  UNROLL
  for (int i = 0; i < WIDTH; i++) vec_store_f32(p + i * LANES, a.v[i]);
}
#endif

#undef EACH

static ALWAYS_INLINE void REAL(wide_store)(real *p, wide a) {
  UNROLL
  for (int i = 0; i < WIDTH; i++) vec_store(p + i * LANES, a.v[i]);
}

static ALWAYS_INLINE wide_mask wide_gt(wide a, wide b) {
  wide_mask r;
  UNROLL
  for (int i = 0; i < WIDTH; i++) r.m[i] = mask_gt(a.v[i], b.v[i]);
  return r;
}

#endif
