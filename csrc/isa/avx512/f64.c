/* The kernels of AVX-512 for float64. */
#if defined(__x86_64__)
#define REAL_BITS 64
#define KERNELS kernels_avx512_f64
#define DOUBLE_LANES double_lanes_avx512
#define REGION_AVX512
#include "isa/region_begin.h"
#include "isa/avx512/vec.h"
#include "isa/avx512/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
#endif
