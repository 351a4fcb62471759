#include <float.h>
#include <math.h>

#include "api/arrays.h"

/* The attributes of a parameter. */
static PyObject *data_name, *grad_name, *decay_name, *max_norm_name;

/* The arrays of one parameter: data, grad, then the optimiser's state. */
enum { DATA, GRAD, STATE, MOST_ARRAYS = STATE + 2 };

/* One parameter of a step. */
struct parameter {
  PyObject *held[MOST_ARRAYS]; /* owned references, each of which may be NULL */
  int decays;                  /* -1 if that is not a bool */
  double max_norm;             /* infinite for no bound, 0 for one that is not a finite float */
  int dtype;
  struct rows shape; /* the last axis is the columns */
  void *memory[MOST_ARRAYS];
};

/* The parameters of a step. */
struct step {
  struct parameter *parameters;
  Py_ssize_t count;
  int arrays; /* of each parameter */
  int usable; /* the kernels can take all of them as they are */
};

/* An owned reference to item `index` of a tuple, or NULL if there is none. */
static PyObject *item(PyObject *tuple, Py_ssize_t index) {
  PyObject *value = index < PyTuple_Size(tuple) ? PyTuple_GetItem(tuple, index) : NULL;
  Py_XINCREF(value);
  return value;
}

/* Reads the attributes of a parameter, which may run code of Python's.  Returns whether an exception is set. */
static int hold(PyObject *parameter, struct parameter *p) {
  PyObject *const attributes[] = {data_name, grad_name, decay_name, max_norm_name};
  PyObject *found[4] = {NULL};
  for (int i = 0; i < 4 && !PyErr_Occurred(); i++) found[i] = attribute(parameter, attributes[i]);
  PyObject *decay = found[2], *max_norm = found[3];
  p->held[DATA] = found[0];
  p->held[GRAD] = found[1];
  p->decays = decay == Py_True ? 1 : decay == Py_False ? 0 : -1;
  double bound = max_norm && PyFloat_CheckExact(max_norm) ? PyFloat_AsDouble(max_norm) : 0;
  p->max_norm = max_norm == Py_None ? INFINITY : bound < INFINITY ? bound : 0; /* 0 for a NaN too */
  Py_XDECREF(decay);
  Py_XDECREF(max_norm);
  return PyErr_Occurred() != NULL;
}

/* An array of one of the `types`, C-contiguous, aligned, of float32 or float64 in the machine's order of bytes. */
static int is_usable(PyObject *const types[2], PyObject *object) {
  if (!object || ((PyObject *)Py_TYPE(object) != types[0] && (PyObject *)Py_TYPE(object) != types[1])) return 0;
  PyArrayObject *array = (PyArrayObject *)object;
  int type = PyArray_TYPE(array);
  return (type == NPY_FLOAT || type == NPY_DOUBLE) && PyArray_DESCR(array)->byteorder == NPY_NATIVE &&
         can_be_read(array);
}

static int is_writeable(PyArrayObject *array) { return (PyArray_FLAGS(array) & NPY_ARRAY_WRITEABLE) != 0; }

static int is_like(PyArrayObject *a, PyArrayObject *b) {
  int like = PyArray_TYPE(a) == PyArray_TYPE(b) && PyArray_NDIM(a) == PyArray_NDIM(b);
  for (int axis = 0; like && axis < PyArray_NDIM(a); axis++) like = PyArray_DIM(a, axis) == PyArray_DIM(b, axis);
  return like;
}

/* Reads the arrays of a parameter.  Returns whether the kernels can take it as it is. */
static int read_arrays(PyObject *const types[2], int arrays, struct parameter *p) {
  PyArrayObject *data = (PyArrayObject *)p->held[DATA];
  for (int i = 0; i < arrays; i++) {
    PyArrayObject *array = (PyArrayObject *)p->held[i];
    if (!is_usable(types, p->held[i]) || !is_like(array, data) || (i != GRAD && !is_writeable(array))) return 0;
    p->memory[i] = PyArray_DATA(array);
  }
  int single = PyArray_TYPE(data) == NPY_FLOAT, bounded = p->max_norm < INFINITY;
  p->dtype = single ? FA_FLOAT32 : FA_FLOAT64;
  p->shape = rows_of(data);
  int bound_fits = p->max_norm > 0 && p->max_norm <= (single ? (double)FLT_MAX : DBL_MAX) && PyArray_NDIM(data) > 0;
  return p->decays >= 0 && (!bounded || bound_fits);
}

static void free_step(struct step *s) {
  for (Py_ssize_t i = 0; i < s->count; i++)
    for (int k = 0; k < MOST_ARRAYS; k++) Py_XDECREF(s->parameters[i].held[k]);
  PyMem_Free(s->parameters);
}

/* Reads the parameters, tuples[0], and their states' arrays, a tuple each.  Returns whether an exception is set. */
static int read_parameters(PyObject *const types[2], PyObject *const *tuples, int states, struct step *s) {
  Py_ssize_t count = PyTuple_Size(tuples[0]);
  s->parameters = PyMem_Calloc((size_t)count + 1, sizeof *s->parameters);
  if (!s->parameters) {
    PyErr_NoMemory();
    return 1;
  }
  s->count = count;
  for (Py_ssize_t i = 0; i < s->count; i++) {
    if (hold(PyTuple_GetItem(tuples[0], i), &s->parameters[i])) return 1;
    for (int k = 0; k < states; k++) s->parameters[i].held[STATE + k] = item(tuples[1 + k], i);
  }
  /* from here on no code of Python's runs that could change an array */
  for (Py_ssize_t i = 0; s->usable && i < s->count; i++) s->usable = read_arrays(types, s->arrays, &s->parameters[i]);
  return 0;
}

/* Reads arguments[0], a pair of the types of arrays, arguments[1], a list of parameters, and from arguments[2] on
 * `states` lists with an array for each of them.  Other threads may change the lists, of which tuples are made, without
 * a GIL at any time.  Nothing is written to the arrays.  Returns whether an exception is set. */
static int read_step(PyObject *const *arguments, int states, struct step *s) {
  PyObject *const types[] = {PyTuple_GetItem(arguments[0], 0), PyTuple_GetItem(arguments[0], 1)};
  PyObject *tuples[MOST_ARRAYS - STATE + 1] = {NULL};
  *s = (struct step){.arrays = STATE + states, .usable = types[0] && types[1]};
  if (!s->usable) return 1;
  for (int i = 0; i <= states; i++) s->usable &= PyList_Check(arguments[1 + i]);
  if (!s->usable) return 0;
  int stopped = 0;
  for (int i = 0; i <= states && !stopped; i++) stopped = !(tuples[i] = PyList_AsTuple(arguments[1 + i]));
  if (!stopped) stopped = read_parameters(types, tuples, states, s);
  for (int i = 0; i <= states; i++) Py_XDECREF(tuples[i]);
  if (stopped) free_step(s);
  return stopped;
}

/* ---- the functions of numpy.h */

static PyObject *py_sgd(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 8)) return NULL;
  struct arrays c = {.arguments = arguments};
  struct step s;
  double lr = number_of(&c, 3), momentum = number_of(&c, 4), weight_decay = number_of(&c, 6);
  int nesterov = flag_of(&c, 5), threads = int_of(&c, 7);
  if (failed(&c) || read_step(arguments, 1, &s)) return NULL;
  if (s.usable) {
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t i = 0; i < s.count; i++) {
      const struct parameter *p = &s.parameters[i];
      fa_sgd(p->dtype, p->shape.rows, p->shape.columns, lr, momentum, nesterov, p->decays ? weight_decay : 0,
             p->max_norm, p->memory[GRAD], momentum != 0 ? p->memory[STATE] : NULL, p->memory[DATA], threads);
    }
    Py_END_ALLOW_THREADS;
  }
  free_step(&s);
  return PyBool_FromLong(s.usable);
}

static PyObject *py_adam(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 12)) return NULL;
  struct arrays c = {.arguments = arguments};
  struct step s;
  double rate = number_of(&c, 4), beta1 = number_of(&c, 5), beta2 = number_of(&c, 6), unbias = number_of(&c, 7);
  double eps = number_of(&c, 8), weight_decay = number_of(&c, 9), keep = number_of(&c, 10);
  int threads = int_of(&c, 11);
  if (failed(&c) || read_step(arguments, 2, &s)) return NULL;
  if (s.usable) {
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t i = 0; i < s.count; i++) {
      const struct parameter *p = &s.parameters[i];
      fa_adam(p->dtype, p->shape.rows, p->shape.columns, rate, beta1, beta2, unbias, eps, p->decays ? weight_decay : 0,
              p->decays ? keep : 1, p->max_norm, p->memory[GRAD], p->memory[STATE], p->memory[STATE + 1],
              p->memory[DATA], threads);
    }
    Py_END_ALLOW_THREADS;
  }
  free_step(&s);
  return PyBool_FromLong(s.usable);
}

static PyObject *py_max_norm(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 3)) return NULL;
  struct arrays c = arrays_of(arguments, 1);
  struct rows shape = rows_of(array_of(&c, 1));
  double bound = number_of(&c, 0);
  void *data = elements(&c, 1, shape.rows * shape.columns);
  int threads = int_of(&c, 2);
  if (failed(&c)) return NULL;
  Py_BEGIN_ALLOW_THREADS;
  fa_max_norm(c.dtype, shape.rows, shape.columns, bound, data, threads);
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

/* The arguments of a step of one parameter, from the data on. */
enum { ONE_DATA = 1, ONE_GRAD, ONE_MEAN, ONE_SQUARE, ONE_AVERAGE, ONE_NUMBERS, ONE_THREADS = ONE_NUMBERS + 8 };

static int overlap(const void *a, const void *b, int64_t bytes) {
  uintptr_t first = (uintptr_t)a, second = (uintptr_t)b;
  return (first < second ? second - first : first - second) < (uintptr_t)bytes;
}

/* The memory of the arrays -> memory [ONE_NUMBERS], NULL for None.  Returns whether the kernels can take them. */
static int read_updated(PyObject *const *arguments, void **memory) {
  PyObject *const types[] = {PyTuple_GetItem(arguments[0], 0), PyTuple_GetItem(arguments[0], 1)};
  PyArrayObject *data = (PyArrayObject *)arguments[ONE_DATA];
  if (!is_usable(types, arguments[ONE_DATA]) || PyArray_NDIM(data) == 0) return 0;
  const int64_t n = size_of(data), bytes = n * (PyArray_TYPE(data) == NPY_FLOAT ? 4 : 8);
  for (int i = ONE_DATA; i < ONE_NUMBERS; i++) {
    PyArrayObject *array = (PyArrayObject *)arguments[i];
    memory[i] = NULL;
    if (i > ONE_GRAD && arguments[i] == Py_None) continue;
    if (!is_usable(types, arguments[i]) || !is_writeable(array)) return 0;
    int moment = i == ONE_MEAN || i == ONE_SQUARE;
    if (moment ? PyArray_NDIM(array) != 1 || size_of(array) != n || PyArray_TYPE(array) != PyArray_TYPE(data)
               : !is_like(array, data))
      return 0;
    memory[i] = PyArray_DATA(array);
    for (int k = ONE_DATA; k < i; k++)
      if (memory[k] && overlap(memory[k], memory[i], bytes)) return 0;
  }
  return !memory[ONE_MEAN] == !memory[ONE_SQUARE];
}

/* A number of Python, in the range of the dtype. */
static int read_number(PyObject *object, double most, double *number) {
  if (!PyFloat_Check(object) && !PyLong_Check(object)) return 0;
  *number = PyFloat_AsDouble(object);
  int beyond = PyErr_Occurred() != NULL; /* an int that no double holds */
  PyErr_Clear();
  return !beyond && fabs(*number) <= most;
}

static PyObject *py_update_parameter(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, ONE_THREADS + 1)) return NULL;
  struct arrays c = {.arguments = arguments};
  void *memory[ONE_NUMBERS];
  double numbers[ONE_THREADS - ONE_NUMBERS];
  int threads = int_of(&c, ONE_THREADS), usable = read_updated(arguments, memory);
  if (failed(&c)) return NULL;
  const PyArrayObject *data = array_of(&c, ONE_DATA);
  for (int i = ONE_NUMBERS; usable && i < ONE_THREADS; i++)
    usable = read_number(arguments[i], PyArray_TYPE(data) == NPY_FLOAT ? (double)FLT_MAX : DBL_MAX,
                         &numbers[i - ONE_NUMBERS]);
  if (!usable) Py_RETURN_FALSE;
  const int dtype = PyArray_TYPE(data) == NPY_FLOAT ? FA_FLOAT32 : FA_FLOAT64;
  const int64_t n = size_of(data);
  Py_BEGIN_ALLOW_THREADS;
  fa_update_parameter(dtype, n, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6],
                      numbers[7], memory[ONE_GRAD], memory[ONE_MEAN], memory[ONE_SQUARE], memory[ONE_DATA],
                      memory[ONE_AVERAGE], threads);
  Py_END_ALLOW_THREADS;
  Py_RETURN_TRUE;
}

/* One gradient. */
struct gradient {
  int dtype;
  int64_t n;
  void *memory;
};

/* sqrt(a^2 + b^2) for a, b >= 0 or NaN, without overflow.  The last bit of the C library's hypot() depends on the
 * library and the CPU. */
static double norm_of(double a, double b) {
  if (isnan(a) || isnan(b)) return NAN;
  double largest = a > b ? a : b;
  if (largest == 0 || isinf(largest)) return largest;
  int exponent;
  frexp(largest, &exponent);
  a = ldexp(a, -exponent);
  b = ldexp(b, -exponent);
  return ldexp(sqrt(a * a + b * b), exponent);
}

static double clip(struct gradient *gradients, Py_ssize_t count, double max_norm, int threads) {
  double norm = 0;
  for (Py_ssize_t i = 0; i < count; i++)
    norm = norm_of(norm, fa_vector_norm(gradients[i].dtype, gradients[i].n, gradients[i].memory, threads));
  double scale = max_norm / (norm + 1e-6);
  for (Py_ssize_t i = 0; i < count && !(scale >= 1); i++)
    fa_shrink(gradients[i].dtype, gradients[i].n, scale, gradients[i].memory, threads);
  return norm;
}

static PyObject *py_clip_grad_norm(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 3)) return NULL;
  struct arrays c = {.arguments = arguments};
  double max_norm = number_of(&c, 1), norm = 0;
  int threads = int_of(&c, 2);
  if (failed(&c)) return NULL;
  PyObject *arrays = PyList_AsTuple(arguments[0]); /* other threads may change the list */
  if (!arrays) return NULL;
  Py_ssize_t array_count = PyTuple_Size(arrays);
  struct gradient *gradients = PyMem_Calloc((size_t)array_count + 1, sizeof *gradients);
  if (!gradients) {
    Py_DECREF(arrays);
    return PyErr_NoMemory();
  }
  for (Py_ssize_t i = 0; i < array_count; i++) {
    PyArrayObject *array = (PyArrayObject *)PyTuple_GetItem(arrays, i);
    int type = PyArray_TYPE(array);
    c.changed |= (type != NPY_FLOAT && type != NPY_DOUBLE) || !can_be_read(array) || !is_writeable(array);
    gradients[i] = (struct gradient){type == NPY_FLOAT ? FA_FLOAT32 : FA_FLOAT64, size_of(array), PyArray_DATA(array)};
  }
  if (!c.changed) {
    Py_BEGIN_ALLOW_THREADS;
    norm = clip(gradients, array_count, max_norm, threads);
    Py_END_ALLOW_THREADS;
  }
  PyMem_Free(gradients);
  Py_DECREF(arrays);
  return failed(&c) ? NULL : PyFloat_FromDouble(norm);
}

static PyMethodDef methods[] = {
    {"sgd", (PyCFunction)(void (*)(void))py_sgd, METH_FASTCALL, NULL},
    {"adam", (PyCFunction)(void (*)(void))py_adam, METH_FASTCALL, NULL},
    {"update_parameter", (PyCFunction)(void (*)(void))py_update_parameter, METH_FASTCALL, NULL},
    {"max_norm", (PyCFunction)(void (*)(void))py_max_norm, METH_FASTCALL, NULL},
    {"clip_grad_norm", (PyCFunction)(void (*)(void))py_clip_grad_norm, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int add_optimizers(PyObject *module) {
  data_name = PyUnicode_InternFromString("data");
  grad_name = PyUnicode_InternFromString("grad");
  decay_name = PyUnicode_InternFromString("decay");
  max_norm_name = PyUnicode_InternFromString("max_norm");
  if (!data_name || !grad_name || !decay_name || !max_norm_name) return -1;
  return PyModule_AddFunctions(module, methods);
}
