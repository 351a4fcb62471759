/* grad_x and grad_weight as dense products over the scattered gradient, on a tier's unit. */
#include "engine/product.h"
#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/workspace.h"
#include "layers/maxout_backward.h"
#include "layers/window.h"

/* Numbers of a gradient that a task adds. */
#define ADD_BLOCK 65536

/* A dense product has `pieces` times the terms of a gather, on a quicker unit, and packs its rows.
 * bench/tuning: dense-backward */
int dense_is_quicker(const struct maxout_backward *b, int64_t rows, int64_t depth, int64_t columns) {
  const struct product_sizes sizes = {rows, depth, columns, 1};
  const struct kernels *tier = tier_kernels(b->call, &sizes);
  const struct tuning *t = tier->tuning;
  return tier->scatter && b->pieces * (t->tile_term * b->rows + t->pack_unit) < t->gather_term * b->rows;
}

int dense_grad_x(const struct maxout_backward *b) {
  const int itemsize = b->call->kernels->itemsize;
  int64_t units = b->out_features * b->pieces;
  int status = FA_OK;
  for (int i = 0; i <= 2 * b->window && status == FA_OK; i++) {
    const struct window_terms terms = window_terms(b->rows, b->window, i);
    int64_t from = terms.from * b->out_features;
    const struct scattered_source left =
        scattered_source(element(b->grad_y, from, itemsize), b->argmax + from, b->out_features, b->pieces, 0);
    const char *weight = element(b->weight, terms.offset * b->in_features, itemsize);
    char *grad_x = element(b->grad_x, terms.to * b->in_features, itemsize);
    status = run_product(b->call, &(struct product){
                                      .rows = terms.rows,
                                      .depth = units,
                                      .columns = b->in_features,
                                      .pieces = 1,
                                      .left = &left.source,
                                      .right = {.data = weight, .column_stride = 1, .depth_stride = b->depth},
                                      .epilogue = {.y = grad_x, .y_stride = b->in_features, .accumulate = i > 0},
                                  });
  }
  return status;
}

struct addition {
  const struct kernels *kernels;
  int64_t n;
  const char *terms;
  char *sums;
};

static void add_task(void *context, int64_t task) {
  const struct addition *a = context;
  int64_t i = task * ADD_BLOCK;
  a->kernels->add(smaller(ADD_BLOCK, a->n - i), element(a->terms, i, a->kernels->itemsize),
                  element(a->sums, i, a->kernels->itemsize));
}

/* Sums that are to be added are computed in a buffer first: nothing may be added if an operand turns out not to be
 * representable. */
int dense_grad_weight(const struct maxout_backward *b) {
  int64_t units = b->out_features * b->pieces, count = units * b->depth;
  const struct kernels *kernels = b->call->kernels;
  char *y = b->accumulate ? workspace(WORKSPACE_GRADIENT, (size_t)(count * kernels->itemsize)) : b->grad_weight;
  if (!y) return FA_NO_MEMORY;
  const struct scattered_source left = scattered_source(b->grad_y, b->argmax, b->out_features, b->pieces, 1);
  int status = run_product(b->call, &(struct product){
                                        .rows = units,
                                        .depth = b->rows,
                                        .columns = b->depth,
                                        .pieces = 1,
                                        .left = &left.source,
                                        .right = {.data = b->x, .column_stride = 1, .depth_stride = b->in_features},
                                        .epilogue = {.y = y, .y_stride = b->depth},
                                    });
  if (b->accumulate && status == FA_OK) {
    struct addition addition = {kernels, count, y, b->grad_weight};
    share_tasks(ceil_div(count, ADD_BLOCK), threads_for(b->call->threads, count), add_task, &addition);
  }
  return status;
}
