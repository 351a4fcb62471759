#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include <stdlib.h>

#include "activations.h"
#include "sizes.h"
#include "threads.h"

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
  struct REAL(packed) packed; /* its kernels serve the activation too */
  const real *weight, *bias;  /* the caller's, where the panels are no `real` and may not carry some x; else NULL */
  int activation;
  double parameter;
  int64_t slopes;
  const real *slope; /* (slopes) */
};

/* One block of memory: the struct, the slopes, the panels. */
struct REAL(fa_frozen) * REAL(fa_freeze)(int64_t in_features, int64_t out_features, int64_t pieces, const real *weight,
                                         const real *bias, int activation, double parameter, const real *slope,
                                         int64_t slopes, int precision) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels), *tier = REAL(isa_tier)(precision, 0);
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
  size_t slope_at = aligned(sizeof(struct REAL(fa_frozen)));
  size_t panels_at = slope_at + aligned((size_t)slopes * sizeof(real));
  size_t tier_bytes = REAL(packed_bytes)(&product, tier), panels_bytes = REAL(packed_bytes)(&product, kernels);
  if (tier_bytes > panels_bytes) panels_bytes = tier_bytes;
  char *memory = aligned_alloc(64, panels_at + (pieces ? aligned(panels_bytes) : 0));
  if (!memory) return NULL;
  real *slopes_copy = (real *)(memory + slope_at), *panels = (real *)(memory + panels_at);
  if (slopes) memcpy(slopes_copy, slope, (size_t)slopes * sizeof(real));
  if (pieces && !REAL(pack)(&product, tier, panels)) {
    tier = kernels; /* the tier's words can't carry the weights */
    REAL(pack)(&product, tier, panels);
  }
  struct REAL(fa_frozen) *layer = (struct REAL(fa_frozen) *)memory;
  *layer = (struct REAL(fa_frozen)){
      .in_features = in_features,
      .out_features = out_features,
      .pieces = (int)pieces,
      .packed = {kernels, tier, panels},
      .weight = tier == kernels ? NULL : weight,
      .bias = tier == kernels ? NULL : bias,
      .activation = activation,
      .parameter = parameter,
      .slopes = slopes,
      .slope = slopes_copy,
  };
  return layer;
}

void REAL(fa_free_frozen)(struct REAL(fa_frozen) * layer) { free(layer); }

static int REAL(run_layer)(const struct REAL(fa_frozen) * layer, int64_t rows, const real *x, real *y, int threads) {
  if (!layer->pieces) {
    REAL(activate)(layer->packed.kernels, rows, layer->out_features, layer->activation, layer->parameter, layer->slope,
                   layer->slopes, x, y, threads);
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
          .right_column_stride = layer->pieces * layer->in_features,
          .right_depth_stride = 1,
          .right_piece_stride = layer->in_features,
          .bias = layer->bias,
          .packed = &layer->packed,
          .y = y,
      },
      layer->activation, layer->parameter, layer->slope, layer->slopes, y, threads);
}

int REAL(fa_run_frozen)(const struct REAL(fa_frozen) *const *layers, int64_t count, int64_t rows, const real *x,
                        real *y, int threads) {
  /* hidden layers write to two buffers in turn */
  int64_t widest = 0;
  for (int64_t i = 0; i + 1 < count; i++) widest = larger(widest, layers[i]->out_features);
  size_t hidden_bytes = aligned((size_t)(rows * widest) * sizeof(real));
  char *hidden = NULL;
  if (count > 1 && !(hidden = scratch(SCRATCH_HIDDEN, 2 * hidden_bytes))) return FA_NO_MEMORY;
  for (int64_t i = 0; i < count; i++) {
    real *to = i + 1 < count ? (real *)(hidden + (size_t)(i % 2) * hidden_bytes) : y;
    int status = REAL(run_layer)(layers[i], rows, x, to, threads);
    if (status) return status;
    x = to;
  }
  return FA_OK;
}

#endif
