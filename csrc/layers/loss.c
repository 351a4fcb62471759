#include <math.h>

#include "engine/dispatch.h"
#include "engine/sizes.h"
#include "engine/threads.h"
#include "kernels/compensated.h"

/* Shares of the arrays have this many elements, and more if there would be more than MAX_SHARES.  They do not depend on
 * the number of threads, so that each sum has the same terms for any number. */
#define SHARE 4096
#define MAX_SHARES 64

/* The cost of an element for threads_for, relative to one copied element.  bench/tuning: loss-work */
#define SQUARE_WORK 1.5 /* three arrays are read or written; most operations have two */
#define EXPONENTIAL_LOSS_WORK 8

/* The largest power of 2 below 1 / n: a sum of n numbers, each times that, does not overflow. */
static double share_of(int64_t n) {
  double share = 1;
  for (; n > 0; n /= 2) share /= 2;
  return share;
}

/* Tasks of one loss, and the sums of their losses. */
struct sums {
  int64_t rows; /* of a task */
  double of_task[MAX_SHARES];
};

static int64_t cut_into_tasks(struct sums *sums, int64_t rows, int64_t row_elements) {
  sums->rows = larger(ceil_div(rows, MAX_SHARES), ceil_div(SHARE, row_elements));
  return ceil_div(rows, sums->rows);
}

static double sum_of_tasks(const struct sums *sums, int64_t tasks) {
  struct compensated sum = {0, 0};
  for (int64_t task = 0; task < tasks; task++) add_compensated(&sum, sums->of_task[task]);
  return compensated_total(sum);
}

/* ---- element-wise losses */

struct pairs_job {
  double (*run)(const struct pairs *);
  struct pairs all;
  int itemsize;
  struct sums sums;
};

static void run_pairs_task(void *context, int64_t task) {
  struct pairs_job *job = context;
  const int64_t i = task * job->sums.rows;
  struct pairs part = job->all;
  part.n = smaller(job->sums.rows, part.n - i);
  part.y = element(part.y, i, job->itemsize);
  part.target = element(part.target, i, job->itemsize);
  part.grad = element(part.grad, i, job->itemsize);
  job->sums.of_task[task] = job->run(&part);
}

/* The mean of the losses; job has all but `sums` and all.scale.  n > 0 */
static double run_pairs(struct pairs_job *job, double work, const struct call *call) {
  const int64_t n = job->all.n, tasks = cut_into_tasks(&job->sums, n, 1);
  job->itemsize = call->kernels->itemsize;
  job->all.scale = 1 / (double)n;
  share_tasks(tasks, threads_for(call->threads, (int64_t)(work * (double)n)), run_pairs_task, job);
  return sum_of_tasks(&job->sums, tasks) / (double)n / job->all.share;
}

double fa_mse(int dtype, int64_t n, const void *y, const void *target, void *grad, int threads) {
  if (n == 0) return 0;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  struct pairs_job job = {
      .run = call.kernels->mse,
      .all = {.n = n, .y = y, .target = target, .share = 1, .grad = grad},
  };
  return run_pairs(&job, SQUARE_WORK, &call);
}

double fa_binary_cross_entropy(int dtype, int64_t n, const void *logits, const void *target, void *grad, int threads) {
  if (n == 0) return 0;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  struct pairs_job job = {
      .run = call.isa->kernels[FA_FLOAT64]->binary_cross_entropy[dtype],
      .all = {.n = n, .y = logits, .target = target, .share = share_of(n), .grad = grad},
  };
  return run_pairs(&job, EXPONENTIAL_LOSS_WORK, &call);
}

double fa_huber(int dtype, int64_t n, const void *y, const void *target, double delta, void *grad, int threads) {
  if (n == 0) return 0;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  struct pairs_job job = {
      .run = call.isa->kernels[FA_FLOAT64]->huber[dtype],
      .all = {.n = n, .y = y, .target = target, .delta = delta, .share = 1, .grad = grad},
  };
  double loss = run_pairs(&job, SQUARE_WORK, &call);
  if (!isinf(loss)) return loss;
  job.all.share = share_of(n); /* which might let small squares underflow */
  return run_pairs(&job, SQUARE_WORK, &call);
}

/* ---- softmax cross-entropy */

struct cross_entropy_job {
  double (*run)(const struct cross_entropy *);
  struct cross_entropy all;
  int itemsize;
  struct sums sums;
};

static void run_cross_entropy_task(void *context, int64_t task) {
  struct cross_entropy_job *job = context;
  const int64_t row = task * job->sums.rows, i = row * job->all.classes;
  struct cross_entropy part = job->all;
  part.rows = smaller(job->sums.rows, part.rows - row);
  part.logits = element(part.logits, i, job->itemsize);
  part.labels += row;
  part.grad = element(part.grad, i, job->itemsize);
  job->sums.of_task[task] = job->run(&part);
}

int fa_softmax_cross_entropy(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels,
                             double label_smoothing, int64_t ignore_index, void *grad, double *loss, int threads) {
  int64_t kept = 0, bad = 0;
  for (int64_t r = 0; r < rows; r++) {
    int used = labels[r] != ignore_index;
    kept += used;
    bad |= used & ((labels[r] < 0) | (labels[r] >= classes));
  }
  if (bad) return FA_BAD_LABEL;
  *loss = 0;
  if (rows == 0 || classes == 0) return FA_OK;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  const double divisor = (double)larger(kept, 1);
  struct cross_entropy_job job = {
      .run = call.isa->kernels[FA_FLOAT64]->cross_entropy[dtype],
      .all = {.rows = rows,
              .classes = classes,
              .logits = logits,
              .labels = labels,
              .ignore_index = ignore_index,
              .smoothing = label_smoothing,
              .share = share_of(rows),
              .scale = 1 / divisor,
              .grad = grad},
      .itemsize = call.kernels->itemsize,
  };
  int64_t tasks = cut_into_tasks(&job.sums, rows, classes);
  share_tasks(tasks, threads_for(threads, EXPONENTIAL_LOSS_WORK * rows * classes), run_cross_entropy_task, &job);
  *loss = sum_of_tasks(&job.sums, tasks) / divisor / job.all.share;
  return FA_OK;
}
