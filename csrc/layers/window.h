/* grad_x of a window: a sum over its offsets, without a gradient of the rows with their neighbours. */
#ifndef FA_WINDOW_H
#define FA_WINDOW_H

#include "engine/sizes.h"

/* The terms of one offset, 0 to 2 window: the rows of grad_y from `from` on, times the weights of the offset, belong to
 * the rows of grad_x from `to` on.  There may be no such rows. */
struct window_terms {
  int offset;
  int64_t from, to, rows;
};

/* The terms number `index`, 0 to 2 window.  The first are those of the row itself, which all the rows have. */
static inline struct window_terms window_terms(int64_t rows, int window, int index) {
  int offset = (window + index) % (2 * window + 1);
  int64_t shift = offset - window;
  return (struct window_terms){
      .offset = offset,
      .from = larger(0, -shift),
      .to = larger(0, shift),
      .rows = larger(0, rows - larger(shift, -shift)),
  };
}

#endif
