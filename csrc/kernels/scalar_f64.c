#include "../kernels.h"
#define REAL_BITS 64
#define KERNEL_TABLE REAL(kernels_scalar)
#define SMOOTH_TABLE smooth_scalar
#include "region.h"
#include "../real.h"
#include "vec_scalar.h"
#include "kernels.inc.h"
#include "region_end.h"
