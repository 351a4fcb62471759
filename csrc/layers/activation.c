#include "layers/activation.h"

#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/workspace.h"

/* Elements of a kernel call, unless a slope makes it take whole rows: enough to hide the overhead of a call, and few
 * enough that a second pass finds them in L1. */
#define BLOCK 2048

/* Columns of a task of a PReLU's slope gradient; and the number of columns that shorter rows are joined to. */
#define TASK_FEATURES 4096
#define FOLDED_FEATURES 64

/* ---- n elements of any activation, whose slopes are slope_step apart.  A caller's own kernel is called at most for
 * BLOCK elements if it would write over what it reads, with a copy of that. */

static void forward(const struct kernels *kernels, const struct activation *a, const char *slope, int64_t slope_step,
                    const char *z, char *y, int64_t n) {
  if (a->code != FA_CUSTOM) {
    kernels->activation(a->code, a->parameter, slope, slope_step, z, y, n);
    return;
  }
  if (z != y) {
    a->custom->forward(a->parameter, slope, slope_step, z, y, n);
    return;
  }
  const int itemsize = kernels->itemsize;
  _Alignas(64) char copy[BLOCK * sizeof(double)];
  for (int64_t i = 0; i < n; i += BLOCK) {
    int64_t count = smaller(BLOCK, n - i);
    memcpy(copy, element(z, i, itemsize), (size_t)(count * itemsize));
    a->custom->forward(a->parameter, element(slope, i * slope_step, itemsize), slope_step, copy,
                       element(y, i, itemsize), count);
  }
}

static void backward(const struct kernels *kernels, const struct activation *a, const char *slope, int64_t slope_step,
                     const char *grad_y, const char *saved, char *grad_z, int64_t n) {
  if (a->code != FA_CUSTOM) {
    kernels->activation_backward(a->code, a->parameter, slope, slope_step, grad_y, saved, grad_z, n);
    return;
  }
  if (grad_z != grad_y && grad_z != saved) {
    a->custom->backward(a->parameter, slope, slope_step, grad_y, saved, grad_z, n);
    return;
  }
  const int itemsize = kernels->itemsize;
  _Alignas(64) char copy[BLOCK * sizeof(double)];
  for (int64_t i = 0; i < n; i += BLOCK) {
    int64_t count = smaller(BLOCK, n - i);
    const char *grad = element(grad_y, i, itemsize), *kept = element(saved, i, itemsize);
    memcpy(copy, grad_z == grad_y ? grad : kept, (size_t)(count * itemsize));
    a->custom->backward(a->parameter, element(slope, i * slope_step, itemsize), slope_step,
                        grad_z == grad_y ? copy : grad, grad_z == saved ? copy : kept, element(grad_z, i, itemsize),
                        count);
  }
}

static void add_slope_terms(const struct kernels *kernels, const struct activation *a, const char *slope,
                            int64_t slope_step, const char *grad_y, const char *saved, char *sums, int64_t n) {
  if (a->code == FA_CUSTOM)
    a->custom->add_slope_terms(a->parameter, slope, slope_step, grad_y, saved, sums, n);
  else
    kernels->add_slope_terms(n, grad_y, saved, sums);
}

/* ---- over arrays */

/* An activation of n elements, `length` a task: z -> y, or grad_y and saved -> grad_z. */
struct elements {
  const struct kernels *kernels;
  struct activation activation;
  int64_t step; /* distance from one element's slope to the next one's */
  int64_t n, length;
  const char *z, *grad_y, *saved;
  char *y, *grad_z;
};

static void activate_block(void *context, int64_t task) {
  const struct elements *e = context;
  const int itemsize = e->kernels->itemsize;
  int64_t i = task * e->length;
  forward(e->kernels, &e->activation, e->activation.slope, e->step, element(e->z, i, itemsize),
          element(e->y, i, itemsize), smaller(e->length, e->n - i));
}

static void backward_block(void *context, int64_t task) {
  const struct elements *e = context;
  const int itemsize = e->kernels->itemsize;
  int64_t i = task * e->length;
  backward(e->kernels, &e->activation, e->activation.slope, e->step, element(e->grad_y, i, itemsize),
           element(e->saved, i, itemsize), element(e->grad_z, i, itemsize), smaller(e->length, e->n - i));
}

/* One slope a feature: tasks are whole rows, and where rows are short several rows with as many copies of the slopes in
 * `copies` (BLOCK).  bench/tuning: few-slopes */
static void by_rows(struct elements *e, int64_t rows, int64_t features, char *copies) {
  size_t row_bytes = (size_t)(features * e->kernels->itemsize);
  int64_t count = larger(1, smaller(BLOCK / features, rows));
  for (int64_t i = 0; i < count && count > 1; i++)
    memcpy(copies + (size_t)i * row_bytes, e->activation.slope, row_bytes);
  if (count > 1) e->activation.slope = copies;
  e->length = count * features;
  e->step = 1;
}

static struct elements elements_of(const struct call *call, const struct activation *activation, int64_t n) {
  return (struct elements){.kernels = call->kernels, .activation = *activation, .n = n, .length = BLOCK};
}

void activate(const struct call *call, int64_t rows, int64_t features, const struct activation *activation,
              const void *z, void *y) {
  struct elements e = elements_of(call, activation, rows * features);
  _Alignas(double) char copies[BLOCK * sizeof(double)];
  e.z = z;
  e.y = y;
  if (activation->slopes > 1) by_rows(&e, rows, features, copies);
  int64_t tasks = e.n ? ceil_div(e.n, e.length) : 0;
  share_tasks(tasks, threads_for(call->threads, e.n * activation_forward_cost(activation->code)), activate_block, &e);
}

void fa_activation(int dtype, int64_t rows, int64_t features, int64_t activation, double parameter, const void *slope,
                   int64_t slopes, const void *z, void *y, int threads) {
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  const struct activation act = activation_of(activation, parameter, slope, slopes);
  activate(&call, rows, features, &act, z, y);
}

/* The backward of an activation with slopes over elements in rows of `width`: grad_z, and the sums of the slopes' terms
 * over DEPTH_CUT rows at a time -> partial [cuts][width], which starts as zeros.  Which terms a sum has, and in which
 * order, depends on the shape alone. */
struct slope_job {
  struct elements elements;
  int64_t width, rows, column_tasks; /* a task takes TASK_FEATURES columns of one cut */
  char *partial;
};

static void slope_task(void *context, int64_t task) {
  const struct slope_job *job = context;
  const struct elements *e = &job->elements;
  const int itemsize = e->kernels->itemsize;
  int64_t cut = task / job->column_tasks, first = task % job->column_tasks * TASK_FEATURES;
  int64_t count = smaller(TASK_FEATURES, job->width - first);
  const char *slope = element(e->activation.slope, first * e->step, itemsize);
  char *partial = element(job->partial, cut * job->width + first, itemsize);
  for (int64_t row = cut * DEPTH_CUT; row < smaller(job->rows, (cut + 1) * DEPTH_CUT); row++) {
    int64_t i = row * job->width + first, inside = smaller(count, e->n - i);
    const char *grad_y = element(e->grad_y, i, itemsize), *saved = element(e->saved, i, itemsize);
    add_slope_terms(e->kernels, &e->activation, slope, e->step, grad_y, saved, partial, inside);
    backward(e->kernels, &e->activation, slope, e->step, grad_y, saved, element(e->grad_z, i, itemsize), inside);
  }
}

int activation_backward(const struct call *call, int64_t rows, int64_t features, const struct activation *activation,
                        const void *grad_y, const void *saved, void *grad_z, void *grad_slope, int accumulate) {
  int64_t n = rows * features, slopes = activation->slopes;
  struct elements e = elements_of(call, activation, n);
  _Alignas(double) char copies[BLOCK * sizeof(double)];
  e.grad_y = grad_y;
  e.saved = saved;
  e.grad_z = grad_z;
  if (slopes > 1) by_rows(&e, rows, features, copies);
  if (!grad_slope) {
    int64_t tasks = n ? ceil_div(n, e.length) : 0, work = n * activation_backward_cost(activation->code);
    share_tasks(tasks, threads_for(call->threads, work), backward_block, &e);
    return FA_OK;
  }
  int64_t period = slopes > 1 ? features : 1; /* elements after which the slopes repeat */
  int64_t width = round_up(FOLDED_FEATURES, period), cuts = n ? ceil_div(ceil_div(n, width), DEPTH_CUT) : 0;
  size_t bytes = (size_t)(cuts * width * call->kernels->itemsize);
  char *partial = workspace(WORKSPACE_DRIVER, bytes);
  if (!partial) return FA_NO_MEMORY;
  memset(partial, 0, bytes);
  if (n) {
    struct slope_job job = {e, width, ceil_div(n, width), ceil_div(width, TASK_FEATURES), partial};
    share_tasks(cuts * job.column_tasks, threads_for(call->threads, n), slope_task, &job);
  }
  call->kernels->sum_slopes(cuts, width, partial, slopes, accumulate, grad_slope);
  return FA_OK;
}

int fa_activation_backward(int dtype, int64_t rows, int64_t features, int64_t activation, double parameter,
                           const void *slope, int64_t slopes, const void *grad_y, const void *saved, void *grad_z,
                           void *grad_slope, int accumulate, int threads) {
  const struct call call = begin_call(dtype, FA_HIGHEST, threads);
  const struct activation act = activation_of(activation, parameter, slope, slopes);
  return end_call(activation_backward(&call, rows, features, &act, grad_y, saved, grad_z, grad_slope, accumulate));
}

/* ---- as the epilogue of a product */

struct activation_epilogue {
  const struct kernels *kernels;
  const struct activation *activation;
  int64_t features;
  const char *z;
  char *y; /* (rows, features) */
};

static void activate_finished(const void *context, struct block block) {
  const struct activation_epilogue *e = context;
  const struct activation *a = e->activation;
  const int itemsize = e->kernels->itemsize;
  int64_t slope_step = a->slopes > 1;
  if (block.columns == e->features && !slope_step) { /* the rows are contiguous */
    int64_t at = block.row * e->features;
    forward(e->kernels, a, a->slope, 0, element(e->z, at, itemsize), element(e->y, at, itemsize),
            block.rows * e->features);
    return;
  }
  for (int64_t row = block.row; row < block.row + block.rows; row++) {
    int64_t at = row * e->features + block.column;
    forward(e->kernels, a, element(a->slope, slope_step * block.column, itemsize), slope_step,
            element(e->z, at, itemsize), element(e->y, at, itemsize), block.columns);
  }
}

int activated_product(const struct call *call, const struct product *p, const struct activation *activation, void *y) {
  const struct activation_epilogue epilogue = {call->kernels, activation, p->columns, p->epilogue.y, y};
  struct product activated = *p;
  if (activation->code != FA_IDENTITY) activated.epilogue.then = activate_finished;
  activated.epilogue.context = &epilogue;
  return run_product(call, &activated);
}
