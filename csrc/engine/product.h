/* The product behind every layer: y (rows, columns) = left (rows, depth) @ right (depth, columns) + bias, or for
 * several pieces the maximum over the pieces of each column.  Strides count elements. */
#ifndef FA_PRODUCT_H
#define FA_PRODUCT_H

#include "engine/dispatch.h"
#include "engine/source.h"

/* A status in addition to enum fa_status: the tier's unit cannot represent a number of an operand. */
enum { PRODUCT_NOT_REPRESENTABLE = 16 };

/* The right operand and the bias, packed once for the kernels of one ISA and precision: those of its vector unit, or
 * NULL where the tier takes every product; and those of the tier, or NULL.  With neither, the product runs as dot
 * products on unpacked weights, and its source is dense.  64-byte aligned. */
struct packed_weights {
  char *panels, *tier_panels;
};

/* Without pieces one of column_stride and depth_stride is 1, with pieces depth_stride. */
struct weights {
  const char *data;
  int64_t column_stride, depth_stride, piece_stride;
  const char *bias;                    /* (columns, pieces), or NULL */
  const struct packed_weights *packed; /* used instead of data and bias where the unit represents x; or NULL */
};

/* A part of y. */
struct block {
  int64_t row, rows, column, columns;
};

/* An epilogue: bias and maximum, then a step of the caller's own, block by block of finished sums. */
struct epilogue {
  char *y;
  uint8_t *argmax;  /* or NULL; for several pieces */
  int64_t y_stride; /* between rows of y and of argmax */
  int accumulate;   /* one piece: add to y */
  /* Called for each block of y when it is stored and still in cache; or NULL. */
  void (*then)(const void *context, struct block block);
  const void *context;
};

struct product {
  int64_t rows, depth, columns;
  int pieces;
  const struct source *left;
  struct weights right;
  struct epilogue epilogue;
};

/* Returns FA_OK; FA_NO_MEMORY; or, for a scattered source alone, PRODUCT_NOT_REPRESENTABLE, and y is undefined.  A
 * scattered source has zeros at the losers, and 0 times an infinity would be NaN.  The order of a sum depends on the
 * shape and the kernels, not on threads. */
int run_product(const struct call *call, const struct product *p);

#endif
