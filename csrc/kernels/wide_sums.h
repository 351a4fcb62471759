/* Sums in lanes of doubles. */
#ifndef FA_WIDE_SUMS_H
#define FA_WIDE_SUMS_H

#ifndef REAL_BITS
#define EDITOR_BITS 64
#include "kernels/editor.h"
#endif

#include "kernels/compensated.h"
#include "kernels/wide.h"

/* A struct compensated in each lane; `low` stays 0 for arrays of floats. */
struct wide_sum {
  wide high, low;
};

static ALWAYS_INLINE struct wide_sum wide_no_terms(void) { return (struct wide_sum){wide_set1(0), wide_set1(0)}; }

/* high + low = a + b exactly, where no sum overflows */
static ALWAYS_INLINE struct wide_sum wide_two_sum(wide a, wide b) {
  wide high = wide_add(a, b), seen = wide_sub(high, a);
  return (struct wide_sum){high, wide_add(wide_sub(a, wide_sub(high, seen)), wide_sub(b, seen))};
}

/* The total of each lane.  The low part of an infinite sum is NaN. */
static ALWAYS_INLINE wide wide_total(struct wide_sum sum) {
  wide_mask infinite = wide_gt(wide_abs(sum.high), wide_set1(DBL_MAX));
  return wide_select(infinite, sum.high, wide_add(sum.high, sum.low));
}

/* The sum of all lanes: those of the vectors are added as a struct compensated, then the lanes of one vector. */
static ALWAYS_INLINE double wide_sum_lanes(struct wide_sum sum) {
  vec high = sum.high.v[0], low = sum.low.v[0];
  UNROLL
  for (int i = 1; i < WIDTH; i++) {
    vec next = vec_add(high, sum.high.v[i]), seen = vec_sub(next, high);
    low = vec_add(low, vec_add(vec_sub(high, vec_sub(next, seen)), vec_sub(sum.high.v[i], seen)));
    low = vec_add(low, sum.low.v[i]);
    high = next;
  }
  return compensated_total((struct compensated){vec_sum(high), vec_sum(low)});
}

/* sum += term, of losses of floats.  A double holds the sum of 2^28 of them to the accuracy of a float. */
static ALWAYS_INLINE void wide_add_term_f32(struct wide_sum *sum, wide term) { sum->high = wide_add(sum->high, term); }

/* sum += term, of losses of doubles */
static ALWAYS_INLINE void wide_add_term_f64(struct wide_sum *sum, wide term) {
  struct wide_sum next = wide_two_sum(sum->high, term);
  sum->low = wide_add(sum->low, next.low);
  sum->high = next.high;
}

#endif
