/* The kernels of AVX2 for reproducible results on float32: AVX-512's lanes. */
#if defined(__x86_64__)
#define REAL_BITS 32
#define KERNELS kernels_avx2_reproducible_f32
#define DOUBLE_LANES double_lanes_avx2_reproducible
#define REGION_AVX2
#include "isa/region_begin.h"
#include "isa/paired_begin.h"
#include "isa/avx2/vec.h"
#include "isa/paired.h"
#include "isa/avx2/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
#endif
