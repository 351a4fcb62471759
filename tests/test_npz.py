"""Damaged and foreign .npz files: refused by name, or read as they were saved; never anything else."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest

import fastact as fa

KINDS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


def objects(seed, kinds=("SFC64",)):
    model = fa.PReLU(slope=seed)
    generators = {kind: np.random.Generator(getattr(np.random, kind)(seed)) for kind in kinds}
    return {"model": model, "optimizer": fa.SGD(model.parameters(), lr=seed)} | generators


def snapshot(named):
    return [
        str(obj.bit_generator.state) if isinstance(obj, np.random.Generator) else str(obj.state_dict())
        for obj in named.values()
    ]


def bits(states):
    """Every bit of what was loaded."""
    return {
        f"{group}.{name}": (array.tobytes(), array.dtype.str, array.shape)
        for group, state in states.items()
        for name, array in state.items()
    }


def outcome(path, wanted, **into):
    """Whether the file loads; then it has the wanted bits, else the error names it."""
    try:
        states = fa.load(path, **into)
    except ValueError as error:
        if str(error).startswith(f"{path}: "):
            return False
        raise
    assert bits(states) == wanted
    return True


@pytest.mark.parametrize(("kinds", "step"), [(("SFC64",), 13), (KINDS, 1009)])
def test_flipped_bit_is_refused_or_harmless(tmp_path, kinds, step):
    """Every `step`th bit: all of them were flipped too, in minutes."""
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1, kinds))
    wanted, saved = bits(fa.load(path)), snapshot(objects(1, kinds))
    into = objects(2, kinds)
    before = snapshot(into)
    whole = path.read_bytes()
    counts = [0, 0]
    with open(path, "r+b", buffering=0) as file:
        for bit in range(0, 8 * len(whole), step):
            at = bit // 8
            os.pwrite(file.fileno(), bytes([whole[at] ^ 1 << bit % 8]), at)
            loaded = outcome(path, wanted, **into)
            counts[loaded] += 1
            assert snapshot(into) == (saved if loaded else before)
            if loaded:
                into = objects(2, kinds)
            os.pwrite(file.fileno(), whole[at : at + 1], at)
    assert counts[False] > counts[True] > 0  # the second are dates, versions and sizes that stand there twice


def test_truncated_file_is_refused_at_every_length(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file"):
            fa.load(path)


def test_extra_bytes_anywhere_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole = path.read_bytes()
    second = whole.index(b"PK\3\4", 1)
    directory = whole.index(b"PK\1\2")
    for more in (b"\0", b"x" * 100, bytes(1 << 17), whole[-22:], whole):
        for at in (0, second, directory, len(whole)):
            path.write_bytes(whole[:at] + more + whole[at:])
            if more is not whole or at not in (0, len(whole)):
                assert not outcome(path, {})
    path.write_bytes(whole + whole)  # with `concat`, zip readers take the last archive
    assert not outcome(path, {})


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def pack(path, contents, compression=zipfile.ZIP_STORED):
    """Write an archive of (name, bytes) pairs, in which a name may come twice."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore", UserWarning)  # duplicate names
        for name, content in contents:
            archive.writestr(name, content)


def drop_from_directory(path, names):
    """Take members out of the directory alone; their data stays."""
    with zipfile.ZipFile(path, "a") as archive:
        for info in archive.infolist():
            if info.filename in names:
                archive.filelist.remove(info)
        archive._didModify = True


def test_lost_directory_entry_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole, names = path.read_bytes(), list(members(path))
    for count in (1, 2):
        for lost in itertools.combinations(names, count):
            path.write_bytes(whole)
            drop_from_directory(path, lost)
            assert not outcome(path, {})


def test_lost_member_is_named(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    contents = members(path)
    for lost in contents.keys() - {"fastact.npy"}:
        pack(path, [pair for pair in contents.items() if pair[0] != lost])
        with pytest.raises(ValueError, match=re.escape(f"run.npz: {lost[:-4]}: missing")):
            fa.load(path)


def test_added_and_doubled_members_are_named(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    contents = list(members(path).items())
    name, data = contents[0]
    for more, message in (
        ("model.more.npy", r"model\.more: unexpected"),
        (name, r"model\.slope: got two arrays of this name"),
        ("model.text", r"has the member 'model\.text', which fastact\.save did not write"),
        ("/etc/passwd.npy", "has the entry '/etc/passwd', which"),
        ("../a.npy", r"\.\./a: unexpected"),
        ("folder/", "has the member 'folder/', which"),
    ):
        pack(path, [*contents, (more, data)])
        with pytest.raises(ValueError, match=rf"run\.npz: .*{message}"):
            fa.load(path)
    swap = path.read_bytes().replace(b"folder/", b"model.\0")
    path.write_bytes(swap)
    with pytest.raises(ValueError, match=r"run\.npz: has the member 'model\.\\x00', which"):
        fa.load(path)


def test_order_of_members_and_comments_are_ignored(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    wanted, contents = bits(fa.load(path)), list(members(path).items())
    for order in (contents, contents[::-1]):
        pack(path, order)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"a comment"
            archive.filelist.reverse()  # the directory is not in the order of the members
            archive.filelist[0].comment = b"first"
        assert outcome(path, wanted)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_deflated_members_load_and_other_compressions_are_refused(tmp_path, compression):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    wanted = bits(fa.load(path))
    pack(path, members(path).items(), compression)
    assert outcome(path, wanted) == (compression == zipfile.ZIP_DEFLATED)


def test_truncated_deflate_stream_is_refused(tmp_path):
    """A member's checksum is right for what unpacks, which is less than its size."""
    path = tmp_path / "run.npz"
    whole = npy(np.arange(4.0))
    for have in (len(whole) - 32, len(whole) - 8, len(whole) - 1):
        pack(path, [("a.x.npy", whole[:have])], zipfile.ZIP_DEFLATED)
        data = path.read_bytes().replace(struct.pack("<L", have), struct.pack("<L", len(whole)))
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file: a\.x: "):
            fa.load(path)


def test_zip64_and_streamed_archives_load(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    wanted, contents = bits(fa.load(path)), members(path)

    class Pipe(io.BytesIO):  # zipfile then writes sizes and checksums after the data
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

        tell = seek

    pipe = Pipe()
    pack(pipe, contents.items())
    path.write_bytes(pipe.getvalue())
    assert outcome(path, wanted)

    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # as for an archive of more than 4 GB
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    fa.save(path, **objects(1))
    assert b"PK\6\6" in path.read_bytes()
    assert outcome(path, wanted)


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


def with_header(text, data=b"", version=1):
    """An .npy file with whatever header."""
    head = text.encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<L", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + size + head + data


def header(descr="'<f4'", fortran="False", shape="(2,)"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}"


EIGHT = bytes(range(8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "reading magic string"),
        (EIGHT, "magic string is not correct"),
        (with_header(header(), EIGHT)[:20], "reading array header"),
        (with_header(header(), EIGHT[:7]), r"got 7 bytes, wanted 8 for float32 of shape \(2,\)"),
        (with_header(header(), EIGHT + b"\0"), "got 9 bytes, wanted 8"),
        (with_header(header(), EIGHT, version=3), r"got \.npy format \(3, 0\)"),
        (with_header(header(), EIGHT, version=9), "magic|format"),
        (with_header(header(shape="(2,"), EIGHT), "Cannot parse header|EOF|tokenize"),
        (with_header("'''", EIGHT), "parse header|EOF|unterminated"),
        (with_header("(" * 9000, EIGHT), ""),
        (with_header("-" * 9000 + "1", EIGHT), "got a header that cannot be parsed|recursion"),
        (with_header("[" * 50 + "9" * 5000 + "]" * 50, EIGHT), ""),
        (with_header(" " * 60000, EIGHT), "got a header of 60001 bytes, wanted at most 10000"),
        (with_header("\0", EIGHT), ""),
        (with_header("1", EIGHT), "not a dictionary"),
        (with_header(header(shape="(-2,)"), EIGHT), r"got shape \(-2,\)"),
        (with_header(header(shape="(-1, -2)"), EIGHT), r"got shape \(-1, -2\)"),
        (with_header(header(shape="(True, 2)"), EIGHT), r"got shape \(True, 2\)"),
        (with_header(header(shape="(2.0,)"), EIGHT), "shape is not valid"),
        (with_header(header(shape="2"), EIGHT), "shape is not valid"),
        (with_header(header(shape=f"({2**62}, 4)"), EIGHT), "got 8 bytes, wanted"),
        (with_header(header(shape=f"({2**63}, 0)")), "imum|large|big|convert"),
        (with_header(header(shape=f"({2**32}, {2**32})")), f"got 0 bytes, wanted {2**66}"),
        (with_header(header(shape="(nan,)"), EIGHT), "parse header|malformed"),
        (with_header(header(shape="(1e400,)"), EIGHT), "shape is not valid"),
        (with_header(header(), EIGHT, version=2)[:8] + b"\xff" * 4 + EIGHT, "got a header of 4294967295"),
        (with_header(header(shape="(" + "1," * 100 + ")", descr="'<f8'"), EIGHT), "maximum supported"),
        (with_header(header(descr="'<q9'"), EIGHT), "descr is not|data type|not understood"),
        (with_header(header(descr="('<f4', (2,))", shape="()"), EIGHT), "wanted numbers or text"),
        (with_header(header(descr="'|O'", shape="(1,)"), EIGHT), "got dtype object, wanted numbers or text"),
        (with_header(header(descr="[('a', '|O')]", shape="(1,)"), EIGHT), "wanted numbers or text"),
        (npy(np.array([None])), "got dtype object, wanted numbers or text"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.filterwarnings("default")  # Python's parser warns of some
def test_broken_npy_header_is_refused_by_name(tmp_path, content, message, compression):
    path = tmp_path / "run.npz"
    pack(path, [("a.x.npy", content)], compression)
    with pytest.raises(ValueError, match=rf"run\.npz: not a readable \.npz file: a\.x: .*({message})"):
        fa.load(path)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.array([(1, 2.5)], [("a", "<i2"), ("b", "<f8")]),
        np.array(["é", "ab"]),
        np.array([b"a", b""]),
        np.zeros((3, 0, 2)),
        np.zeros(3, "U0"),
        np.zeros((), "m8[s]"),
        np.array([np.nan, -0.0, np.inf], np.float16),
        np.array(1 + 2j),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_every_kind_come_back_to_the_bit(tmp_path, array):
    path = tmp_path / "run.npz"
    fa.save(path, a={"größe": array})
    got = fa.load(path)["a"]["größe"]
    assert (got.shape, got.dtype, got.tobytes()) == (array.shape, array.dtype, array.tobytes())
    assert got.flags.writeable
    pack(path, members(path).items(), zipfile.ZIP_DEFLATED)
    assert outcome(path, {"a.größe": (array.tobytes(), array.dtype.str, array.shape)})


def test_dtype_of_the_other_byte_order_does_not_load_into_a_model(tmp_path):
    path = tmp_path / "run.npz"
    model = fa.PReLU(2)
    fa.save(path, model={"slope": np.array([1, 2], ">f4")})
    with pytest.raises(ValueError, match=r"run\.npz: model\.slope: got dtype >f4, wanted float32"):
        fa.load(path, model=model)
    assert model.slope.data.tolist() == [0.25, 0.25]


def peak(call):
    """The most memory that a call takes, in bytes."""
    tracemalloc.start()
    try:
        call()
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return used


def test_shape_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "run.npz"
    np.savez_compressed(path, **{"model.slope": np.zeros(1 << 23, np.float32)})
    assert path.stat().st_size < 1 << 19

    def load():
        with pytest.raises(
            ValueError, match=r"run\.npz: model\.slope: got shape \(8388608,\), wanted \(1,\)"
        ):
            fa.load(path, model=fa.PReLU())

    assert peak(load) < 1 << 20


def test_generator_text_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "run.npz"
    np.savez_compressed(path, **{"rng.state": np.array("x" * (1 << 22))})

    def load():
        with pytest.raises(ValueError, match=r"run\.npz: rng\.state: not the state of a PCG64: got <U"):
            fa.load(path, rng=np.random.default_rng(0))

    assert peak(load) < 1 << 20


@pytest.mark.parametrize("into", [{}, {"a": {}}])
def test_bomb_is_refused_before_memory_is_taken(tmp_path, into):
    path = tmp_path / "run.npz"
    np.savez_compressed(path, **{"a.x": np.zeros(1 << 22)})

    def load():
        with pytest.raises(ValueError, match=r"run\.npz: \d+ bytes unpack to 33554560, more than 100 times"):
            fa.load(path, **into)

    assert peak(load) < 1 << 20
    np.savez_compressed(path, **{"a.x": np.zeros(1 << 20)})  # 8 MB of zeros are a checkpoint
    assert fa.load(path, **into)["a"]["x"].shape == (1 << 20,)


def test_header_that_promises_more_than_deflate_can_hold_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    count = 1 << 29
    content = with_header(header(shape=f"({count},)"), EIGHT)
    pack(path, [("a.x.npy", content)], zipfile.ZIP_DEFLATED)
    promised = len(content) - 8 + 4 * count
    data = path.read_bytes().replace(struct.pack("<L", len(content)), struct.pack("<L", promised))
    path.write_bytes(data)

    def load():
        with pytest.raises(ValueError, match=rf"a\.x: got \d+ bytes in the file, wanted {promised}"):
            fa.load(path)

    assert peak(load) < 1 << 20


def test_header_of_four_gigabytes_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "run.npz"
    content = b"\x93NUMPY\2\0" + struct.pack("<L", 2**32 - 1) + b"{" * (1 << 24)
    pack(path, [("a.x.npy", content)], zipfile.ZIP_DEFLATED)

    def load():
        with pytest.raises(
            ValueError, match=r"run\.npz: not a readable \.npz file: a\.x: got a header of 42949"
        ):
            fa.load(path)

    assert path.stat().st_size < 1 << 15
    assert peak(load) < 1 << 20


def test_many_members_are_refused_for_little_memory(tmp_path):
    path = tmp_path / "run.npz"
    pack(path, [(f"a.{i}.npy", b"") for i in range(5000)])

    def load():
        with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file: a\.0: "):
            fa.load(path)

    assert peak(load) < 10 * path.stat().st_size


@pytest.mark.parametrize("flag", [0x1, 0x20, 0x40])
def test_encrypted_and_patched_members_are_refused(tmp_path, flag):
    """Encrypted, patched, or encrypted strongly, in both headers."""
    path = tmp_path / "run.npz"
    pack(path, [("a.x.npy", npy(np.zeros(3)))])
    whole = bytearray(path.read_bytes())
    whole[6] |= flag
    whole[whole.index(b"PK\1\2") + 8] |= flag
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file: a\.x: "):
        fa.load(path)


@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 93, 95, 99])
def test_other_compression_methods_are_refused_by_name(tmp_path, method):
    path = tmp_path / "run.npz"
    pack(path, [("a.x.npy", npy(np.zeros(3)))])
    whole = bytearray(path.read_bytes())
    whole[8] = whole[whole.index(b"PK\1\2") + 10] = method
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=rf"a\.x: got compression method {method}, wanted 0 .* or 8"):
        fa.load(path)


@pytest.mark.parametrize("utf8", [False, True])
def test_names_that_are_not_utf8_are_read_or_refused(tmp_path, utf8):
    """Without the flag of UTF-8 a name is code page 437; with it, its bytes have to be UTF-8."""
    path = tmp_path / "run.npz"
    pack(path, [("a.xy.npy", npy(np.zeros(3)))])
    whole = bytearray(path.read_bytes().replace(b"a.xy.npy", b"a.\xff\xfe.npy"))
    if utf8:
        whole[7] |= 8
        whole[whole.index(b"PK\1\2") + 9] |= 8
    path.write_bytes(whole)
    if utf8:
        with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file: 'utf-8'"):
            fa.load(path)
    else:
        assert list(fa.load(path)["a"]) == ["\xa0\u25a0"]


def test_member_that_is_a_symbolic_link_is_data(tmp_path):
    """Nothing is extracted: the mode of a member does not count, and a link's text is not an array."""
    path = tmp_path / "run.npz"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a.x.npy")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file: a\.x: the magic string"):
        fa.load(path)


def test_archive_in_an_archive_is_refused(tmp_path):
    inner, path = tmp_path / "inner.npz", tmp_path / "run.npz"
    fa.save(inner, a={"x": np.zeros(3)})
    pack(path, [("a.x.npy", inner.read_bytes())])
    with pytest.raises(ValueError, match=r"run\.npz: "):
        fa.load(path)


def test_overlapping_members_are_refused(tmp_path):
    """A hundred directory entries for the same bytes, as bombs without recursion have them."""
    path = tmp_path / "run.npz"
    pack(path, [("a.x.npy", npy(np.zeros(1000)))])
    whole = path.read_bytes()
    directory = whole.index(b"PK\1\2")
    record, end = (
        whole[directory:-22],
        struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 100, 100, 100 * 53, directory, 0),
    )
    path.write_bytes(whole[:directory] + record * 100 + end)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 100
    with pytest.raises(ValueError, match=r"run\.npz: .*members do not fill the file"):
        fa.load(path)


def test_wrong_checksum_is_refused_by_name(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    data = members(path)["optimizer.lr.npy"]
    crc = struct.pack("<L", zlib.crc32(data))
    path.write_bytes(path.read_bytes().replace(crc, b"\0\1\2\3"))
    with pytest.raises(ValueError, match=r"run\.npz: .*optimizer\.lr: .*CRC"):
        fa.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 2, "entries": []}', "got format version 2, wanted 1"),
        ('{"version": "1", "entries": []}', "got format version 1, wanted 1"),
        ('{"version": 1, "entries": []}', r"a\.x: unexpected"),
        ('{"version": 1, "entries": ["a.x", "a.y"]}', r"a\.y: missing"),
        ('{"version": 1}', "fastact: not a list of entries"),
        ('{"version": 1, "entries": [{}]}', "fastact: not a list of entries"),
        ("[", "fastact: not a list of entries"),
        ("[" * 100000, "fastact: not a list of entries"),
        ("3", "fastact: not a list of entries"),
    ],
)
def test_wrong_list_of_entries_is_refused(tmp_path, text, message):
    path = tmp_path / "run.npz"
    np.savez(path, **{"a.x": np.zeros(1), "fastact": np.array(text)})
    with pytest.raises(ValueError, match=rf"run\.npz: {message}"):
        fa.load(path)


def test_file_has_a_version_and_a_list_of_its_entries(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, a={"x": np.zeros(1), "y": np.zeros(2)})
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["fastact"])) == {"version": 1, "entries": ["a.x", "a.y"]}
    assert fa.load(path).keys() == {"a"}
