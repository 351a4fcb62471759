/* A product as micro-tiles over packed panels: used for large products, and for frozen weights. */
#ifndef FA_TILES_H
#define FA_TILES_H

#include "engine/plan.h"
#include "engine/workspace.h"

/* The two functions that the finished sums of micro-tiles go through. */
struct tile_epilogue {
  /* Sums [rows][vectors][lanes] of the rows [row, row + rows) and one panel are complete. */
  void (*store)(const void *context, const struct kernels *kernels, const struct panel *panel, int64_t row,
                int64_t rows, const char *bias, const char *sums);
  /* The block is stored and still in cache; `last` if it ends with the last panel.  `memory` is the thread's, of
   * `memory_bytes`. */
  void (*finish)(const void *context, const struct kernels *kernels, struct block block, int last, char *memory);
  const void *context;
  size_t memory_bytes;
};

/* Runs `p` on `kernels` by `plan`.  `panels` are packed beforehand, or NULL: each task packs its own. */
int run_tile_tasks(const struct call *call, const struct product *p, const struct plan *plan, char *panels,
                   const struct tile_epilogue *epilogue, enum workspace_user user, int threads);

/* Runs `p` on the tiles of `kernels`, a tier's or those of the call's vector unit. */
int run_tiles(const struct call *call, const struct product *p, const struct kernels *kernels, enum workspace_user user,
              int threads);

/* Stores sums of one panel as p->epilogue says: the `store` of products whose columns are in the lanes. */
void store_columns_in_lanes(const void *p, const struct kernels *kernels, const struct panel *panel, int64_t row,
                            int64_t rows, const char *bias, const char *sums);

#endif
