/* Activations over arrays, and as the epilogue of a product. */
#ifndef FA_LAYERS_ACTIVATION_H
#define FA_LAYERS_ACTIVATION_H

#include "engine/product.h"
#include "kernels/activation_list.h"

struct activation {
  int code;                       /* enum fa_activation */
  const struct fa_custom *custom; /* of FA_CUSTOM */
  double parameter;
  const char *slope; /* (slopes), for PReLU, and a caller's own activation with a slope */
  int64_t slopes;    /* 1 or features; 0 without a slope */
};

/* The activation that a driver of fastact.h is given. */
static inline struct activation activation_of(int64_t activation, double parameter, const void *slope, int64_t slopes) {
  int custom = activation > FA_CUSTOM; /* an address */
  return (struct activation){
      .code = custom ? FA_CUSTOM : (int)activation,
      .custom = custom ? (const struct fa_custom *)(intptr_t)activation : NULL,
      .parameter = parameter,
      .slope = slope,
      .slopes = slopes,
  };
}

/* z (rows, features) -> y, which may be z. */
void activate(const struct call *call, int64_t rows, int64_t features, const struct activation *activation,
              const void *z, void *y);

/* grad_y, saved (rows, features) -> grad_z, which may be either, and grad_slope (slopes) or NULL, to which `accumulate`
 * adds.  Returns FA_OK or FA_NO_MEMORY. */
int activation_backward(const struct call *call, int64_t rows, int64_t features, const struct activation *activation,
                        const void *grad_y, const void *saved, void *grad_z, void *grad_slope, int accumulate);

/* The product `p` with one or more pieces -> p->epilogue.y, and its activation -> y, which may be p->epilogue.y itself,
 * block by block while each is in cache.  Returns FA_OK or FA_NO_MEMORY. */
int activated_product(const struct call *call, const struct product *p, const struct activation *activation, void *y);

#endif
