/* Gathers over the winners: what the gradients of x and weight share.  A gather sums rows of a packed table in L1, each
 * times one number, with the columns of the gradient in the lanes. */
#ifndef FA_LAYERS_GATHER_H
#define FA_LAYERS_GATHER_H

#include "layers/maxout_backward.h"

/* in_features cut into tiles of at most kernels->gather_vectors vectors, whose widths differ by at most one vector:
 * none is a narrow rest. */
struct column_tile {
  int64_t start;
  int64_t count; /* inside the array; the vectors may reach beyond */
  int64_t vectors, width;
};

int64_t column_tiles(const struct maxout_backward *b);
struct column_tile column_tile(const struct maxout_backward *b, int64_t index);

/* A thread's memory: a packed table, partial sums over a few tables, and the sums over all the tables before. */
struct gather_memory {
  char *table, *partial, *total;
};

/* Destination of the sums over table `index` of `tables`: `gradient`, whose rows are in_features apart, for the last.
 */
struct gather_sums gather_sums_to(const struct maxout_backward *b, const struct gather_memory *memory, int64_t index,
                                  int64_t tables, struct column_tile tile, int accumulate, char *gradient);

#endif
