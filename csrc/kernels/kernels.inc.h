/* Every kernel body, and the table of them for one ISA and one type.  The ISA's file defines KERNEL_TABLE, SMOOTH_TABLE
 * and REAL_BITS and includes its vec_<isa>.h first. */
#include "coefficients.h"
#include "wide.inc.h"

/* Of selu (Klambauer et al. 2017), in both of its files. */
#define SELU_ALPHA 1.6732632423543772848170429916717
#define SELU_SCALE 1.0507009873554804934193349852946

#if REAL_BITS == 64 /* with doubles in the lanes, for arrays of floats and of doubles */
#undef REAL_BITS
#define REAL_BITS 32
#include "../real.h"
#include "smooth.inc.h"
const struct smooth SMOOTH_TABLE = {smooth_f32, smooth_backward_f32};
#undef REAL_BITS
#define REAL_BITS 64
#include "../real.h"
#include "smooth.inc.h"
#define SMOOTH smooth_f64
#define SMOOTH_BACKWARD smooth_backward_f64
#else
#include "logistic.inc.h"
extern const struct smooth SMOOTH_TABLE;
#define SMOOTH SMOOTH_TABLE.forward
#define SMOOTH_BACKWARD SMOOTH_TABLE.backward
#endif

#include "activations.inc.h"
#include "dots.inc.h"
#include "finish.inc.h"
#include "losses.inc.h"
#include "maxout.inc.h"
#include "transpose.inc.h"

#include "bias.inc.h"
#include "finish_units.inc.h"
#include "pack.inc.h"
#include "tile.inc.h"
#include "updates.inc.h"
#include "winners.inc.h"

const struct REAL(kernels) KERNEL_TABLE = {
    .lanes = LANES,
    .step_terms = 1,
    .step_words = 1,
    .run_words = DEPTH_CUT,
    .left_block = 1,
    .l2_bytes = 1 << 20,
    .tile_tenths = 10,
    .transpose = transpose,
    .copy_lanes = copy_lanes,
    REGISTER_TILES,
    .finish_linear = finish_linear,
    .finish_maxout = finish_maxout,
    .finish_units = finish_units,
    .dots = dots,
    .winner_vectors = WINNER_VECTORS,
    .pack_table = pack_table,
    .sum_chosen = {NULL, WIDTHS(SUM_CHOSEN_NAME)},
    .sum_won = {NULL, WIDTHS(SUM_WON_NAME)},
    .find_winners = find_winners,
    .sum_bias = sum_bias,
    .activation = activation,
    .activation_backward = activation_backward,
    .add_slope_terms = add_slope_terms,
    .maxout_rows = maxout_rows,
    .maxout_columns = maxout_columns,
    .maxout_narrow = maxout_narrow,
    .mse = mse,
    .sgd = sgd,
    .adam = adam,
    .limit_norm = limit_norm,
};
