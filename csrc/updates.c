#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include <math.h>

#include "fastact_abi.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* Numbers that a kernel call takes where no norm binds it to rows. */
#define BLOCK 4096
/* What a number costs beside an element that is only moved, for threads_for: over 65,536 numbers of SGD with momentum
 * two threads take 6.6 us, one 9.3 us (AVX-512). */
#define NUMBER_WORK 2

#define REAL_BITS 32
#include "updates.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "updates.c"
#else
#include "real.h"

int REAL(fa_sgd)(int64_t rows, int64_t columns, double lr, double momentum, int nesterov, double decay, double max_norm,
                 const real *grad, real *velocity, real *data, int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  const struct REAL(sgd) how = {(real)lr, (real)momentum, nesterov, (real)decay};
  int64_t n = rows * columns, length = max_norm < INFINITY ? larger(1, columns) : BLOCK;
  threads = threads_for(threads, NUMBER_WORK * n);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t i = 0; i < n; i += length) {
    int64_t count = smaller(length, n - i);
    kernels->sgd(count, &how, grad + i, velocity ? velocity + i : NULL, data + i);
    if (max_norm < INFINITY) kernels->limit_norm(count, (real)max_norm, data + i);
  }
  return FA_OK;
}

int REAL(fa_adam)(int64_t rows, int64_t columns, double rate, double beta1, double beta2, double unbias, double eps,
                  double decay, double max_norm, const real *grad, real *mean, real *square, real *data, int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  const struct REAL(adam)
      how = {(real)rate, (real)(1 - beta1), (real)beta2, (real)(1 - beta2), (real)unbias, (real)eps, (real)decay};
  int64_t n = rows * columns, length = max_norm < INFINITY ? larger(1, columns) : BLOCK;
  threads = threads_for(threads, NUMBER_WORK * n);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t i = 0; i < n; i += length) {
    int64_t count = smaller(length, n - i);
    kernels->adam(count, &how, grad + i, mean + i, square + i, data + i);
    if (max_norm < INFINITY) kernels->limit_norm(count, (real)max_norm, data + i);
  }
  return FA_OK;
}

int REAL(fa_max_norm)(int64_t rows, int64_t columns, double max_norm, real *data, int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  threads = threads_for(threads, NUMBER_WORK * rows * columns);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t r = 0; r < rows; r++) kernels->limit_norm(columns, (real)max_norm, data + r * columns);
  return FA_OK;
}

#endif
