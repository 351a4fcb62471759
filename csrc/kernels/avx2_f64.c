#if defined(__x86_64__)
#include <immintrin.h>

#include "../kernels.h"
#define REAL_BITS 64
#define KERNEL_TABLE REAL(kernels_avx2)
#define SMOOTH_TABLE smooth_avx2
#define REGION_AVX2
#include "region.h"
#include "../real.h"
#include "vec_avx2.h"
#include "kernels.inc.h"
#include "region_end.h"
#endif
