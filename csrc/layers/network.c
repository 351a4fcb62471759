#include "layers/network.h"

#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/workspace.h"
#include "kernels/activation_list.h"
#include "layers/layer_norm.h"

/* A large batch of inference goes through hidden layers in parts, so that what is between the layers stays in the
 * caches: for each thread PART_BYTES of an array, or PART_ROWS rows, which are enough for a product to pack its
 * weights. Boundaries are multiples of PART_STEP rows, of which vectors and packed blocks of rows are divisors.
 * Training, which writes each array to its tape, gains nothing from parts.  bench/tuning: network-parts */
#define PART_BYTES (256 << 10)
#define PART_ROWS 1024
#define PART_STEP 64

/* Elements of a task that moves numbers. */
#define BLOCK 4096

/* Of a tape. */
#define MOST_BYTES ((int64_t)1 << 62)

/* ---- dropout, and the sum of a residual */

/* One of to = a + b, and to = keep a factor, element by element. */
struct elements {
  const struct kernels *kernels;
  int64_t n;
  const char *a, *b;
  const uint8_t *keep;
  double factor;
  char *to; /* may be a, not b */
};

static void sum_block(void *context, int64_t task) {
  const struct elements *e = context;
  int itemsize = e->kernels->itemsize;
  int64_t at = task * BLOCK, n = smaller(BLOCK, e->n - at);
  char *to = element(e->to, at, itemsize);
  if (e->to != e->a) memcpy(to, element(e->a, at, itemsize), (size_t)(n * itemsize));
  e->kernels->add(n, element(e->b, at, itemsize), to);
}

static void drop_block(void *context, int64_t task) {
  const struct elements *e = context;
  int itemsize = e->kernels->itemsize;
  int64_t at = task * BLOCK;
  e->kernels->dropout(smaller(BLOCK, e->n - at), e->factor, e->keep + at, element(e->a, at, itemsize),
                      element(e->to, at, itemsize));
}

static void add_arrays(const struct call *call, int64_t n, const char *a, const char *b, char *to) {
  struct elements e = {.kernels = call->kernels, .n = n, .a = a, .b = b, .to = to};
  share_tasks(ceil_div(n, BLOCK), threads_for(call->threads, n), sum_block, &e);
}

static void drop(const struct call *call, int64_t n, double factor, const uint8_t *keep, const char *x, char *y) {
  struct elements e = {.kernels = call->kernels, .n = n, .a = x, .keep = keep, .factor = factor, .to = y};
  share_tasks(ceil_div(n, BLOCK), threads_for(call->threads, n), drop_block, &e);
}

/* ---- windows */

/* The step that takes the output of step i, or for i = -1 the network's x; NULL after the last one. */
static const struct fa_step *reader_of(const struct fa_step *const *steps, int64_t count, int64_t i) {
  do i++;
  while (i < count && steps[i]->layer == FA_BRANCH);
  return i < count ? steps[i] : NULL;
}

/* The elements before and after the output of step i that its reader's window takes. */
static int64_t margin_of(const struct fa_step *const *steps, int64_t count, int64_t i) {
  const struct fa_step *reader = reader_of(steps, count, i);
  return reader ? reader->window * reader->in_features : 0;
}

/* The largest of these; 0 without windows. */
static int64_t widest_margin(const struct fa_step *const *steps, int64_t count) {
  int64_t widest = 0;
  for (int64_t i = -1; i < count; i++) widest = larger(widest, margin_of(steps, count, i));
  return widest;
}

/* Zeros before and after an array of n elements. */
static void clear_margins(char *array, int64_t n, int64_t margin, int itemsize) {
  size_t bytes = (size_t)(margin * itemsize);
  if (bytes == 0) return; /* the array may be NULL */
  memset(array - bytes, 0, bytes);
  memset(element(array, n, itemsize), 0, bytes);
}

/* ---- arrays between the steps */

/* Buffers of equal size. */
struct buffers {
  char *memory; /* the first buffer's array, with its margin before it */
  size_t bytes; /* of a buffer */
};

/* The arrays that residuals need again, a stack, and their features. */
struct branches {
  int count;
  const char *array[FA_MAX_BRANCHES];
  int64_t features[FA_MAX_BRANCHES];
};

static void push(struct branches *b, const char *array, int64_t features) {
  b->features[b->count] = features;
  b->array[b->count++] = array;
}

static const char *pop(struct branches *b) { return b->array[--b->count]; }

/* The rows from `row` on of all the arrays. */
static struct branches from_row(const struct branches *whole, int64_t row, int itemsize) {
  struct branches b = *whole;
  for (int i = 0; i < b.count; i++) b.array[i] = element(b.array[i], row * b.features[i], itemsize);
  return b;
}

/* A buffer that is neither `current` nor a branch. */
static char *free_buffer(const struct buffers *buffers, const struct branches *b, const char *current) {
  char *buffer = buffers->memory;
  for (;; buffer += buffers->bytes) {
    int taken = buffer == current;
    for (int i = 0; i < b->count; i++) taken |= buffer == b->array[i];
    if (!taken) return buffer;
  }
}

static int depth_after(const struct fa_step *step, int depth) {
  return depth + (step->layer == FA_BRANCH) - (step->layer == FA_SUM);
}

/* Buffers that are enough between the steps, the same for any number of steps: one for the array at hand, one for the
 * next, and one for each residual inside another. */
static int64_t buffers_between(const struct fa_step *const *steps, int64_t count) {
  int depth = 0, most = 0;
  for (int64_t i = 0; i < count; i++) {
    depth = depth_after(steps[i], depth);
    if (depth > most) most = depth;
  }
  return most + 2;
}

/* The features of the widest input of a step from `first` on; 1 without steps. */
static int64_t widest_input(const struct fa_step *const *steps, int64_t count, int64_t first) {
  int64_t widest = 1;
  for (int64_t i = first; i < count; i++) widest = larger(widest, steps[i]->in_features);
  return widest;
}

/* ---- segments: steps without a window, but for that of the first product.  A row of the last step's output depends on
 * the window of that row alone, so a segment runs for some rows at a time, and what is between its steps stays in
 * cache. */

/* Whether step i needs all the rows of its input: for a window, its own or that of a step before the sum of the branch
 * that it is. */
static int takes_all_rows(const struct fa_step *const *steps, int64_t count, int64_t i) {
  int windows = steps[i]->window > 0;
  int depth = depth_after(steps[i], 0);
  for (; depth > 0 && ++i < count; depth = depth_after(steps[i], depth)) windows |= steps[i]->window > 0;
  return windows;
}

/* The end of the segment that begins with step `first`, perhaps with branches before the window. */
static int64_t segment_end(const struct fa_step *const *steps, int64_t count, int64_t first) {
  int64_t i = first;
  while (i < count && steps[i]->layer == FA_BRANCH) i++;
  do i++;
  while (i < count && !takes_all_rows(steps, count, i));
  return smaller(i, count);
}

/* Arrays of all the rows that are enough between segments, and the features of the widest: one for the input, one for
 * the output, and one for each residual that a segment is inside of. */
static int64_t buffers_between_segments(const struct fa_step *const *steps, int64_t count, int64_t *widest) {
  int depth = 0, most = 0;
  *widest = margin_of(steps, count, -1) ? steps[0]->in_features : 1;
  for (int64_t first = 0; first < count;) {
    if (depth > most) most = depth;
    if (first > 0) *widest = larger(*widest, steps[first]->in_features);
    for (int64_t end = segment_end(steps, count, first); first < end; first++) depth = depth_after(steps[first], depth);
  }
  return most + 2;
}

/* The rows of a part of a segment, at most; the sizes of parts differ by at most PART_STEP. */
static int64_t rows_of_part(const struct call *call, const struct fa_step *const *steps, int64_t count, int64_t rows) {
  int64_t row_bytes = widest_input(steps, count, 1) * call->kernels->itemsize;
  int64_t most = larger(PART_BYTES / row_bytes, PART_ROWS) * threads_for(call->threads, INT64_MAX);
  return round_up(smaller(rows, most), PART_STEP);
}

/* ---- the forward, of inference and of training */

struct saved saved_by(const struct fa_step *s, int itemsize) {
  switch (s->layer) {
  case FA_LINEAR: return (struct saved){s->saves_z ? s->out_features : 0, itemsize};
  case FA_MAXOUT:
  case FA_DROPOUT: return (struct saved){s->out_features, 1};
  case FA_LAYER_NORM: return (struct saved){2, itemsize};
  default: return (struct saved){0, itemsize};
  }
}

struct forward {
  const struct call *call;
  const struct fa_step *const *steps;
  int64_t count, rows, part_rows;
  const struct tape *tape;     /* of training; NULL for inference */
  struct buffers whole, parts; /* of inference: for all the rows between segments, for those of a part inside of one */
};

static char *in_tape(const struct tape *tape, int64_t offset) { return (char *)tape + offset; }

/* One step for some rows.  `saved` is NULL in inference, and where nothing is saved. */
static int run_step(const struct forward *f, const struct fa_step *s, int64_t rows, const char *x,
                    struct branches *branches, char *y, char *saved) {
  struct call call = *f->call;
  int64_t n = rows * s->in_features;
  call.precision = s->precision;
  call.batch = f->rows;
  switch (s->layer) {
  case FA_LINEAR: return linear_forward(&call, s, rows, x, y, saved);
  case FA_MAXOUT: return maxout_forward(&call, s, rows, x, y, (uint8_t *)saved);
  case FA_ACTIVATION: activate(&call, rows, s->in_features, &s->activation, x, y); break;
  case FA_DROPOUT: drop(&call, n, s->factor, (const uint8_t *)saved, x, y); break;
  case FA_LAYER_NORM: layer_norm(&call, rows, s->in_features, s->eps, x, s->weight, s->bias, y, saved); break;
  default: add_arrays(&call, n, x, pop(branches), y);
  }
  return FA_OK;
}

/* The steps of a segment for some rows, all the rows in training. */
static int run_part(const struct forward *f, int64_t first, int64_t end, int64_t rows, const char *x, char *y,
                    struct branches branches) {
  int status = FA_OK;
  for (int64_t i = first; i < end && status == FA_OK; i++) {
    const struct fa_step *s = f->steps[i];
    if (s->layer == FA_BRANCH) {
      push(&branches, x, s->in_features);
      continue;
    }
    char *to = y, *saved = NULL;
    if (f->tape && f->tape->steps[i].saved) saved = in_tape(f->tape, f->tape->steps[i].saved);
    if (f->tape && f->tape->steps[i].y) to = in_tape(f->tape, f->tape->steps[i].y);
    if (!f->tape && i + 1 < end) to = free_buffer(&f->parts, &branches, x);
    status = run_step(f, s, rows, x, &branches, to, saved);
    x = to;
  }
  return status;
}

/* The steps of a segment for all the rows.  A product alone runs whole. */
static int run_segment(const struct forward *f, int64_t first, int64_t end, const char *x, char *y,
                       const struct branches *branches) {
  const int itemsize = f->call->kernels->itemsize;
  int64_t in_features = f->steps[first]->in_features, out_features = f->steps[end - 1]->out_features;
  int64_t part_rows = end - first == 1 ? f->rows : f->part_rows;
  int64_t blocks = ceil_div(f->rows, PART_STEP), parts = ceil_div(f->rows, part_rows);
  int status = FA_OK;
  for (int64_t part = 0; part < parts && status == FA_OK; part++) {
    int64_t row = part_start(blocks, parts, part) * PART_STEP;
    int64_t stop = smaller(f->rows, part_start(blocks, parts, part + 1) * PART_STEP);
    status = run_part(f, first, end, stop - row, element(x, row * in_features, itemsize),
                      element(y, row * out_features, itemsize), from_row(branches, row, itemsize));
  }
  return status;
}

/* All the segments.  An array that a window takes gets zeros before and after it. */
static int run_segments(const struct forward *f, const char *x, char *y) {
  const int itemsize = f->call->kernels->itemsize;
  struct branches branches = {0};
  int64_t margin = margin_of(f->steps, f->count, -1);
  int status = FA_OK;
  if (margin) {
    int64_t n = f->rows * f->steps[0]->in_features;
    char *copy = f->tape ? in_tape(f->tape, f->tape->x) : free_buffer(&f->whole, &branches, x);
    memcpy(copy, x, (size_t)(n * itemsize));
    clear_margins(copy, n, margin, itemsize);
    x = copy;
  }
  for (int64_t first = 0, end; first < f->count && status == FA_OK; first = end) {
    end = segment_end(f->steps, f->count, first);
    char *to = end == f->count ? y
               : f->tape       ? in_tape(f->tape, f->tape->steps[end - 1].y)
                               : free_buffer(&f->whole, &branches, x);
    clear_margins(to, f->rows * f->steps[end - 1]->out_features, margin_of(f->steps, f->count, end - 1), itemsize);
    status = run_segment(f, first, end, x, to, &branches);
    for (int64_t i = first; i < end; i++) { /* a branch that the segment does not sum is its input */
      if (f->steps[i]->layer == FA_BRANCH) push(&branches, x, f->steps[i]->in_features);
      if (f->steps[i]->layer == FA_SUM) pop(&branches);
    }
    x = to;
  }
  return status;
}

int infer(const struct call *call, const struct fa_step *const *steps, int64_t count, int64_t rows, const char *x,
          char *y) {
  const int itemsize = call->kernels->itemsize;
  struct forward f = {.call = call, .steps = steps, .count = count, .rows = rows};
  f.part_rows = rows_of_part(call, steps, count, rows);
  int64_t margin = widest_margin(steps, count), widest, whole = buffers_between_segments(steps, count, &widest);
  int64_t whole_bytes = widest * itemsize, part_bytes = widest_input(steps, count, 1) * itemsize; /* of a row */
  if (f.part_rows + rows > MOST_BYTES / (FA_MAX_BRANCHES + 2) / larger(whole_bytes, part_bytes)) return FA_NO_MEMORY;
  size_t margin_bytes = (size_t)(margin * itemsize);
  f.whole.bytes = margin ? aligned(margin_bytes) + aligned((size_t)(rows * whole_bytes) + margin_bytes) : 0;
  f.parts.bytes = count > 1 ? aligned((size_t)(f.part_rows * part_bytes)) : 0;
  size_t before = (size_t)whole * f.whole.bytes;
  char *memory = workspace(WORKSPACE_HIDDEN, before + (size_t)buffers_between(steps, count) * f.parts.bytes);
  if (!memory) return FA_NO_MEMORY;
  f.whole.memory = memory + aligned(margin_bytes);
  f.parts.memory = memory + before;
  return run_segments(&f, x, y);
}

/* ---- training */

/* (rows, columns) more, between margins, of a tape whose arrays end at *end -> the offset of their start.  An end
 * beyond MOST_BYTES, more than any memory, stays MOST_BYTES. */
static int64_t take(int64_t *end, int64_t rows, int64_t columns, int itemsize, int64_t margin) {
  size_t margin_bytes = (size_t)(margin * itemsize);
  int64_t start = *end + (int64_t)aligned(margin_bytes);
  int too_large = rows > (MOST_BYTES - start - (int64_t)margin_bytes) / itemsize / columns;
  *end = too_large ? MOST_BYTES : start + (int64_t)aligned((size_t)(rows * columns * itemsize) + margin_bytes);
  return start;
}

/* Whether step i writes over its input: a dropout or a sum, whose backward reads neither, after a step whose backward
 * does not read its output.  No branch begins between the two. */
static int in_place(const struct fa_step *const *steps, int64_t i) {
  if (i == 0 || (steps[i]->layer != FA_DROPOUT && steps[i]->layer != FA_SUM)) return 0;
  const struct fa_step *before = steps[i - 1];
  switch (before->layer) {
  case FA_LINEAR: return before->saves_z || before->activation.code == FA_IDENTITY;
  case FA_ACTIVATION: return before->saves_z;
  default: return before->layer != FA_BRANCH;
  }
}

int64_t lay_out_tape(int dtype, int itemsize, int64_t rows, const struct fa_step *const *steps, int64_t count,
                     struct tape *tape) {
  int64_t end = (int64_t)aligned(sizeof(struct tape) + (size_t)count * sizeof(struct tape_step));
  int64_t margin = margin_of(steps, count, -1), x = 0, y = 0;
  if (margin) x = take(&end, rows, steps[0]->in_features, itemsize, margin);
  for (int64_t i = 0; i < count; i++) {
    const struct fa_step *s = steps[i];
    int64_t last = i; /* of the steps that write to the same array */
    while (last + 1 < count && in_place(steps, last + 1)) last++;
    if (s->layer == FA_BRANCH || last + 1 == count)
      y = 0;
    else if (!in_place(steps, i))
      y = take(&end, rows, s->out_features, itemsize, margin_of(steps, count, last));
    const struct saved beside = saved_by(s, itemsize);
    int64_t saved = beside.columns ? take(&end, rows, beside.columns, beside.itemsize, 0) : 0;
    if (tape) tape->steps[i] = (struct tape_step){*s, y, saved};
  }
  if (tape) {
    tape->bytes = end;
    tape->rows = rows;
    tape->count = count;
    tape->x = x;
    tape->dtype = dtype;
  }
  return end;
}

int tape_fits(const struct tape *tape, int dtype, const struct fa_step *const *steps, int64_t count) {
  if (tape->dtype != dtype || tape->count != count) return 0;
  for (int64_t i = 0; i < count; i++) {
    const struct fa_step *a = &tape->steps[i].step, *b = steps[i];
    if (a->layer != b->layer || a->in_features != b->in_features || a->out_features != b->out_features ||
        a->window != b->window || a->pieces != b->pieces || a->activation.code != b->activation.code ||
        a->activation.custom != b->activation.custom || a->saves_z != b->saves_z)
      return 0;
  }
  return 1;
}

uint8_t *tape_keeps(struct tape *tape, int64_t index) { return (uint8_t *)in_tape(tape, tape->steps[index].saved); }

int train_forward(const struct call *call, const struct fa_step *const *steps, struct tape *tape, const char *x,
                  char *y) {
  const struct forward f = {call, steps, tape->count, tape->rows, .part_rows = tape->rows, .tape = tape};
  return run_segments(&f, x, y);
}

/* The first step whose backward is needed: without grad_x, the first that has gradients. */
static int64_t first_needed(const struct fa_step *const *steps, int64_t count, const char *grad_x) {
  int64_t i = 0;
  if (!grad_x)
    while (i < count && !steps[i]->grad_weight && !steps[i]->grad_bias && !steps[i]->grad_slope) i++;
  return i;
}

/* The array of the output of step i, which the next one takes; x for i = -1. */
static const char *output_of(const struct tape *tape, int64_t i, const char *x, const char *y) {
  while (i >= 0 && tape->steps[i].step.layer == FA_BRANCH) i--;
  if (i < 0) return x;
  return tape->steps[i].y ? in_tape(tape, tape->steps[i].y) : y;
}

int train_backward(const struct call *call, const struct fa_step *const *steps, const struct tape *tape, const char *x,
                   const char *y, const char *grad_y, char *grad_x, int accumulate) {
  int64_t rows = tape->rows, count = tape->count, first = first_needed(steps, count, grad_x);
  struct branches branches = {0};
  struct buffers buffers;
  if (tape->x) x = in_tape(tape, tape->x);
  buffers.bytes = aligned((size_t)(rows * widest_input(steps, count, first) * call->kernels->itemsize));
  buffers.memory = workspace(WORKSPACE_HIDDEN, (size_t)buffers_between(steps, count) * buffers.bytes);
  if (!buffers.memory) return FA_NO_MEMORY;
  const char *grad = grad_y;
  int status = FA_OK;
  for (int64_t i = count - 1; i >= first && status == FA_OK; i--) {
    const struct fa_step *s = steps[i];
    struct call own = *call;
    own.precision = tape->steps[i].step.precision;
    if (s->layer == FA_SUM) {
      push(&branches, grad, s->in_features);
      continue;
    }
    const char *input = output_of(tape, i - 1, x, y), *output = output_of(tape, i, x, y);
    const char *saved = in_tape(tape, tape->steps[i].saved);
    char *to = i == 0 && grad_x ? grad_x : free_buffer(&buffers, &branches, grad);
    char *wanted = i > first || grad_x ? to : NULL;
    int64_t n = rows * s->in_features;
    switch (s->layer) {
    case FA_LINEAR:
      status = linear_backward(&own, s, rows, grad, input, s->saves_z ? saved : output, wanted, accumulate);
      break;
    case FA_MAXOUT:
      status = maxout_backward(&own, s, rows, grad, input, (const uint8_t *)saved, wanted, accumulate);
      break;
    case FA_ACTIVATION:
      status = activation_backward(&own, rows, s->in_features, &s->activation, grad, s->saves_z ? input : output, to,
                                   s->grad_slope, accumulate);
      break;
    case FA_DROPOUT: drop(&own, n, tape->steps[i].step.factor, (const uint8_t *)saved, grad, to); break;
    case FA_LAYER_NORM:
      status = layer_norm_backward(&own, rows, s->in_features, grad, input, s->weight, saved, wanted, s->grad_weight,
                                   s->grad_bias, accumulate);
      break;
    default: add_arrays(&own, n, grad, pop(&branches), to);
    }
    grad = to;
  }
  return status;
}
