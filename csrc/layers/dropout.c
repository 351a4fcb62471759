#include <math.h>

#include "engine/dispatch.h"
#include "engine/sizes.h"
#include "engine/threads.h"

/* Numbers of a task, a multiple of 4. */
#define BLOCK 4096

/* The cost of a random number, relative to one copied element, for threads_for. */
#define DRAW_WORK 2

struct keep_job {
  const struct kernels *kernels;
  int64_t n;
  uint64_t seed, threshold;
  uint8_t *keep;
};

static void keep_block(void *context, int64_t task) {
  const struct keep_job *job = context;
  int64_t first = task * BLOCK;
  job->kernels->dropout_keep(first, smaller(BLOCK, job->n - first), job->seed, job->threshold, job->keep + first);
}

void fa_dropout_keep(int64_t n, uint64_t seed, double p, uint8_t *keep, int threads) {
  struct keep_job job = {
      .kernels = begin_call(FA_FLOAT64, FA_HIGHEST, threads).kernels,
      .n = n,
      .seed = seed,
      .threshold = (uint64_t)rint(p * 0x1p32),
      .keep = keep,
  };
  share_tasks(ceil_div(n, BLOCK), threads_for(threads, DRAW_WORK * n), keep_block, &job);
}
