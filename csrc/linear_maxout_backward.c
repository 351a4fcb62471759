#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "fastact_abi.h"
#include "grad_bias.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* Rows of the table that a sum over winners gathers from: with 12 vectors of columns, 24 KiB of L1. */
#define TABLE_ROWS 64
/* Rows of grad_x that share a packed table of weights: repacking it costs 2% of the sums. */
#define CHUNK_ROWS 512
/* Outputs of grad_weight that a task takes. */
#define CHUNK_OUTPUTS 32

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

/* in_features cut into tiles of at most MAX_WINNER_VECTORS vectors, widths alike, so that no tile is a narrow rest. */
struct REAL(columns) {
  int64_t start;
  int64_t count; /* inside the array; the vectors may reach beyond */
  int vectors;
};

static int64_t REAL(column_tiles)(const struct REAL(backward) * b) {
  return ceil_div(ceil_div(b->in_features, b->kernels->lanes), MAX_WINNER_VECTORS);
}

static struct REAL(columns) REAL(column_tile)(const struct REAL(backward) * b, int64_t tile) {
  int64_t lanes = b->kernels->lanes, vectors = ceil_div(b->in_features, lanes), tiles = REAL(column_tiles)(b);
  int64_t first = tile * vectors / tiles, last = (tile + 1) * vectors / tiles;
  return (struct REAL(columns)){first * lanes, smaller(last * lanes, b->in_features) - first * lanes,
                                (int)(last - first)};
}

/* src rows -> dst [rows][width], zeros from `columns` on */
static void REAL(pack_table)(int64_t rows, int64_t columns, const real *src, int64_t stride, int64_t width, real *dst) {
  for (int64_t r = 0; r < rows; r++, src += stride, dst += width) {
    memcpy(dst, src, (size_t)columns * sizeof(real));
    memset(dst + columns, 0, (size_t)(width - columns) * sizeof(real));
  }
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

/* grad_x of some rows and one tile of columns.  sums, total [rows][width]; table [TABLE_ROWS or pieces][width] */
static void REAL(grad_x_block)(const struct REAL(backward) * b, int64_t row, int64_t rows, struct REAL(columns) tile,
                               real *table, real *sums, real *total) {
  int64_t width = tile.vectors * b->kernels->lanes, outputs = b->out_features;
  int64_t table_outputs = larger(1, TABLE_ROWS / b->pieces);
  int one_run = outputs <= DEPTH_CUT;
  for (int64_t run = 0; run < outputs; run += DEPTH_CUT) {
    int64_t end = smaller(run + DEPTH_CUT, outputs);
    for (int64_t j = run; j < end; j += table_outputs) {
      int64_t taken = smaller(table_outputs, end - j);
      REAL(pack_table)(taken * b->pieces, tile.count, b->weight + j * b->pieces * b->in_features + tile.start,
                       b->in_features, width, table);
      b->kernels->sum_chosen[tile.vectors](&(struct REAL(chosen)){
          .rows = rows,
          .outputs = taken,
          .pieces = b->pieces,
          .table = table,
          .grad = b->grad_y + row * outputs + j,
          .argmax = b->argmax + row * outputs + j,
          .row_stride = outputs,
          .add = j > run,
          .sums = sums,
      });
    }
    if (!one_run) REAL(add_run)(rows * width, sums, run == 0, total);
  }
  if (outputs == 0) memset(sums, 0, (size_t)(rows * width) * sizeof(real));
  REAL(deliver)(rows, tile.count, one_run ? sums : total, width, 0, b->grad_x + row * b->in_features + tile.start,
                b->in_features);
}

static int REAL(backward_x)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b), chunk = smaller(CHUNK_ROWS, b->rows);
  if (tiles * chunk == 0) return FA_OK;
  threads = threads_for(threads, b->rows * (b->out_features + 1) * b->in_features);
  chunk = smaller(chunk, larger(1, ceil_div(b->rows * tiles, 4 * threads)));
  int64_t chunks = ceil_div(b->rows, chunk);
  size_t width = (size_t)(MAX_WINNER_VECTORS * b->kernels->lanes) * sizeof(real);
  size_t table_bytes = (size_t)larger(TABLE_ROWS, b->pieces) * width, sums_bytes = (size_t)chunk * width;
  size_t room = table_bytes + 2 * sums_bytes;
  char *memory = scratch(SCRATCH_KERNEL, (size_t)threads * room);
  if (!memory) return FA_NO_MEMORY;
  int next_room = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    int mine;
#pragma omp atomic capture
    mine = next_room++;
    char *at = memory + (size_t)mine * room;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tiles * chunks; task++) {
      int64_t row = task / tiles * chunk;
      REAL(grad_x_block)(b, row, smaller(chunk, b->rows - row), REAL(column_tile)(b, task % tiles), (real *)at,
                         (real *)(at + table_bytes), (real *)(at + table_bytes + sums_bytes));
    }
  }
  return FA_OK;
}

/* ---- grad_weight: for each piece of each output, over the rows that it won, x */

/* What a task keeps of its outputs while it walks the tiles of columns: for each output grad_y and the
 * winners of every 64 rows. */
struct REAL(winners) {
  real *grad;     /* [CHUNK_OUTPUTS][blocks * 64] */
  uint64_t *rows; /* [CHUNK_OUTPUTS][blocks][pieces] */
  real *sums;     /* [CHUNK_OUTPUTS][pieces][width], of a run */
  real *total;    /* the same, of all runs */
};

static void REAL(find_winners)(const struct REAL(backward) * b, int64_t output, int64_t outputs,
                               const struct REAL(winners) * w) {
  int64_t blocks = ceil_div(b->rows, TABLE_ROWS);
  for (int64_t block = 0; block < blocks; block++) {
    int64_t row = block * TABLE_ROWS, rows = smaller(TABLE_ROWS, b->rows - row);
    uint8_t argmax[CHUNK_OUTPUTS][TABLE_ROWS];
    for (int64_t r = 0; r < rows; r++) {
      const real *grad_y = b->grad_y + (row + r) * b->out_features + output;
      const uint8_t *from = b->argmax + (row + r) * b->out_features + output;
      for (int64_t j = 0; j < outputs; j++) {
        w->grad[(j * blocks + block) * TABLE_ROWS + r] = grad_y[j];
        argmax[j][r] = from[j];
      }
    }
    uint64_t inside = rows == TABLE_ROWS ? ~(uint64_t)0 : ((uint64_t)1 << rows) - 1;
    for (int64_t j = 0; j < outputs; j++) {
      uint64_t *sets = w->rows + (j * blocks + block) * b->pieces;
      if (rows < TABLE_ROWS) memset(argmax[j] + rows, 0, (size_t)(TABLE_ROWS - rows));
      b->kernels->winner_sets(b->pieces, argmax[j], sets);
      sets[0] &= inside;
    }
  }
}

/* grad_weight of some outputs and one tile of columns; x_tile [rows][width] */
static void REAL(grad_weight_block)(const struct REAL(backward) * b, int64_t output, int64_t outputs,
                                    struct REAL(columns) tile, const real *x_tile, const struct REAL(winners) * w) {
  int64_t width = tile.vectors * b->kernels->lanes, blocks = ceil_div(b->rows, TABLE_ROWS);
  int64_t run_blocks = DEPTH_CUT / TABLE_ROWS, group = b->pieces * width;
  int one_run = blocks <= run_blocks;
  for (int64_t run = 0; run < blocks; run += run_blocks) {
    for (int64_t block = run; block < smaller(run + run_blocks, blocks); block++)
      b->kernels->sum_won[tile.vectors](&(struct REAL(won)){
          .outputs = outputs,
          .pieces = b->pieces,
          .table = x_tile + block * TABLE_ROWS * width,
          .grad = w->grad + block * TABLE_ROWS,
          .grad_stride = blocks * TABLE_ROWS,
          .rows = w->rows + block * b->pieces,
          .rows_stride = blocks * b->pieces,
          .add = block > run,
          .sums = w->sums,
      });
    if (!one_run) REAL(add_run)(outputs * group, w->sums, run == 0, w->total);
  }
  if (blocks == 0) memset(w->sums, 0, (size_t)(outputs * group) * sizeof(real));
  REAL(deliver)(outputs * b->pieces, tile.count, one_run ? w->sums : w->total, width, b->accumulate,
                b->grad_weight + output * b->pieces * b->in_features + tile.start, b->in_features);
}

static int REAL(backward_weight)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b), lanes = b->kernels->lanes;
  if (tiles * b->out_features == 0) return FA_OK;
  threads = threads_for(threads, (b->rows + b->pieces) * b->out_features * b->in_features);
  int64_t chunk = smaller(CHUNK_OUTPUTS, ceil_div(b->out_features, threads > 1 ? 2 * threads : 1));
  int64_t chunks = ceil_div(b->out_features, chunk), blocks = ceil_div(b->rows, TABLE_ROWS);
  size_t x_bytes = aligned((size_t)(b->rows * ceil_div(b->in_features, lanes) * lanes) * sizeof(real));
  size_t grad_bytes = (size_t)(chunk * blocks * TABLE_ROWS) * sizeof(real);
  size_t set_bytes = aligned((size_t)(chunk * blocks * b->pieces) * sizeof(uint64_t));
  size_t sums_bytes = (size_t)(chunk * b->pieces * MAX_WINNER_VECTORS * lanes) * sizeof(real);
  size_t room = aligned(grad_bytes) + set_bytes + 2 * aligned(sums_bytes);
  char *memory = scratch(SCRATCH_KERNEL, x_bytes + (size_t)threads * room);
  if (!memory) return FA_NO_MEMORY;
  real *x = (real *)memory; /* tile after tile, [rows][width] each */
  int next_room = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    int mine;
#pragma omp atomic capture
    mine = next_room++;
    char *at = memory + x_bytes + (size_t)mine * room;
    struct REAL(winners) w = {.grad = (real *)at};
    w.rows = (uint64_t *)(at += aligned(grad_bytes));
    w.sums = (real *)(at += set_bytes);
    w.total = (real *)(at + aligned(sums_bytes));
#pragma omp for
    for (int64_t t = 0; t < tiles; t++) {
      struct REAL(columns) tile = REAL(column_tile)(b, t);
      REAL(pack_table)(b->rows, tile.count, b->x + tile.start, b->in_features, tile.vectors * lanes,
                       x + b->rows * tile.start);
    }
#pragma omp for schedule(dynamic)
    for (int64_t c = 0; c < chunks; c++) {
      int64_t output = c * chunk, outputs = smaller(chunk, b->out_features - output);
      REAL(find_winners)(b, output, outputs, &w);
      for (int64_t t = 0; t < tiles; t++) {
        struct REAL(columns) tile = REAL(column_tile)(b, t);
        REAL(grad_weight_block)(b, output, outputs, tile, x + b->rows * tile.start, &w);
      }
    }
  }
  return FA_OK;
}

int REAL(fa_linear_maxout_backward)(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                                    const real *grad_y, const real *x, const real *weight, const uint8_t *argmax,
                                    real *grad_x, real *grad_weight, real *grad_bias, int accumulate, int threads,
                                    int precision) {
  (void)precision; /* the float32 kernels serve every tier */
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
