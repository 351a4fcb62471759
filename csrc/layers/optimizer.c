#include <float.h>
#include <math.h>

#include "engine/dispatch.h"
#include "engine/sizes.h"
#include "engine/threads.h"

/* Numbers of a kernel call, unless a bound on norms makes it take whole rows. */
#define BLOCK 4096

/* The cost of one number of an optimiser, relative to one copied element, for threads_for.  bench/tuning: update-work
 */
#define NUMBER_WORK 2

/* An update of data [n], `length` numbers a task: by SGD, Adam or a factor, whichever is not NULL, then of the norm. */
struct update {
  const struct kernels *kernels;
  const struct sgd *sgd;
  const struct adam *adam;
  const double *factor;
  double max_norm;
  int64_t n, length;
  const char *grad;
  char *velocity, *mean, *square, *data;
  const struct beside *beside; /* of SGD and Adam, or NULL */
};

static void update_block(void *context, int64_t task) {
  const struct update *u = context;
  const int itemsize = u->kernels->itemsize;
  int64_t i = task * u->length, count = smaller(u->length, u->n - i);
  char *data = element(u->data, i, itemsize);
  struct beside beside, *besides = NULL;
  if (u->beside) {
    beside = *u->beside;
    if (beside.average) beside.average = element(beside.average, i, itemsize);
    beside.cleared = element(beside.cleared, i, itemsize);
    besides = &beside;
  }
  if (u->sgd)
    u->kernels->sgd(count, u->sgd, besides, element(u->grad, i, itemsize),
                    u->velocity ? element(u->velocity, i, itemsize) : NULL, data);
  if (u->adam)
    u->kernels->adam(count, u->adam, besides, element(u->grad, i, itemsize), element(u->mean, i, itemsize),
                     element(u->square, i, itemsize), data);
  if (u->factor) u->kernels->shrink(count, *u->factor, data);
  if (u->max_norm < INFINITY) u->kernels->limit_norm(count, u->max_norm, data);
}

static void run_update_on(const struct kernels *kernels, int64_t rows, int64_t columns, int threads, struct update *u) {
  u->kernels = kernels;
  u->n = rows * columns;
  u->length = u->max_norm < INFINITY ? larger(1, columns) : BLOCK;
  share_tasks(ceil_div(u->n, u->length), threads_for(threads, NUMBER_WORK * u->n), update_block, u);
}

static void run_update(int dtype, int64_t rows, int64_t columns, int threads, struct update *u) {
  run_update_on(begin_call(dtype, FA_HIGHEST, threads).kernels, rows, columns, threads, u);
}

void fa_sgd(int dtype, int64_t rows, int64_t columns, double lr, double momentum, int nesterov, double decay,
            double max_norm, const void *grad, void *velocity, void *data, int threads) {
  const struct sgd step = {lr, momentum, nesterov, decay};
  run_update(dtype, rows, columns, threads,
             &(struct update){.sgd = &step, .max_norm = max_norm, .grad = grad, .velocity = velocity, .data = data});
}

void fa_adam(int dtype, int64_t rows, int64_t columns, double rate, double beta1, double beta2, double unbias,
             double eps, double decay, double keep, double max_norm, const void *grad, void *mean, void *square,
             void *data, int threads) {
  const struct adam step = {rate, beta1, beta2, unbias, eps, decay, keep};
  run_update(dtype, rows, columns, threads,
             &(struct update){
                 .adam = &step, .max_norm = max_norm, .grad = grad, .mean = mean, .square = square, .data = data});
}

void fa_max_norm(int dtype, int64_t rows, int64_t columns, double max_norm, void *data, int threads) {
  run_update(dtype, rows, columns, threads, &(struct update){.max_norm = max_norm, .data = data});
}

/* ---- the norm of a gradient */

/* Upper limit on the shares of an array, for any number of threads, so that each sum has the same terms. */
#define SHARES 64

struct norm_job {
  const struct kernels *kernels;
  int64_t n, share; /* numbers of a task */
  double factor;
  const char *data;
  double sums[SHARES];
};

static struct norm_job norm_job(const struct kernels *kernels, int64_t n, const void *data) {
  return (struct norm_job){
      .kernels = kernels, .n = n, .share = ceil_div(ceil_div(n, BLOCK), SHARES) * BLOCK, .data = data};
}

static void norm_share(void *context, int64_t task) {
  struct norm_job *job = context;
  int64_t i = task * job->share, count = smaller(job->share, job->n - i);
  job->sums[task] = job->kernels->squared_norm(count, job->factor, element(job->data, i, job->kernels->itemsize));
}

/* The sum of the squares of factor data. */
static double sum_shares(struct norm_job *job, double factor, int threads) {
  int64_t shares = ceil_div(job->n, job->share);
  double sum = 0;
  job->factor = factor;
  share_tasks(shares, threads_for(threads, job->n / 2), norm_share, job); /* read, not written: half of a copy */
  for (int64_t s = 0; s < shares; s++) sum += job->sums[s];
  return sum;
}

double fa_vector_norm(int dtype, int64_t n, const void *data, int threads) {
  if (n == 0) return 0;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  struct norm_job job = norm_job(call.kernels, n, data);
  double sum = sum_shares(&job, 1, threads);
  if (isnan(sum) || (sum >= DBL_MIN * (double)n && sum <= DBL_MAX)) return sqrt(sum);
  /* Squares overflow or underflow, so the norm is that of data / 2^exponent, whose largest number is about 1. */
  double largest = call.kernels->max_abs(n, data);
  if (largest == 0 || largest > DBL_MAX) return largest;
  const int most = DBL_MAX_EXP - 2;
  int exponent;
  frexp(largest, &exponent);
  exponent = exponent > most ? most : exponent < -most ? -most : exponent;
  return ldexp(sqrt(sum_shares(&job, ldexp(1, -exponent), threads)), exponent);
}

void fa_shrink(int dtype, int64_t n, double factor, void *data, int threads) {
  run_update(dtype, 1, n, threads, &(struct update){.factor = &factor, .max_norm = INFINITY, .data = data});
}

/* ---- a step with all that goes with it */

/* The factor of a gradient (n) that scales its norm down to max_norm; 1 if the norm is less, or NaN. */
static double clip_factor(const struct kernels *kernels, int64_t n, const void *grad, double max_norm, int threads) {
  struct norm_job job = norm_job(kernels, n, grad);
  double sum = sum_shares(&job, 1, threads), norm = sqrt(kernels->itemsize == 4 ? (double)(float)sum : sum);
  return norm >= max_norm ? max_norm / norm : 1;
}

void fa_update_parameter(int dtype, int64_t n, double max_norm, double decay, double rate, double beta1, double beta2,
                         double eps, double shrink, double new_share, void *grad, void *mean, void *square, void *data,
                         void *average, int threads) {
  const struct kernels *kernels = begin_call(dtype, FA_HIGHEST, threads).kernels;
  struct beside beside = {.clip = 1, .shrink = shrink, .new_share = new_share, .average = average, .cleared = grad};
  if (max_norm > 0 && n > 0) {
    if (decay != 0) {
      const struct sgd add = {.lr = -decay};
      run_update_on(kernels, 1, n, threads,
                    &(struct update){.sgd = &add, .max_norm = INFINITY, .grad = data, .data = grad});
      decay = 0;
    }
    beside.clip = clip_factor(kernels, n, grad, max_norm, threads);
  }
  if (dtype == FA_FLOAT32) { /* so that 1 - beta is exact, and the shares of an average add up to 1 */
    beta1 = (float)beta1;
    beta2 = (float)beta2;
  }
  const struct sgd sgd = {.lr = rate, .decay = decay};
  const struct adam adam = {rate, beta1, beta2, 1, eps, decay, 1};
  run_update_on(kernels, 1, n, threads,
                &(struct update){.sgd = mean ? NULL : &sgd,
                                 .adam = mean ? &adam : NULL,
                                 .max_norm = INFINITY,
                                 .grad = grad,
                                 .mean = mean,
                                 .square = square,
                                 .data = data,
                                 .beside = &beside});
}
