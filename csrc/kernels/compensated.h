/* Sums of doubles that keep their rounding errors (Knuth's two-sum), so that a sum of any length is rounded about once.
 */
#ifndef FA_COMPENSATED_H
#define FA_COMPENSATED_H

#include <math.h>

/* The sum is high + low. */
struct compensated {
  double high, low;
};

static inline void add_compensated(struct compensated *sum, double term) {
  double high = sum->high + term, seen = high - sum->high;
  sum->low += (sum->high - (high - seen)) + (term - seen);
  sum->high = high;
}

/* The low part of an infinite sum is NaN. */
static inline double compensated_total(struct compensated sum) {
  return isfinite(sum.high) ? sum.high + sum.low : sum.high;
}

#endif
