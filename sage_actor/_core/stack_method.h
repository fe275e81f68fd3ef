/* Methods of extension types that take their arguments as they lie on the interpreter's stack: for a plain message neither a tuple nor a
   dictionary is made, which a Cython method with *arguments and **options would do. */
#ifndef SAGE_STACK_METHOD_H
#define SAGE_STACK_METHOD_H

#include <Python.h>

static int sage_add_method(PyObject *type, const char *name, void *function, const char *text) {
    static PyMethodDef methods[8];
    static int count = 0;
    PyObject *descriptor;
    int failed;
    PyMethodDef *method = &methods[count++];
    method->ml_name = name;
    method->ml_meth = (PyCFunction) function;
    method->ml_flags = METH_FASTCALL | METH_KEYWORDS;
    method->ml_doc = text;
    descriptor = PyDescr_NewMethod((PyTypeObject *) type, method);
    if (descriptor == NULL) return -1;
    failed = PyDict_SetItemString(((PyTypeObject *) type)->tp_dict, name, descriptor);
    Py_DECREF(descriptor);
    PyType_Modified((PyTypeObject *) type);
    return failed;
}

#endif
