/* In which order a product is computed: packed panels of weights, dots, or the operands swapped. */
#ifndef FA_PRODUCT_ORDER_H
#define FA_PRODUCT_ORDER_H

#include "product.h"

/* TILES: the right operand packed.  DOTS: of rows and units where they lie.  SWAPPED: the left operand packed, its rows
 * in the lanes, and the units read where they lie. */
enum order { TILES, DOTS, SWAPPED };

/* The quickest for a product on these kernels; of a swapped one, *tail of the last rows are best left to dots. */
enum order quickest_order_f32(const struct product_f32 *p, const struct kernels_f32 *kernels, int64_t *tail);
enum order quickest_order_f64(const struct product_f64 *p, const struct kernels_f64 *kernels, int64_t *tail);

/* Whether packed panels are quicker than dots for many rows; if not, for one row they hardly are.  (256, 256, 1, 3)
 * takes 4.5 us with dots, 26 with panels; (4, 256, 22, 3) 2 to 4% less (Zen 5, AVX-512). */
int worth_packing_f32(const struct product_f32 *p, const struct kernels_f32 *kernels);
int worth_packing_f64(const struct product_f64 *p, const struct kernels_f64 *kernels);

#endif
