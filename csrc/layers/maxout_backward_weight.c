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

/* Tables of rows whose winners are found at a time, so that they stay in L2 and do not grow with the batch; between
 * spans no sum is partial.  bench/tuning: winners-memory */
#define SPAN_TABLES PARTIAL_TABLES

struct grad_weight_job {
  const struct maxout_backward *b;
  struct column_tiling tiling;
  int64_t chunk;  /* outputs */
  int64_t totals; /* one for each tile of columns, if there are several spans */
  char *memory;   /* of the threads */
  size_t thread_bytes, grad_bytes, won_bytes, table_bytes, sums_bytes;
};

/* The batch in blocks of at most TABLE_ROWS rows, whose sizes differ by at most one row. */
static int64_t row_blocks(const struct maxout_backward *b) { return ceil_div(b->rows, TABLE_ROWS); }
static int64_t block_start(const struct maxout_backward *b, int64_t block) {
  return part_start(b->rows, row_blocks(b), block);
}

/* The rows of the blocks of a span, [first, end), seen from the outputs of a task. */
struct winners {
  int64_t first, end;
  char *grad;    /* [blocks][outputs][TABLE_ROWS] */
  uint64_t *won; /* [blocks][outputs][pieces], a bit a row */
};

/* One tile of columns of some outputs, summed over the rows of a span. */
static void gather_weight_tile(const struct maxout_backward *b, int64_t output, int64_t outputs,
                               struct column_tile tile, const struct winners *winners,
                               const struct gather_memory *memory) {
  const struct kernels *kernels = b->call->kernels;
  const int itemsize = kernels->itemsize;
  int64_t units = outputs * b->pieces;
  char *gradient = element(b->grad_weight, output * b->pieces * b->depth + tile.start, itemsize);
  for (int64_t block = winners->first; block < winners->end; block++) {
    int64_t row = block_start(b, block), rows = block_start(b, block + 1) - row;
    kernels->pack_table(rows, tile.count, element(b->x, row * b->in_features + tile.start, itemsize), b->in_features,
                        tile.width, memory->table);
    kernels->gather_weight[tile.vectors](&(struct gather_weight){
        .outputs = outputs,
        .pieces = b->pieces,
        .table = memory->table,
        .grad = element(winners->grad, (block - winners->first) * outputs * TABLE_ROWS, itemsize),
        .rows = winners->won + (block - winners->first) * units,
        .sums = gather_sums_to(memory, block, row_blocks(b), tile, b->accumulate, gradient, b->depth),
    });
  }
}

static void find_winners(const struct maxout_backward *b, int64_t output, int64_t outputs,
                         const struct winners *winners) {
  const struct kernels *kernels = b->call->kernels;
  for (int64_t block = winners->first; block < winners->end; block++) {
    int64_t row = block_start(b, block), rows = block_start(b, block + 1) - row;
    int64_t first = row * b->out_features + output, index = block - winners->first;
    kernels->find_winners(rows, outputs, b->pieces, element(b->grad_y, first, kernels->itemsize),
                          b->argmax ? b->argmax + first : NULL, b->out_features,
                          element(winners->grad, index * outputs * TABLE_ROWS, kernels->itemsize),
                          winners->won + index * outputs * b->pieces);
  }
}

static void gather_weight_task(void *context, int64_t task, int64_t thread) {
  const struct grad_weight_job *job = context;
  const struct maxout_backward *b = job->b;
  char *grad = job->memory + (size_t)thread * job->thread_bytes, *won = grad + job->grad_bytes;
  char *table = won + job->won_bytes, *partial = table + job->table_bytes, *totals = partial + job->sums_bytes;
  int64_t blocks = row_blocks(b);
  int64_t output = task * job->chunk, outputs = smaller(job->chunk, b->out_features - output);
  for (int64_t first = 0; first < blocks; first += SPAN_TABLES) {
    const struct winners winners = {first, smaller(first + SPAN_TABLES, blocks), grad, (uint64_t *)won};
    find_winners(b, output, outputs, &winners);
    for (int64_t t = 0; t < job->tiling.count; t++) {
      const struct gather_memory memory = {table, partial, totals + (size_t)(t % job->totals) * job->sums_bytes};
      gather_weight_tile(b, output, outputs, column_tile(&job->tiling, t), &winners, &memory);
    }
  }
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
  int64_t chunk = ceil_div(b->out_features, chunks), span = smaller(row_blocks(b), SPAN_TABLES);
  size_t width = (size_t)(kernels->gather_vectors * kernels->lanes * itemsize);
  struct grad_weight_job job = {
      .b = b,
      .tiling = tiling,
      .chunk = chunk,
      .totals = row_blocks(b) > SPAN_TABLES ? tiling.count : 1,
      .grad_bytes = aligned((size_t)(chunk * span * TABLE_ROWS * itemsize)),
      .won_bytes = aligned((size_t)(chunk * span * b->pieces) * sizeof(uint64_t)),
      .table_bytes = TABLE_ROWS * width,
      .sums_bytes = (size_t)(chunk * b->pieces) * width,
  };
  job.thread_bytes = job.grad_bytes + job.won_bytes + job.table_bytes + (size_t)(1 + job.totals) * job.sums_bytes;
  job.memory = workspace(WORKSPACE_DRIVER, (size_t)threads * job.thread_bytes);
  if (!job.memory) return FA_NO_MEMORY;
  queue_tasks(ceil_div(b->out_features, chunk), threads, gather_weight_task, &job);
  return FA_OK;
}
