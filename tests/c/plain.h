/* Plain sums in double, and the error that a driver may have from them. */
#ifndef PLAIN_H
#define PLAIN_H
#include <float.h>
#include <math.h>
#include <stdint.h>

#include "api/abi.h"

/* Element i of an array of a dtype. */
static inline double element_of(int dtype, const void *array, int64_t i) {
  return dtype == FA_FLOAT32 ? ((const float *)array)[i] : ((const double *)array)[i];
}

/* The sum of a[i a_step] b[i b_step] from a[a_start] and b[b_start] on, and of its terms' magnitudes. */
static inline double dot(int dtype, const void *a, int64_t a_start, int64_t a_step, const void *b, int64_t b_start,
                         int64_t b_step, int64_t count, double *magnitude) {
  double sum = 0;
  *magnitude = 0;
  for (int64_t i = 0; i < count; i++) {
    const double term = element_of(dtype, a, a_start + i * a_step) * element_of(dtype, b, b_start + i * b_step);
    sum += term;
    *magnitude += fabs(term);
  }
  return sum;
}

/* Whether `value` is within the error of a sum of `terms` numbers, whose magnitudes add up to `magnitude`, in any
 * order: terms / 2 ulps of it (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2).  For double the
 * sum that it is compared with has the same error. */
static inline int close_to(int dtype, double value, double expected, int64_t terms, double magnitude) {
  const double rounding = dtype == FA_FLOAT32 ? FLT_EPSILON / 2.0 : DBL_EPSILON;
  return fabs(value - expected) <= (double)(terms + 2) * rounding * magnitude;
}
#endif
