/* A product with the batch in lanes, y^T = W x^T: used for small batches. */
#ifndef FA_BATCH_IN_LANES_H
#define FA_BATCH_IN_LANES_H

#include "engine/product.h"

/* Runs `p` on the call's vector unit.  The batch is packed instead of the weights, so that each lane holds one row of
 * x, and the weights are read in place.  The last `tail` rows, which would leave most lanes of a vector empty, are dot
 * products on the unpacked weights. */
int run_batch_in_lanes(const struct call *call, const struct product *p, int64_t tail, int threads);

#endif
