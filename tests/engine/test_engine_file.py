"""The engine file: what is written is read back, any damage is found, and no field is believed unchecked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from engine_files import rewritten
from engine_samples import encoder
from openwork.engine import file_tensors
from openwork.engine.engine_file import read_engine, write_engine
from openwork.engine.program import Named, Step, Value
from openwork.engine.program_values import check_free_dimensions
from openwork.support.fields import EngineFileError, Field

SEED = 20261120


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "good.engine"
    program, tensors = encoder()
    write_engine(path, program, {"layers": []}, tensors)
    return path


def test_what_is_written_is_read_back(engine: Path) -> None:
    program, tensors = encoder()
    read = read_engine(engine)
    assert read.program == program
    assert read.report.value == {"layers": []}
    assert read.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)


def test_stock_safetensors_reads_the_same_tensors(engine: Path) -> None:
    _, tensors = encoder()
    with safetensors.safe_open(engine, framework="numpy") as file:
        assert file.metadata()["openwork_format"] == "5"
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), tensor)


def test_tensors_are_views_of_the_file_aligned_and_read_only(engine: Path) -> None:
    for name, tensor in read_engine(engine).tensors.items():
        assert tensor.ctypes.data % file_tensors.ALIGNMENT == 0, name
        assert not tensor.flags.owndata, name
        assert not tensor.flags.writeable, name


def test_writing_twice_gives_the_same_bytes(engine: Path, tmp_path: Path) -> None:
    program, tensors = encoder()
    write_engine(tmp_path / "again.engine", program, {"layers": []}, tensors)
    assert (tmp_path / "again.engine").read_bytes() == engine.read_bytes()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(EngineFileError) as raised:
        read_engine(path).tensors.verify()
    assert str(path) in str(raised.value)
    assert str(raised.value).endswith(".")
    return str(raised.value)


def places(content: bytes) -> list[int]:
    """The first and last byte of each region of the file, and 2,000 random ones."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    bounds = {0, 7, 8, start - 1, start, len(content) - 1}
    for key, entry in header.items():
        if key == "__metadata__":
            bounds |= {content.index(f'"{name}"'.encode()) + 1 for name in entry}
            digests = json.loads(entry["tensor_sha256"])
            bounds |= {content.index(text.encode()) for text in (entry["header_sha256"], *digests.values())}
        else:
            bounds |= {start + entry["data_offsets"][0], start + entry["data_offsets"][1] - 1}
    return sorted(bounds) + np.random.default_rng(SEED).integers(0, len(content), 2000).tolist()


def test_any_altered_byte_is_found(engine: Path, tmp_path: Path) -> None:
    content = engine.read_bytes()
    bits = np.random.default_rng(SEED).integers(1, 256, 1 << 14)
    for count, place in enumerate(places(content)):
        altered = bytearray(content)
        altered[place] ^= int(bits[count])
        refused(tmp_path / f"byte{place}.engine", bytes(altered))
        (tmp_path / f"byte{place}.engine").unlink()


def test_a_file_cut_short_or_grown_is_found(engine: Path, tmp_path: Path) -> None:
    content = engine.read_bytes()
    lengths = np.random.default_rng(SEED).integers(0, len(content), 300).tolist()
    for length in [*range(0, 80), len(content) - 1, len(content) - 64, *lengths]:
        refused(tmp_path / "cut.engine", content[:length])
    for tail in (b"\0", b"\0" * 64):
        refused(tmp_path / "grown.engine", content + tail)


def altered(engine: Path, path: Path, name: str) -> Path:
    """The engine with one bit of a tensor changed."""
    content = bytearray(engine.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + json.loads(content[8:start])[name]["data_offsets"][0]] ^= 1
    path.write_bytes(content)
    return path


def test_a_tensor_is_checked_when_it_is_first_read(engine: Path, tmp_path: Path) -> None:
    read = read_engine(altered(engine, tmp_path / "a.engine", "word"))
    np.testing.assert_array_equal(read.tensors["position"], encoder()[1]["position"])
    for _ in range(2):
        with pytest.raises(
            EngineFileError, match=r"a\.engine: field 'header\.word': expected the bytes that were"
        ):
            read.tensors["word"]
    with pytest.raises(EngineFileError, match="the file is damaged or was altered"):
        read.tensors.verify()
    assert read.tensors.mapped["word"].shape == encoder()[1]["word"].shape


def test_large_tables_are_checked_on_demand(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = altered(engine, tmp_path / "a.engine", "word")
    with pytest.raises(EngineFileError, match=r"field 'header\.word'"):
        read_engine(path).tensors.table("word")
    monkeypatch.setattr(file_tensors, "LARGEST_CHECKED_TABLE", encoder()[1]["word"].nbytes - 1)
    read = read_engine(path)
    assert read.tensors.table("word").shape == encoder()[1]["word"].shape
    np.testing.assert_array_equal(read.tensors.table("type"), encoder()[1]["type"])
    with pytest.raises(EngineFileError, match=r"field 'header\.word'"):
        read.tensors.verify()


def test_a_rewritten_header_is_otherwise_believed(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "same.engine").write_bytes(rewritten(engine, lambda header, program: None))
    assert read_engine(tmp_path / "same.engine").program == encoder()[0]


def step(program: dict[str, Any], op: str) -> dict[str, Any]:
    return next(step for step in program["steps"] if step["op"] == op)


LIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "version": (
        lambda h, p: h["__metadata__"].update(openwork_format="1"),
        "'header.__metadata__.openwork_format': expected '5' (another version of openwork wrote this engine: "
        "build it again from its model), found '1'",
    ),
    "metadata gone": (lambda h, p: h.update(__metadata__={}), "is no engine file; build one"),
    "metadata half": (lambda h, p: h["__metadata__"].pop("report"), "an object with the member 'report'"),
    "metadata more": (lambda h, p: h["__metadata__"].update(x="1"), "unknown member 'x'"),
    "no digest": (
        lambda h, p: h["__metadata__"].update(tensor_sha256="{}"),
        "'tensor_sha256': expected an object with the member",
    ),
    "a digest of another tensor": (
        lambda h, p: h["__metadata__"].update(
            tensor_sha256=h["__metadata__"]["tensor_sha256"].replace('"word":', '"work":')
        ),
        "'tensor_sha256': expected an object with the member 'word'",
    ),
    "a digest that is none": (
        lambda h, p: h["__metadata__"].update(
            tensor_sha256=h["__metadata__"]["tensor_sha256"].replace('"word":"', '"word":"x', 1)
        ),
        "'tensor_sha256.word': expected a",
    ),
    "program no json": (lambda h, p: h["__metadata__"].update(program=None), "a string of 1 to"),
    "tensor type": (
        lambda h, p: h["word"].update(dtype="F64"),
        "'header.word.dtype': expected one of U8, I8, BF16, F32",
    ),
    "tensor shape": (lambda h, p: h["word"].update(shape=[23, 17]), "'header.word.data_offsets': expected"),
    "tensor shape text": (lambda h, p: h["word"].update(shape="x"), "'header.word.shape': expected an array"),
    "tensor negative": (
        lambda h, p: h["word"].update(shape=[-23, -16]),
        "'header.word.shape[0]': expected an integer",
    ),
    "tensor huge": (
        lambda h, p: h["word"].update(shape=[2**60]),
        "'header.word.shape[0]': expected an integer",
    ),
    "tensor overlap": (
        lambda h, p: h["type"].update(data_offsets=[0, 128]),
        "'header.type.data_offsets': expected",
    ),
    "tensor unused": (
        lambda h, p: p["steps"][0].update(tensors=dict(list(p["steps"][0]["tensors"].items())[:2])),
        "expected 'type' of step 'embedding_sum.0' to be given exactly where 'type_ids' is, found absent",
    ),
    "tensor unknown": (
        lambda h, p: p["steps"][0]["tensors"].update(word="nothing"),
        "'program.steps[0].tensors.word': expected the name of a tensor of the file, found 'nothing'",
    ),
    "tensor swapped": (
        lambda h, p: step(p, "linear")["tensors"].update(weight_scale="word"),
        "expected 'weight_scale' of step 'linear.2' to be f32 [N]",
    ),
    "op": (
        lambda h, p: p["steps"][0].update(op="exec"),
        "'program.steps[0].op': expected one of embedding_sum",
    ),
    "value index": (
        lambda h, p: p["steps"][0].update(inputs=[999, None]),
        "'program.steps[0].inputs[0]': expected",
    ),
    "value bool": (
        lambda h, p: p["steps"][0].update(inputs=[True, None]),
        "'program.steps[0].inputs[0]': expected",
    ),
    "value early": (lambda h, p: p["steps"][0].update(inputs=[5, 1]), "a value that an earlier step makes"),
    "value twice": (
        lambda h, p: [step for step in p["steps"] if step["op"] == "layer_norm"][-1]["outputs"].__setitem__(
            1, 3
        ),
        "a value that nothing before has made",
    ),
    "value type": (lambda h, p: p["values"][4].update(dtype="u8"), "to be f32 [...,N]"),
    "value shape": (lambda h, p: p["values"][3].update(shape=["batch", "length", 8]), "in agreement with"),
    "value dims": (lambda h, p: p["values"][0].update(shape=["batch", "other"]), "in agreement with"),
    "value order": (lambda h, p: p["values"][3].update(shape=["length", "batch", 16]), "in agreement with"),
    "value that nothing makes": (
        lambda h, p: p["values"].append({"dtype": "f32", "shape": [1]}),
        f"'program.values': expected at most {len(encoder()[0].values)} values, one for each input and each",
    ),
    "a value of an index beyond them all": (
        lambda h, p: (
            p["values"].append({"dtype": "f32", "shape": [1]}),
            p["inputs"].append({"name": "new", "value": 10**6}),
        ),
        f"'program.inputs[3].value': expected an integer from 0 to {len(encoder()[0].values)}, found 1000000",
    ),
    "arity": (lambda h, p: p["steps"][0]["inputs"].append(None), "3 entries (ids, type_ids, behind)"),
    "needed input": (
        lambda h, p: step(p, "layer_norm").update(inputs=[None]),
        "expected 'x' of step 'layer_norm.1' to be given, found absent",
    ),
    "scale": (
        lambda h, p: step(p, "linear")["attributes"].update(x_scale=0.0),
        "attributes.x_scale': expected 'x_scale' of step 'linear.2' to be a number from",
    ),
    "scale tiny": (
        lambda h, p: step(p, "linear")["attributes"].update(x_scale=1e-60),
        "to be a number from 1.17549e-38 to 3.40282e+38, found",
    ),
    "scale text": (
        lambda h, p: step(p, "linear")["attributes"].update(x_scale="1"),
        "to be a number from 1.17549e-38 to 3.40282e+38, found",
    ),
    "zero point": (
        lambda h, p: step(p, "linear")["attributes"].update(x_zero_point=256),
        "an integer from 0 to 255",
    ),
    "activation": (
        lambda h, p: step(p, "linear")["attributes"].update(activation="tan"),
        "one of none, relu, clip, leaky_relu, hard_sigmoid, hard_swish, gelu, gelu_tanh, silu, sigmoid, tanh",
    ),
    "activation without its numbers": (
        lambda h, p: step(p, "linear")["attributes"].update(activation="clip", alpha=0.0),
        "to be clip with exactly the numbers ['alpha', 'beta'], found clip with ['alpha']",
    ),
    "activation with numbers": (
        lambda h, p: step(p, "linear")["attributes"].update(activation="relu", alpha=0.0),
        "to be relu with exactly the numbers [], found relu with ['alpha']",
    ),
    "ends of a clip": (
        lambda h, p: step(p, "linear")["attributes"].update(activation="clip", alpha=2.0, beta=1.0),
        "to be at most 'beta', the other end of the clip, found 2.0 with a 'beta' of 1.0",
    ),
    "residual's numbers": (
        lambda h, p: step(p, "linear")["attributes"].update(residual_scale=0.5),
        "to be given only together with 'residual' and 'residual_zero_point', found given alone",
    ),
    "attribute more": (
        lambda h, p: step(p, "linear")["attributes"].update(z=1),
        "attributes.z': expected 'z' of step 'linear.2' to be absent (the attributes of Linear are: x_",
    ),
    "attribute half": (
        lambda h, p: step(p, "attention")["attributes"].pop("y_scale"),
        "'y_zero_point' of step 'attention.3' to be given only together with 'y_scale'",
    ),
    "attribute gone": (
        lambda h, p: step(p, "attention")["attributes"].pop("heads"),
        "'heads' of step 'attention.3' to be given: an integer from 1 to 65535, found absent",
    ),
    "heads": (lambda h, p: step(p, "attention")["attributes"].update(heads=3), "a divisor of the width 16"),
    "keys without values": (
        lambda h, p: step(p, "attention").update(inputs=[6, 6, None, 2, None, None, None]),
        "inputs[1]': expected 'k' of step 'attention.3' to be given only together with 'v'",
    ),
    "three of another width": (
        lambda h, p: step(p, "attention").update(inputs=[3, None, None, 2, None, None, None]),
        "to be three times as wide as the result where k and v are absent, found 16",
    ),
    "weights of another kind": (
        lambda h, p: [step(p, "linear")["attributes"].pop(name) for name in ("x_scale", "x_zero_point")],
        "'weight_scale' of step 'linear.2' to be given only together with 'x_scale'",
    ),
    "pattern": (
        lambda h, p: step(p, "linear").update(pattern="4:2"),
        "expected the name of a pattern, found",
    ),
    "pattern blocks": (
        lambda h, p: step(p, "linear").update(pattern="4x1:0.8"),
        "expected the name of a tensor of the file",
    ),
    "pattern other": (
        lambda h, p: step(p, "linear").update(pattern="4:16"),
        "expected values and indices of",
    ),
    "pattern none": (lambda h, p: step(p, "linear").update(pattern=None), "expected the name of a tensor"),
    "tactics": (
        lambda h, p: step(p, "linear").update(tactics=[]),
        "'max_rows' that increase and end with null",
    ),
    "tactics order": (
        lambda h, p: step(p, "linear").update(
            tactics=[
                {"max_rows": 9, "tactic": "dense"},
                {"max_rows": 9, "tactic": "dense"},
                {"max_rows": None, "tactic": "dense"},
            ]
        ),
        "'max_rows' that increase",
    ),
    "tactic": (
        lambda h, p: step(p, "linear").update(tactics=[{"max_rows": None, "tactic": "zzz"}]),
        "tactics[0].tactic': expected the text of a tactic, like 'window8' or 'f32:dense', found 'zzz'",
    ),
    "tactics elsewhere": (
        lambda h, p: p["steps"][0].update(tactics=[{"max_rows": None, "tactic": "dense"}]),
        "'tactics' with an operator that has a weight",
    ),
    "output unmade": (
        lambda h, p: p.update(outputs=[{"name": "a", "value": 0}, {"name": "a", "value": 0}]),
        "a different name for each entry",
    ),
    "no outputs": (lambda h, p: p.update(outputs=[]), "at least one output"),
    "members": (lambda h, p: p.update(extra=1), "unknown member 'extra'"),
}


@pytest.mark.parametrize("name", LIES)
def test_no_field_is_believed_unchecked(name: str, engine: Path, tmp_path: Path) -> None:
    change, message = LIES[name]
    assert message in refused(tmp_path / "lie.engine", rewritten(engine, change))


def test_a_free_dimension_that_no_input_has_is_refused() -> None:
    values = (Value("f32", ("batch",)), Value("f32", ("other",)))
    field = Field("x.engine", "values", [{"shape": list(value.shape)} for value in values])
    check_free_dimensions(field, values[:1] * 2, (Named("x", 0),), [])
    with pytest.raises(EngineFileError, match=r"'values\[1\]': expected free dimensions that an input has"):
        check_free_dimensions(field, values, (Named("x", 0),), [])


def test_a_free_dimension_is_one_that_a_native_step_makes_of_others() -> None:
    """A pool with strides makes a height; a relu makes none, so that a name behind it is nobody's."""
    values = (Value("f32", ("n", "h", 8, 4)), Value("f32", ("n", "y.1", 4, 4)))
    field = Field("x.engine", "values", [{"shape": list(value.shape)} for value in values])
    window = {"kernel": [2, 2], "strides": [2, 2], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
    pool = Step("max_pool", "pool", (0,), (1,), {}, window, backend="cpu")
    check_free_dimensions(field, values, (Named("x", 0),), [pool])
    relu = Step("relu", "relu", (0,), (1,), {}, {}, backend="cpu")
    with pytest.raises(EngineFileError, match="or that a step makes, found"):
        check_free_dimensions(field, values, (Named("x", 0),), [relu])


def test_hostile_json_is_refused(engine: Path, tmp_path: Path) -> None:
    start = 8 + int.from_bytes(engine.read_bytes()[:8], "little")
    for text in (
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b"\xff\xfe",
        b"1" * 9_000,
        b'{"a":NaN}',
        b"{}",
        b"[]",
        b"null",
    ):
        padded = text + b" " * (-(8 + len(text)) % 64)
        refused(tmp_path / "json.engine", len(padded).to_bytes(8, "little") + padded + bytes(start))
    refused(tmp_path / "length.engine", b"\xff" * 8 + b"{}")


@pytest.mark.parametrize(
    "content",
    [b"\x08\x08\x12\x07pytorch" * 9, b"a plain text, long enough for a header", b"PK\3\4" * 40, b"\xff" * 9],
)
def test_what_is_no_engine_is_called_so(content: bytes, tmp_path: Path) -> None:
    message = refused(tmp_path / "m.onnx", content)
    assert message == f"'{tmp_path / 'm.onnx'}' is no engine file; build one with `openwork build`."


def test_a_file_of_another_program_in_the_same_container_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for length in range(1, 9):
        safetensors.numpy.save_file({"a" * length: np.zeros(3, np.float32)}, path)
        assert "is no engine file" in refused(path, path.read_bytes())


def test_a_damaged_engine_keeps_its_precise_sentence(engine: Path, tmp_path: Path) -> None:
    content = engine.read_bytes()
    length = "field 'header length': expected a length that ends on a multiple of 64"
    for cut in (9, 20, 200, 1000):
        assert length in refused(tmp_path / "cut.engine", content[:cut])
    assert length in refused(tmp_path / "altered.engine", b"\1" + content[1:])
    assert "field 'header'" in refused(tmp_path / "altered.engine", content[:8] + b"[" + content[9:])


def test_other_than_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match="expected a file"):
        read_engine(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_engine(tmp_path / "none.engine")


def test_a_write_that_fails_leaves_nothing_and_the_old_file(engine: Path, tmp_path: Path) -> None:
    program, tensors = encoder()
    target = tmp_path / "kept.engine"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="and f32 tensors, but 'odd' is float64"):
        write_engine(target, program, {}, {**tensors, "odd": np.zeros(3)})
    with pytest.raises(ValueError, match="no empty tensors"):
        write_engine(target, program, {}, {**tensors, "odd": np.zeros(0, np.float32)})
    with pytest.raises(FileNotFoundError):
        write_engine(tmp_path / "no folder" / "x.engine", program, {}, tensors)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.engine"]


def test_a_replaced_file_leaves_the_mapped_one_as_it_was(engine: Path, tmp_path: Path) -> None:
    program, tensors = encoder()
    target = tmp_path / "replaced.engine"
    write_engine(target, program, {}, tensors)
    first = read_engine(target)
    other = {
        name: tensor + tensor.dtype.type(1) for name, tensor in tensors.items() if tensor.dtype == np.float32
    }
    write_engine(target, program, {}, {**tensors, **other})
    np.testing.assert_array_equal(first.tensors["word"], tensors["word"])
