/* argmax comes from outside, and its values are indices: they are checked before anything is written, and clamped where
 * they are used, since another thread of the caller's may change them meanwhile. */
#ifndef FA_ARGMAX_H
#define FA_ARGMAX_H

#include <stdint.h>

#include "sizes.h"

/* whether each of the n values names one of `pieces` */
static inline int argmax_fits(int64_t n, const uint8_t *argmax, int64_t pieces) {
  uint8_t largest = 0;
  for (int64_t i = 0; i < n; i++) largest = argmax[i] > largest ? argmax[i] : largest;
  return n == 0 || largest < pieces;
}

/* n values, at most `last` -> winners */
static inline void copy_winners(int64_t n, const uint8_t *argmax, uint8_t last, uint8_t *winners) {
  for (int64_t i = 0; i < n; i++) winners[i] = argmax[i] < last ? argmax[i] : last;
}

/* The value at `argmax`, but less than `pieces`; it is read once, so that what is compared is what is used. */
static inline int64_t winner_at(const uint8_t *argmax, int64_t pieces) {
  return smaller(__atomic_load_n(argmax, __ATOMIC_RELAXED), pieces - 1);
}

#endif
