"""Checkpoints: what is saved comes back to the bit; a wrong file is refused and nothing is changed."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

import fastact as fa


def objects(seed):
    rng = np.random.default_rng(seed)
    model = fa.Sequential(fa.Maxout(4, 3, rng=rng), fa.Linear(3, 2, activation="prelu", rng=rng))
    optimizer = fa.Adam(model.parameters(), lr=0.1 * seed)
    x = rng.standard_normal((5, 4)).astype(np.float32)
    y = model(x, training=True)
    model.backward(y)
    optimizer.step()
    return {"model": model, "optimizer": optimizer, "rng": rng}


def snapshot(named):
    """Every bit of the state of some objects."""
    states = {"model": named["model"].state_dict(), "optimizer": named["optimizer"].state_dict()}
    bits = {f"{group}.{name}": a.tobytes() for group, state in states.items() for name, a in state.items()}
    return bits, str(named["rng"].bit_generator.state)


def test_round_trip(tmp_path):
    saved, loaded = objects(1), objects(2)
    fa.save(tmp_path / "run.npz", **saved)
    states = fa.load(str(tmp_path / "run.npz"), **loaded)
    assert snapshot(loaded) == snapshot(saved)
    assert set(states) == {"model", "optimizer", "rng"}
    assert os.listdir(tmp_path) == ["run.npz"]


def test_load_without_objects_gives_the_states(tmp_path):
    saved, other = objects(1), objects(2)
    extra = {"epoch": np.array(3), "losses": np.arange(4.0)}
    fa.save(tmp_path / "run.npz", history=extra, **saved)
    states = fa.load(tmp_path / "run.npz")
    other["model"].load_state_dict(states["model"])
    assert snapshot(other)[0]["model.0.weight"] == snapshot(saved)[0]["model.0.weight"]
    assert states["history"]["epoch"] == 3
    np.testing.assert_array_equal(states["history"]["losses"], extra["losses"])


@pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_of_every_kind(tmp_path, bits):
    kind = getattr(np.random, bits)
    saved, loaded = np.random.Generator(kind(1)), np.random.Generator(kind(2))
    saved.integers(10, size=3, dtype=np.int32)  # leaves half of a 64-bit number in the buffer
    fa.save(tmp_path / "rng.npz", rng=saved)
    fa.load(tmp_path / "rng.npz", rng=loaded)
    np.testing.assert_array_equal(saved.random(100, np.float32), loaded.random(100, np.float32))


def test_a_generator_of_another_kind_is_refused(tmp_path):
    fa.save(tmp_path / "rng.npz", rng=np.random.default_rng(0))
    rng = np.random.Generator(np.random.MT19937(0))
    with pytest.raises(ValueError, match=r"rng\.state: not the state of a MT19937: it is of a PCG64"):
        fa.load(tmp_path / "rng.npz", rng=rng)


def test_the_format_is_plain_npz(tmp_path):
    fa.save(tmp_path / "run.npz", **objects(1))
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        assert {"model.0.weight", "model.1.slope", "optimizer.lr", "optimizer.mean.0", "rng.state"} <= set(
            file
        )
        assert file["model.0.weight"].shape == (3, 2, 4)


def without(name):
    return lambda entries: entries.pop(name)


def with_(name, array):
    return lambda entries: entries.update({name: array})


WEIGHT = np.zeros((3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("model.0.bias"), r"model\.0\.bias: missing"),
        (with_("model.2.weight", WEIGHT), r"model\.2\.weight: unexpected"),
        (with_("model.0.weight", WEIGHT[:2]), r"model\.0\.weight: got shape \(2, 2, 4\), wanted \(3, 2, 4\)"),
        (
            with_("model.0.weight", WEIGHT.astype(float)),
            r"model\.0\.weight: got dtype float64, wanted float32",
        ),
        (without("optimizer.mean.1"), r"optimizer\.mean\.1: missing"),
        (with_("optimizer.momentum", np.array(0.9)), r"optimizer\.momentum: unexpected"),
        (with_("optimizer.square.0", WEIGHT[0]), r"optimizer\.square\.0: got shape"),
        (without("rng.state"), r"rng: got the entries \(\), wanted \(state\)"),
        (with_("rng.more", WEIGHT), r"rng: got the entries"),
        (with_("rng.state", np.array("{}")), r"rng\.state: not the state of a PCG64"),
        (with_("rng.state", np.array("no JSON")), r"rng\.state: not the state of a PCG64"),
        (with_("rng.state", WEIGHT), r"rng\.state: not the state of a PCG64"),
        (with_("scheduler.step", np.array(1)), "also has scheduler"),
        (with_("stray", np.array(1)), "'stray', which fastact.save did not write"),
        (with_("model.0.weight", np.array([None])), "not a readable .npz file"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_changes_nothing(tmp_path, change, message):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    with np.load(path) as file:
        entries = dict(file)
    change(entries)
    np.savez(path, **entries)
    loaded = objects(2)
    before = snapshot(loaded)
    with pytest.raises(ValueError, match=message):
        fa.load(path, **loaded)
    assert snapshot(loaded) == before


def test_an_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole = path.read_bytes()
    loaded = objects(2)
    before = snapshot(loaded)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    entry = whole.index(b"PK\x01\x02")  # in the zip's directory: flags from byte 8 on, compression from 10 on
    encrypted, compressed = bytearray(whole), bytearray(whole)
    encrypted[entry + 8] |= 1
    compressed[entry + 10] = 99
    broken = map(bytes, (damaged, encrypted, compressed))
    for content in (b"", b"not a zip file", whole[: len(whole) // 2], *broken):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.npz: not a readable \.npz file"):
            fa.load(path, **loaded)
    with open(path, "wb") as file:
        np.save(file, WEIGHT)
    with pytest.raises(ValueError, match="it is no zip archive"):
        fa.load(path, **loaded)
    with pytest.raises(FileNotFoundError):
        fa.load(tmp_path / "none.npz", **loaded)
    assert snapshot(loaded) == before


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole = path.read_bytes()

    def fail(file, **entries):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        fa.save(path, **objects(2))
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_refuses_what_it_cannot_hold(tmp_path):
    path = tmp_path / "run.npz"
    for name, bad, message in (
        ("steps", 3, "steps: got int, wanted something with a state_dict"),
        ("history", {"losses": [1.0]}, r"history\.losses: got list, wanted an array"),
        ("history", {"losses": np.array([None])}, r"history\.losses: got an array of objects"),
    ):
        with pytest.raises(TypeError, match=message):
            fa.save(path, **{name: bad})
    with pytest.raises(ValueError, match=r"a\.b: wanted a name without a dot"):
        fa.save(path, **{"a.b": {}})
    assert not path.exists()


def test_a_dict_is_saved_and_filled(tmp_path):
    path = tmp_path / "run.npz"
    model, history = fa.Linear(2, 3), {"losses": np.arange(3.0), "epoch": np.array(7)}
    fa.save(path, model=model, history=history)
    found = {"other": np.zeros(1)}
    fa.load(path, model=model, history=found)
    assert found.keys() == {"losses", "epoch"}
    np.testing.assert_array_equal(found["losses"], [0, 1, 2])
    with pytest.raises(ValueError, match=r"model\.weight"):
        fa.load(path, model=fa.Linear(5, 3), history=(kept := {"other": np.zeros(1)}))
    assert kept.keys() == {"other"}
    with pytest.raises(ValueError, match="notes: missing, or empty"):
        fa.load(path, model=model, history={}, notes=kept)
    assert kept.keys() == {"other"}
    with pytest.raises(TypeError, match="history: got list, wanted something with a load_state_dict"):
        fa.load(path, model=model, history=[])


def test_a_model_without_parameters(tmp_path):
    model = fa.Sequential(fa.Dropout(0.5))
    fa.save(tmp_path / "run.npz", model=model)
    assert zipfile.is_zipfile(tmp_path / "run.npz")
    fa.load(tmp_path / "run.npz", model=model)
