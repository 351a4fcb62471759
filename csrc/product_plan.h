/* How a product is cut: the right operand into panels, slices and runs of depth, the whole into tasks. */
#ifndef FA_PRODUCT_PLAN_H
#define FA_PRODUCT_PLAN_H

#include "product.h"

/* Rows of the left operand that a thread packs at once, a multiple of the lanes and of every left_block (which is
 * MAX_TILE_ROWS at most). */
#define LEFT_BLOCK 32

#define REAL_BITS 32
#include "product_plan_types.inc.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "product_plan_types.inc.h"
#undef REAL_BITS

#endif
