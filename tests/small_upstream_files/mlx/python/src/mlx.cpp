#include <Python.h>

#include "mlx/array.h"

#define STRINGIFY(x) #x
#define TOSTRING(x) STRINGIFY(x)

namespace mx = mlx::core;

// edition of the bindings
constexpr int edition = 1;

static PyObject* core_cost(PyObject*, PyObject*) {
  return PyLong_FromLong(mx::cost());
}

static PyObject* core_marker(PyObject*, PyObject*) {
  auto text = mx::marker() + " mlx.cpp=" + std::to_string(edition);
  return PyUnicode_FromString(text.c_str());
}

static PyObject* core_describe(PyObject*, PyObject*) {
  return PyUnicode_FromString(mx::describe().c_str());
}

static PyObject* core_spin(PyObject*, PyObject* argument) {
  long steps = PyLong_AsLong(argument);
  if (steps == -1 && PyErr_Occurred()) {
    return nullptr;
  }
  double result;
  Py_BEGIN_ALLOW_THREADS;
  result = mx::spin(steps);
  Py_END_ALLOW_THREADS;
  return PyFloat_FromDouble(result);
}

static PyMethodDef methods[] = {
    {"cost", core_cost, METH_NOARGS, "The work of one step of spin."},
    {"marker", core_marker, METH_NOARGS, "The edition of every file that was compiled."},
    {"describe", core_describe, METH_NOARGS, "The backends, as JSON."},
    {"spin", core_spin, METH_O, "Burn n * cost() rounds of the CPU."},
    {nullptr, nullptr, 0, nullptr},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "core", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit_core() {
  PyObject* module = PyModule_Create(&definition);
  if (module == nullptr) {
    return nullptr;
  }
  PyModule_AddStringConstant(module, "__version__", TOSTRING(_VERSION_));
  return module;
}
