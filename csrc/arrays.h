/* The drivers of fastact.h on NumPy arrays, each given by its id(), its address in CPython: their sizes, dtype and
 * memory are read here.  A conversion by cffi would cost 80 ns an array, which was a third of a small layer's time.
 *
 * The caller has checked the arrays, C-contiguous and of the shapes and one of the dtypes that fastact.h names, and
 * holds a reference to each; an array that may be NULL there may be None here. */

typedef uintptr_t fa_array;

int fa_linear_maxout(fa_array x, fa_array weight, fa_array bias, fa_array y, fa_array argmax, int threads,
                     int precision);
int fa_linear_maxout_backward(fa_array grad_y, fa_array x, fa_array weight, fa_array argmax, fa_array grad_x,
                              fa_array grad_weight, fa_array grad_bias, int accumulate, int threads, int precision);

int fa_maxout(fa_array z, fa_array y, fa_array argmax, int threads);
int fa_maxout_backward(fa_array grad_y, fa_array argmax, fa_array grad_z, int threads);

/* Without a slope z may have any shape. */
int fa_activation(int activation, double parameter, fa_array slope, fa_array z, fa_array y, int threads);
int fa_activation_backward(int activation, double parameter, fa_array slope, fa_array grad_y, fa_array saved,
                           fa_array grad_z, fa_array grad_slope, int accumulate, int threads);

int fa_linear_activation(int activation, double parameter, fa_array slope, fa_array x, fa_array weight, fa_array bias,
                         fa_array y, fa_array z, int threads, int precision);
int fa_linear_activation_backward(int activation, double parameter, fa_array slope, fa_array grad_y, fa_array x,
                                  fa_array weight, fa_array saved, fa_array grad_x, fa_array grad_weight,
                                  fa_array grad_bias, fa_array grad_slope, int accumulate, int threads, int precision);

int fa_run_frozen(const void *layers, int64_t count, fa_array x, fa_array y, int threads);

double fa_mse(fa_array y, fa_array target, fa_array grad, int threads);

/* data of any shape: the last axis is the columns */
int fa_sgd(double lr, double momentum, int nesterov, double decay, double max_norm, fa_array grad, fa_array velocity,
           fa_array values, int threads);
int fa_adam(double rate, double beta1, double beta2, double unbias, double eps, double decay, double max_norm,
            fa_array grad, fa_array mean, fa_array square, fa_array values, int threads);
int fa_max_norm(double max_norm, fa_array values, int threads);
