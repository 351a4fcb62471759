#include "engine/pack.h"

#include "engine/sizes.h"

int micro_panels(const struct kernels *kernels, int vectors) {
  return (vectors + kernels->max_vectors - 1) / kernels->max_vectors;
}

int micro_panel_start(int vectors, int count, int index) { return (int)part_start(vectors, count, index); }

void pack_bias(const struct weights *right, const struct panel_layout *layout, const struct panel *panel, char *dst) {
  const int lanes = layout->kernels->lanes, itemsize = layout->kernels->itemsize, pieces = layout->pieces;
  memset(dst, 0, (size_t)(panel->vectors * lanes * itemsize));
  if (!right->bias) return;
  const char *bias = element(right->bias, panel->column * pieces, itemsize);
  for (int v = 0; v < panel->vectors; v++) {
    int64_t first = v / pieces * lanes, columns = smaller(lanes, panel->columns - first);
    char *to = element(dst, v * lanes, itemsize);
    for (int64_t l = 0; l < columns; l++, to += itemsize)
      copy_element(to, element(bias, (first + l) * pieces + v % pieces, itemsize), itemsize);
  }
}

/* The vectors [start, start + vectors) of a panel over the words [word, word + words) -> dst [words][vectors][lanes] */
static int pack_micro_panel(const struct weights *right, const struct panel_layout *layout, const struct panel *panel,
                            int start, int vectors, int64_t word, int64_t words, char *dst) {
  const struct kernels *kernels = layout->kernels;
  const int itemsize = kernels->itemsize, pieces = layout->pieces;
  int64_t lanes = kernels->lanes, d = word / kernels->step_words * kernels->step_terms;
  int64_t terms = smaller(words / kernels->step_words * kernels->step_terms, layout->depth - d);
  int64_t origin = panel->column * right->column_stride + d * right->depth_stride;
  int representable = 1;
  for (int v = 0; v < vectors; v++, dst += lanes * itemsize) {
    int64_t column = (start + v) / pieces * lanes, columns = smaller(lanes, panel->columns - column);
    int64_t first = origin + column * right->column_stride + (start + v) % pieces * right->piece_stride;
    const char *src = element(right->data, first, itemsize);
    if (right->column_stride == 1)
      representable &= kernels->copy_lanes(terms, columns, src, right->depth_stride, dst, vectors * lanes);
    else
      representable &= kernels->transpose(columns, terms, src, right->column_stride, dst, vectors * lanes);
  }
  return representable;
}

int pack_depth_block(const struct weights *right, const struct panel_layout *layout, const struct panel *panel,
                     int64_t word, int64_t words, char *dst) {
  const struct kernels *kernels = layout->kernels;
  int count = micro_panels(kernels, panel->vectors), representable = 1;
  for (int m = 0; m < count && representable; m++) {
    int start = micro_panel_start(panel->vectors, count, m);
    int vectors = micro_panel_start(panel->vectors, count, m + 1) - start;
    char *to = element(dst, start * kernels->lanes * words, kernels->itemsize);
    representable = pack_micro_panel(right, layout, panel, start, vectors, word, words, to);
  }
  return representable;
}

int pack_panel(const struct weights *right, const struct panel_layout *layout, int64_t index, char *dst) {
  struct panel panel = panel_at(layout, index);
  int64_t size = panel.vectors * layout->kernels->lanes;
  int representable = 1;
  pack_bias(right, layout, &panel, dst);
  for (int64_t word = 0; word < layout->words && representable; word += layout->depth_block)
    representable = pack_depth_block(right, layout, &panel, word, smaller(layout->depth_block, layout->words - word),
                                     element(dst, (word + 1) * size, layout->kernels->itemsize));
  return representable;
}

size_t packed_bytes(const struct panel_layout *layout) {
  return (size_t)(layout->panels * layout->panel_size * layout->kernels->itemsize);
}

int pack_panels(const struct weights *right, const struct panel_layout *layout, char *dst) {
  int representable = 1;
  for (int64_t i = 0; i < layout->panels && representable; i++)
    representable = pack_panel(right, layout, i, element(dst, i * layout->panel_size, layout->kernels->itemsize));
  return representable;
}
