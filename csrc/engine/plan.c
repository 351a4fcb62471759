#include "engine/plan.h"

#include "engine/sizes.h"

/* Shares of L2 (kernels->tuning->l2_bytes).  Where all the rows of a task fit half of L2 they pass each depth block of
 * the right operand once, and the block is packed just before.  Otherwise 3/16 of L2 hold a row block while half of L2
 * of packed panels pass by, again for each row block.  bench/tuning: row-block */
#define RESIDENT_ROWS_BYTES(l2_bytes) ((l2_bytes) / 2)
#define ROW_BLOCK_BYTES(l2_bytes) ((l2_bytes) / 16 * 3)
#define PANELS_BYTES(l2_bytes) ((l2_bytes) / 2)
/* A depth block stays in the other half of L2 while micro-tiles pass over it.  bench/tuning: depth-block-bytes */
#define DEPTH_BLOCK_BYTES(l2_bytes) ((l2_bytes) / 2)

/* Bound on the sums of a row block: with many pieces and little depth those of all the rows would take more memory than
 * all the arrays. */
#define SUMS_BYTES (4 << 20)

/* Cuts are multiples of this many words, except the last. */
#define CUT_STEP 16

/* Threads share the rows of a product whose panels all fit L2 from this many rows on.  bench/tuning: rows-to-share
 */
#define MIN_ROWS_TO_SHARE 256

/* Bounds on the packed left operand of a tier: larger batches are packed in parts, and for each part the right operand
 * is packed again, if it was not packed beforehand. */
#define MAX_LEFT_BYTES (16 << 20)
#define MIN_LEFT_ROWS 256

struct panel panel_at(const struct panel_layout *layout, int64_t index) {
  int64_t lanes = layout->kernels->lanes, vectors = ceil_div(layout->columns, lanes);
  int64_t first = part_start(vectors, layout->panels, index), last = part_start(vectors, layout->panels, index + 1);
  return (struct panel){
      .column = first * lanes,
      .columns = smaller(last * lanes, layout->columns) - first * lanes,
      .vectors = (int)(last - first) * layout->pieces,
  };
}

/* Vectors of columns side by side that, with all their pieces, make a panel as wide as a micro-tile should be.  Wide
 * panels let fewer rows of the left operand pass by for each product.  bench/tuning: column-vectors */
static int column_vectors(int pieces, const struct kernels *kernels) {
  int vectors = pieces < kernels->panel_vectors ? kernels->panel_vectors / pieces : 1;
  return kernels->paired && vectors * pieces % 2 ? 2 * vectors : vectors;
}

static struct panel_layout layout_of(int64_t depth, int64_t columns, int pieces, const struct kernels *kernels,
                                     int vectors) {
  struct panel_layout layout = {.kernels = kernels, .depth = depth, .columns = columns, .pieces = pieces};
  layout.panel_vectors = vectors * pieces;
  layout.panels = ceil_div(ceil_div(columns, kernels->lanes), vectors);
  layout.words = ceil_div(depth, kernels->step_terms) * kernels->step_words;
  int64_t cuts = larger(1, ceil_div(layout.words, kernels->cut_words)); /* equally long, in whole packing blocks */
  int64_t cut_step = larger(CUT_STEP, kernels->step_words);
  layout.cut = round_up(larger(1, ceil_div(layout.words, cuts)), cut_step);
  int64_t cut_bytes = layout.cut * layout.panel_vectors * kernels->lanes * kernels->itemsize;
  layout.depth_block = kernels->left_block > 1
                           ? layout.cut
                           : larger(1, DEPTH_BLOCK_BYTES(kernels->tuning->l2_bytes) / cut_bytes) * layout.cut;
  layout.panel_size = (layout.words + 1) * layout.panel_vectors * kernels->lanes;
  return layout;
}

struct panel_layout packed_layout(int64_t depth, int64_t columns, int pieces, const struct kernels *kernels) {
  return layout_of(depth, columns, pieces, kernels, column_vectors(pieces, kernels));
}

/* The width in vectors of panels that micro-tiles read in place, since a single micro-tile takes all the rows and would
 * use a packed panel once; 0 where panels are packed.  Panels in place are as wide as such a micro-tile can be, to read
 * more from each row of the right operand.  bench/tuning: in-place-panels */
static int in_place_vectors(const struct product *p, const struct kernels *kernels) {
  if (p->pieces > 1 || p->right.column_stride != 1 || p->right.packed || kernels->pack_left) return 0;
  int vectors = kernels->max_vectors;
  while (vectors > 1 && p->rows > kernels->tile_rows[vectors]) vectors--;
  return vectors > 1 ? vectors : 0;
}

static int64_t row_bytes(const struct panel_layout *right) { return (right->words + 1) * right->kernels->itemsize; }

/* Bytes of a row of sums of a panel. */
static int64_t sums_bytes(const struct panel_layout *right) {
  return (int64_t)right->panel_vectors * right->kernels->lanes * right->kernels->itemsize;
}

/* Row rules: the inputs in which the three plans differ. */
struct row_rules {
  int64_t multiple;    /* boundaries of tasks and row blocks are multiples of this many rows */
  int rows_fit_l2;     /* all the rows of a task, so that each panel passes once */
  int panels_fit_l2;   /* all the panels, so that packed row blocks pass */
  int repacks_nothing; /* tasks with the same panels but other rows pack nothing twice */
};

/* Upper limit on the panels of a task whose rows do not stay in L2: the panels do, `words` of each. */
static int64_t panels_in_l2(const struct panel_layout *right, int64_t words) {
  int64_t bytes = (words + 1) * right->panel_vectors * right->kernels->lanes * right->kernels->itemsize;
  return PANELS_BYTES(right->kernels->tuning->l2_bytes) / bytes + 1;
}

/* The panels and the rows of a task.  Several tasks a thread finish together.  Panels packed beforehand that cannot be
 * shared out evenly are split one by one.  bench/tuning: uneven-panels */
static void plan_tasks(const struct product *p, struct plan *plan, const struct row_rules *rules, int threads) {
  const struct panel_layout *right = &plan->right;
  const struct kernels *kernels = right->kernels;
  int64_t panels = right->panels, row_tasks = 1;
  int blocks = kernels->left_block > 1, packed = p->right.packed != NULL;
  int uneven = packed && panels > threads && panels % threads && panels < 16 * threads;
  int by_rows = rules->panels_fit_l2 && p->rows >= MIN_ROWS_TO_SHARE; /* each thread packs all unpacked panels */
  plan->task_panels = threads == 1 || by_rows ? panels : uneven ? 1 : ceil_div(panels, (blocks ? 2 : 4) * threads);
  plan->depth_pass = blocks && !rules->rows_fit_l2 && !rules->panels_fit_l2 ? right->cut : larger(1, right->words);
  int64_t pass_words = smaller(plan->depth_pass, right->words);
  if (!rules->rows_fit_l2) plan->task_panels = smaller(plan->task_panels, panels_in_l2(right, pass_words));
  plan->panel_step = plan->whole_panels ? right->panel_size : (pass_words + 1) * right->panel_vectors * kernels->lanes;
  int64_t column_tasks = ceil_div(panels, plan->task_panels);
  plan->packs_rows = kernels->pack_left && column_tasks == 1 && plan->depth_pass >= right->words;
  int share_rows = rules->repacks_nothing || (packed && column_tasks % threads);
  if (by_rows)
    row_tasks = (packed ? 4 : 1) * threads;
  else if (column_tasks < (share_rows ? 4 * threads : threads))
    row_tasks = ceil_div((share_rows ? 4 : 2) * threads, column_tasks);
  else if (uneven)
    row_tasks = threads;
  if (plan->depth_pass < right->words) /* the sums of all the rows of a task stay from pass to pass */
    row_tasks = larger(row_tasks, ceil_div(p->rows * plan->task_panels * sums_bytes(right), SUMS_BYTES));
  plan->task_rows = round_up(ceil_div(p->rows, row_tasks), rules->multiple);
}

/* The rows of a task that pass all its panels before the next. */
static int64_t row_block(const struct panel_layout *right, int64_t task_rows, int64_t row_step,
                         const struct row_rules *rules) {
  const struct kernels *kernels = right->kernels;
  int64_t multiple = rules->multiple, rows = ROW_BLOCK_BYTES(kernels->tuning->l2_bytes) / row_bytes(right);
  rows = kernels->left_block > 1 ? kernels->left_block : larger(multiple, (rows + MAX_TILE_ROWS) / multiple * multiple);
  int64_t blocks = rules->rows_fit_l2 ? 1 : ceil_div(task_rows, rows);
  blocks = larger(blocks, ceil_div(task_rows * sums_bytes(right), SUMS_BYTES));
  int64_t block = ceil_div(task_rows, blocks);
  return round_up(block, block < row_step ? multiple : larger(multiple, row_step));
}

/* Packed rows of the left operand are whole vectors of words, and do not all fall into one set of L1. */
static void plan_left(const struct product *p, struct plan *plan) {
  const struct kernels *kernels = plan->right.kernels;
  int64_t lanes = kernels->lanes, words = plan->right.words, way = kernels->tuning->l1_way_bytes / kernels->itemsize;
  int row_after_row = kernels->left_block == 1;
  plan->left_rows = p->rows;
  plan->packs_left =
      words > 0 && (kernels->pack_left || !p->left->dense || (p->left->depth_stride != 1 && p->depth > 1));
  plan->packs_rows &= plan->packs_left;
  plan->left_stride = plan->packs_left ? round_up(words, lanes) : p->left->row_stride;
  if (plan->packs_left && row_after_row && plan->left_stride % way == 0) plan->left_stride += lanes;
  plan->max_tile_rows =
      row_after_row && plan->left_stride % way == 0 ? kernels->tuning->conflicting_rows : MAX_TILE_ROWS;
}

/* The plan of `p` with all its rows packed at once. */
static struct plan plan_rows(const struct product *p, const struct kernels *kernels, int threads) {
  int in_place = in_place_vectors(p, kernels), packed = p->right.packed != NULL;
  int vectors = in_place ? in_place : column_vectors(p->pieces, kernels);
  /* Narrower panels, to share more of them.  A tier keeps its width: which panels it represents must not change. */
  if (threads > 1 && !in_place && !packed && !kernels->pack_left &&
      ceil_div(p->columns, kernels->lanes) < 4 * threads * vectors)
    vectors = (vectors + 1) / 2;
  struct plan plan = {
      .right = layout_of(p->depth, p->columns, p->pieces, kernels, vectors),
      .in_place = in_place > 0,
      .whole_panels = packed,
      .row_step = 1,
  };
  const struct panel_layout *right = &plan.right;
  int64_t l2_bytes = kernels->tuning->l2_bytes;
  int64_t panels_bytes = right->panels * right->panel_size * kernels->itemsize;
  struct row_rules rules = {.multiple = kernels->pack_left ? PACK_ROWS : 1};
  rules.panels_fit_l2 = kernels->left_block > 1 && panels_bytes <= PANELS_BYTES(l2_bytes);
  rules.rows_fit_l2 = !rules.panels_fit_l2 && p->rows * row_bytes(right) <= RESIDENT_ROWS_BYTES(l2_bytes);
  plan.keep = packed || !rules.rows_fit_l2;
  plan_tasks(p, &plan, &rules, threads);
  plan.row_block = row_block(right, plan.task_rows, plan.row_step, &rules);
  plan_left(p, &plan);
  return plan;
}

struct plan plan_tiles(const struct product *p, const struct kernels *kernels, int threads) {
  struct plan plan = plan_rows(p, kernels, threads);
  if (!kernels->pack_left || plan.packs_rows) return plan;
  int64_t most = MAX_LEFT_BYTES / row_bytes(&plan.right) / PACK_ROWS * PACK_ROWS;
  int64_t parts = ceil_div(p->rows, larger(most, MIN_LEFT_ROWS));
  if (parts == 1) return plan;
  struct product part = *p;
  part.rows = smaller(p->rows, round_up(ceil_div(p->rows, parts), PACK_ROWS));
  return plan_rows(&part, kernels, threads);
}

struct plan plan_batch_in_lanes(const struct product *p, int64_t unit_rows, const struct kernels *kernels,
                                int threads) {
  /* Wide panels, since each passes all the weights (bench/tuning: batch-panels), and one for each thread: two
   * threads that write to one line of y or argmax disturb each other. */
  int vectors = (int)smaller(kernels->max_vectors - 1, ceil_div(ceil_div(p->columns, kernels->lanes), threads));
  struct plan plan = {
      .right = layout_of(p->depth, p->columns, 1, kernels, vectors),
      .whole_panels = 1,
      .keep = 1,
      .row_step = unit_rows * kernels->lanes,
  };
  struct row_rules rules = {.multiple = unit_rows, .repacks_nothing = 1};
  rules.rows_fit_l2 = p->rows * row_bytes(&plan.right) <= RESIDENT_ROWS_BYTES(kernels->tuning->l2_bytes);
  plan_tasks(p, &plan, &rules, threads);
  plan.row_block = row_block(&plan.right, plan.task_rows, plan.row_step, &rules);
  plan_left(p, &plan);
  return plan;
}

struct unpacked_plan plan_unpacked(const struct product *p, const struct kernels *kernels, int threads) {
  /* This many columns stay in L1 while rows pass by. */
  struct unpacked_plan plan = {.right = layout_of(p->depth, p->columns, p->pieces, kernels, p->pieces == 1 ? 2 : 1)};
  const struct panel_layout *right = &plan.right;
  struct row_rules rules = {.multiple = 1};
  rules.rows_fit_l2 = p->rows * row_bytes(right) <= RESIDENT_ROWS_BYTES(kernels->tuning->l2_bytes);
  plan.task_panels = threads == 1 ? right->panels : ceil_div(right->panels, 4 * threads);
  if (!rules.rows_fit_l2) plan.task_panels = smaller(plan.task_panels, panels_in_l2(right, right->words));
  int64_t column_tasks = ceil_div(right->panels, plan.task_panels);
  plan.task_rows = ceil_div(p->rows, column_tasks < threads ? ceil_div(2 * threads, column_tasks) : 1);
  plan.row_block = row_block(right, plan.task_rows, 1, &rules);
  return plan;
}
