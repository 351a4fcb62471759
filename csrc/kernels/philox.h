/* Philox4x32-10, a generator of random numbers without a state: Salmon, Moraes, Dror and Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", 2011.  In lanes of 64 bits, so in the tables for float64 alone. */
#ifndef FA_PHILOX_H
#define FA_PHILOX_H

#ifndef REAL_BITS
#define EDITOR_BITS 64
#include "kernels/editor.h"
#endif

/* Each round of a vector waits for the round before it; PHILOX_VECTORS side by side keep the CPU busy meanwhile. */
enum { PHILOX_ROUNDS = 10, PHILOX_VECTORS = 4, PHILOX_NUMBERS = 4 * PHILOX_VECTORS * LANES };

typedef uint64_t words __attribute__((vector_size(8 * LANES)));
typedef uint32_t half_words __attribute__((vector_size(4 * LANES)));

/* The products of the lanes' low halves with b. */
static ALWAYS_INLINE words multiply_low(words a, uint32_t b) {
#if defined(FAST_MULTIPLY_LOW)
  vec lanes;
  memcpy(&lanes, &a, sizeof lanes);
  lanes = vec_multiply_low(lanes, b);
  memcpy(&a, &lanes, sizeof a);
  return a;
#else
  return (a & 0xffffffffu) * b;
#endif
}

/* 4 bytes in memory, of which `index` is 1 and the others are 0. */
static inline uint32_t one_byte(int index) {
  uint8_t bytes[4] = {0};
  uint32_t word;
  bytes[index] = 1;
  memcpy(&word, bytes, sizeof word);
  return word;
}

/* keep [PHILOX_NUMBERS]: whether the numbers of the counters from `counter` on are at least the threshold.  Only the
 * low halves of lanes count. */
static ALWAYS_INLINE void keep_block(uint64_t counter, uint64_t seed, uint64_t threshold, uint8_t *keep) {
  words c[PHILOX_VECTORS][4], lane = {0};
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
  UNROLL
  for (int i = 0; i < LANES; i++) lane[i] = (uint64_t)i;
  UNROLL
  for (int v = 0; v < PHILOX_VECTORS; v++) {
    c[v][0] = lane + (counter + (uint64_t)(v * LANES));
    c[v][1] = c[v][0] >> 32;
    c[v][2] = c[v][3] = (words){0};
  }
  UNROLL
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
    UNROLL
    for (int v = 0; v < PHILOX_VECTORS; v++) {
      words first = multiply_low(c[v][0], 0xD2511F53u), second = multiply_low(c[v][2], 0xCD9E8D57u);
      c[v][0] = (second >> 32) ^ c[v][1] ^ key0;
      c[v][1] = second;
      c[v][2] = (first >> 32) ^ c[v][3] ^ key1;
      c[v][3] = first;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  UNROLL
  for (int v = 0; v < PHILOX_VECTORS; v++) {
    words bytes = {0};
    UNROLL
    for (int i = 0; i < 4; i++) bytes |= (words)((c[v][i] & 0xffffffffu) >= threshold) & one_byte(i);
    half_words packed = __builtin_convertvector(bytes, half_words);
    memcpy(keep + 4 * v * LANES, &packed, sizeof packed);
  }
}

/* keep (n): whether the numbers [first, first + n) are at least the threshold.  Number i is word i % 4 of counter i /
 * 4; first is divisible by 4. */
static void dropout_keep(int64_t first, int64_t n, uint64_t seed, uint64_t threshold, uint8_t *keep) {
  int64_t i = 0;
  for (; i + PHILOX_NUMBERS <= n; i += PHILOX_NUMBERS) keep_block((uint64_t)(first + i) / 4, seed, threshold, keep + i);
  if (i < n) {
    uint8_t rest[PHILOX_NUMBERS];
    keep_block((uint64_t)(first + i) / 4, seed, threshold, rest);
    memcpy(keep + i, rest, (size_t)(n - i));
  }
}

#endif
