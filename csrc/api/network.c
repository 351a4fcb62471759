#include <float.h>
#include <math.h>
#include <stdlib.h>

#include <numpy/random/bitgen.h>

#include "api/arrays.h"
#include "engine/sizes.h"
#include "engine/workspace.h"
#include "layers/network.h"

/* Objects of Python and NumPy that a call needs, as a tuple in this order. */
enum {
  PARAMETER_TYPE,
  GENERATOR_TYPE,
  ARRAY_TYPE,
  EMPTY,
  FLOAT32,
  FLOAT64,
  UINT8,
  TIERS,               /* a dict: tier or None -> its number, -1 for None */
  ACTIVATIONS,         /* a dict: name -> (code, parameter, saves_z, takes_slope) */
  RESOLVED_ACTIVATION, /* a function: (name, keywords, dtype) -> the same; code may be the address of a struct
                          fa_custom, which lives as long as the tuple */
};

/* The names of attributes and methods. */
static struct {
  PyObject *data, *grad, *grad_out, *bit_generator, *capsule, *lock, *acquire, *release;
} names;

/* An array that a call reads or writes. */
struct extent {
  const char *start, *end;
  int written;
};

/* A dropout, and what says which numbers it keeps: a generator, the seed of a counter-based one, or bytes. */
struct drawing {
  PyObject *source;
  uint64_t seed;
  double p;
  int64_t step, n;
};

/* A network as Python describes it.  `window` is that of the next step, 0 for none.  `held` owns a reference to every
 * object that the steps need. */
struct network {
  PyObject *objects;
  int type, dtype;
  int usable; /* nothing was found that only the layers themselves can deal with */
  int64_t rows, count;
  int window;
  struct fa_step *steps;
  const struct fa_step **pointers;
  PyObject **held;
  int64_t held_count;
  struct extent *extents;
  int64_t extent_count;
  PyObject **fresh; /* pairs of a parameter without a gradient, and its new gradient */
  int64_t fresh_count;
  struct drawing *drawings;
  int64_t drawing_count;
};

/* A step has at most this many attributes, and holds an activation that was looked up beside them; this many arrays are
 * parameters and gradients; a call has this many more. */
enum { STEP_ATTRIBUTES = 6, STEP_ARRAYS = 6, CALL_ARRAYS = 3 };

static PyObject *object_of(const struct network *n, int index) { return PyTuple_GetItem(n->objects, index); }

static int is_exactly(const struct network *n, PyObject *value, int type) {
  return value && (PyObject *)Py_TYPE(value) == object_of(n, type);
}

/* One block for all the lists of a network of `count` steps. */
static int allocate(struct network *n, int64_t count) {
  size_t arrays = (size_t)(count * STEP_ARRAYS + CALL_ARRAYS), steps = (size_t)count;
  size_t objects = arrays + steps * (STEP_ATTRIBUTES + 1), fresh = 2 * arrays;
  char *memory = malloc(steps * (sizeof *n->steps + sizeof *n->pointers + sizeof *n->drawings) +
                        arrays * sizeof *n->extents + (objects + fresh) * sizeof *n->held);
  if (!memory) return 0;
  n->steps = (struct fa_step *)memory;
  n->drawings = (struct drawing *)(n->steps + steps);
  n->extents = (struct extent *)(n->drawings + steps);
  n->pointers = (const struct fa_step **)(n->extents + arrays);
  n->held = (PyObject **)(n->pointers + steps);
  n->fresh = n->held + objects;
  return 1;
}

static void release(struct network *n) {
  for (int64_t i = 0; i < n->held_count; i++) Py_DECREF(n->held[i]);
  free(n->steps);
}

/* Takes over a reference. */
static void hold(struct network *n, PyObject *object) { n->held[n->held_count++] = object; }

static void note_extent(struct network *n, PyArrayObject *array, int written) {
  const char *start = PyArray_DATA(array);
  int64_t bytes = size_of(array) * (n->type == NPY_FLOAT ? 4 : 8);
  n->extents[n->extent_count++] = (struct extent){start, start + bytes, written};
}

/* Whether `array` is a plain array of the network's type that kernels may read in place. */
static int is_plain(const struct network *n, PyObject *object, int written) {
  if (!is_exactly(n, object, ARRAY_TYPE)) return 0;
  PyArrayObject *array = (PyArrayObject *)object;
  const int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | (written ? NPY_ARRAY_WRITEABLE : 0);
  return PyArray_TYPE(array) == n->type && PyArray_ISNBO(PyArray_DESCR(array)->byteorder) &&
         (PyArray_FLAGS(array) & flags) == flags;
}

static int has_shape(PyObject *object, int axes, const int64_t *shape) {
  PyArrayObject *array = (PyArrayObject *)object;
  int fits = PyArray_NDIM(array) == axes;
  for (int axis = 0; fits && axis < axes; axis++) fits = PyArray_DIM(array, axis) == shape[axis];
  return fits;
}

/* The data of a parameter, which stays held; NULL, and the network is not usable, unless it is a plain array of that
 * many axes. */
static PyArrayObject *data_of_parameter(struct network *n, PyObject *parameter, int axes) {
  PyObject *data = is_exactly(n, parameter, PARAMETER_TYPE) ? attribute(parameter, names.data) : NULL;
  if (!data || !is_plain(n, data, 0) || PyArray_NDIM((PyArrayObject *)data) != axes) {
    Py_XDECREF(data);
    n->usable = 0;
    return NULL;
  }
  hold(n, data);
  note_extent(n, (PyArrayObject *)data, 0);
  return (PyArrayObject *)data;
}

/* The memory of a parameter's data of this shape; NULL for None, and where the network is not usable. */
static const char *values_of(struct network *n, PyObject *parameter, int axes, const int64_t *shape) {
  if (parameter == Py_None || !n->usable) return NULL;
  PyArrayObject *data = data_of_parameter(n, parameter, axes);
  if (!data) return NULL;
  n->usable &= has_shape((PyObject *)data, axes, shape);
  return PyArray_DATA(data);
}

/* The memory of a parameter's gradient of this shape, which is made if there is none yet; NULL for None, and for a
 * parameter whose gradient is False. */
static char *gradient_of(struct network *n, PyObject *parameter, int axes, const int64_t *shape) {
  if (parameter == Py_None || !n->usable) return NULL;
  PyObject *grad = attribute(parameter, names.grad);
  if (grad == Py_None) {
    for (int64_t i = 0; i < n->fresh_count; i++) n->usable &= n->fresh[2 * i] != parameter;
    Py_DECREF(grad);
    grad = PyObject_CallMethodObjArgs(parameter, names.grad_out, NULL);
    n->fresh[2 * n->fresh_count] = parameter;
    n->fresh[2 * n->fresh_count + 1] = grad;
    n->fresh_count += grad != NULL;
  }
  if (!grad) { /* an exception may be set, with which nothing else must be called */
    n->usable = 0;
    return NULL;
  }
  if (grad == Py_False) {
    Py_DECREF(grad);
    return NULL;
  }
  hold(n, grad);
  if (!is_plain(n, grad, 1) || !has_shape(grad, axes, shape)) {
    n->usable = 0;
    return NULL;
  }
  note_extent(n, (PyArrayObject *)grad, 1);
  return PyArray_DATA((PyArrayObject *)grad);
}

static int integer(PyObject *value) { return (int)PyLong_AsLong(value); }

/* The number of a tier, or that of the call for None. */
static int tier_of(struct network *n, PyObject *tier, int in_force) {
  PyObject *number = PyDict_GetItemWithError(object_of(n, TIERS), tier);
  n->usable &= number != NULL;
  int code = number ? integer(number) : 0;
  return code < 0 ? in_force : code;
}

/* An activation by name and keywords; its parameter is within the range of the network's type. */
static void read_activation(struct network *n, struct fa_step *s, PyObject *name, PyObject *keywords,
                            int *takes_slope) {
  if (!n->usable) return;
  int plain = PyDict_CheckExact(keywords) && PyDict_Size(keywords) == 0;
  PyObject *found = plain ? PyDict_GetItemWithError(object_of(n, ACTIVATIONS), name) : NULL;
  if (!found && !PyErr_Occurred()) { /* it has keywords, or is not in the table */
    PyObject *dtype = object_of(n, n->type == NPY_FLOAT ? FLOAT32 : FLOAT64);
    found = PyObject_CallFunctionObjArgs(object_of(n, RESOLVED_ACTIVATION), name, keywords, dtype, NULL);
    if (found) hold(n, found);
  }
  if (!found) {
    n->usable = 0;
    return;
  }
  double parameter = PyFloat_AsDouble(PyTuple_GetItem(found, 1));
  s->activation = activation_of(PyLong_AsLongLong(PyTuple_GetItem(found, 0)), parameter, NULL, 0);
  s->saves_z = PyTuple_GetItem(found, 2) == Py_True;
  *takes_slope = PyTuple_GetItem(found, 3) == Py_True;
  n->usable &= fabs(s->activation.parameter) <= (n->type == NPY_FLOAT ? (double)FLT_MAX : DBL_MAX);
}

/* An activation, its slope: None or a parameter with one value or one for each feature, and the slope's gradient. */
static void read_sloped(struct network *n, struct fa_step *s, PyObject *const *value, int gradients) {
  PyObject *slope = value[2];
  int takes_slope = 0;
  read_activation(n, s, value[0], value[1], &takes_slope);
  n->usable &= (slope != Py_None) == takes_slope;
  if (slope == Py_None || !n->usable) return;
  PyArrayObject *data = data_of_parameter(n, slope, 1);
  if (!data) return;
  int64_t count = PyArray_DIM(data, 0);
  n->usable &= count == 1 || count == s->out_features;
  s->activation.slope = PyArray_DATA(data);
  s->activation.slopes = count;
  if (gradients) s->grad_slope = gradient_of(n, slope, 1, &count);
}

/* The weight (units, depth) or (units, pieces, depth), the bias, and their gradients. */
static void read_product(struct network *n, struct fa_step *s, PyObject *weight, PyObject *bias, int axes,
                         int gradients) {
  int64_t shape[3] = {0};
  PyArrayObject *data = data_of_parameter(n, weight, axes);
  if (!data) return;
  for (int axis = 0; axis < axes; axis++) shape[axis] = PyArray_DIM(data, axis);
  n->usable &= shape[axes - 1] == depth_of(s) && shape[0] > 0;
  s->weight = PyArray_DATA(data);
  s->unit_stride = depth_of(s);
  s->out_features = shape[0];
  if (axes == 3) {
    n->usable &= shape[1] >= 1 && shape[1] <= MAX_PIECES;
    s->pieces = (int)shape[1];
  }
  s->bias = values_of(n, bias, axes - 1, shape);
  if (!gradients || !n->usable) return;
  s->grad_weight = gradient_of(n, weight, axes, shape);
  s->grad_bias = gradient_of(n, bias, axes - 1, shape);
}

static void read_layer_norm(struct network *n, struct fa_step *s, PyObject *eps, PyObject *weight, PyObject *bias,
                            int gradients) {
  s->eps = PyFloat_CheckExact(eps) ? PyFloat_AsDouble(eps) : -1;
  n->usable &= s->eps >= 0 && s->eps <= (n->type == NPY_FLOAT ? (double)FLT_MAX : DBL_MAX);
  n->usable &= weight != Py_None;
  s->weight = values_of(n, weight, 1, &s->in_features);
  s->bias = values_of(n, bias, 1, &s->in_features);
  if (!gradients || !n->usable) return;
  s->grad_weight = gradient_of(n, weight, 1, &s->in_features);
  s->grad_bias = gradient_of(n, bias, 1, &s->in_features);
}

static int is_bytes(const struct network *n, PyObject *object, int64_t count) {
  if (!is_exactly(n, object, ARRAY_TYPE)) return 0;
  PyArrayObject *array = (PyArrayObject *)object;
  return PyArray_TYPE(array) == NPY_UINT8 && can_be_read(array) && size_of(array) == count;
}

static void read_dropout(struct network *n, struct fa_step *s, PyObject *p, PyObject *rescale, PyObject *source) {
  double dropped = PyFloat_CheckExact(p) ? PyFloat_AsDouble(p) : -1;
  int64_t count = n->rows * s->in_features;
  n->usable &= dropped >= 0 && dropped < 1;
  uint64_t seed = 0;
  if (PyBool_Check(rescale))
    n->usable &= is_exactly(n, source, GENERATOR_TYPE);
  else if (!PyFloat_CheckExact(rescale))
    n->usable = 0;
  else if (PyLong_CheckExact(source))
    seed = PyLong_AsUnsignedLongLong(source);
  else
    n->usable &= is_bytes(n, source, count);
  s->factor = rescale == Py_True ? 1 / (1 - dropped) : rescale == Py_False ? 1 : PyFloat_AsDouble(rescale);
  n->drawings[n->drawing_count++] = (struct drawing){source, seed, dropped, n->count, count};
}

/* The rows on each side that the next step, a product, takes with each row. */
static void read_window(struct network *n, PyObject *size) {
  long window = PyLong_CheckExact(size) ? PyLong_AsLong(size) : 0;
  n->usable &= window >= 1 && window <= FA_MAX_WINDOW;
  n->window = n->usable ? (int)window : 0;
}

/* Reads (layer, object, names of its attributes), a step that takes `features`; the exception that may be set tells
 * that it is not usable. */
static void read_step(struct network *n, struct fa_step *s, PyObject *part, int64_t features, int precision,
                      int gradients) {
  PyObject *object = PyTuple_GetItem(part, 1), *attributes = PyTuple_GetItem(part, 2), *value[STEP_ATTRIBUTES];
  Py_ssize_t count = PyTuple_Size(attributes);
  for (Py_ssize_t i = 0; i < count && i < STEP_ATTRIBUTES; i++) {
    value[i] = PyObject_GetAttr(object, PyTuple_GetItem(attributes, i));
    if (!value[i]) return;
    hold(n, value[i]);
  }
  *s = (struct fa_step){.layer = integer(PyTuple_GetItem(part, 0)),
                        .precision = FA_HIGHEST,
                        .in_features = features,
                        .out_features = features,
                        .window = n->window,
                        .pieces = 1};
  n->usable &= !n->window || s->layer == FA_LINEAR || s->layer == FA_MAXOUT;
  n->window = 0;
  switch (s->layer) {
  case FA_LINEAR:
    s->precision = tier_of(n, value[0], precision);
    read_product(n, s, value[1], value[2], 2, gradients);
    read_sloped(n, s, value + 3, gradients);
    break;
  case FA_MAXOUT:
    s->precision = tier_of(n, value[0], precision);
    read_product(n, s, value[1], value[2], 3, gradients);
    break;
  case FA_ACTIVATION: read_sloped(n, s, value, gradients); break;
  case FA_LAYER_NORM: read_layer_norm(n, s, value[0], value[1], value[2], gradients); break;
  case FA_DROPOUT: read_dropout(n, s, value[0], value[1], value[2]); break;
  case FA_WINDOW: read_window(n, value[0]); break;
  default: break;
  }
}

/* Reads all the steps, a window and its product as one, and inference without its dropouts.  With `gradients`, the
 * places of the gradients too.  Returns 0 with an exception set. */
static int read_steps(struct network *n, PyObject *parts, int64_t features, int training, int precision,
                      int gradients) {
  Py_ssize_t described = PyTuple_Size(parts);
  int depth = 0;
  if (described < 0) return 0;
  if (!allocate(n, described)) {
    PyErr_NoMemory();
    return 0;
  }
  for (Py_ssize_t i = 0; i < described && n->usable; i++) {
    struct fa_step *s = &n->steps[n->count];
    read_step(n, s, PyTuple_GetItem(parts, i), features, precision, gradients);
    if (PyErr_Occurred()) {
      if (must_be_raised()) return 0;
      PyErr_Clear();
      n->usable = 0;
      return 1;
    }
    depth += (s->layer == FA_BRANCH) - (s->layer == FA_SUM);
    n->usable &= depth >= 0 && depth <= FA_MAX_BRANCHES;
    features = s->out_features;
    n->pointers[n->count] = s;
    n->count += s->layer != FA_WINDOW && (s->layer != FA_DROPOUT || training);
  }
  n->usable &= n->count > 0 && !n->window;
  return 1;
}

/* The sum of a residual has as many features as its branch. */
static int sums_fit(const struct network *n) {
  int64_t features[FA_MAX_BRANCHES];
  int depth = 0;
  for (int64_t i = 0; i < n->count; i++) {
    const struct fa_step *s = &n->steps[i];
    if (s->layer == FA_BRANCH) features[depth++] = s->in_features;
    if (s->layer == FA_SUM && features[--depth] != s->in_features) return 0;
  }
  return 1;
}

static int by_start(const void *a, const void *b) {
  const struct extent *first = a, *second = b;
  return (first->start > second->start) - (first->start < second->start);
}

/* Whether an array that is written overlaps another one. */
static int overlap(struct network *n) {
  qsort(n->extents, (size_t)n->extent_count, sizeof *n->extents, by_start);
  const char *end = NULL, *written_end = NULL; /* of the extents so far */
  for (int64_t i = 0; i < n->extent_count; i++) {
    const struct extent *e = &n->extents[i];
    if (e->start < (e->written ? end : written_end)) return 1;
    if (e->end > end) end = e->end;
    if (e->written && e->end > written_end) written_end = e->end;
  }
  return 0;
}

/* The network that the matrix x goes through; not usable unless x is a plain matrix with elements. */
static struct network network_of(PyObject *objects, PyObject *x) {
  struct network n = {.objects = objects, .usable = 1};
  if (!is_exactly(&n, x, ARRAY_TYPE)) {
    n.usable = 0;
    return n;
  }
  PyArrayObject *array = (PyArrayObject *)x;
  n.type = PyArray_TYPE(array);
  n.dtype = n.type == NPY_FLOAT ? FA_FLOAT32 : FA_FLOAT64;
  n.usable = (n.type == NPY_FLOAT || n.type == NPY_DOUBLE) && is_plain(&n, x, 0) && PyArray_NDIM(array) == 2 &&
             size_of(array) > 0;
  if (n.usable) n.rows = PyArray_DIM(array, 0);
  return n;
}

/* A new array; NULL with an exception set. */
static PyObject *new_array(const struct network *n, int64_t rows, int64_t columns, int dtype) {
  PyObject *shape =
      columns < 0 ? Py_BuildValue("(L)", (long long)rows) : Py_BuildValue("(LL)", (long long)rows, (long long)columns);
  PyObject *array = shape ? PyObject_CallFunctionObjArgs(object_of(n, EMPTY), shape, object_of(n, dtype), NULL) : NULL;
  Py_XDECREF(shape);
  return array;
}

static PyObject *new_matrix(const struct network *n, int64_t columns) {
  return new_array(n, n->rows, columns, n->type == NPY_FLOAT ? FLOAT32 : FLOAT64);
}

static PyObject *no_memory(void) {
  PyErr_SetString(PyExc_MemoryError, "fastact: no memory for the arrays between the layers");
  return NULL;
}

static PyObject *not_usable(struct network *n) {
  release(n);
  Py_RETURN_NONE;
}

static PyObject *raised(struct network *n) {
  release(n);
  return NULL;
}

/* ---- tapes: arrays of bytes, in which the tape starts at a cache line */

static struct tape *tape_in(PyObject *array) {
  return (struct tape *)aligned((size_t)PyArray_DATA((PyArrayObject *)array));
}

/* `given` if it is an array that holds a tape of that many bytes, else a new one; an owned reference. */
static PyObject *tape_array(const struct network *n, PyObject *given, int64_t bytes) {
  if (is_exactly(n, given, ARRAY_TYPE) && size_of((PyArrayObject *)given) >= bytes + 64) {
    Py_INCREF(given);
    return given;
  }
  return new_array(n, bytes + 64, -1, UINT8);
}

/* keep (n): whether a number of Generator.random(n, float32) is at least p. */
static void draw(bitgen_t *source, int64_t n, double p, uint8_t *keep) {
  const float dropped = (float)p;
  for (int64_t i = 0; i < n; i++)
    keep[i] = (float)(source->next_uint32(source->state) >> 8) * (1.0f / 16777216.0f) >= dropped;
}

/* Draws with the lock of the generator's source held, as NumPy does.  Returns 0 with an exception set. */
static int draw_from(PyObject *generator, int64_t n, double p, uint8_t *keep) {
  int drawn = 0;
  PyObject *source = PyObject_GetAttr(generator, names.bit_generator);
  PyObject *capsule = source ? PyObject_GetAttr(source, names.capsule) : NULL;
  PyObject *lock = capsule ? PyObject_GetAttr(source, names.lock) : NULL;
  bitgen_t *functions = lock ? PyCapsule_GetPointer(capsule, "BitGenerator") : NULL;
  PyObject *locked = functions ? PyObject_CallMethodObjArgs(lock, names.acquire, NULL) : NULL;
  if (locked) {
    Py_BEGIN_ALLOW_THREADS;
    draw(functions, n, p, keep);
    Py_END_ALLOW_THREADS;
    PyObject *unlocked = PyObject_CallMethodObjArgs(lock, names.release, NULL);
    drawn = unlocked != NULL;
    Py_XDECREF(unlocked);
  }
  Py_XDECREF(locked);
  Py_XDECREF(lock);
  Py_XDECREF(capsule);
  Py_XDECREF(source);
  return drawn;
}

static int draw_dropouts(const struct network *n, struct tape *tape, int threads) {
  for (int64_t i = 0; i < n->drawing_count; i++) {
    const struct drawing *d = &n->drawings[i];
    uint8_t *keep = tape_keeps(tape, d->step);
    if (PyLong_CheckExact(d->source)) {
      Py_BEGIN_ALLOW_THREADS;
      fa_dropout_keep(d->n, d->seed, d->p, keep, threads);
      Py_END_ALLOW_THREADS;
    } else if (is_bytes(n, d->source, d->n)) {
      memcpy(keep, PyArray_DATA((PyArrayObject *)d->source), (size_t)d->n);
    } else if (!draw_from(d->source, d->n, d->p, keep)) {
      return 0;
    }
  }
  return 1;
}

/* ---- the functions of numpy.h */

static PyObject *py_network_forward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 7)) return NULL;
  PyObject *parts = arguments[1], *x = arguments[2], *given = arguments[4], *tape_object = NULL;
  int training = PyObject_IsTrue(arguments[3]), precision = integer(arguments[5]), threads = integer(arguments[6]);
  struct network n = network_of(arguments[0], x);
  if (!n.usable) Py_RETURN_NONE;
  if (!read_steps(&n, parts, PyArray_DIM((PyArrayObject *)x, 1), training, precision, 0)) return raised(&n);
  if (!n.usable || !sums_fit(&n)) return not_usable(&n);
  PyObject *y_object = new_matrix(&n, n.steps[n.count - 1].out_features);
  if (!y_object) return raised(&n);
  const char *from = PyArray_DATA((PyArrayObject *)x);
  char *y = PyArray_DATA((PyArrayObject *)y_object);
  const struct call call = begin_call(n.dtype, FA_HIGHEST, threads);
  int itemsize = call.kernels->itemsize, status = FA_OK;
  if (training) {
    int64_t bytes = lay_out_tape(n.dtype, itemsize, n.rows, n.pointers, n.count, NULL);
    tape_object = tape_array(&n, given, bytes);
    if (tape_object) lay_out_tape(n.dtype, itemsize, n.rows, n.pointers, n.count, tape_in(tape_object));
    if (!tape_object || !draw_dropouts(&n, tape_in(tape_object), threads)) {
      Py_XDECREF(tape_object);
      Py_DECREF(y_object);
      return raised(&n);
    }
  }
  Py_BEGIN_ALLOW_THREADS;
  status = training ? train_forward(&call, n.pointers, tape_in(tape_object), from, y)
                    : infer(&call, n.pointers, n.count, n.rows, from, y);
  end_call(status);
  Py_END_ALLOW_THREADS;
  release(&n);
  PyObject *result = status == FA_OK ? (training ? PyTuple_Pack(2, y_object, tape_object) : y_object) : no_memory();
  if (training || status != FA_OK) Py_DECREF(y_object);
  Py_XDECREF(tape_object);
  return result;
}

static PyObject *py_network_backward(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 9)) return NULL;
  PyObject *parts = arguments[1], *x = arguments[2], *y = arguments[3], *grad_y = arguments[5];
  const struct tape *tape = tape_in(arguments[4]);
  int accumulate = PyObject_IsTrue(arguments[6]), needs_input_grad = PyObject_IsTrue(arguments[7]);
  int threads = integer(arguments[8]);
  struct network n = network_of(arguments[0], x);
  if (!n.usable) Py_RETURN_NONE;
  if (!read_steps(&n, parts, PyArray_DIM((PyArrayObject *)x, 1), 1, FA_HIGHEST, 1)) return raised(&n);
  if (!n.usable || !sums_fit(&n) || n.rows != tape->rows || !tape_fits(tape, n.dtype, n.pointers, n.count))
    return not_usable(&n);
  const int64_t shape[] = {n.rows, n.steps[n.count - 1].out_features};
  if (!is_plain(&n, y, 0) || !has_shape(y, 2, shape) || !is_plain(&n, grad_y, 0) || !has_shape(grad_y, 2, shape))
    return not_usable(&n);
  note_extent(&n, (PyArrayObject *)x, 0);
  note_extent(&n, (PyArrayObject *)y, 0);
  note_extent(&n, (PyArrayObject *)grad_y, 0);
  if (overlap(&n)) return not_usable(&n);
  PyObject *grad_x = needs_input_grad ? new_matrix(&n, n.steps[0].in_features) : Py_NewRef(Py_True);
  if (!grad_x) return raised(&n);
  const char *from = PyArray_DATA((PyArrayObject *)x), *to = PyArray_DATA((PyArrayObject *)y);
  const char *grad = PyArray_DATA((PyArrayObject *)grad_y);
  char *grad_from = needs_input_grad ? PyArray_DATA((PyArrayObject *)grad_x) : NULL;
  const struct call call = begin_call(n.dtype, FA_HIGHEST, threads);
  int status;
  Py_BEGIN_ALLOW_THREADS;
  status = end_call(train_backward(&call, n.pointers, tape, from, to, grad, grad_from, accumulate));
  Py_END_ALLOW_THREADS;
  int failed = status != FA_OK;
  if (failed) no_memory();
  for (int64_t i = 0; i < n.fresh_count && !failed; i++)
    failed = PyObject_SetAttr(n.fresh[2 * i], names.grad, n.fresh[2 * i + 1]) < 0;
  release(&n);
  if (!failed) return grad_x;
  Py_DECREF(grad_x);
  return NULL;
}

static PyObject *py_network_tape(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 1)) return NULL;
  const struct tape *tape = tape_in(arguments[0]);
  int64_t start = (const char *)tape - (const char *)PyArray_DATA((PyArrayObject *)arguments[0]);
  PyObject *list = PyList_New(0);
  for (int64_t i = 0; list && i < tape->count; i++) {
    const struct tape_step *s = &tape->steps[i];
    const struct saved saved = saved_by(&s->step, tape->dtype == FA_FLOAT32 ? 4 : 8);
    long long y = s->y ? start + s->y : -1, at = saved.columns ? start + s->saved : -1;
    PyObject *entry = Py_BuildValue("(LLLLiid)", y, (long long)s->step.out_features, at, (long long)saved.columns,
                                    saved.itemsize, s->step.precision, s->step.factor);
    if (!entry || PyList_Append(list, entry) < 0) Py_CLEAR(list);
    Py_XDECREF(entry);
  }
  return list;
}

static PyMethodDef methods[] = {
    {"network_forward", (PyCFunction)(void (*)(void))py_network_forward, METH_FASTCALL, NULL},
    {"network_backward", (PyCFunction)(void (*)(void))py_network_backward, METH_FASTCALL, NULL},
    {"network_tape", (PyCFunction)(void (*)(void))py_network_tape, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int add_network(PyObject *module) {
  names.data = PyUnicode_InternFromString("data");
  names.grad = PyUnicode_InternFromString("grad");
  names.grad_out = PyUnicode_InternFromString("grad_out");
  names.bit_generator = PyUnicode_InternFromString("bit_generator");
  names.capsule = PyUnicode_InternFromString("capsule");
  names.lock = PyUnicode_InternFromString("lock");
  names.acquire = PyUnicode_InternFromString("acquire");
  names.release = PyUnicode_InternFromString("release");
  if (!names.data || !names.grad || !names.grad_out || !names.bit_generator || !names.capsule || !names.lock ||
      !names.acquire || !names.release)
    return -1;
  return PyModule_AddFunctions(module, methods);
}
