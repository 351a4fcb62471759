/* The kernels of AVX2 for float64. */
#if defined(__x86_64__)
#define REAL_BITS 64
#define KERNELS kernels_avx2_f64
#define DOUBLE_LANES double_lanes_avx2
#define REGION_AVX2
#include "isa/region_begin.h"
#include "isa/avx2/vec.h"
#include "isa/avx2/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
#endif
