/* Winners: the values of argmax, as indices of pieces.
 *
 * Drivers check argmax before anything is written, but another thread of the caller's may write to it meanwhile.  So a
 * kernel that uses winners as indices reads each byte once, and clamps it. */
#ifndef FA_WINNER_H
#define FA_WINNER_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* The winner at `argmax`, at most pieces - 1 */
static ALWAYS_INLINE int64_t winner_at(const uint8_t *argmax, int64_t pieces) {
  const int64_t winner = __atomic_load_n(argmax, __ATOMIC_RELAXED);
  return winner < pieces ? winner : pieces - 1;
}

/* The 8 winners at `argmax`, the first one in the lowest byte, each at most `last`; zeros for those from `end` on */
static ALWAYS_INLINE uint64_t load_winners(const uint8_t *argmax, const uint8_t *end, uint8_t last) {
  typedef uint8_t byte_lanes __attribute__((vector_size(16)));
  typedef uint64_t word_lanes __attribute__((vector_size(16)));
  uint64_t bytes = 0;
  if (end - argmax >= 8)
    memcpy(&bytes, argmax, 8);
  else if (end > argmax)
    memcpy(&bytes, argmax, (size_t)(end - argmax));
  if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) bytes = __builtin_bswap64(bytes);
  const byte_lanes winners = (byte_lanes)(word_lanes){bytes}, beyond = (byte_lanes)(winners > last);
  return ((word_lanes)((winners & ~beyond) | (last & beyond)))[0];
}

/* n values, at most pieces - 1 -> winners */
static inline void copy_winners(int64_t n, const uint8_t *argmax, int64_t pieces, uint8_t *winners) {
  const uint8_t last = (uint8_t)(pieces - 1);
  for (int64_t i = 0; i < n; i++) winners[i] = argmax[i] < last ? argmax[i] : last;
}

#endif
