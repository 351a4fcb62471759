#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "product.h"

#include <stdatomic.h>

#include "fastact_abi.h"
#include "sizes.h"
#include "threads.h"

/* What stays in an L2 cache of 1 MiB.  Where all the rows of a task fit into WHOLE_LEFT_BYTES they pass each slice of
 * the right operand once, and it is packed just before.  Otherwise rows of LEFT_BLOCK_BYTES stay while
 * RIGHT_BLOCK_BYTES of packed panels pass by, again for each block of rows. */
#define WHOLE_LEFT_BYTES (512 << 10)
#define LEFT_BLOCK_BYTES (192 << 10)
#define RIGHT_BLOCK_BYTES (512 << 10)

/* Rows this many bytes apart fall into one set of an L1 cache of 4 KiB a way; a lower tile leaves room there. */
#define L1_WAY_BYTES 4096
#define MAX_CONFLICTING_ROWS 8

/* A run of depth is a multiple of this, or the rest. */
#define RUN_STEP 16

/* Rows that a thread transposes at once. */
#define TRANSPOSED_ROWS 64

#define REAL_BITS 32
#include "product.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product.c"
#else
#include "real.h"

/* How a product is cut.  A panel is the right operand for some outputs: one vector of them with all its pieces, or for
 * pieces == 1 some vectors side by side.  It is walked in slices: a group of its vectors, as many as fit the registers,
 * times a run of depth. */
struct REAL(plan) {
  const struct REAL(kernels) * kernels;
  int panel_vectors; /* the most of a panel */
  int groups;        /* of a panel's vectors */
  int64_t run;
  int64_t panels;
  int64_t panel_size;  /* reals of a packed panel: bias [vectors][lanes], then slices [depth][vectors][lanes] */
  int64_t row_chunk;   /* rows of the left operand that stay in L2 */
  int64_t task_panels; /* panels of one task */
  int64_t task_rows;
  int64_t tasks;
  int dots;         /* of rows and units where they lie: only bias is packed */
  int keep;         /* packed panels, for the chunks of rows after the first */
  const real *left; /* depth contiguous */
  int64_t left_stride;
};

/* What the threads of one product share. */
struct REAL(job) {
  const struct REAL(product) * p;
  struct REAL(plan) plan;
  real *packed_left; /* or NULL: it is read in place */
  char *rooms;       /* one for each thread: packed panels or one slice, then sums */
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
  int64_t runs = larger(1, ceil_div(p->depth, DEPTH_CUT)); /* alike, and of whole blocks of a transposition */
  plan.run = ceil_div(ceil_div(p->depth, runs), RUN_STEP) * RUN_STEP;
  plan.panel_size = (p->depth + 1) * plan.panel_vectors * kernels->lanes;
  return plan;
}

/* Whether dots are quicker than tiles: for few rows, which do not pay for packing, and for few outputs, which leave
 * lanes of a tile empty.  In tenths of the time of a term in a full tile: dots take 11 and 50 lanes for the end of each
 * sum; packing takes 7 lanes a term.  The two met at 4, 12, 14, 35 and 45 rows for a depth of 32, 64, 128, 288 and 1024
 * (Zen 5, AVX-512). */
static int REAL(is_dots)(const struct REAL(product) * p, int64_t lanes) {
  int64_t padded = ceil_div(p->columns, lanes) * lanes;
  return p->left_depth_stride == 1 && p->right_depth_stride == 1 && !p->accumulate && !p->packed &&
         p->rows * p->columns * (11 * p->depth + 50 * lanes) <
             (10 * p->rows * padded + 7 * lanes * p->columns) * p->depth;
}

static struct REAL(plan) REAL(make_plan)(const struct REAL(product) * p, int threads) {
  struct REAL(plan) plan = REAL(plan_panels)(p, p->packed ? p->packed->kernels : isa_active()->REAL(kernels));
  plan.left = p->left;
  plan.left_stride = p->left_row_stride;
  int64_t row_bytes = (p->depth + 1) * (int64_t)sizeof(real);
  int whole = p->rows * row_bytes <= WHOLE_LEFT_BYTES;
  plan.dots = REAL(is_dots)(p, plan.kernels->lanes);
  plan.keep = p->packed || (!whole && !plan.dots);
  /* several tasks a thread, so that they finish together */
  plan.task_panels = threads > 1 ? ceil_div(plan.panels, 4 * threads) : plan.panels;
  if (!whole)
    plan.task_panels = smaller(plan.task_panels, RIGHT_BLOCK_BYTES / (plan.panel_size * (int64_t)sizeof(real)) + 1);
  int64_t column_tasks = ceil_div(plan.panels, plan.task_panels), row_tasks = 1;
  if (column_tasks < threads) /* few columns: share the rows as well */
    row_tasks = smaller(p->rows, ceil_div(2 * threads, column_tasks));
  plan.task_rows = ceil_div(p->rows, row_tasks);
  plan.tasks = column_tasks * ceil_div(p->rows, plan.task_rows);
  int64_t chunks = whole ? 1 : ceil_div(plan.task_rows, LEFT_BLOCK_BYTES / row_bytes + MAX_TILE_ROWS);
  plan.row_chunk = ceil_div(plan.task_rows, chunks);
  return plan;
}

/* The vectors of group g: [start, start + size), sizes alike. */
static int REAL(group_start)(const struct REAL(plan) * plan, int vectors, int group) {
  return group * vectors / plan->groups;
}

/* -> dst [vectors][lanes] */
static void REAL(pack_bias)(const struct REAL(product) * p, int lanes, const struct REAL(panel) * panel, real *dst) {
  for (int v = 0; v < panel->vectors; v++)
    for (int l = 0; l < lanes; l++) {
      int64_t column = p->pieces == 1 ? v * lanes + l : l;
      *dst++ = p->bias && column < panel->columns
                   ? p->bias[(panel->column + column) * p->pieces + (p->pieces == 1 ? 0 : v)]
                   : 0;
    }
}

/* Vectors [start, start + vectors) of a panel over the depth [depth, depth + run) -> dst [run][vectors][lanes] */
static void REAL(pack_slice)(const struct REAL(product) * p, const struct REAL(kernels) * kernels,
                             const struct REAL(panel) * panel, int start, int vectors, int64_t depth, int64_t run,
                             real *dst) {
  int64_t lanes = kernels->lanes;
  const real *src = p->right + panel->column * p->right_column_stride + depth * p->right_depth_stride;
  for (int v = 0; v < vectors; v++) {
    int64_t column = p->pieces == 1 ? (start + v) * lanes : 0, columns = smaller(lanes, panel->columns - column);
    const real *from = src + column * p->right_column_stride + (p->pieces == 1 ? 0 : start + v) * p->right_piece_stride;
    if (p->right_column_stride == 1)
      kernels->copy_lanes(run, columns, from, p->right_depth_stride, dst + v * lanes, vectors * lanes);
    else
      kernels->transpose(columns, run, from, p->right_column_stride, dst + v * lanes, vectors * lanes);
  }
}

/* sums [rows][vectors][lanes] -> y and argmax of the rows [row, row + rows) */
static void REAL(finish_rows)(const struct REAL(product) * p, const struct REAL(kernels) * kernels,
                              const struct REAL(panel) * panel, int64_t row, int64_t rows, const real *bias,
                              const real *sums) {
  int64_t at = row * p->columns + panel->column;
  (p->pieces == 1 ? kernels->finish_linear : kernels->finish_maxout)(&(struct REAL(finish)){
      .rows = rows,
      .vectors = panel->vectors,
      .sums = sums,
      .bias = bias,
      .columns = panel->columns,
      .y = p->y + at,
      .y_stride = p->columns,
      .accumulate = p->accumulate,
      .argmax = p->argmax ? p->argmax + at : NULL,
  });
}

/* One panel against the rows [row, row + rows), slice by slice, so that a slice stays in L1 while the tiles pass over
 * it.  With `pack` each slice is packed first.  Without plan->keep they are all packed in the same place. */
static void REAL(multiply_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t row,
                                 int64_t rows, int64_t index, real *right, int pack, real *sums) {
  const struct REAL(kernels) *kernels = plan->kernels;
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  int64_t lanes = kernels->lanes, sums_stride = panel.vectors * lanes;
  int conflicting = plan->left_stride * (int64_t)sizeof(real) % L1_WAY_BYTES == 0;
  real *bias = right, *slice = right + sums_stride;
  if (pack) REAL(pack_bias)(p, lanes, &panel, bias);
  for (int g = 0; g < plan->groups; g++) {
    int start = REAL(group_start)(plan, panel.vectors, g);
    int vectors = REAL(group_start)(plan, panel.vectors, g + 1) - start;
    int64_t most = smaller(kernels->tile_rows[vectors], conflicting ? MAX_CONFLICTING_ROWS : MAX_TILE_ROWS);
    int64_t tiles = ceil_div(rows, most), depth = 0; /* heights alike */
    do {
      struct REAL(tile) tile = {
          .depth = smaller(plan->run, p->depth - depth),
          .right = slice,
          .left_stride = plan->left_stride,
          .sums_stride = sums_stride,
          .add = depth > 0,
      };
      int last = g == plan->groups - 1 && depth + tile.depth == p->depth;
      if (pack) REAL(pack_slice)(p, kernels, &panel, start, vectors, depth, tile.depth, slice);
      for (int64_t t = 0; t < tiles; t++) {
        int64_t first = t * rows / tiles, height = (t + 1) * rows / tiles - first;
        tile.left = plan->left + (row + first) * plan->left_stride + depth;
        tile.sums = sums + first * sums_stride + start * lanes;
        kernels->multiply[vectors][height](&tile);
        if (last) REAL(finish_rows)(p, kernels, &panel, row + first, height, bias, sums + first * sums_stride);
      }
      depth += tile.depth;
      if (plan->keep) slice += tile.depth * vectors * lanes;
    } while (depth < p->depth);
  }
}

/* The same without packing: dots of rows and units where they lie. */
static void REAL(dot_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t row, int64_t rows,
                            int64_t index, real *bias, real *sums) {
  const struct REAL(kernels) *kernels = plan->kernels;
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  REAL(pack_bias)(p, kernels->lanes, &panel, bias);
  kernels->dots(&(struct REAL(dots)){
      .rows = rows,
      .columns = panel.columns,
      .pieces = p->pieces,
      .depth = p->depth,
      .x = p->left + row * p->left_row_stride,
      .w = p->right + panel.column * p->right_column_stride,
      .sums = sums,
      .x_stride = p->left_row_stride,
      .unit_stride = p->right_column_stride / p->pieces,
      .sums_stride = panel.vectors * kernels->lanes,
  });
  REAL(finish_rows)(p, kernels, &panel, row, rows, bias, sums);
}

/* A task: some panels against some rows.  `room` is for panels. */
static void REAL(run_task)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t task, real *room,
                           real *sums) {
  int64_t column_tasks = ceil_div(plan->panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels, last = smaller(first + plan->task_panels, plan->panels);
  int64_t start = task / column_tasks * plan->task_rows, end = smaller(start + plan->task_rows, p->rows);
  real *right = p->packed ? p->packed->panels + first * plan->panel_size : room;
  for (int64_t row = start; row < end; row += plan->row_chunk) {
    int64_t rows = smaller(plan->row_chunk, end - row);
    for (int64_t i = first; i < last; i++) {
      real *panel = right + (plan->keep ? (i - first) * plan->panel_size : 0);
      if (plan->dots)
        REAL(dot_panel)(p, plan, row, rows, i, panel, sums);
      else
        REAL(multiply_panel)(p, plan, row, rows, i, panel, !p->packed && row == start, sums);
    }
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
  if (job->packed_left) {
    for (int64_t row; (row = atomic_fetch_add(&job->next_left, TRANSPOSED_ROWS)) < p->rows;)
      plan->kernels->transpose(p->depth, smaller(TRANSPOSED_ROWS, p->rows - row), p->left + row, p->left_depth_stride,
                               job->packed_left + row * plan->left_stride, plan->left_stride);
#pragma omp barrier
  }
  for (int64_t task; (task = atomic_fetch_add(&job->next_task, 1)) < plan->tasks;)
    REAL(run_task)(p, plan, task, (real *)room, (real *)(room + job->right_bytes));
}

size_t REAL(packed_bytes)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels);
  return (size_t)(plan.panels * plan.panel_size) * sizeof(real);
}

void REAL(pack)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, real *panels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels);
  plan.keep = 1;
  for (int64_t i = 0; i < plan.panels; i++)
    REAL(multiply_panel)(p, &plan, 0, 0, i, panels + i * plan.panel_size, 1, NULL);
}

int REAL(product)(const struct REAL(product) * p, int threads) {
  if (p->rows == 0 || p->columns == 0) return FA_OK;
  threads = threads_for(threads, p->rows * p->columns * p->pieces * (p->depth + 1));
  struct REAL(job) job = {.p = p, .plan = REAL(make_plan)(p, threads)};
  struct REAL(plan) *plan = &job.plan;
  int64_t lanes = plan->kernels->lanes;
  size_t left_bytes = 0;
  if (p->left_depth_stride != 1) {
    plan->left_stride = ceil_div(p->depth, lanes) * lanes;
    left_bytes = aligned((size_t)(p->rows * plan->left_stride) * sizeof(real));
  }
  if (!p->packed)
    job.right_bytes = aligned((size_t)((plan->keep ? plan->task_panels : 1) * plan->panel_size) * sizeof(real));
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
