#include "api/arrays.h"

/* ---- the functions of numpy.h */

static PyObject *py_linear_maxout(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 7)) return NULL;
  struct arrays c = arrays_of(arguments, 0);
  int64_t x[2], w[3];
  int status;
  read_shape(&c, 0, 2, x);
  read_shape(&c, 1, 3, w);
  const void *left = matrix(&c, 0, x[0], w[2]), *right = cube(&c, 1, w[0], w[1], w[2]);
  const void *bias = OR_NONE(matrix, &c, 2, w[0], w[1]);
  void *y = matrix(&c, 3, x[0], w[0]), *argmax = OR_NONE(bytes, &c, 4, x[0], w[0]);
  int threads = int_of(&c, 5), precision = int_of(&c, 6);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_linear_maxout(c.dtype, x[0], w[2], w[0], w[1], left, right, bias, y, argmax, threads, precision);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_linear_maxout_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 10)) return NULL;
  struct arrays c = arrays_of(arguments, 1);
  int64_t x[2], w[3];
  int status;
  read_shape(&c, 1, 2, x);
  read_shape(&c, 2, 3, w);
  const void *grad_y = matrix(&c, 0, x[0], w[0]), *left = matrix(&c, 1, x[0], w[2]);
  const void *right = cube(&c, 2, w[0], w[1], w[2]), *argmax = bytes(&c, 3, x[0], w[0]);
  void *grad_x = OR_NONE(matrix, &c, 4, x[0], w[2]), *grad_weight = OR_NONE(cube, &c, 5, w[0], w[1], w[2]);
  void *grad_bias = OR_NONE(matrix, &c, 6, w[0], w[1]);
  int accumulate = flag_of(&c, 7), threads = int_of(&c, 8), precision = int_of(&c, 9);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_linear_maxout_backward(c.dtype, x[0], w[2], w[0], w[1], grad_y, left, right, argmax, grad_x, grad_weight,
                                     grad_bias, accumulate, threads, precision);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_maxout(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  struct arrays c = arrays_of(arguments, 0);
  int64_t z[3];
  read_shape(&c, 0, 3, z);
  const void *from = cube(&c, 0, z[0], z[1], z[2]);
  void *y = matrix(&c, 1, z[0], z[2]), *argmax = OR_NONE(bytes, &c, 2, z[0], z[2]);
  int threads = int_of(&c, 3);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  fa_maxout(c.dtype, z[0], z[1], z[2], from, y, argmax, threads);
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

static PyObject *py_maxout_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  struct arrays c = arrays_of(arguments, 2);
  int64_t z[3];
  int status;
  read_shape(&c, 2, 3, z);
  const void *grad_y = matrix(&c, 0, z[0], z[2]), *argmax = bytes(&c, 1, z[0], z[2]);
  void *grad_z = cube(&c, 2, z[0], z[1], z[2]);
  int threads = int_of(&c, 3);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_maxout_backward(c.dtype, z[0], z[1], z[2], grad_y, argmax, grad_z, threads);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

/* (rows, features) of an array; without a slope it may have any shape, and counts as one row. */
static struct rows features_of(struct arrays *c, int array, int slope) {
  if (is_none(c, slope)) return (struct rows){1, size_of(array_of(c, array))};
  int64_t shape[2];
  read_shape(c, array, 2, shape);
  return (struct rows){shape[0], shape[1]};
}

static PyObject *py_activation(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 6)) return NULL;
  struct arrays c = arrays_of(arguments, 3);
  struct rows z = features_of(&c, 3, 2);
  struct slope slope = slope_of(&c, 2, z.columns);
  int64_t code = long_of(&c, 0);
  int threads = int_of(&c, 5);
  double parameter = number_of(&c, 1);
  const void *from = elements(&c, 3, z.rows * z.columns);
  void *y = elements(&c, 4, z.rows * z.columns);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  fa_activation(c.dtype, z.rows, z.columns, code, parameter, slope.data, slope.count, from, y, threads);
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

static PyObject *py_activation_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 9)) return NULL;
  struct arrays c = arrays_of(arguments, 3);
  struct rows z = features_of(&c, 3, 2);
  struct slope slope = slope_of(&c, 2, z.columns);
  int64_t code = long_of(&c, 0);
  int accumulate = flag_of(&c, 7), threads = int_of(&c, 8), status;
  double parameter = number_of(&c, 1);
  int64_t n = z.rows * z.columns;
  const void *grad_y = elements(&c, 3, n), *saved = elements(&c, 4, n);
  void *grad_z = elements(&c, 5, n), *grad_slope = OR_NONE(vector, &c, 6, slope.count);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_activation_backward(c.dtype, z.rows, z.columns, code, parameter, slope.data, slope.count, grad_y, saved,
                                  grad_z, grad_slope, accumulate, threads);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_linear_activation(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 10)) return NULL;
  struct arrays c = arrays_of(arguments, 3);
  int64_t x[2], w[2];
  int status;
  read_shape(&c, 3, 2, x);
  read_shape(&c, 4, 2, w);
  int64_t code = long_of(&c, 0);
  int threads = int_of(&c, 8), precision = int_of(&c, 9);
  double parameter = number_of(&c, 1);
  struct slope slope = slope_of(&c, 2, w[0]);
  const void *left = matrix(&c, 3, x[0], w[1]), *right = matrix(&c, 4, w[0], w[1]);
  const void *bias = OR_NONE(vector, &c, 5, w[0]);
  void *y = matrix(&c, 6, x[0], w[0]), *z = OR_NONE(matrix, &c, 7, x[0], w[0]);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_linear_activation(c.dtype, x[0], w[1], w[0], code, parameter, slope.data, slope.count, left, right, bias,
                                y, z, threads, precision);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_linear_activation_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 14)) return NULL;
  struct arrays c = arrays_of(arguments, 4);
  int64_t x[2], w[2];
  int status;
  read_shape(&c, 4, 2, x);
  read_shape(&c, 5, 2, w);
  int64_t code = long_of(&c, 0);
  int accumulate = flag_of(&c, 11), threads = int_of(&c, 12), precision = int_of(&c, 13);
  double parameter = number_of(&c, 1);
  struct slope slope = slope_of(&c, 2, w[0]);
  const void *grad_y = matrix(&c, 3, x[0], w[0]), *left = matrix(&c, 4, x[0], w[1]);
  const void *right = matrix(&c, 5, w[0], w[1]), *saved = matrix(&c, 6, x[0], w[0]);
  void *grad_x = OR_NONE(matrix, &c, 7, x[0], w[1]), *grad_weight = OR_NONE(matrix, &c, 8, w[0], w[1]);
  void *grad_bias = OR_NONE(vector, &c, 9, w[0]), *grad_slope = OR_NONE(vector, &c, 10, slope.count);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_linear_activation_backward(c.dtype, x[0], w[1], w[0], code, parameter, slope.data, slope.count, grad_y,
                                         left, right, saved, grad_x, grad_weight, grad_bias, grad_slope, accumulate,
                                         threads, precision);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_matmul(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 7)) return NULL;
  struct arrays c = arrays_of(arguments, 4);
  int64_t x[2], out[2];
  int status;
  read_shape(&c, 0, 2, x);
  read_shape(&c, 4, 2, out);
  int trans1 = flag_of(&c, 2), trans2 = flag_of(&c, 3), threads = int_of(&c, 5), precision = int_of(&c, 6);
  int64_t rows = out[0], columns = out[1], depth = x[!trans1];
  const void *left = trans1 ? matrix(&c, 0, depth, rows) : matrix(&c, 0, rows, depth);
  const void *right = trans2 ? matrix(&c, 1, columns, depth) : matrix(&c, 1, depth, columns);
  void *to = matrix(&c, 4, rows, columns);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_matmul(c.dtype, trans1, trans2, rows, columns, depth, 1, left, x[1], right, trans2 ? depth : columns, 0,
                     to, columns, threads, precision);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_layer_norm(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 7)) return NULL;
  struct arrays c = arrays_of(arguments, 1);
  int64_t x[2];
  read_shape(&c, 1, 2, x);
  c.changed |= x[1] < 1;
  double eps = number_of(&c, 0);
  const void *from = matrix(&c, 1, x[0], x[1]), *weight = OR_NONE(vector, &c, 2, x[1]);
  const void *bias = OR_NONE(vector, &c, 3, x[1]);
  void *y = matrix(&c, 4, x[0], x[1]), *saved = OR_NONE(matrix, &c, 5, x[0], 2);
  int threads = int_of(&c, 6);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  fa_layer_norm(c.dtype, x[0], x[1], eps, from, weight, bias, y, saved, threads);
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

static PyObject *py_layer_norm_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 9)) return NULL;
  struct arrays c = arrays_of(arguments, 1);
  int64_t x[2];
  int status;
  read_shape(&c, 1, 2, x);
  c.changed |= x[1] < 1;
  const void *grad_y = matrix(&c, 0, x[0], x[1]), *from = matrix(&c, 1, x[0], x[1]);
  const void *weight = OR_NONE(vector, &c, 2, x[1]), *saved = matrix(&c, 3, x[0], 2);
  void *grad_x = OR_NONE(matrix, &c, 4, x[0], x[1]), *grad_weight = OR_NONE(vector, &c, 5, x[1]);
  void *grad_bias = OR_NONE(vector, &c, 6, x[1]);
  int accumulate = flag_of(&c, 7), threads = int_of(&c, 8);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_layer_norm_backward(c.dtype, x[0], x[1], grad_y, from, weight, saved, grad_x, grad_weight, grad_bias,
                                  accumulate, threads);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_dropout_keep(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  struct arrays c = {.arguments = arguments};
  uint64_t seed = PyLong_AsUnsignedLongLong(arguments[0]);
  double p = number_of(&c, 1);
  int64_t n = size_of(array_of(&c, 2));
  uint8_t *keep = elements_of(&c, 2, NPY_UINT8, n);
  int threads = int_of(&c, 3);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  fa_dropout_keep(n, seed, p, keep, threads);
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

/* Reads a tuple of tuples (table, column of the ids, seed, scale or None), and sets the call's dtype to that of the
 * tables.  Returns an array for the caller to free, or NULL with an exception set. */
static struct fa_hash_table *read_hash_tables(struct arrays *c, PyObject *tuple, int64_t id_columns, int64_t *count,
                                              int64_t *columns) {
  *count = PyTuple_Size(tuple);
  *columns = 0;
  if (*count < 0) return NULL;
  struct fa_hash_table *tables = PyMem_Calloc((size_t)*count + 1, sizeof *tables);
  if (!tables) PyErr_NoMemory();
  for (int64_t t = 0; tables && t < *count; t++) {
    PyObject *fields[4];
    for (int i = 0; i < 4; i++) {
      fields[i] = PyTuple_GetItem(PyTuple_GetItem(tuple, t), i);
      if (!fields[i]) {
        PyMem_Free(tables);
        return NULL;
      }
    }
    struct arrays own = arrays_of(fields, 0);
    int64_t shape[2];
    read_shape(&own, 0, 2, shape);
    if (t == 0) {
      c->type = own.type;
      c->dtype = own.dtype;
    }
    own.changed |= own.type != c->type || shape[0] < 1 || shape[0] > UINT32_MAX;
    tables[t] = (struct fa_hash_table){
        .data = matrix(&own, 0, shape[0], shape[1]),
        .rows = (uint32_t)shape[0],
        .columns = shape[1],
        .id_column = PyLong_AsLongLong(fields[1]),
        .seed = (uint32_t)PyLong_AsUnsignedLong(fields[2]),
        .scale = OR_NONE(vector, &own, 3, shape[1]),
    };
    c->changed |= own.changed || tables[t].id_column < 0 || tables[t].id_column >= id_columns;
    *columns += shape[1];
  }
  return tables;
}

static PyObject *py_hash_embed(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 5)) return NULL;
  struct arrays c = {.arguments = arguments};
  int64_t ids[2], table_count, columns;
  read_shape(&c, 0, 2, ids);
  struct fa_hash_table *tables = read_hash_tables(&c, arguments[1], ids[1], &table_count, &columns);
  if (!tables) return NULL;
  const void *from = elements_of(&c, 0, NPY_UINT64, ids[0] * ids[1]);
  void *y = matrix(&c, 2, ids[0], columns);
  void *keys = data_of(&c, 3, NPY_UINT32, 3, table_count, ids[0], 4);
  int threads = int_of(&c, 4), stopped = failed(&c);
  if (!stopped) {
    Py_BEGIN_ALLOW_THREADS;
    fa_hash_embed(c.dtype, ids[0], ids[1], from, table_count, tables, y, keys, threads);
    Py_END_ALLOW_THREADS;
  }
  PyMem_Free(tables);
  if (stopped) return NULL;
  Py_RETURN_NONE;
}

static PyObject *py_hash_embed_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  struct arrays c = {.arguments = arguments};
  int64_t table_count, columns, grad_shape[2];
  struct fa_hash_table *tables = read_hash_tables(&c, arguments[2], INT64_MAX, &table_count, &columns);
  if (!tables) return NULL;
  read_shape(&c, 0, 2, grad_shape);
  const void *grad_y = matrix(&c, 0, grad_shape[0], columns);
  const void *keys = data_of(&c, 1, NPY_UINT32, 3, table_count, grad_shape[0], 4);
  int threads = int_of(&c, 3), stopped = failed(&c);
  if (!stopped) {
    Py_BEGIN_ALLOW_THREADS;
    fa_hash_embed_backward(c.dtype, grad_shape[0], grad_y, keys, table_count, tables, threads);
    Py_END_ALLOW_THREADS;
  }
  PyMem_Free(tables);
  if (stopped) return NULL;
  Py_RETURN_NONE;
}

static PyObject *py_run_frozen(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 8)) return NULL;
  struct arrays c = arrays_of(arguments, 5);
  const void *layers = PyLong_AsVoidPtr(arguments[0]);
  int64_t layer_count = PyLong_AsLongLong(arguments[1]), in_features = PyLong_AsLongLong(arguments[3]);
  int64_t out_features = PyLong_AsLongLong(arguments[4]), x[2];
  int threads = int_of(&c, 7), status;
  c.changed |= c.type != int_of(&c, 2);
  read_shape(&c, 5, 2, x);
  const void *from = matrix(&c, 5, x[0], in_features);
  void *y = matrix(&c, 6, x[0], out_features);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_run_frozen(layers, layer_count, x[0], from, y, threads);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(status);
}

static PyObject *py_mse(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  struct arrays c = arrays_of(arguments, 0);
  int64_t n = size_of(array_of(&c, 0));
  const void *y = elements(&c, 0, n), *target = elements(&c, 1, n);
  void *grad = elements(&c, 2, n);
  int threads = int_of(&c, 3);
  double loss;
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  loss = fa_mse(c.dtype, n, y, target, grad, threads);
  Py_END_ALLOW_THREADS;
  return PyFloat_FromDouble(loss);
}

static PyObject *py_binary_cross_entropy(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  struct arrays c = arrays_of(arguments, 0);
  int64_t n = size_of(array_of(&c, 0));
  const void *y = elements(&c, 0, n), *target = elements(&c, 1, n);
  void *grad = elements(&c, 2, n);
  int threads = int_of(&c, 3);
  double loss;
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  loss = fa_binary_cross_entropy(c.dtype, n, y, target, grad, threads);
  Py_END_ALLOW_THREADS;
  return PyFloat_FromDouble(loss);
}

static PyObject *py_huber(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 5)) return NULL;
  struct arrays c = arrays_of(arguments, 0);
  int64_t n = size_of(array_of(&c, 0));
  const void *y = elements(&c, 0, n), *target = elements(&c, 1, n);
  double delta = number_of(&c, 2), loss;
  void *grad = elements(&c, 3, n);
  int threads = int_of(&c, 4);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  loss = fa_huber(c.dtype, n, y, target, delta, grad, threads);
  Py_END_ALLOW_THREADS;
  return PyFloat_FromDouble(loss);
}

static PyObject *py_softmax_cross_entropy(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 6)) return NULL;
  struct arrays c = arrays_of(arguments, 0);
  struct rows z = rows_of(array_of(&c, 0));
  const void *logits = elements(&c, 0, z.rows * z.columns), *labels = elements_of(&c, 1, NPY_INT64, z.rows);
  double label_smoothing = number_of(&c, 2), loss;
  int64_t ignore_index = PyLong_AsLongLong(arguments[3]);
  void *grad = elements(&c, 4, z.rows * z.columns);
  int threads = int_of(&c, 5), status;
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  status = fa_softmax_cross_entropy(c.dtype, z.rows, z.columns, logits, labels, label_smoothing, ignore_index, grad,
                                    &loss, threads);
  Py_END_ALLOW_THREADS;
  if (status == FA_BAD_LABEL) Py_RETURN_NONE;
  return PyFloat_FromDouble(loss);
}

static PyMethodDef methods[] = {
    {"linear_maxout", (PyCFunction)(void (*)(void))py_linear_maxout, METH_FASTCALL, NULL},
    {"linear_maxout_backward", (PyCFunction)(void (*)(void))py_linear_maxout_backward, METH_FASTCALL, NULL},
    {"maxout", (PyCFunction)(void (*)(void))py_maxout, METH_FASTCALL, NULL},
    {"maxout_backward", (PyCFunction)(void (*)(void))py_maxout_backward, METH_FASTCALL, NULL},
    {"activation", (PyCFunction)(void (*)(void))py_activation, METH_FASTCALL, NULL},
    {"activation_backward", (PyCFunction)(void (*)(void))py_activation_backward, METH_FASTCALL, NULL},
    {"linear_activation", (PyCFunction)(void (*)(void))py_linear_activation, METH_FASTCALL, NULL},
    {"linear_activation_backward", (PyCFunction)(void (*)(void))py_linear_activation_backward, METH_FASTCALL, NULL},
    {"matmul", (PyCFunction)(void (*)(void))py_matmul, METH_FASTCALL, NULL},
    {"layer_norm", (PyCFunction)(void (*)(void))py_layer_norm, METH_FASTCALL, NULL},
    {"layer_norm_backward", (PyCFunction)(void (*)(void))py_layer_norm_backward, METH_FASTCALL, NULL},
    {"dropout_keep", (PyCFunction)(void (*)(void))py_dropout_keep, METH_FASTCALL, NULL},
    {"hash_embed", (PyCFunction)(void (*)(void))py_hash_embed, METH_FASTCALL, NULL},
    {"hash_embed_backward", (PyCFunction)(void (*)(void))py_hash_embed_backward, METH_FASTCALL, NULL},
    {"run_frozen", (PyCFunction)(void (*)(void))py_run_frozen, METH_FASTCALL, NULL},
    {"mse", (PyCFunction)(void (*)(void))py_mse, METH_FASTCALL, NULL},
    {"binary_cross_entropy", (PyCFunction)(void (*)(void))py_binary_cross_entropy, METH_FASTCALL, NULL},
    {"huber", (PyCFunction)(void (*)(void))py_huber, METH_FASTCALL, NULL},
    {"softmax_cross_entropy", (PyCFunction)(void (*)(void))py_softmax_cross_entropy, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int fa_add_functions(uintptr_t module) {
  PyGILState_STATE state = PyGILState_Ensure(); /* cffi has released the GIL */
  int failed_to = PyModule_AddFunctions((PyObject *)module, methods) || add_network((PyObject *)module) ||
                  add_optimizers((PyObject *)module) || add_facts((PyObject *)module);
  if (failed_to) PyErr_Clear();
  PyGILState_Release(state);
  return failed_to ? FA_NO_MEMORY : FA_OK;
}

unsigned int fa_numpy_abi(uintptr_t api) {
  PyGILState_STATE state = PyGILState_Ensure();
  void **table = PyCapsule_GetPointer((PyObject *)api, NULL);
  unsigned int version = table ? ((unsigned int (*)(void))table[0])() : 0; /* PyArray_GetNDArrayCVersion */
  if (!table) PyErr_Clear();
  PyGILState_Release(state);
  return version;
}
