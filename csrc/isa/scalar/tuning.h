/* Cache sizes and costs of the baseline's kernels: the numbers of AVX-512.  They were not measured with the baseline.
 */
#include "isa/avx512/tuning.h"
