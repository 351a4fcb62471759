#include "api/arrays.h"

/* Whether object's attribute or item `key` is `value`. */
static int holds(PyObject *object, PyObject *key, PyObject *value) {
  if (key == Py_None) return PyDict_Size(object) == 0;
  if (PyDict_Check(object)) {
    PyObject *found = PyDict_GetItemWithError(object, key);
    return found ? found == value : value == Py_Ellipsis;
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

static PyMethodDef methods[] = {
    {"facts_hold", (PyCFunction)(void (*)(void))py_facts_hold, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int add_facts(PyObject *module) { return PyModule_AddFunctions(module, methods); }
