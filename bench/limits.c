/* What this CPU can do at most, with the widest vectors that the compiler's -march=native allows. */

#include <stdint.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES (VECTOR_BYTES / 4)
#define CHAINS 12 /* independent sums: more than latency x units on any CPU that has FMA, fewer than registers */

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define DECLARE(i) vector sum##i = {i};
#define MULTIPLY_ADD(i) sum##i = sum##i * factor + term;
#define LOAD_MULTIPLY_ADD(i) sum##i = data[at + i] * factor + sum##i;
#define ADD_LOAD(i) sum##i += data[at + i];
#define TOTAL(i) total += sum##i;

/* These return the floating-point operations done; *result keeps the compiler from leaving them out. */

int64_t register_fma(int64_t repeats, float *result) {
  vector factor = {0}, term = {0}, total = {0};
  factor += 0.5f, term += 1.0f;
  EACH_CHAIN(DECLARE)
  for (int64_t n = 0; n < repeats; n++) {
    EACH_CHAIN(MULTIPLY_ADD)
  }
  EACH_CHAIN(TOTAL)
  *result = total[0];
  return repeats * CHAINS * LANES * 2;
}

/* An operand of each multiply-add comes from `memory`, whose `bytes` should fit into the L1 cache. */
int64_t load_fma(int64_t repeats, const void *memory, int64_t bytes, float *result) {
  const vector *data = memory;
  const int64_t size = bytes / VECTOR_BYTES / CHAINS * CHAINS;
  vector factor = {0}, total = {0};
  factor += 0.5f;
  EACH_CHAIN(DECLARE)
  for (int64_t n = 0; n < repeats; n++)
    for (int64_t at = 0; at < size; at += CHAINS) {
      EACH_CHAIN(LOAD_MULTIPLY_ADD)
    }
  EACH_CHAIN(TOTAL)
  *result = total[0];
  return repeats * size * LANES * 2;
}

/* Reads `bytes` of memory; returns how many it read. */
int64_t read_memory(const void *memory, int64_t bytes, float *result) {
  const vector *data = memory;
  const int64_t size = bytes / VECTOR_BYTES / CHAINS * CHAINS;
  vector total = {0};
  EACH_CHAIN(DECLARE)
  for (int64_t at = 0; at < size; at += CHAINS) {
    EACH_CHAIN(ADD_LOAD)
  }
  EACH_CHAIN(TOTAL)
  *result = total[0];
  return size * VECTOR_BYTES;
}
