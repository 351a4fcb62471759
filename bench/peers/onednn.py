"""oneDNN without a framework, from the package `onednn`: its C interface through cffi.

An inner product with packed weights and the activation as its post-op; for maxout a reduction follows.
The package's build runs on SYCL, whose device for the CPU is Intel's OpenCL.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import cffi
import numpy as np

from ..problem import Array, Problem
from ..shapes import MAXOUT
from .base import Contender, NotAvailable

# Enums and argument numbers of dnnl_types.h, which are part of its binary interface.
CPU, IN_ORDER, FLOAT32, INFERENCE = 1, 1, 3, 96
ANY_LAYOUT, ROW_MAJOR = 1, {1: 2, 2: 3, 3: 4}  # by dimensions
SOURCE, DESTINATION, WEIGHTS, BIAS = 1, 17, 33, 41
WEIGHTS_DESCRIPTOR = 131
ELTWISE = {"relu": 32, "gelu": 49}  # gelu with erf
REDUCTION_MAX = 196594

ffi = cffi.FFI()
ffi.cdef("""
typedef void *engine_t, *stream_t, *md_t, *memory_t, *pd_t, *primitive_t, *attr_t, *post_ops_t;
typedef struct { int arg; memory_t memory; } exec_arg_t;
int dnnl_engine_create(engine_t *, int kind, size_t index);
int dnnl_stream_create(stream_t *, engine_t, unsigned flags);
int dnnl_stream_wait(stream_t);
int dnnl_memory_desc_create_with_tag(md_t *, int ndims, const int64_t *dims, int dtype, int tag);
size_t dnnl_memory_desc_get_size(md_t);
int dnnl_memory_create(memory_t *, md_t, engine_t, void *handle);
int dnnl_post_ops_create(post_ops_t *);
int dnnl_post_ops_append_eltwise(post_ops_t, int kind, float alpha, float beta);
int dnnl_primitive_attr_create(attr_t *);
int dnnl_primitive_attr_set_post_ops(attr_t, post_ops_t);
int dnnl_inner_product_forward_primitive_desc_create(pd_t *, engine_t, int prop, md_t x, md_t weight,
                                                     md_t bias, md_t y, attr_t);
int dnnl_reduction_primitive_desc_create(pd_t *, engine_t, int kind, md_t x, md_t y, float p, float eps,
                                         attr_t);
int dnnl_reorder_primitive_desc_create(pd_t *, md_t x, engine_t, md_t y, engine_t, attr_t);
md_t dnnl_primitive_desc_query_md(pd_t, int what, int index);
int dnnl_primitive_create(primitive_t *, pd_t);
int dnnl_primitive_execute(primitive_t, stream_t, int nargs, const exec_arg_t *);
""")


def _load() -> Any:
    """The library of the package, which finds neither what it needs nor the OpenCL driver by itself.

    Raises ImportError where one of them is not there.
    """
    folder = Path(sys.prefix, "lib")
    os.environ["OCL_ICD_FILENAMES"] = str(folder / "libintelocl.so")
    try:
        for name in ("intlc.so.5", "irng.so", "imf.so", "svml.so", "tbb.so.12", "sycl.so.9", "OpenCL.so.1"):
            ctypes.CDLL(str(folder / f"lib{name}"))
        return ffi.dlopen(str(folder / "libdnnl.so.3"))
    except OSError as error:
        raise ImportError(str(error).replace(f"{folder}/", "")) from error  # pages show it


dnnl = _load()


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"oneDNN: status {status}")


def _new(create: Any, *arguments: Any) -> Any:
    """What a function creates in its first argument."""
    created = ffi.new("void **")
    _check(create(created, *arguments))
    return created[0]


def _layout(*sizes: int, tag: int | None = None) -> Any:
    tag = ROW_MAJOR[len(sizes)] if tag is None else tag
    return _new(dnnl.dnnl_memory_desc_create_with_tag, len(sizes), sizes, FLOAT32, tag)


class OneDnn(Contender):
    @classmethod
    def require(cls) -> None:
        try:
            _new(dnnl.dnnl_engine_create, CPU, 0)
        except RuntimeError as error:
            raise NotAvailable(f"Intel's OpenCL has no device for this CPU ({error})") from error

    def __init__(self, problem: Problem, threads: int) -> None:
        rows, in_features, out_features, pieces, activation = problem.shape
        units = problem.shape.units
        self._engine = _new(dnnl.dnnl_engine_create, CPU, 0)
        self._stream = _new(dnnl.dnnl_stream_create, self._engine, IN_ORDER)
        self._arrays: list[Array] = []  # oneDNN has their addresses
        x, z = _layout(rows, in_features), _layout(rows, units)
        weight, bias = _layout(units, in_features), _layout(units)

        attributes = _new(dnnl.dnnl_primitive_attr_create)
        if activation != MAXOUT:
            post_ops = _new(dnnl.dnnl_post_ops_create)
            _check(dnnl.dnnl_post_ops_append_eltwise(post_ops, ELTWISE[activation], 0, 0))
            _check(dnnl.dnnl_primitive_attr_set_post_ops(attributes, post_ops))
        any_weight = _layout(units, in_features, tag=ANY_LAYOUT)
        product = _new(
            dnnl.dnnl_inner_product_forward_primitive_desc_create,
            *(self._engine, INFERENCE, x, any_weight, bias, z, attributes),
        )
        packed = dnnl.dnnl_primitive_desc_query_md(product, WEIGHTS_DESCRIPTOR, 0)
        packed_memory = self._memory(packed, np.empty(dnnl.dnnl_memory_desc_get_size(packed), np.uint8))
        packing = _new(
            dnnl.dnnl_reorder_primitive_desc_create, weight, self._engine, packed, self._engine, ffi.NULL
        )
        source = self._memory(weight, problem.weight)
        self._run([self._call(packing, {SOURCE: source, DESTINATION: packed_memory})])

        self._y = np.empty((rows, units), np.float32)
        z_memory = self._memory(z, self._y)
        arguments = {
            SOURCE: self._memory(x, problem.x),
            WEIGHTS: packed_memory,
            BIAS: self._memory(bias, problem.bias),
            DESTINATION: z_memory,
        }
        self._calls = [self._call(product, arguments)]
        if activation == MAXOUT:
            groups, best = _layout(rows, out_features, pieces), _layout(rows, out_features, 1)
            largest = _new(
                dnnl.dnnl_reduction_primitive_desc_create,
                *(self._engine, REDUCTION_MAX, groups, best, 0, 0, ffi.NULL),
            )
            source = self._memory(groups, self._y)
            self._y = np.empty((rows, out_features), np.float32)
            self._calls.append(
                self._call(largest, {SOURCE: source, DESTINATION: self._memory(best, self._y)})
            )

    def _memory(self, layout: Any, array: Array) -> Any:
        self._arrays.append(array)
        address = ffi.cast("void *", array.ctypes.data)
        return _new(dnnl.dnnl_memory_create, layout, self._engine, address)

    def _call(self, descriptor: Any, memories: dict[int, Any]) -> tuple[Any, ...]:
        """The arguments of dnnl_primitive_execute."""
        arguments = ffi.new("exec_arg_t[]", list(memories.items()))
        return _new(dnnl.dnnl_primitive_create, descriptor), self._stream, len(memories), arguments

    def _run(self, calls: list[tuple[Any, ...]]) -> None:
        for call in calls:
            _check(dnnl.dnnl_primitive_execute(*call))
        _check(dnnl.dnnl_stream_wait(self._stream))

    def forward(self) -> Array:
        self._run(self._calls)
        return self._y
