#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "argmax.h"
#include "fastact_abi.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* Results that a task takes, and elements of grad_z. */
#define BLOCK 1024
#define BACKWARD_BLOCK 2048

#define REAL_BITS 32
#include "maxout.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "maxout.c"
#else
#include "real.h"

/* z (rows, pieces) */
static void REAL(maxout_rows)(int64_t rows, int64_t pieces, const real *z, real *y, uint8_t *argmax, int threads) {
  (void)threads; /* unused without OpenMP */
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t i = 0; i < rows; i += BLOCK)
    kernels->maxout_rows(pieces, smaller(BLOCK, rows - i), z + i * pieces, y + i, argmax ? argmax + i : NULL);
}

int REAL(fa_maxout)(int64_t outer, int64_t pieces, int64_t inner, const real *z, real *y, uint8_t *argmax,
                    int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  threads = threads_for(threads, outer * inner * pieces);
  if (inner == 1) {
    REAL(maxout_rows)(outer, pieces, z, y, argmax, threads);
    return FA_OK;
  }
  int64_t blocks = ceil_div(inner, BLOCK);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t task = 0; task < outer * blocks; task++) {
    int64_t o = task / blocks, i = task % blocks * BLOCK, at = o * inner + i;
    kernels->maxout_columns(pieces, inner, smaller(BLOCK, inner - i), z + o * pieces * inner + i, y + at,
                            argmax ? argmax + at : NULL);
  }
  return FA_OK;
}

/* n of the columns of grad_z (pieces, inner) */
static void REAL(scatter)(int64_t pieces, int64_t inner, int64_t n, const real *grad_y, const uint8_t *argmax,
                          real *grad_z) {
  for (int64_t k = 0; k < pieces; k++) memset(grad_z + k * inner, 0, (size_t)n * sizeof(real));
  for (int64_t i = 0; i < n; i++) grad_z[argmax[i] * inner + i] = grad_y[i];
}

/* grad_z (n, pieces) */
static void REAL(scatter_rows)(int64_t pieces, int64_t n, const real *grad_y, const uint8_t *argmax, real *grad_z) {
  memset(grad_z, 0, (size_t)(n * pieces) * sizeof(real));
  for (int64_t i = 0; i < n; i++) grad_z[i * pieces + argmax[i]] = grad_y[i];
}

int REAL(fa_maxout_backward)(int64_t outer, int64_t pieces, int64_t inner, const real *grad_y, const uint8_t *argmax,
                             real *grad_z, int threads) {
  if (!argmax_fits(outer * inner, argmax, pieces)) return FA_BAD_ARGMAX;
  /* a block's zeros are still in L1 when the winners are written over them */
  int64_t block = BACKWARD_BLOCK / pieces, blocks = ceil_div(inner, block);
  threads = threads_for(threads, outer * inner * pieces);
  if (inner == 1) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < outer; i += block)
      REAL(scatter_rows)(pieces, smaller(block, outer - i), grad_y + i, argmax + i, grad_z + i * pieces);
    return FA_OK;
  }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t task = 0; task < outer * blocks; task++) {
    int64_t o = task / blocks, i = task % blocks * block, at = o * inner + i;
    REAL(scatter)(pieces, inner, smaller(block, inner - i), grad_y + at, argmax + at, grad_z + o * pieces * inner + i);
  }
  return FA_OK;
}

#endif
