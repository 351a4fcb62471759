#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include <stdlib.h>

#include "activations.h"
#include "sizes.h"
#include "threads.h"

/* Elements that a kernel call takes where a slope does not bind it to rows: several calls' worth of overhead for each
 * thread's share, and little enough for a second pass to find them in L1. */
#define BLOCK 2048
/* Features that a task of a PReLU's gradient takes, and how many a single slope's are folded into. */
#define TASK_FEATURES 4096
#define FOLDED_FEATURES 64

/* What an element with an exponential costs beside one without, for threads_for: over 32,768 elements of sigmoid two
 * threads take 6.4 us, one 9.5 us (AVX-512). */
#define EXPONENTIAL_WORK 4

static int64_t forward_work(int activation, int64_t n) { return activation >= FA_ELU ? EXPONENTIAL_WORK * n : n; }

static int64_t backward_work(int activation, int64_t n) {
  int from_y = activation == FA_SIGMOID || activation == FA_TANH; /* without an exponential */
  return activation >= FA_ELU && !from_y ? EXPONENTIAL_WORK * n : n;
}

#define REAL_BITS 32
#include "activations.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "activations.c"
#else
#include "real.h"

void REAL(activate)(const struct REAL(kernels) * kernels, int64_t rows, int64_t features, int activation,
                    double parameter, const real *slope, int64_t slopes, const real *z, real *y, int threads) {
  int64_t n = rows * features, step = slopes > 1, length = step ? features : BLOCK;
  int64_t calls = n ? ceil_div(n, length) : 0;
  threads = threads_for(threads, forward_work(activation, n));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t c = 0; c < calls; c++) {
    int64_t i = c * length;
    kernels->activation(activation, parameter, slope, step, z + i, y + i, smaller(length, n - i));
  }
}

int REAL(fa_activation)(int64_t rows, int64_t features, int activation, double parameter, const real *slope,
                        int64_t slopes, const real *z, real *y, int threads) {
  REAL(activate)(isa_active()->REAL(kernels), rows, features, activation, parameter, slope, slopes, z, y, threads);
  return FA_OK;
}

/* grad_z alone */
static void REAL(plain_backward)(int64_t n, int64_t length, int activation, double parameter, const real *slope,
                                 int64_t step, const real *grad_y, const real *saved, real *grad_z, int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  int64_t calls = n ? ceil_div(n, length) : 0;
  threads = threads_for(threads, backward_work(activation, n));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t c = 0; c < calls; c++) {
    int64_t i = c * length;
    kernels->activation_backward(activation, parameter, slope, step, grad_y + i, saved + i, grad_z + i,
                                 smaller(length, n - i));
  }
}

/* grad_z of a PReLU over n elements in rows of `features`, and the sums of its slopes' terms over each run of
 * DEPTH_CUT rows -> partial [runs][features], which starts as zeros.  Which terms a sum has, and in which order,
 * depends on the shape alone. */
static void REAL(prelu_backward)(int64_t n, int64_t features, const real *slope, int64_t step, const real *grad_y,
                                 const real *z, real *grad_z, real *partial, int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  int64_t rows = ceil_div(n, features), runs = ceil_div(rows, DEPTH_CUT);
  int64_t strips = ceil_div(features, TASK_FEATURES);
  threads = threads_for(threads, n);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t task = 0; task < runs * strips; task++) {
    int64_t run = task / strips, first = task % strips * TASK_FEATURES;
    int64_t count = smaller(TASK_FEATURES, features - first);
    for (int64_t row = run * DEPTH_CUT; row < smaller(rows, (run + 1) * DEPTH_CUT); row++) {
      int64_t i = row * features + first, inside = smaller(count, n - i);
      kernels->add_slope_terms(inside, grad_y + i, z + i, partial + run * features + first);
      kernels->activation_backward(FA_PRELU, 0, slope + first * step, step, grad_y + i, z + i, grad_z + i, inside);
    }
  }
}

/* grad_slope (slopes) (+)= the sums over the runs, and over the features too where there is one slope */
static void REAL(finish_slopes)(int64_t runs, int64_t features, const real *partial, int64_t slopes, int accumulate,
                                real *grad_slope) {
  double total = 0;
  for (int64_t j = 0; j < features; j++) {
    if (slopes > 1) total = 0;
    for (int64_t run = 0; run < runs; run++) total += (double)partial[run * features + j];
    if (slopes > 1) grad_slope[j] = (real)total + (accumulate ? grad_slope[j] : 0);
  }
  if (slopes == 1) grad_slope[0] = (real)total + (accumulate ? grad_slope[0] : 0);
}

int REAL(fa_activation_backward)(int64_t rows, int64_t features, int activation, double parameter, const real *slope,
                                 int64_t slopes, const real *grad_y, const real *saved, real *grad_z, real *grad_slope,
                                 int accumulate, int threads) {
  int64_t n = rows * features, step = slopes > 1;
  if (!grad_slope) {
    REAL(plain_backward)(n, step ? features : BLOCK, activation, parameter, slope, step, grad_y, saved, grad_z,
                         threads);
    return FA_OK;
  }
  int64_t width = step ? features : FOLDED_FEATURES; /* one slope: the array as rows of any length */
  int64_t runs = n ? ceil_div(ceil_div(n, width), DEPTH_CUT) : 0;
  /* not the thread's scratch memory: a caller may hold that */
  real *partial = calloc((size_t)(runs * width) + 1, sizeof(real));
  if (!partial) return FA_NO_MEMORY;
  if (n) REAL(prelu_backward)(n, width, slope, step, grad_y, saved, grad_z, partial, threads);
  REAL(finish_slopes)(runs, width, partial, slopes, accumulate, grad_slope);
  free(partial);
  return FA_OK;
}

#endif
