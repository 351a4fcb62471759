"""Thinc's table of BLAS functions, with fastact's sgemm, saxpy and daxpy in it.

spaCy's parser and entity recogniser call BLAS through the table that `Ops.cblas()` gives them.  Thinc
declares setters of its entries in `thinc/backends/cblas.pxd`, for Cython alone.  Cython publishes each of
them as a capsule, whose name is the setter's signature in C.
"""

import ctypes
import functools
from typing import Any

from thinc.backends import cblas

_CAPSULE = (ctypes.py_object, ctypes.c_char_p)  # a capsule, and its name
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, *_CAPSULE)(("PyCapsule_IsValid", ctypes.pythonapi))
_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, *_CAPSULE)(("PyCapsule_GetPointer", ctypes.pythonapi))
_Setter = ctypes.PYFUNCTYPE(None, ctypes.py_object, ctypes.c_void_p)

_TYPE = "__pyx_{}_5thinc_8backends_5cblas_{}"  # how Cython names the types of Thinc's module
_SIGNATURE = f"void (struct {_TYPE.format('obj', 'CBlas')} *, {_TYPE.format('t', '{}_ptr')})"


@functools.cache
def table(sgemm: int, saxpy: int, daxpy: int) -> Any:
    """A `CBlas` of the functions at three addresses.

    A function whose setter is absent, or has another signature than in Thinc 8.3, stays Thinc's own.
    """
    made = cblas.CBlas()
    setters = getattr(cblas, "__pyx_capi__", {})
    for name, function in (("sgemm", sgemm), ("saxpy", saxpy), ("daxpy", daxpy)):
        setter, signature = setters.get(f"set_{name}"), _SIGNATURE.format(name).encode()
        if setter is not None and _is_valid(setter, signature):
            _Setter(_address(setter, signature))(made, function)
    return made
