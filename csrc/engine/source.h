/* Left operands of products.  A source hands the engine its rows, packed in the order in which micro-tiles read them; a
 * dense source's rows may also be read where they are.  A new kind of left operand (patches of an image) is one more
 * function of this type. */
#ifndef FA_SOURCE_H
#define FA_SOURCE_H

#include "kernels/vtable.h"

/* Rows that a source packs at once: a multiple of every kernels->left_block and of the lanes of every vector. */
#define PACK_ROWS 32

struct source {
  /* Packs rows [row, row + rows), at most PACK_ROWS, over all of `depth`.  Returns whether the kernels' unit can
   * represent all the numbers. */
  int (*pack)(const struct source *source, const struct kernels *kernels, int64_t row, int64_t rows, int64_t depth,
              char *dst, int64_t dst_stride);
  int dense; /* element (row, d) is at data + row * row_stride + d * depth_stride elements; one of the strides is 1 */
  const char *data;
  int64_t row_stride, depth_stride;
};

/* A matrix in memory.  Its rows may overlap: windows of rows are rows of a multiple of the depth, one row apart. */
struct source dense_source(const void *data, int64_t row_stride, int64_t depth_stride);

/* The gradient before a maximum, or its transpose: S (samples, outputs * pieces) with
 * S(n, j * pieces + argmax(n, j)) = grad_y(n, j), and 0 elsewhere.  It exists only while it is packed, and only for
 * kernels that have `scatter`. */
struct scattered_source {
  struct source source;
  int64_t outputs, pieces;
  const uint8_t *argmax; /* (samples, outputs) */
  int transposed;
};

struct scattered_source scattered_source(const void *grad_y, const uint8_t *argmax, int64_t outputs, int64_t pieces,
                                         int transposed);

#endif
