/* The kernels of NEON for reproducible results on float32: AVX-512's lanes. */
#if defined(__AARCH64EL__)
#define REAL_BITS 32
#define KERNELS kernels_neon_reproducible_f32
#define DOUBLE_LANES double_lanes_neon_reproducible
#include "isa/region_begin.h"
#include "isa/paired_begin.h"
#include "isa/neon/vec.h"
#include "isa/paired.h"
#include "isa/neon/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
#endif
