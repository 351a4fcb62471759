"""Arrays beside pages that nobody may touch, and what a process has allocated.

A region is a number of pages between two guard pages, where each access ends the process.  An array lies
against one of the two, or inside, at a place that no vector is aligned to.  The MARGIN bytes beside an array
that are no guard page hold a canary.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

PAGE = mmap.PAGESIZE
MARGIN = 64
CANARY = bytes([0xA5]) * MARGIN
PAGES = (1, 2, 8, 32, 128, 512, 2048)  # of the sizes of regions; larger arrays have no guard pages
PLACES = ("end", "start", "inside")
_NONE, _READ, _READ_WRITE = 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class Region(NamedTuple):
    """`size` bytes of memory between guard pages."""

    memory: mmap.mmap  # begins with a guard page
    address: int  # of the first byte behind that
    size: int


class Placed(NamedTuple):
    """An array in a region, and where its bytes begin and end there."""

    region: Region
    begin: int
    end: int
    array: Array


def _protect(address: int, size: int, protection: int) -> None:
    if _libc.mprotect(address, size, protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def _make_region(pages: int) -> Region:
    size = pages * PAGE
    memory = mmap.mmap(-1, size + 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + PAGE
    _protect(address - PAGE, PAGE, _NONE)
    _protect(address + size, PAGE, _NONE)
    return Region(memory, address, size)


class Pool:
    """Regions, each used again after `reset`."""

    def __init__(self) -> None:
        self._free: dict[int, list[Region]] = {pages: [] for pages in PAGES}
        self._placed: list[Placed] = []
        self._read_only: list[Region] = []

    def empty(self, shape: tuple[int, ...], dtype: Any, place: str = "end") -> Array:
        """An array of any values at `place`, one of PLACES; on the heap if too large for a region."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        pages = next((pages for pages in PAGES if pages * PAGE >= size + 4 * MARGIN), None)
        if pages is None:
            return np.empty(shape, dtype)
        region = self._free[pages].pop() if self._free[pages] else _make_region(pages)
        if place == "end":
            begin = region.size - size
        elif place == "start":
            begin = 0
        else:
            begin = MARGIN + dtype.itemsize * (1 + size // dtype.itemsize % 7)
        end, view = begin + size, memoryview(region.memory)
        for first, last in ((max(0, begin - MARGIN), begin), (end, min(region.size, end + MARGIN))):
            view[PAGE + first : PAGE + last] = CANARY[: last - first]
        array = np.ndarray(shape, dtype, region.memory, PAGE + begin)
        self._placed.append(Placed(region, begin, end, array))
        return array

    def copy(self, values: Array, place: str = "end", read_only: bool = False) -> Array:
        """The same numbers in a region, whose pages a write ends the process on if `read_only`."""
        array = self.empty(values.shape, values.dtype, place)
        array[...] = values
        placed = self._placed[-1] if self._placed else None
        if read_only and placed is not None and placed.array is array:
            _protect(placed.region.address, placed.region.size, _READ)
            self._read_only.append(placed.region)
            array.flags.writeable = False
        return array

    def check(self) -> None:
        """AssertionError where a byte beside an array has changed."""
        for region, begin, end, array in self._placed:
            for first, last in ((max(0, begin - MARGIN), begin), (end, min(region.size, end + MARGIN))):
                if region.memory[PAGE + first : PAGE + last] != CANARY[: last - first]:
                    where = "before" if last == begin else "behind"
                    raise AssertionError(
                        f"memory {where} an array of {array.dtype} {array.shape} was written"
                    )

    def reset(self) -> None:
        """All regions are free again: arrays in them must not be used any more."""
        for region in self._read_only:
            _protect(region.address, region.size, _READ_WRITE)
        self._read_only.clear()
        for placed in self._placed:
            self._free[placed.region.size // PAGE].append(placed.region)
        self._placed.clear()


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


_mallinfo = getattr(_libc, "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _MallocInfo


def allocated() -> tuple[int, int]:
    """The blocks of Python's allocator in use, and the bytes of malloc (0 without glibc's mallinfo2)."""
    blocks = sys.getallocatedblocks()
    if _mallinfo is None:
        return blocks, 0
    info = _mallinfo()
    return blocks, int(info.uordblks + info.hblkhd)


def resident() -> int:
    """The bytes of memory that the process has in use; 0 without Linux's /proc."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0
