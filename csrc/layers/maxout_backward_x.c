/* grad_x: for each row, the sum over the outputs of grad_y times the winner's weights. */
#include "engine/threads.h"
#include "engine/workspace.h"
#include "layers/gather.h"
#include "layers/window.h"

/* Rows that share a packed table of weights; their sums stay in L2. */
#define CHUNK_ROWS 1024

/* Packing the weights of a table takes as long as the sums of this many rows for each piece.
 * bench/tuning: pack-rows-cost */
#define PACK_ROWS_COST 3

/* Upper limit on the outputs of a table, so on the terms of one sum: larger tables lose accuracy.
 * bench/tuning: table-outputs */
#define TABLE_OUTPUTS 32

struct grad_x_job {
  const struct maxout_backward *b;
  struct column_tiling tiling;
  int64_t chunk; /* rows */
  char *memory;  /* of the threads */
  size_t thread_bytes, table_bytes, sums_bytes;
};

/* Some rows of x and one table, whose g->grad and g->argmax begin with the first row of grad_y.  Rows without a term
 * gather over no outputs: their sums are those of the tables before. */
static void gather_x_table(const struct maxout_backward *b, int64_t row, int64_t rows, const struct window_terms *terms,
                           int64_t vectors, struct gather_x g) {
  const int itemsize = b->call->kernels->itemsize;
  const int64_t width = vectors * b->call->kernels->lanes, end = row + rows;
  const int64_t first = smaller(larger(row, terms->to), end);
  const int64_t last = smaller(larger(first, terms->to + terms->rows), end);
  const int64_t bounds[] = {row, first, last, end};
  for (int i = 0; i < 3; i++) {
    struct gather_x part = g;
    int64_t before = bounds[i] - row, from = (bounds[i] - terms->to + terms->from) * g.row_stride;
    part.rows = bounds[i + 1] - bounds[i];
    if (part.rows == 0) continue;
    if (i == 1) {
      part.grad = element(g.grad, from, itemsize);
      part.argmax = g.argmax + from;
    } else {
      part.outputs = part.row_stride = 0;
    }
    part.sums.to = element(g.sums.to, before * g.sums.to_stride, itemsize);
    if (g.sums.partial) part.sums.partial = element(g.sums.partial, before * width, itemsize);
    if (g.sums.total) part.sums.total = element(g.sums.total, before * width, itemsize);
    b->call->kernels->gather_x[vectors](&part);
  }
}

/* Some rows and one tile of columns. */
static void gather_x_block(const struct maxout_backward *b, int64_t row, int64_t rows, struct column_tile tile,
                           const struct gather_memory *memory) {
  const struct kernels *kernels = b->call->kernels;
  const int itemsize = kernels->itemsize;
  int64_t outputs = b->out_features, table_rows = TABLE_ROWS * kernels->gather_vectors / tile.vectors;
  /* The unpacked weights serve as the table if few rows would use a packed one about once, and no vector reaches beyond
   * the weights.  All the rows of the batch count, not those of a chunk: the cut of a sum must not depend on the number
   * of threads. */
  int packed = b->rows > b->pieces || tile.count < tile.width;
  int64_t most = packed ? larger(1, table_rows / b->pieces) : TABLE_OUTPUTS;
  int64_t cuts = ceil_div(outputs, smaller(most, TABLE_OUTPUTS)), tables = (2 * b->window + 1) * cuts;
  for (int64_t t = 0; t < tables; t++) {
    const struct window_terms terms = window_terms(b->rows, b->window, (int)(t / cuts));
    int64_t j = part_start(outputs, cuts, t % cuts), taken = part_start(outputs, cuts, t % cuts + 1) - j;
    int64_t column = j * b->pieces * b->depth + terms.offset * b->in_features + tile.start;
    const char *weight = element(b->weight, column, itemsize);
    char *gradient = element(b->grad_x, row * b->in_features + tile.start, itemsize);
    if (packed) kernels->pack_table(taken * b->pieces, tile.count, weight, b->depth, tile.width, memory->table);
    gather_x_table(b, row, rows, &terms, tile.vectors,
                   (struct gather_x){
                       .outputs = taken,
                       .pieces = b->pieces,
                       .table = packed ? memory->table : weight,
                       .table_stride = packed ? tile.width : b->depth,
                       .grad = element(b->grad_y, j, itemsize),
                       .argmax = b->argmax + j,
                       .argmax_end = b->argmax + b->rows * outputs,
                       .row_stride = outputs,
                       .sums = gather_sums_to(memory, t, tables, tile, 0, gradient, b->in_features),
                   });
  }
}

static void gather_x_task(void *context, int64_t task, int64_t thread) {
  const struct grad_x_job *job = context;
  const struct maxout_backward *b = job->b;
  char *table = job->memory + (size_t)thread * job->thread_bytes, *partial = table + job->table_bytes;
  const struct gather_memory memory = {table, partial, partial + job->sums_bytes};
  int64_t tiles = job->tiling.count, row = task / tiles * job->chunk;
  gather_x_block(b, row, smaller(job->chunk, b->rows - row), column_tile(&job->tiling, task % tiles), &memory);
}

/* The number of chunks of rows with which the busiest thread has the least to do; each chunk packs all the weights. */
static int64_t row_chunks(const struct maxout_backward *b, int64_t tiles, int threads) {
  int64_t fewest = ceil_div(b->rows, CHUNK_ROWS), best = fewest, least = INT64_MAX;
  for (int64_t chunks = fewest; chunks <= smaller(b->rows, fewest + 2 * (threads - 1)); chunks++) {
    int64_t cost = ceil_div(tiles * chunks, threads) * (ceil_div(b->rows, chunks) + PACK_ROWS_COST * b->pieces);
    if (cost < least) {
      least = cost;
      best = chunks;
    }
  }
  return best;
}

int gather_grad_x(const struct maxout_backward *b) {
  const struct kernels *kernels = b->call->kernels;
  const struct column_tiling tiling = column_tiling(kernels, b->in_features);
  int64_t tiles = tiling.count;
  if (b->out_features == 0) memset(b->grad_x, 0, (size_t)(b->rows * b->in_features * kernels->itemsize));
  if (tiles * b->rows * b->out_features == 0) return FA_OK;
  int threads = threads_for(b->call->threads, (ceil_div(b->rows, 4) + b->pieces) * (b->out_features + 1) * b->depth);
  int64_t chunk = ceil_div(b->rows, row_chunks(b, tiles, threads));
  size_t width = (size_t)(kernels->gather_vectors * kernels->lanes * kernels->itemsize);
  struct grad_x_job job = {
      .b = b,
      .tiling = tiling,
      .chunk = chunk,
      .table_bytes = (size_t)larger(TABLE_ROWS, b->pieces) * width,
      .sums_bytes = (size_t)chunk * width,
  };
  job.thread_bytes = job.table_bytes + 2 * job.sums_bytes;
  job.memory = workspace(WORKSPACE_DRIVER, (size_t)threads * job.thread_bytes);
  if (!job.memory) return FA_NO_MEMORY;
  queue_tasks(tiles * ceil_div(b->rows, chunk), threads, gather_x_task, &job);
  return FA_OK;
}
