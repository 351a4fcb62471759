/* Cache sizes, costs, cuts and limits of the AMX tiers, fitted to a Xeon (family 6, model 207).  The tiers "medium",
 * "high" and "highest" split each number into 1, 2 and 3 bfloat16 parts. */
#ifndef FA_AMX_TUNING_H
#define FA_AMX_TUNING_H

#include "isa/avx512/tuning.h"

/* Products that "highest" runs on AMX; float32 vectors run the others.  Many rows and units have to share the splitting
 * of weights and rows into three parts, and the lanes have to be filled.  bench/tuning: highest-on-tiles */
#define MIN_HIGHEST_ROWS 96
#define MIN_HIGHEST_COLUMNS 48
#define MIN_HIGHEST_UNITS 96
#define MIN_HIGHEST_DEPTH 32
#define MIN_HIGHEST_TERMS 6000000

/* Terms after which a sum is cut.  An instruction sums 32 terms before it adds them to the rest, so that sums of three
 * parts cut after 512 terms have half the error of NumPy's float32 product.  bench/tuning: amx-cut-terms */
#define CUT_TERMS (PARTS == 3 ? 512 : PARTS == 2 ? 1024 : 2048)

/* L2 that a product is blocked for, of the 2 MiB of every CPU with AMX.  bench/tuning: amx-l2-bytes */
#define AMX_L2_BYTES (PARTS == 3 ? 3 << 19 : 2 << 20)

/* Time of one term in a full micro-tile, in tenths of a float32 term's.  bench/tuning: tile-tenths */
#define AMX_TILE_TERM (PARTS == 3 ? 6 : PARTS == 2 ? 3 : 1)

#endif
