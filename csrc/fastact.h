/* The public C ABI: plain declarations, and the one text that cffi parses.
 *
 * Arrays are C-contiguous and checked by the caller; sizes are 64-bit.  `threads` is the number of
 * OpenMP threads, 0 for OpenMP's own default; `precision` is an enum fa_precision.  A driver returns
 * 0, or FA_NO_MEMORY with nothing promised of its outputs, or FA_BAD_ARGMAX, where a value of argmax names no piece,
 * with nothing written.
 */

enum fa_status { FA_OK = 0, FA_NO_MEMORY = 1, FA_UNKNOWN_ISA = 2, FA_BAD_ARGMAX = 3 };

enum fa_precision { FA_HIGHEST = 0, FA_HIGH = 1, FA_MEDIUM = 2 };

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

/* The instruction set in force; all that this build has, best first; whether this CPU runs one. */
const char *fa_isa(void);
int fa_set_isa(const char *name);
int fa_isa_count(void);
const char *fa_isa_name(int index);
int fa_isa_supported(int index);

/* Why the tile unit of AMX can't be used, or NULL; what float32 products run on at an enum fa_precision. */
const char *fa_why_no_amx(void);
const char *fa_tier_unit(int precision);

int fa_has_openmp(void);
int fa_max_threads(void); /* what threads = 0 means now */

/* x (rows, in_features), weight (out_features, pieces, in_features), bias (out_features, pieces) or NULL
 * -> y (rows, out_features), argmax (rows, out_features) or NULL */
int fa_linear_maxout_f32(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const float *x,
                         const float *weight, const float *bias, float *y, uint8_t *argmax, int threads, int precision);
int fa_linear_maxout_f64(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const double *x,
                         const double *weight, const double *bias, double *y, uint8_t *argmax, int threads,
                         int precision);

/* grad_y (rows, out_features) -> grad_x (rows, in_features), grad_weight (out_features, pieces, in_features),
 * grad_bias (out_features, pieces), each or NULL; `accumulate` adds to grad_weight and grad_bias */
int fa_linear_maxout_backward_f32(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                                  const float *grad_y, const float *x, const float *weight, const uint8_t *argmax,
                                  float *grad_x, float *grad_weight, float *grad_bias, int accumulate, int threads,
                                  int precision);
int fa_linear_maxout_backward_f64(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                                  const double *grad_y, const double *x, const double *weight, const uint8_t *argmax,
                                  double *grad_x, double *grad_weight, double *grad_bias, int accumulate, int threads,
                                  int precision);

/* z (outer, pieces, inner) -> y (outer, inner), argmax (outer, inner) or NULL */
int fa_maxout_f32(int64_t outer, int64_t pieces, int64_t inner, const float *z, float *y, uint8_t *argmax, int threads);
int fa_maxout_f64(int64_t outer, int64_t pieces, int64_t inner, const double *z, double *y, uint8_t *argmax,
                  int threads);
int fa_maxout_backward_f32(int64_t outer, int64_t pieces, int64_t inner, const float *grad_y, const uint8_t *argmax,
                           float *grad_z, int threads);
int fa_maxout_backward_f64(int64_t outer, int64_t pieces, int64_t inner, const double *grad_y, const uint8_t *argmax,
                           double *grad_z, int threads);

/* z (rows, features) -> y; slope (slopes) for FA_PRELU, slopes = 1 or features; y may be z */
int fa_activation_f32(int64_t rows, int64_t features, int activation, double parameter, const float *slope,
                      int64_t slopes, const float *z, float *y, int threads);
int fa_activation_f64(int64_t rows, int64_t features, int activation, double parameter, const double *slope,
                      int64_t slopes, const double *z, double *y, int threads);

/* grad_y, saved (rows, features) -> grad_z, grad_slope (slopes) or NULL, to which `accumulate` adds;
 * grad_z may be grad_y or saved */
int fa_activation_backward_f32(int64_t rows, int64_t features, int activation, double parameter, const float *slope,
                               int64_t slopes, const float *grad_y, const float *saved, float *grad_z,
                               float *grad_slope, int accumulate, int threads);
int fa_activation_backward_f64(int64_t rows, int64_t features, int activation, double parameter, const double *slope,
                               int64_t slopes, const double *grad_y, const double *saved, double *grad_z,
                               double *grad_slope, int accumulate, int threads);

/* x (rows, in_features), weight (out_features, in_features), bias (out_features) or NULL
 * -> y (rows, out_features), z the same or NULL */
int fa_linear_activation_f32(int64_t rows, int64_t in_features, int64_t out_features, int activation, double parameter,
                             const float *slope, int64_t slopes, const float *x, const float *weight, const float *bias,
                             float *y, float *z, int threads, int precision);
int fa_linear_activation_f64(int64_t rows, int64_t in_features, int64_t out_features, int activation, double parameter,
                             const double *slope, int64_t slopes, const double *x, const double *weight,
                             const double *bias, double *y, double *z, int threads, int precision);
int fa_linear_activation_backward_f32(int64_t rows, int64_t in_features, int64_t out_features, int activation,
                                      double parameter, const float *slope, int64_t slopes, const float *grad_y,
                                      const float *x, const float *weight, const float *saved, float *grad_x,
                                      float *grad_weight, float *grad_bias, float *grad_slope, int accumulate,
                                      int threads, int precision);
int fa_linear_activation_backward_f64(int64_t rows, int64_t in_features, int64_t out_features, int activation,
                                      double parameter, const double *slope, int64_t slopes, const double *grad_y,
                                      const double *x, const double *weight, const double *saved, double *grad_x,
                                      double *grad_weight, double *grad_bias, double *grad_slope, int accumulate,
                                      int threads, int precision);

/* A frozen layer: a linear layer, each output the largest of `pieces` units, then an activation; or for pieces = 0 the
 * activation alone, with in_features = out_features.  It keeps its own copy of weight, bias and slope, packed for the
 * instruction set in force when it is made, and always runs on that one's kernels; the given weight and
 * bias have to outlive it, for rows that the packed weights can't serve.  Any number of threads may use it, until
 * fa_free_frozen.  fa_freeze returns NULL where there is no memory. */
struct fa_frozen_f32;
struct fa_frozen_f64;

/* weight (out_features, pieces, in_features), bias (out_features, pieces) or NULL; slope as above */
struct fa_frozen_f32 *fa_freeze_f32(int64_t in_features, int64_t out_features, int64_t pieces, const float *weight,
                                    const float *bias, int activation, double parameter, const float *slope,
                                    int64_t slopes, int precision);
struct fa_frozen_f64 *fa_freeze_f64(int64_t in_features, int64_t out_features, int64_t pieces, const double *weight,
                                    const double *bias, int activation, double parameter, const double *slope,
                                    int64_t slopes, int precision);
void fa_free_frozen_f32(struct fa_frozen_f32 *layer);
void fa_free_frozen_f64(struct fa_frozen_f64 *layer);

/* x (rows, in_features of the first layer) -> y (rows, out_features of the last), through `count` >= 1 layers */
int fa_run_frozen_f32(const struct fa_frozen_f32 *const *layers, int64_t count, int64_t rows, const float *x, float *y,
                      int threads);
int fa_run_frozen_f64(const struct fa_frozen_f64 *const *layers, int64_t count, int64_t rows, const double *x,
                      double *y, int threads);

/* The mean of (y - target)^2 over arrays of n, 0 where there are none, and grad = 2 / n (y - target). */
double fa_mse_f32(int64_t n, const float *y, const float *target, float *grad, int threads);
double fa_mse_f64(int64_t n, const double *y, const double *target, double *grad, int threads);

/* Steps of the optimisers over data (rows, columns), in place; grad, velocity, mean, square are of its shape.  Each row
 * is scaled down to a norm of max_norm after the step, where that is finite.
 *
 *   g = grad + decay data
 *   sgd:   velocity = momentum velocity + g,  data -= lr (nesterov ? g + momentum velocity : velocity);  without a
 *          velocity (NULL) data -= lr g
 *   adam:  mean = beta1 mean + (1 - beta1) g,  square = beta2 square + (1 - beta2) g^2,
 *          data -= rate mean / (unbias sqrt(square) + eps);  a beta of 0 forgets infinite averages too */
int fa_sgd_f32(int64_t rows, int64_t columns, double lr, double momentum, int nesterov, double decay, double max_norm,
               const float *grad, float *velocity, float *data, int threads);
int fa_adam_f32(int64_t rows, int64_t columns, double rate, double beta1, double beta2, double unbias, double eps,
                double decay, double max_norm, const float *grad, float *mean, float *square, float *data, int threads);
int fa_max_norm_f32(int64_t rows, int64_t columns, double max_norm, float *data, int threads);
int fa_sgd_f64(int64_t rows, int64_t columns, double lr, double momentum, int nesterov, double decay, double max_norm,
               const double *grad, double *velocity, double *data, int threads);
int fa_adam_f64(int64_t rows, int64_t columns, double rate, double beta1, double beta2, double unbias, double eps,
                double decay, double max_norm, const double *grad, double *mean, double *square, double *data,
                int threads);
int fa_max_norm_f64(int64_t rows, int64_t columns, double max_norm, double *data, int threads);
