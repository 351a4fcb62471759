#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "grad_bias.h"

#include "fastact_abi.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

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

int REAL(grad_bias)(int64_t rows, int64_t out_features, int64_t pieces, const real *grad_y, const uint8_t *argmax,
                    int accumulate, real *grad_bias, int threads) {
  if (out_features == 0) return FA_OK;
  threads = threads_for(threads, (rows + pieces) * out_features);
  size_t units = (size_t)(out_features * pieces);
  real *sums = scratch(SCRATCH_KERNEL, 2 * units * sizeof(real));
  if (!sums) return FA_NO_MEMORY;
  real *total = sums + units;
  int64_t share = ceil_div(out_features, threads);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t first = 0; first < out_features; first += share) {
    int64_t columns = smaller(share, out_features - first), at = first * pieces;
    memset(total + at, 0, (size_t)(columns * pieces) * sizeof(real));
    for (int64_t run = 0; run < rows; run += DEPTH_CUT) {
      int64_t run_rows = smaller(DEPTH_CUT, rows - run), from = run * out_features + first;
      REAL(sum_run)(run_rows, columns, out_features, pieces, grad_y + from, argmax ? argmax + from : NULL, sums + at);
      for (int64_t u = at; u < at + columns * pieces; u++) total[u] += sums[u];
    }
    for (int64_t u = at; u < at + columns * pieces; u++) grad_bias[u] = accumulate ? grad_bias[u] + total[u] : total[u];
  }
  return FA_OK;
}

#endif
