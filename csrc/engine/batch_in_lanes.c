#include "engine/batch_in_lanes.h"

#include "engine/pack.h"
#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/tiles.h"
#include "engine/unpacked.h"

/* Panels of fewer bytes are packed by one thread, since a thread team takes longer to begin.
 * bench/tuning: min-shared-bytes */
#define MIN_SHARED_BYTES (128 << 10)

/* The product as given.  With the operands exchanged, all of its rows but the tail are computed. */
struct exchanged {
  const struct product *p;
  struct product tail; /* the last rows */
};

/* Sums [units][vectors][lanes] of the units [unit, unit + units) and one panel of rows of y. */
static void store_batch(const void *context, const struct kernels *kernels, const struct panel *panel, int64_t unit,
                        int64_t units, const char *bias, const char *sums) {
  (void)bias;
  const struct product *p = ((const struct exchanged *)context)->p;
  const int itemsize = kernels->itemsize;
  int64_t at = panel->column * p->epilogue.y_stride + unit / p->pieces;
  kernels->store_batch(&(struct epilogue_batch){
      .columns = units / p->pieces,
      .pieces = p->pieces,
      .vectors = panel->vectors,
      .sums = sums,
      .bias = p->right.bias ? element(p->right.bias, unit, itemsize) : NULL,
      .rows = panel->columns,
      .y = element(p->epilogue.y, at, itemsize),
      .y_stride = p->epilogue.y_stride,
      .argmax = p->epilogue.argmax && p->pieces > 1 ? p->epilogue.argmax + at : NULL,
  });
}

/* Computes the tail for the block's units after the last panel, while their weights are in cache; then takes the
 * caller's own step of the epilogue. */
static void finish_batch(const void *context, const struct kernels *kernels, struct block exchanged_block, int last,
                         char *memory) {
  const struct exchanged *e = context;
  const struct product *p = e->p;
  const struct epilogue *epilogue = &p->epilogue;
  struct block block = {.row = exchanged_block.column,
                        .rows = exchanged_block.columns,
                        .column = exchanged_block.row / p->pieces,
                        .columns = exchanged_block.rows / p->pieces};
  if (last && e->tail.rows) {
    int64_t end = block.column + block.columns;
    for (int64_t column = block.column; column < end; column += kernels->lanes) {
      struct panel panel = {column, smaller(kernels->lanes, end - column), p->pieces};
      multiply_unpacked(&e->tail, kernels, 0, e->tail.rows, &panel, 0, memory);
    }
    block.rows += e->tail.rows;
  }
  if (epilogue->then) epilogue->then(epilogue->context, block);
}

struct packing_job {
  const struct product *exchanged;
  const struct panel_layout *layout;
  char *panels;
};

static void pack_task(void *context, int64_t index) {
  const struct packing_job *job = context;
  int64_t at = index * job->layout->panel_size;
  pack_panel(&job->exchanged->right, job->layout, index, element(job->panels, at, job->layout->kernels->itemsize));
}

/* A copy of the tail's rows, whose vectors cross no cache line; those of x may cross one.  bench/tuning: copied-tail */
static struct source copy_tail(const struct product *p, int64_t tail, const struct kernels *kernels, char *dst) {
  const int itemsize = kernels->itemsize;
  int64_t stride = round_up(p->depth, kernels->lanes);
  for (int64_t i = 0; i < tail; i++)
    memcpy(element(dst, i * stride, itemsize),
           element(p->left->data, (p->rows - tail + i) * p->left->row_stride, itemsize), (size_t)(p->depth * itemsize));
  return dense_source(dst, stride, 1);
}

int run_batch_in_lanes(const struct call *call, const struct product *p, int64_t tail, int threads) {
  const struct kernels *kernels = call->kernels;
  const int itemsize = kernels->itemsize;
  int64_t batch = p->rows - tail, unit_stride = p->pieces == 1 ? p->right.column_stride : p->right.piece_stride;
  const struct source units = dense_source(p->right.data, unit_stride, 1);
  const struct product exchanged = {
      .rows = p->columns * p->pieces,
      .depth = p->depth,
      .columns = batch,
      .pieces = 1,
      .left = &units,
      .right = {.data = p->left->data, .column_stride = p->left->row_stride, .depth_stride = 1},
  };
  const struct plan plan = plan_batch_in_lanes(&exchanged, p->pieces, kernels, threads);
  size_t panels_bytes = aligned(packed_bytes(&plan.right));
  size_t tail_bytes = (size_t)(tail * round_up(p->depth, kernels->lanes) * itemsize);
  char *memory = workspace(WORKSPACE_BATCH, panels_bytes + tail_bytes);
  if (!memory) return FA_NO_MEMORY;
  const struct packing_job packing = {&exchanged, &plan.right, memory};
  share_tasks(plan.right.panels, panels_bytes < MIN_SHARED_BYTES ? 1 : threads, pack_task, (void *)&packing);

  struct exchanged context = {.p = p, .tail = *p};
  const struct source tail_rows = copy_tail(p, tail, kernels, memory + panels_bytes);
  context.tail.rows = tail;
  context.tail.left = &tail_rows;
  context.tail.epilogue.y = element(p->epilogue.y, batch * p->epilogue.y_stride, itemsize);
  if (p->epilogue.argmax) context.tail.epilogue.argmax += batch * p->epilogue.y_stride;
  const struct tile_epilogue epilogue = {store_batch, finish_batch, &context, unpacked_bytes(kernels, tail, p->pieces)};
  return run_tile_tasks(call, &exchanged, &plan, memory, &epilogue, WORKSPACE_DRIVER, threads);
}
