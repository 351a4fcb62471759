/* The three tiers on AMX-BF16: "medium", "high" and "highest" split each number into 1, 2 and 3 bfloat16 parts. */
#if defined(__x86_64__)
#include "intrinsics.h"

#include "../kernels.h"
#define REAL_BITS 32
#define REGION_AMX
#include "region.h"
#include "../real.h"
#include "vec_avx512.h"

#include "amx_unit.inc.h"
#include "finish.inc.h"
#include "transpose.inc.h"

#include "bf16_pack.inc.h"

#include "amx_tile.inc.h"

#define PARTS 1
#include "amx_tier.inc.h"
#undef PARTS
#define PARTS 2
#include "amx_tier.inc.h"
#undef PARTS
#define PARTS 3
#include "amx_tier.inc.h"
#undef PARTS
#include "region_end.h"
#endif
