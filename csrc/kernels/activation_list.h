/* The activations: codes and costs.  Written by csrc/tools/activations.py from fastact/activations.py. */
#ifndef FA_ACTIVATION_LIST_H
#define FA_ACTIVATION_LIST_H

enum fa_activation {
  FA_IDENTITY = 0,
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
  FA_TANH = 12,
  FA_SOFTSIGN = 13,
  FA_HARDSWISH = 14,
  FA_HARDSIGMOID = 15,
  FA_HARDTANH = 16,
  FA_RELU6 = 17,
  FA_LOGSIGMOID = 18,
  FA_CUSTOM = 255 /* a caller's own */
};

/* The work of an element with an exponential, relative to an element that is only moved.
 * bench/tuning: exponential-work */
#define EXPONENTIAL_WORK 4

/* X(NAME, name, forward cost, backward cost) for each activation */
#define FA_ACTIVATIONS(X)                                                                                              \
  X(IDENTITY, identity, 1, 1)                                                                                          \
  X(RELU, relu, 1, 1)                                                                                                  \
  X(LEAKY_RELU, leaky_relu, 1, 1)                                                                                      \
  X(PRELU, prelu, 1, 1)                                                                                                \
  X(ELU, elu, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                                      \
  X(SELU, selu, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                                    \
  X(GELU, gelu, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                                    \
  X(GELU_TANH, gelu_tanh, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                          \
  X(SILU, silu, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                                    \
  X(SOFTPLUS, softplus, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                            \
  X(MISH, mish, EXPONENTIAL_WORK, EXPONENTIAL_WORK)                                                                    \
  X(SIGMOID, sigmoid, EXPONENTIAL_WORK, 1)                                                                             \
  X(TANH, tanh, EXPONENTIAL_WORK, 1)                                                                                   \
  X(SOFTSIGN, softsign, 1, 1)                                                                                          \
  X(HARDSWISH, hardswish, 1, 1)                                                                                        \
  X(HARDSIGMOID, hardsigmoid, 1, 1)                                                                                    \
  X(HARDTANH, hardtanh, 1, 1)                                                                                          \
  X(RELU6, relu6, 1, 1)                                                                                                \
  X(LOGSIGMOID, logsigmoid, EXPONENTIAL_WORK, EXPONENTIAL_WORK)

#define FORWARD_COST(NAME, name, forward, backward) [FA_##NAME] = forward,
#define BACKWARD_COST(NAME, name, forward, backward) [FA_##NAME] = backward,

static inline int activation_forward_cost(int activation) {
  static const unsigned char costs[] = {FA_ACTIVATIONS(FORWARD_COST)[FA_CUSTOM] = EXPONENTIAL_WORK};
  return costs[activation];
}

static inline int activation_backward_cost(int activation) {
  static const unsigned char costs[] = {FA_ACTIVATIONS(BACKWARD_COST)[FA_CUSTOM] = EXPONENTIAL_WORK};
  return costs[activation];
}

#undef FORWARD_COST
#undef BACKWARD_COST

#endif
