/* grad_weight: for each piece of each output, the sum of grad_y times x over the rows in which the piece is the winner.
 */
#include "engine/threads.h"
#include "engine/workspace.h"
#include "layers/gather.h"

/* Pieces that share a packed table of x; their sums stay in L2. */
#define CHUNK_UNITS 512

/* With few rows, upper limit on the pieces of a chunk for each row, so that consecutive column tiles write to the same
 * pages.  bench/tuning: chunk-units */
#define CHUNK_UNITS_A_ROW 8

struct grad_weight_job {
  const struct maxout_backward *b;
  struct column_tiling tiling;
  int64_t chunk; /* outputs */
  char *memory;  /* of the threads */
  size_t thread_bytes, grad_bytes, won_bytes, table_bytes, sums_bytes;
};

/* The batch in blocks of at most TABLE_ROWS rows, whose sizes differ by at most one row. */
static int64_t row_blocks(const struct maxout_backward *b) { return ceil_div(b->rows, TABLE_ROWS); }
static int64_t block_start(const struct maxout_backward *b, int64_t block) {
  return part_start(b->rows, row_blocks(b), block);
}

/* The rows seen from the outputs of a task.  Nothing else of a thread's memory grows with the batch.
 * bench/tuning: winners-memory */
struct winners {
  char *grad;    /* [blocks][outputs][TABLE_ROWS] */
  uint64_t *won; /* [blocks][outputs][pieces], a bit a row */
};

/* Some outputs and one tile of columns. */
static void gather_weight_block(const struct maxout_backward *b, int64_t output, int64_t outputs,
                                struct column_tile tile, const struct winners *winners,
                                const struct gather_memory *memory) {
  const struct kernels *kernels = b->call->kernels;
  const int itemsize = kernels->itemsize;
  int64_t units = outputs * b->pieces, blocks = row_blocks(b);
  char *gradient = element(b->grad_weight, output * b->pieces * b->depth + tile.start, itemsize);
  for (int64_t block = 0; block < blocks; block++) {
    int64_t row = block_start(b, block), rows = block_start(b, block + 1) - row;
    kernels->pack_table(rows, tile.count, element(b->x, row * b->in_features + tile.start, itemsize), b->in_features,
                        tile.width, memory->table);
    kernels->gather_weight[tile.vectors](&(struct gather_weight){
        .outputs = outputs,
        .pieces = b->pieces,
        .table = memory->table,
        .grad = element(winners->grad, block * outputs * TABLE_ROWS, itemsize),
        .rows = winners->won + block * units,
        .sums = gather_sums_to(memory, block, blocks, tile, b->accumulate, gradient, b->depth),
    });
  }
}

static void gather_weight_task(void *context, int64_t task, int64_t thread) {
  const struct grad_weight_job *job = context;
  const struct maxout_backward *b = job->b;
  const struct kernels *kernels = b->call->kernels;
  char *grad = job->memory + (size_t)thread * job->thread_bytes, *won = grad + job->grad_bytes;
  char *table = won + job->won_bytes, *partial = table + job->table_bytes;
  const struct winners winners = {grad, (uint64_t *)won};
  const struct gather_memory memory = {table, partial, partial + job->sums_bytes};
  int64_t blocks = row_blocks(b);
  int64_t output = task * job->chunk, outputs = smaller(job->chunk, b->out_features - output);
  for (int64_t block = 0; block < blocks; block++) {
    int64_t row = block_start(b, block), rows = block_start(b, block + 1) - row;
    int64_t first = row * b->out_features + output;
    kernels->find_winners(rows, outputs, b->pieces, element(b->grad_y, first, kernels->itemsize),
                          b->argmax ? b->argmax + first : NULL, b->out_features,
                          element(winners.grad, block * outputs * TABLE_ROWS, kernels->itemsize),
                          winners.won + block * outputs * b->pieces);
  }
  for (int64_t t = 0; t < job->tiling.count; t++)
    gather_weight_block(b, output, outputs, column_tile(&job->tiling, t), &winners, &memory);
}

/* A single row: grad_y times x for the winner of an output, zeros for the losers.  The rows of grad_weight are written
 * whole and in order, which the gathers' tiles of columns are not.  bench/tuning: single-row */
static void scale_x_task(void *context, int64_t output) {
  const struct maxout_backward *b = context;
  const struct kernels *kernels = b->call->kernels;
  const int itemsize = kernels->itemsize;
  int64_t winner = b->argmax ? smaller(b->argmax[output], b->pieces - 1) : 0; /* another thread may write there */
  for (int64_t k = 0; k < b->pieces; k++) {
    char *unit = element(b->grad_weight, (output * b->pieces + k) * b->depth, itemsize);
    if (k == winner)
      kernels->scale(b->depth, element(b->grad_y, output, itemsize), b->x, b->accumulate, unit);
    else if (!b->accumulate)
      memset(unit, 0, (size_t)(b->depth * itemsize));
  }
}

int gather_grad_weight(const struct maxout_backward *b) {
  const struct kernels *kernels = b->call->kernels;
  const int itemsize = kernels->itemsize;
  const struct column_tiling tiling = column_tiling(kernels, b->depth);
  if (b->rows == 0 && !b->accumulate)
    memset(b->grad_weight, 0, (size_t)(b->out_features * b->pieces * b->depth * itemsize));
  if (tiling.count * b->rows * b->out_features == 0) return FA_OK;
  int threads = threads_for(b->call->threads, (ceil_div(b->rows, 4) + b->pieces) * b->out_features * b->depth);
  if (b->rows == 1) {
    share_tasks(b->out_features, threads, scale_x_task, (void *)b);
    return FA_OK;
  }
  int64_t chunks = ceil_div(b->out_features * b->pieces, smaller(CHUNK_UNITS, CHUNK_UNITS_A_ROW * b->rows));
  chunks = round_up(chunks, threads); /* equally many for each thread: each chunk packs all of x */
  int64_t chunk = ceil_div(b->out_features, chunks), blocks = row_blocks(b);
  size_t width = (size_t)(kernels->gather_vectors * kernels->lanes * itemsize);
  struct grad_weight_job job = {
      .b = b,
      .tiling = tiling,
      .chunk = chunk,
      .grad_bytes = aligned((size_t)(chunk * blocks * TABLE_ROWS * itemsize)),
      .won_bytes = aligned((size_t)(chunk * blocks * b->pieces) * sizeof(uint64_t)),
      .table_bytes = TABLE_ROWS * width,
      .sums_bytes = (size_t)(chunk * b->pieces) * width,
  };
  job.thread_bytes = job.grad_bytes + job.won_bytes + job.table_bytes + 2 * job.sums_bytes;
  job.memory = workspace(WORKSPACE_DRIVER, (size_t)threads * job.thread_bytes);
  if (!job.memory) return FA_NO_MEMORY;
  queue_tasks(ceil_div(b->out_features, chunk), threads, gather_weight_task, &job);
  return FA_OK;
}
