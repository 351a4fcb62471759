#include "engine/choose.h"

#include "engine/sizes.h"

/* The batch is in lanes from this many rows on: NumPy's product of fewer rows spreads each sum over the lanes of
 * several vectors, as dot products do, and one lane a sum had up to 1.9 times its error.
 * bench/tuning: min-batch-rows */
#define MIN_BATCH_ROWS 8

/* Upper limit on a batch in lanes: all of it is packed into the workspace.  bench/tuning: max-batch-bytes */
#define MAX_BATCH_BYTES (4 << 20)

/* Small products are dot products for accuracy: NumPy's BLAS also keeps partial sums in lanes.
 * bench/tuning: short-sums */
#define MIN_SHORT_DEPTH 32
#define MAX_SHORT_TERMS 16384

/* The cost model.  Its unit and its constants are those of `struct tuning`. */

static int64_t bytes_of(const struct product *p, const struct kernels *kernels, int64_t rows) {
  return rows * p->depth * kernels->itemsize;
}

/* Dot products (bench/tuning: dots-cost): a term costs more where the weights of a panel, or the rows and weights of a
 * micro-tile, leave L1. */
static int64_t dots_cost(const struct product *p, const struct kernels *kernels, int64_t rows) {
  const struct tuning *t = kernels->tuning;
  int64_t panel_bytes = bytes_of(p, kernels, smaller(p->columns, kernels->lanes) * p->pieces);
  int64_t term = panel_bytes <= t->l1_bytes               ? t->dot_term_l1
                 : bytes_of(p, kernels, 8) <= t->l1_bytes ? t->dot_term_l2
                                                          : t->dot_term;
  return rows * p->columns * p->pieces * (term * p->depth + t->dot_end * kernels->lanes);
}

/* Micro-tiles over packed panels; with few columns, lanes are empty. */
static int64_t tiles_cost(const struct product *p, const struct kernels *kernels, int64_t rows) {
  int64_t padded = round_up(p->columns, kernels->lanes);
  return rows * padded * p->pieces * (kernels->tuning->tile_term * p->depth + kernels->tuning->tile_end);
}

/* Packing rows of either operand, in blocks of transposed vectors; an incomplete block costs more. */
static int64_t packing_cost(const struct product *p, const struct kernels *kernels, int64_t rows) {
  int64_t lanes = kernels->lanes, padded = round_up(p->depth, lanes);
  return rows * (kernels->tuning->pack_term * lanes * padded + (padded > p->depth ? kernels->tuning->pack_edge : 0));
}

/* The batch in lanes (bench/tuning: batch-cost), with a tail.  A batch that leaves L2 is written and read again; a
 * single vector makes low micro-tiles; the transposing epilogue costs by the column and by the row. */
static int64_t batch_cost(const struct product *p, const struct kernels *kernels, int64_t tail) {
  const struct tuning *t = kernels->tuning;
  int64_t lanes = kernels->lanes, rows = p->rows - tail, padded = round_up(rows, lanes);
  int64_t columns = round_up(p->columns, lanes), term = padded == lanes ? t->batch_term_single : t->batch_term;
  int64_t passes = bytes_of(p, kernels, rows) > t->batch_packed_bytes ? 2 : 1;
  return passes * packing_cost(p, kernels, rows) + padded * p->columns * p->pieces * (term * p->depth + t->batch_end) +
         rows * (t->batch_unit * columns + t->batch_row) + dots_cost(p, kernels, tail);
}

/* How many of the last rows to hand to dot products instead of padding a vector with zeros.
 * bench/tuning: tail-rows */
static int64_t tail_rows(const struct product *p, const struct kernels *kernels) {
  int64_t tail = p->rows % kernels->lanes;
  return batch_cost(p, kernels, tail) < batch_cost(p, kernels, 0) ? tail : 0;
}

enum way quickest_way(const struct product *p, const struct kernels *kernels, int one_order, int64_t *tail) {
  *tail = 0;
  if (!p->left->dense || p->left->depth_stride != 1 || p->right.depth_stride != 1 || p->epilogue.accumulate ||
      p->right.packed)
    return TILES;
  int tier = kernels->pack_left != NULL;
  if (!one_order && !tier && p->depth >= MIN_SHORT_DEPTH &&
      p->rows * p->columns * p->pieces * p->depth <= MAX_SHORT_TERMS)
    return UNPACKED;
  if (one_order && p->rows <= MAX_UNPACKED_ROWS) return UNPACKED;
  int64_t dots = one_order ? INT64_MAX : dots_cost(p, kernels, p->rows),
          packed_rows = p->columns * p->pieces + (tier ? p->rows : 0);
  int64_t tiles = packing_cost(p, kernels, packed_rows) + tiles_cost(p, kernels, p->rows);
  if (!tier && p->rows >= MIN_BATCH_ROWS && bytes_of(p, kernels, p->rows) <= MAX_BATCH_BYTES) {
    *tail = one_order ? 0 : tail_rows(p, kernels);
    if (batch_cost(p, kernels, *tail) < smaller(dots, tiles)) return BATCH_IN_LANES;
  }
  return dots < tiles ? UNPACKED : TILES;
}

int worth_packing(const struct product *p, const struct kernels *kernels) {
  return dots_cost(p, kernels, 1) > tiles_cost(p, kernels, 1);
}
