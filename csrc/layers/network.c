#include "layers/network.h"

#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/workspace.h"
#include "layers/layer_norm.h"

/* A large batch goes through hidden layers in parts, so that each hidden buffer stays this small.  Parts have about
 * HIDDEN_ROWS rows or more and differ by at most HIDDEN_STEP, whole blocks of the rows that a product packs, so that
 * all run on the same kernels. */
#define HIDDEN_BYTES (32 << 20)
#define HIDDEN_ROWS 1024
#define HIDDEN_STEP 64

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

/* x (n) -> to, between zeros.  Returns `to`. */
static const char *copy_between_margins(const char *x, int64_t n, int64_t margin, int itemsize, char *to) {
  memcpy(to, x, (size_t)(n * itemsize));
  clear_margins(to, n, margin, itemsize);
  return to;
}

/* ---- buffers between the steps */

/* Buffers of equal size, and a stack of arrays that a residual needs again; some of the arrays are buffers. */
struct buffers {
  char *memory; /* the first buffer's array, with its margin before it */
  size_t bytes; /* of a buffer */
  int branches;
  const char *branch[FA_MAX_BRANCHES];
};

/* The features of the widest input of a step from `first` on; 1 without steps. */
static int64_t widest_input(const struct fa_step *const *steps, int64_t count, int64_t first) {
  int64_t widest = 1;
  for (int64_t i = first; i < count; i++) widest = larger(widest, steps[i]->in_features);
  return widest;
}

/* Buffers for arrays of `bytes` between the steps with margins of margin_bytes, the same for any number of steps: one
 * for the array at hand, one for the next, and one for each residual inside another.  Without memory, 0 is returned. */
static int get_buffers(struct buffers *b, const struct fa_step *const *steps, int64_t count, size_t bytes,
                       size_t margin_bytes) {
  int depth = 0, most = 0;
  for (int64_t i = 0; i < count; i++) {
    depth += (steps[i]->layer == FA_BRANCH) - (steps[i]->layer == FA_SUM);
    if (depth > most) most = depth;
  }
  size_t before = aligned(margin_bytes);
  b->bytes = before + aligned(bytes + margin_bytes);
  b->branches = 0;
  char *memory = workspace(WORKSPACE_HIDDEN, (size_t)(most + 2) * b->bytes);
  b->memory = memory + before;
  return memory != NULL;
}

static void push(struct buffers *b, const char *array) { b->branch[b->branches++] = array; }
static const char *pop(struct buffers *b) { return b->branch[--b->branches]; }

/* A buffer that is neither `current` nor on the stack. */
static char *free_buffer(const struct buffers *b, const char *current) {
  char *buffer = b->memory;
  for (;; buffer += b->bytes) {
    int taken = buffer == current;
    for (int i = 0; i < b->branches; i++) taken |= buffer == b->branch[i];
    if (!taken) return buffer;
  }
}

/* ---- inference */

static int infer_rows(const struct call *call, const struct fa_step *const *steps, int64_t count, int64_t rows,
                      const char *x, char *y, struct buffers *buffers) {
  const int itemsize = call->kernels->itemsize;
  int64_t margin = margin_of(steps, count, -1), n = rows * steps[0]->in_features;
  int status = FA_OK;
  if (margin) x = copy_between_margins(x, n, margin, itemsize, free_buffer(buffers, x));
  for (int64_t i = 0; i < count && status == FA_OK; i++) {
    const struct fa_step *s = steps[i];
    struct call own = *call;
    own.precision = s->precision;
    if (s->layer == FA_BRANCH) {
      push(buffers, x);
      continue;
    }
    char *to = i + 1 < count ? free_buffer(buffers, x) : y;
    switch (s->layer) {
    case FA_LINEAR: status = linear_forward(&own, s, rows, x, to, NULL); break;
    case FA_MAXOUT: status = maxout_forward(&own, s, rows, x, to, NULL); break;
    case FA_ACTIVATION: activate(&own, rows, s->in_features, &s->activation, x, to); break;
    case FA_LAYER_NORM: layer_norm(&own, rows, s->in_features, s->eps, x, s->weight, s->bias, to, NULL); break;
    default: add_arrays(&own, rows * s->in_features, x, pop(buffers), to);
    }
    clear_margins(to, rows * s->out_features, margin_of(steps, count, i), itemsize);
    x = to;
  }
  return status;
}

int infer(const struct call *call, const struct fa_step *const *steps, int64_t count, int64_t rows, const char *x,
          char *y) {
  const int itemsize = call->kernels->itemsize;
  int64_t in_features = steps[0]->in_features, out_features = steps[count - 1]->out_features;
  int64_t margin = widest_margin(steps, count), row_bytes = widest_input(steps, count, margin ? 0 : 1) * itemsize;
  int64_t most = larger(HIDDEN_BYTES / row_bytes / HIDDEN_ROWS * HIDDEN_ROWS, HIDDEN_ROWS);
  int64_t blocks = ceil_div(rows, HIDDEN_STEP), parts = count == 1 || margin ? 1 : ceil_div(rows, most);
  most = smaller(rows, ceil_div(blocks, parts) * HIDDEN_STEP);
  if (most > MOST_BYTES / (FA_MAX_BRANCHES + 2) / row_bytes) return FA_NO_MEMORY;
  struct buffers buffers = {0};
  if ((count > 1 || margin) &&
      !get_buffers(&buffers, steps, count, (size_t)(most * row_bytes), (size_t)(margin * itemsize)))
    return FA_NO_MEMORY;
  int status = FA_OK;
  for (int64_t part = 0; part < parts && status == FA_OK; part++) {
    int64_t row = part_start(blocks, parts, part) * HIDDEN_STEP;
    int64_t end = smaller(rows, part_start(blocks, parts, part + 1) * HIDDEN_STEP);
    status = infer_rows(call, steps, count, end - row, element(x, row * in_features, itemsize),
                        element(y, row * out_features, itemsize), &buffers);
  }
  return status;
}

/* ---- training */

struct saved saved_by(const struct fa_step *s, int itemsize) {
  switch (s->layer) {
  case FA_LINEAR: return (struct saved){s->saves_z ? s->out_features : 0, itemsize};
  case FA_MAXOUT:
  case FA_DROPOUT: return (struct saved){s->out_features, 1};
  case FA_LAYER_NORM: return (struct saved){2, itemsize};
  default: return (struct saved){0, itemsize};
  }
}

/* (rows, columns) more, between margins, of a tape whose arrays end at *end -> the offset of their start.  An end
 * beyond MOST_BYTES, more than any memory, stays MOST_BYTES. */
static int64_t take(int64_t *end, int64_t rows, int64_t columns, int itemsize, int64_t margin) {
  size_t margin_bytes = (size_t)(margin * itemsize);
  int64_t start = *end + (int64_t)aligned(margin_bytes);
  int too_large = rows > (MOST_BYTES - start - (int64_t)margin_bytes) / itemsize / columns;
  *end = too_large ? MOST_BYTES : start + (int64_t)aligned((size_t)(rows * columns * itemsize) + margin_bytes);
  return start;
}

int64_t lay_out_tape(int dtype, int itemsize, int64_t rows, const struct fa_step *const *steps, int64_t count,
                     struct tape *tape) {
  int64_t end = (int64_t)aligned(sizeof(struct tape) + (size_t)count * sizeof(struct tape_step));
  int64_t margin = margin_of(steps, count, -1), x = 0;
  if (margin) x = take(&end, rows, steps[0]->in_features, itemsize, margin);
  for (int64_t i = 0; i < count; i++) {
    const struct fa_step *s = steps[i];
    int held = i + 1 < count && s->layer != FA_BRANCH;
    int64_t y = held ? take(&end, rows, s->out_features, itemsize, margin_of(steps, count, i)) : 0;
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
        a->saves_z != b->saves_z)
      return 0;
  }
  return 1;
}

static char *in_tape(const struct tape *tape, int64_t offset) { return (char *)tape + offset; }

/* The x that the steps take: the copy of it, if there is one. */
static const char *input_of(const struct tape *tape, const char *x) { return tape->x ? in_tape(tape, tape->x) : x; }

uint8_t *tape_keeps(struct tape *tape, int64_t index) { return (uint8_t *)in_tape(tape, tape->steps[index].saved); }

int train_forward(const struct call *call, const struct fa_step *const *steps, struct tape *tape, const char *x,
                  char *y) {
  const int itemsize = call->kernels->itemsize;
  int64_t rows = tape->rows, margin = margin_of(steps, tape->count, -1), n = rows * steps[0]->in_features;
  struct buffers stack = {0};
  int status = FA_OK;
  if (tape->x) x = copy_between_margins(x, n, margin, itemsize, in_tape(tape, tape->x));
  for (int64_t i = 0; i < tape->count && status == FA_OK; i++) {
    const struct fa_step *s = steps[i];
    struct call own = *call;
    own.precision = s->precision;
    const struct tape_step *place = &tape->steps[i];
    char *to = i + 1 < tape->count ? in_tape(tape, place->y) : y, *saved = in_tape(tape, place->saved);
    switch (s->layer) {
    case FA_LINEAR: status = linear_forward(&own, s, rows, x, to, s->saves_z ? saved : NULL); break;
    case FA_MAXOUT: status = maxout_forward(&own, s, rows, x, to, (uint8_t *)saved); break;
    case FA_ACTIVATION: activate(&own, rows, s->in_features, &s->activation, x, to); break;
    case FA_DROPOUT: drop(&own, rows * s->in_features, s->factor, (const uint8_t *)saved, x, to); break;
    case FA_LAYER_NORM: layer_norm(&own, rows, s->in_features, s->eps, x, s->weight, s->bias, to, saved); break;
    case FA_BRANCH: push(&stack, x); continue;
    default: add_arrays(&own, rows * s->in_features, x, pop(&stack), to);
    }
    clear_margins(to, rows * s->out_features, margin_of(steps, tape->count, i), itemsize);
    x = to;
  }
  return status;
}

/* The first step whose backward is needed: without grad_x, the first that has gradients. */
static int64_t first_needed(const struct fa_step *const *steps, int64_t count, const char *grad_x) {
  int64_t i = 0;
  if (!grad_x)
    while (i < count && !steps[i]->grad_weight && !steps[i]->grad_bias && !steps[i]->grad_slope) i++;
  return i;
}

/* The output of step i, which the next one takes; x for i = -1. */
static const char *output_of(const struct tape *tape, int64_t i, const char *x, const char *y) {
  while (i >= 0 && tape->steps[i].step.layer == FA_BRANCH) i--;
  if (i < 0) return x;
  return i + 1 < tape->count ? in_tape(tape, tape->steps[i].y) : y;
}

int train_backward(const struct call *call, const struct fa_step *const *steps, const struct tape *tape, const char *x,
                   const char *y, const char *grad_y, char *grad_x, int accumulate) {
  int64_t rows = tape->rows, count = tape->count, first = first_needed(steps, count, grad_x);
  struct buffers buffers;
  x = input_of(tape, x);
  size_t bytes = (size_t)(rows * widest_input(steps, count, first) * call->kernels->itemsize);
  if (!get_buffers(&buffers, steps, count, bytes, 0)) return FA_NO_MEMORY;
  const char *grad = grad_y;
  int status = FA_OK;
  for (int64_t i = count - 1; i >= first && status == FA_OK; i--) {
    const struct fa_step *s = steps[i];
    struct call own = *call;
    own.precision = tape->steps[i].step.precision;
    if (s->layer == FA_SUM) {
      push(&buffers, grad);
      continue;
    }
    const char *input = output_of(tape, i - 1, x, y), *output = output_of(tape, i, x, y);
    const char *saved = in_tape(tape, tape->steps[i].saved);
    char *to = i == 0 && grad_x ? grad_x : free_buffer(&buffers, grad);
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
    default: add_arrays(&own, n, grad, pop(&buffers), to);
    }
    grad = to;
  }
  return status;
}
