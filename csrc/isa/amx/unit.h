/* The tile unit of AMX-BF16: eight tiles of 16 rows of 64 bytes.  With FA_EMULATE_AMX the instructions are a plain C
 * model, so that the kernels are tested, at no useful speed, on a CPU without AMX.
 *
 * The number of a tile is part of the instruction, hence the switches, which the compiler folds. */
#ifndef FA_AMX_UNIT_H
#define FA_AMX_UNIT_H

#include "isa/avx512/vec.h"

#if defined(FA_EMULATE_AMX)

static _Thread_local union {
  float sums[16][16];
  uint32_t words[16][16];
} tiles[8];

static inline void tiles_begin(void) {}
static inline void tiles_end(void) {}
static inline void tile_zero(int tile) { memset(&tiles[tile], 0, sizeof tiles[tile]); }

static inline void tile_load(int tile, const void *src, int64_t stride) {
  for (int r = 0; r < 16; r++) memcpy(tiles[tile].words[r], (const char *)src + r * stride, 64);
}

static inline void tile_store(int tile, void *dst, int64_t stride) {
  for (int r = 0; r < 16; r++) memcpy((char *)dst + r * stride, tiles[tile].words[r], 64);
}

/* The float of these bits; a denormal number becomes a zero of its sign. */
static inline float without_denormals(uint32_t bits) {
  float a;
  if (!(bits & 0x7f800000u)) bits &= 0x80000000u;
  memcpy(&a, &bits, sizeof a);
  return a;
}

static inline float flushed(float a) {
  uint32_t bits;
  memcpy(&bits, &a, sizeof bits);
  return without_denormals(bits);
}

/* TDPBF16PS as in Intel's Software Developer's Manual, volume 2: the first terms of the words are summed apart from the
 * second terms, and then the two sums are added.  Each step rounds to nearest even and flushes denormals. */
static inline void tile_dpbf16(int sums, int left, int right) {
  for (int m = 0; m < 16; m++) {
    float even[16] = {0}, odd[16] = {0};
    for (int k = 0; k < 16; k++) {
      uint32_t a = tiles[left].words[m][k];
      float a_even = without_denormals(a << 16), a_odd = without_denormals(a & 0xffff0000u);
      for (int n = 0; n < 16; n++) {
        uint32_t b = tiles[right].words[k][n];
        even[n] = flushed(__builtin_fmaf(a_even, without_denormals(b << 16), even[n]));
        odd[n] = flushed(__builtin_fmaf(a_odd, without_denormals(b & 0xffff0000u), odd[n]));
      }
    }
    for (int n = 0; n < 16; n++) {
      float both = flushed(even[n] + odd[n]);
      tiles[sums].sums[m][n] = flushed(flushed(tiles[sums].sums[m][n]) + both);
    }
  }
}

#else

/* The operand of LDTILECFG. */
struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

/* Palette 1, every tile of the full 16 rows of 64 bytes.  The operand is a constant, because GCC 12 believes that
 * LDTILECFG reads 8 bytes, and drops stores to the others. */
static const struct tile_config full_tiles = {.palette = 1, .row_bytes = {[0 ... 7] = 64}, .rows = {[0 ... 7] = 16}};

static inline void tiles_begin(void) { _tile_loadconfig(&full_tiles); }
static inline void tiles_end(void) { _tile_release(); }

static ALWAYS_INLINE void tile_zero(int tile) {
  switch (tile) {
  case 0: _tile_zero(0); break;
  case 1: _tile_zero(1); break;
  case 2: _tile_zero(2); break;
  case 3: _tile_zero(3); break;
  }
}

static ALWAYS_INLINE void tile_load(int tile, const void *src, int64_t stride) {
  switch (tile) {
  case 4: _tile_loadd(4, src, stride); break;
  case 5: _tile_loadd(5, src, stride); break;
  case 6: _tile_loadd(6, src, stride); break;
  case 7: _tile_loadd(7, src, stride); break;
  }
}

static ALWAYS_INLINE void tile_store(int tile, void *dst, int64_t stride) {
  switch (tile) {
  case 0: _tile_stored(0, dst, stride); break;
  case 1: _tile_stored(1, dst, stride); break;
  case 2: _tile_stored(2, dst, stride); break;
  case 3: _tile_stored(3, dst, stride); break;
  }
}

/* Tiles 4 and 5 hold rows, tiles 6 and 7 columns; tiles 0 to 3 hold the sums of (4, 6), (4, 7), (5, 6) and (5, 7). */
static ALWAYS_INLINE void tile_dpbf16(int sums, int left, int right) {
  (void)left, (void)right;
  switch (sums) {
  case 0: _tile_dpbf16ps(0, 4, 6); break;
  case 1: _tile_dpbf16ps(1, 4, 7); break;
  case 2: _tile_dpbf16ps(2, 5, 6); break;
  case 3: _tile_dpbf16ps(3, 5, 7); break;
  }
}

#endif

#endif
