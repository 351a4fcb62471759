/* Loops that reach this CPU's limits, with the widest vectors that the compiler's -march=native allows. */

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

/* Products of bfloat16 tiles, of random numbers: with zeros the CPU keeps a higher clock.  Returns 0 without
 * AMX, or where the process may not use it. */
#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define TILE_DATA 18

static const struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} full_tiles = {.palette = 1, .row_bytes = {[0 ... 7] = 64}, .rows = {[0 ... 7] = 16}};

int64_t tile_bf16(int64_t repeats, float *result) {
  static uint16_t numbers[4][512] __attribute__((aligned(64)));
  float sums[16][16];
  uint32_t random = 1;
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA)) return 0;
  for (int i = 0; i < 4 * 512; i++) {
    random = random * 1664525 + 1013904223;
    numbers[i / 512][i % 512] = (uint16_t)((random >> 16 & 0x80ff) | 0x3f00); /* 0.5 to 2, either sign */
  }
  _tile_loadconfig(&full_tiles);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, numbers[0], 64);
  _tile_loadd(5, numbers[1], 64);
  _tile_loadd(6, numbers[2], 64);
  _tile_loadd(7, numbers[3], 64);
  for (int64_t n = 0; n < repeats; n++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 64);
  _tile_release();
  *result = sums[0][0];
  return repeats * 4 * 16 * 16 * 32 * 2;
}
#else
int64_t tile_bf16(int64_t repeats, float *result) {
  (void)repeats;
  *result = 0;
  return 0;
}
#endif
