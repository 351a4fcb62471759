#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "product_order.h"

#include "sizes.h"

/* Operands are swapped from so many rows on: NumPy's product of fewer spreads each sum over the lanes of several
 * vectors, as dots do, and one lane for a sum had up to 1.9x its error at 4 rows (baseline vectors of 4 lanes). */
#define MIN_SWAPPED_ROWS 8

/* The largest batch that is packed as a whole, so that the scratch memory of a swapped product stays small.  Packed
 * weights took 12.6 ms instead of 12.2 on (150, 8192, 500, 2), and as long on (300, 8192, 500, 2). */
#define MOST_SWAPPED_BYTES (4 << 20)

/* What dots read again and still find in an L1 cache, and the packed batch that stays in L2. */
#define L1_BLOCK_BYTES (32 << 10)
#define L2_BATCH_BYTES (512 << 10)

#define REAL_BITS 32
#include "product_order.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product_order.c"
#else
#include "real.h"

/* What each way takes, in tenths of the time of a term in a full tile (here and below measured on Zen 5, AVX-512).
 *
 * Dots of some rows: 11 a term while the units of a panel stay in L1, 14 from L2, 20 where the rows and units of a tile
 * leave L1 as well, and 50 lanes for the end of each sum.  A term took 13.7 on (12, 400, 215, 16) and 18 to 20 on (612,
 * 1613, 6, 9), (228, 1467, 57, 1) and (357, 1919, 18, 2). */
static int64_t REAL(dots_cost)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t rows) {
  int64_t row_bytes = p->depth * (int64_t)sizeof(real);
  int64_t panel_bytes = smaller(p->columns, kernels->lanes) * p->pieces * row_bytes;
  int64_t term = panel_bytes <= L1_BLOCK_BYTES ? 11 : 8 * row_bytes <= L1_BLOCK_BYTES ? 14 : 20;
  return rows * p->columns * p->pieces * (term * p->depth + 50 * kernels->lanes);
}

/* Tiles of packed panels, of which few outputs leave lanes empty. */
static int64_t REAL(tiles_cost)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t rows) {
  int64_t padded = ceil_div(p->columns, kernels->lanes) * kernels->lanes;
  return rows * padded * p->pieces * (kernels->tile_tenths * p->depth + 20);
}

/* Packing of rows or units: 7 lanes a term, in whole blocks of transposed vectors, and more for a part of a block. */
static int64_t REAL(packing_cost)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t rows) {
  int64_t lanes = kernels->lanes, padded = ceil_div(p->depth, lanes) * lanes;
  return rows * (7 * lanes * padded + (padded > p->depth ? 400 : 0));
}

/* Operands swapped, the last `tail` rows with dots.  A batch is packed where it is smaller than the weights, and few
 * rows leave lanes empty.  A single vector makes lower tiles, packed rows beyond L2 are written and read again, and the
 * finish takes 80 a unit more, units up to whole vectors, and 8000 a row: 6.1 us became 10.4 on (480, 32, 4, 2), and
 * 6.1 became 13.7 on (480, 32, 16, 2).  Packed weights and swapped operands took 49.5 and 44.9 us on
 * (64, 288, 96, 3), 248 and 242 on (100, 240, 240, 5), 820 and 763 on (100, 784, 240, 5), 97 and 77 on (128, 256, 40,
 * 7), 180 and 180 on (256, 288, 96, 3), 721 and 734 on (1024, 288, 96, 3), 23.8 and 26.8 on (256, 1, 256, 3). */
static int64_t REAL(swapped_cost)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t tail) {
  int64_t lanes = kernels->lanes, rows = p->rows - tail, padded = ceil_div(rows, lanes) * lanes;
  int64_t units = ceil_div(p->columns, lanes) * lanes, term = padded == lanes ? 12 : 10;
  int64_t times = rows * p->depth * (int64_t)sizeof(real) > L2_BATCH_BYTES ? 2 : 1;
  return times * REAL(packing_cost)(p, kernels, rows) + padded * p->columns * p->pieces * (term * p->depth + 40) +
         rows * (80 * units + 8000) + REAL(dots_cost)(p, kernels, tail);
}

/* The last rows that dots take, where they would leave most lanes of a vector empty.  Three vectors and 4 rows of depth
 * 288 took 37 us so, 45 padded. */
static int64_t REAL(tail_rows)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  int64_t tail = p->rows % kernels->lanes;
  return REAL(swapped_cost)(p, kernels, tail) < REAL(swapped_cost)(p, kernels, 0) ? tail : 0;
}

/* Whether dots are taken for their error: of few and short sums NumPy's BLAS keeps parts in lanes as well, and on
 * (8, 32, 32, 2) had 0.6 times the error of tiles.  There dots took 1.00 times as long as tiles, on (8, 40, 20, 2)
 * 0.97, (16, 32, 16, 2) 1.06, (16, 32, 8, 4) 1.08; but on (16, 32, 32, 2) 1.16. */
static int REAL(is_short)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  return !kernels->pack_left && p->depth >= 32 && p->rows * p->columns * p->pieces * p->depth <= 16384;
}

enum order REAL(quickest_order)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t *tail) {
  *tail = 0;
  if (p->left_depth_stride != 1 || p->right_depth_stride != 1 || p->accumulate || p->packed || p->scattered)
    return TILES;
  if (REAL(is_short)(p, kernels)) return DOTS;
  int64_t dots = REAL(dots_cost)(p, kernels, p->rows);
  int64_t packed = p->columns * p->pieces + (kernels->pack_left ? p->rows : 0);
  int64_t tiles = REAL(packing_cost)(p, kernels, packed) + REAL(tiles_cost)(p, kernels, p->rows);
  if (!kernels->pack_left && p->rows >= MIN_SWAPPED_ROWS &&
      p->rows * p->depth * (int64_t)sizeof(real) <= MOST_SWAPPED_BYTES) {
    *tail = REAL(tail_rows)(p, kernels);
    if (REAL(swapped_cost)(p, kernels, *tail) < smaller(dots, tiles)) return SWAPPED;
  }
  return dots < tiles ? DOTS : TILES;
}

int REAL(worth_packing)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  return REAL(dots_cost)(p, kernels, 1) > REAL(tiles_cost)(p, kernels, 1);
}

#endif
