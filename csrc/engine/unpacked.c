#include "engine/unpacked.h"

#include "engine/pack.h"
#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/tiles.h"

/* Memory: bias [vectors][lanes], then sums [rows][vectors][lanes]. */
static size_t bias_bytes(const struct kernels *kernels, int panel_vectors) {
  return aligned((size_t)(panel_vectors * kernels->lanes * kernels->itemsize));
}

size_t unpacked_bytes(const struct kernels *kernels, int64_t rows, int panel_vectors) {
  size_t row_bytes = (size_t)(panel_vectors * kernels->lanes * kernels->itemsize);
  return bias_bytes(kernels, panel_vectors) + aligned((size_t)rows * row_bytes);
}

void multiply_unpacked(const struct product *p, const struct kernels *kernels, int64_t row, int64_t rows,
                       const struct panel *panel, int64_t cut, char *memory) {
  const struct panel_layout layout = {
      .kernels = kernels, .depth = p->depth, .columns = p->columns, .pieces = p->pieces};
  const int itemsize = kernels->itemsize;
  char *bias = memory, *sums = memory + bias_bytes(kernels, panel->vectors);
  size_t row_bytes = (size_t)(panel->vectors * kernels->lanes * itemsize);
  pack_bias(&p->right, &layout, panel, bias);
  if (panel->columns % kernels->lanes) memset(sums, 0, (size_t)rows * row_bytes); /* beyond the columns */
  (cut ? kernels->unpacked_tiles : kernels->dots)(&(struct unpacked){
      .rows = rows,
      .columns = panel->columns,
      .pieces = p->pieces,
      .depth = p->depth,
      .cut = cut,
      .x = element(p->left->data, row * p->left->row_stride, itemsize),
      .w = element(p->right.data, panel->column * p->right.column_stride, itemsize),
      .sums = sums,
      .x_stride = p->left->row_stride,
      .unit_stride = p->right.column_stride / p->pieces,
      .sums_stride = panel->vectors * kernels->lanes,
  });
  store_columns_in_lanes(p, kernels, panel, row, rows, bias, sums);
}

struct unpacked_job {
  const struct product *p;
  struct unpacked_plan plan;
  int64_t cut;
  char *memory; /* of the threads */
  size_t thread_bytes;
};

/* A task: some panels against some rows, row block after row block. */
static void run_unpacked_task(void *context, int64_t task, int64_t thread) {
  const struct unpacked_job *job = context;
  const struct unpacked_plan *plan = &job->plan;
  const struct epilogue *epilogue = &job->p->epilogue;
  char *memory = job->memory + (size_t)thread * job->thread_bytes;
  int64_t column_tasks = ceil_div(plan->right.panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels,
          last = smaller(first + plan->task_panels, plan->right.panels);
  int64_t start = task / column_tasks * plan->task_rows, end = smaller(start + plan->task_rows, job->p->rows);
  for (int64_t row = start; row < end; row += plan->row_block) {
    struct block block = {.row = row, .rows = smaller(plan->row_block, end - row)};
    block.column = panel_at(&plan->right, first).column;
    for (int64_t i = first; i < last; i++) {
      struct panel panel = panel_at(&plan->right, i);
      multiply_unpacked(job->p, plan->right.kernels, row, block.rows, &panel, job->cut, memory);
      block.columns = panel.column + panel.columns - block.column;
    }
    if (epilogue->then) epilogue->then(epilogue->context, block);
  }
}

int run_unpacked(const struct call *call, const struct product *p, int threads) {
  struct unpacked_job job = {.p = p, .plan = plan_unpacked(p, call->kernels, threads)};
  const struct unpacked_plan *plan = &job.plan;
  job.cut = has_one_order(call) ? plan->right.cut : 0;
  job.thread_bytes = unpacked_bytes(call->kernels, plan->row_block, plan->right.panel_vectors);
  job.memory = workspace(WORKSPACE_DRIVER, (size_t)threads * job.thread_bytes);
  if (!job.memory) return FA_NO_MEMORY;
  int64_t tasks = ceil_div(plan->right.panels, plan->task_panels) * ceil_div(p->rows, plan->task_rows);
  queue_tasks(tasks, threads, run_unpacked_task, &job);
  return FA_OK;
}
