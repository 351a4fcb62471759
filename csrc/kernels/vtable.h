/* The contract between the drivers and an ISA: one table of kernels for each element type.
 *
 * Drivers know the size of an element, not its type, so every pointer to elements is a `void *`.  Kernels are serial,
 * allocate nothing and know nothing of Python.  Strides count elements of the table's type.
 *
 * Vocabulary: a vector holds `lanes` elements.  A word is what one step of a micro-kernel reads of the packed depth: an
 * element, or on a bfloat16 unit a pair of bfloat16 parts of elements.  A micro-tile is MR rows of MR x NR sums, NR
 * being whole vectors. */
#ifndef FA_VTABLE_H
#define FA_VTABLE_H

#include <stddef.h>
#include <stdint.h>

/* Sums are cut after this many terms, and the partial sums are added: one accumulator over a great depth has several
 * times the error of NumPy's product.  bench/tuning: depth-cut */
#define DEPTH_CUT 256

/* Upper limits of a micro-tile: vectors, rows, rows whose sums stay in registers, vectors of sums in registers. */
#define MAX_TILE_VECTORS 5
#define MAX_TILE_ROWS 32
#define MAX_REGISTER_ROWS 12
#define MAX_TILE_SUMS 25

/* Upper limit on the rows of a micro-tile on unpacked weights.  With more rows, packing costs less.
 * bench/tuning: max-unpacked-rows */
#define MAX_UNPACKED_ROWS 4

/* Rows of the table that a gather reads: with the most columns that it takes, 40 KiB of L1 (AVX-512) or 24 (AVX2). */
#define TABLE_ROWS 64

/* Upper limit on the vectors of sums that a gather keeps in registers: 8 to 12 hide the latency of the FMA unit. */
#define MAX_GATHER_VECTORS 12

/* argmax is one byte. */
#define MAX_PIECES 256

/* Upper limit on the results of one scatter, and the elements of grad_z that a task takes. */
#define SCATTER_BLOCK 2048

/* ---- arguments of kernels with many */

/* A micro-tile: sums (rows, vectors * lanes) = left (rows, depth) @ right (depth, vectors * lanes).  Each cut of depth
 * has sums of its own, which are added up in order. */
struct tile {
  int64_t depth, cut; /* in words */
  const void *left;   /* rows left_stride apart, or a block of packed rows */
  const void *right;  /* words of depth right_stride apart */
  void *sums;         /* rows sums_stride apart */
  int64_t left_stride, right_stride, sums_stride;
  int add; /* add to the sums that are there */
  int rows;
};

/* The epilogue of a tile: sums [rows][vectors][lanes], with the columns in the lanes, become y and argmax. */
struct epilogue_tile {
  int64_t rows;
  int vectors;      /* side by side for a plain product, the pieces of one vector of columns for a maximum */
  const void *sums; /* rows sums_stride apart */
  int64_t sums_stride;
  const void *bias; /* [vectors][lanes], zeros where there is none */
  int64_t columns;  /* inside the result; the vectors may reach beyond */
  void *y;          /* rows of y and of argmax are y_stride apart */
  int64_t y_stride;
  int accumulate;  /* plain products: add to y */
  uint8_t *argmax; /* maxima: or NULL */
};

/* The epilogue of a product with the batch in lanes: sums [columns][pieces][vectors][lanes], transposed into y and
 * argmax. */
struct epilogue_batch {
  int64_t columns, pieces;
  int vectors;
  const void *sums;
  const void *bias; /* (columns, pieces), or NULL */
  int64_t rows;     /* inside the result; the vectors may reach beyond */
  void *y;          /* (rows, columns); rows of y and of argmax are y_stride apart */
  int64_t y_stride;
  uint8_t *argmax; /* or NULL */
};

/* A panel on unpacked weights: sums [rows][pieces][lanes] = x (rows, depth) . w (columns, pieces, depth), the columns
 * in the lanes; with one piece there may be more columns than lanes. */
struct unpacked {
  int64_t rows, columns;
  int pieces;
  int64_t depth, cut; /* dot products have a cut of their own */
  const void *x, *w;
  void *sums;
  int64_t x_stride, unit_stride, sums_stride;
};

/* Destination of the sums over one table of a gather, and what is added to them. */
struct gather_sums {
  const void *partial; /* [n][vectors][lanes], sums over the tables just before, or NULL */
  const void *total;   /* the same over all the tables before those, or NULL */
  void *to;            /* (n, columns), rows to_stride apart */
  int64_t to_stride, columns;
  int accumulate; /* add to the numbers at `to` */
};

/* grad_x: for each row n, sums(n) [vectors][lanes] = sum over j of grad(n, j) * table(j * pieces + argmax(n, j), :) */
struct gather_x {
  int64_t rows, outputs, pieces;
  const void *table; /* (outputs * pieces, vectors * lanes), rows table_stride apart */
  int64_t table_stride;
  const void *grad;                   /* rows of grad and of argmax are row_stride apart */
  const uint8_t *argmax, *argmax_end; /* nothing is read from argmax_end on */
  int64_t row_stride;
  struct gather_sums sums;
};

/* grad_weight: for each output j and piece k, sums(j, k) [vectors][lanes] = sum over the rows i in rows(j, k) of
 * grad(j, i) * table(i, :) */
struct gather_weight {
  int64_t outputs, pieces;
  const void *table;    /* [TABLE_ROWS][vectors][lanes] */
  const void *grad;     /* [outputs][TABLE_ROWS] */
  const uint64_t *rows; /* [outputs][pieces], a bit a row */
  struct gather_sums sums;
};

/* grad_bias over DEPTH_CUT rows at most: sums (columns, pieces), for each piece of each column the sum of grad_y over
 * the rows in which the piece is the winner. */
struct gather_bias {
  int64_t rows, columns, pieces;
  const void *grad_y;    /* rows of grad_y and of argmax are `stride` apart */
  const uint8_t *argmax; /* less than `pieces` */
  int64_t stride;
  void *sums;
};

/* Gradients of layer norm over some rows, with g = grad_y weight and normal = (x - mean) scale:
 *
 *   grad_x = scale (g - mean(g) - normal mean(g normal)),  weight_sums += grad_y normal,  bias_sums += grad_y
 *
 * Each result may be NULL; grad_x may be grad_y. */
struct norm_backward {
  int64_t rows, features;
  const void *grad_y, *x; /* (rows, features) */
  const void *weight;     /* (features), or NULL */
  const void *saved;      /* (rows, 2): mean and scale */
  void *grad_x;
  void *weight_sums, *bias_sums; /* (features) */
};

/* Softmax cross-entropy over rows of logits.  A target is smoothing / classes, and 1 - smoothing more for the label. */
struct cross_entropy {
  int64_t rows, classes;
  const void *logits;    /* (rows, classes) */
  const int64_t *labels; /* (rows) */
  int64_t ignore_index;  /* a row with this label has no loss, and its gradient is 0 */
  double smoothing;
  double share; /* a factor of losses, a power of 2, so that their sum does not overflow */
  double scale; /* the factor of the gradient */
  void *grad;   /* (rows, classes) = scale (softmax - target) */
};

/* An element-wise loss over arrays of n. */
struct pairs {
  int64_t n;
  const void *y, *target;
  double delta;        /* of huber */
  double share, scale; /* as above */
  void *grad;          /* = scale times the derivative with respect to y */
};

/* A hash embedding of some ids, id_stride apart: y = (the sum of the rows keys[0 .. 3] of the table) scale.  The keys
 * are hashes of an id and the seed, modulo table_rows. */
struct hash_embed {
  int64_t rows;
  const uint64_t *ids;
  int64_t id_stride;
  uint32_t seed;
  const void *table; /* (table_rows, columns) */
  uint32_t table_rows;
  int64_t columns;
  const void *scale; /* (columns), or NULL */
  uint32_t *keys;    /* (rows, 4) */
  void *y;           /* (rows, columns), rows `stride` apart */
  int64_t stride;
};

/* Its backward for some columns: the rows keys[0 .. 3] of grad += grad_y scale.  Keys beyond table_rows are ignored. */
struct hash_embed_backward {
  int64_t rows, columns;
  const uint32_t *keys; /* (rows, 4) */
  const void *grad_y;   /* (rows, columns), rows grad_stride apart */
  int64_t grad_stride;
  const void *scale; /* (columns), or NULL */
  void *grad;        /* (table_rows, columns), rows `stride` apart */
  uint32_t table_rows;
  int64_t stride;
};

/* Hyper-parameters of the optimisers' steps, as in api/fastact.h. */
struct sgd {
  double lr, momentum;
  int nesterov;
  double decay;
};

struct adam {
  double rate, beta1, beta2, unbias, eps, decay, keep;
};

/* The work of a step beside its rule, in the same pass. */
struct beside {
  double clip;      /* the factor of the gradient, decay included: 1 for none */
  double shrink;    /* after the rule data -= shrink data */
  double new_share; /* then average += new_share (data - average) */
  char *average;    /* or NULL */
  char *cleared;    /* the gradient, which becomes 0 */
};

/* ---- costs */

/* Numbers fitted to the CPU that an ISA was measured on.  Costs are in tenths of the time of one term (a multiply-add
 * of one vector) in a full float32 micro-tile. */
struct tuning {
  int64_t l1_bytes, l2_bytes;
  int64_t l1_way_bytes; /* rows this far apart fall into one set of L1 */
  int conflicting_rows; /* upper limit on the rows of a micro-tile that fall into one set */

  int tile_term, tile_end;                         /* packed panels: a term, the end of a sum */
  int dot_term_l1, dot_term_l2, dot_term, dot_end; /* dot products: by the cache that holds the weights; end of a sum */
  int pack_term, pack_edge;                        /* packing: an element, the incomplete block of a row */
  int batch_term, batch_term_single, batch_end;    /* batch in lanes: a term, the same with one vector, end of a sum */
  int batch_unit, batch_row;                       /* its epilogue: a unit of a row, a row */
  int64_t batch_packed_bytes;                      /* a packed batch beyond this leaves L2 */
  int gather_term, pack_unit;                      /* gathers: a term; packing of a dense product, a row of the left */
};

/* ---- the table */

struct kernels {
  const char *unit; /* the unit that multiplies, if it is not the vector unit in the table's own type; else NULL */
  int itemsize;     /* bytes of an element */
  int lanes;
  const struct tuning *tuning;

  /* `step_terms` of depth make `step_words`.  A sum is cut after at most `cut_words`. */
  int step_terms, step_words, cut_words;

  /* Packed rows of the left operand come in blocks of this many, side by side at each step of depth; 1: row after row.
   */
  int left_block;

  /* Called before and after the tiles of each task, on its thread; or NULL. */
  void (*begin)(void);
  void (*end)(void);

  /* src(row, d) -> dst (rows, words of depth); NULL where rows of elements are read in place, if their depth is
   * contiguous.  Returns, as the next two do, whether the unit can represent all the numbers: bfloat16 parts have no
   * infinity times a denormal number, and the largest float32 numbers round to an infinity. */
  int (*pack_left)(int64_t rows, int64_t depth, const void *src, int64_t row_stride, int64_t depth_stride, void *dst,
                   int64_t dst_stride);
  /* src (rows, columns) -> dst (columns, rows up to a multiple of lanes), zeros beyond `rows` */
  int (*transpose)(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst, int64_t dst_stride);
  /* src (rows, columns) -> dst (rows, lanes), zeros beyond `columns` */
  int (*copy_lanes)(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst, int64_t dst_stride);
  /* grad and argmax (samples, outputs) -> dst (samples, units up to a multiple of lanes), some units of the gradient
   * before the maximum: dst(n, j * pieces + argmax(n, j) - unit) = grad(n, j), 0 elsewhere.  NULL where dense products
   * never replace the gathers. */
  void (*scatter)(int64_t samples, int64_t outputs, int64_t pieces, const void *grad, const uint8_t *argmax,
                  int64_t unit, int64_t units, void *dst, int64_t dst_stride);

  int max_vectors;                     /* of a micro-tile */
  int paired;                          /* micro-tiles of two vectors take as long as those of one */
  int panel_vectors;                   /* of a packed panel; more where one column has more pieces */
  int tile_rows[MAX_TILE_VECTORS + 1]; /* the most rows of a micro-tile, for each number of vectors */
  void (*multiply[MAX_TILE_VECTORS + 1][MAX_TILE_ROWS + 1])(const struct tile *); /* [vectors][rows], from 1 */
  void (*store_linear)(const struct epilogue_tile *);
  void (*store_maxout)(const struct epilogue_tile *);

  /* Only the tables of the vector units have the members below. */
  void (*store_batch)(const struct epilogue_batch *);
  void (*dots)(const struct unpacked *); /* the sums have an order of their own */
  /* the sums have the order of `multiply`; NULL without AVX-512's lanes */
  void (*unpacked_tiles)(const struct unpacked *);

  int gather_vectors; /* the most vectors of a gather */
  /* src rows -> dst [rows][width], zeros from `columns` on */
  void (*pack_table)(int64_t rows, int64_t columns, const void *src, int64_t stride, int64_t width, void *dst);
  void (*gather_x[MAX_GATHER_VECTORS + 1])(const struct gather_x *); /* [vectors], from 1 */
  void (*gather_weight[MAX_GATHER_VECTORS + 1])(const struct gather_weight *);
  /* at most TABLE_ROWS rows of grad_y and argmax (rows, outputs) -> grad [outputs][TABLE_ROWS], won [outputs][pieces],
   * the set of the rows in which each piece is the winner, a bit a row; without argmax the only piece is the winner in
   * all rows */
  void (*find_winners)(int64_t rows, int64_t outputs, int64_t pieces, const void *grad_y, const uint8_t *argmax,
                       int64_t stride, void *grad, uint64_t *won);
  void (*gather_bias)(const struct gather_bias *);

  /* n elements in any alignment; slope (n), or one for all where slope_step is 0; y may be z */
  void (*activation)(int activation, double parameter, const void *slope, int64_t slope_step, const void *z, void *y,
                     int64_t n);
  /* grad_z may be grad_y or saved */
  void (*activation_backward)(int activation, double parameter, const void *slope, int64_t slope_step,
                              const void *grad_y, const void *saved, void *grad_z, int64_t n);
  /* sums (n) += the terms of a PReLU's slope gradient */
  void (*add_slope_terms)(int64_t n, const void *grad_y, const void *z, void *sums);

  /* y = (x - mean) / sqrt(variance + eps) weight + bias of each row of n >= 1, and saved (rows, 2): mean, 1 /
   * sqrt(variance + eps).  weight, bias and saved may be NULL, y may be x. */
  void (*layer_norm)(int64_t rows, int64_t n, double eps, const void *x, const void *weight, const void *bias, void *y,
                     void *saved);
  void (*layer_norm_backward)(const struct norm_backward *);

  void (*hash_embed)(const struct hash_embed *);
  void (*hash_embed_backward)(const struct hash_embed_backward *);

  /* z (n, pieces), z (pieces, inner) of which n columns, z (outer, pieces, inner) with inner < lanes */
  void (*maxout_rows)(int64_t pieces, int64_t n, const void *z, void *y, uint8_t *argmax);
  void (*maxout_columns)(int64_t pieces, int64_t inner, int64_t n, const void *z, void *y, uint8_t *argmax);
  void (*maxout_narrow)(int64_t outer, int64_t pieces, int64_t inner, const void *z, void *y, uint8_t *argmax);
  /* grad_y, argmax (outer, inner) -> grad_z (outer, pieces, inner), zeros at the losers; and the same for n columns of
   * one outer.  An argmax beyond the last piece, which a caller's thread may write meanwhile, writes nothing outside.
   */
  void (*scatter_rows)(int64_t outer, int64_t pieces, int64_t inner, const void *grad_y, const uint8_t *argmax,
                       void *grad_z);
  void (*scatter_columns)(int64_t pieces, int64_t inner, int64_t n, const void *grad_y, const uint8_t *argmax,
                          void *grad_z);

  /* sums (n) += terms (n) */
  void (*add)(int64_t n, const void *terms, void *sums);
  /* to (n) = factor x, or added to it; `factor` points to one element */
  void (*scale)(int64_t n, const void *factor, const void *x, int accumulate, void *to);
  /* The fa_saxpy or fa_daxpy of api/fastact.h: its callers have no table, and call the function alone. */
  void (*axpy)(void);
  /* y (n) = x keep factor, where keep is 0 or 1; y may be x */
  void (*dropout)(int64_t n, double factor, const uint8_t *keep, const void *x, void *y);
  /* keep (n) = whether the random numbers [first, first + n) of the seed, of 32 bits, are at least the threshold; first
   * is divisible by 4; in the tables for float64 alone */
  void (*dropout_keep)(int64_t first, int64_t n, uint64_t seed, uint64_t threshold, uint8_t *keep);
  /* sums (columns) = the sums over `rows` rows of x, `stride` apart */
  void (*sum_columns)(int64_t rows, int64_t columns, int64_t stride, const void *x, void *sums);
  /* grad_slope (slopes) = sums over cuts and over columns `slopes` apart of partial (cuts, width), added in double; or
   * added to grad_slope */
  void (*sum_slopes)(int64_t cuts, int64_t width, const void *partial, int64_t slopes, int accumulate,
                     void *grad_slope);

  /* grad = 2 scale (y - target); returns the sum of the squares of y - target, without `share` */
  double (*mse)(const struct pairs *);
  /* Functions over arrays of each enum fa_dtype, in lanes of doubles; in the tables for float64 alone.  They return the
   * sum of share times the losses. */
  double (*cross_entropy[2])(const struct cross_entropy *);
  double (*binary_cross_entropy[2])(const struct pairs *);
  double (*huber[2])(const struct pairs *);

  /* arrays of n; velocity and struct beside may be NULL.  SGD clears a gradient that is not finite to NaN. */
  void (*sgd)(int64_t n, const struct sgd *, const struct beside *, const void *grad, void *velocity, void *data);
  void (*adam)(int64_t n, const struct adam *, const struct beside *, const void *grad, void *mean, void *square,
               void *data);
  /* scales a vector of n down to max_norm if its norm is larger */
  void (*limit_norm)(int64_t n, double max_norm, void *data);
  /* the sum of the squares of factor data [n], in double */
  double (*squared_norm)(int64_t n, double factor, const void *data);
  /* the largest |data| of n without a NaN, 0 for n = 0 */
  double (*max_abs)(int64_t n, const void *data);
  /* data [n] *= factor; each product is rounded once */
  void (*shrink)(int64_t n, double factor, void *data);
};

#endif
