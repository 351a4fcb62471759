/* Gathers over the winners: what the gradients of x and weight share.  A gather sums rows of a packed table in L1, each
 * times one number, with the columns of the gradient in the lanes. */
#ifndef FA_LAYERS_GATHER_H
#define FA_LAYERS_GATHER_H

#include "engine/sizes.h"
#include "layers/maxout_backward.h"

/* The columns of a gradient cut into `count` tiles of at most kernels->gather_vectors vectors, whose widths differ by
 * at most one vector: none is a narrow rest. */
struct column_tiling {
  int64_t columns, lanes, vectors, count;
};

static inline struct column_tiling column_tiling(const struct kernels *kernels, int64_t columns) {
  int64_t vectors = ceil_div(columns, kernels->lanes);
  return (struct column_tiling){columns, kernels->lanes, vectors, ceil_div(vectors, kernels->gather_vectors)};
}

struct column_tile {
  int64_t start;
  int64_t count; /* inside the array; the vectors may reach beyond */
  int64_t vectors, width;
};

/* Inline, since a batch of few rows has little work in each tile. */
static inline struct column_tile column_tile(const struct column_tiling *tiling, int64_t index) {
  int64_t first = part_start(tiling->vectors, tiling->count, index);
  int64_t last = part_start(tiling->vectors, tiling->count, index + 1);
  return (struct column_tile){
      .start = first * tiling->lanes,
      .count = smaller(last * tiling->lanes, tiling->columns) - first * tiling->lanes,
      .vectors = last - first,
      .width = (last - first) * tiling->lanes,
  };
}

/* A thread's memory: a packed table, partial sums over a few tables, and the sums over all the tables before. */
struct gather_memory {
  char *table, *partial, *total;
};

/* Tables whose sums are added up before they join the total: where a table has a few terms for each sum, more tables
 * had a larger error than NumPy's product.  bench/tuning: partial-tables */
#define PARTIAL_TABLES 8

/* Destination of the sums over table `index` of `tables`: `gradient`, whose rows are `stride` apart, for the last. */
static inline struct gather_sums gather_sums_to(const struct gather_memory *memory, int64_t index, int64_t tables,
                                                struct column_tile tile, int accumulate, char *gradient,
                                                int64_t stride) {
  int last = index == tables - 1, ends = last || index % PARTIAL_TABLES == PARTIAL_TABLES - 1;
  return (struct gather_sums){
      .partial = index % PARTIAL_TABLES ? memory->partial : NULL,
      .total = ends && index >= PARTIAL_TABLES ? memory->total : NULL,
      .to = last   ? gradient
            : ends ? memory->total
                   : memory->partial,
      .to_stride = last ? stride : tile.width,
      .columns = last ? tile.count : tile.width,
      .accumulate = last && accumulate,
  };
}

#endif
