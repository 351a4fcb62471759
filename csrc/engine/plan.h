/* The blocking of a product: the right operand in panels, the whole in tasks of row, column and depth blocks. */
#ifndef FA_PLAN_H
#define FA_PLAN_H

#include "engine/product.h"

/* A panel: the right operand for some columns, a vector of them with all its pieces, or for few pieces several such
 * vectors side by side.  A micro-panel is as many of its vectors as fit a micro-tile (NR). */
struct panel {
  int64_t column, columns; /* inside the result; the vectors may reach beyond */
  int vectors;
};

/* How the right operand is packed.  The widths of panels differ by at most one vector. */
struct panel_layout {
  const struct kernels *kernels;
  int64_t depth, columns; /* of the product, in elements */
  int pieces;
  int64_t panels;
  int panel_vectors;   /* of the widest */
  int64_t words;       /* of the whole depth */
  int64_t cut;         /* words that a micro-tile sums before the sums are added up */
  int64_t depth_block; /* KC: words of a panel that all the micro-tiles pass before the next */
  int64_t panel_size;  /* elements: bias [vectors][lanes], then depth blocks, in each micro-panel after micro-panel
                          [words][lanes of the micro-panel] */
};

struct plan {
  struct panel_layout right;
  int in_place;     /* panels of whole vectors are not packed: micro-tiles read the right operand where it is */
  int whole_panels; /* a packed panel has all of the depth, not a depth pass alone */
  int keep; /* packed panels are kept for later row blocks; otherwise each depth block is packed over the one before */

  /* A task: some panels (NC) and some rows. */
  int64_t task_panels, task_rows; /* the most of one */
  int64_t depth_pass;             /* words that all the rows of a task pass before the next */
  int64_t row_block;              /* MC: rows that pass all the panels of a task before the next, and stay in L2 */
  int64_t row_step;               /* rows are stored in multiples of this many */
  int64_t panel_step;             /* elements between the packed panels of a task */

  /* How the left operand is packed. */
  int64_t left_rows; /* packed at a time; all the tasks of these rows run before the next are packed */
  int packs_left;    /* into words, or so that its depth is contiguous */
  int packs_rows;    /* each task packs its own rows, a row block at a time */
  int64_t left_stride;
  int64_t max_tile_rows;
};

/* The plan of packed panels, or of panels that are read in place. */
struct plan plan_tiles(const struct product *p, const struct kernels *kernels, int threads);

/* The plan of `p` with the operands exchanged: its rows are the `units` (columns and their pieces) of the original, its
 * columns the batch.  Its panels are packed beforehand. */
struct plan plan_batch_in_lanes(const struct product *p, int64_t unit_rows, const struct kernels *kernels, int threads);

/* How panels that outlive a product are packed; the layout depends on depth, columns and pieces alone. */
struct panel_layout packed_layout(int64_t depth, int64_t columns, int pieces, const struct kernels *kernels);

/* Tasks and row blocks of a product on unpacked weights. */
struct unpacked_plan {
  struct panel_layout right;
  int64_t task_panels, task_rows, row_block;
};

struct unpacked_plan plan_unpacked(const struct product *p, const struct kernels *kernels, int threads);

struct panel panel_at(const struct panel_layout *layout, int64_t index);

#endif
