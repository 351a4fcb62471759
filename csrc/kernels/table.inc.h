#include "../real.h"

/* One call of a register tile: `rows` x `vectors` sums over `depth`, then the finish.
 *
 * The left operand is packed as [depth / 4][ROW_BLOCK][4], the right one as [depth][vectors][lanes]; both are padded
 * with zeros to a multiple of 4 in depth. */
struct REAL(tile) {
  int64_t depth;
  const real *left;
  const real *right;
  real *partial;    /* [rows][vectors][lanes], the sums of the runs before this one */
  int first_run;    /* partial holds nothing yet */
  int last_run;     /* finish; otherwise leave the sums in partial */
  const real *bias; /* [vectors][lanes], zeros where there is none */
  int64_t rows;     /* how many rows and columns of the tile are inside the result */
  int64_t columns;
  real *y; /* the tile's first result, rows `y_stride` apart */
  int64_t y_stride;
  int accumulate; /* linear: add to y */
  /* maxout: vector v holds piece `piece + v` of each output */
  uint8_t *argmax; /* or NULL; as y */
  int piece;
  int last_group; /* store y and argmax; otherwise leave the running maximum in best and index */
  real *best;     /* [rows][lanes] */
  real *index;    /* [rows][lanes], as reals */
};

/* For each row n: sums(n) [vectors][lanes] = sum over j of grad(n, j) * table(j * pieces + argmax(n, j), :) */
struct REAL(chosen) {
  int64_t rows, outputs, pieces;
  const real *table; /* [outputs * pieces][vectors][lanes] */
  const real *grad;  /* rows of grad and of argmax are row_stride apart */
  const uint8_t *argmax;
  int64_t row_stride;
  int add; /* to the old sums */
  real *sums;
};

/* For each output j and piece k: sums(j, k) [vectors][lanes] = sum over the rows i in rows(j, k) of grad(j, i) *
 * table(i, :) */
struct REAL(won) {
  int64_t outputs, pieces;
  const real *table; /* [64][vectors][lanes] */
  const real *grad;  /* [64] for each output, grad_stride apart */
  int64_t grad_stride;
  const uint64_t *rows; /* [pieces] for each output, rows_stride apart; a bit a row */
  int64_t rows_stride;
  int add; /* to the old sums */
  real *sums;
};

struct REAL(kernels) {
  int lanes;

  void (*pack_left)(int64_t rows, int64_t depth, const real *src, int64_t row_stride, int64_t depth_stride, real *dst);
  void (*pack_right)(int vectors, int side_by_side, int64_t columns, int64_t depth, const real *src,
                     int64_t vector_stride, int64_t lane_stride, int64_t depth_stride, real *dst);

  int max_group;                       /* the most pieces that one tile takes */
  int linear_vectors;                  /* vectors of the linear tile */
  int tile_rows[MAX_TILE_VECTORS + 1]; /* [vectors] */
  void (*linear_tile)(const struct REAL(tile) *);
  void (*maxout_tile[MAX_TILE_VECTORS + 1])(const struct REAL(tile) *); /* [pieces], from 2 */

  void (*dots)(int64_t rows, int64_t units, int64_t depth, const real *x, const real *w, real *sums);

  void (*sum_chosen[MAX_WINNER_VECTORS + 1])(const struct REAL(chosen) *); /* [vectors], from 1 */
  void (*sum_won[MAX_WINNER_VECTORS + 1])(const struct REAL(won) *);
  void (*winner_sets)(int64_t pieces, const uint8_t *argmax, uint64_t *rows);

  /* n elements, in any alignment; slope (n), or one for all where slope_step is 0; y may be z */
  void (*activation)(int activation, double parameter, const real *slope, int64_t slope_step, const real *z, real *y,
                     int64_t n);
  /* grad_z may be grad_y or saved */
  void (*activation_backward)(int activation, double parameter, const real *slope, int64_t slope_step,
                              const real *grad_y, const real *saved, real *grad_z, int64_t n);
  void (*add_slope_terms)(int64_t n, const real *grad_y, const real *z, real *sums);

  void (*maxout_rows)(int64_t pieces, int64_t n, const real *z, real *y, uint8_t *argmax);
  void (*maxout_columns)(int64_t pieces, int64_t inner, int64_t n, const real *z, real *y, uint8_t *argmax);
};
