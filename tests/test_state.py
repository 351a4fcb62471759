"""Checkpoints: what is saved comes back to the bit; a wrong file is refused and nothing is changed."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastact as fa

KINDS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


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


def test_save_and_load_keep_every_bit(tmp_path):
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


@pytest.mark.parametrize("bits", KINDS)
def test_load_restores_generators_of_every_kind(tmp_path, bits):
    kind = getattr(np.random, bits)
    saved, loaded = np.random.Generator(kind(1)), np.random.Generator(kind(2))
    saved.integers(10, size=3, dtype=np.int32)  # leaves half of a 64-bit number in the buffer
    fa.save(tmp_path / "rng.npz", rng=saved)
    fa.load(tmp_path / "rng.npz", rng=loaded)
    np.testing.assert_array_equal(saved.random(100, np.float32), loaded.random(100, np.float32))


def test_load_rejects_a_generator_of_another_kind(tmp_path):
    fa.save(tmp_path / "rng.npz", rng=np.random.default_rng(0))
    rng = np.random.Generator(np.random.MT19937(0))
    with pytest.raises(ValueError, match=r"rng\.state: not the state of a MT19937: it belongs to a PCG64"):
        fa.load(tmp_path / "rng.npz", rng=rng)


def test_save_writes_a_plain_npz(tmp_path):
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
def test_load_of_a_wrong_file_raises_and_changes_nothing(tmp_path, change, message):
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


def test_load_of_an_unreadable_file_raises_and_changes_nothing(tmp_path):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole = path.read_bytes()
    loaded = objects(2)
    before = snapshot(loaded)
    damaged = bytearray(whole)
    damaged[whole.index("PCG64".encode("utf-32-le"))] ^= 255  # in the generator's text
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
    with pytest.raises(ValueError, match="not a zip file"):
        fa.load(path, **loaded)
    with pytest.raises(FileNotFoundError):
        fa.load(tmp_path / "none.npz", **loaded)
    assert snapshot(loaded) == before


def test_file_of_fastact_0_1_0_loads():
    """It was written by the code of 0.1.0 (at 5b32481), and has no list of its entries.

    Each parameter had the values 0, 1, 2, ... and its index divided by 8, its velocity the negative of them.
    """
    model = fa.Sequential(fa.Maxout(2, 1), fa.Linear(1, 2, activation="prelu"))
    optimizer = fa.SGD(model.parameters(), lr=1.0)
    rng = np.random.default_rng(0)
    fa.load(
        Path(__file__).parent / "data" / "checkpoint-0.1.0.npz", model=model, optimizer=optimizer, rng=rng
    )
    state = optimizer.state_dict()
    for i, parameter in enumerate(model.parameters()):
        size, shape = parameter.data.size, parameter.data.shape
        np.testing.assert_array_equal(parameter.data, np.arange(size).reshape(shape) + i / 8)
        np.testing.assert_array_equal(state[f"velocity.{i}"], -parameter.data)
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (
        0.25,
        0.5,
        False,
        0,
    )
    expected = np.random.default_rng(5)
    expected.integers(10, size=3, dtype=np.int32)
    assert rng.bit_generator.state == expected.bit_generator.state


class Half:
    """An object whose `load_state_dict` fails after it has changed something."""

    def __init__(self, error=None):
        self.value, self.error = np.zeros(1), error

    def state_dict(self):
        return {"value": self.value.copy()}

    def load_state_dict(self, state):
        self.value = state["value"]
        if self.error and self.value:
            raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("not mine"), TypeError("not mine"), KeyboardInterrupt("not mine")]
)
def test_load_that_fails_half_way_restores_every_object(tmp_path, error):
    path = tmp_path / "run.npz"
    half = Half()
    half.value += 1
    fa.save(path, **objects(1), history={"x": np.ones(1)}, half=half)
    loaded, history, half = objects(2), {"y": np.zeros(1)}, Half(error)
    before = snapshot(loaded)
    with pytest.raises(
        type(error), match=r"run\.npz: half: not mine" if type(error) is ValueError else "not mine"
    ):
        fa.load(path, **loaded, history=history, half=half)
    assert snapshot(loaded) == before
    assert history.keys() == {"y"}
    assert half.value == 0


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("index", range(5))
def test_read_only_parameter_is_refused_by_name_and_nothing_changes(tmp_path, index):
    path = tmp_path / "run.npz"
    saved, loaded = objects(1), objects(2)
    fa.save(path, **saved)
    before = snapshot(loaded)
    name, parameter = list(loaded["model"].named_parameters())[index]
    parameter.data = read_only(parameter.data.copy())  # as joblib's memory maps are
    with pytest.raises(ValueError, match=rf"^{name}: read-only, wanted writeable arrays"):
        loaded["model"].load_state_dict(saved["model"].state_dict())
    assert snapshot(loaded) == before
    for order in (loaded, dict(reversed(loaded.items()))):
        with pytest.raises(ValueError, match=rf"run\.npz: model: {name}: read-only"):
            fa.load(path, **order)
        assert snapshot(loaded) == before


@pytest.mark.parametrize("name", ["mean", "square"])
def test_read_only_optimizer_state_is_refused_by_name_and_nothing_changes(tmp_path, name):
    path = tmp_path / "run.npz"
    saved, loaded = objects(1), objects(2)
    fa.save(path, **saved)
    before = snapshot(loaded)
    read_only(getattr(loaded["optimizer"], f"_{name}")[3])
    with pytest.raises(ValueError, match=rf"^{name}\.3: read-only"):
        loaded["optimizer"].load_state_dict(saved["optimizer"].state_dict())
    with pytest.raises(ValueError, match=rf"run\.npz: optimizer: {name}\.3: read-only"):
        fa.load(path, **loaded)
    assert snapshot(loaded) == before


def test_optimizer_whose_hyperparameter_is_refused_is_as_it_was():
    optimizer = fa.SGD([fa.Parameter(np.zeros(2), "weight")], 0.5)
    state = optimizer.state_dict() | {
        "lr": np.array(0.25),
        "nesterov": np.array(True),
        "velocity.0": np.ones(2),
    }
    before = str(optimizer.state_dict())
    with pytest.raises(ValueError, match="nesterov: got True without momentum"):
        optimizer.load_state_dict(state)
    assert str(optimizer.state_dict()) == before


class Quantity(np.ndarray):
    """A subclass that has more than numbers."""


OTHERS = [
    ("MaskedArray", lambda a: np.ma.masked_array(a, np.ones_like(a, bool))),
    ("Quantity", lambda a: a.view(Quantity)),
    ("list", np.ndarray.tolist),
    ("NoneType", lambda a: None),
    ("str", str),
]


@pytest.mark.parametrize(("kind", "convert"), OTHERS, ids=[kind for kind, _ in OTHERS])
@pytest.mark.parametrize(
    ("group", "name"), [("model", "0.bias"), ("optimizer", "mean.1"), ("optimizer", "lr")]
)
def test_other_kinds_of_arrays_are_refused_by_name_and_nothing_changes(tmp_path, group, name, kind, convert):
    saved, loaded = objects(1), objects(2)
    before = snapshot(loaded)
    state = saved[group].state_dict()
    state[name] = convert(state[name])
    if type(state[name]) is not float:  # a hyperparameter may be a number
        with pytest.raises(TypeError, match=rf"^{name}: got {kind}, wanted a numpy\.ndarray"):
            loaded[group].load_state_dict(state)
        assert snapshot(loaded) == before
    with pytest.raises(TypeError, match=rf"^group\.{name}: got (float|{kind}), wanted a numpy\.ndarray"):
        fa.save(tmp_path / "run.npz", group=state)
    assert os.listdir(tmp_path) == []


def test_memory_maps_and_numbers_load(tmp_path):
    saved, loaded = objects(1), objects(2)
    state = saved["model"].state_dict()
    np.save(tmp_path / "bias.npy", state["0.bias"])
    state["0.bias"] = np.load(tmp_path / "bias.npy", mmap_mode="r")
    loaded["model"].load_state_dict(state)
    assert loaded["model"].state_dict()["0.bias"].tobytes() == saved["model"].state_dict()["0.bias"].tobytes()
    loaded["optimizer"].load_state_dict(saved["optimizer"].state_dict() | {"lr": 0.75, "steps": np.int64(7)})
    assert (loaded["optimizer"].lr, loaded["optimizer"].steps) == (0.75, 7)


def test_parameter_that_is_not_an_array_is_refused_by_name():
    model = objects(1)["model"]
    state = model.state_dict()
    model.layers[1].bias.data = [0.0, 0.0]
    with pytest.raises(TypeError, match=r"^1\.bias: got list, wanted a numpy\.ndarray to load into"):
        model.load_state_dict(state)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("MT19937", "pos", 625),
        ("MT19937", "pos", 10**6),
        ("MT19937", "pos", -1),
        ("MT19937", "pos", 2**31),
        ("MT19937", "pos", 2**70),
        ("MT19937", "pos", 3.0),
        ("MT19937", "pos", None),
        ("MT19937", "pos", True),
        ("MT19937", "key", [0] * 623),
        ("MT19937", "key", [0] * 625),
        ("MT19937", "key", [2**32] * 624),
        ("MT19937", "key", 0),
        ("Philox", "buffer_pos", 5),
        ("Philox", "buffer_pos", 10**6),
        ("Philox", "buffer_pos", -1),
        ("Philox", "buffer_pos", 2**40),
        ("Philox", "buffer", [0] * 3),
        ("Philox", "buffer", [0] * 5),
        ("Philox", "counter", [-1] * 4),
        ("Philox", "key", [0]),
        *((kind, "has_uint32", value) for kind in KINDS if kind != "MT19937" for value in (2, -1, 0.0, True)),
        *((kind, "uinteger", value) for kind in KINDS if kind != "MT19937" for value in (-1, 2**32, "1")),
        ("PCG64", "state", 2**128),
        ("PCG64", "state", -1),
        ("PCG64DXSM", "inc", 2**128),
        ("PCG64DXSM", "inc", 2),
        ("PCG64", "inc", 0),
        ("MT19937", "key", [2**31 - 1] + [0] * 623),
        ("SFC64", "state", [0] * 3),
        ("SFC64", "state", [0] * 5),
        ("SFC64", "state", [2**64] * 4),
        *((kind, "more", 0) for kind in KINDS),
    ],
)
def test_generator_state_out_of_range_is_refused_by_name(tmp_path, kind, key, value):
    path = tmp_path / "run.npz"
    generator, model = np.random.Generator(getattr(np.random, kind)(1)), fa.PReLU()
    fa.save(path, model=fa.PReLU(slope=3.0), rng=generator)
    states = fa.load(path)
    state = json.loads(str(states["rng"]["state"]))
    (state["state"] if key in state["state"] else state)[key] = value
    states["rng"]["state"] = np.array(json.dumps(state))
    fa.save(path, **states)
    before = str(generator.bit_generator.state)
    with pytest.raises(ValueError, match=rf"run\.npz: rng\.state: not the state of a {kind}: ") as error:
        fa.load(path, model=model, rng=generator)
    assert key not in ("pos", "buffer_pos", "has_uint32") or f"{key}: got {value}, wanted 0 to" in str(
        error.value
    )
    assert str(generator.bit_generator.state) == before
    assert model.slope.data == 0.25


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("MT19937", "pos", 0),
        ("MT19937", "pos", 624),
        ("Philox", "buffer_pos", 1),
        ("Philox", "buffer_pos", 4),
    ],
)
def test_generator_state_at_its_bounds_loads(tmp_path, kind, key, value):
    path = tmp_path / "run.npz"
    saved, loaded = (np.random.Generator(getattr(np.random, kind)(seed)) for seed in (1, 2))
    state = saved.bit_generator.state
    (state["state"] if key in state["state"] else state)[key] = value
    saved.bit_generator.state = state
    fa.save(path, rng=saved)
    fa.load(path, rng=loaded)
    np.testing.assert_array_equal(saved.random(1000), loaded.random(1000))


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    fa.save(path, **objects(1))
    whole = path.read_bytes()

    def fail(file, array, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match=r"disk full: '.*run\.npz'"):
        fa.save(path, **objects(2))
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_refuses_what_it_cannot_hold(tmp_path):
    path = tmp_path / "run.npz"

    class Listed:
        def state_dict(self):
            return [np.zeros(1)]

    for name, bad, message in (
        ("steps", 3, "steps: got int, wanted an object with a state_dict"),
        ("listed", Listed(), "listed: got Listed, wanted an object with a state_dict"),
        ("history", {"losses": [1.0]}, r"history\.losses: got list, wanted a numpy\.ndarray"),
        (
            "history",
            {"losses": np.array([None])},
            r"history\.losses: got dtype object, wanted numbers or text",
        ),
        ("history", {"losses": np.zeros(1, [("a", "O")])}, r"history\.losses: got dtype \[\('a', 'O'\)\]"),
        (
            "history",
            {"losses": np.zeros(1, [("名", "f4")])},
            r"history\.losses: got dtype \[\('名', '<f4'\)\]",
        ),
        (
            "history",
            {"losses": np.zeros(1, [(f"a{i}", "f4") for i in range(999)])},
            r"history\.losses: got dtype",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            fa.save(path, **{name: bad})
    with pytest.raises(ValueError, match=r"a\.b: wanted a name without a dot"):
        fa.save(path, **{"a.b": {}})
    assert os.listdir(tmp_path) == []


def test_save_refuses_a_dtype_that_would_come_back_as_another(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TypeError, match=r"history\.x: got dtype bfloat16, wanted numbers or text"):
        fa.save(tmp_path / "run.npz", history={"x": np.zeros(1, ml_dtypes.bfloat16)})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({1: 0, "1": 1}, r"history\.1: got two entries of this name"),
        ({"None": 0, None: 1}, r"history\.None: got two entries of this name"),
        ({"a": 0, "a.npy": 1}, r"history\.a\.npy: got history\.a as well"),
        ({"a.npy.npy": 0, "a.npy": 1}, r"history\.a\.npy\.npy: got history\.a\.npy as well"),
        ({"a\0": 0}, r"'history\.a\\x00': wanted a name .* without NUL"),
        ({"a\0b": 0, "a\0c": 1}, r"'history\.a\\x00b': wanted a name .* without NUL"),
        ({"\ud800": 0}, r"'history\.\\ud800': wanted a name of at most 65531 bytes of UTF-8"),
        ({"n" * 65524: 0}, r"'history\.nnn.*': wanted a name of at most 65531 bytes"),
    ],
)
def test_save_rejects_names_that_collide(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        fa.save(tmp_path / "run.npz", history={key: np.array(value) for key, value in entries.items()})
    assert os.listdir(tmp_path) == []


def test_name_that_collides_with_the_list_of_entries_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"fastact\.npy: got fastact as well"):
        fa.save(tmp_path / "run.npz", fastact={"npy": np.zeros(1)})
    fa.save(tmp_path / "run.npz", fastact=fa.PReLU(), **{"a\\b/c": {"/": np.zeros(1), 3: np.ones(1)}})
    states = fa.load(tmp_path / "run.npz")
    assert {group: list(state) for group, state in states.items()} == {
        "fastact": ["slope"],
        "a\\b/c": ["/", "3"],
    }


def test_save_and_load_keep_unusual_names(tmp_path):
    names = ["a.npy", "b.npy.npy", "", ".", "größe", "a b", "n" * 65523, "MODEL", "model", "\n", "PK\3\4"]
    fa.save(tmp_path / "run.npz", history={name: np.array(i) for i, name in enumerate(names)})
    history = fa.load(tmp_path / "run.npz")["history"]
    assert {name: int(array) for name, array in history.items()} == {name: i for i, name in enumerate(names)}


def test_save_and_load_of_a_dict_fill_it(tmp_path):
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
    with pytest.raises(TypeError, match="history: got list, wanted an object with a load_state_dict"):
        fa.load(path, model=model, history=[])


def test_save_and_load_of_a_model_without_parameters(tmp_path):
    model = fa.Sequential(fa.Dropout(0.5))
    fa.save(tmp_path / "run.npz", model=model)
    assert zipfile.is_zipfile(tmp_path / "run.npz")
    fa.load(tmp_path / "run.npz", model=model)
