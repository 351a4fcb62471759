/* Packing of right operands: panels in the order in which micro-tiles read them, padded with zeros. */
#ifndef FA_ENGINE_PACK_H
#define FA_ENGINE_PACK_H

#include "engine/plan.h"

/* The micro-panels of a panel, whose widths differ by at most one vector: micro-panel m is the vectors [start(m),
 * start(m + 1)). */
int micro_panels(const struct kernels *kernels, int vectors);
int micro_panel_start(int vectors, int count, int index);

/* -> dst [vectors][lanes], zeros where there is no bias or no column */
void pack_bias(const struct weights *right, const struct panel_layout *layout, const struct panel *panel, char *dst);

/* The words [word, word + words) of a panel -> dst, micro-panel after micro-panel.  Returns whether the unit can
 * represent all the numbers; if not, some of dst may not be written. */
int pack_depth_block(const struct weights *right, const struct panel_layout *layout, const struct panel *panel,
                     int64_t word, int64_t words, char *dst);

/* The bias and the whole depth of panel `index` -> dst (panel_size).  Returns the same as pack_depth_block. */
int pack_panel(const struct weights *right, const struct panel_layout *layout, int64_t index, char *dst);

/* Bytes of all the panels, and the panels -> dst.  Returns the same as pack_depth_block. */
size_t packed_bytes(const struct panel_layout *layout);
int pack_panels(const struct weights *right, const struct panel_layout *layout, char *dst);

#endif
