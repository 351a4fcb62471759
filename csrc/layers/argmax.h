/* The bounds check of argmax, the only array whose values are validated, because kernels index with them. */
#ifndef FA_ARGMAX_H
#define FA_ARGMAX_H

#include <stdint.h>

/* Whether all of the n values are below `pieces`. */
static inline int argmax_fits(int64_t n, const uint8_t *argmax, int64_t pieces) {
  uint8_t largest = 0;
  for (int64_t i = 0; i < n; i++) largest = argmax[i] > largest ? argmax[i] : largest;
  return n == 0 || largest < pieces;
}

#endif
