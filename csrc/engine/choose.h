/* The quickest way to run a product, by a cost model. */
#ifndef FA_CHOOSE_H
#define FA_CHOOSE_H

#include "engine/product.h"

/* TILES: micro-tiles over packed weights.  UNPACKED: dot products, or low micro-tiles, on unpacked weights.
 * BATCH_IN_LANES: the batch packed, and the weights read in place. */
enum way { TILES, UNPACKED, BATCH_IN_LANES };

/* The quickest way to run `p` on `kernels`.  With the batch in lanes, the last *tail rows are best run as dot products.
 * The sums of dot products have an order of their own; with `one_order` low micro-tiles take their place. */
enum way quickest_way(const struct product *p, const struct kernels *kernels, int one_order, int64_t *tail);

/* Whether packed weights are quicker than dot products for many rows; if not, packed weights are hardly quicker for one
 * row either.  bench/tuning: worth-packing */
int worth_packing(const struct product *p, const struct kernels *kernels);

#endif
