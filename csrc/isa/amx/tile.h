/* The micro-kernel of AMX: up to 2 x 2 tiles of sums, one or two tiles of rows and of columns.
 *
 * Numbers in parts a0 + a1 + a2 and b0 + b1 + b2 have the products ai bj, of weight 2^(-8 (i + j)).  Products of weight
 * down to the last part's are summed, at each step of depth the small ones first.  An instruction sums 32 terms on
 * their own and adds them to the rest, so that a sum of three parts is rounded 6 times for 32 terms, where a float32
 * sum is rounded 32 times. */
#ifndef FA_AMX_TILE_H
#define FA_AMX_TILE_H

#include "isa/amx/unit.h"
#include "isa/avx512/pack_bf16.h"
#include "isa/avx512/vec.h"

#define TILE_ROWS 32
#define TILE_WORDS 16 /* words of depth of a tile */
#define TILE_SIZE (16 * TILE_WORDS)

/* The products for each number of parts.  Neighbours in the list share an operand, which is then loaded once. */
static const struct {
  int count;
  struct {
    int left, right;
  } parts[6];
} products[MAX_PARTS + 1] = {
    [1] = {1, {{0, 0}}},
    [2] = {3, {{0, 1}, {1, 0}, {0, 0}}},
    [3] = {6, {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}}},
};

/* One part of one or two tiles of rows, at one step of depth */
static ALWAYS_INLINE void load_rows(int tiles, const float *left) {
  tile_load(4, left, 64);
  if (tiles == 2) tile_load(5, left + TILE_SIZE, 64);
}

/* One part of one or two tiles of columns, at one step of depth; words of depth row_bytes apart */
static ALWAYS_INLINE void load_columns(int vectors, const float *right, int64_t row_bytes) {
  tile_load(6, right, row_bytes);
  if (vectors == 2) tile_load(7, right + LANES, row_bytes);
}

static ALWAYS_INLINE void multiply_tiles(int tiles, int vectors) {
  tile_dpbf16(0, 4, 6);
  if (vectors == 2) tile_dpbf16(1, 4, 7);
  if (tiles == 2) tile_dpbf16(2, 5, 6);
  if (tiles == 2 && vectors == 2) tile_dpbf16(3, 5, 7);
}

/* sums (tiles 16, vectors LANES) = left [steps][parts][2][TILE_SIZE] @ right ([steps][parts][16], vectors LANES) */
static ALWAYS_INLINE void multiply_run(int parts, int tiles, int vectors, int64_t steps, const float *left,
                                       const float *right, int64_t right_stride, float *sums, int64_t sums_stride) {
  int64_t right_bytes = right_stride * (int64_t)sizeof(float);
  UNROLL
  for (int i = 0; i < 4; i++) tile_zero(i);
  for (; steps > 0; steps--, left += 2 * parts * TILE_SIZE, right += parts * TILE_WORDS * right_stride) {
    UNROLL
    for (int i = 0; i < products[parts].count; i++) {
      int l = products[parts].parts[i].left, r = products[parts].parts[i].right;
      if (i == 0 || l != products[parts].parts[i - 1].left) load_rows(tiles, left + 2 * l * TILE_SIZE);
      if (i == 0 || r != products[parts].parts[i - 1].right)
        load_columns(vectors, right + r * TILE_WORDS * right_stride, right_bytes);
      multiply_tiles(tiles, vectors);
    }
  }
  UNROLL
  for (int i = 0; i < 4; i++)
    if (i / 2 < tiles && i % 2 < vectors)
      tile_store(i, sums + i / 2 * 16 * sums_stride + i % 2 * LANES, sums_stride * (int64_t)sizeof(float));
}

static ALWAYS_INLINE void multiply_tile(int parts, int tiles, int vectors, const struct tile *t) {
  float run_sums[TILE_ROWS * 2 * LANES];
  const float *left = t->left, *right = t->right;
  int add = t->add;
  int64_t rest = t->depth;
  do {
    int64_t cut = rest < t->cut ? rest : t->cut, steps = cut / (TILE_WORDS * parts);
    if (!add) {
      multiply_run(parts, tiles, vectors, steps, left, right, t->right_stride, t->sums, t->sums_stride);
    } else {
      multiply_run(parts, tiles, vectors, steps, left, right, t->right_stride, run_sums, vectors * LANES);
      for (int r = 0; r < t->rows; r++)
        for (int v = 0; v < vectors; v++) {
          float *to = (float *)t->sums + r * t->sums_stride + v * LANES;
          vec_store(to, vec_add(vec_load(to), vec_load(run_sums + (r * vectors + v) * LANES)));
        }
    }
    add = 1;
    left += cut * TILE_ROWS;
    right += cut * t->right_stride;
    rest -= cut;
  } while (rest > 0);
}

#endif
