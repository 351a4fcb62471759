#include <stdlib.h>

#include "engine/os.h"
#include "engine/choose.h"
#include "engine/pack.h"
#include "engine/sizes.h"
#include "engine/workspace.h"
#include "layers/network.h"

/* weight (units, in_features) -> dst, units unit_bytes apart */
static void copy_units(int64_t units, size_t row_bytes, const char *weight, char *dst, size_t unit_bytes) {
  if (row_bytes == 0) return; /* there may be more units than a loop should count */
  for (int64_t u = 0; u < units; u++) memcpy(dst + (size_t)u * unit_bytes, weight + (size_t)u * row_bytes, row_bytes);
}

/* Packs for the tier where it has kernels of its own and they represent the weights, and for the vector unit unless the
 * tier takes every product (`both` is 0).  Panels of a tier need the caller's weights for their float32 fallback. */
static void pack_step(struct fa_step *step, const struct weights *right, const struct panel_layout *vector_layout,
                      const struct panel_layout *tier_layout, int both, struct packed_weights *packed, char *memory) {
  int representable = tier_layout->kernels != vector_layout->kernels && pack_panels(right, tier_layout, memory);
  if (!representable || both) {
    packed->panels = memory + (representable ? aligned(packed_bytes(tier_layout)) : 0);
    pack_panels(right, vector_layout, packed->panels);
  }
  if (representable) {
    packed->tier_panels = memory;
    step->weight = right->data;
    step->bias = right->bias;
    step->unit_stride = step->in_features;
  }
}

/* One block of memory: the step, its packed_weights, the slopes, then the panels, or bias and weight, each unit in
 * cache lines of its own. */
struct fa_step *fa_freeze(int dtype, int layer, int64_t in_features, int64_t out_features, int64_t pieces,
                          const void *weight, const void *bias, int64_t activation, double parameter, const void *slope,
                          int64_t slopes, int threads, int precision) {
  const struct call call = begin_call(dtype, precision, threads);
  const struct kernels *kernels = call.kernels;
  const int itemsize = kernels->itemsize;
  const struct product_sizes many_rows = {1 << 20, in_features, out_features, pieces};
  const struct product_sizes one_row = {1, in_features, out_features, pieces};
  const struct kernels *tier = tier_kernels(&call, &many_rows), *tier_of_one_row = tier_kernels(&call, &one_row);
  const struct product product = {.depth = in_features, .columns = out_features, .pieces = (int)pieces};
  struct fa_step unpacked = product_step(layer, in_features, out_features, pieces, weight, bias);
  const struct weights right = weights_of(&unpacked);
  /* the weight of a layer norm is one row, that of a product a row for each unit */
  int64_t units = weight ? layer == FA_LAYER_NORM ? 1 : out_features * pieces : 0;
  size_t slope_bytes = (size_t)(slopes * itemsize), bias_bytes = bias ? (size_t)(out_features * pieces * itemsize) : 0;
  size_t row_bytes = (size_t)(in_features * itemsize), unit_bytes = aligned(row_bytes), right_bytes = 0;
  size_t packed_at = aligned(sizeof(struct fa_step)), slope_at = packed_at + aligned(sizeof(struct packed_weights));
  size_t right_at = slope_at + aligned(slope_bytes);
  int packs = weight && layer != FA_LAYER_NORM && in_features &&
              (has_one_order(&call) || worth_packing(&product, tier_of_one_row)),
      both = tier != tier_of_one_row;
  struct panel_layout vector_layout, tier_layout;
  if (packs) {
    vector_layout = packed_layout(in_features, out_features, (int)pieces, kernels);
    tier_layout = packed_layout(in_features, out_features, (int)pieces, tier);
    size_t vector_bytes = aligned(packed_bytes(&vector_layout)), tier_bytes = aligned(packed_bytes(&tier_layout));
    right_bytes = both ? tier_bytes + vector_bytes : tier_bytes > vector_bytes ? tier_bytes : vector_bytes;
  } else {
    right_bytes = aligned(bias_bytes) + (size_t)units * unit_bytes;
  }
  char *memory = os_allocate(right_at + aligned(right_bytes));
  if (!memory) return NULL;
  struct fa_step *step = (struct fa_step *)memory;
  struct packed_weights *packed = (struct packed_weights *)(memory + packed_at);
  if (slopes) memcpy(memory + slope_at, slope, slope_bytes);
  *packed = (struct packed_weights){NULL, NULL};
  *step = (struct fa_step){
      .layer = layer,
      .precision = precision,
      .in_features = in_features,
      .out_features = out_features,
      .pieces = (int)pieces,
      .packed = packed,
      .activation = activation_of(activation, parameter, memory + slope_at, slopes),
      .eps = parameter,
      .isa = call.isa,
      .dtype = dtype,
  };
  if (packs) {
    pack_step(step, &right, &vector_layout, &tier_layout, both, packed, memory + right_at);
  } else {
    char *copy = memory + right_at + aligned(bias_bytes);
    copy_units(units, row_bytes, weight, copy, unit_bytes);
    step->unit_stride = (int64_t)unit_bytes / itemsize;
    step->weight = units ? copy : NULL;
    step->bias = bias ? memcpy(memory + right_at, bias, bias_bytes) : NULL;
  }
  return step;
}

void fa_free_frozen(struct fa_step *step) { os_free(step); }

int fa_run_frozen(const struct fa_step *const *steps, int64_t count, int64_t rows, const void *x, void *y,
                  int threads) {
  if (rows == 0 || steps[count - 1]->out_features == 0) return FA_OK;
  const struct call call = call_on(steps[0]->isa, steps[0]->dtype, FA_HIGHEST, threads);
  return end_call(infer(&call, steps, count, rows, x, y));
}
