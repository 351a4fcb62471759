#include "engine/dispatch.h"
#include "engine/sizes.h"
#include "engine/threads.h"

/* Elements whose squares are added in the array's type: 16 to a lane of AVX-512 float32.  The sums of blocks are added
 * in double. */
#define BLOCK 1024

/* Upper limit on the shares of an array, for any number of threads, so that each sum has the same terms. */
#define SHARES 64

struct mse_job {
  const struct kernels *kernels;
  int64_t n, share; /* elements of a task */
  const char *y, *target;
  double scale;
  char *grad;
  double sums[SHARES];
};

static void mse_share(void *context, int64_t task) {
  struct mse_job *job = context;
  const int itemsize = job->kernels->itemsize;
  int64_t end = smaller(job->n, (task + 1) * job->share);
  double sum = 0;
  for (int64_t i = task * job->share; i < end; i += BLOCK)
    sum += job->kernels->mse(smaller(BLOCK, end - i), job->scale, element(job->y, i, itemsize),
                             element(job->target, i, itemsize), element(job->grad, i, itemsize));
  job->sums[task] = sum;
}

double fa_mse(int dtype, int64_t n, const void *y, const void *target, void *grad, int threads) {
  if (n == 0) return 0;
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  struct mse_job job = {
      .kernels = call.kernels,
      .n = n,
      .share = ceil_div(ceil_div(n, BLOCK), SHARES) * BLOCK,
      .y = y,
      .target = target,
      .scale = 2 / (double)n,
      .grad = grad,
  };
  int64_t shares = ceil_div(n, job.share);
  /* Three arrays are read or written; most operations have two.  bench/tuning: loss-work */
  share_tasks(shares, threads_for(threads, 3 * n / 2), mse_share, &job);
  double sum = 0;
  for (int64_t s = 0; s < shares; s++) sum += job.sums[s];
  return sum / (double)n;
}
