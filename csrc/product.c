#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "product.h"

#include <stdatomic.h>

#include "fastact_abi.h"
#include "sizes.h"
#include "threads.h"

/* Bytes of the left operand's rows that stay in L2 while panels of the right operand stream past them, and bytes of
 * panels that a task packs at once. */
#define LEFT_BLOCK_BYTES (256 << 10)
#define RIGHT_BLOCK_BYTES (384 << 10)

/* Rows this many bytes apart fall into one set of an L1 cache of 4 KiB a way; a lower tile leaves room there. */
#define L1_WAY_BYTES 4096
#define MAX_CONFLICTING_ROWS 6

/* Rows that a thread transposes at once. */
#define TRANSPOSED_ROWS 64

/* The most rows for which nothing is packed, and the most outputs. */
#define MAX_DOT_ROWS 4
#define MAX_DOT_COLUMNS 4
/* Rows of a task of dots, and units, unless one output has more. */
#define DOT_TASK_ROWS 64
#define DOT_TASK_UNITS 32

#define REAL_BITS 32
#include "product.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product.c"
#else
#include "real.h"

/* How a product is cut.  A panel is the right operand for some outputs: one vector of them with all its pieces, or for
 * pieces == 1 some vectors side by side.  Its pieces are walked in groups that fit the registers. */
struct REAL(plan) {
  const struct REAL(kernels) * kernels;
  int64_t run;       /* depth of a partial sum */
  int panel_vectors; /* the most of a panel */
  int64_t panels;
  int groups;          /* of pieces */
  int64_t right_size;  /* reals of a packed panel, its bias included */
  int64_t row_chunk;   /* rows of the left operand that stay in L2 */
  int64_t task_panels; /* panels of one task */
  int64_t task_rows;
  int64_t tasks;
  const real *left; /* depth contiguous */
  int64_t left_stride;
};

/* What the threads of one product share. */
struct REAL(job) {
  const struct REAL(product) * p;
  struct REAL(plan) plan;
  real *packed_left; /* or NULL: it is read in place */
  char *rooms;       /* one for each thread: packed panels, then sums */
  size_t room_bytes, right_bytes;
  atomic_llong next_left, next_task, next_room;
};

struct REAL(panel) {
  int64_t column, columns; /* columns inside the result; the vectors may reach beyond */
  int vectors;
};

static struct REAL(panel)
    REAL(panel_at)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t index) {
  int64_t lanes = plan->kernels->lanes, vectors = ceil_div(p->columns, lanes);
  int64_t first = index * vectors / plan->panels, last = (index + 1) * vectors / plan->panels;
  return (struct REAL(panel)){
      .column = first * lanes,
      .columns = smaller(last * lanes, p->columns) - first * lanes,
      .vectors = p->pieces == 1 ? (int)(last - first) : p->pieces,
  };
}

/* The part of a plan that does not depend on rows and threads: how the right operand is packed. */
static struct REAL(plan) REAL(plan_panels)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = {.kernels = kernels};
  int linear = p->pieces == 1;
  int64_t vectors = ceil_div(p->columns, kernels->lanes);
  plan.panel_vectors = linear ? kernels->linear_vectors : p->pieces;
  plan.panels = linear ? ceil_div(vectors, kernels->linear_vectors) : vectors;
  plan.groups = linear ? 1 : (p->pieces + kernels->max_vectors - 1) / kernels->max_vectors;
  plan.right_size = (p->depth + 1) * plan.panel_vectors * kernels->lanes;
  return plan;
}

static struct REAL(plan) REAL(make_plan)(const struct REAL(product) * p, int threads) {
  struct REAL(plan) plan = REAL(plan_panels)(p, p->packed ? p->packed->kernels : isa_active()->REAL(kernels));
  plan.run = ceil_div(p->depth, larger(1, ceil_div(p->depth, DEPTH_CUT)));
  plan.left = p->left;
  plan.left_stride = p->left_row_stride;
  int64_t fitting = RIGHT_BLOCK_BYTES / (plan.right_size * (int64_t)sizeof(real)) + 1;
  /* several tasks a thread, so that they finish together */
  plan.task_panels = threads > 1 ? smaller(fitting, ceil_div(plan.panels, 4 * threads)) : smaller(fitting, plan.panels);
  int64_t column_tasks = ceil_div(plan.panels, plan.task_panels), row_tasks = 1;
  if (column_tasks < threads) /* few columns: share the rows as well */
    row_tasks = smaller(p->rows, ceil_div(2 * threads, column_tasks));
  plan.task_rows = ceil_div(p->rows, row_tasks);
  plan.tasks = column_tasks * ceil_div(p->rows, plan.task_rows);

  int64_t most = LEFT_BLOCK_BYTES / ((p->depth + 1) * (int64_t)sizeof(real)) + MAX_TILE_ROWS;
  plan.row_chunk = ceil_div(plan.task_rows, ceil_div(plan.task_rows, most));
  return plan;
}

/* The pieces of group g: [start, start + size), sizes alike. */
static int REAL(group_start)(const struct REAL(plan) * plan, int vectors, int group) {
  return group * vectors / plan->groups;
}

static void REAL(pack_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t index, real *dst) {
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  int lanes = plan->kernels->lanes, linear = p->pieces == 1;
  int64_t vector_stride = linear ? lanes * p->right_column_stride : p->right_piece_stride;
  real *bias = dst + p->depth * panel.vectors * lanes; /* after the panel's weights */
  for (int g = 0; g < plan->groups; g++) {
    int start = REAL(group_start)(plan, panel.vectors, g), end = REAL(group_start)(plan, panel.vectors, g + 1);
    int stride = (end - start) * lanes;
    for (int v = start; v < end; v++) {
      const real *src = p->right + panel.column * p->right_column_stride + v * vector_stride;
      real *to = dst + p->depth * start * lanes + (v - start) * lanes;
      int64_t columns = smaller(lanes, panel.columns - (linear ? v * lanes : 0));
      if (p->right_column_stride == 1)
        plan->kernels->copy_lanes(p->depth, columns, src, p->right_depth_stride, to, stride);
      else
        plan->kernels->transpose(columns, p->depth, src, p->right_column_stride, to, stride);
      for (int l = 0; l < lanes; l++) {
        int64_t column = panel.column + (linear ? v * lanes : 0) + l;
        bias[v * lanes + l] = p->bias && l < columns ? p->bias[column * p->pieces + (linear ? 0 : v)] : 0;
      }
    }
  }
}

/* One panel against the rows [row, row + rows): runs of depth outside, tiles inside, so that the panel's run stays in
 * L1 while the tiles pass over it. */
static void REAL(multiply_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t row,
                                 int64_t rows, int64_t index, const real *right, real *sums) {
  const struct REAL(kernels) *kernels = plan->kernels;
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  int64_t lanes = kernels->lanes, sums_stride = panel.vectors * lanes;
  int conflicting = plan->left_stride * (int64_t)sizeof(real) % L1_WAY_BYTES == 0;
  void (*finish)(const struct REAL(finish) *) = p->pieces == 1 ? kernels->finish_linear : kernels->finish_maxout;
  for (int g = 0; g < plan->groups; g++) {
    int start = REAL(group_start)(plan, panel.vectors, g);
    int vectors = REAL(group_start)(plan, panel.vectors, g + 1) - start;
    int64_t most = smaller(kernels->tile_rows[vectors], conflicting ? MAX_CONFLICTING_ROWS : MAX_TILE_ROWS);
    int64_t tiles = ceil_div(rows, most), depth = 0; /* heights alike */
    do {
      struct REAL(tile) tile = {
          .depth = smaller(plan->run, p->depth - depth),
          .right = right + (p->depth * start + depth * vectors) * lanes,
          .left_stride = plan->left_stride,
          .sums_stride = sums_stride,
          .add = depth > 0,
      };
      int last = g == plan->groups - 1 && depth + tile.depth == p->depth;
      for (int64_t t = 0; t < tiles; t++) {
        int64_t first = t * rows / tiles, height = (t + 1) * rows / tiles - first;
        tile.left = plan->left + (row + first) * plan->left_stride + depth;
        tile.sums = sums + first * sums_stride + start * lanes;
        kernels->multiply[vectors][height](&tile);
        if (last)
          finish(&(struct REAL(finish)){
              .rows = height,
              .vectors = panel.vectors,
              .sums = sums + first * sums_stride,
              .bias = right + p->depth * sums_stride,
              .columns = panel.columns,
              .y = p->y + (row + first) * p->columns + panel.column,
              .y_stride = p->columns,
              .accumulate = p->accumulate,
              .argmax = p->argmax ? p->argmax + (row + first) * p->columns + panel.column : NULL,
          });
      }
      depth += tile.depth;
    } while (depth < p->depth);
  }
}

/* A task: some panels against some rows. */
static void REAL(run_task)(const struct REAL(job) * job, int64_t task, real *packed, real *sums) {
  const struct REAL(product) *p = job->p;
  const struct REAL(plan) *plan = &job->plan;
  int64_t column_tasks = ceil_div(plan->panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels, last = smaller(first + plan->task_panels, plan->panels);
  int64_t row = task / column_tasks * plan->task_rows, end = smaller(row + plan->task_rows, p->rows);
  const real *right = p->packed ? p->packed->panels + first * plan->right_size : packed;
  for (int64_t i = first; i < last && !p->packed; i++)
    REAL(pack_panel)(p, plan, i, packed + (i - first) * plan->right_size);
  for (; row < end; row += plan->row_chunk) {
    int64_t rows = smaller(plan->row_chunk, end - row);
    for (int64_t i = first; i < last; i++)
      REAL(multiply_panel)(p, plan, row, rows, i, right + (i - first) * plan->right_size, sums);
    if (p->after) {
      struct REAL(panel) from = REAL(panel_at)(p, plan, first), to = REAL(panel_at)(p, plan, last - 1);
      p->after(p->after_context, row, rows, from.column, to.column + to.columns - from.column);
    }
  }
}

/* What each thread does: its share of the packing of the left operand, then of the tasks. */
static void REAL(work)(struct REAL(job) * job) {
  const struct REAL(product) *p = job->p;
  const struct REAL(plan) *plan = &job->plan;
  char *room = job->rooms + (size_t)atomic_fetch_add(&job->next_room, 1) * job->room_bytes;
  real *packed = (real *)room, *sums = (real *)(room + job->right_bytes);
  if (job->packed_left) {
    for (int64_t row; (row = atomic_fetch_add(&job->next_left, TRANSPOSED_ROWS)) < p->rows;)
      plan->kernels->transpose(p->depth, smaller(TRANSPOSED_ROWS, p->rows - row), p->left + row, p->left_depth_stride,
                               job->packed_left + row * plan->left_stride, plan->left_stride);
#pragma omp barrier
  }
  for (int64_t task; (task = atomic_fetch_add(&job->next_task, 1)) < plan->tasks;)
    REAL(run_task)(job, task, packed, sums);
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

/* Few rows or few outputs, both operands' depth contiguous: nothing is packed. */
static int REAL(is_dots)(const struct REAL(product) * p) {
  return (p->rows <= MAX_DOT_ROWS || p->columns <= MAX_DOT_COLUMNS) && p->left_depth_stride == 1 &&
         p->right_depth_stride == 1 && !p->accumulate && !p->packed;
}

/* Some columns for some rows. */
static void REAL(dots_task)(const struct REAL(product) * p, int64_t row, int64_t rows, int64_t column,
                            int64_t columns) {
  real sums[MAX_PIECES * DOT_TASK_ROWS]; /* [columns][pieces][rows] */
  int64_t unit_stride = p->pieces == 1 ? p->right_column_stride : p->right_piece_stride;
  isa_active()->REAL(kernels)->dots(&(struct REAL(dots)){
      .rows = rows,
      .units = columns * p->pieces,
      .depth = p->depth,
      .x = p->left + row * p->left_row_stride,
      .x_stride = p->left_row_stride,
      .w = p->right + column * p->right_column_stride,
      .w_stride = unit_stride,
      .sums = sums,
      .sums_stride = rows,
  });
  for (int64_t n = 0; n < rows; n++)
    for (int64_t j = 0; j < columns; j++) {
      int64_t at = (row + n) * p->columns + column + j;
      REAL(finish_group)(p->pieces, sums + j * p->pieces * rows + n, rows,
                         p->bias ? p->bias + (column + j) * p->pieces : NULL, p->y + at,
                         p->argmax ? p->argmax + at : NULL);
    }
}

static void REAL(all_dots)(const struct REAL(product) * p, int threads) {
  (void)threads; /* unused without OpenMP */
  int64_t columns = larger(1, DOT_TASK_UNITS / p->pieces), column_tasks = ceil_div(p->columns, columns);
  int64_t tasks = column_tasks * ceil_div(p->rows, DOT_TASK_ROWS);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < tasks; task++) {
    int64_t row = task / column_tasks * DOT_TASK_ROWS, column = task % column_tasks * columns;
    REAL(dots_task)(p, row, smaller(DOT_TASK_ROWS, p->rows - row), column, smaller(columns, p->columns - column));
  }
  if (p->after) p->after(p->after_context, 0, p->rows, 0, p->columns);
}

size_t REAL(packed_bytes)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels);
  return (size_t)(plan.panels * plan.right_size) * sizeof(real);
}

void REAL(pack)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, real *panels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels);
  for (int64_t i = 0; i < plan.panels; i++) REAL(pack_panel)(p, &plan, i, panels + i * plan.right_size);
}

int REAL(product)(const struct REAL(product) * p, int threads) {
  if (p->rows == 0 || p->columns == 0) return FA_OK;
  threads = threads_for(threads, p->rows * p->columns * p->pieces * (p->depth + 1));
  if (REAL(is_dots)(p)) {
    REAL(all_dots)(p, threads);
    return FA_OK;
  }
  struct REAL(job) job = {.p = p, .plan = REAL(make_plan)(p, threads)};
  struct REAL(plan) *plan = &job.plan;
  int64_t lanes = plan->kernels->lanes;
  size_t left_bytes = 0;
  if (p->left_depth_stride != 1) {
    plan->left_stride = ceil_div(p->depth, lanes) * lanes;
    left_bytes = aligned((size_t)(p->rows * plan->left_stride) * sizeof(real));
  }
  if (!p->packed) job.right_bytes = aligned((size_t)(plan->task_panels * plan->right_size) * sizeof(real));
  job.room_bytes = job.right_bytes + aligned((size_t)(plan->row_chunk * plan->panel_vectors * lanes) * sizeof(real));
  char *memory = scratch(SCRATCH_KERNEL, left_bytes + (size_t)threads * job.room_bytes);
  if (!memory) return FA_NO_MEMORY;
  if (left_bytes) plan->left = job.packed_left = (real *)memory;
  job.rooms = memory + left_bytes;
  if (threads == 1) {
    REAL(work)(&job);
  } else {
#pragma omp parallel num_threads(threads)
    REAL(work)(&job);
  }
  return FA_OK;
}

#endif
