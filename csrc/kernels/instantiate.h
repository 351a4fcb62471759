/* Every kernel body, and the table of them for one ISA and one type.  The ISA's file defines REAL_BITS, KERNELS (the
 * table's name) and SMOOTH_TABLE, opens the region, and includes its vec.h and tuning.h first. */
#ifndef REAL_BITS
#include "isa/scalar/tuning.h"
#include "kernels/editor.h"
#define KERNELS kernels_editor
#define SMOOTH_TABLE smooth_editor
#endif

#include "kernels/activation_list.h"

#include "kernels/coefficients.h"
#include "kernels/wide.h"

/* The constants of selu (Klambauer et al. 2017). */
#define SELU_ALPHA 1.6732632423543772848170429916717
#define SELU_SCALE 1.0507009873554804934193349852946

/* The activations of arrays of floats that are computed in lanes of doubles: an ISA's float64 file has them. */
struct smooth {
  void (*forward)(int activation, double parameter, const float *z, float *y, int64_t n);
  void (*backward)(int activation, double parameter, const float *grad_y, const float *z, float *grad_z, int64_t n);
};
extern const struct smooth SMOOTH_TABLE;

#if REAL_BITS == 64
#undef REAL_BITS
#define REAL_BITS 32
#include "kernels/real.h"
#include "kernels/activations_double.h"
const struct smooth SMOOTH_TABLE = {smooth_f32, smooth_backward_f32};
#undef REAL_BITS
#define REAL_BITS 64
#include "kernels/real.h"
#include "kernels/activations_double.h"
#define SMOOTH smooth_f64
#define SMOOTH_BACKWARD smooth_backward_f64
#else
#include "kernels/activations_float.h"
#define SMOOTH SMOOTH_TABLE.forward
#define SMOOTH_BACKWARD SMOOTH_TABLE.backward
#endif

#include "kernels/rest.h"

#include "kernels/activations.h"
#include "kernels/dots.h"
#include "kernels/epilogue.h"
#include "kernels/epilogue_batch.h"
#include "kernels/gather.h"
#include "kernels/grad_bias.h"
#include "kernels/losses.h"
#include "kernels/maxout.h"
#include "kernels/optimizers.h"
#include "kernels/pack.h"
#include "kernels/sums.h"
#include "kernels/tile.h"

const struct kernels KERNELS = {
    .itemsize = sizeof(real),
    .lanes = LANES,
    .tuning = &tuning,
    .step_terms = 1,
    .step_words = 1,
    .cut_words = DEPTH_CUT,
    .left_block = 1,
    .transpose = transpose,
    .copy_lanes = copy_lanes,
    MICRO_TILES,
    .store_linear = store_linear,
    .store_maxout = store_maxout,
    .store_batch = store_batch,
    .dots = dots,
    .gather_vectors = GATHER_VECTORS,
    .pack_table = pack_table,
    .gather_x = {NULL, WIDTHS(GATHER_X_NAME)},
    .gather_weight = {NULL, WIDTHS(GATHER_WEIGHT_NAME)},
    .find_winners = find_winners,
    .gather_bias = gather_bias,
    .activation = activation,
    .activation_backward = activation_backward,
    .add_slope_terms = add_slope_terms,
    .maxout_rows = maxout_rows,
    .maxout_columns = maxout_columns,
    .maxout_narrow = maxout_narrow,
    .scatter_rows = scatter_rows,
    .scatter_columns = scatter_columns,
    .add = add,
    .sum_columns = sum_columns,
    .sum_slopes = sum_slopes,
    .mse = mse,
    .sgd = sgd,
    .adam = adam,
    .limit_norm = limit_norm,
};
