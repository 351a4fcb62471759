/* Reads the arguments of a call from NumPy: arrays, numbers, and the arrays of parameters. */
#ifndef FA_ARRAYS_H
#define FA_ARRAYS_H

#include <pyconfig.h>
#ifndef Py_GIL_DISABLED /* a free-threaded Python has no limited API before 3.15 */
#define Py_LIMITED_API 0x030a0000
#endif
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <Python.h>
#include <numpy/ndarraytypes.h>

#include "api/abi.h"

/* Only fields of NumPy arrays are read, which needs no call into NumPy. */

/* The arrays of one call.  Their fields are read while the GIL is held. */
struct arrays {
  PyObject *const *arguments;
  int type;    /* NPY_FLOAT or NPY_DOUBLE: the type of the array that the sizes come from */
  int dtype;   /* the enum fa_dtype of `type` */
  int changed; /* an array is not what the caller has checked: another thread has changed it since */
};

static inline PyArrayObject *array_of(const struct arrays *c, int index) {
  return (PyArrayObject *)c->arguments[index];
}

static inline int is_none(const struct arrays *c, int index) { return c->arguments[index] == Py_None; }

static inline int64_t size_of(const PyArrayObject *array) {
  int64_t count = 1;
  for (int axis = 0; axis < PyArray_NDIM(array); axis++) count *= PyArray_DIM(array, axis);
  return count;
}

static inline int can_be_read(PyArrayObject *array) {
  const int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
  return (PyArray_FLAGS(array) & flags) == flags;
}

/* The call whose dtype is that of the array `index`. */
static inline struct arrays arrays_of(PyObject *const *arguments, int index) {
  struct arrays c = {.arguments = arguments};
  c.type = PyArray_TYPE(array_of(&c, index));
  c.dtype = c.type == NPY_FLOAT ? FA_FLOAT32 : FA_FLOAT64;
  c.changed = c.type != NPY_FLOAT && c.type != NPY_DOUBLE;
  return c;
}

/* The shape of the array `index` -> shape [axes] */
static inline void read_shape(struct arrays *c, int index, int axes, int64_t *shape) {
  PyArrayObject *array = array_of(c, index);
  c->changed |= PyArray_NDIM(array) != axes;
  for (int axis = 0; axis < axes; axis++) shape[axis] = c->changed ? 0 : PyArray_DIM(array, axis);
}

/* The memory of an array of `type` and of the shape (a), (a, b) or (a, b, third). */
static inline void *data_of(struct arrays *c, int index, int type, int axes, int64_t a, int64_t b, int64_t third) {
  PyArrayObject *array = array_of(c, index);
  const int64_t wanted[] = {a, b, third};
  int fits = PyArray_TYPE(array) == type && PyArray_NDIM(array) == axes && can_be_read(array);
  for (int axis = 0; fits && axis < axes; axis++) fits = PyArray_DIM(array, axis) == wanted[axis];
  c->changed |= !fits;
  return PyArray_DATA(array);
}

static inline void *vector(struct arrays *c, int index, int64_t n) { return data_of(c, index, c->type, 1, n, 0, 0); }

static inline void *matrix(struct arrays *c, int index, int64_t rows, int64_t columns) {
  return data_of(c, index, c->type, 2, rows, columns, 0);
}

static inline void *bytes(struct arrays *c, int index, int64_t rows, int64_t columns) {
  return data_of(c, index, NPY_UINT8, 2, rows, columns, 0);
}

static inline void *cube(struct arrays *c, int index, int64_t a, int64_t b, int64_t third) {
  return data_of(c, index, c->type, 3, a, b, third);
}

/* The memory of an array of `type` and any shape, with n elements. */
static inline void *elements_of(struct arrays *c, int index, int type, int64_t n) {
  PyArrayObject *array = array_of(c, index);
  c->changed |= PyArray_TYPE(array) != type || size_of(array) != n || !can_be_read(array);
  return PyArray_DATA(array);
}

static inline void *elements(struct arrays *c, int index, int64_t n) { return elements_of(c, index, c->type, n); }

/* vector, matrix, bytes, cube or elements of an argument that may be None; NULL for None. */
#define OR_NONE(kind, c, index, ...) (is_none(c, index) ? NULL : kind(c, index, __VA_ARGS__))

static inline int int_of(const struct arrays *c, int index) { return (int)PyLong_AsLong(c->arguments[index]); }
static inline int64_t long_of(const struct arrays *c, int index) { return PyLong_AsLongLong(c->arguments[index]); }
static inline int flag_of(const struct arrays *c, int index) { return PyObject_IsTrue(c->arguments[index]); }
static inline double number_of(const struct arrays *c, int index) { return PyFloat_AsDouble(c->arguments[index]); }

/* A slope is None, or has one value, or one for each feature. */
struct slope {
  const void *data;
  int64_t count;
};

static inline struct slope slope_of(struct arrays *c, int index, int64_t features) {
  if (is_none(c, index)) return (struct slope){NULL, 0};
  int64_t count = size_of(array_of(c, index));
  if (count != 1) count = features;
  return (struct slope){vector(c, index, count), count};
}

/* (rows, columns), where all axes but the last are the rows; a single number is a row */
struct rows {
  int64_t rows, columns;
};

static inline struct rows rows_of(const PyArrayObject *array) {
  const int axes = PyArray_NDIM(array);
  const int64_t columns = axes ? PyArray_DIM(array, axes - 1) : 1;
  return (struct rows){columns ? size_of(array) / columns : 0, columns};
}

/* Both functions return whether the call cannot go on; then an exception is set. */
static inline int wrong_count(Py_ssize_t count, Py_ssize_t wanted) {
  if (count == wanted) return 0;
  PyErr_Format(PyExc_TypeError, "got %zd arguments, wanted %zd", count, wanted);
  return 1;
}

static inline int failed(const struct arrays *c) {
  if (PyErr_Occurred()) return 1;
  if (c->changed) PyErr_SetString(PyExc_ValueError, "an array was changed by another thread during the call");
  return c->changed;
}

/* Whether the exception that is set is an interrupt or a lack of memory, and not an error of what was asked for. */
static inline int must_be_raised(void) {
  return PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception);
}

/* The attribute of `object` called `name` -> an owned reference, or NULL if it has none; then no exception is set but
 * one that must be raised. */
static inline PyObject *attribute(PyObject *object, PyObject *name) {
  PyObject *value = PyObject_GetAttr(object, name);
  if (!value && !must_be_raised()) PyErr_Clear();
  return value;
}

/* Adds the functions of network.c to the module -> 0, or -1 with an exception set. */
int add_network(PyObject *module);

/* Adds the functions of optimizers.c to the module -> 0, or -1 with an exception set. */
int add_optimizers(PyObject *module);

/* The same of facts.c. */
int add_facts(PyObject *module);

#endif
