#include "layers/gather.h"

#include "engine/sizes.h"

/* Tables whose sums are added up before they join the total: where a table has a few terms for each sum, more tables
 * had a larger error than NumPy's product.  bench/tuning: partial-tables */
#define PARTIAL_TABLES 8

int64_t column_tiles(const struct maxout_backward *b) {
  const struct kernels *kernels = b->call->kernels;
  return ceil_div(ceil_div(b->in_features, kernels->lanes), kernels->gather_vectors);
}

struct column_tile column_tile(const struct maxout_backward *b, int64_t index) {
  int64_t lanes = b->call->kernels->lanes, vectors = ceil_div(b->in_features, lanes), tiles = column_tiles(b);
  int64_t first = part_start(vectors, tiles, index), last = part_start(vectors, tiles, index + 1);
  return (struct column_tile){
      .start = first * lanes,
      .count = smaller(last * lanes, b->in_features) - first * lanes,
      .vectors = last - first,
      .width = (last - first) * lanes,
  };
}

struct gather_sums gather_sums_to(const struct maxout_backward *b, const struct gather_memory *memory, int64_t index,
                                  int64_t tables, struct column_tile tile, int accumulate, char *gradient) {
  int last = index == tables - 1, ends = last || index % PARTIAL_TABLES == PARTIAL_TABLES - 1;
  return (struct gather_sums){
      .partial = index % PARTIAL_TABLES ? memory->partial : NULL,
      .total = ends && index >= PARTIAL_TABLES ? memory->total : NULL,
      .to = last   ? gradient
            : ends ? memory->total
                   : memory->partial,
      .to_stride = last ? b->in_features : tile.width,
      .columns = last ? tile.count : tile.width,
      .accumulate = last && accumulate,
  };
}
