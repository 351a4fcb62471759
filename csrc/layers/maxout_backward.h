/* The three gradients of linear + maxout, and the two ways to compute those of x and weight: gathers over the winners,
 * 1/pieces of the dense work; or on a tier dense products over the scattered gradient. */
#ifndef FA_MAXOUT_BACKWARD_H
#define FA_MAXOUT_BACKWARD_H

#include "engine/dispatch.h"

struct maxout_backward {
  const struct call *call;
  int64_t rows, in_features, out_features, pieces;
  int window;            /* rows on each side that come with a row of x, as in struct fa_step */
  int64_t depth;         /* (2 window + 1) in_features */
  const char *grad_y;    /* (rows, out_features) */
  const char *x;         /* (rows, depth): rows with their neighbours, in_features apart */
  const char *weight;    /* (out_features, pieces, depth) */
  const uint8_t *argmax; /* (rows, out_features), or NULL where pieces is 1 */
  char *grad_x, *grad_weight;
  int accumulate; /* add to grad_weight */
};

/* Gathers.  Each returns FA_OK or FA_NO_MEMORY. */
int gather_grad_x(const struct maxout_backward *b);
int gather_grad_weight(const struct maxout_backward *b);

/* Whether a dense product of these sizes on the tier's unit is quicker than the gather. */
int dense_is_quicker(const struct maxout_backward *b, int64_t rows, int64_t depth, int64_t columns);

/* Dense products.  Both return PRODUCT_NOT_REPRESENTABLE if the tier's unit cannot represent a number of an operand;
 * then grad_x is undefined, and nothing is added to grad_weight. */
int dense_grad_x(const struct maxout_backward *b);
int dense_grad_weight(const struct maxout_backward *b);

#endif
