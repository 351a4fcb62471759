#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "argmax.h"
#include "fastact_abi.h"
#include "grad_bias.h"
#include "kernels.h"
#include "outer_products.h"
#include "product.h"
#include "sizes.h"
#include "threads.h"

/* Rows of grad_x that share a packed table of weights; their sums stay in L2. */
#define CHUNK_ROWS 1024
/* Packing the weights of a table takes as long as the sums of so many rows for each piece (AVX-512). */
#define PACK_ROWS 3
/* Pieces of grad_weight that share a packed table of x; their sums stay in L2. */
#define CHUNK_UNITS 512
/* And for each of few rows, so that a tile of columns comes back to cache lines and pages that the one before it
 * touched: grad_weight of (1, 1024, 1024, 2) took 573 us with 512 pieces, 491, 426, 433 and 439 with 4, 8, 16 and 32;
 * of 4 rows 653, and 547, 513, 522 and 546 (Xeon, family 6 model 207). */
#define CHUNK_UNITS_A_ROW 8
/* The most outputs of a table of weights, so the most terms of one sum of grad_x: with 256, and for 16 columns up to
 * 640, it had up to 2.4 times the error of NumPy's product; with 64 up to 1.5, with 32 up to 1.2 (8 rows of 16 pieces)
 * and mostly 0.4 to 0.9 times.  (1000, 16, 640, 1) took 654, 502 and 479 us, (1024, 32, 512, 2) 485, 426 and 411,
 * (1024, 96, 256, 1) 302, 303 and 317 (Zen 5, AVX-512). */
#define TABLE_OUTPUTS 32
/* Numbers of a gradient that a task adds. */
#define ADD_BLOCK 65536
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
  const struct isa *isa;
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

/* What a thread works with: a packed table, the sums of one run of tables, and those of all runs. */
struct REAL(room) {
  real *table, *run, *total;
};

/* Where the sums of table t of `tables` go: those of the last one are the gradient (n, columns), rows in_features apart
 */
static struct REAL(sums) REAL(sums_to)(const struct REAL(backward) * b, const struct REAL(room) * room, int64_t t,
                                       int64_t tables, struct REAL(columns) tile, int accumulate, real *gradient) {
  int last = t == tables - 1, run_ends = last || t % RUN_TABLES == RUN_TABLES - 1;
  return (struct REAL(sums)){
      .run = t % RUN_TABLES ? room->run : NULL,
      .total = run_ends && t >= RUN_TABLES ? room->total : NULL,
      .to = last       ? gradient
            : run_ends ? room->total
                       : room->run,
      .to_stride = last ? b->in_features : tile.width,
      .columns = last ? tile.count : tile.width,
      .accumulate = last && accumulate,
  };
}

/* What the threads of one gradient share. */
struct REAL(gradient_job) {
  const struct REAL(backward) * b;
  int64_t chunk; /* rows of grad_x, or outputs of grad_weight */
  char *rooms;   /* one for each thread */
  size_t room_bytes;
  /* of the parts of a room: of grad_weight's alone the first two */
  size_t grad_bytes, set_bytes, table_bytes, sums_bytes;
};

static struct REAL(room) REAL(room_at)(const struct REAL(gradient_job) * job, char *at) {
  return (struct REAL(room)){
      .table = (real *)at,
      .run = (real *)(at + job->table_bytes),
      .total = (real *)(at + job->table_bytes + job->sums_bytes),
  };
}

/* ---- grad_x: for each row, over the outputs, the winner's weights */

/* grad_x of some rows and one tile of columns */
static void REAL(grad_x_block)(const struct REAL(backward) * b, int64_t row, int64_t rows, struct REAL(columns) tile,
                               const struct REAL(room) * room) {
  int64_t outputs = b->out_features, table_rows = TABLE_ROWS * b->kernels->winner_vectors / tile.vectors;
  /* where few rows would use a packed table about once, the weights are their own, if no vector reaches beyond them;
   * all the rows count, not those of a chunk, since the cut of a sum must not depend on the number of threads */
  int packed = b->rows > b->pieces || tile.count < tile.width;
  int64_t most = packed ? larger(1, table_rows / b->pieces) : TABLE_OUTPUTS;
  int64_t tables = ceil_div(outputs, smaller(most, TABLE_OUTPUTS));
  for (int64_t t = 0; t < tables; t++) {
    int64_t j = t * outputs / tables, taken = (t + 1) * outputs / tables - j;
    const real *weight = b->weight + j * b->pieces * b->in_features + tile.start;
    if (packed) b->kernels->pack_table(taken * b->pieces, tile.count, weight, b->in_features, tile.width, room->table);
    b->kernels->sum_chosen[tile.vectors](&(struct REAL(chosen)){
        .rows = rows,
        .outputs = taken,
        .pieces = b->pieces,
        .table = packed ? room->table : weight,
        .table_stride = packed ? tile.width : b->in_features,
        .grad = b->grad_y + row * outputs + j,
        .argmax = b->argmax + row * outputs + j,
        .argmax_end = b->argmax + b->rows * outputs,
        .row_stride = outputs,
        .sums = REAL(sums_to)(b, room, t, tables, tile, 0, b->grad_x + row * b->in_features + tile.start),
    });
  }
}

static void REAL(grad_x_task)(void *context, int64_t task, int64_t thread) {
  const struct REAL(gradient_job) *job = context;
  const struct REAL(backward) *b = job->b;
  struct REAL(room) room = REAL(room_at)(job, job->rooms + (size_t)thread * job->room_bytes);
  int64_t tiles = REAL(column_tiles)(b), row = task / tiles * job->chunk;
  REAL(grad_x_block)(b, row, smaller(job->chunk, b->rows - row), REAL(column_tile)(b, task % tiles), &room);
}

/* Into how many chunks to cut the rows so that the thread with the most to do has the least; each chunk packs all the
 * weights. */
static int64_t REAL(row_chunks)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b), fewest = ceil_div(b->rows, CHUNK_ROWS), best = fewest, least = INT64_MAX;
  for (int64_t chunks = fewest; chunks <= smaller(b->rows, fewest + 2 * (threads - 1)); chunks++) {
    int64_t cost = ceil_div(tiles * chunks, threads) * (ceil_div(b->rows, chunks) + PACK_ROWS * b->pieces);
    if (cost < least) {
      least = cost;
      best = chunks;
    }
  }
  return best;
}

static int REAL(backward_x)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b);
  if (b->out_features == 0) memset(b->grad_x, 0, (size_t)(b->rows * b->in_features) * sizeof(real));
  if (tiles * b->rows * b->out_features == 0) return FA_OK;
  threads = threads_for(threads, (ceil_div(b->rows, 4) + b->pieces) * (b->out_features + 1) * b->in_features);
  int64_t chunk = ceil_div(b->rows, REAL(row_chunks)(b, threads));
  size_t width = (size_t)(b->kernels->winner_vectors * b->kernels->lanes) * sizeof(real);
  struct REAL(gradient_job) job = {
      .b = b,
      .chunk = chunk,
      .table_bytes = (size_t)larger(TABLE_ROWS, b->pieces) * width,
      .sums_bytes = (size_t)chunk * width,
  };
  job.room_bytes = job.table_bytes + 2 * job.sums_bytes;
  job.rooms = scratch(SCRATCH_KERNEL, (size_t)threads * job.room_bytes);
  if (!job.rooms) return FA_NO_MEMORY;
  queue_tasks(tiles * ceil_div(b->rows, chunk), threads, REAL(grad_x_task), &job);
  release_scratch(SCRATCH_KERNEL);
  return FA_OK;
}

/* ---- grad_weight: for each piece of each output, over the rows that it won, x */

/* The rows are walked in blocks of at most TABLE_ROWS, sizes alike. */
static int64_t REAL(row_blocks)(const struct REAL(backward) * b) { return ceil_div(b->rows, TABLE_ROWS); }
static int64_t REAL(block_start)(const struct REAL(backward) * b, int64_t block) {
  return block * b->rows / REAL(row_blocks)(b);
}

/* The rows seen from the outputs of a task, one block after the other.  Of all that a thread keeps this alone grows
 * with the batch: (1000000, 784, 240, 5) takes 0.3 GB of it. */
struct REAL(winners) {
  real *grad;     /* [blocks][outputs][TABLE_ROWS] */
  uint64_t *rows; /* [blocks][outputs][pieces] */
};

/* grad_weight of some outputs and one tile of columns */
static void REAL(grad_weight_block)(const struct REAL(backward) * b, int64_t output, int64_t outputs,
                                    struct REAL(columns) tile, const struct REAL(winners) * w,
                                    const struct REAL(room) * room) {
  int64_t units = outputs * b->pieces, blocks = REAL(row_blocks)(b);
  for (int64_t block = 0; block < blocks; block++) {
    int64_t row = REAL(block_start)(b, block), rows = REAL(block_start)(b, block + 1) - row;
    b->kernels->pack_table(rows, tile.count, b->x + row * b->in_features + tile.start, b->in_features, tile.width,
                           room->table);
    b->kernels->sum_won[tile.vectors](&(struct REAL(won)){
        .outputs = outputs,
        .pieces = b->pieces,
        .table = room->table,
        .grad = w->grad + block * outputs * TABLE_ROWS,
        .rows = w->rows + block * units,
        .sums = REAL(sums_to)(b, room, block, blocks, tile, b->accumulate,
                              b->grad_weight + output * b->pieces * b->in_features + tile.start),
    });
  }
}

static void REAL(grad_weight_task)(void *context, int64_t task, int64_t thread) {
  const struct REAL(gradient_job) *job = context;
  const struct REAL(backward) *b = job->b;
  char *at = job->rooms + (size_t)thread * job->room_bytes;
  struct REAL(winners) w = {.grad = (real *)at, .rows = (uint64_t *)(at + job->grad_bytes)};
  struct REAL(room) room = REAL(room_at)(job, at + job->grad_bytes + job->set_bytes);
  int64_t tiles = REAL(column_tiles)(b), blocks = REAL(row_blocks)(b);
  int64_t output = task * job->chunk, outputs = smaller(job->chunk, b->out_features - output);
  for (int64_t block = 0; block < blocks; block++) {
    int64_t row = REAL(block_start)(b, block), rows = REAL(block_start)(b, block + 1) - row;
    int64_t first = row * b->out_features + output;
    b->kernels->find_winners(rows, outputs, b->pieces, b->grad_y + first, b->argmax ? b->argmax + first : NULL,
                             b->out_features, w.grad + block * outputs * TABLE_ROWS,
                             w.rows + block * outputs * b->pieces);
  }
  for (int64_t t = 0; t < tiles; t++) REAL(grad_weight_block)(b, output, outputs, REAL(column_tile)(b, t), &w, &room);
}

static int REAL(backward_weight)(const struct REAL(backward) * b, int threads) {
  int64_t tiles = REAL(column_tiles)(b);
  if (b->rows == 0 && !b->accumulate)
    memset(b->grad_weight, 0, (size_t)(b->out_features * b->pieces * b->in_features) * sizeof(real));
  if (tiles * b->rows * b->out_features == 0) return FA_OK;
  threads = threads_for(threads, (ceil_div(b->rows, 4) + b->pieces) * b->out_features * b->in_features);
  int64_t chunks = ceil_div(b->out_features * b->pieces, smaller(CHUNK_UNITS, CHUNK_UNITS_A_ROW * b->rows));
  chunks = ceil_div(chunks, threads) * threads; /* as many for each thread: each chunk packs all of x */
  int64_t chunk = ceil_div(b->out_features, chunks), blocks = REAL(row_blocks)(b);
  size_t width = (size_t)(b->kernels->winner_vectors * b->kernels->lanes) * sizeof(real);
  struct REAL(gradient_job) job = {
      .b = b,
      .chunk = chunk,
      .grad_bytes = aligned((size_t)(chunk * blocks * TABLE_ROWS) * sizeof(real)),
      .set_bytes = aligned((size_t)(chunk * blocks * b->pieces) * sizeof(uint64_t)),
      .table_bytes = TABLE_ROWS * width,
      .sums_bytes = (size_t)(chunk * b->pieces) * width,
  };
  job.room_bytes = job.grad_bytes + job.set_bytes + job.table_bytes + 2 * job.sums_bytes;
  job.rooms = scratch(SCRATCH_KERNEL, (size_t)threads * job.room_bytes);
  if (!job.rooms) return FA_NO_MEMORY;
  queue_tasks(ceil_div(b->out_features, chunk), threads, REAL(grad_weight_task), &job);
  release_scratch(SCRATCH_KERNEL);
  return FA_OK;
}

/* ---- both as dense products over the gradient scattered over the winners */

/* Whether a product of so many rows and so much depth does it in less time than the sums over the winners.  In tenths
 * of the time of a term in a full float32 tile: the sums take 14 a term (166 GFLOP/s where tiles reach 240), but a
 * dense product has `pieces` times as many terms, and packing takes 280 for each weight.  That is 2 pieces on
 * AVX512-BF16, where (1024, 1024, 1024, 2) took 26.3 ms by the winners and 23.9 dense, (256, 512, 512, 2) 1.59
 * and 1.41, but (128, 1024, 1024, 2) 3.48 and 3.64 and (1024, 288, 96, 3) 715 and 966 us (Zen 5).  On AMX it is 2
 * pieces at "highest", 4 at "high" and about 10 at "medium": (1024, 1024, 1024, 2) took 22.7 ms by the winners' grad_x,
 * and dense 19.5, 12.3 and 5.9; (1024, 1024, 340, 3) 7.7, and 8.7, 5.4 and 3.1; (1024, 1024, 512, 4) 13.4, and 21, 13.4
 * and 5.8; (1024, 512, 256, 8) 4.1, and 10.4, 6.1 and 2.9 (Xeon, family 6 model 207). */
static int REAL(is_dense)(const struct REAL(backward) * b, int precision, int64_t rows, int64_t depth) {
  struct product_sizes sizes = {rows, depth, b->in_features, 1};
  const struct REAL(kernels) *tier = REAL(isa_tier)(b->isa, precision, &sizes);
  return tier->scatter && b->pieces * (tier->tile_tenths * b->rows + 280) < 14 * b->rows;
}

/* These two return PRODUCT_UNCARRIED where the winners' sums have to do it. */
static int REAL(dense_x)(const struct REAL(backward) * b, int precision, int threads) {
  if (!REAL(is_dense)(b, precision, b->rows, b->out_features * b->pieces)) return PRODUCT_UNCARRIED;
  struct REAL(scattered) s = {b->out_features, b->pieces, b->argmax, .transposed = 0};
  return REAL(product)(
      &(struct REAL(product)){
          .rows = b->rows,
          .depth = b->out_features * b->pieces,
          .columns = b->in_features,
          .pieces = 1,
          .left = b->grad_y,
          .scattered = &s,
          .right = b->weight,
          .right_column_stride = 1,
          .right_depth_stride = b->in_features,
          .y = b->grad_x,
          .isa = b->isa,
          .precision = precision,
      },
      threads);
}

struct REAL(addition) {
  int64_t n;
  const real *terms;
  real *sums;
};

static void REAL(add_block)(void *context, int64_t task) {
  const struct REAL(addition) *a = context;
  for (int64_t i = task * ADD_BLOCK; i < smaller(a->n, (task + 1) * ADD_BLOCK); i++) a->sums[i] += a->terms[i];
}

/* The sums that are to be added go elsewhere first: nothing may be added where the product turns out not to serve. */
static int REAL(dense_weight)(const struct REAL(backward) * b, int precision, int threads) {
  struct REAL(scattered) s = {b->out_features, b->pieces, b->argmax, .transposed = 1};
  int64_t units = b->out_features * b->pieces, count = units * b->in_features;
  if (!REAL(is_dense)(b, precision, units, b->rows)) return PRODUCT_UNCARRIED;
  real *y = b->accumulate ? scratch(SCRATCH_GRADIENT, (size_t)count * sizeof(real)) : b->grad_weight;
  if (!y) return FA_NO_MEMORY;
  int status = REAL(product)(
      &(struct REAL(product)){
          .rows = units,
          .depth = b->rows,
          .columns = b->in_features,
          .pieces = 1,
          .left = b->grad_y,
          .scattered = &s,
          .right = b->x,
          .right_column_stride = 1,
          .right_depth_stride = b->in_features,
          .y = y,
          .isa = b->isa,
          .precision = precision,
      },
      threads);
  if (b->accumulate && !status)
    share_tasks(ceil_div(count, ADD_BLOCK), threads_for(threads, count), REAL(add_block),
                &(struct REAL(addition)){count, y, b->grad_weight});
  if (b->accumulate) release_scratch(SCRATCH_GRADIENT);
  return status;
}

int REAL(outer_products)(int64_t rows, int64_t in_features, int64_t out_features, const real *grad_z, const real *x,
                         real *grad_weight, int accumulate, int threads) {
  const struct isa *isa = isa_active();
  return REAL(backward_weight)(
      &(struct REAL(backward)){
          .isa = isa,
          .kernels = isa->REAL(kernels),
          .rows = rows,
          .in_features = in_features,
          .out_features = out_features,
          .pieces = 1,
          .grad_y = grad_z,
          .x = x,
          .grad_weight = grad_weight,
          .accumulate = accumulate,
      },
      threads);
}

int REAL(fa_linear_maxout_backward)(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                                    const real *grad_y, const real *x, const real *weight, const uint8_t *argmax,
                                    real *grad_x, real *grad_weight, real *grad_bias, int accumulate, int threads,
                                    int precision) {
  if (!argmax_fits(rows * out_features, argmax, pieces)) return FA_BAD_ARGMAX;
  const struct isa *isa = isa_active();
  struct REAL(backward) b = {
      .isa = isa,
      .kernels = isa->REAL(kernels),
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
  if (grad_x) {
    status = REAL(dense_x)(&b, precision, threads);
    if (status & PRODUCT_UNCARRIED) status = REAL(backward_x)(&b, threads);
  }
  if (grad_weight && !status) {
    status = REAL(dense_weight)(&b, precision, threads);
    if (status & PRODUCT_UNCARRIED) status = REAL(backward_weight)(&b, threads);
  }
  if (grad_bias && !status)
    status = REAL(grad_bias)(rows, out_features, pieces, grad_y, argmax, accumulate, grad_bias, threads);
  return status;
}

#endif
