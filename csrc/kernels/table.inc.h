#include "../real.h"

/* sums (rows, vectors * lanes) = left (rows, depth) @ right (depth, vectors * lanes), in runs of depth whose sums are
 * added up */
struct REAL(tile) {
  int64_t depth, run;
  const real *left;  /* rows left_stride apart, or a block of packed rows */
  const real *right; /* rows right_stride apart */
  real *sums;        /* rows sums_stride apart */
  int64_t left_stride, right_stride, sums_stride;
  int add; /* to the old sums */
  int rows;
};

/* The finish of `rows` rows of sums [rows][vectors][lanes] */
struct REAL(finish) {
  int64_t rows;
  int vectors;
  const real *sums; /* rows sums_stride apart */
  int64_t sums_stride;
  const real *bias; /* [vectors][lanes], zeros where there is none */
  int64_t columns;  /* how many of the panel are inside the result */
  real *y;          /* rows of y and argmax are y_stride apart */
  int64_t y_stride;
  int accumulate;  /* linear: add to y */
  uint8_t *argmax; /* maxout: or NULL */
};

/* The finish of sums [units][pieces][vectors][lanes], samples in the lanes */
struct REAL(finish_units) {
  int64_t units, pieces;
  int vectors;
  const real *sums;
  const real *bias; /* (units, pieces), or NULL */
  int64_t samples;  /* how many of the panel are inside the result */
  real *y;          /* [samples][units]; rows of y and argmax are y_stride apart */
  int64_t y_stride;
  uint8_t *argmax; /* or NULL */
};

/* sums [rows][pieces][lanes] = x (rows, depth) . w (columns, pieces, depth), the columns in the lanes; one piece may
 * have more columns than lanes */
struct REAL(dots) {
  int64_t rows, columns;
  int pieces;
  int64_t depth;
  const real *x, *w;
  real *sums;
  int64_t x_stride, unit_stride, sums_stride;
};

/* Where the sums over the rows of a table go, and what is added to them. */
struct REAL(sums) {
  const real *run;   /* [n][vectors][lanes], the sums of the tables of a run before this one, or NULL */
  const real *total; /* the same, of the runs before, or NULL */
  real *to;          /* (n, columns), rows to_stride apart */
  int64_t to_stride, columns;
  int accumulate; /* add to what is there */
};

/* For each row n: sums(n) [vectors][lanes] = sum over j of grad(n, j) * table(j * pieces + argmax(n, j), :) */
struct REAL(chosen) {
  int64_t rows, outputs, pieces;
  const real *table; /* (outputs * pieces, vectors * lanes), rows table_stride apart */
  int64_t table_stride;
  const real *grad;                   /* rows of grad and of argmax are row_stride apart */
  const uint8_t *argmax, *argmax_end; /* nothing is read from argmax_end on */
  int64_t row_stride;
  struct REAL(sums) sums;
};

/* For each output j and piece k: sums(j, k) [vectors][lanes] = sum over the rows i in rows(j, k) of grad(j, i) *
 * table(i, :) */
struct REAL(won) {
  int64_t outputs, pieces;
  const real *table;    /* [TABLE_ROWS][vectors][lanes] */
  const real *grad;     /* [outputs][TABLE_ROWS] */
  const uint64_t *rows; /* [outputs][pieces], a bit a row */
  struct REAL(sums) sums;
};

/* sums (columns, pieces): for each piece of each column the sum over the rows that it won of grad_y */
struct REAL(bias_run) {
  int64_t rows, columns, pieces;
  const real *grad_y;    /* rows of grad_y and of argmax are `stride` apart */
  const uint8_t *argmax; /* less than `pieces` */
  int64_t stride;
  real *sums;
};

/* How a step of SGD changes each number, and one of Adam: as in fastact.h, beside old_mean = beta1, new_mean =
 * 1 - beta1, old_square = beta2 and new_square = 1 - beta2. */
struct REAL(sgd) {
  real lr, momentum;
  int nesterov;
  real decay;
};

struct REAL(adam) {
  real rate, old_mean, new_mean, old_square, new_square, unbias, eps, decay;
};

struct REAL(kernels) {
  const char *unit; /* what multiplies, where it is no unit of `real` */
  int lanes;

  /* Operands are packed in words: reals, or for a bfloat16 unit pairs of parts of them.  `step_terms` of depth make
   * `step_words`, and a sum is cut into runs of at most `run_words`.  A term in a full tile takes `tile_tenths` of the
   * time that it takes in a float32 one, times 10. */
  int step_terms, step_words, run_words, tile_tenths;

  /* Packed rows of the left operand come in blocks of so many, side by side at each step of depth; 1: row after row. */
  int left_block;
  int64_t l2_bytes; /* of the cache that a product is blocked for */

  /* Around the tiles of each task, on its thread; or NULL. */
  void (*begin)(void);
  void (*end)(void);

  /* src(row, d) -> dst (rows, words of depth); NULL where the rows of `real` are read in place, if their depth is
   * contiguous.  Returns, as the next two do, whether the words carry all the numbers: bfloat16 parts have no infinity
   * times a denormal number, and the largest float32 numbers are rounded to an infinity. */
  int (*pack_left)(int64_t rows, int64_t depth, const real *src, int64_t row_stride, int64_t depth_stride, real *dst,
                   int64_t dst_stride);
  /* grad and argmax (samples, outputs) -> dst (samples, units up to a multiple of lanes), some units of the gradient
   * before the maximum: dst(n, j * pieces + argmax(n, j) - unit) = grad(n, j), 0 elsewhere.  Or NULL. */
  void (*scatter)(int64_t samples, int64_t outputs, int64_t pieces, const real *grad, const uint8_t *argmax,
                  int64_t unit, int64_t units, real *dst, int64_t dst_stride);
  /* src (rows, columns) -> dst (columns, rows up to a multiple of lanes), zeros beyond `rows` */
  int (*transpose)(int64_t rows, int64_t columns, const real *src, int64_t src_stride, real *dst, int64_t dst_stride);
  /* src (rows, columns) -> dst (rows, lanes), zeros beyond `columns` */
  int (*copy_lanes)(int64_t rows, int64_t columns, const real *src, int64_t src_stride, real *dst, int64_t dst_stride);

  int max_vectors;                     /* of a tile */
  int paired;                          /* tiles of two vectors take as long as those of one */
  int panel_vectors;                   /* of a panel, more where one output has more pieces */
  int tile_rows[MAX_TILE_VECTORS + 1]; /* the most rows of a tile, for each number of vectors */
  void (*multiply[MAX_TILE_VECTORS + 1][MAX_TILE_ROWS + 1])(const struct REAL(tile) *); /* [vectors][rows], from 1 */
  void (*finish_linear)(const struct REAL(finish) *);
  void (*finish_maxout)(const struct REAL(finish) *);

  /* of the tables of `real` alone */
  void (*finish_units)(const struct REAL(finish_units) *);
  void (*dots)(const struct REAL(dots) *);

  int winner_vectors; /* the most vectors that a sum over winners takes */
  void (*pack_table)(int64_t rows, int64_t columns, const real *src, int64_t stride, int64_t width, real *dst);
  void (*sum_chosen[MAX_WINNER_VECTORS + 1])(const struct REAL(chosen) *); /* [vectors], from 1 */
  void (*sum_won[MAX_WINNER_VECTORS + 1])(const struct REAL(won) *);
  void (*find_winners)(int64_t rows, int64_t outputs, int64_t pieces, const real *grad_y, const uint8_t *argmax,
                       int64_t stride, real *grad, uint64_t *sets);
  void (*sum_bias)(const struct REAL(bias_run) *);

  /* n elements, in any alignment; slope (n), or one for all where slope_step is 0; y may be z */
  void (*activation)(int activation, double parameter, const real *slope, int64_t slope_step, const real *z, real *y,
                     int64_t n);
  /* grad_z may be grad_y or saved */
  void (*activation_backward)(int activation, double parameter, const real *slope, int64_t slope_step,
                              const real *grad_y, const real *saved, real *grad_z, int64_t n);
  void (*add_slope_terms)(int64_t n, const real *grad_y, const real *z, real *sums);

  void (*maxout_rows)(int64_t pieces, int64_t n, const real *z, real *y, uint8_t *argmax);
  void (*maxout_columns)(int64_t pieces, int64_t inner, int64_t n, const real *z, real *y, uint8_t *argmax);
  void (*maxout_narrow)(int64_t outer, int64_t pieces, int64_t inner, const real *z, real *y, uint8_t *argmax);

  /* grad = scale (y - target) over arrays of n; returns the sum of the squares of y - target */
  real (*mse)(int64_t n, real scale, const real *y, const real *target, real *grad);

  /* arrays of n; velocity may be NULL */
  void (*sgd)(int64_t n, const struct REAL(sgd) *, const real *grad, real *velocity, real *data);
  void (*adam)(int64_t n, const struct REAL(adam) *, const real *grad, real *mean, real *square, real *data);
  void (*limit_norm)(int64_t n, real max_norm, real *data);
};
