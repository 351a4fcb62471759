/* Cache sizes and costs of the AVX2 kernels: the numbers of AVX-512.  They were not measured with AVX2. */
#include "isa/avx512/tuning.h"
