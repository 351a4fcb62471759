#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "grad_bias.h"

#include "fastact_abi.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* What a gradient that is added to one of many sums costs beside an element that is only moved, for threads_for; with
 * fewer pieces, each takes its turn. */
#define SCATTER_WORK 16

#define REAL_BITS 32
#include "grad_bias.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "grad_bias.c"
#else
#include "real.h"

/* The sums of a plain layer over the rows of one run */
static void REAL(sum_columns)(int64_t rows, int64_t columns, int64_t stride, const real *grad_y, real *sums) {
  memset(sums, 0, (size_t)columns * sizeof(real));
  for (int64_t r = 0; r < rows; r++, grad_y += stride)
    for (int64_t j = 0; j < columns; j++) sums[j] += grad_y[j];
}

struct REAL(bias_sums) {
  const struct REAL(kernels) * kernels;
  int64_t rows, out_features, pieces;
  const real *grad_y;
  const uint8_t *argmax;
  int accumulate;
  real *grad_bias, *sums, *total;
  int64_t share; /* outputs of a task */
};

static void REAL(sum_share)(void *context, int64_t task) {
  const struct REAL(bias_sums) *b = context;
  int64_t first = task * b->share, columns = smaller(b->share, b->out_features - first);
  int64_t from = first * b->pieces, to = from + columns * b->pieces;
  memset(b->total + from, 0, (size_t)(to - from) * sizeof(real));
  for (int64_t run = 0; run < b->rows; run += DEPTH_CUT) {
    int64_t at = run * b->out_features + first;
    int64_t rows = smaller(DEPTH_CUT, b->rows - run);
    if (b->argmax)
      b->kernels->sum_bias(&(struct REAL(bias_run)){
          .rows = rows,
          .columns = columns,
          .pieces = b->pieces,
          .grad_y = b->grad_y + at,
          .argmax = b->argmax + at,
          .stride = b->out_features,
          .sums = b->sums + from,
      });
    else
      REAL(sum_columns)(rows, columns, b->out_features, b->grad_y + at, b->sums + from);
    for (int64_t u = from; u < to; u++) b->total[u] += b->sums[u];
  }
  for (int64_t u = from; u < to; u++) b->grad_bias[u] = b->accumulate ? b->grad_bias[u] + b->total[u] : b->total[u];
}

int REAL(grad_bias)(int64_t rows, int64_t out_features, int64_t pieces, const real *grad_y, const uint8_t *argmax,
                    int accumulate, real *grad_bias, int threads) {
  if (out_features == 0) return FA_OK;
  threads = threads_for(threads, (rows + pieces) * out_features * smaller(pieces, SCATTER_WORK));
  size_t units = (size_t)(out_features * pieces);
  real *sums = scratch(SCRATCH_KERNEL, 2 * units * sizeof(real));
  if (!sums) return FA_NO_MEMORY;
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  struct REAL(bias_sums) b = {
      .kernels = kernels,
      .rows = rows,
      .out_features = out_features,
      .pieces = pieces,
      .grad_y = grad_y,
      .argmax = argmax,
      .accumulate = accumulate,
      .grad_bias = grad_bias,
      .sums = sums,
      .total = sums + units,
      .share = ceil_div(ceil_div(out_features, kernels->lanes), threads) * kernels->lanes,
  };
  share_tasks(ceil_div(out_features, b.share), threads, REAL(sum_share), &b);
  release_scratch(SCRATCH_KERNEL);
  return FA_OK;
}

#endif
