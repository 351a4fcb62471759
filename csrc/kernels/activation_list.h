/* The activations: their codes, and their costs beside an element that is only moved. */
#ifndef FA_ACTIVATION_LIST_H
#define FA_ACTIVATION_LIST_H

enum fa_activation {
  FA_LINEAR = 0,
  FA_RELU = 1,
  FA_LEAKY_RELU = 2,
  FA_PRELU = 3,
  FA_ELU = 4,
  FA_SELU = 5,
  FA_GELU = 6,
  FA_GELU_TANH = 7,
  FA_SILU = 8,
  FA_SOFTPLUS = 9,
  FA_MISH = 10,
  FA_SIGMOID = 11,
  FA_TANH = 12
};

static inline int activation_forward_cost(int activation) { return activation >= FA_ELU ? 4 : 1; }
static inline int activation_backward_cost(int activation) {
  return activation >= FA_ELU && activation != FA_SIGMOID && activation != FA_TANH ? 4 : 1;
}

#endif
