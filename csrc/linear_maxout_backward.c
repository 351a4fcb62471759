#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "argmax.h"
#include "fastact_abi.h"
#include "grad_bias.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* Rows of grad_x that share a packed table of weights; their sums stay in L2. */
#define CHUNK_ROWS 1024
/* Pieces of grad_weight that share a packed table of x; their sums stay in L2. */
#define CHUNK_UNITS 512
/* Tables whose sums are added up before those of all runs: where a table has a few terms for each sum, 32 at a time had
 * up to 1.5 times the error of NumPy's product, 8 at most 1.1 times. */
#define RUN_TABLES 8

#define REAL_BITS 32
#include "linear_maxout_backward.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "linear_maxout_backward.c"
#else
#include "real.h"

struct REAL(backward) {
  const struct REAL(kernels) * kernels;
  int64_t rows, in_features, out_features, pieces;
  const real *grad_y, *x, *weight;
  const uint8_t *argmax;
  real *grad_x, *grad_weight;
  int accumulate;
};

/* in_features cut into tiles of at most winner_vectors vectors, widths alike, so that no tile is a narrow rest. */
struct REAL(columns) {
  int64_t start;
  int64_t count; /* inside the array; the vectors may reach beyond */
  int64_t vectors, width;
};

static int64_t REAL(column_tiles)(const struct REAL(backward) * b) {
  return ceil_div(ceil_div(b->in_features, b->kernels->lanes), b->kernels->winner_vectors);
}

static struct REAL(columns) REAL(column_tile)(const struct REAL(backward) * b, int64_t tile) {
  int64_t lanes = b->kernels->lanes, vectors = ceil_div(b->in_features, lanes), tiles = REAL(column_tiles)(b);
  int64_t first = tile * vectors / tiles, last = (tile + 1) * vectors / tiles;
  return (struct REAL(columns)){
      .start = first * lanes,
      .count = smaller(last * lanes, b->in_features) - first * lanes,
      .vectors = last - first,
      .width = (last - first) * lanes,
  };
}

/* total = sums, or total += sums */
static void REAL(add_run)(int64_t n, const real *sums, int first, real *total) {
  if (first)
    memcpy(total, sums, (size_t)n * sizeof(real));
  else
    for (int64_t i = 0; i < n; i++) total[i] += sums[i];
}

/* dst rows (+)= src [rows][width] */
static void REAL(deliver)(int64_t rows, int64_t columns, const real *src, int64_t width, int accumulate, real *dst,
                          int64_t stride) {
  for (int64_t r = 0; r < rows; r++, src += width, dst += stride) REAL(add_run)(columns, src, !accumulate, dst);
}

/* ---- grad_x: for each row, over the outputs, the winner's weights */

/* What a thread works with: a packed table, the sums of one run and those of all runs. */
struct REAL(room) {
  real *table, *sums, *total;
};

/* grad_x of some rows and one tile of columns.  sums, total [rows][width] */
static void REAL(grad_x_block)(const struct REAL(backward) * b, int64_t row, int64_t rows, struct REAL(columns) tile,
                               const struct REAL(room) * room) {
  int64_t outputs = b->out_features;
  int64_t table_rows = TABLE_ROWS * b->kernels->winner_vectors / tile.vectors;
  int64_t table_outputs = larger(1, table_rows / b->pieces);
  int64_t run_outputs = RUN_TABLES * table_outputs;
  int one_run = outputs <= run_outputs;
  for (int64_t run = 0; run < outputs; run += run_outputs) {
    int64_t end = smaller(run + run_outputs, outputs);
    for (int64_t j = run; j < end; j += table_outputs) {
      int64_t taken = smaller(table_outputs, end - j);
      b->kernels->pack_table(taken * b->pieces, tile.count, b->weight + j * b->pieces * b->in_features + tile.start,
                             b->in_features, tile.width, room->table);
      b->kernels->sum_chosen[tile.vectors](&(struct REAL(chosen)){
          .rows = rows,
          .outputs = taken,
          .pieces = b->pieces,
          .table = room->table,
          .grad = b->grad_y + row * outputs + j,
          .argmax = b->argmax + row * outputs + j,
          .argmax_end = b->argmax + b->rows * outputs,
          .row_stride = outputs,
          .add = j > run,
          .sums = room->sums,
      });
    }
    if (!one_run) REAL(add_run)(rows * tile.width, room->sums, run == 0, room->total);
  }
  if (outputs == 0) memset(room->sums, 0, (size_t)(rows * tile.width) * sizeof(real));
  REAL(deliver)(rows, tile.count, one_run ? room->sums : room->total, tile.width, 0,
                b->grad_x + row * b->in_features + tile.start, b->in_features);
}

static int REAL(backward_x)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b);
  if (tiles * b->rows == 0) return FA_OK;
  threads = threads_for(threads, b->rows * (b->out_features + 1) * b->in_features);
  int64_t chunks = ceil_div(b->rows, CHUNK_ROWS);
  if (threads > 1) chunks = larger(chunks, ceil_div(4 * threads, tiles));
  int64_t chunk = ceil_div(b->rows, chunks);
  chunks = ceil_div(b->rows, chunk);
  size_t width = (size_t)(b->kernels->winner_vectors * b->kernels->lanes) * sizeof(real);
  size_t table_bytes = (size_t)larger(TABLE_ROWS, b->pieces) * width, sums_bytes = (size_t)chunk * width;
  size_t room_bytes = table_bytes + 2 * sums_bytes;
  char *memory = scratch(SCRATCH_KERNEL, (size_t)threads * room_bytes);
  if (!memory) return FA_NO_MEMORY;
  int next_room = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    int mine;
#pragma omp atomic capture
    mine = next_room++;
    char *at = memory + (size_t)mine * room_bytes;
    struct REAL(room) room = {.table = (real *)at, .sums = (real *)(at + table_bytes)};
    room.total = (real *)(at + table_bytes + sums_bytes);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tiles * chunks; task++) {
      int64_t row = task / tiles * chunk;
      REAL(grad_x_block)(b, row, smaller(chunk, b->rows - row), REAL(column_tile)(b, task % tiles), &room);
    }
  }
  return FA_OK;
}

/* ---- grad_weight: for each piece of each output, over the rows that it won, x */

/* The rows seen from the outputs of a task, a block of TABLE_ROWS rows after the other. */
struct REAL(winners) {
  real *grad;     /* [blocks][outputs][TABLE_ROWS] */
  uint64_t *rows; /* [blocks][outputs][pieces] */
};

/* grad_weight of some outputs and one tile of columns.  sums, total [outputs][pieces][width] */
static void REAL(grad_weight_block)(const struct REAL(backward) * b, int64_t output, int64_t outputs,
                                    struct REAL(columns) tile, const struct REAL(winners) * w,
                                    const struct REAL(room) * room) {
  int64_t units = outputs * b->pieces, run_rows = RUN_TABLES * TABLE_ROWS;
  int one_run = b->rows <= run_rows;
  for (int64_t row = 0; row < b->rows; row += TABLE_ROWS) {
    int64_t block = row / TABLE_ROWS;
    b->kernels->pack_table(smaller(TABLE_ROWS, b->rows - row), tile.count, b->x + row * b->in_features + tile.start,
                           b->in_features, tile.width, room->table);
    b->kernels->sum_won[tile.vectors](&(struct REAL(won)){
        .outputs = outputs,
        .pieces = b->pieces,
        .table = room->table,
        .grad = w->grad + block * outputs * TABLE_ROWS,
        .rows = w->rows + block * units,
        .add = row % run_rows > 0,
        .sums = room->sums,
    });
    int run_ends = (row + TABLE_ROWS) % run_rows == 0 || row + TABLE_ROWS >= b->rows;
    if (!one_run && run_ends) REAL(add_run)(units * tile.width, room->sums, row < run_rows, room->total);
  }
  if (b->rows == 0) memset(room->sums, 0, (size_t)(units * tile.width) * sizeof(real));
  REAL(deliver)(units, tile.count, one_run ? room->sums : room->total, tile.width, b->accumulate,
                b->grad_weight + output * b->pieces * b->in_features + tile.start, b->in_features);
}

static int REAL(backward_weight)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b);
  if (tiles * b->out_features == 0) return FA_OK;
  threads = threads_for(threads, (b->rows + b->pieces) * b->out_features * b->in_features);
  int64_t chunks = ceil_div(b->out_features * b->pieces, CHUNK_UNITS);
  if (threads > 1) chunks = larger(chunks, 2 * threads);
  int64_t chunk = ceil_div(b->out_features, chunks), blocks = ceil_div(b->rows, TABLE_ROWS);
  chunks = ceil_div(b->out_features, chunk);
  size_t width = (size_t)(b->kernels->winner_vectors * b->kernels->lanes) * sizeof(real);
  size_t grad_bytes = aligned((size_t)(chunk * blocks * TABLE_ROWS) * sizeof(real));
  size_t set_bytes = aligned((size_t)(chunk * blocks * b->pieces) * sizeof(uint64_t));
  size_t table_bytes = TABLE_ROWS * width, sums_bytes = (size_t)(chunk * b->pieces) * width;
  size_t room_bytes = grad_bytes + set_bytes + table_bytes + 2 * sums_bytes;
  char *memory = scratch(SCRATCH_KERNEL, (size_t)threads * room_bytes);
  if (!memory) return FA_NO_MEMORY;
  int next_room = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    int mine;
#pragma omp atomic capture
    mine = next_room++;
    char *at = memory + (size_t)mine * room_bytes;
    struct REAL(winners) w = {.grad = (real *)at, .rows = (uint64_t *)(at + grad_bytes)};
    struct REAL(room) room = {.table = (real *)(at += grad_bytes + set_bytes)};
    room.sums = (real *)(at += table_bytes);
    room.total = (real *)(at + sums_bytes);
#pragma omp for schedule(dynamic)
    for (int64_t c = 0; c < chunks; c++) {
      int64_t output = c * chunk, outputs = smaller(chunk, b->out_features - output);
      for (int64_t block = 0; block < blocks; block++) {
        int64_t row = block * TABLE_ROWS, first = row * b->out_features + output;
        b->kernels->find_winners(smaller(TABLE_ROWS, b->rows - row), outputs, b->pieces, b->grad_y + first,
                                 b->argmax + first, b->out_features, w.grad + block * outputs * TABLE_ROWS,
                                 w.rows + block * outputs * b->pieces);
      }
      for (int64_t t = 0; t < tiles; t++)
        REAL(grad_weight_block)(b, output, outputs, REAL(column_tile)(b, t), &w, &room);
    }
  }
  return FA_OK;
}

int REAL(fa_linear_maxout_backward)(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                                    const real *grad_y, const real *x, const real *weight, const uint8_t *argmax,
                                    real *grad_x, real *grad_weight, real *grad_bias, int accumulate, int threads,
                                    int precision) {
  (void)precision; /* the float32 kernels serve every tier */
  if (!argmax_fits(rows * out_features, argmax, pieces)) return FA_BAD_ARGMAX;
  struct REAL(backward) b = {
      .kernels = isa_active()->REAL(kernels),
      .rows = rows,
      .in_features = in_features,
      .out_features = out_features,
      .pieces = pieces,
      .grad_y = grad_y,
      .x = x,
      .weight = weight,
      .argmax = argmax,
      .grad_x = grad_x,
      .grad_weight = grad_weight,
      .accumulate = accumulate,
  };
  int status = FA_OK;
  if (grad_x) status = REAL(backward_x)(&b, threads);
  if (grad_weight && !status) status = REAL(backward_weight)(&b, threads);
  if (grad_bias && !status)
    status = REAL(grad_bias)(rows, out_features, pieces, grad_y, argmax, accumulate, grad_bias, threads);
  return status;
}

#endif
