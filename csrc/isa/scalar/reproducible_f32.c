/* The kernels of the baseline for reproducible results on float32: AVX-512's lanes, and its rounding of a
 * multiply-add. */
#define REAL_BITS 32
#define KERNELS kernels_scalar_reproducible_f32
#define DOUBLE_LANES double_lanes_scalar_reproducible
#define VECTOR_BYTES 64
#include "isa/region_begin.h"
#include "isa/scalar/vec.h"
#include "isa/scalar/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
