#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "product.h"

#include "fastact_abi.h"
#include "sizes.h"
#include "threads.h"

/* Bytes of packed rows that stay in L2 while panels of the right operand stream past them, and bytes of panels
 * that a task packs at once.  Together they leave room in 1 MiB of L2: (2048, 2048, 2048, 2) ran at 77 GFLOP/s with 128
 * and 640 KiB, at 74 with 256 and 384, of an FMA peak of 88 (Zen 4, AVX2, one thread). */
#define LEFT_BLOCK_BYTES (128 << 10)
#define RIGHT_BLOCK_BYTES (640 << 10)

#define REAL_BITS 32
#include "product.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product.c"
#else
#include "real.h"

/* How a product is cut.  A panel is the right operand for one vector of outputs with all its pieces, or for the linear
 * tile's vectors side by side; its pieces are walked in groups that fit the registers. */
struct REAL(plan) {
  const struct REAL(kernels) * kernels;
  int64_t depth;         /* padded to a multiple of 4 */
  int panel_vectors;     /* pieces, or the linear tile's vectors */
  int64_t panel_columns; /* outputs in a panel */
  int64_t panels;
  int groups;
  int64_t right_size;  /* reals of a packed panel, its bias included */
  int64_t row_chunk;   /* rows whose packed left operand stays in L2 */
  int64_t task_panels; /* panels of one task */
  int64_t task_rows;
};

/* What one thread works with: packed panels, and sums of the runs and groups so far. */
struct REAL(room) {
  real *right, *partial, *best, *index;
};

/* The part of a plan that does not depend on rows and threads: how the right operand is packed. */
static struct REAL(plan) REAL(plan_panels)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = {.kernels = kernels, .depth = (p->depth + 3) & ~(int64_t)3};
  int linear = p->pieces == 1;
  plan.panel_vectors = linear ? kernels->linear_vectors : p->pieces;
  plan.panel_columns = linear ? (int64_t)kernels->linear_vectors * kernels->lanes : kernels->lanes;
  plan.panels = ceil_div(p->columns, plan.panel_columns);
  plan.groups = linear ? 1 : (p->pieces + kernels->max_group - 1) / kernels->max_group;
  plan.right_size = (plan.depth + 1) * plan.panel_vectors * kernels->lanes;
  return plan;
}

static struct REAL(plan) REAL(make_plan)(const struct REAL(product) * p, int threads) {
  struct REAL(plan) plan = REAL(plan_panels)(p, p->packed ? p->packed->kernels : isa_active()->REAL(kernels));
  int64_t row_bytes = (plan.depth + 1) * (int64_t)sizeof(real);
  plan.row_chunk = ceil_div(smaller(p->rows, LEFT_BLOCK_BYTES / row_bytes + 1), ROW_BLOCK) * ROW_BLOCK;
  int64_t panel_bytes = plan.right_size * (int64_t)sizeof(real);
  int64_t fitting = RIGHT_BLOCK_BYTES / panel_bytes + 1;
  /* several tasks a thread, so that they finish together */
  plan.task_panels = threads > 1 ? smaller(fitting, ceil_div(plan.panels, 4 * threads)) : smaller(fitting, plan.panels);
  plan.task_rows = p->rows;
  int64_t column_tasks = ceil_div(plan.panels, plan.task_panels);
  if (column_tasks < threads) /* few columns: share the rows as well */
    plan.task_rows = ceil_div(ceil_div(p->rows, ceil_div(2 * threads, column_tasks)), ROW_BLOCK) * ROW_BLOCK;
  return plan;
}

/* The pieces of group g: [start, start + size), sizes alike. */
static int REAL(group_start)(const struct REAL(plan) * plan, int group) {
  return group * plan->panel_vectors / plan->groups;
}

static void REAL(pack_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t panel, real *dst) {
  int lanes = plan->kernels->lanes, linear = p->pieces == 1;
  int64_t column = panel * plan->panel_columns, columns = smaller(plan->panel_columns, p->columns - column);
  int64_t vector_stride = linear ? lanes * p->right_column_stride : p->right_piece_stride;
  const real *src = p->right + column * p->right_column_stride;
  for (int g = 0; g < plan->groups; g++) {
    int start = REAL(group_start)(plan, g), vectors = REAL(group_start)(plan, g + 1) - start;
    plan->kernels->pack_right(vectors, linear, columns, p->depth, src + start * p->right_piece_stride, vector_stride,
                              p->right_column_stride, p->right_depth_stride, dst);
    dst += plan->depth * vectors * lanes;
  }
  for (int v = 0; v < plan->panel_vectors; v++) /* the bias, after the panel's weights */
    for (int l = 0; l < lanes; l++) {
      int64_t at = linear ? v * lanes + l : l;
      dst[v * lanes + l] = p->bias && at < columns ? p->bias[(column + at) * p->pieces + (linear ? 0 : v)] : 0;
    }
}

/* One panel against the packed rows [row, row + rows): runs of depth outside, tiles inside, so that the panel's run
 * stays in L1 while the tiles pass over it. */
static void REAL(multiply_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, const real *left,
                                 int64_t row, int64_t rows, int64_t panel, const real *right,
                                 const struct REAL(room) * room) {
  const struct REAL(kernels) *kernels = plan->kernels;
  int lanes = kernels->lanes;
  int64_t column = panel * plan->panel_columns;
  const real *bias = right + plan->depth * plan->panel_vectors * lanes;
  for (int g = 0; g < plan->groups; g++) {
    int start = REAL(group_start)(plan, g), vectors = REAL(group_start)(plan, g + 1) - start;
    int tile_rows = kernels->tile_rows[vectors];
    void (*tile)(const struct REAL(tile) *) = p->pieces == 1 ? kernels->linear_tile : kernels->maxout_tile[vectors];
    struct REAL(tile) t = {
        .first_run = 1,
        .bias = bias + start * lanes,
        .columns = p->columns - column,
        .y_stride = p->columns,
        .accumulate = p->accumulate,
        .piece = start,
        .last_group = g == plan->groups - 1,
    };
    int64_t depth = 0;
    do {
      t.depth = smaller(DEPTH_CUT, plan->depth - depth);
      t.right = right + (plan->depth * start + depth * vectors) * lanes;
      t.last_run = depth + t.depth == plan->depth;
      t.partial = room->partial;
      for (int64_t r = 0; r < rows; r += tile_rows) {
        int64_t block = (row + r) / ROW_BLOCK, within = (row + r) % ROW_BLOCK;
        t.left = left + (block * plan->depth + depth) * ROW_BLOCK + within * 4;
        t.rows = rows - r;
        t.y = p->y + (row + r) * p->columns + column;
        t.argmax = p->argmax ? p->argmax + (row + r) * p->columns + column : NULL;
        t.best = room->best + r * lanes;
        t.index = room->index + r * lanes;
        tile(&t);
        t.partial += tile_rows * vectors * lanes;
      }
      t.first_run = 0;
      depth += t.depth;
    } while (depth < plan->depth);
  }
}

/* A task: some panels against some rows. */
static void REAL(run_task)(const struct REAL(product) * p, const struct REAL(plan) * plan, const real *left,
                           int64_t task, const struct REAL(room) * room) {
  int64_t column_tasks = ceil_div(plan->panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels, last = smaller(first + plan->task_panels, plan->panels);
  int64_t row = task / column_tasks * plan->task_rows, end = smaller(row + plan->task_rows, p->rows);
  const real *right = room->right;
  if (p->packed) right = p->packed->panels + first * plan->right_size;
  for (int64_t panel = first; panel < last && !p->packed; panel++)
    REAL(pack_panel)(p, plan, panel, room->right + (panel - first) * plan->right_size);
  for (; row < end; row += plan->row_chunk) {
    int64_t rows = smaller(plan->row_chunk, end - row);
    for (int64_t panel = first; panel < last; panel++)
      REAL(multiply_panel)(p, plan, left, row, rows, panel, right + (panel - first) * plan->right_size, room);
    if (p->after) {
      int64_t column = first * plan->panel_columns;
      p->after(p->after_context, row, rows, column, smaller(last * plan->panel_columns, p->columns) - column);
    }
  }
}

/* y and argmax of one output for one row, from its pieces' sums `sum_stride` apart */
static void REAL(finish_group)(int64_t pieces, const real *sums, int64_t sum_stride, const real *bias, real *y,
                               uint8_t *argmax) {
  real best = sums[0] + (bias ? bias[0] : 0);
  int64_t index = 0;
  for (int64_t k = 1; k < pieces; k++) {
    real z = sums[k * sum_stride] + (bias ? bias[k] : 0);
    if (best == best && !(z <= best)) { /* larger, or the first NaN */
      best = z;
      index = k;
    }
  }
  *y = best;
  if (argmax) *argmax = (uint8_t)index;
}

/* A few rows against weights whose depth is contiguous: nothing is packed. */
static int REAL(is_few_rows)(const struct REAL(product) * p) {
  return p->rows <= MAX_DOT_ROWS && p->left_depth_stride == 1 && p->left_row_stride == p->depth &&
         p->right_depth_stride == 1 && p->right_column_stride == p->pieces * p->depth && !p->accumulate && !p->packed;
}

static void REAL(few_rows)(const struct REAL(product) * p, int threads) {
  (void)threads; /* unused without OpenMP */
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t j = 0; j < p->columns; j++) {
    real sums[MAX_PIECES * MAX_DOT_ROWS]; /* [pieces][rows] */
    kernels->dots(p->rows, p->pieces, p->depth, p->left, p->right + j * p->right_column_stride, sums);
    for (int64_t n = 0; n < p->rows; n++)
      REAL(finish_group)(p->pieces, sums + n, p->rows, p->bias ? p->bias + j * p->pieces : NULL,
                         p->y + n * p->columns + j, p->argmax ? p->argmax + n * p->columns + j : NULL);
  }
  if (p->after) p->after(p->after_context, 0, p->rows, 0, p->columns);
}

size_t REAL(packed_bytes)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels);
  return (size_t)(plan.panels * plan.right_size) * sizeof(real);
}

void REAL(pack)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, real *panels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels);
  for (int64_t panel = 0; panel < plan.panels; panel++)
    REAL(pack_panel)(p, &plan, panel, panels + panel * plan.right_size);
}

int REAL(product)(const struct REAL(product) * p, int threads) {
  if (p->rows == 0 || p->columns == 0) return FA_OK;
  threads = threads_for(threads, p->rows * p->columns * p->pieces * (p->depth + 1));
  if (REAL(is_few_rows)(p)) {
    REAL(few_rows)(p, threads);
    return FA_OK;
  }
  struct REAL(plan) plan = REAL(make_plan)(p, threads);
  int64_t lanes = plan.kernels->lanes, row_blocks = ceil_div(p->rows, ROW_BLOCK);
  int64_t tasks = ceil_div(plan.panels, plan.task_panels) * ceil_div(p->rows, plan.task_rows);

  size_t left_bytes = aligned((size_t)(row_blocks * ROW_BLOCK * plan.depth) * sizeof(real));
  size_t right_bytes = p->packed ? 0 : aligned((size_t)(plan.task_panels * plan.right_size) * sizeof(real));
  size_t chunk_bytes = aligned((size_t)(plan.row_chunk * lanes) * sizeof(real));
  size_t room_bytes = right_bytes + (MAX_TILE_VECTORS + 2) * chunk_bytes;
  char *memory = scratch(SCRATCH_KERNEL, left_bytes + (size_t)threads * room_bytes);
  if (!memory) return FA_NO_MEMORY;
  real *left = (real *)memory;
#ifndef _OPENMP
  threads = 1;
#endif
  int64_t next_room = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    int64_t mine;
#pragma omp atomic capture
    mine = next_room++;
    char *at = memory + left_bytes + (size_t)mine * room_bytes;
    struct REAL(room) room = {.right = (real *)at, .partial = (real *)(at + right_bytes)};
    room.best = (real *)(at + right_bytes + MAX_TILE_VECTORS * chunk_bytes);
    room.index = (real *)(at + right_bytes + (MAX_TILE_VECTORS + 1) * chunk_bytes);
#pragma omp for
    for (int64_t b = 0; b < row_blocks; b++)
      plan.kernels->pack_left(smaller(ROW_BLOCK, p->rows - b * ROW_BLOCK), p->depth,
                              p->left + b * ROW_BLOCK * p->left_row_stride, p->left_row_stride, p->left_depth_stride,
                              left + b * ROW_BLOCK * plan.depth);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) REAL(run_task)(p, &plan, left, task, &room);
  }
  return FA_OK;
}

#endif
