/* The blocked product behind every layer: pack, multiply, finish. */
#ifndef FA_PRODUCT_H
#define FA_PRODUCT_H

#include "kernels.h"

enum { PRODUCT_UNCARRIED = 16 }; /* a bit that no enum fa_status has */

#define REAL_BITS 32
#include "product_types.inc.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "product_types.inc.h"
#undef REAL_BITS

#endif
