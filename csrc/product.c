#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "product.h"

#include <stdatomic.h>

#include "fastact_abi.h"
#include "product_order.h"
#include "sizes.h"
#include "threads.h"

/* What stays in L2, of kernels->l2_bytes.  Where all the rows of a task fit into half of it they pass each slice of the
 * right operand once, and it is packed just before.  Otherwise 3/16 of rows stay while half of packed panels pass by,
 * again for each block of rows.  With 1 MiB (1024, 1024, 1024, 2) and (2048, 2048, 2048, 2) took 17.9 and 144 ms; with
 * 128 and 640 KiB of rows and panels 17.9 and 155, with 256 and 384 17.7 and 149, with 384 and 384 17.8 and 147 (Zen 5,
 * AVX-512, one thread, while the other core used the L3 cache too).
 *
 * A slice is the other half, so that it stays while the tiles pass over it.  Then a tile takes several runs of depth,
 * and its sums stay in L1: with a single run, 256, 512 and 1024 KiB (2048, 2048, 2048, 2) took 147, 142, 140 and 142
 * ms, (64, 8192, 512, 2) 4.60, 4.55, 4.40 and 4.88, and (100, 784, 240, 5) frozen 772, 760, 751 and 751 us.
 *
 * Kernels that read blocks of packed rows are so quick that L3 holds them up.  One block of rows passes half an L2 of
 * panels: (1024, 1024, 1024, 2) at "highest" took 18.9 ms with 32 rows, 19.0 with 64, 19.8 with 128 and 23.2 with 256.
 * Panels that fit are packed once, and then each block of rows just before its use: (1024, 288, 96, 3) at "medium" 335
 * and 286 us.  Where they don't fit, all the rows pass one slab of depth, a single run, before the next, so that half
 * an L2 holds more panels: 18.3 and 16.8 ms, and (2048, 2048, 2048, 2) 162 and 141 (Xeon, family 6 model 207, AMX). */
#define WHOLE_LEFT(l2_bytes) ((l2_bytes) / 2)
#define LEFT_BLOCK_BYTES(l2_bytes) ((l2_bytes) / 16 * 3)
#define RIGHT_BLOCK_BYTES(l2_bytes) ((l2_bytes) / 2)
#define SLICE_BYTES(l2_bytes) ((l2_bytes) / 2)

/* The sums of a block of rows: with many pieces and little depth, those of all its rows would take more memory than all
 * the arrays. */
#define SUMS_BYTES (4 << 20)

/* Rows this many bytes apart fall into one set of an L1 cache with 64 sets.  A tile of 8 such rows fits where a set has
 * 8 lines; where it has 12, a tile of 12 gains 1%. */
#define L1_WAY_BYTES 4096
#define MAX_CONFLICTING_ROWS 8

/* Fewer bytes of panels one thread packs alone, since a team takes longer to begin: with two threads (32, 64, 64, 2)
 * took 3.6 us shared and 3.4 so, (15, 288, 96, 3) 9.5 and 8.9. */
#define MIN_SHARED_BYTES (128 << 10)

/* A run of depth is a multiple of so many words, or the rest. */
#define RUN_STEP 16

/* Rows of the left operand that a thread packs at once, a multiple of the lanes and of every left_block (which is
 * MAX_TILE_ROWS at most). */
#define LEFT_BLOCK 32

/* From so many rows on threads share the rows of a product whose panels all fit into L2: (1024, 288, 96, 3) on two
 * threads took 689 us by its 3 panels, and takes 380 (AMX). */
#define MIN_ROWS_TO_SHARE 256

/* The words of so many bytes of rows, or of so many rows, are packed at once: a larger batch goes in bands, for each of
 * which the right operand is packed again, if it is not frozen. */
#define MOST_LEFT_BYTES (16 << 20)
#define MIN_BAND_ROWS 256

/* Depth of a scattered left operand that is written at once, and stays in L1. */
#define SCATTERED_DEPTH 64

/* The most outputs of a panel. */
#define MAX_PANEL_COLUMNS 64

/* What a task knows of a panel; UNCARRIED: the words can't carry one of its numbers. */
enum panel_state { UNPACKED, PACKED, UNCARRIED };

#define REAL_BITS 32
#include "product.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product.c"
#else
#include "real.h"

/* How a product is cut.  A panel is the right operand for some outputs: a vector of them with all its pieces, or for
 * few pieces some such vectors side by side.  It is walked in slices: a group of its vectors, as many as fit the
 * registers, times some runs of depth. */
struct REAL(plan) {
  const struct REAL(kernels) * kernels;
  int panel_vectors;         /* the most of a panel */
  int64_t depth, slice, run; /* in words of the kernels; of a slice and of a run the most */
  int64_t panels;
  int64_t panel_size;  /* reals of a packed panel: bias [vectors][lanes], then slices [depth][vectors][lanes] */
  int64_t panel_step;  /* between panels; those that a task packs have the depth of a slab alone */
  int64_t row_chunk;   /* rows of the left operand that stay in L2 */
  int64_t slab_words;  /* words of depth that all the rows of a task pass before the next; at most all */
  int64_t task_panels; /* panels of one task */
  int64_t task_rows;
  int64_t row_step; /* rows that are finished together */
  int64_t tasks;
  int dots;            /* of rows and units where they lie: only bias is packed */
  int in_place;        /* panels of whole vectors are not packed, so that no tile reads beyond the right operand */
  int keep;            /* packed panels, for the chunks of rows after the first */
  int whole_panels;    /* where packed panels are, is all of their depth */
  int whole;           /* all the rows of a task stay in L2, and each panel passes once */
  int narrow;          /* all the panels stay in L2, and blocks of packed rows pass */
  int packs_rows;      /* of the left operand each task its own, a chunk at a time */
  int64_t left_stride; /* of rows of words, depth contiguous */
};

/* What the threads of one product share. */
struct REAL(job) {
  const struct REAL(product) * p;
  struct REAL(plan) plan;
  real *packed_left;     /* the rows of the band; or NULL: each task packs its own, or they are read in place */
  uint8_t *left_carried; /* for each LEFT_BLOCK rows whether the words carry their numbers; NULL: all do */
  real *panels;          /* all those of the right operand, packed before the tasks; or NULL */
  real *tail;            /* the last rows of the original that dots take, tail_stride apart */
  int64_t tail_stride;
  char *rooms; /* one for each thread: packed panels or one, packed rows, sums, states of the panels */
  size_t room_bytes, right_bytes, rows_bytes, sums_bytes;
  int64_t band, band_rows; /* the rows [band, band + band_rows) are under way */
  atomic_llong next_task;
  atomic_int status;
};

/* What a thread works with: packed panels, packed rows of the left operand, sums, an enum panel_state for each panel.
 */
struct REAL(room) {
  real *right, *rows, *sums;
  uint8_t *states;
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
      .vectors = (int)(last - first) * p->pieces,
  };
}

/* Vectors of columns side by side that, with all their pieces, make a panel as wide as a tile should be.  With 4
 * vectors instead of 2 fewer rows of the left operand pass by for each product: (1024, 1024, 1024, 2) frozen took 18.5
 * ms and takes 18.0, (1024, 1024, 2048, 1) 18.7 and 18.1, (2048, 2048, 2048, 2) 153 and 148 (Zen 5, AVX-512, one
 * thread). */
static int REAL(column_vectors)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  int vectors = p->pieces < kernels->panel_vectors ? kernels->panel_vectors / p->pieces : 1;
  return kernels->paired && vectors * p->pieces % 2 ? 2 * vectors : vectors;
}

/* The part of a plan that does not depend on rows and threads: how the right operand is packed. */
static struct REAL(plan)
    REAL(plan_panels)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int column_vectors) {
  struct REAL(plan) plan = {.kernels = kernels};
  int64_t vectors = ceil_div(p->columns, kernels->lanes);
  plan.panel_vectors = column_vectors * p->pieces;
  plan.panels = ceil_div(vectors, column_vectors);
  plan.depth = ceil_div(p->depth, kernels->step_terms) * kernels->step_words;
  int64_t runs = larger(1, ceil_div(plan.depth, kernels->run_words)); /* alike, and of whole blocks of packing */
  int64_t run_step = larger(RUN_STEP, kernels->step_words);
  plan.run = ceil_div(larger(1, ceil_div(plan.depth, runs)), run_step) * run_step;
  int64_t run_bytes = plan.run * plan.panel_vectors * kernels->lanes * (int64_t)sizeof(real);
  plan.slice = kernels->left_block > 1 ? plan.run : larger(1, SLICE_BYTES(kernels->l2_bytes) / run_bytes) * plan.run;
  plan.panel_size = (plan.depth + 1) * plan.panel_vectors * kernels->lanes;
  plan.row_step = p->original ? p->original->pieces * kernels->lanes : 1;
  return plan;
}

/* The width in vectors of panels that the tiles read where they lie, since a single tile takes all the rows and would
 * use a packed panel once; 0 where panels are packed.  As wide as such a tile can be, so that more is read from each
 * row of the right operand: one row times (1024, 1024) took 350 us packed, and in place 296 with 2 vectors, 100 with
 * 4 and 87 with 5; 8 rows took 412 packed, and 115 to 136 in place with 3 (Zen 5, AVX-512). */
static int REAL(in_place_vectors)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  if (p->pieces > 1 || p->right_column_stride != 1 || p->packed || p->original || kernels->pack_left) return 0;
  int vectors = kernels->max_vectors;
  while (vectors > 1 && p->rows > kernels->tile_rows[vectors]) vectors--;
  return vectors > 1 ? vectors : 0;
}

static int64_t REAL(row_bytes)(const struct REAL(plan) * plan) { return (plan->depth + 1) * (int64_t)sizeof(real); }

/* Rows that no task and no chunk of a task divides. */
static int64_t REAL(row_unit)(const struct REAL(product) * p, const struct REAL(plan) * plan) {
  if (plan->kernels->pack_left) return LEFT_BLOCK;
  return p->original ? p->original->pieces : 1;
}

/* Bytes of a row of sums of a panel. */
static int64_t REAL(sums_bytes)(const struct REAL(plan) * plan) {
  return plan->panel_vectors * plan->kernels->lanes * (int64_t)sizeof(real);
}

/* Which panels and which rows make a task. */
static void REAL(plan_tasks)(const struct REAL(product) * p, struct REAL(plan) * plan, int threads) {
  const struct REAL(kernels) *kernels = plan->kernels;
  int64_t panels = plan->panels, row_tasks = 1;
  int blocks = kernels->left_block > 1;
  /* several tasks a thread, so that they finish together; few panels that can't be shared out evenly are cut, where
   * none has to be packed for each part: 15 panels took two threads 393 us for (100, 784, 240, 5), 413 uncut */
  int cut = p->packed && panels > threads && panels % threads && panels < 16 * threads;
  int by_rows = plan->narrow && p->rows >= MIN_ROWS_TO_SHARE; /* each thread packs all the panels, if they are not */
  plan->task_panels = threads == 1 || by_rows ? panels : cut ? 1 : ceil_div(panels, (blocks ? 2 : 4) * threads);
  plan->slab_words = blocks && !plan->whole && !plan->narrow ? plan->run : larger(1, plan->depth);
  int64_t slab_size = (smaller(plan->slab_words, plan->depth) + 1) * plan->panel_vectors * kernels->lanes;
  int64_t most_panels = RIGHT_BLOCK_BYTES(kernels->l2_bytes) / (slab_size * (int64_t)sizeof(real)) + 1;
  if (!plan->whole) plan->task_panels = smaller(plan->task_panels, most_panels);
  plan->panel_step = plan->whole_panels ? plan->panel_size : slab_size;
  int64_t column_tasks = ceil_div(panels, plan->task_panels);
  plan->packs_rows =
      kernels->pack_left && column_tasks == 1 && plan->slab_words >= plan->depth; /* no other needs them */
  int share_rows = p->original || (p->packed && column_tasks % threads);          /* it costs no packing */
  if (by_rows)
    row_tasks = (p->packed ? 4 : 1) * threads;
  else if (column_tasks < (share_rows ? 4 * threads : threads)) /* few columns: share the rows as well */
    row_tasks = ceil_div((share_rows ? 4 : 2) * threads, column_tasks);
  else if (cut)
    row_tasks = threads;
  if (plan->slab_words < plan->depth) /* the sums of all the rows of a task stay from slab to slab */
    row_tasks = larger(row_tasks, ceil_div(p->rows * plan->task_panels * REAL(sums_bytes)(plan), SUMS_BYTES));
  int64_t unit = REAL(row_unit)(p, plan);
  plan->task_rows = ceil_div(ceil_div(p->rows, row_tasks), unit) * unit;
}

/* The rows of a task that pass all its panels before the next. */
static void REAL(plan_chunks)(const struct REAL(product) * p, struct REAL(plan) * plan) {
  const struct REAL(kernels) *kernels = plan->kernels;
  int64_t unit = REAL(row_unit)(p, plan), rows = LEFT_BLOCK_BYTES(kernels->l2_bytes) / REAL(row_bytes)(plan);
  rows = kernels->left_block > 1 ? kernels->left_block : larger(unit, (rows + MAX_TILE_ROWS) / unit * unit);
  int64_t chunks = plan->whole ? 1 : ceil_div(plan->task_rows, rows);
  chunks = larger(chunks, ceil_div(plan->task_rows * REAL(sums_bytes)(plan), SUMS_BYTES));
  plan->row_chunk = ceil_div(plan->task_rows, chunks);
  int64_t step = plan->row_chunk < plan->row_step ? unit : larger(unit, plan->row_step);
  plan->row_chunk = ceil_div(plan->row_chunk, step) * step;
}

static struct REAL(plan)
    REAL(make_plan)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots, int threads) {
  int in_place = dots ? 0 : REAL(in_place_vectors)(p, kernels);
  /* swapped, wide panels: each passes all the weights.  With 2, 3, 4 and 5 vectors (64, 288, 96, 3)
   * took 46.3, 46.3, 45.0 and 45.0 us, (128, 256, 96, 16) 414, 411, 407 and 409 */
  int vectors = in_place ? in_place : REAL(column_vectors)(p, kernels);
  if (p->original) /* a panel for each thread: two that write to one line of y or argmax disturb each other */
    vectors = (int)smaller(kernels->max_vectors - 1, ceil_div(ceil_div(p->columns, kernels->lanes), threads));
  else if (dots) /* so many outputs stay in L1 while rows pass by */
    vectors = p->pieces == 1 ? 2 : 1;
  else if (threads > 1 && !in_place && !p->packed && !kernels->pack_left &&
           ceil_div(p->columns, kernels->lanes) < 4 * threads * vectors)
    vectors = (vectors + 1) / 2; /* more panels to share, of the same sums; which panels carry words must not change */
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels, vectors);
  plan.in_place = in_place > 0;
  plan.dots = dots;
  plan.left_stride = p->left_row_stride;
  int64_t panels_bytes = plan.panels * plan.panel_size * (int64_t)sizeof(real);
  plan.narrow = kernels->left_block > 1 && panels_bytes <= RIGHT_BLOCK_BYTES(kernels->l2_bytes);
  plan.whole = !plan.narrow && p->rows * REAL(row_bytes)(&plan) <= WHOLE_LEFT(kernels->l2_bytes);
  plan.whole_panels = p->packed || p->original;
  plan.keep = plan.whole_panels || (!plan.whole && !dots);
  REAL(plan_tasks)(p, &plan, threads);
  REAL(plan_chunks)(p, &plan);
  return plan;
}

/* A panel's vectors are cut into groups that fit a tile, sizes alike: group g is [start, start + size). */
static int REAL(groups)(const struct REAL(kernels) * kernels, int vectors) {
  return (vectors + kernels->max_vectors - 1) / kernels->max_vectors;
}
static int REAL(group_start)(int vectors, int groups, int group) { return group * vectors / groups; }

/* -> dst [vectors][lanes] */
static void REAL(pack_bias)(const struct REAL(product) * p, int lanes, const struct REAL(panel) * panel, real *dst) {
  for (int v = 0; v < panel->vectors; v++)
    for (int l = 0; l < lanes; l++) {
      int64_t column = v / p->pieces * lanes + l;
      *dst++ = p->bias && column < panel->columns ? p->bias[(panel->column + column) * p->pieces + v % p->pieces] : 0;
    }
}

/* Vectors [start, start + vectors) of a panel over the words [word, word + words) of depth -> dst
 * [words][vectors][lanes].  Returns whether the words carry all the numbers. */
static int REAL(pack_slice)(const struct REAL(product) * p, const struct REAL(kernels) * kernels,
                            const struct REAL(panel) * panel, int start, int vectors, int64_t word, int64_t words,
                            real *dst) {
  int64_t lanes = kernels->lanes, depth = word / kernels->step_words * kernels->step_terms;
  int64_t run = smaller(words / kernels->step_words * kernels->step_terms, p->depth - depth);
  const real *src = p->right + panel->column * p->right_column_stride + depth * p->right_depth_stride;
  int carried = 1;
  for (int v = 0; v < vectors; v++) {
    int64_t column = (start + v) / p->pieces * lanes, columns = smaller(lanes, panel->columns - column);
    const real *from = src + column * p->right_column_stride + (start + v) % p->pieces * p->right_piece_stride;
    if (p->right_column_stride == 1)
      carried &= kernels->copy_lanes(run, columns, from, p->right_depth_stride, dst + v * lanes, vectors * lanes);
    else
      carried &= kernels->transpose(columns, run, from, p->right_column_stride, dst + v * lanes, vectors * lanes);
  }
  return carried;
}

/* Of a swapped product: sums [units][pieces][vectors][lanes] -> y and argmax of `original` */
static void REAL(finish_units)(const struct REAL(product) * original, const struct REAL(kernels) * kernels,
                               const struct REAL(panel) * panel, int64_t row, int64_t rows, const real *sums) {
  int64_t at = panel->column * original->columns + row / original->pieces;
  kernels->finish_units(&(struct REAL(finish_units)){
      .units = rows / original->pieces,
      .pieces = original->pieces,
      .vectors = panel->vectors,
      .sums = sums,
      .bias = original->bias ? original->bias + row : NULL,
      .samples = panel->columns,
      .y = original->y + at,
      .y_stride = original->columns,
      .argmax = original->argmax && original->pieces > 1 ? original->argmax + at : NULL,
  });
}

/* sums [rows][vectors][lanes] -> y and argmax of the rows [row, row + rows) */
static void REAL(finish_rows)(const struct REAL(product) * p, const struct REAL(kernels) * kernels,
                              const struct REAL(panel) * panel, int64_t row, int64_t rows, const real *bias,
                              const real *sums) {
  if (p->original) {
    REAL(finish_units)(p->original, kernels, panel, row, rows, sums);
    return;
  }
  int vectors = p->pieces == 1 ? panel->vectors : p->pieces;
  for (int v = 0; v < panel->vectors; v += vectors) {
    int64_t column = v / p->pieces * kernels->lanes, at = row * p->columns + panel->column + column;
    (p->pieces == 1 ? kernels->finish_linear : kernels->finish_maxout)(&(struct REAL(finish)){
        .rows = rows,
        .vectors = vectors,
        .sums = sums + v * kernels->lanes,
        .sums_stride = panel->vectors * kernels->lanes,
        .bias = bias + v * kernels->lanes,
        .columns = panel->columns - column,
        .y = p->y + at,
        .y_stride = p->columns,
        .accumulate = p->accumulate,
        .argmax = p->argmax ? p->argmax + at : NULL,
    });
  }
}

/* Words [from, to) of depth */
struct REAL(slab) {
  int64_t from, to;
};

/* One slab of a panel against the rows [row, row + rows), which are at `left`, slice by slice, so that a slice stays in
 * L2 while the tiles pass over it.  With `pack` each slice is packed first.  Without plan->keep they are all packed in
 * the same place.  Returns whether the words carry all the numbers; if not, nothing was finished. */
static int REAL(multiply_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, const real *left,
                                int64_t row, int64_t rows, int64_t index, struct REAL(slab) slab, real *right, int pack,
                                real *sums) {
  const struct REAL(kernels) *kernels = plan->kernels;
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  int64_t lanes = kernels->lanes, sums_stride = panel.vectors * lanes;
  int conflicting = kernels->left_block == 1 && plan->left_stride * (int64_t)sizeof(real) % L1_WAY_BYTES == 0;
  int in_place = plan->in_place && panel.columns == sums_stride;
  real *bias = right, *slice = right + sums_stride + (plan->whole_panels ? slab.from * sums_stride : 0);
  if (pack) REAL(pack_bias)(p, lanes, &panel, bias);
  int groups = REAL(groups)(kernels, panel.vectors);
  int64_t depth = slab.from, finished = 0;
  do {
    int64_t words = smaller(plan->slice, slab.to - depth);
    int last_slice = depth + words == plan->depth;
    for (int g = 0; g < groups && pack && !in_place; g++) {
      int start = REAL(group_start)(panel.vectors, groups, g);
      int vectors = REAL(group_start)(panel.vectors, groups, g + 1) - start;
      if (!REAL(pack_slice)(p, kernels, &panel, start, vectors, depth, words, slice + start * lanes * words)) return 0;
    }
    for (int g = 0; g < groups; g++) {
      int start = REAL(group_start)(panel.vectors, groups, g);
      int vectors = REAL(group_start)(panel.vectors, groups, g + 1) - start;
      struct REAL(tile) tile = {
          .depth = words,
          .run = plan->run,
          .right = in_place ? p->right + panel.column + depth * p->right_depth_stride : slice + start * lanes * words,
          .left_stride = plan->left_stride,
          .right_stride = in_place ? p->right_depth_stride : vectors * lanes,
          .sums_stride = sums_stride,
          .add = depth > 0,
      };
      int64_t most = smaller(kernels->tile_rows[vectors], conflicting ? MAX_CONFLICTING_ROWS : MAX_TILE_ROWS);
      int64_t blocks = ceil_div(rows, kernels->left_block), tiles = ceil_div(rows, most);
      for (int64_t t = 0; t < tiles; t++) { /* heights alike */
        int64_t first = t * blocks / tiles * kernels->left_block;
        int64_t end = smaller(rows, (t + 1) * blocks / tiles * kernels->left_block);
        tile.rows = (int)(end - first);
        tile.left = left + first * plan->left_stride + depth * kernels->left_block;
        tile.sums = sums + first * sums_stride + start * lanes;
        kernels->multiply[vectors][tile.rows](&tile);
        if (!last_slice || g < groups - 1) continue;
        int64_t ready = end == rows ? rows : end / plan->row_step * plan->row_step;
        REAL(finish_rows)(p, kernels, &panel, row + finished, ready - finished, bias, sums + finished * sums_stride);
        finished = ready;
      }
    }
    depth += words;
    if (plan->keep) slice += words * sums_stride;
  } while (depth < slab.to);
  return 1;
}

/* The same without packing: dots of rows and units where they lie. */
static void REAL(dot_panel)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t row,
                            int64_t rows, struct REAL(panel) panel, real *bias, real *sums) {
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

/* The rows [row, row + rows) of a swapped product against the last rows of the original, which are in no panel. */
static void REAL(dot_tail)(const struct REAL(job) * job, int64_t row, int64_t rows, real *bias, real *sums) {
  const struct REAL(product) *original = job->p->original;
  int64_t lanes = job->plan.kernels->lanes, pieces = original->pieces, end = (row + rows) / pieces;
  int64_t first = job->p->columns, at = first * original->columns;
  struct REAL(product) tail = *original;
  tail.left = job->tail;
  tail.left_row_stride = job->tail_stride;
  tail.y += at;
  if (tail.argmax) tail.argmax += at;
  for (int64_t column = row / pieces; column < end; column += lanes) {
    struct REAL(panel) panel = {.column = column, .columns = smaller(lanes, end - column), .vectors = (int)pieces};
    REAL(dot_panel)(&tail, job->plan.kernels, 0, original->rows - first, panel, bias, sums);
  }
}

static int REAL(run)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots,
                     enum scratch_user user, int threads);

/* One panel against at most LEFT_BLOCK rows, where the words can't carry the numbers of one of the two: on the kernels
 * of `real`. */
static int REAL(multiply_uncarried)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t row,
                                    int64_t rows, int64_t index) {
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  real y[LEFT_BLOCK * MAX_PANEL_COLUMNS];
  uint8_t argmax[LEFT_BLOCK * MAX_PANEL_COLUMNS];
  struct REAL(product) part = *p;
  part.rows = rows;
  part.columns = panel.columns;
  part.left += row * p->left_row_stride;
  part.right += panel.column * p->right_column_stride;
  if (p->bias) part.bias += panel.column * p->pieces;
  part.packed = NULL;
  part.y = y;
  part.argmax = p->argmax && p->pieces > 1 ? argmax : NULL;
  part.accumulate = 0;
  part.after = NULL;
  const struct REAL(kernels) *kernels = (p->packed ? p->packed->isa : isa_active())->REAL(kernels);
  int status = REAL(run)(&part, kernels, 0, SCRATCH_UNCARRIED, 1);
  for (int64_t r = 0; r < rows && !status; r++) {
    int64_t to = (row + r) * p->columns + panel.column, from = r * panel.columns;
    for (int64_t j = 0; j < panel.columns; j++) p->y[to + j] = (p->accumulate ? p->y[to + j] : 0) + y[from + j];
    if (part.argmax) memcpy(p->argmax + to, argmax + from, (size_t)panel.columns);
  }
  return status;
}

/* One panel against the rows [row, end): those whose numbers the words carry together, the others in blocks, since
 * which numbers come from which kernels must not depend on how the rows are shared out. */
static int REAL(multiply_rows)(const struct REAL(job) * job, const real *left, int64_t row, int64_t end, int64_t index,
                               struct REAL(slab) slab, real *right, uint8_t *state, real *sums) {
  const struct REAL(product) *p = job->p;
  int status = FA_OK;
  while (row < end) {
    int64_t stop = row;
    while (*state != UNCARRIED && stop < end && (!job->left_carried || job->left_carried[stop / LEFT_BLOCK]))
      stop = smaller(end, (stop / LEFT_BLOCK + 1) * LEFT_BLOCK);
    if (stop > row) {
      int pack = !job->panels && (*state == UNPACKED || !job->plan.keep);
      int carried = REAL(multiply_panel)(p, &job->plan, left, row, stop - row, index, slab, right, pack, sums);
      *state = carried ? PACKED : UNCARRIED;
      if (!carried) continue;
    } else if (p->scattered) {
      return PRODUCT_UNCARRIED;
    } else {
      stop = smaller(end, (row / LEFT_BLOCK + 1) * LEFT_BLOCK);
      if (slab.to == job->plan.depth) status |= REAL(multiply_uncarried)(p, &job->plan, row, stop - row, index);
    }
    left += (stop - row) * job->plan.left_stride;
    sums += (stop - row) * REAL(panel_at)(p, &job->plan, index).vectors * job->plan.kernels->lanes;
    row = stop;
  }
  return status;
}

/* Some rows of a scattered left operand, into words, a square block at a time, which stays in L1.  Returns whether the
 * words carry all the numbers. */
static int REAL(pack_scattered)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t row,
                                int64_t rows, real *dst, int64_t stride) {
  const struct REAL(scattered) *s = p->scattered;
  real block[LEFT_BLOCK * SCATTERED_DEPTH]; /* (samples, units) */
  int64_t units = s->transposed ? LEFT_BLOCK : SCATTERED_DEPTH;
  int64_t step = SCATTERED_DEPTH / kernels->step_terms * kernels->step_words * kernels->left_block;
  int carried = 1;
  for (int64_t d = 0; d < p->depth; d += SCATTERED_DEPTH, dst += step) {
    int64_t terms = smaller(SCATTERED_DEPTH, p->depth - d);
    int64_t sample = s->transposed ? d : row, samples = s->transposed ? terms : rows;
    kernels->scatter(samples, s->outputs, s->pieces, p->left + sample * s->outputs, s->argmax + sample * s->outputs,
                     s->transposed ? row : d, s->transposed ? rows : terms, block, units);
    carried &=
        kernels->pack_left(rows, terms, block, s->transposed ? 1 : units, s->transposed ? units : 1, dst, stride);
  }
  return carried;
}

/* Block `block` of LEFT_BLOCK rows of the left operand, into words at `dst`. */
static void REAL(pack_left_block)(const struct REAL(job) * job, int64_t block, real *dst) {
  const struct REAL(product) *p = job->p;
  const struct REAL(kernels) *kernels = job->plan.kernels;
  int64_t row = block * LEFT_BLOCK, rows = smaller(LEFT_BLOCK, p->rows - row), stride = job->plan.left_stride;
  const real *src = p->left + row * p->left_row_stride;
  job->left_carried[block] =
      (uint8_t)(p->scattered ? REAL(pack_scattered)(p, kernels, row, rows, dst, stride)
                : kernels->pack_left
                    ? kernels->pack_left(rows, p->depth, src, p->left_row_stride, p->left_depth_stride, dst, stride)
                    : kernels->transpose(p->depth, rows, src, p->left_depth_stride, dst, stride));
}

/* The panels [first, last) against the rows [row, row + rows) of a task, which starts `row_of_task` rows before. */
static int REAL(multiply_panels)(const struct REAL(job) * job, int64_t row, int64_t rows, int64_t row_of_task,
                                 int64_t first, int64_t last, struct REAL(slab) slab, const struct REAL(room) * room) {
  const struct REAL(plan) *plan = &job->plan;
  const real *left = job->packed_left ? job->packed_left + (row - job->band) * plan->left_stride
                                      : job->p->left + row * plan->left_stride;
  real *panels = job->panels ? job->panels + first * plan->panel_size : room->right;
  int64_t lanes = plan->kernels->lanes;
  int status = FA_OK;
  if (plan->packs_rows) {
    left = room->rows;
    for (int64_t r = 0; r < rows; r += LEFT_BLOCK)
      REAL(pack_left_block)(job, (row + r) / LEFT_BLOCK, room->rows + r * plan->left_stride);
  }
  for (int64_t i = first; i < last; i++) {
    struct REAL(panel) panel = REAL(panel_at)(job->p, plan, i);
    real *right = panels + (plan->keep ? (i - first) * plan->panel_step : 0), *sums = room->sums;
    if (plan->slab_words < plan->depth)
      sums += ((i - first) * plan->task_rows * plan->panel_vectors + row_of_task * panel.vectors) * lanes;
    if (plan->dots)
      REAL(dot_panel)(job->p, plan->kernels, row, rows, panel, right, sums);
    else
      status |= REAL(multiply_rows)(job, left, row, row + rows, i, slab, right, room->states + i - first, sums);
  }
  return status;
}

/* What follows the panels [first, last): the rows that are in no panel, and the caller's own. */
static void REAL(finish_task_rows)(const struct REAL(job) * job, int64_t row, int64_t rows, int64_t first, int64_t last,
                                   const struct REAL(room) * room) {
  const struct REAL(product) *p = job->p, *original = p->original;
  struct REAL(panel) from = REAL(panel_at)(p, &job->plan, first), to = REAL(panel_at)(p, &job->plan, last - 1);
  int64_t column = from.column, columns = to.column + to.columns - column;
  if (original && last == job->plan.panels && p->columns < original->rows) {
    REAL(dot_tail)(job, row, rows, room->right, room->sums);
    columns = original->rows - column;
  }
  if (p->after && original)
    p->after(p->after_context, column, columns, row / original->pieces, rows / original->pieces);
  else if (p->after)
    p->after(p->after_context, row, rows, column, columns);
}

/* A task: some panels against some rows, in room `room`. */
static int REAL(run_task)(const struct REAL(job) * job, int64_t task, const struct REAL(room) * room) {
  const struct REAL(plan) *plan = &job->plan;
  int status = FA_OK;
  int64_t column_tasks = ceil_div(plan->panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels, last = smaller(first + plan->task_panels, plan->panels);
  int64_t start = job->band + task / column_tasks * plan->task_rows;
  int64_t end = smaller(start + plan->task_rows, job->band + job->band_rows);
  struct REAL(slab) slab = {0, 0};
  memset(room->states, UNPACKED, (size_t)(last - first));
  do {
    slab = (struct REAL(slab)){slab.to, smaller(slab.to + plan->slab_words, plan->depth)};
    for (int64_t i = 0; i < last - first; i++)
      if (room->states[i] == PACKED) room->states[i] = UNPACKED;
    for (int64_t row = start; row < end; row += plan->row_chunk) {
      int64_t rows = smaller(plan->row_chunk, end - row);
      status |= REAL(multiply_panels)(job, row, rows, row - start, first, last, slab, room);
      if (slab.to == plan->depth) REAL(finish_task_rows)(job, row, rows, first, last, room);
    }
  } while (slab.to < plan->depth);
  return status;
}

/* Block `block` of the band. */
static void REAL(pack_left)(void *context, int64_t block) {
  const struct REAL(job) *job = context;
  real *dst = job->packed_left + block * LEFT_BLOCK * job->plan.left_stride;
  REAL(pack_left_block)(job, job->band / LEFT_BLOCK + block, dst);
}

/* Panel `index` of the right operand, in its place. */
static void REAL(pack_panel)(void *context, int64_t index) {
  struct REAL(job) *job = context;
  REAL(multiply_panel)(job->p, &job->plan, NULL, 0, 0, index, (struct REAL(slab)){0, job->plan.depth},
                       job->panels + index * job->plan.panel_size, 1, NULL);
}

/* So that its vectors cross no cache line, as those of the units may: of (100, 784, 240, 5) the last 4 rows took 44 us,
 * and take 38. */
static void REAL(copy_tail)(const struct REAL(job) * job) {
  const struct REAL(product) *original = job->p->original;
  for (int64_t row = job->p->columns, i = 0; row < original->rows; row++, i++)
    memcpy(job->tail + i * job->tail_stride, original->left + row * original->left_row_stride,
           (size_t)original->depth * sizeof(real));
}

/* Takes tasks until there are none, in room `room`. */
static void REAL(work)(void *context, int64_t room) {
  struct REAL(job) *job = context;
  const struct REAL(kernels) *kernels = job->plan.kernels;
  char *at = job->rooms + (size_t)room * job->room_bytes, *rows = at + job->right_bytes, *sums = rows + job->rows_bytes;
  struct REAL(room) its_room = {(real *)at, (real *)rows, (real *)sums, (uint8_t *)sums + job->sums_bytes};
  if (kernels->begin) kernels->begin();
  for (int64_t task; (task = atomic_fetch_add(&job->next_task, 1)) < job->plan.tasks;)
    atomic_fetch_or(&job->status, REAL(run_task)(job, task, &its_room));
  if (kernels->end) kernels->end();
}

size_t REAL(packed_bytes)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels, REAL(column_vectors)(p, kernels));
  return (size_t)(plan.panels * plan.panel_size) * sizeof(real);
}

int REAL(pack)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, real *panels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels, REAL(column_vectors)(p, kernels));
  plan.keep = 1;
  for (int64_t i = 0; i < plan.panels; i++)
    if (!REAL(multiply_panel)(p, &plan, NULL, 0, 0, i, (struct REAL(slab)){0, plan.depth}, panels + i * plan.panel_size,
                              1, NULL))
      return 0;
  return 1;
}

/* Words between packed rows: whole vectors, and so that the rows do not fall into one set of L1. */
static int64_t REAL(left_stride)(const struct REAL(plan) * plan) {
  int64_t lanes = plan->kernels->lanes, stride = ceil_div(plan->depth, lanes) * lanes;
  int conflicting = plan->kernels->left_block == 1 && stride * (int64_t)sizeof(real) % L1_WAY_BYTES == 0;
  return conflicting ? stride + lanes : stride;
}

/* Takes all tasks of one band of rows after the other. */
static void REAL(run_bands)(struct REAL(job) * job, int64_t rows, int threads) {
  struct REAL(plan) *plan = &job->plan;
  for (job->band = 0; job->band < job->p->rows; job->band += rows) {
    job->band_rows = smaller(rows, job->p->rows - job->band);
    plan->tasks = ceil_div(plan->panels, plan->task_panels) * ceil_div(job->band_rows, plan->task_rows);
    job->next_task = 0;
    if (job->packed_left) share_tasks(ceil_div(job->band_rows, LEFT_BLOCK), threads, REAL(pack_left), job);
    share_tasks(threads, threads, REAL(work), job);
  }
}

static int REAL(run)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots,
                     enum scratch_user user, int threads) {
  struct REAL(product) band = *p;
  struct REAL(job) job = {.p = p, .plan = REAL(make_plan)(p, kernels, dots, threads)};
  struct REAL(plan) *plan = &job.plan;
  if (kernels->pack_left && !plan->packs_rows) {
    int64_t most = MOST_LEFT_BYTES / ((plan->depth + 1) * (int64_t)sizeof(real)) / LEFT_BLOCK * LEFT_BLOCK;
    int64_t bands = ceil_div(p->rows, larger(most, MIN_BAND_ROWS));
    band.rows = smaller(p->rows, ceil_div(ceil_div(p->rows, bands), LEFT_BLOCK) * LEFT_BLOCK);
    if (bands > 1) *plan = REAL(make_plan)(&band, kernels, dots, threads);
  }
  size_t left_bytes = 0, carried_bytes = 0, panels_bytes = 0, tail_bytes = 0;
  if (kernels->pack_left || (p->left_depth_stride != 1 && p->depth > 1)) {
    plan->left_stride = REAL(left_stride)(plan);
    left_bytes = aligned((size_t)(ceil_div(band.rows, LEFT_BLOCK) * LEFT_BLOCK * plan->left_stride) * sizeof(real));
    carried_bytes = plan->left_stride ? aligned((size_t)ceil_div(p->rows, LEFT_BLOCK)) : 0;
  }
  plan->packs_rows &= plan->left_stride > 0;
  if (plan->packs_rows) {
    left_bytes = 0;
    job.rows_bytes = aligned((size_t)(plan->row_chunk * plan->left_stride) * sizeof(real));
  }
  int64_t lanes = kernels->lanes, sums = plan->row_chunk * plan->panel_vectors;
  if (plan->slab_words < plan->depth) sums = plan->task_rows * plan->task_panels * plan->panel_vectors;
  if (p->original) {
    panels_bytes = aligned((size_t)(plan->panels * plan->panel_size) * sizeof(real));
    job.right_bytes = aligned((size_t)(p->original->pieces * lanes) * sizeof(real)); /* the tail's bias */
    int64_t tail_rows = p->original->rows - p->columns;
    sums = larger(sums, tail_rows * p->original->pieces);
    job.tail_stride = ceil_div(p->depth, lanes) * lanes;
    tail_bytes = aligned((size_t)(tail_rows * job.tail_stride) * sizeof(real));
  } else if (!p->packed) {
    job.right_bytes = aligned((size_t)((plan->keep ? plan->task_panels : 1) * plan->panel_step) * sizeof(real));
  }
  job.sums_bytes = aligned((size_t)(sums * lanes) * sizeof(real));
  job.room_bytes = job.right_bytes + job.rows_bytes + job.sums_bytes + aligned((size_t)plan->task_panels);
  size_t shared_bytes = left_bytes + carried_bytes + panels_bytes + tail_bytes;
  char *memory = scratch(user, shared_bytes + (size_t)threads * job.room_bytes);
  if (!memory) return FA_NO_MEMORY;
  if (left_bytes) job.packed_left = (real *)memory;
  if (carried_bytes) job.left_carried = (uint8_t *)memory + left_bytes;
  real *packed = !p->packed                                 ? NULL
                 : kernels == p->packed->isa->REAL(kernels) ? p->packed->panels
                                                            : p->packed->tier_panels;
  job.panels = packed ? packed : p->original ? (real *)(memory + left_bytes + carried_bytes) : NULL;
  job.tail = (real *)(memory + shared_bytes - tail_bytes);
  job.rooms = memory + shared_bytes;
  if (tail_bytes) REAL(copy_tail)(&job);
  if (p->original) share_tasks(plan->panels, panels_bytes < MIN_SHARED_BYTES ? 1 : threads, REAL(pack_panel), &job);
  REAL(run_bands)(&job, band.rows, threads);
  return job.status;
}

/* Rows of x in the lanes, but for the last `tail`; the units are read where they lie. */
static int REAL(run_swapped)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t tail,
                             int threads) {
  return REAL(run)(
      &(struct REAL(product)){
          .rows = p->columns * p->pieces,
          .depth = p->depth,
          .columns = p->rows - tail,
          .pieces = 1,
          .left = p->right,
          .left_row_stride = p->pieces == 1 ? p->right_column_stride : p->right_piece_stride,
          .left_depth_stride = 1,
          .right = p->left,
          .right_column_stride = p->left_row_stride,
          .right_depth_stride = 1,
          .original = p,
          .after = p->after,
          .after_context = p->after_context,
      },
      kernels, 0, SCRATCH_KERNEL, threads);
}

int REAL(product)(const struct REAL(product) * p, int threads) {
  if (p->rows == 0 || p->columns == 0) return FA_OK;
  threads = threads_for(threads, ceil_div(p->rows, 4) * p->columns * p->pieces * (p->depth + 1));
  if (p->packed && !p->packed->panels && !p->packed->tier_panels) {
    struct REAL(product) lying = *p;
    lying.packed = NULL;
    return REAL(run)(&lying, p->packed->isa->REAL(kernels), 1, SCRATCH_KERNEL, threads);
  }
  struct product_sizes sizes = {p->rows, p->depth, p->columns, p->pieces};
  const struct isa *isa = p->packed ? p->packed->isa : isa_active();
  const struct REAL(kernels) *tier = REAL(isa_tier)(isa, p->packed ? p->packed->precision : p->precision, &sizes);
  if (p->packed && !p->packed->tier_panels) tier = isa->REAL(kernels);
  int64_t tail;
  enum order order = REAL(quickest_order)(p, tier, &tail);
  if (order == SWAPPED) return REAL(run_swapped)(p, tier, tail, threads);
  int dots = order == DOTS;
  return REAL(run)(p, dots ? isa_active()->REAL(kernels) : tier, dots, SCRATCH_KERNEL, threads);
}

#endif
