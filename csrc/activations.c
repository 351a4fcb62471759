#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "activations.h"
#include "sizes.h"
#include "threads.h"

/* Elements that a kernel call takes where a slope does not bind it to rows: several calls' worth of overhead for each
 * thread's share, and little enough for a second pass to find them in L1. */
#define BLOCK 2048
/* Columns that a task of a PReLU's gradient takes, and how many at least a few slopes are folded into. */
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

/* An activation of n elements, `length` a task: z -> y, or grad_y and saved -> grad_z */
struct REAL(elements) {
  const struct REAL(kernels) * kernels;
  int activation;
  double parameter;
  const real *slope;
  int64_t step; /* from one element's slope to the next one's */
  int64_t n, length;
  const real *z, *grad_y, *saved;
  real *y, *grad_z;
};

static void REAL(activate_block)(void *context, int64_t task) {
  const struct REAL(elements) *e = context;
  int64_t i = task * e->length;
  e->kernels->activation(e->activation, e->parameter, e->slope, e->step, e->z + i, e->y + i,
                         smaller(e->length, e->n - i));
}

static void REAL(backward_block)(void *context, int64_t task) {
  const struct REAL(elements) *e = context;
  int64_t i = task * e->length;
  e->kernels->activation_backward(e->activation, e->parameter, e->slope, e->step, e->grad_y + i, e->saved + i,
                                  e->grad_z + i, smaller(e->length, e->n - i));
}

/* A slope a feature: tasks of whole rows, and where rows are short of several, with as many copies of the slopes in
 * `copies`.  300,000 elements of 2 features took 2253 us a row at a time, where relu takes 26. */
static void REAL(by_rows)(struct REAL(elements) * e, int64_t rows, int64_t features, real copies[BLOCK]) {
  int64_t count = larger(1, smaller(BLOCK / features, rows));
  for (int64_t i = 0; i < count && count > 1; i++)
    memcpy(copies + i * features, e->slope, (size_t)features * sizeof(real));
  if (count > 1) e->slope = copies;
  e->length = count * features;
  e->step = 1;
}

void REAL(activate)(const struct REAL(kernels) * kernels, int64_t rows, int64_t features, int activation,
                    double parameter, const real *slope, int64_t slopes, const real *z, real *y, int threads) {
  struct REAL(elements) e = {
      .kernels = kernels,
      .activation = activation,
      .parameter = parameter,
      .slope = slope,
      .n = rows * features,
      .length = BLOCK,
      .z = z,
      .y = y,
  };
  real copies[BLOCK];
  if (slopes > 1) REAL(by_rows)(&e, rows, features, copies);
  int64_t tasks = e.n ? ceil_div(e.n, e.length) : 0;
  share_tasks(tasks, threads_for(threads, forward_work(activation, e.n)), REAL(activate_block), &e);
}

int REAL(fa_activation)(int64_t rows, int64_t features, int activation, double parameter, const real *slope,
                        int64_t slopes, const real *z, real *y, int threads) {
  REAL(activate)(isa_active()->REAL(kernels), rows, features, activation, parameter, slope, slopes, z, y, threads);
  return FA_OK;
}

/* A PReLU's backward over elements in rows of `width`: grad_z, and the sums of its slopes' terms over each run of
 * DEPTH_CUT rows -> partial [runs][width], which starts as zeros.  Which terms a sum has, and in which order,
 * depends on the shape alone. */
struct REAL(slope_sums) {
  struct REAL(elements) elements;
  int64_t width, rows, strips; /* a task takes one strip of columns of one run of rows */
  real *partial;
};

static void REAL(prelu_block)(void *context, int64_t task) {
  const struct REAL(slope_sums) *s = context;
  const struct REAL(elements) *e = &s->elements;
  int64_t run = task / s->strips, first = task % s->strips * TASK_FEATURES;
  int64_t count = smaller(TASK_FEATURES, s->width - first);
  for (int64_t row = run * DEPTH_CUT; row < smaller(s->rows, (run + 1) * DEPTH_CUT); row++) {
    int64_t i = row * s->width + first, inside = smaller(count, e->n - i);
    e->kernels->add_slope_terms(inside, e->grad_y + i, e->saved + i, s->partial + run * s->width + first);
    e->kernels->activation_backward(FA_PRELU, 0, e->slope + first * e->step, e->step, e->grad_y + i, e->saved + i,
                                    e->grad_z + i, inside);
  }
}

/* grad_slope (slopes) (+)= the sums over the runs, and over the columns of each slope, which are `slopes` apart */
static void REAL(finish_slopes)(int64_t runs, int64_t width, const real *partial, int64_t slopes, int accumulate,
                                real *grad_slope) {
  for (int64_t j = 0; j < slopes; j++) {
    double total = 0;
    for (int64_t column = j; column < width; column += slopes)
      for (int64_t run = 0; run < runs; run++) total += (double)partial[run * width + column];
    grad_slope[j] = (real)total + (accumulate ? grad_slope[j] : 0);
  }
}

int REAL(fa_activation_backward)(int64_t rows, int64_t features, int activation, double parameter, const real *slope,
                                 int64_t slopes, const real *grad_y, const real *saved, real *grad_z, real *grad_slope,
                                 int accumulate, int threads) {
  int64_t n = rows * features;
  struct REAL(elements) e = {
      .kernels = isa_active()->REAL(kernels),
      .activation = activation,
      .parameter = parameter,
      .slope = slope,
      .n = n,
      .length = BLOCK,
      .grad_y = grad_y,
      .saved = saved,
      .grad_z = grad_z,
  };
  real copies[BLOCK];
  if (slopes > 1) REAL(by_rows)(&e, rows, features, copies);
  if (!grad_slope) {
    int64_t tasks = n ? ceil_div(n, e.length) : 0;
    share_tasks(tasks, threads_for(threads, backward_work(activation, n)), REAL(backward_block), &e);
    return FA_OK;
  }
  int64_t period = slopes > 1 ? features : 1; /* of the slopes: the array may be taken as rows of several */
  int64_t width = ceil_div(FOLDED_FEATURES, period) * period;
  int64_t runs = n ? ceil_div(ceil_div(n, width), DEPTH_CUT) : 0;
  size_t bytes = (size_t)(runs * width) * sizeof(real);
  real *partial = scratch(SCRATCH_KERNEL, bytes);
  if (!partial) return FA_NO_MEMORY;
  memset(partial, 0, bytes);
  if (n) {
    struct REAL(slope_sums) s = {e, width, ceil_div(n, width), ceil_div(width, TASK_FEATURES), partial};
    share_tasks(runs * s.strips, threads_for(threads, n), REAL(prelu_block), &s);
  }
  REAL(finish_slopes)(runs, width, partial, slopes, accumulate, grad_slope);
  release_scratch(SCRATCH_KERNEL);
  return FA_OK;
}

#endif
