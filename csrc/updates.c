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

/* An update of data [n], `length` numbers a task: of SGD or Adam, whichever is not NULL, then of the norm. */
struct REAL(update) {
  const struct REAL(kernels) * kernels;
  const struct REAL(sgd) * sgd;
  const struct REAL(adam) * adam;
  double max_norm;
  int64_t n, length;
  const real *grad;
  real *velocity, *mean, *square, *data;
};

static void REAL(update_block)(void *context, int64_t task) {
  const struct REAL(update) *u = context;
  int64_t i = task * u->length, count = smaller(u->length, u->n - i);
  if (u->sgd) u->kernels->sgd(count, u->sgd, u->grad + i, u->velocity ? u->velocity + i : NULL, u->data + i);
  if (u->adam) u->kernels->adam(count, u->adam, u->grad + i, u->mean + i, u->square + i, u->data + i);
  if (u->max_norm < INFINITY) u->kernels->limit_norm(count, (real)u->max_norm, u->data + i);
}

static void REAL(run_update)(struct REAL(update) u, int64_t rows, int64_t columns, int threads) {
  u.kernels = isa_active()->REAL(kernels);
  u.n = rows * columns;
  u.length = u.max_norm < INFINITY ? larger(1, columns) : BLOCK;
  share_tasks(ceil_div(u.n, u.length), threads_for(threads, NUMBER_WORK * u.n), REAL(update_block), &u);
}

int REAL(fa_sgd)(int64_t rows, int64_t columns, double lr, double momentum, int nesterov, double decay, double max_norm,
                 const real *grad, real *velocity, real *data, int threads) {
  const struct REAL(sgd) how = {(real)lr, (real)momentum, nesterov, (real)decay};
  REAL(run_update)(
      (struct REAL(update)){.sgd = &how, .max_norm = max_norm, .grad = grad, .velocity = velocity, .data = data}, rows,
      columns, threads);
  return FA_OK;
}

int REAL(fa_adam)(int64_t rows, int64_t columns, double rate, double beta1, double beta2, double unbias, double eps,
                  double decay, double max_norm, const real *grad, real *mean, real *square, real *data, int threads) {
  const struct REAL(adam) how = {(real)rate,        (real)beta1,  (real)(1 - beta1), (real)beta2,
                                 (real)(1 - beta2), (real)unbias, (real)eps,         (real)decay};
  REAL(run_update)(
      (struct REAL(update)){
          .adam = &how, .max_norm = max_norm, .grad = grad, .mean = mean, .square = square, .data = data},
      rows, columns, threads);
  return FA_OK;
}

int REAL(fa_max_norm)(int64_t rows, int64_t columns, double max_norm, real *data, int threads) {
  REAL(run_update)((struct REAL(update)){.max_norm = max_norm, .data = data}, rows, columns, threads);
  return FA_OK;
}

#endif
