#include <stdlib.h>

#include "engine/choose.h"
#include "engine/pack.h"
#include "engine/sizes.h"
#include "engine/workspace.h"
#include "layers/activation.h"

/* A large batch goes through hidden layers in parts, so that each of the two hidden buffers stays this small.  Parts
 * have about HIDDEN_ROWS rows or more and differ by at most HIDDEN_STEP, whole blocks of the rows that a product packs,
 * so that all run on the same kernels. */
#define HIDDEN_BYTES (32 << 20)
#define HIDDEN_ROWS 1024
#define HIDDEN_STEP 64

struct fa_frozen {
  const struct isa *isa; /* the layer is packed for this ISA, and always runs on it */
  int dtype, precision;
  int64_t in_features, out_features;
  int pieces; /* 0: no product, the activation alone */
  struct packed_weights packed;
  /* Unpacked weights.  A copy of the layer's own if nothing was packed; the caller's if panels of a tier need a float32
   * fallback; else NULL. */
  const char *weight, *bias;
  int64_t unit_stride; /* of weight */
  struct activation activation;
};

/* weight (units, in_features) -> dst, units unit_bytes apart */
static void copy_units(int64_t units, size_t row_bytes, const char *weight, char *dst, size_t unit_bytes) {
  if (row_bytes == 0) return; /* there may be more units than a loop should count */
  for (int64_t u = 0; u < units; u++) memcpy(dst + (size_t)u * unit_bytes, weight + (size_t)u * row_bytes, row_bytes);
}

/* Packs for the tier where it has kernels of its own and they represent the weights, and for the vector unit unless the
 * tier takes every product (`both` is 0). */
static void pack_layer(struct fa_frozen *layer, const struct weights *right, const struct panel_layout *vector_layout,
                       const struct panel_layout *tier_layout, int both, char *memory) {
  int representable = tier_layout->kernels != vector_layout->kernels && pack_panels(right, tier_layout, memory);
  if (!representable || both) {
    layer->packed.panels = memory + (representable ? aligned(packed_bytes(tier_layout)) : 0);
    pack_panels(right, vector_layout, layer->packed.panels);
  }
  if (representable) {
    layer->packed.tier_panels = memory;
    layer->weight = right->data;
    layer->bias = right->bias;
    layer->unit_stride = layer->in_features;
  }
}

/* One block of memory: the struct, the slopes, then the panels, or bias and weight, each unit in cache lines of its
 * own. */
struct fa_frozen *fa_freeze(int dtype, int64_t in_features, int64_t out_features, int64_t pieces, const void *weight,
                            const void *bias, int activation, double parameter, const void *slope, int64_t slopes,
                            int precision) {
  const struct call call = begin_call(dtype, precision, 1);
  const struct kernels *kernels = call.kernels;
  const int itemsize = kernels->itemsize;
  const struct product_sizes many_rows = {1 << 20, in_features, out_features, pieces};
  const struct product_sizes one_row = {1, in_features, out_features, pieces};
  const struct kernels *tier = tier_kernels(&call, &many_rows), *tier_of_one_row = tier_kernels(&call, &one_row);
  const struct product product = {.depth = in_features, .columns = out_features, .pieces = (int)pieces};
  const struct weights right = {.data = weight,
                                .column_stride = pieces * in_features,
                                .depth_stride = 1,
                                .piece_stride = in_features,
                                .bias = bias};
  size_t slope_bytes = (size_t)(slopes * itemsize), bias_bytes = bias ? (size_t)(out_features * pieces * itemsize) : 0;
  size_t row_bytes = (size_t)(in_features * itemsize), unit_bytes = aligned(row_bytes), right_bytes = 0;
  size_t slope_at = aligned(sizeof(struct fa_frozen)), right_at = slope_at + aligned(slope_bytes);
  int packs = pieces && in_features && worth_packing(&product, tier_of_one_row), both = tier != tier_of_one_row;
  struct panel_layout vector_layout, tier_layout;
  if (packs) {
    vector_layout = packed_layout(in_features, out_features, (int)pieces, kernels);
    tier_layout = packed_layout(in_features, out_features, (int)pieces, tier);
    size_t vector_bytes = aligned(packed_bytes(&vector_layout)), tier_bytes = aligned(packed_bytes(&tier_layout));
    right_bytes = both ? tier_bytes + vector_bytes : tier_bytes > vector_bytes ? tier_bytes : vector_bytes;
  } else if (pieces) {
    right_bytes = aligned(bias_bytes) + (size_t)(out_features * pieces) * unit_bytes;
  }
  char *memory = aligned_alloc(64, right_at + aligned(right_bytes));
  if (!memory) return NULL;
  struct fa_frozen *layer = (struct fa_frozen *)memory;
  if (slopes) memcpy(memory + slope_at, slope, slope_bytes);
  *layer = (struct fa_frozen){
      .isa = call.isa,
      .dtype = dtype,
      .precision = precision,
      .in_features = in_features,
      .out_features = out_features,
      .pieces = (int)pieces,
      .activation = {activation, parameter, memory + slope_at, slopes},
  };
  if (packs) {
    pack_layer(layer, &right, &vector_layout, &tier_layout, both, memory + right_at);
  } else if (pieces) {
    char *copy = memory + right_at + aligned(bias_bytes);
    copy_units(out_features * pieces, row_bytes, weight, copy, unit_bytes);
    layer->unit_stride = (int64_t)unit_bytes / itemsize;
    layer->weight = copy;
    layer->bias = bias ? memcpy(memory + right_at, bias, bias_bytes) : NULL;
  }
  return layer;
}

void fa_free_frozen(struct fa_frozen *layer) { free(layer); }

static int run_layer(const struct fa_frozen *layer, int64_t rows, const char *x, char *y, int threads) {
  const struct call call = call_on(layer->isa, layer->dtype, layer->precision, threads);
  if (!layer->pieces) {
    activate(&call, rows, layer->out_features, &layer->activation, x, y);
    return FA_OK;
  }
  const struct source left = dense_source(x, layer->in_features, 1);
  const struct product product = {
      .rows = rows,
      .depth = layer->in_features,
      .columns = layer->out_features,
      .pieces = layer->pieces,
      .left = &left,
      .right = {.data = layer->weight,
                .column_stride = layer->pieces * layer->unit_stride,
                .depth_stride = 1,
                .piece_stride = layer->unit_stride,
                .bias = layer->bias,
                .packed = &layer->packed},
      .epilogue = {.y = y, .y_stride = layer->out_features},
  };
  return activated_product(&call, &product, &layer->activation, y);
}

/* Hidden layers write to the two halves of `hidden` in turn. */
static int run_layers(const struct fa_frozen *const *layers, int64_t count, int64_t rows, const char *x, char *y,
                      char *hidden, size_t hidden_bytes, int threads) {
  for (int64_t i = 0; i < count; i++) {
    char *to = i + 1 < count ? hidden + (size_t)(i % 2) * hidden_bytes : y;
    int status = run_layer(layers[i], rows, x, to, threads);
    if (status != FA_OK) return status;
    x = to;
  }
  return FA_OK;
}

int fa_run_frozen(const struct fa_frozen *const *layers, int64_t count, int64_t rows, const void *x, void *y,
                  int threads) {
  int64_t in_features = layers[0]->in_features, out_features = layers[count - 1]->out_features;
  if (rows == 0 || out_features == 0) return FA_OK;
  if (count == 1) return end_call(run_layer(layers[0], rows, x, y, threads));
  const int itemsize = layers[0]->isa->kernels[layers[0]->dtype]->itemsize;
  int64_t widest = 1;
  for (int64_t i = 0; i + 1 < count; i++) widest = larger(widest, layers[i]->out_features);
  int64_t most = larger(HIDDEN_BYTES / (widest * itemsize) / HIDDEN_ROWS * HIDDEN_ROWS, HIDDEN_ROWS);
  int64_t steps = ceil_div(rows, HIDDEN_STEP), parts = ceil_div(rows, most);
  most = smaller(rows, ceil_div(steps, parts) * HIDDEN_STEP);
  size_t hidden_bytes = aligned((size_t)(most * widest * itemsize));
  char *hidden = workspace(WORKSPACE_HIDDEN, 2 * hidden_bytes);
  if (!hidden) return FA_NO_MEMORY;
  int status = FA_OK;
  for (int64_t part = 0; part < parts && status == FA_OK; part++) {
    int64_t row = part_start(steps, parts, part) * HIDDEN_STEP;
    int64_t end = smaller(rows, part_start(steps, parts, part + 1) * HIDDEN_STEP);
    status = run_layers(layers, count, end - row, element(x, row * in_features, itemsize),
                        element(y, row * out_features, itemsize), hidden, hidden_bytes, threads);
  }
  return end_call(status);
}
