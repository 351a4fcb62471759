/* Every kernel body, and the table of them for one ISA and one type.  The ISA's file defines REAL_BITS, KERNELS (the
 * table's name) and DOUBLE_LANES (the name of its struct double_lanes), opens the region, and includes its vec.h and
 * tuning.h first. */
#ifndef REAL_BITS
#include "isa/scalar/tuning.h"
#include "kernels/editor.h"
#define KERNELS kernels_editor
#define DOUBLE_LANES double_lanes_editor
#endif

#if REAL_BITS == 64 /* arrays of floats in lanes of doubles */
#include "kernels/exp_double.h"
#include "kernels/philox.h"
#undef REAL_BITS
#define REAL_BITS 32
#include "kernels/real.h"

#include "kernels/activations_double.h"
#include "kernels/cross_entropy.h"
#include "kernels/losses_double.h"
const struct double_lanes DOUBLE_LANES = {gelu_tanh_forward_f32, mish_forward_f32, gelu_tanh_backward_f32,
                                          mish_backward_f32};
#undef REAL_BITS
#define REAL_BITS 64
#include "kernels/real.h"

#include "kernels/cross_entropy.h"
#include "kernels/losses_double.h"
#endif

#include "kernels/activations.h"
#include "kernels/dots.h"
#include "kernels/epilogue.h"
#include "kernels/epilogue_batch.h"
#include "kernels/gather.h"
#include "kernels/grad_bias.h"
#include "kernels/hash_embed.h"
#include "kernels/layer_norm.h"
#include "kernels/losses.h"
#include "kernels/maxout.h"
#include "kernels/optimizers.h"
#include "kernels/pack.h"
#include "kernels/sums.h"
#include "kernels/tile.h"
#include "kernels/unpacked_tiles.h"

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
    .unpacked_tiles = sizeof(vec) == 64 ? unpacked_tiles : NULL,
    .gather_vectors = GATHER_VECTORS,
    .pack_table = pack_table,
    .gather_x = {NULL, WIDTHS(GATHER_X_NAME)},
    .gather_weight = {NULL, WIDTHS(GATHER_WEIGHT_NAME)},
    .find_winners = find_winners,
    .gather_bias = gather_bias,
    .activation = activation,
    .activation_backward = activation_backward,
    .add_slope_terms = add_slope_terms,
    .layer_norm = layer_norm,
    .layer_norm_backward = layer_norm_backward,
    .hash_embed = hash_embed,
    .hash_embed_backward = hash_embed_backward,
    .maxout_rows = maxout_rows,
    .maxout_columns = maxout_columns,
    .maxout_narrow = maxout_narrow,
    .scatter_rows = scatter_rows,
    .scatter_columns = scatter_columns,
    .add = add,
    .scale = scale,
    .axpy = (void (*)(void))axpy,
    .dropout = dropout,
    .sum_columns = sum_columns,
    .sum_slopes = sum_slopes,
    .mse = mse,
#if REAL_BITS == 64
    .cross_entropy = {cross_entropy_f32, cross_entropy_f64},
    .binary_cross_entropy = {binary_cross_entropy_f32, binary_cross_entropy_f64},
    .huber = {huber_f32, huber_f64},
    .dropout_keep = dropout_keep,
#endif
    .sgd = sgd,
    .adam = adam,
    .limit_norm = limit_norm,
    .squared_norm = squared_norm,
    .max_abs = max_abs,
    .shrink = shrink,
};
