#include "engine/tiles.h"

#include <stdatomic.h>
#include <string.h>

#include "engine/pack.h"
#include "engine/sizes.h"
#include "engine/threads.h"

/* Packing state of one panel in one task.  NOT_REPRESENTABLE: it holds a number that the tier's unit cannot represent,
 * an infinity or NaN, or one that rounds to an infinity. */
enum panel_state { UNPACKED, PACKED, NOT_REPRESENTABLE };

/* State that the threads of one product share. */
struct tile_job {
  const struct call *call;
  const struct product *p;
  const struct plan *plan;
  const struct tile_epilogue *epilogue;
  char *panels;                /* packed beforehand, or NULL */
  char *left;                  /* packed rows [first_row, end_row), or NULL: tasks pack their own, or read in place */
  uint8_t *left_representable; /* a truth value for each PACK_ROWS rows, or NULL: all true */
  int64_t first_row, end_row;  /* the rows being computed */
  char *memory;                /* of the threads, thread_bytes each */
  size_t thread_bytes, right_bytes, rows_bytes, sums_bytes, states_bytes;
  atomic_int status;
};

/* A thread's memory: packed panels or one depth block, packed rows of the left operand, sums, an enum panel_state for
 * each panel, and the epilogue's own. */
struct thread_memory {
  char *right, *rows, *sums;
  uint8_t *states;
  char *epilogue;
};

static struct thread_memory memory_of(const struct tile_job *job, int64_t thread) {
  char *right = job->memory + (size_t)thread * job->thread_bytes, *rows = right + job->right_bytes;
  char *sums = rows + job->rows_bytes, *states = sums + job->sums_bytes;
  return (struct thread_memory){right, rows, sums, (uint8_t *)states, states + job->states_bytes};
}

/* The first status of a task that is not FA_OK becomes the product's. */
static void report(struct tile_job *job, int status) {
  int ok = FA_OK;
  if (status != FA_OK) atomic_compare_exchange_strong(&job->status, &ok, status);
}

/* ---- the epilogue of a product whose columns are in the lanes */

void store_columns_in_lanes(const void *context, const struct kernels *kernels, const struct panel *panel, int64_t row,
                            int64_t rows, const char *bias, const char *sums) {
  const struct product *p = context;
  const struct epilogue *to = &p->epilogue;
  const int itemsize = kernels->itemsize, vectors = p->pieces == 1 ? panel->vectors : p->pieces;
  for (int v = 0; v < panel->vectors; v += vectors) {
    int64_t column = v / p->pieces * kernels->lanes, at = row * to->y_stride + panel->column + column;
    struct epilogue_tile tile = {
        .rows = rows,
        .vectors = vectors,
        .sums = element(sums, v * kernels->lanes, itemsize),
        .sums_stride = panel->vectors * kernels->lanes,
        .bias = element(bias, v * kernels->lanes, itemsize),
        .columns = panel->columns - column,
        .y = element(to->y, at, itemsize),
        .y_stride = to->y_stride,
        .accumulate = to->accumulate,
        .argmax = to->argmax ? to->argmax + at : NULL,
    };
    if (p->pieces == 1)
      kernels->store_linear(&tile);
    else
      kernels->store_maxout(&tile);
  }
}

static void finish_columns_in_lanes(const void *context, const struct kernels *kernels, struct block block, int last,
                                    char *memory) {
  (void)kernels, (void)last, (void)memory;
  const struct epilogue *epilogue = &((const struct product *)context)->epilogue;
  if (epilogue->then) epilogue->then(epilogue->context, block);
}

/* ---- the macro-kernel: one panel against some rows */

/* A range of rows of the left operand, which is at `left`, and the place of its sums with a panel. */
struct row_range {
  int64_t row, rows;
  const char *left;
  char *sums;
};

/* The words of a depth pass. */
struct depth_range {
  int64_t from, to;
};

/* All the micro-tiles of one micro-panel, equally tall; rows are stored as their sums become complete. */
static void multiply_micro_panel(const struct tile_job *job, const struct row_range *rows, const struct panel *panel,
                                 const char *bias, struct tile tile, int start, int vectors, int64_t word,
                                 int complete) {
  const struct plan *plan = job->plan;
  const struct kernels *kernels = plan->right.kernels;
  const int itemsize = kernels->itemsize;
  int64_t most = smaller(kernels->tile_rows[vectors], plan->max_tile_rows), stored = 0;
  int64_t blocks = ceil_div(rows->rows, kernels->left_block), tiles = ceil_div(rows->rows, most);
  for (int64_t t = 0, first = 0, end; t < tiles; t++, first = end) {
    end = smaller(rows->rows, (t + 1) * blocks / tiles * kernels->left_block);
    tile.rows = (int)(end - first);
    tile.left = element(rows->left, first * plan->left_stride + word * kernels->left_block, itemsize);
    tile.sums = element(rows->sums, first * tile.sums_stride + start * kernels->lanes, itemsize);
    kernels->multiply[vectors][tile.rows](&tile);
    if (!complete) continue;
    int64_t ready = end == rows->rows ? end : end / plan->row_step * plan->row_step;
    job->epilogue->store(job->epilogue->context, kernels, panel, rows->row + stored, ready - stored, bias,
                         element(rows->sums, stored * tile.sums_stride, itemsize));
    stored = ready;
  }
}

/* One depth pass of a panel against some rows, depth block by depth block, so that a depth block stays in L2 while the
 * micro-tiles pass over it.  With `pack` each depth block is packed first, without plan->keep all in the same place.
 * Returns whether the unit can represent all the numbers; if not, nothing was stored. */
static int multiply_panel(const struct tile_job *job, const struct row_range *rows, const struct panel *panel,
                          struct depth_range pass, char *packed, int pack) {
  const struct plan *plan = job->plan;
  const struct weights *right = &job->p->right;
  const struct kernels *kernels = plan->right.kernels;
  const int itemsize = kernels->itemsize, count = micro_panels(kernels, panel->vectors);
  int64_t lanes = kernels->lanes, width = panel->vectors * lanes;
  int in_place = plan->in_place && panel->columns == width;
  char *bias = packed, *block = element(packed, width + (plan->whole_panels ? pass.from * width : 0), itemsize);
  if (pack) pack_bias(right, &plan->right, panel, bias);
  int64_t word = pass.from;
  do {
    int64_t words = smaller(plan->right.depth_block, pass.to - word);
    int last_block = word + words == plan->right.words;
    if (pack && !in_place && !pack_depth_block(right, &plan->right, panel, word, words, block)) return 0;
    for (int m = 0; m < count; m++) {
      int start = micro_panel_start(panel->vectors, count, m);
      int vectors = micro_panel_start(panel->vectors, count, m + 1) - start;
      struct tile tile = {
          .depth = words,
          .cut = plan->right.cut,
          .right = in_place ? element(right->data, panel->column + word * right->depth_stride, itemsize)
                            : element(block, start * lanes * words, itemsize),
          .left_stride = plan->left_stride,
          .right_stride = in_place ? right->depth_stride : vectors * lanes,
          .sums_stride = width,
          .add = word > 0,
      };
      multiply_micro_panel(job, rows, panel, bias, tile, start, vectors, word, last_block && m == count - 1);
    }
    word += words;
    if (plan->keep) block = element(block, words * width, itemsize);
  } while (word < pass.to);
  return 1;
}

/* One panel against at most PACK_ROWS rows, on the vector unit, since the tier's unit cannot represent a number of one
 * of the two. */
static int multiply_not_representable(const struct tile_job *job, const struct panel *panel, int64_t row,
                                      int64_t rows) {
  const struct product *p = job->p;
  const int itemsize = job->call->kernels->itemsize;
  struct source left = *p->left;
  struct product part = *p;
  part.rows = rows;
  part.columns = panel->columns;
  left.data = element(left.data, row * left.row_stride, itemsize);
  part.left = &left;
  part.right.data = element(part.right.data, panel->column * part.right.column_stride, itemsize);
  if (part.right.bias) part.right.bias = element(part.right.bias, panel->column * p->pieces, itemsize);
  part.right.packed = NULL;
  int64_t at = row * p->epilogue.y_stride + panel->column;
  part.epilogue.y = element(part.epilogue.y, at, itemsize);
  if (part.epilogue.argmax) part.epilogue.argmax += at;
  part.epilogue.then = NULL;
  return run_tiles(job->call, &part, job->call->kernels, WORKSPACE_FALLBACK, 1);
}

/* One depth pass of a panel against some rows: representable rows together, the others in blocks of PACK_ROWS, since
 * which numbers come from which kernels must not depend on how the rows are shared out. */
static int multiply_rows(const struct tile_job *job, struct row_range rows, int64_t index, struct depth_range pass,
                         char *packed, uint8_t *state) {
  const struct plan *plan = job->plan;
  const int itemsize = plan->right.kernels->itemsize;
  struct panel panel = panel_at(&plan->right, index);
  int64_t end = rows.row + rows.rows, width = panel.vectors * plan->right.kernels->lanes;
  while (rows.row < end) {
    int64_t stop = rows.row;
    while (*state != NOT_REPRESENTABLE && stop < end &&
           (!job->left_representable || job->left_representable[stop / PACK_ROWS]))
      stop = smaller(end, (stop / PACK_ROWS + 1) * PACK_ROWS);
    if (stop > rows.row) {
      int pack = !job->panels && (*state == UNPACKED || !plan->keep);
      rows.rows = stop - rows.row;
      *state = multiply_panel(job, &rows, &panel, pass, packed, pack) ? PACKED : NOT_REPRESENTABLE;
      if (*state == NOT_REPRESENTABLE) continue;
    } else if (!job->p->left->dense) {
      return PRODUCT_NOT_REPRESENTABLE;
    } else {
      stop = smaller(end, (rows.row / PACK_ROWS + 1) * PACK_ROWS);
      rows.rows = stop - rows.row;
      int status = pass.to == plan->right.words ? multiply_not_representable(job, &panel, rows.row, rows.rows) : FA_OK;
      if (status != FA_OK) return status;
    }
    rows.left = element(rows.left, rows.rows * plan->left_stride, itemsize);
    rows.sums = element(rows.sums, rows.rows * width, itemsize);
    rows.row = stop;
  }
  return FA_OK;
}

/* ---- tasks */

/* Rows [block PACK_ROWS, ...) of the left operand -> dst */
static void pack_left_rows(const struct tile_job *job, int64_t block, char *dst) {
  const struct product *p = job->p;
  int64_t row = block * PACK_ROWS, rows = smaller(PACK_ROWS, p->rows - row);
  job->left_representable[block] =
      (uint8_t)p->left->pack(p->left, job->plan->right.kernels, row, rows, p->depth, dst, job->plan->left_stride);
}

/* The panels [first, last) against one row block, which begins `row_of_task` rows after its task. */
static int multiply_row_block(const struct tile_job *job, int64_t row, int64_t rows, int64_t row_of_task, int64_t first,
                              int64_t last, struct depth_range pass, const struct thread_memory *memory) {
  const struct plan *plan = job->plan;
  const struct panel_layout *right = &plan->right;
  const int itemsize = right->kernels->itemsize, lanes = right->kernels->lanes;
  const char *left = job->left ? element(job->left, (row - job->first_row) * plan->left_stride, itemsize)
                               : element(job->p->left->data, row * plan->left_stride, itemsize);
  char *panels = job->panels ? element(job->panels, first * right->panel_size, itemsize) : memory->right;
  if (plan->packs_rows) {
    left = memory->rows;
    for (int64_t r = 0; r < rows; r += PACK_ROWS)
      pack_left_rows(job, (row + r) / PACK_ROWS, element(memory->rows, r * plan->left_stride, itemsize));
  }
  int status = FA_OK;
  for (int64_t i = first; i < last && status == FA_OK; i++) {
    char *packed = element(panels, plan->keep ? (i - first) * plan->panel_step : 0, itemsize), *sums = memory->sums;
    if (plan->depth_pass < right->words) { /* the sums of all the rows and panels of the task stay */
      int64_t width = panel_at(right, i).vectors;
      int64_t before = (i - first) * plan->task_rows * right->panel_vectors + row_of_task * width;
      sums = element(sums, before * lanes, itemsize);
    }
    struct row_range range = {row, rows, left, sums};
    status = multiply_rows(job, range, i, pass, packed, memory->states + i - first);
  }
  return status;
}

/* A task: some panels against some rows, depth pass after depth pass, row block after row block. */
static void run_tiles_task(void *context, int64_t task, int64_t thread) {
  struct tile_job *job = context;
  if (atomic_load(&job->status) != FA_OK) return;
  const struct plan *plan = job->plan;
  const struct kernels *kernels = plan->right.kernels;
  struct thread_memory memory = memory_of(job, thread);
  int64_t column_tasks = ceil_div(plan->right.panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels,
          last = smaller(first + plan->task_panels, plan->right.panels);
  int64_t start = job->first_row + task / column_tasks * plan->task_rows;
  int64_t end = smaller(start + plan->task_rows, job->end_row);
  struct panel from = panel_at(&plan->right, first), to = panel_at(&plan->right, last - 1);
  struct block block = {.column = from.column, .columns = to.column + to.columns - from.column};
  struct depth_range pass = {0, 0};
  int status = FA_OK;
  memset(memory.states, UNPACKED, (size_t)(last - first));
  if (kernels->begin) kernels->begin();
  do {
    pass = (struct depth_range){pass.to, smaller(pass.to + plan->depth_pass, plan->right.words)};
    for (int64_t i = 0; i < last - first; i++)
      if (memory.states[i] == PACKED) memory.states[i] = UNPACKED;
    for (int64_t row = start; row < end && status == FA_OK; row += plan->row_block) {
      block.row = row;
      block.rows = smaller(plan->row_block, end - row);
      status = multiply_row_block(job, row, block.rows, row - start, first, last, pass, &memory);
      if (pass.to == plan->right.words && status == FA_OK)
        job->epilogue->finish(job->epilogue->context, kernels, block, last == plan->right.panels, memory.epilogue);
    }
  } while (pass.to < plan->right.words && status == FA_OK);
  if (kernels->end) kernels->end();
  report(job, status);
}

static void pack_left(void *context, int64_t block) {
  const struct tile_job *job = context;
  const struct plan *plan = job->plan;
  char *dst = element(job->left, block * PACK_ROWS * plan->left_stride, plan->right.kernels->itemsize);
  pack_left_rows(job, job->first_row / PACK_ROWS + block, dst);
}

int run_tile_tasks(const struct call *call, const struct product *p, const struct plan *plan, char *panels,
                   const struct tile_epilogue *epilogue, enum workspace_user user, int threads) {
  const struct panel_layout *right = &plan->right;
  struct tile_job job = {.call = call, .p = p, .plan = plan, .epilogue = epilogue, .panels = panels};
  int64_t lanes = right->kernels->lanes, itemsize = right->kernels->itemsize;
  size_t left_bytes = 0, representable_bytes = 0;
  if (plan->packs_left) representable_bytes = aligned((size_t)ceil_div(p->rows, PACK_ROWS));
  if (plan->packs_rows)
    job.rows_bytes = aligned((size_t)(plan->row_block * plan->left_stride * itemsize));
  else if (plan->packs_left)
    left_bytes = aligned((size_t)(round_up(plan->left_rows, PACK_ROWS) * plan->left_stride * itemsize));
  if (!panels) {
    int64_t bias = right->panel_vectors * lanes, block = smaller(right->depth_block, right->words) * bias;
    job.right_bytes = aligned((size_t)((plan->keep ? plan->task_panels * plan->panel_step : bias + block) * itemsize));
  }
  int64_t sums = (plan->depth_pass < right->words ? plan->task_rows * plan->task_panels : plan->row_block) *
                 right->panel_vectors * lanes;
  job.sums_bytes = aligned((size_t)(sums * itemsize));
  job.states_bytes = aligned((size_t)plan->task_panels);
  job.thread_bytes =
      job.right_bytes + job.rows_bytes + job.sums_bytes + job.states_bytes + aligned(epilogue->memory_bytes);
  char *memory = workspace(user, left_bytes + representable_bytes + (size_t)threads * job.thread_bytes);
  if (!memory) return FA_NO_MEMORY;
  if (left_bytes) job.left = memory;
  if (representable_bytes) job.left_representable = (uint8_t *)memory + left_bytes;
  job.memory = memory + left_bytes + representable_bytes;
  for (job.first_row = 0; job.first_row < p->rows; job.first_row += plan->left_rows) {
    job.end_row = smaller(p->rows, job.first_row + plan->left_rows);
    int64_t rows = job.end_row - job.first_row;
    if (job.left) share_tasks(ceil_div(rows, PACK_ROWS), threads, pack_left, &job);
    queue_tasks(ceil_div(right->panels, plan->task_panels) * ceil_div(rows, plan->task_rows), threads, run_tiles_task,
                &job);
  }
  return job.status;
}

int run_tiles(const struct call *call, const struct product *p, const struct kernels *kernels, enum workspace_user user,
              int threads) {
  const struct packed_weights *packed = p->right.packed;
  const struct plan plan = plan_tiles(p, kernels, threads);
  const struct tile_epilogue epilogue = {store_columns_in_lanes, finish_columns_in_lanes, p, 0};
  char *panels = !packed ? NULL : kernels == call->kernels ? packed->panels : packed->tier_panels;
  return run_tile_tasks(call, p, &plan, panels, &epilogue, user, threads);
}
