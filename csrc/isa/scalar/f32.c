/* The kernels of the baseline for float32. */
#define REAL_BITS 32
#define KERNELS kernels_scalar_f32
#define DOUBLE_LANES double_lanes_scalar
#include "isa/region_begin.h"
#include "isa/scalar/vec.h"
#include "isa/scalar/tuning.h"
#include "kernels/instantiate.h"
#include "isa/region_end.h"
