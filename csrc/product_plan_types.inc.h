#include "real.h"

/* A panel is the right operand for some outputs: a vector of them with all its pieces, or for few pieces some such
 * vectors side by side.  It is walked in slices: a group of its vectors, as many as fit the registers, times some runs
 * of depth. */
struct REAL(panel) {
  int64_t column, columns; /* columns inside the result; the vectors may reach beyond */
  int vectors;
};

struct REAL(plan) {
  const struct REAL(kernels) * kernels;

  /* How the right operand is packed. */
  int panel_vectors;         /* the most of a panel */
  int64_t depth, slice, run; /* in words of the kernels; of a slice and of a run the most */
  int64_t panels;
  int64_t panel_size; /* reals of a packed panel: bias [vectors][lanes], then slices, group after group [words][lanes
                         of the group] */

  /* What is not packed. */
  int dots;     /* of rows and units where they lie: only bias is packed */
  int in_place; /* panels of whole vectors are not packed, so that no tile reads beyond the right operand */

  /* What a task is, and in which order it passes panels, rows and depth. */
  int64_t task_panels, task_rows; /* the most of one */
  int64_t slab_words;             /* words of depth that all the rows of a task pass before the next */
  int64_t row_chunk;              /* rows that pass all the panels of a task before the next, and stay in L2 */
  int64_t row_step;               /* rows that are finished together */
  int64_t panel_step;             /* between panels; those that a task packs have the depth of a slab alone */
  int keep;                       /* packed panels, for the chunks of rows after the first */
  int whole_panels;               /* where packed panels are, is all of their depth */
  int rows_stay;                  /* all the rows of a task stay in L2, and each panel passes once */
  int panels_stay;                /* all the panels stay in L2, and blocks of packed rows pass */

  /* How the left operand is packed. */
  int64_t band_rows; /* so many rows at once, and all the tasks of one band before the next */
  int packs_left;    /* into words, or so that its depth is contiguous */
  int packs_rows;    /* each task its own rows, a chunk at a time */
  int64_t left_stride;
  int64_t most_tile_rows;
};

/* The plan of a product on these kernels; with `dots` of rows and units where they lie. */
struct REAL(plan)
    REAL(make_plan)(const struct REAL(product) * p, const struct REAL(kernels) * kernels, int dots, int threads);

/* Of a plan what does not depend on rows and threads: how a right operand that outlives a product is packed. */
struct REAL(plan) REAL(packed_plan)(const struct REAL(product) * p, const struct REAL(kernels) * kernels);

struct REAL(panel) REAL(panel_at)(const struct REAL(product) * p, const struct REAL(plan) * plan, int64_t index);
