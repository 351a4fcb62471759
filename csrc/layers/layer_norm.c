#include "layers/layer_norm.h"

#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/workspace.h"

/* Elements of a task, in whole rows. */
#define BLOCK 4096

/* The cost of one element, relative to one copied element, for threads_for. */
#define FORWARD_WORK 3
#define BACKWARD_WORK 4

/* grad_weight and grad_bias are sums over cuts of the rows: CUTS cuts, so that several threads have some even of a
 * small batch, but each of MIN_CUT_ROWS to DEPTH_CUT rows. */
#define CUTS 16
#define MIN_CUT_ROWS 8

struct norm_job {
  const struct kernels *kernels;
  int64_t rows, features, share; /* rows of a task */
  double eps;
  const char *x, *weight, *bias;
  char *y, *saved;
};

static void norm_share(void *context, int64_t task) {
  const struct norm_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t row = task * job->share, at = row * job->features;
  job->kernels->layer_norm(smaller(job->share, job->rows - row), job->features, job->eps, element(job->x, at, itemsize),
                           job->weight, job->bias, element(job->y, at, itemsize),
                           job->saved ? element(job->saved, 2 * row, itemsize) : NULL);
}

void layer_norm(const struct call *call, int64_t rows, int64_t features, double eps, const void *x, const void *weight,
                const void *bias, void *y, void *saved) {
  struct norm_job job = {
      .kernels = call->kernels,
      .rows = rows,
      .features = features,
      .share = larger(1, BLOCK / features),
      .eps = eps,
      .x = x,
      .weight = weight,
      .bias = bias,
      .y = y,
      .saved = saved,
  };
  int threads = threads_for(call->threads, FORWARD_WORK * rows * features);
  share_tasks(ceil_div(rows, job.share), threads, norm_share, &job);
}

void fa_layer_norm(int dtype, int64_t rows, int64_t features, double eps, const void *x, const void *weight,
                   const void *bias, void *y, void *saved, int threads) {
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  layer_norm(&call, rows, features, eps, x, weight, bias, y, saved);
}

struct norm_backward_job {
  const struct kernels *kernels;
  int64_t rows, features, cut; /* rows of a task */
  const char *grad_y, *x, *weight, *saved;
  char *grad_x;
  char *partial; /* (cuts, 2, features): the terms of grad_weight and of grad_bias, summed over each cut; or NULL */
};

static void backward_cut(void *context, int64_t task) {
  const struct norm_backward_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t row = task * job->cut, features = job->features, at = row * features;
  char *sums = NULL;
  if (job->partial) {
    sums = element(job->partial, task * 2 * features, itemsize);
    memset(sums, 0, (size_t)(2 * features * itemsize));
  }
  job->kernels->layer_norm_backward(&(struct norm_backward){
      .rows = smaller(job->cut, job->rows - row),
      .features = features,
      .grad_y = element(job->grad_y, at, itemsize),
      .x = element(job->x, at, itemsize),
      .weight = job->weight,
      .saved = element(job->saved, 2 * row, itemsize),
      .grad_x = job->grad_x ? element(job->grad_x, at, itemsize) : NULL,
      .weight_sums = sums,
      .bias_sums = sums ? element(sums, features, itemsize) : NULL,
  });
}

int layer_norm_backward(const struct call *call, int64_t rows, int64_t features, const void *grad_y, const void *x,
                        const void *weight, const void *saved, void *grad_x, void *grad_weight, void *grad_bias,
                        int accumulate) {
  const struct kernels *kernels = call->kernels;
  struct norm_backward_job job = {
      .kernels = kernels,
      .rows = rows,
      .features = features,
      .cut = smaller(DEPTH_CUT, larger(MIN_CUT_ROWS, ceil_div(rows, CUTS))),
      .grad_y = grad_y,
      .x = x,
      .weight = weight,
      .saved = saved,
      .grad_x = grad_x,
  };
  const int64_t cuts = ceil_div(rows, job.cut);
  char *total = NULL; /* (features), behind the partial sums */
  if (grad_weight || grad_bias) {
    job.partial = workspace(WORKSPACE_DRIVER, (size_t)((2 * cuts + 1) * features * kernels->itemsize));
    if (!job.partial) return FA_NO_MEMORY;
    total = element(job.partial, 2 * cuts * features, kernels->itemsize);
  }
  share_tasks(cuts, threads_for(call->threads, BACKWARD_WORK * rows * features), backward_cut, &job);
  void *const grads[] = {grad_weight, grad_bias};
  for (int i = 0; i < 2; i++) {
    if (!grads[i]) continue;
    const char *terms = element(job.partial, i * features, kernels->itemsize);
    kernels->sum_columns(cuts, features, 2 * features, terms, accumulate ? total : grads[i]);
    if (accumulate) kernels->add(features, total, grads[i]);
  }
  return FA_OK;
}

int fa_layer_norm_backward(int dtype, int64_t rows, int64_t features, const void *grad_y, const void *x,
                           const void *weight, const void *saved, void *grad_x, void *grad_weight, void *grad_bias,
                           int accumulate, int threads) {
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  return end_call(
      layer_norm_backward(&call, rows, features, grad_y, x, weight, saved, grad_x, grad_weight, grad_bias, accumulate));
}
