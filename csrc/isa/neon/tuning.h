/* Cache sizes and costs of the NEON kernels: the numbers of AVX-512.  They were not measured with NEON. */
#include "isa/avx512/tuning.h"
