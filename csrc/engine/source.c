#include "engine/source.h"

#include "engine/sizes.h"

/* Depth of a scattered gradient that is expanded at a time: the block stays in L1. */
#define SCATTERED_DEPTH 64

static int pack_dense(const struct source *source, const struct kernels *kernels, int64_t row, int64_t rows,
                      int64_t depth, char *dst, int64_t dst_stride) {
  const char *src = element(source->data, row * source->row_stride, kernels->itemsize);
  if (kernels->pack_left)
    return kernels->pack_left(rows, depth, src, source->row_stride, source->depth_stride, dst, dst_stride);
  return kernels->transpose(depth, rows, src, source->depth_stride, dst, dst_stride);
}

struct source dense_source(const void *data, int64_t row_stride, int64_t depth_stride) {
  return (struct source){pack_dense, 1, data, row_stride, depth_stride};
}

/* Rows of S, or of its transpose, in blocks [samples][units] of SCATTERED_DEPTH along the depth. */
static int pack_scattered(const struct source *source, const struct kernels *kernels, int64_t row, int64_t rows,
                          int64_t depth, char *dst, int64_t dst_stride) {
  const struct scattered_source *s = (const struct scattered_source *)source;
  _Alignas(64) char block[PACK_ROWS * SCATTERED_DEPTH * sizeof(double)];
  const int itemsize = kernels->itemsize;
  int64_t units = s->transposed ? PACK_ROWS : SCATTERED_DEPTH;
  int64_t step = SCATTERED_DEPTH / kernels->step_terms * kernels->step_words * kernels->left_block;
  int representable = 1;
  for (int64_t d = 0; d < depth; d += SCATTERED_DEPTH, dst += step * itemsize) {
    int64_t terms = smaller(SCATTERED_DEPTH, depth - d);
    int64_t sample = s->transposed ? d : row, samples = s->transposed ? terms : rows;
    kernels->scatter(samples, s->outputs, s->pieces, element(source->data, sample * s->outputs, itemsize),
                     s->argmax + sample * s->outputs, s->transposed ? row : d, s->transposed ? rows : terms, block,
                     units);
    representable &=
        kernels->pack_left(rows, terms, block, s->transposed ? 1 : units, s->transposed ? units : 1, dst, dst_stride);
  }
  return representable;
}

struct scattered_source scattered_source(const void *grad_y, const uint8_t *argmax, int64_t outputs, int64_t pieces,
                                         int transposed) {
  return (struct scattered_source){{.pack = pack_scattered, .data = grad_y}, outputs, pieces, argmax, transposed};
}
