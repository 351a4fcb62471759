#include "api/arrays.h"

/* Whether object's attribute or item `key` is `value`. */
static int holds(PyObject *object, PyObject *key, PyObject *value) {
  if (key == Py_None) return PyDict_Size(object) == 0;
  if (PyDict_Check(object)) {
    PyObject *found = PyDict_GetItemWithError(object, key);
    return found ? found == value : value == Py_Ellipsis && !PyErr_Occurred();
  }
  PyObject *found = attribute(object, key);
  Py_XDECREF(found);
  return found == value;
}

static PyObject *py_facts_hold(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 1)) return NULL;
  PyObject *facts = arguments[0];
  Py_ssize_t size = PyTuple_Size(facts), i = 0;
  while (i + 2 < size && holds(PyTuple_GetItem(facts, i), PyTuple_GetItem(facts, i + 1), PyTuple_GetItem(facts, i + 2)))
    i += 3;
  if (PyErr_Occurred()) return NULL;
  return PyBool_FromLong(i >= size);
}

/* The exchange API of DLPack 1, which PyTorch has: only what is read here. */
struct dl_tensor {
  void *data;
  int32_t device_type, device_id, axes;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct dl_exchange {
  uint32_t major, minor;
  void *older, *allocate, *from_object, *to_object;
  int (*view)(void *object, struct dl_tensor *to);
  void *stream;
};

enum { DL_MAJOR = 1, DL_CPU = 1, DL_FLOAT = 2 };

static int is_contiguous(const struct dl_tensor *t) {
  int64_t stride = 1;
  for (int axis = t->axes - 1; axis >= 0; axis--) {
    if (t->shape[axis] != 1 && t->strides[axis] != stride) return 0;
    stride *= t->shape[axis];
  }
  return 1;
}

/* Whether the tensor is the memory of the array, of its type and shape. */
static int is_memory_of(const struct dl_exchange *api, PyObject *tensor, PyArrayObject *array) {
  struct dl_tensor t;
  if (api->view(tensor, &t)) {
    PyErr_Clear();
    return 0;
  }
  int type = t.bits == 32 ? NPY_FLOAT : NPY_DOUBLE;
  if ((char *)t.data + t.byte_offset != PyArray_DATA(array) || t.device_type != DL_CPU || t.code != DL_FLOAT ||
      (t.bits != 32 && t.bits != 64) || t.lanes != 1 || type != PyArray_TYPE(array) || t.axes != PyArray_NDIM(array) ||
      !is_contiguous(&t))
    return 0;
  for (int axis = 0; axis < t.axes; axis++)
    if (t.shape[axis] != PyArray_DIM(array, axis)) return 0;
  return 1;
}

static PyObject *py_memory_holds(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
  (void)module;
  if (wrong_count(count, 4)) return NULL;
  PyObject *tensors = arguments[1], *known = arguments[2], *arrays = arguments[3];
  const struct dl_exchange *api = PyCapsule_GetPointer(arguments[0], "dlpack_exchange_api");
  Py_ssize_t size = PyList_Size(tensors), i = 0;
  if (!api || size < 0) return NULL;
  if (api->major != DL_MAJOR || !api->view || size != PyList_Size(known) || size != PyList_Size(arrays))
    Py_RETURN_FALSE;
  for (; i < size; i++) {
    PyObject *tensor = PyList_GetItem(tensors, i);
    if (tensor != PyList_GetItem(known, i)) break;
    if (tensor != Py_None && !is_memory_of(api, tensor, (PyArrayObject *)PyList_GetItem(arrays, i))) break;
  }
  return PyBool_FromLong(i == size);
}

static PyMethodDef methods[] = {
    {"facts_hold", (PyCFunction)(void (*)(void))py_facts_hold, METH_FASTCALL, NULL},
    {"memory_holds", (PyCFunction)(void (*)(void))py_memory_holds, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int add_facts(PyObject *module) { return PyModule_AddFunctions(module, methods); }
