#include "layers/grad_bias.h"

#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/workspace.h"

/* The cost of a gradient that is added to one of many sums, relative to one copied element, for threads_for. Fewer
 * pieces take turns in lanes. */
#define SCATTER_WORK 16

struct bias_job {
  const struct kernels *kernels;
  int64_t rows, out_features, pieces;
  const char *grad_y;
  const uint8_t *argmax;
  int accumulate;
  char *grad_bias, *sums, *total; /* (out_features, pieces) */
  int64_t share;                  /* outputs of a task */
};

/* Some outputs: the sums over DEPTH_CUT rows at a time are added up. */
static void sum_share(void *context, int64_t task) {
  const struct bias_job *job = context;
  const struct kernels *kernels = job->kernels;
  const int itemsize = kernels->itemsize;
  int64_t first = task * job->share, columns = smaller(job->share, job->out_features - first);
  int64_t from = first * job->pieces, units = columns * job->pieces;
  char *sums = element(job->sums, from, itemsize), *total = element(job->total, from, itemsize);
  char *grad_bias = element(job->grad_bias, from, itemsize);
  memset(total, 0, (size_t)(units * itemsize));
  for (int64_t row = 0; row < job->rows; row += DEPTH_CUT) {
    int64_t at = row * job->out_features + first, rows = smaller(DEPTH_CUT, job->rows - row);
    const char *grad_y = element(job->grad_y, at, itemsize);
    if (job->argmax)
      kernels->gather_bias(&(struct gather_bias){
          .rows = rows,
          .columns = columns,
          .pieces = job->pieces,
          .grad_y = grad_y,
          .argmax = job->argmax + at,
          .stride = job->out_features,
          .sums = sums,
      });
    else
      kernels->sum_columns(rows, columns, job->out_features, grad_y, sums);
    kernels->add(units, sums, total);
  }
  if (job->accumulate)
    kernels->add(units, total, grad_bias);
  else
    memcpy(grad_bias, total, (size_t)(units * itemsize));
}

int gradient_of_bias(const struct call *call, int64_t rows, int64_t out_features, int64_t pieces, const void *grad_y,
                     const uint8_t *argmax, int accumulate, void *grad_bias) {
  if (out_features == 0) return FA_OK;
  const struct kernels *kernels = call->kernels;
  int threads = threads_for(call->threads, (rows + pieces) * out_features * smaller(pieces, SCATTER_WORK));
  size_t bytes = (size_t)(out_features * pieces * kernels->itemsize);
  char *sums = workspace(WORKSPACE_DRIVER, 2 * bytes);
  if (!sums) return FA_NO_MEMORY;
  struct bias_job job = {
      .kernels = kernels,
      .rows = rows,
      .out_features = out_features,
      .pieces = pieces,
      .grad_y = grad_y,
      .argmax = argmax,
      .accumulate = accumulate,
      .grad_bias = grad_bias,
      .sums = sums,
      .total = sums + bytes,
      .share = ceil_div(ceil_div(out_features, kernels->lanes), threads) * kernels->lanes,
  };
  share_tasks(ceil_div(out_features, job.share), threads, sum_share, &job);
  return FA_OK;
}
