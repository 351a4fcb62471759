"""Writing and strict reading of .npz files: shapes are checked first, and every checksum is compared.

`numpy.load` allocates memory for any shape that a header gives, and may stop before the end of a member,
where its checksum is compared.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:  # imported in the functions that use it, to keep `import fastact` quick
    from zipfile import ZipFile, ZipInfo

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 20  # bytes read at once
_DEFLATE_RATIO = 1032  # the most bytes that deflate can pack into one
# Limits on the memory that a small file takes: arrays unpack to at most this many bytes, or this multiple of
# the file's size, whichever is more.
_UNPACKED_BYTES, _UNPACKED_RATIO = 1 << 24, 100
_HEADER_BYTES = 10000  # the longest header of an array, which NumPy limits to as much
_LOCAL_HEADER = "<4x2xHH2x2x12xHH"  # flags, method, sizes of the name and of the extra field
_DESCRIPTOR = 24  # most bytes that follow the data of a member with flag 8


class Entry(NamedTuple):
    """An array in the file, as its header describes it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    start: int  # bytes before the data
    info: ZipInfo


class Npz:
    """An .npz file that is open for reading.

    Attributes:
        entries: the header of each array, by name without ".npy".

    Raises ValueError, here and in `read`, for damaged files; the message names the array.
    """

    def __init__(self, stream: BinaryIO) -> None:
        import zipfile

        with _damaged():
            self._archive = zipfile.ZipFile(stream)
            _check_layout(stream, self._archive)
        self.entries: dict[str, Entry] = {}
        for info in self._archive.infolist():
            name = info.orig_filename.removesuffix(".npy")
            if name == info.orig_filename or "\0" in name:
                raise ValueError(f"has the member {name!r}, which fastact.save did not write")
            if name in self.entries:
                raise ValueError(f"{name}: got two arrays of this name, wanted one")
            with _damaged(name):
                self.entries[name] = self._header(info)

    def _header(self, info: ZipInfo) -> Entry:
        import io
        import zipfile

        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"got compression method {info.compress_type}, wanted 0 (stored) or 8 (deflated)"
            )
        stored = info.compress_type == zipfile.ZIP_STORED
        if (stored and info.file_size != info.compress_size) or (
            info.file_size > info.compress_size * _DEFLATE_RATIO
        ):
            raise ValueError(f"got {info.compress_size} bytes in the file, wanted {info.file_size}")
        with self._archive.open(info) as member:
            begin = io.BytesIO(member.read(12 + _HEADER_BYTES))
        version = np.lib.format.read_magic(begin)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"got .npy format {version}, wanted (1, 0) or (2, 0)")
        length = int.from_bytes(begin.getvalue()[8 : 10 if version == (1, 0) else 12], "little")
        if length > _HEADER_BYTES:
            raise ValueError(f"got a header of {length} bytes, wanted at most {_HEADER_BYTES}")
        try:
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(begin)
            else:
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(begin)
        except MemoryError as error:  # Python's parser, for a header that nests too deep
            raise ValueError("got a header that cannot be parsed") from error
        start = begin.tell()
        if dtype.hasobject or dtype.subdtype is not None:
            raise ValueError(f"got dtype {dtype}, wanted numbers or text")
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"got shape {shape}")
        wanted = math.prod(shape) * dtype.itemsize
        if info.file_size - start != wanted:
            raise ValueError(
                f"got {info.file_size - start} bytes, wanted {wanted} for {dtype} of shape {shape}"
            )
        return Entry(shape, dtype, "F" if fortran else "C", start, info)

    def check_sizes(self, stream: BinaryIO) -> None:
        """The arrays do not unpack to far more memory than the size of the file justifies."""
        size = stream.seek(0, 2)
        unpacked = sum(entry.info.file_size for entry in self.entries.values())
        if unpacked > max(_UNPACKED_BYTES, size * _UNPACKED_RATIO):
            raise ValueError(f"{size} bytes unpack to {unpacked}, more than {_UNPACKED_RATIO} times as many")

    def read(self, name: str) -> Array:
        """The array `name`."""
        entry = self.entries[name]
        data = np.empty(entry.info.file_size - entry.start, np.uint8)
        with _damaged(name), self._archive.open(entry.info) as member:
            member.read(entry.start)
            filled = 0
            while filled < len(data):
                chunk = member.read(min(_CHUNK, len(data) - filled))
                if not chunk:  # a deflated member that ends before its size
                    raise ValueError(f"got {filled} bytes, wanted {len(data)}")
                data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
                filled += len(chunk)
            member.read(1)  # zipfile compares the checksum at the end
            return np.ndarray(entry.shape, entry.dtype, data, order=entry.order)


@contextlib.contextmanager
def _damaged(name: str = "") -> Iterator[None]:
    """Turn the many exceptions that zipfile, zlib, struct and ast raise for damaged bytes into ValueError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        cause = f"{name}{': ' if name else ''}{error or type(error).__name__}"
        raise ValueError(f"not a readable .npz file: {cause}") from error


def _check_layout(stream: BinaryIO, archive: ZipFile) -> None:
    """The members of the directory fill the file without overlaps or gaps.

    The two headers of each member agree on its flags and its compression method.
    """
    end, slack = 0, 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        _check_gap(info.header_offset - end, slack)
        stream.seek(info.header_offset)
        flags, method, *sizes = struct.unpack(_LOCAL_HEADER, stream.read(struct.calcsize(_LOCAL_HEADER)))
        if (flags, method) != (info.flag_bits, info.compress_type):
            raise ValueError(f"{info.filename}: got two different headers")
        end = stream.tell() + sum(sizes) + info.compress_size
        slack = _DESCRIPTOR if flags & 8 else 0
    _check_gap(archive.start_dir - end, slack)
    stream.seek(-22 - len(archive.comment), 2)
    if stream.read(4) != b"PK\5\6":
        raise ValueError("got bytes after the archive's end")


def _check_gap(gap: int, slack: int) -> None:
    if not 0 <= gap <= slack:
        raise ValueError("got a directory whose members do not fill the file")


def write(stream: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write what `numpy.savez` writes.

    The archive is closed after an error too.  That of `numpy.savez` may write again in its destructor, which
    prints the error that it then meets.
    """
    import zipfile

    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def check_storable(name: str, array: Array) -> None:
    """TypeError where the .npy format would change the array's dtype."""
    import io

    fmt = np.lib.format
    try:
        header = io.BytesIO()
        fmt.write_array_header_2_0(header, fmt.header_data_from_array_1_0(array))
        header.seek(fmt.MAGIC_LEN)
        _, _, dtype = fmt.read_array_header_2_0(header)
    except ValueError:  # too many field names, or names outside Latin-1
        dtype = None
    if array.dtype.hasobject or dtype != array.dtype:
        raise TypeError(f"{name}: got dtype {array.dtype}, wanted numbers or text")
