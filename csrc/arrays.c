#define Py_LIMITED_API 0x030a0000
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <Python.h>
#include <numpy/ndarraytypes.h>

#include "fastact_abi.h"

/* Only fields of a NumPy array are read, which takes neither the GIL nor a call of NumPy. */

static const PyArrayObject *array_of(fa_array id) { return (const PyArrayObject *)id; }

static void *data(fa_array id) { return (PyObject *)id == Py_None ? NULL : PyArray_DATA((PyArrayObject *)id); }

static int is_float(fa_array id) { return PyArray_TYPE(array_of(id)) == NPY_FLOAT; }

static int64_t length(fa_array id, int axis) { return PyArray_DIM(array_of(id), axis); }

static int64_t size(fa_array id) {
  int64_t count = 1;
  for (int axis = 0; axis < PyArray_NDIM(array_of(id)); axis++) count *= length(id, axis);
  return count;
}

/* (rows, columns), where all axes but the last are the rows; a single number is a row */
struct matrix {
  int64_t rows, columns;
};

static struct matrix matrix_of(fa_array id) {
  const int axes = PyArray_NDIM(array_of(id));
  const int64_t columns = axes ? length(id, axes - 1) : 1;
  return (struct matrix){columns ? size(id) / columns : 0, columns};
}

/* a slope that is None has no values, and the features of z are all one to what is done with each number */
static int64_t slopes_of(fa_array slope) { return (PyObject *)slope == Py_None ? 0 : size(slope); }

static struct matrix features_of(fa_array z, fa_array slope) {
  return (PyObject *)slope == Py_None ? (struct matrix){1, size(z)} : matrix_of(z);
}

/* `driver` for the dtype of `array` */
#define RUN(driver, array, ...) (is_float(array) ? driver##_f32(__VA_ARGS__) : driver##_f64(__VA_ARGS__))

int fa_linear_maxout(fa_array x, fa_array weight, fa_array bias, fa_array y, fa_array argmax, int threads,
                     int precision) {
  return RUN(fa_linear_maxout, x, length(x, 0), length(x, 1), length(weight, 0), length(weight, 1), data(x),
             data(weight), data(bias), data(y), data(argmax), threads, precision);
}

int fa_linear_maxout_backward(fa_array grad_y, fa_array x, fa_array weight, fa_array argmax, fa_array grad_x,
                              fa_array grad_weight, fa_array grad_bias, int accumulate, int threads, int precision) {
  return RUN(fa_linear_maxout_backward, x, length(x, 0), length(x, 1), length(weight, 0), length(weight, 1),
             data(grad_y), data(x), data(weight), data(argmax), data(grad_x), data(grad_weight), data(grad_bias),
             accumulate, threads, precision);
}

int fa_maxout(fa_array z, fa_array y, fa_array argmax, int threads) {
  return RUN(fa_maxout, z, length(z, 0), length(z, 1), length(z, 2), data(z), data(y), data(argmax), threads);
}

int fa_maxout_backward(fa_array grad_y, fa_array argmax, fa_array grad_z, int threads) {
  return RUN(fa_maxout_backward, grad_z, length(grad_z, 0), length(grad_z, 1), length(grad_z, 2), data(grad_y),
             data(argmax), data(grad_z), threads);
}

int fa_activation(int activation, double parameter, fa_array slope, fa_array z, fa_array y, int threads) {
  const struct matrix shape = features_of(z, slope);
  return RUN(fa_activation, z, shape.rows, shape.columns, activation, parameter, data(slope), slopes_of(slope), data(z),
             data(y), threads);
}

int fa_activation_backward(int activation, double parameter, fa_array slope, fa_array grad_y, fa_array saved,
                           fa_array grad_z, fa_array grad_slope, int accumulate, int threads) {
  const struct matrix shape = features_of(grad_y, slope);
  return RUN(fa_activation_backward, grad_y, shape.rows, shape.columns, activation, parameter, data(slope),
             slopes_of(slope), data(grad_y), data(saved), data(grad_z), data(grad_slope), accumulate, threads);
}

int fa_linear_activation(int activation, double parameter, fa_array slope, fa_array x, fa_array weight, fa_array bias,
                         fa_array y, fa_array z, int threads, int precision) {
  return RUN(fa_linear_activation, x, length(x, 0), length(x, 1), length(weight, 0), activation, parameter, data(slope),
             slopes_of(slope), data(x), data(weight), data(bias), data(y), data(z), threads, precision);
}

int fa_linear_activation_backward(int activation, double parameter, fa_array slope, fa_array grad_y, fa_array x,
                                  fa_array weight, fa_array saved, fa_array grad_x, fa_array grad_weight,
                                  fa_array grad_bias, fa_array grad_slope, int accumulate, int threads, int precision) {
  return RUN(fa_linear_activation_backward, x, length(x, 0), length(x, 1), length(weight, 0), activation, parameter,
             data(slope), slopes_of(slope), data(grad_y), data(x), data(weight), data(saved), data(grad_x),
             data(grad_weight), data(grad_bias), data(grad_slope), accumulate, threads, precision);
}

int fa_run_frozen(const void *layers, int64_t count, fa_array x, fa_array y, int threads) {
  return RUN(fa_run_frozen, x, layers, count, length(x, 0), data(x), data(y), threads);
}

double fa_mse(fa_array y, fa_array target, fa_array grad, int threads) {
  return RUN(fa_mse, y, size(y), data(y), data(target), data(grad), threads);
}

int fa_sgd(double lr, double momentum, int nesterov, double decay, double max_norm, fa_array grad, fa_array velocity,
           fa_array values, int threads) {
  const struct matrix shape = matrix_of(values);
  return RUN(fa_sgd, values, shape.rows, shape.columns, lr, momentum, nesterov, decay, max_norm, data(grad),
             data(velocity), data(values), threads);
}

int fa_adam(double rate, double beta1, double beta2, double unbias, double eps, double decay, double max_norm,
            fa_array grad, fa_array mean, fa_array square, fa_array values, int threads) {
  const struct matrix shape = matrix_of(values);
  return RUN(fa_adam, values, shape.rows, shape.columns, rate, beta1, beta2, unbias, eps, decay, max_norm, data(grad),
             data(mean), data(square), data(values), threads);
}

int fa_max_norm(double max_norm, fa_array values, int threads) {
  const struct matrix shape = matrix_of(values);
  return RUN(fa_max_norm, values, shape.rows, shape.columns, max_norm, data(values), threads);
}
