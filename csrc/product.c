#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include <stdatomic.h>

#include "fastact_abi.h"
#include "product_order.h"
#include "product_plan.h"
#include "sizes.h"
#include "threads.h"

/* Fewer bytes of panels one thread packs alone, since a team takes longer to begin: with two threads (32, 64, 64, 2)
 * took 3.6 us shared and 3.4 so, (15, 288, 96, 3) 9.5 and 8.9. */
#define MIN_SHARED_BYTES (128 << 10)

/* Depth of a scattered left operand that is written at once, and stays in L1. */
#define SCATTERED_DEPTH 64

/* The most outputs of a panel of a tier, whose words may not carry a number. */
#define MAX_TIER_COLUMNS 64

/* What a task knows of a panel; UNCARRIED: the words can't carry one of its numbers. */
enum panel_state { UNPACKED, PACKED, UNCARRIED };

#define REAL_BITS 32
#include "product.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "product.c"
#else
#include "real.h"

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
  int64_t band, band_end; /* the rows [band, band_end) are under way */
  atomic_int status;
};

/* What a thread works with: packed panels, packed rows of the left operand, sums, an enum panel_state for each panel.
 */
struct REAL(room) {
  real *right, *rows, *sums;
  uint8_t *states;
};

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
static int REAL(pack_group)(const struct REAL(product) * p, const struct REAL(kernels) * kernels,
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

/* The words [word, word + words) of a panel -> dst, one group after the other.  Returns whether the words carry all the
 * numbers; if not, some may not be written. */
static int REAL(pack_slice)(const struct REAL(product) * p, const struct REAL(kernels) * kernels,
                            const struct REAL(panel) * panel, int64_t word, int64_t words, real *dst) {
  int groups = REAL(groups)(kernels, panel->vectors), carried = 1;
  for (int g = 0; g < groups && carried; g++) {
    int start = REAL(group_start)(panel->vectors, groups, g);
    int vectors = REAL(group_start)(panel->vectors, groups, g + 1) - start;
    carried = REAL(pack_group)(p, kernels, panel, start, vectors, word, words, dst + start * kernels->lanes * words);
  }
  return carried;
}

/* The whole of a panel and its bias -> dst.  Returns as pack_slice does. */
static int REAL(pack_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t index, real *dst) {
  const struct REAL(kernels) *kernels = plan->kernels;
  struct REAL(panel) panel = REAL(panel_at)(p, plan, index);
  int64_t size = panel.vectors * kernels->lanes;
  int carried = 1;
  REAL(pack_bias)(p, kernels->lanes, &panel, dst);
  for (int64_t word = 0; word < plan->depth && carried; word += plan->slice)
    carried =
        REAL(pack_slice)(p, kernels, &panel, word, smaller(plan->slice, plan->depth - word), dst + (word + 1) * size);
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

/* The rows [row, row + rows) of the left operand, which are at `left`, and the place of their sums with a panel. */
struct REAL(strip) {
  int64_t row, rows;
  const real *left;
  real *sums;
};

/* One slab of a panel against a strip, slice by slice, so that a slice stays in L2 while the tiles pass over it.  With
 * `pack` each slice is packed first.  Without plan->keep they are all packed in the same place.  Returns whether the
 * words carry all the numbers; if not, nothing was finished. */
static int REAL(multiply_panel)(const struct REAL(product) * p, const struct REAL(plan) * plan,
                                const struct REAL(strip) * strip, struct REAL(panel) panel, struct REAL(slab) slab,
                                real *right, int pack) {
  const struct REAL(kernels) *kernels = plan->kernels;
  int64_t lanes = kernels->lanes, sums_stride = panel.vectors * lanes, rows = strip->rows;
  int in_place = plan->in_place && panel.columns == sums_stride;
  real *bias = right, *slice = right + sums_stride + (plan->whole_panels ? slab.from * sums_stride : 0);
  if (pack) REAL(pack_bias)(p, lanes, &panel, bias);
  int groups = REAL(groups)(kernels, panel.vectors);
  int64_t depth = slab.from, finished = 0;
  do {
    int64_t words = smaller(plan->slice, slab.to - depth);
    int last_slice = depth + words == plan->depth;
    if (pack && !in_place && !REAL(pack_slice)(p, kernels, &panel, depth, words, slice)) return 0;
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
      int64_t most = smaller(kernels->tile_rows[vectors], plan->most_tile_rows);
      int64_t blocks = ceil_div(rows, kernels->left_block), tiles = ceil_div(rows, most);
      for (int64_t t = 0, first = 0, end; t < tiles; t++, first = end) { /* heights alike */
        end = smaller(rows, (t + 1) * blocks / tiles * kernels->left_block);
        tile.rows = (int)(end - first);
        tile.left = strip->left + first * plan->left_stride + depth * kernels->left_block;
        tile.sums = strip->sums + first * sums_stride + start * lanes;
        kernels->multiply[vectors][tile.rows](&tile);
        if (!last_slice || g < groups - 1) continue;
        int64_t ready = end == rows ? rows : end / plan->row_step * plan->row_step;
        REAL(finish_rows)(p, kernels, &panel, strip->row + finished, ready - finished, bias,
                          strip->sums + finished * sums_stride);
        finished = ready;
      }
    }
    depth += words;
    if (plan->keep) slice += words * sums_stride;
  } while (depth < slab.to);
  return 1;
}

/* The same without packing: dots of rows and units where they lie.  Lanes beyond the columns keep what was there, and
 * nothing of them is stored. */
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

static const struct isa *REAL(isa_of)(const struct REAL(product) * p) {
  return p->packed ? p->packed->isa : p->isa ? p->isa : isa_active();
}

static int REAL(run_on)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots,
                        enum scratch_user user, int threads);

/* One panel against at most LEFT_BLOCK rows, where the words can't carry the numbers of one of the two: on the kernels
 * of `real`. */
static int REAL(multiply_uncarried)(const struct REAL(product) * p, struct REAL(panel) panel, int64_t row,
                                    int64_t rows) {
  real y[LEFT_BLOCK * MAX_TIER_COLUMNS];
  uint8_t argmax[LEFT_BLOCK * MAX_TIER_COLUMNS];
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
  int status = REAL(run_on)(&part, REAL(isa_of)(p)->REAL(kernels), 0, SCRATCH_UNCARRIED, 1);
  for (int64_t r = 0; r < rows && !status; r++) {
    int64_t to = (row + r) * p->columns + panel.column, from = r * panel.columns;
    for (int64_t j = 0; j < panel.columns; j++) p->y[to + j] = (p->accumulate ? p->y[to + j] : 0) + y[from + j];
    if (part.argmax) memcpy(p->argmax + to, argmax + from, (size_t)panel.columns);
  }
  return status;
}

/* One slab of a panel against a strip: the rows whose numbers the words carry together, the others in blocks, since
 * which numbers come from which kernels must not depend on how the rows are shared out. */
static int REAL(multiply_strip)(const struct REAL(job) * job, struct REAL(strip) strip, int64_t index,
                                struct REAL(slab) slab, real *right, uint8_t *state) {
  const struct REAL(product) *p = job->p;
  struct REAL(panel) panel = REAL(panel_at)(p, &job->plan, index);
  int64_t end = strip.row + strip.rows;
  int status = FA_OK;
  while (strip.row < end) {
    int64_t stop = strip.row;
    while (*state != UNCARRIED && stop < end && (!job->left_carried || job->left_carried[stop / LEFT_BLOCK]))
      stop = smaller(end, (stop / LEFT_BLOCK + 1) * LEFT_BLOCK);
    if (stop > strip.row) {
      int pack = !job->panels && (*state == UNPACKED || !job->plan.keep);
      strip.rows = stop - strip.row;
      int carried = REAL(multiply_panel)(p, &job->plan, &strip, panel, slab, right, pack);
      *state = carried ? PACKED : UNCARRIED;
      if (!carried) continue;
    } else if (p->scattered) {
      return PRODUCT_UNCARRIED;
    } else {
      stop = smaller(end, (strip.row / LEFT_BLOCK + 1) * LEFT_BLOCK);
      strip.rows = stop - strip.row;
      if (slab.to == job->plan.depth) status |= REAL(multiply_uncarried)(p, panel, strip.row, strip.rows);
    }
    strip.left += strip.rows * job->plan.left_stride;
    strip.sums += strip.rows * panel.vectors * job->plan.kernels->lanes;
    strip.row = stop;
  }
  return status;
}

/* Some rows of a scattered left operand, into words, a block of depth at a time, which stays in L1.  Returns whether
 * the words carry all the numbers. */
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
      status |= REAL(multiply_strip)(job, (struct REAL(strip)){row, rows, left, sums}, i, slab, right,
                                     room->states + i - first);
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

/* What thread `thread` works with. */
static struct REAL(room) REAL(room_at)(const struct REAL(job) * job, int64_t thread) {
  char *right = job->rooms + (size_t)thread * job->room_bytes, *rows = right + job->right_bytes;
  char *sums = rows + job->rows_bytes, *states = sums + job->sums_bytes;
  return (struct REAL(room)){(real *)right, (real *)rows, (real *)sums, (uint8_t *)states};
}

/* A task: some panels against some rows. */
static void REAL(run_task)(void *context, int64_t task, int64_t thread) {
  struct REAL(job) *job = context;
  const struct REAL(plan) *plan = &job->plan;
  const struct REAL(kernels) *kernels = plan->kernels;
  struct REAL(room) room = REAL(room_at)(job, thread);
  int status = FA_OK;
  int64_t column_tasks = ceil_div(plan->panels, plan->task_panels);
  int64_t first = task % column_tasks * plan->task_panels, last = smaller(first + plan->task_panels, plan->panels);
  int64_t start = job->band + task / column_tasks * plan->task_rows;
  int64_t end = smaller(start + plan->task_rows, job->band_end);
  struct REAL(slab) slab = {0, 0};
  memset(room.states, UNPACKED, (size_t)(last - first));
  if (kernels->begin) kernels->begin();
  do {
    slab = (struct REAL(slab)){slab.to, smaller(slab.to + plan->slab_words, plan->depth)};
    for (int64_t i = 0; i < last - first; i++)
      if (room.states[i] == PACKED) room.states[i] = UNPACKED;
    for (int64_t row = start; row < end; row += plan->row_chunk) {
      int64_t rows = smaller(plan->row_chunk, end - row);
      status |= REAL(multiply_panels)(job, row, rows, row - start, first, last, slab, &room);
      if (slab.to == plan->depth) REAL(finish_task_rows)(job, row, rows, first, last, &room);
    }
  } while (slab.to < plan->depth);
  if (kernels->end) kernels->end();
  atomic_fetch_or(&job->status, status);
}

/* Block `block` of the band. */
static void REAL(pack_left)(void *context, int64_t block) {
  const struct REAL(job) *job = context;
  real *dst = job->packed_left + block * LEFT_BLOCK * job->plan.left_stride;
  REAL(pack_left_block)(job, job->band / LEFT_BLOCK + block, dst);
}

/* Panel `index` of the right operand, in its place. */
static void REAL(pack_right)(void *context, int64_t index) {
  const struct REAL(job) *job = context;
  REAL(pack_panel)(job->p, &job->plan, index, job->panels + index * job->plan.panel_size);
}

/* So that its vectors cross no cache line, as those of the units may: of (100, 784, 240, 5) the last 4 rows took 44 us,
 * and take 38. */
static void REAL(copy_tail)(const struct REAL(job) * job) {
  const struct REAL(product) *original = job->p->original;
  for (int64_t row = job->p->columns, i = 0; row < original->rows; row++, i++)
    memcpy(job->tail + i * job->tail_stride, original->left + row * original->left_row_stride,
           (size_t)original->depth * sizeof(real));
}

size_t REAL(packed_bytes)(const struct REAL(product) * p, const struct REAL(kernels) * kernels) {
  struct REAL(plan) plan = REAL(packed_plan)(p, kernels);
  return (size_t)(plan.panels * plan.panel_size) * sizeof(real);
}

int REAL(pack)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, real *panels) {
  struct REAL(plan) plan = REAL(packed_plan)(p, kernels);
  int carried = 1;
  for (int64_t i = 0; i < plan.panels && carried; i++)
    carried = REAL(pack_panel)(p, &plan, i, panels + i * plan.panel_size);
  return carried;
}

/* All the tasks of one band of rows after the other. */
static void REAL(run_bands)(struct REAL(job) * job, int threads) {
  const struct REAL(plan) *plan = &job->plan;
  for (job->band = 0; job->band < job->p->rows; job->band += plan->band_rows) {
    job->band_end = smaller(job->p->rows, job->band + plan->band_rows);
    int64_t rows = job->band_end - job->band;
    if (job->packed_left) share_tasks(ceil_div(rows, LEFT_BLOCK), threads, REAL(pack_left), job);
    queue_tasks(ceil_div(plan->panels, plan->task_panels) * ceil_div(rows, plan->task_rows), threads, REAL(run_task),
                job);
  }
}

/* The panels packed by the caller for these kernels. */
static real *REAL(packed_panels)(const struct REAL(packed) * packed, const struct REAL(kernels) * kernels) {
  return kernels == packed->isa->REAL(kernels) ? packed->panels : packed->tier_panels;
}

static int REAL(run_on)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots,
                        enum scratch_user user, int threads) {
  struct REAL(job) job = {.p = p, .plan = REAL(make_plan)(p, kernels, dots, threads)};
  const struct REAL(plan) *plan = &job.plan;
  size_t left_bytes = 0, carried_bytes = 0, panels_bytes = 0, tail_bytes = 0;
  if (plan->packs_left) carried_bytes = aligned((size_t)ceil_div(p->rows, LEFT_BLOCK));
  if (plan->packs_rows)
    job.rows_bytes = aligned((size_t)(plan->row_chunk * plan->left_stride) * sizeof(real));
  else if (plan->packs_left)
    left_bytes =
        aligned((size_t)(ceil_div(plan->band_rows, LEFT_BLOCK) * LEFT_BLOCK * plan->left_stride) * sizeof(real));
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
    int64_t bias = plan->panel_vectors * lanes, slice = smaller(plan->slice, plan->depth) * bias;
    job.right_bytes = aligned((size_t)(plan->dots   ? bias
                                       : plan->keep ? plan->task_panels * plan->panel_step
                                                    : bias + slice) *
                              sizeof(real));
  }
  job.sums_bytes = aligned((size_t)(sums * lanes) * sizeof(real));
  job.room_bytes = job.right_bytes + job.rows_bytes + job.sums_bytes + aligned((size_t)plan->task_panels);
  size_t shared_bytes = left_bytes + carried_bytes + panels_bytes + tail_bytes;
  char *memory = scratch(user, shared_bytes + (size_t)threads * job.room_bytes);
  if (!memory) return FA_NO_MEMORY;
  if (left_bytes) job.packed_left = (real *)memory;
  if (carried_bytes) job.left_carried = (uint8_t *)memory + left_bytes;
  if (p->packed) job.panels = REAL(packed_panels)(p->packed, kernels);
  if (p->original) job.panels = (real *)(memory + left_bytes + carried_bytes);
  job.tail = (real *)(memory + shared_bytes - tail_bytes);
  job.rooms = memory + shared_bytes;
  if (tail_bytes) REAL(copy_tail)(&job);
  if (p->original) share_tasks(plan->panels, panels_bytes < MIN_SHARED_BYTES ? 1 : threads, REAL(pack_right), &job);
  REAL(run_bands)(&job, threads);
  release_scratch(user);
  return job.status;
}

/* Rows of x in the lanes, but for the last `tail`; the units are read where they lie. */
static int REAL(run_swapped)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int64_t tail,
                             int threads) {
  return REAL(run_on)(
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
  const struct isa *isa = REAL(isa_of)(p);
  if (p->packed && !p->packed->panels && !p->packed->tier_panels) {
    struct REAL(product) lying = *p;
    lying.packed = NULL;
    return REAL(run_on)(&lying, isa->REAL(kernels), 1, SCRATCH_KERNEL, threads);
  }
  struct product_sizes sizes = {p->rows, p->depth, p->columns, p->pieces};
  const struct REAL(kernels) *tier = REAL(isa_tier)(isa, p->packed ? p->packed->precision : p->precision, &sizes);
  if (p->packed && !p->packed->tier_panels) tier = isa->REAL(kernels);
  int64_t tail;
  enum order order = REAL(quickest_order)(p, tier, &tail);
  if (order == SWAPPED) return REAL(run_swapped)(p, tier, tail, threads);
  int dots = order == DOTS;
  return REAL(run_on)(p, dots ? isa->REAL(kernels) : tier, dots, SCRATCH_KERNEL, threads);
}

#endif
