"""Model folders that somebody made to do harm: refused in one line, before ONNX Runtime or NumPy work on them."""

from __future__ import annotations

import io
import json
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tiny_model import graph as tiny_graph
from tiny_model import tiny_model

from detector.adapters import npz
from detector.adapters.folder import read_model, write_model
from detector.adapters.npz import BadArraysError, read_arrays
from detector.engine import graph as limits
from detector.engine.graph import check_graph
from detector.engine.scorer import Scorer
from schemas.errors import ModelError
from schemas.manifest import Batching

GRAPH = tiny_graph(4, 3)


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """A graph of ours with one thing changed."""
    model = onnx.load_from_string(GRAPH)
    change(model)
    return model.SerializeToString()


def external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def external_attribute(model: onnx.ModelProto) -> None:
    constant = next(node for node in model.graph.node if node.op_type == "Constant")
    tensor = constant.attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def hidden_location(model: onnx.ModelProto) -> None:
    """External data without the word EXTERNAL."""
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.external_data.add(key="location", value="weights.bin")


def in_a_branch(inner: Callable[[onnx.ModelProto], object]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        hostile = onnx.ModelProto()
        inner(hostile)
        node = model.graph.node.add(op_type="If", name="branch")
        node.attribute.append(helper.make_attribute("then_branch", hostile.graph))

    return change


def in_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Evil", ["a"], ["b"], domain="evil.test")
    model.functions.append(helper.make_function("", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 18)]))


def deep(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "g", [], [])
    for _ in range(10):
        node = helper.make_node("If", [], [], name="n")
        node.attribute.append(helper.make_attribute("then_branch", inner))
        inner = helper.make_graph([node], "g", [], [])
    model.graph.node.extend(inner.node)


def declared(size: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size

    return change


def claims(*dims: int) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"1234")


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.name = "w"


HOSTILE = {
    "external beside it": (external("weights.bin"), "takes data from another file"),
    "external above it": (external("../../etc/passwd"), "takes data from another file"),
    "external elsewhere": (external("/etc/passwd"), "takes data from another file"),
    "external without the word": (hidden_location, "takes data from another file"),
    "external in an attribute": (external_attribute, "takes data from another file"),
    "external in a branch": (in_a_branch(external("/etc/passwd")), "takes data from another file"),
    "an operator of its own": (
        lambda m: m.graph.node.append(helper.make_node("Evil", ["x"], ["y"], domain="evil.test")),
        "operator Evil of the domain 'evil.test'",
    ),
    "an operator of its own in a function": (in_a_function, "of the domain 'evil.test'"),
    "an operator of its own in a branch": (
        in_a_branch(lambda m: m.graph.node.append(helper.make_node("Evil", ["x"], ["y"], domain="evil.test"))),
        "of the domain 'evil.test'",
    ),
    "a domain of its own": (lambda m: m.opset_import.append(helper.make_opsetid("evil.test", 1)), "'evil.test'"),
    "ONNX Runtime's own operators": (
        lambda m: m.graph.node.append(helper.make_node("FusedMatMul", ["x"], ["y"], domain="com.microsoft")),
        "'com.microsoft'",
    ),
    "a domain that breaks the line": (
        lambda m: m.opset_import.append(helper.make_opsetid("a\nb\x1b[31m", 1)),
        r"'a\\nb\\x1b\[31m'",
    ),
    "an array that claims more than it has": (claims(1000, 1000), "has 4 bytes"),
    "an array that claims less": (claims(), "is not in it|has 4 bytes|claims"),
    "an array that is not there": (
        lambda m: m.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[10**6]), "is not in it",
    ),
    "an array of absurd size": (claims(2**40), "is declared of"),
    "an array of negative size": (claims(-1), "is declared of"),
    "an array of absurd size by its product": (claims(2**20, 2**20), "is declared of"),
    "an array of many axes": (claims(*[1] * 40), "40 axes"),
    "an input of absurd size": (declared(2**40), "is declared of"),
    "graphs in one another": (deep, "deep in one another"),
    "sparse arrays": (sparse, "sparse arrays"),
    "instructions for training": (lambda m: m.training_info.add().algorithm.node.add(op_type="Add"), "for training"),
    "no graph": (lambda m: m.ClearField("graph"), "no ONNX file"),
}  # fmt: skip
HOSTILE["an array that claims less"] = (claims(0), "has 4 bytes")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_before_onnx_runtime_sees_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, words = HOSTILE[name]
    hostile = changed(change)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("ONNX Runtime was asked")

    monkeypatch.setattr("onnxruntime.InferenceSession", never)
    with pytest.raises(ModelError, match=words) as raised:
        Scorer(hostile, Batching())
    assert "\n" not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_hostile_graph_in_a_folder_with_a_right_hash_is_refused_too(tmp_path: Path) -> None:
    hostile = changed(external("weights.bin"))
    (tmp_path / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    model = tiny_model()
    manifest = model.manifest.model_copy(update={"graph_sha256": sha256(hostile).hexdigest()})
    write_model(type(model)(manifest, hostile, model.streams), tmp_path / "m")
    found = read_model(tmp_path / "m")
    with pytest.raises(ModelError, match="takes data from another file"):
        Scorer(found.graph, found.manifest.batching)


def test_onnx_runtimes_own_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in it cannot be looked at, so ONNX Runtime is told to read the other format only."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(GRAPH, options, providers=["CPUExecutionProvider"])
    converted = (tmp_path / "m.ort").read_bytes()
    with pytest.raises(ModelError, match="no ONNX file"):
        check_graph(converted)
    monkeypatch.setattr("detector.engine.scorer.check_graph", lambda _: None)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Scorer(converted, Batching())


def test_too_many_operators_or_arrays_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    many = changed(lambda m: m.graph.node.extend([helper.make_node("Relu", ["x"], ["y"])] * (limits.MOST_NODES + 1)))
    began = time.monotonic()
    with pytest.raises(ModelError, match="more than 20,000 operators"):
        check_graph(many)
    assert time.monotonic() - began < 30
    small = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    with pytest.raises(ModelError, match="more than 20,000 arrays"):
        check_graph(changed(lambda m: m.graph.initializer.extend([small] * (limits.MOST_TENSORS + 1))))
    monkeypatch.setattr(limits, "MOST_BYTES", len(GRAPH) - 1)
    with pytest.raises(ModelError, match="bytes, more than"):
        check_graph(GRAPH)


def test_ordinary_graphs_pass() -> None:
    check_graph(GRAPH)
    for kind in (np.float32, np.float64, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_):
        for shape in ((), (0,), (3,), (2, 0, 5), (4, 5)):
            array = numpy_helper.from_array(np.ones(shape, kind), "w")
            check_graph(changed(lambda m, array=array: m.graph.initializer.append(array)))
    for kind, values in (
        (TensorProto.FLOAT, [1.5, 2.5]),
        (TensorProto.INT64, [1, 2]),
        (TensorProto.STRING, [b"a"] * 2),
    ):
        typed = helper.make_tensor("w", kind, [2], values)
        check_graph(changed(lambda m, typed=typed: m.graph.initializer.append(typed)))
    text = helper.make_node("Constant", [], ["y"], value_string="text", domain="ai.onnx")
    check_graph(changed(lambda m: m.graph.node.append(text)))


@given(st.data())
def test_damaged_bytes_are_a_model_error_or_nothing(data: st.DataObject) -> None:
    damaged = bytearray(GRAPH)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(GRAPH) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(damaged), bytes(damaged[: data.draw(st.integers(0, len(GRAPH)))])):
        try:
            check_graph(candidate)
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 — either outcome is right, this is of one


@given(st.binary(max_size=300))
def test_any_bytes_are_a_model_error_or_nothing(data: bytes) -> None:
    try:
        check_graph(data)
    except ModelError:
        return
    onnx.load_from_string(data)  # what passes has the form of a protocol buffer


# -- streams.npz -----------------------------------------------------------------------------------------------------


def npy(shape: object, descr: str = "<f4", data: bytes = b"") -> bytes:
    """The .npy file that claims a shape and a type."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    padded = header + " " * (63 - (len(header) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + data


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, loc=np.array([os.system], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x", "not a zip"),
        (b"", "not a zip"),
        (pickled(), "Python objects, which are never read"),
        (zipped({"loc.npy": npy((10**12,))}), "claims 1000000000000 elements"),
        (zipped({"loc.npy": npy((2**62, 2**62))}), "claims"),
        (zipped({"loc.npy": npy((-1,), data=b"1234")}), "claims"),
        (zipped({"loc.npy": npy((1,) * 30, data=b"1234")}), "claims"),
        (zipped({"loc.npy": npy((3,), data=b"1234")}), "claims 3 elements and has 4 bytes"),
        (zipped({"loc.npy": npy((1,), data=b"12345678")}), "claims 1 elements and has 8 bytes"),
        (zipped({"loc.npy": npy("__import__('os').system('true')")}), "literal|shape|malformed|header"),
        (zipped({"loc.npy": b"no array"}), "magic"),
        (zipped({"loc.npy": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535}), "[Hh]eader"),
        (zipped({"loc.npy": npy((1,), "|V4", b"1234")[:-2]}), "claims"),
        (zipped({"loc.npy": npy((1,), data=b"1234")}, zipfile.ZIP_LZMA), "unusual way"),
        (zipped({"loc.npy": npy((1,), data=b"1234")}).replace(b"1234", b"1239"), "CRC"),
    ],
    ids=range(15),
)  # fmt: skip
def test_a_hostile_npz_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadArraysError, match=words) as raised:
        read_arrays(data, ["loc"])
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_twice() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("loc.npy", npy((1,), data=b"1234"))
        file.writestr("loc.npy", npy((1,), data=b"5678"))
    with pytest.raises(BadArraysError, match="twice"):
        read_arrays(buffer.getvalue(), ["loc"])


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MOST_BYTES", 50_000_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("loc.npy", "w", force_zip64=True) as out:
        out.write(npy((15_000_000,)))
        for _ in range(60):
            out.write(bytes(1_000_000))
    bomb = buffer.getvalue()
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BadArraysError, match="unpack to more than"):
            read_arrays(bomb, ["loc"])
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_claimed_size_makes_no_room() -> None:
    """NumPy makes room for what a header claims, before it reads."""
    tracemalloc.start()
    try:
        with pytest.raises(BadArraysError):
            read_arrays(zipped({"loc.npy": npy((200_000_000,))}), ["loc"])
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@given(st.data())
def test_a_damaged_npz_is_a_bad_one_or_itself(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, loc=np.arange(6, dtype=np.float32).reshape(2, 3), names=np.array(["a", "b"]))
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_arrays(bytes(damaged), ["loc", "names"])
    except BadArraysError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(damaged)


def test_ordinary_arrays_come_back() -> None:
    given = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "ÿ"]), "c": np.float32(3), "d": np.empty((0, 3))}
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **given)
        found = read_arrays(buffer.getvalue(), [*given, "missing"])
        assert found.keys() == given.keys()
        for name, array in given.items():
            np.testing.assert_array_equal(found[name], array)
    assert npz.MOST_BYTES >= 2**30  # room for a fleet of millions


# -- the folder ------------------------------------------------------------------------------------------------------


def rewritten(folder: Path, **arrays: np.ndarray) -> None:
    """Other arrays in streams.npz, with their hash: somebody who may write the folder can do that."""
    with np.load(folder / "streams.npz") as found:
        kept = {**found, **arrays}
    np.savez(folder / "streams.npz", **{name: array for name, array in kept.items() if array is not None})
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    said["files"]["streams.npz"] = sha256((folder / "streams.npz").read_bytes()).hexdigest()
    path.write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"loc": np.zeros((2, 4), np.float32)}, "loc does not fit"),
        ({"loc": np.zeros((3, 3), np.float32)}, "loc does not fit"),
        ({"loc": np.array([["a"] * 3] * 2)}, "loc does not fit"),
        ({"names": np.zeros(2)}, "names does not fit"),
        ({"threshold": np.zeros((2, 1))}, "threshold does not fit"),
        ({"threshold": np.zeros(2, np.int64)}, "threshold does not fit"),
        ({"group_loc": np.zeros(2, np.float32)}, "group_loc does not fit"),
        ({"tail_rate": np.zeros(1)}, "tail_rate does not fit"),
        ({"tail_p": None}, "tail_p is missing"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_one_another(arrays: dict, words: str, tmp_path: Path) -> None:
    write_model(tiny_model(), tmp_path / "m")
    rewritten(tmp_path / "m", noise=np.ones(3, np.float32))
    read_model(tmp_path / "m")
    rewritten(tmp_path / "m", **arrays)
    with pytest.raises(ModelError, match=words):
        read_model(tmp_path / "m")


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path: Path) -> None:
    write_model(tiny_model(), tmp_path / "m")
    (tmp_path / "m" / "model.onnx").unlink()
    os.mkfifo(tmp_path / "m" / "model.onnx")
    with pytest.raises(ModelError, match="no ordinary file"):
        read_model(tmp_path / "m")


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    write_model(tiny_model(), tmp_path / "m")
    for name in ("manifest.json", "model.onnx", "streams.npz"):
        before = (tmp_path / "m" / name).read_bytes()
        with (tmp_path / "m" / name).open("ab") as file:
            file.truncate(3 << 30)  # a hole: it takes no room
        tracemalloc.start()
        with pytest.raises(ModelError, match=rf"{name} has 3,221,225,472 bytes"):
            read_model(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
        tracemalloc.stop()
        (tmp_path / "m" / name).write_bytes(before)
    read_model(tmp_path / "m")
