#include "engine/dispatch.h"
#include "engine/sizes.h"
#include "engine/threads.h"

/* Rows of a forward task. */
#define BLOCK 64

/* The cost of an element, relative to one copied element, for threads_for: of four rows. */
#define FORWARD_WORK 3
#define BACKWARD_WORK 4

/* A part of a table's columns is a multiple of this, which keeps threads apart in whole cache lines. */
#define PART_COLUMNS 16

struct embed_job {
  const struct kernels *kernels;
  const struct fa_hash_table *tables;
  int64_t count, rows, id_columns;
  const uint64_t *ids;
  int64_t columns; /* of all tables */
  uint32_t *keys;
  char *y;
};

static int64_t all_columns(const struct fa_hash_table *tables, int64_t count) {
  int64_t columns = 0;
  for (int64_t t = 0; t < count; t++) columns += tables[t].columns;
  return columns;
}

static void embed_block(void *context, int64_t task) {
  const struct embed_job *job = context;
  const int itemsize = job->kernels->itemsize;
  const int64_t row = task * BLOCK, rows = smaller(BLOCK, job->rows - row);
  int64_t column = 0;
  for (int64_t t = 0; t < job->count; t++) {
    const struct fa_hash_table *table = &job->tables[t];
    job->kernels->hash_embed(&(struct hash_embed){
        .rows = rows,
        .ids = job->ids + row * job->id_columns + table->id_column,
        .id_stride = job->id_columns,
        .seed = table->seed,
        .table = table->data,
        .table_rows = table->rows,
        .columns = table->columns,
        .scale = table->scale,
        .keys = job->keys + 4 * (t * job->rows + row),
        .y = element(job->y, row * job->columns + column, itemsize),
        .stride = job->columns,
    });
    column += table->columns;
  }
}

void fa_hash_embed(int dtype, int64_t rows, int64_t id_columns, const uint64_t *ids, int64_t count,
                   const struct fa_hash_table *tables, void *y, uint32_t *keys, int threads) {
  struct embed_job job = {
      .kernels = begin_call(dtype, FA_HIGHEST, threads).kernels,
      .tables = tables,
      .count = count,
      .rows = rows,
      .id_columns = id_columns,
      .ids = ids,
      .columns = all_columns(tables, count),
      .keys = keys,
      .y = y,
  };
  share_tasks(ceil_div(rows, BLOCK), threads_for(threads, FORWARD_WORK * rows * job.columns), embed_block, &job);
}

struct embed_backward_job {
  const struct kernels *kernels;
  const struct fa_hash_table *tables;
  int64_t rows, columns, parts; /* of each table's columns, for a task each */
  const uint32_t *keys;
  const char *grad_y;
};

static void backward_part(void *context, int64_t task, int64_t thread) {
  (void)thread;
  const struct embed_backward_job *job = context;
  const int itemsize = job->kernels->itemsize;
  const int64_t t = task / job->parts;
  const struct fa_hash_table *table = &job->tables[t];
  const int64_t width = round_up(ceil_div(table->columns, job->parts), PART_COLUMNS);
  const int64_t first = task % job->parts * width;
  if (first >= table->columns) return;
  const int64_t column = all_columns(job->tables, t) + first;
  job->kernels->hash_embed_backward(&(struct hash_embed_backward){
      .rows = job->rows,
      .columns = smaller(width, table->columns - first),
      .keys = job->keys + 4 * t * job->rows,
      .grad_y = element(job->grad_y, column, itemsize),
      .grad_stride = job->columns,
      .scale = table->scale ? element(table->scale, first, itemsize) : NULL,
      .grad = element(table->data, first, itemsize),
      .table_rows = table->rows,
      .stride = table->columns,
  });
}

void fa_hash_embed_backward(int dtype, int64_t rows, const void *grad_y, const uint32_t *keys, int64_t count,
                            const struct fa_hash_table *tables, int threads) {
  if (count == 0) return;
  struct embed_backward_job job = {
      .kernels = begin_call(dtype, FA_HIGHEST, threads).kernels,
      .tables = tables,
      .rows = rows,
      .columns = all_columns(tables, count),
      .keys = keys,
      .grad_y = grad_y,
  };
  int used = threads_for(threads, BACKWARD_WORK * rows * job.columns);
  job.parts = used == 1 ? 1 : ceil_div(2 * used, count); /* of unequal length, so two for each thread */
  queue_tasks(count * job.parts, used, backward_part, &job);
}
