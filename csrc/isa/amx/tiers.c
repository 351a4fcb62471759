/* The three tiers on AMX-BF16: "medium", "high" and "highest" split each number into 1, 2 and 3 bfloat16 parts. */
#if defined(__x86_64__)
#define REAL_BITS 32
#define REGION_AMX
#include "isa/region_begin.h"
#include "isa/avx512/vec.h"

#define PARTS 1
#include "isa/amx/tier.h"
#undef PARTS
#define PARTS 2
#include "isa/amx/tier.h"
#undef PARTS
#define PARTS 3
#include "isa/amx/tier.h"
#undef PARTS
#include "isa/region_end.h"
#endif
