#if defined(__x86_64__)
#include "intrinsics.h"

#include "../kernels.h"
#define REAL_BITS 64
#define KERNEL_TABLE REAL(kernels_avx512)
#define SMOOTH_TABLE smooth_avx512
#define REGION_AVX512
#include "region.h"
#include "../real.h"
#include "vec_avx512.h"
#include "kernels.inc.h"
#include "region_end.h"
#endif
