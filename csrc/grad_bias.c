#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "grad_bias.h"

#include "fastact_abi.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* What adding to one of several sums costs beside a multiply-add, for threads_for. */
#define SCATTER_WORK 16

#define REAL_BITS 32
#include "grad_bias.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "grad_bias.c"
#else
#include "real.h"

/* sums [columns * pieces] = the sums over the rows of one run; grad_y and argmax begin at its first row and column */
static void REAL(sum_run)(int64_t rows, int64_t columns, int64_t stride, int64_t pieces, const real *grad_y,
                          const uint8_t *argmax, real *sums) {
  memset(sums, 0, (size_t)(columns * pieces) * sizeof(real));
  for (int64_t r = 0; r < rows; r++, grad_y += stride) {
    if (argmax) {
      for (int64_t j = 0; j < columns; j++) sums[j * pieces + argmax[j]] += grad_y[j];
      argmax += stride;
    } else {
      for (int64_t j = 0; j < columns; j++) sums[j] += grad_y[j];
    }
  }
}

struct REAL(bias_sums) {
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
    REAL(sum_run)(smaller(DEPTH_CUT, b->rows - run), columns, b->out_features, b->pieces, b->grad_y + at,
                  b->argmax ? b->argmax + at : NULL, b->sums + from);
    for (int64_t u = from; u < to; u++) b->total[u] += b->sums[u];
  }
  for (int64_t u = from; u < to; u++) b->grad_bias[u] = b->accumulate ? b->grad_bias[u] + b->total[u] : b->total[u];
}

int REAL(grad_bias)(int64_t rows, int64_t out_features, int64_t pieces, const real *grad_y, const uint8_t *argmax,
                    int accumulate, real *grad_bias, int threads) {
  if (out_features == 0) return FA_OK;
  threads = threads_for(threads, (rows + pieces) * out_features * (argmax ? SCATTER_WORK : 1));
  size_t units = (size_t)(out_features * pieces);
  real *sums = scratch(SCRATCH_KERNEL, 2 * units * sizeof(real));
  if (!sums) return FA_NO_MEMORY;
  struct REAL(bias_sums) b = {
      .rows = rows,
      .out_features = out_features,
      .pieces = pieces,
      .grad_y = grad_y,
      .argmax = argmax,
      .accumulate = accumulate,
      .grad_bias = grad_bias,
      .sums = sums,
      .total = sums + units,
      .share = ceil_div(out_features, threads),
  };
  share_tasks(ceil_div(out_features, b.share), threads, REAL(sum_share), &b);
  return FA_OK;
}

#endif
