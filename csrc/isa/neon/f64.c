/* The kernels of NEON for float64. */
#if defined(__AARCH64EL__)
#define REAL_BITS 64
#define KERNELS kernels_neon_f64
#define DOUBLE_LANES double_lanes_neon
#include "isa/region_begin.h"
#include "isa/neon/vec.h"
#include "isa/neon/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
#endif
