/* The C ABI: plain declarations, which cffi parses with those of numpy.h.
 *
 * Arrays are C-contiguous, of one `dtype` (an enum fa_dtype; argmax is uint8_t), and checked by the caller; sizes are
 * 64-bit.  `threads` is the number of threads, 0 for fa_max_threads(), plus FA_REPRODUCIBLE or not; `precision` is an
 * enum fa_precision; `activation` is an enum fa_activation (kernels/activation_list.h), or the address of a struct
 * fa_custom.  A driver that can fail returns FA_OK; or FA_NO_MEMORY, and its outputs are undefined; or FA_BAD_ARGMAX,
 * if a value of argmax is not below `pieces`, or FA_BAD_LABEL, if a label is not below `classes`; then nothing is
 * written. */

enum fa_status { FA_OK = 0, FA_NO_MEMORY = 1, FA_UNKNOWN_ISA = 2, FA_BAD_ARGMAX = 3, FA_BAD_LABEL = 4 };

enum fa_dtype { FA_FLOAT32 = 0, FA_FLOAT64 = 1 };

enum fa_precision { FA_HIGHEST = 0, FA_HIGH = 1, FA_MEDIUM = 2 };

/* Added to a number of threads: the same bits on every ISA, and a row's own bits in a forward whatever the other rows.
 * Tiers of precision are ignored then. */
enum { FA_REPRODUCIBLE = 1 << 16 };

/* What a step of a network is.  FA_BRANCH and FA_SUM stand before and after the layers of a residual, whose sum is
 * the input of the branch plus the output of its last layer.  FA_WINDOW stands before a FA_LINEAR or FA_MAXOUT, whose
 * input is then each row with its neighbours: of `window` rows before it, the row itself and `window` rows after it,
 * side by side in their order, those beyond the first and the last row are zeros. */
enum fa_layer {
  FA_LINEAR = 0,
  FA_MAXOUT = 1,
  FA_ACTIVATION = 2,
  FA_DROPOUT = 3,
  FA_LAYER_NORM = 4,
  FA_BRANCH = 5,
  FA_SUM = 6,
  FA_WINDOW = 7
};

/* A caller's own activation for arrays of one dtype: kernels over n elements, which any number of threads may call.
 * slope (n), or one for all where slope_step is 0; without a slope it may be NULL.  What is written overlaps nothing.
 * They call no function of this library, whose workspace and threads the driver around them uses.
 *   forward:          z -> y
 *   backward:         grad_y, saved -> grad_z
 *   add_slope_terms:  sums += the terms of the gradient of each element's slope; NULL without a slope */
struct fa_custom {
  void (*forward)(double parameter, const void *slope, int64_t slope_step, const void *z, void *y, int64_t n);
  void (*backward)(double parameter, const void *slope, int64_t slope_step, const void *grad_y, const void *saved,
                   void *grad_z, int64_t n);
  void (*add_slope_terms)(double parameter, const void *slope, int64_t slope_step, const void *grad_y,
                          const void *saved, void *sums, int64_t n);
};

/* The most residuals inside each other that a call takes. */
enum { FA_MAX_BRANCHES = 16 };

/* The largest window: rows on each side. */
enum { FA_MAX_WINDOW = 64 };

/* The instruction set in force; those of this build, best first; whether this CPU supports one. */
const char *fa_isa(void);
int fa_set_isa(const char *name);
int fa_isa_count(void);
const char *fa_isa_name(int index);
int fa_isa_supported(int index);

/* Why the tile unit of AMX cannot be used, or NULL; what float32 products run on at an enum fa_precision. */
const char *fa_why_no_amx(void);
const char *fa_tier_unit(int precision);

int fa_max_threads(void); /* the number of threads that 0 stands for now */

/* x (rows, in_features), weight (out_features, pieces, in_features), bias (out_features, pieces) or NULL
 * -> y (rows, out_features), argmax (rows, out_features) or NULL */
int fa_linear_maxout(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const void *x,
                     const void *weight, const void *bias, void *y, uint8_t *argmax, int threads, int precision);

/* grad_y (rows, out_features) -> grad_x (rows, in_features), grad_weight (out_features, pieces, in_features),
 * grad_bias (out_features, pieces), each or NULL; `accumulate` adds to grad_weight and grad_bias */
int fa_linear_maxout_backward(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                              const void *grad_y, const void *x, const void *weight, const uint8_t *argmax,
                              void *grad_x, void *grad_weight, void *grad_bias, int accumulate, int threads,
                              int precision);

/* z (outer, pieces, inner) -> y (outer, inner), argmax (outer, inner) or NULL */
void fa_maxout(int dtype, int64_t outer, int64_t pieces, int64_t inner, const void *z, void *y, uint8_t *argmax,
               int threads);
int fa_maxout_backward(int dtype, int64_t outer, int64_t pieces, int64_t inner, const void *grad_y,
                       const uint8_t *argmax, void *grad_z, int threads);

/* z (rows, features) -> y; slope (slopes) for PReLU, slopes = 1 or features; y may be z */
void fa_activation(int dtype, int64_t rows, int64_t features, int64_t activation, double parameter, const void *slope,
                   int64_t slopes, const void *z, void *y, int threads);

/* grad_y, saved (rows, features) -> grad_z, grad_slope (slopes) or NULL, to which `accumulate` adds;
 * grad_z may be grad_y or saved */
int fa_activation_backward(int dtype, int64_t rows, int64_t features, int64_t activation, double parameter,
                           const void *slope, int64_t slopes, const void *grad_y, const void *saved, void *grad_z,
                           void *grad_slope, int accumulate, int threads);

/* x (rows, in_features), weight (out_features, in_features), bias (out_features) or NULL
 * -> y (rows, out_features), z the same or NULL */
int fa_linear_activation(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t activation,
                         double parameter, const void *slope, int64_t slopes, const void *x, const void *weight,
                         const void *bias, void *y, void *z, int threads, int precision);
int fa_linear_activation_backward(int dtype, int64_t rows, int64_t in_features, int64_t out_features,
                                  int64_t activation, double parameter, const void *slope, int64_t slopes,
                                  const void *grad_y, const void *x, const void *weight, const void *saved,
                                  void *grad_x, void *grad_weight, void *grad_bias, void *grad_slope, int accumulate,
                                  int threads, int precision);

/* c (rows, columns) = alpha op(a) @ op(b) + beta c, where op(a) is a (rows, depth), or the transpose of a (depth, rows)
 * where trans_a is not 0; likewise op(b) (depth, columns).  Rows of a, b and c are a_stride, b_stride and c_stride
 * elements apart.  If beta is 0, c is not read; if alpha is 0, neither are a and b. */
int fa_matmul(int dtype, int trans_a, int trans_b, int64_t rows, int64_t columns, int64_t depth, double alpha,
              const void *a, int64_t a_stride, const void *b, int64_t b_stride, double beta, void *c, int64_t c_stride,
              int threads, int precision);

/* fa_matmul for programs that call BLAS through a pointer: float32, on the calling thread.  Without memory for
 * packed operands the product is slow, as this signature cannot report it. */
void fa_sgemm(int trans_a, int trans_b, int rows, int columns, int depth, float alpha, const float *a, int a_stride,
              const float *b, int b_stride, float beta, float *c, int c_stride);

/* y += alpha x, of n elements: element i of x is x[i x_step], that of y is y[i y_step].  The functions are those of the
 * instruction set in force. */
typedef void (*fa_saxpy)(int n, float alpha, const float *x, int x_step, float *y, int y_step);
typedef void (*fa_daxpy)(int n, double alpha, const double *x, int x_step, double *y, int y_step);
fa_saxpy fa_saxpy_in_force(void);
fa_daxpy fa_daxpy_in_force(void);

/* x (rows, features), features >= 1, weight and bias (features), each or NULL
 * -> y = (x - mean) / sqrt(variance + eps) weight + bias for each row, which may be x, and saved (rows, 2) or NULL: the
 * mean and 1 / sqrt(variance + eps) */
void fa_layer_norm(int dtype, int64_t rows, int64_t features, double eps, const void *x, const void *weight,
                   const void *bias, void *y, void *saved, int threads);

/* grad_y (rows, features) -> grad_x (rows, features), which may be grad_y, grad_weight and grad_bias (features), each
 * or NULL; `accumulate` adds to grad_weight and grad_bias */
int fa_layer_norm_backward(int dtype, int64_t rows, int64_t features, const void *grad_y, const void *x,
                           const void *weight, const void *saved, void *grad_x, void *grad_weight, void *grad_bias,
                           int accumulate, int threads);

/* keep (n) = 1 where a random number of 32 bits is at least rint(2^32 p), else 0; 0 <= p < 1.  Number i is word i % 4
 * of Philox4x32-10 with the counter i / 4 and the seed as its key, low words first. */
void fa_dropout_keep(int64_t n, uint64_t seed, double p, uint8_t *keep, int threads);

/* One of several hash embeddings side by side, each for a column of the ids; or its gradient. */
struct fa_hash_table {
  void *data;    /* (rows, columns) */
  uint32_t rows; /* at least 1 */
  uint32_t seed;
  int64_t columns, id_column;
  const void *scale; /* (columns), or NULL */
};

/* ids (rows, id_columns) -> y (rows, the sum of the tables' columns): for each table, the sum of the four rows that a
 * hash of the id chooses, times scale; and keys (count, rows, 4), the numbers of these rows */
void fa_hash_embed(int dtype, int64_t rows, int64_t id_columns, const uint64_t *ids, int64_t count,
                   const struct fa_hash_table *tables, void *y, uint32_t *keys, int threads);

/* grad_y, like y, times scale is added to the rows that the keys name of each table's gradient, of which none overlap.
 * Only the keys count of the ids, columns and seeds. */
void fa_hash_embed_backward(int dtype, int64_t rows, const void *grad_y, const uint32_t *keys, int64_t count,
                            const struct fa_hash_table *tables, int threads);

/* A frozen step: a copy of its weight, bias and slope, packed for the instruction set in force when it is made, on
 * whose kernels it always runs, and for reproducible results or not, as `threads` says when it is made.  The given
 * weight and bias have to outlive the step, since rows that the packed weights cannot serve use them.  Any number of
 * threads may use the step until fa_free_frozen. */
struct fa_step;

/* Of an enum fa_layer other than FA_DROPOUT: weight (out_features, pieces, in_features), bias (out_features, pieces),
 * slope as above, each or NULL.  Only FA_LINEAR and FA_MAXOUT have other out_features than in_features; FA_LAYER_NORM
 * has a weight and a bias (features), and its eps as `parameter`.  Returns NULL if there is no memory. */
struct fa_step *fa_freeze(int dtype, int layer, int64_t in_features, int64_t out_features, int64_t pieces,
                          const void *weight, const void *bias, int64_t activation, double parameter, const void *slope,
                          int64_t slopes, int threads, int precision);
void fa_free_frozen(struct fa_step *step);

/* x (rows, in_features of the first step) -> y (rows, out_features of the last), through `count` >= 1 steps of one
 * dtype */
int fa_run_frozen(const struct fa_step *const *steps, int64_t count, int64_t rows, const void *x, void *y, int threads);

/* The mean of (y - target)^2 over arrays of n, 0 for n = 0, and grad = 2 / n (y - target). */
double fa_mse(int dtype, int64_t n, const void *y, const void *target, void *grad, int threads);

/* Losses of pairs (y, target) over arrays of n: the mean, 0 for n = 0, and grad = its derivatives with respect to y.
 *   binary_cross_entropy:  log(1 + exp(y)) - y target
 *   huber:                 d^2 / 2 for d = y - target, but delta (|d| - delta / 2) if |d| > delta */
double fa_binary_cross_entropy(int dtype, int64_t n, const void *y, const void *target, void *grad, int threads);
double fa_huber(int dtype, int64_t n, const void *y, const void *target, double delta, void *grad, int threads);

/* *loss = the mean of -log softmax(logits)[label] over the rows whose label is not ignore_index, 0 if there are none;
 * grad (rows, classes) = its derivatives.  label_smoothing, 0 to 1, mixes as much of the uniform distribution into a
 * row's target. */
int fa_softmax_cross_entropy(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels,
                             double label_smoothing, int64_t ignore_index, void *grad, double *loss, int threads);

/* Steps of the optimisers over data (rows, columns), in place; grad, velocity, mean, square have its shape.  If
 * max_norm is finite, each row whose norm is larger after the step is scaled down to it.
 *
 *   g = grad + decay data
 *   sgd:   velocity = momentum velocity + g,  data -= lr (nesterov ? g + momentum velocity : velocity);  without a
 *          velocity (NULL) data -= lr g
 *   adam:  mean = beta1 mean + (1 - beta1) g,  square = beta2 square + (1 - beta2) g^2,
 *          data = keep data - rate mean / (unbias sqrt(square) + eps);  a beta of 0 forgets infinite averages too */
void fa_sgd(int dtype, int64_t rows, int64_t columns, double lr, double momentum, int nesterov, double decay,
            double max_norm, const void *grad, void *velocity, void *data, int threads);
void fa_adam(int dtype, int64_t rows, int64_t columns, double rate, double beta1, double beta2, double unbias,
             double eps, double decay, double keep, double max_norm, const void *grad, void *mean, void *square,
             void *data, int threads);
void fa_max_norm(int dtype, int64_t rows, int64_t columns, double max_norm, void *data, int threads);

/* The Euclidean norm of data (n).  It is infinite where a number is, or the norm is beyond the range of double. */
double fa_vector_norm(int dtype, int64_t n, const void *data, int threads);

/* data (n) *= factor, in double and rounded once */
void fa_shrink(int dtype, int64_t n, double factor, void *data, int threads);

/* A step of Adam over data (n), or with a mean of NULL of SGD, and all that goes with it, in two passes:
 *
 *   g = grad + decay data;  g = max_norm / |g| g if max_norm is not 0 and |g|, from a sum of squares rounded to the
 *   dtype, is max_norm or more
 *   the step as above: fa_adam's for an unbias of 1 and a keep of 1, with betas rounded to the dtype
 *   data = data - shrink data,  average = average + new_share (data - average), unless average is NULL
 *   grad = 0, but 0 g after SGD */
void fa_update_parameter(int dtype, int64_t n, double max_norm, double decay, double rate, double beta1, double beta2,
                         double eps, double shrink, double new_share, void *grad, void *mean, void *square, void *data,
                         void *average, int threads);

/* Handlers of XLA's FFI: the drivers of the same names on the operands of a call frame (api/xla_ffi.h), in JAX a call
 * of jax.ffi.ffi_call.  Only the shapes, dtypes and attributes that fastact/jax gives are taken; else XLA gets an
 * error, and nothing is written.  All operands have the axes that their driver names, behind axes that vmap put in
 * front: an operand that is the same for all groups has the size 1 there.  Arguments in brackets may be absent; a slope
 * is given for PReLU alone.  `needs` has a bit for each gradient, 1 for the first; only the results that it names are
 * given.  Attributes, sorted by name, are int64, but for `parameter`, a float64; the threads of 0 are those of
 * fa_xla_set_defaults.
 *
 *   linear_maxout                 x, weight, [bias] -> y, [argmax]                     precision, threads
 *   linear_maxout_backward        grad_y, x, weight, argmax                            needs, precision, threads
 *   maxout                        z (outer, pieces, inner) -> y, [argmax]              threads
 *   maxout_backward               grad_y (outer, inner), argmax -> grad_z              pieces, threads
 *   activation                    z, [slope] -> y                                      activation, parameter, threads
 *   activation_backward           grad_y, saved, [slope] -> grad_z, [grad_slope]       activation, parameter, threads
 *   linear_activation             x, weight, [slope], [bias] -> y, [z]
 *                                 activation, parameter, precision, threads
 *   linear_activation_backward    grad_y, x, weight, saved, [slope]
 *                                 activation, needs, parameter, precision, threads */
struct xla_call_frame;
struct xla_error;
struct xla_error *fa_xla_linear_maxout(const struct xla_call_frame *frame);
struct xla_error *fa_xla_linear_maxout_backward(const struct xla_call_frame *frame);
struct xla_error *fa_xla_maxout(const struct xla_call_frame *frame);
struct xla_error *fa_xla_maxout_backward(const struct xla_call_frame *frame);
struct xla_error *fa_xla_activation(const struct xla_call_frame *frame);
struct xla_error *fa_xla_activation_backward(const struct xla_call_frame *frame);
struct xla_error *fa_xla_linear_activation(const struct xla_call_frame *frame);
struct xla_error *fa_xla_linear_activation_backward(const struct xla_call_frame *frame);

/* Tells the handlers where the process's defaults are: *defaults is the number of threads for an attribute of 0. */
void fa_xla_set_defaults(const int *defaults);
