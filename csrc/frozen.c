#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include <stdlib.h>

#include "activations.h"
#include "product_order.h"
#include "sizes.h"
#include "threads.h"

/* A large batch goes through hidden layers in parts, so that the scratch memory stays this small for each of the two
 * buffers; of so many rows at least, and a multiple of HIDDEN_STEP, whole blocks of the rows that a product packs. */
#define HIDDEN_BYTES (32 << 20)
#define HIDDEN_ROWS 1024
#define HIDDEN_STEP 64

#define REAL_BITS 32
#include "frozen.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "frozen.c"
#else
#include "real.h"

struct REAL(fa_frozen) {
  int64_t in_features, out_features;
  int pieces;                 /* 0: no product, the activation alone */
  struct REAL(packed) packed; /* its ISA serves the activation too */
  /* Its own, where there are no panels; the caller's, where panels of words may not carry some x; else NULL. */
  const real *weight, *bias;
  int64_t unit_stride; /* of weight */
  int activation;
  double parameter;
  int64_t slopes;
  const real *slope; /* (slopes) */
};

/* weight (units, in_features) -> dst, units `stride` apart */
static void REAL(copy_units)(int64_t units, int64_t in_features, const real *weight, real *dst, int64_t stride) {
  if (in_features == 0) return; /* however many units there are */
  for (int64_t u = 0; u < units; u++)
    memcpy(dst + u * stride, weight + u * in_features, (size_t)in_features * sizeof(real));
}

/* One block of memory: the struct, the slopes, then the panels, or bias and weight, each unit in cache lines of its
 * own. */
struct REAL(fa_frozen) * REAL(fa_freeze)(int64_t in_features, int64_t out_features, int64_t pieces, const real *weight,
                                         const real *bias, int activation, double parameter, const real *slope,
                                         int64_t slopes, int precision) {
  const struct isa *isa = isa_active();
  const struct product_sizes many_rows = {1 << 20, in_features, out_features, pieces};
  const struct product_sizes one_row = {1, in_features, out_features, pieces};
  const struct REAL(kernels) *kernels = isa->REAL(kernels), *tier = REAL(isa_tier)(isa, precision, &many_rows);
  const struct REAL(kernels) *of_few_rows = REAL(isa_tier)(isa, precision, &one_row);
  struct REAL(product) product = {
      .depth = in_features,
      .columns = out_features,
      .pieces = (int)pieces,
      .right = weight,
      .right_column_stride = pieces * in_features,
      .right_depth_stride = 1,
      .right_piece_stride = in_features,
      .bias = bias,
  };
  size_t slope_bytes = (size_t)slopes * sizeof(real);
  size_t bias_bytes = bias ? (size_t)(out_features * pieces) * sizeof(real) : 0;
  size_t unit_bytes = aligned((size_t)in_features * sizeof(real)), tier_bytes = 0, right_bytes = 0;
  size_t slope_at = aligned(sizeof(struct REAL(fa_frozen))), right_at = slope_at + aligned(slope_bytes);
  int packs = pieces && in_features && REAL(worth_packing)(&product, of_few_rows), has_both = tier != of_few_rows;
  if (packs) {
    size_t panels_bytes = aligned(REAL(packed_bytes)(&product, kernels));
    tier_bytes = aligned(REAL(packed_bytes)(&product, tier));
    right_bytes = has_both ? tier_bytes + panels_bytes : tier_bytes > panels_bytes ? tier_bytes : panels_bytes;
  } else if (pieces) {
    right_bytes = aligned(bias_bytes) + (size_t)(out_features * pieces) * unit_bytes;
  }
  char *memory = aligned_alloc(64, right_at + aligned(right_bytes));
  if (!memory) return NULL;
  struct REAL(fa_frozen) *layer = (struct REAL(fa_frozen) *)memory;
  real *slopes_copy = (real *)(memory + slope_at), *right = (real *)(memory + right_at);
  if (slopes) memcpy(slopes_copy, slope, slope_bytes);
  *layer = (struct REAL(fa_frozen)){
      .in_features = in_features,
      .out_features = out_features,
      .pieces = (int)pieces,
      .packed = {.isa = isa, .precision = precision},
      .activation = activation,
      .parameter = parameter,
      .slopes = slopes,
      .slope = slopes_copy,
  };
  if (packs) {
    /* where the tier has kernels of its own, and their words carry the weights */
    int carried = tier != kernels && REAL(pack)(&product, tier, right);
    if (!carried || has_both) {
      layer->packed.panels = (real *)((char *)right + (carried ? tier_bytes : 0));
      REAL(pack)(&product, kernels, layer->packed.panels);
    }
    if (carried) {
      layer->packed.tier_panels = right;
      layer->weight = weight;
      layer->bias = bias;
      layer->unit_stride = in_features;
    }
  } else if (pieces) {
    real *copy = (real *)(memory + right_at + aligned(bias_bytes));
    layer->unit_stride = (int64_t)(unit_bytes / sizeof(real));
    REAL(copy_units)(out_features * pieces, in_features, weight, copy, layer->unit_stride);
    layer->weight = copy;
    layer->bias = bias ? memcpy(right, bias, bias_bytes) : NULL;
  }
  return layer;
}

void REAL(fa_free_frozen)(struct REAL(fa_frozen) * layer) { free(layer); }

static int REAL(run_layer)(const struct REAL(fa_frozen) * layer, int64_t rows, const real *x, real *y, int threads) {
  if (!layer->pieces) {
    REAL(activate)(layer->packed.isa->REAL(kernels), rows, layer->out_features, layer->activation, layer->parameter,
                   layer->slope, layer->slopes, x, y, threads);
    return FA_OK;
  }
  return REAL(activated_product)(
      &(struct REAL(product)){
          .rows = rows,
          .depth = layer->in_features,
          .columns = layer->out_features,
          .pieces = layer->pieces,
          .left = x,
          .left_row_stride = layer->in_features,
          .left_depth_stride = 1,
          .right = layer->weight,
          .right_column_stride = layer->pieces * layer->unit_stride,
          .right_depth_stride = 1,
          .right_piece_stride = layer->unit_stride,
          .bias = layer->bias,
          .packed = &layer->packed,
          .y = y,
      },
      layer->activation, layer->parameter, layer->slope, layer->slopes, y, threads);
}

/* hidden layers write to the two halves of `hidden` in turn */
static int REAL(run_layers)(const struct REAL(fa_frozen) *const *layers, int64_t count, int64_t rows, const real *x,
                            real *y, char *hidden, size_t hidden_bytes, int threads) {
  for (int64_t i = 0; i < count; i++) {
    real *to = i + 1 < count ? (real *)(hidden + (size_t)(i % 2) * hidden_bytes) : y;
    int status = REAL(run_layer)(layers[i], rows, x, to, threads);
    if (status) return status;
    x = to;
  }
  return FA_OK;
}

int REAL(fa_run_frozen)(const struct REAL(fa_frozen) *const *layers, int64_t count, int64_t rows, const real *x,
                        real *y, int threads) {
  int64_t in_features = layers[0]->in_features, out_features = layers[count - 1]->out_features;
  if (rows == 0 || out_features == 0) return FA_OK;
  if (count == 1) return REAL(run_layer)(layers[0], rows, x, y, threads);
  int64_t widest = 1;
  for (int64_t i = 0; i + 1 < count; i++) widest = larger(widest, layers[i]->out_features);
  int64_t most = HIDDEN_BYTES / (widest * (int64_t)sizeof(real)) / HIDDEN_ROWS * HIDDEN_ROWS;
  most = larger(most, HIDDEN_ROWS);
  int64_t parts = larger(1, ceil_div(rows, most)); /* alike, so that they run on the same kernels */
  most = smaller(rows, ceil_div(ceil_div(rows, parts), HIDDEN_STEP) * HIDDEN_STEP);
  size_t hidden_bytes = aligned((size_t)(most * widest) * sizeof(real));
  char *hidden = scratch(SCRATCH_HIDDEN, 2 * hidden_bytes);
  if (!hidden) return FA_NO_MEMORY;
  int status = FA_OK;
  for (int64_t row = 0; row < rows && !status; row += most)
    status = REAL(run_layers)(layers, count, smaller(most, rows - row), x + row * in_features, y + row * out_features,
                              hidden, hidden_bytes, threads);
  release_scratch(SCRATCH_HIDDEN);
  return status;
}

#endif
