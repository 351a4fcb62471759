#include "real.h"

/* The right operand of a product, and its bias, packed once, for one ISA and precision. */
struct REAL(packed) {
  const struct isa *isa;
  int precision; /* enum fa_precision */
  /* 64-byte aligned.  panels, of the kernels of `real`, or NULL where the tier takes every product; tier_panels, or
   * NULL. With neither, dots of rows and units where they lie. */
  real *panels, *tier_panels;
};

/* A left operand S or its transpose, S (samples, outputs * pieces), that is made of left (samples, outputs) while it is
 * packed: S(n, j * pieces + argmax(n, j)) = left(n, j), and 0 elsewhere. */
struct REAL(scattered) {
  int64_t outputs, pieces;
  const uint8_t *argmax; /* (samples, outputs) */
  int transposed;
};

/* y (rows, columns) = left (rows, depth) @ right (depth, columns) + bias, or for pieces > 1 the maximum over the
 * pieces of each column.  An operand is given by its strides, in reals. */
struct REAL(product) {
  int64_t rows, depth, columns;
  int pieces;
  const real *left;
  int64_t left_row_stride, left_depth_stride;
  const struct REAL(scattered) * scattered; /* for a tier whose kernels have scatter; or NULL */
  const real *right;
  int64_t right_column_stride, right_depth_stride, right_piece_stride;
  const real *bias;                   /* (columns, pieces), or NULL */
  const struct REAL(packed) * packed; /* used instead of right and bias where its words carry x; or NULL */
  real *y;
  uint8_t *argmax;       /* or NULL; for pieces > 1 */
  const struct isa *isa; /* NULL: the one in force, or of packed panels theirs */
  int precision;         /* enum fa_precision */
  int accumulate;        /* for pieces == 1: add to y */
  /* Called for each block of y when it is finished and still in cache; or NULL. */
  void (*after)(const void *context, int64_t row, int64_t rows, int64_t column, int64_t columns);
  const void *after_context;
  /* Set by the product itself: this one is `original` with the operands swapped.  The rows are all the pieces of its
   * columns, the columns its first rows; bias, y and argmax are its own, and `after` is called as for it.  Or NULL. */
  const struct REAL(product) * original;
};

/* Returns FA_OK, FA_NO_MEMORY, or for a scattered operand PRODUCT_UNCARRIED with nothing promised of y: where the words
 * don't carry all the numbers, since 0 times an infinity would spoil what a loser does not touch.  The order of each
 * sum depends on the shape alone, and of tiles on their kernels and depth alone. */
int REAL(product)(const struct REAL(product) * p, int threads);

/* Packs the right operand and the bias of a product for one table of kernels: `packed_bytes` at `panels`.  Of the
 * product only depth, columns, pieces, right and bias are read; the layout depends on the first three alone.  Returns
 * whether the kernels' words carry all the numbers; if not, the panels are not to be used. */
size_t REAL(packed_bytes)(const struct REAL(product) * p, const struct REAL(kernels) * kernels);
int REAL(pack)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, real *panels);
