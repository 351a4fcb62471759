#include "engine/dispatch.h"
#include "engine/sizes.h"
#include "engine/threads.h"
#include "layers/argmax.h"

/* Results of a task. */
#define BLOCK 1024

/* z (outer, pieces, inner) -> y, argmax (outer, inner).  A task takes `block` of the inner axis, or, if that axis is
 * short, `block` of the outer axis.  bench/tuning: narrow-maxout */
struct maxout_job {
  const struct kernels *kernels;
  int64_t outer, pieces, inner, block;
  const char *z;
  char *y;
  uint8_t *argmax; /* or NULL */
};

static void maxout_rows(void *context, int64_t task) {
  const struct maxout_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t i = task * job->block;
  job->kernels->maxout_rows(job->pieces, smaller(job->block, job->outer - i),
                            element(job->z, i * job->pieces, itemsize), element(job->y, i, itemsize),
                            job->argmax ? job->argmax + i : NULL);
}

static void maxout_narrow(void *context, int64_t task) {
  const struct maxout_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t o = task * job->block, at = o * job->inner;
  job->kernels->maxout_narrow(smaller(job->block, job->outer - o), job->pieces, job->inner,
                              element(job->z, at * job->pieces, itemsize), element(job->y, at, itemsize),
                              job->argmax ? job->argmax + at : NULL);
}

static void maxout_columns(void *context, int64_t task) {
  const struct maxout_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t blocks = ceil_div(job->inner, job->block), o = task / blocks, i = task % blocks * job->block;
  int64_t at = o * job->inner + i;
  job->kernels->maxout_columns(job->pieces, job->inner, smaller(job->block, job->inner - i),
                               element(job->z, o * job->pieces * job->inner + i, itemsize),
                               element(job->y, at, itemsize), job->argmax ? job->argmax + at : NULL);
}

void fa_maxout(int dtype, int64_t outer, int64_t pieces, int64_t inner, const void *z, void *y, uint8_t *argmax,
               int threads) {
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  struct maxout_job job = {call.kernels, outer, pieces, inner, BLOCK, z, y, argmax};
  threads = threads_for(threads, outer * inner * pieces);
  if (inner == 0) return;
  if (inner == 1) {
    share_tasks(ceil_div(outer, BLOCK), threads, maxout_rows, &job);
  } else if (inner < call.kernels->lanes) {
    job.block = BLOCK / inner;
    share_tasks(ceil_div(outer, job.block), threads, maxout_narrow, &job);
  } else {
    share_tasks(outer * ceil_div(inner, BLOCK), threads, maxout_columns, &job);
  }
}

/* grad_y, argmax (outer, inner) -> grad_z (outer, pieces, inner), in tasks as above. */
struct scatter_job {
  const struct kernels *kernels;
  int64_t outer, pieces, inner, block;
  const char *grad_y;
  const uint8_t *argmax;
  char *grad_z;
};

static void scatter_rows(void *context, int64_t task) {
  const struct scatter_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t o = task * job->block, at = o * job->inner;
  job->kernels->scatter_rows(smaller(job->block, job->outer - o), job->pieces, job->inner,
                             element(job->grad_y, at, itemsize), job->argmax + at,
                             element(job->grad_z, at * job->pieces, itemsize));
}

static void scatter_columns(void *context, int64_t task) {
  const struct scatter_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t blocks = ceil_div(job->inner, job->block), o = task / blocks, i = task % blocks * job->block;
  int64_t at = o * job->inner + i;
  job->kernels->scatter_columns(job->pieces, job->inner, smaller(job->block, job->inner - i),
                                element(job->grad_y, at, itemsize), job->argmax + at,
                                element(job->grad_z, o * job->pieces * job->inner + i, itemsize));
}

int fa_maxout_backward(int dtype, int64_t outer, int64_t pieces, int64_t inner, const void *grad_y,
                       const uint8_t *argmax, void *grad_z, int threads) {
  if (!argmax_fits(outer * inner, argmax, pieces)) return FA_BAD_ARGMAX;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  /* A block's zeros are still in L1 when the winners are written over them. */
  struct scatter_job job = {call.kernels, outer, pieces, inner, SCATTER_BLOCK / pieces, grad_y, argmax, grad_z};
  threads = threads_for(threads, outer * inner * pieces);
  if (inner == 0) return FA_OK;
  if (inner <= job.block) {
    job.block /= inner;
    share_tasks(ceil_div(outer, job.block), threads, scatter_rows, &job);
  } else {
    share_tasks(outer * ceil_div(inner, job.block), threads, scatter_columns, &job);
  }
  return FA_OK;
}
