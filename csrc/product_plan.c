#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "product_plan.h"

#include "sizes.h"

/* What stays in L2, of kernels->l2_bytes.  Where all the rows of a task fit into half of it they pass each slice of the
 * right operand once, and it is packed just before.  Otherwise 3/16 of rows stay while half of packed panels pass by,
 * again for each chunk of rows.  With 1 MiB (1024, 1024, 1024, 2) and (2048, 2048, 2048, 2) took 17.9 and 144 ms; with
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
#define ROW_CHUNK_BYTES(l2_bytes) ((l2_bytes) / 16 * 3)
#define PANELS_BYTES(l2_bytes) ((l2_bytes) / 2)
#define SLICE_BYTES(l2_bytes) ((l2_bytes) / 2)

/* The sums of a chunk of rows: with many pieces and little depth, those of all its rows would take more memory than all
 * the arrays. */
#define SUMS_BYTES (4 << 20)

/* Rows this many bytes apart fall into one set of an L1 cache with 64 sets.  A tile of 8 such rows fits where a set has
 * 8 lines; where it has 12, a tile of 12 gains 1%. */
#define L1_WAY_BYTES 4096
#define MAX_CONFLICTING_ROWS 8

/* A run of depth is a multiple of so many words, or the rest. */
#define RUN_STEP 16

/* From so many rows on threads share the rows of a product whose panels all fit into L2: (1024, 288, 96, 3) on two
 * threads took 689 us by its 3 panels, and takes 380 (AMX). */
#define MIN_ROWS_TO_SHARE 256

/* The words of so many bytes of rows, or of so many rows, are packed at once: a larger batch goes in bands, for each of
 * which the right operand is packed again, if it is not frozen. */
#define MOST_LEFT_BYTES (16 << 20)
#define MIN_BAND_ROWS 256

#define REAL_BITS 32
#include "product_plan.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product_plan.c"
#else
#include "real.h"

struct REAL(panel) REAL(panel_at)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t index) {
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

/* How the right operand is packed. */
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
  int by_rows =
      plan->panels_stay && p->rows >= MIN_ROWS_TO_SHARE; /* each thread packs all the panels, if they are not */
  plan->task_panels = threads == 1 || by_rows ? panels : cut ? 1 : ceil_div(panels, (blocks ? 2 : 4) * threads);
  plan->slab_words = blocks && !plan->rows_stay && !plan->panels_stay ? plan->run : larger(1, plan->depth);
  int64_t slab_size = (smaller(plan->slab_words, plan->depth) + 1) * plan->panel_vectors * kernels->lanes;
  int64_t most_panels = PANELS_BYTES(kernels->l2_bytes) / (slab_size * (int64_t)sizeof(real)) + 1;
  if (!plan->rows_stay) plan->task_panels = smaller(plan->task_panels, most_panels);
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
  int64_t unit = REAL(row_unit)(p, plan), rows = ROW_CHUNK_BYTES(kernels->l2_bytes) / REAL(row_bytes)(plan);
  rows = kernels->left_block > 1 ? kernels->left_block : larger(unit, (rows + MAX_TILE_ROWS) / unit * unit);
  int64_t chunks = plan->rows_stay ? 1 : ceil_div(plan->task_rows, rows);
  chunks = larger(chunks, ceil_div(plan->task_rows * REAL(sums_bytes)(plan), SUMS_BYTES));
  plan->row_chunk = ceil_div(plan->task_rows, chunks);
  int64_t step = plan->row_chunk < plan->row_step ? unit : larger(unit, plan->row_step);
  plan->row_chunk = ceil_div(plan->row_chunk, step) * step;
}

/* How the left operand is packed: in whole vectors of words, and so that its rows do not fall into one set of L1. */
static void REAL(plan_left)(const struct REAL(product) * p, struct REAL(plan) * plan) {
  const struct REAL(kernels) *kernels = plan->kernels;
  int64_t lanes = kernels->lanes, way = L1_WAY_BYTES / (int64_t)sizeof(real);
  int row_after_row = kernels->left_block == 1;
  plan->band_rows = p->rows;
  plan->packs_left = plan->depth > 0 && (kernels->pack_left || (p->left_depth_stride != 1 && p->depth > 1));
  plan->packs_rows &= plan->packs_left;
  plan->left_stride = plan->packs_left ? ceil_div(plan->depth, lanes) * lanes : p->left_row_stride;
  if (plan->packs_left && row_after_row && plan->left_stride % way == 0) plan->left_stride += lanes;
  plan->most_tile_rows = row_after_row && plan->left_stride % way == 0 ? MAX_CONFLICTING_ROWS : MAX_TILE_ROWS;
}

struct REAL(plan) REAL(packed_plan)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = REAL(plan_panels)(p, kernels, REAL(column_vectors)(p, kernels));
  plan.whole_panels = plan.keep = 1;
  return plan;
}

/* The plan of all the rows of `p` in one band. */
static struct REAL(plan)
    REAL(plan_band)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots, int threads) {
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
  int64_t panels_bytes = plan.panels * plan.panel_size * (int64_t)sizeof(real);
  plan.panels_stay = kernels->left_block > 1 && panels_bytes <= PANELS_BYTES(kernels->l2_bytes);
  plan.rows_stay = !plan.panels_stay && p->rows * REAL(row_bytes)(&plan) <= WHOLE_LEFT(kernels->l2_bytes);
  plan.whole_panels = p->packed || p->original;
  plan.keep = plan.whole_panels || (!plan.rows_stay && !dots);
  REAL(plan_tasks)(p, &plan, threads);
  REAL(plan_chunks)(p, &plan);
  REAL(plan_left)(p, &plan);
  return plan;
}

struct REAL(plan)
    REAL(make_plan)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots, int threads) {
  struct REAL(plan) plan = REAL(plan_band)(p, kernels, dots, threads);
  if (!kernels->pack_left || plan.packs_rows) return plan;
  int64_t most = MOST_LEFT_BYTES / REAL(row_bytes)(&plan) / LEFT_BLOCK * LEFT_BLOCK;
  int64_t bands = ceil_div(p->rows, larger(most, MIN_BAND_ROWS));
  if (bands == 1) return plan;
  struct REAL(product) band = *p;
  band.rows = smaller(p->rows, ceil_div(ceil_div(p->rows, bands), LEFT_BLOCK) * LEFT_BLOCK);
  return REAL(plan_band)(&band, kernels, dots, threads);
}

#endif
