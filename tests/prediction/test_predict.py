"""`openwork.predict` and its command: given layers, ONNX models, engines; errors are sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import openwork
from openwork.builder import tactics
from openwork.cli import app
from openwork.engine.problem import Convolution, MatrixProduct
from openwork.prediction.layers import ProductLayer
from openwork.prediction.machines import machine_names
from qdq_models import two_layers

LAYERS = (
    ProductLayer("up", MatrixProduct(1536, 384), 128),
    ProductLayer("down", MatrixProduct(384, 1536), 128),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(two_layers(), tmp_path / "m.onnx")
    return tmp_path


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.mark.parametrize("machine", machine_names())
def test_no_pattern_is_slower_than_dense(machine: str) -> None:
    found = openwork.predict(LAYERS, ["2:4", "16:64", "64:128@64"], machine)
    for layer in found.layers:
        assert all(layer.gain(pattern) >= 1 for pattern in found.patterns)
    assert found.gain(found.best) == max(map(found.gain, found.patterns))
    assert found.total() == pytest.approx(sum(x.dense.seconds for x in found.layers if x.dense))


def test_masks_of_64_channels_are_for_the_matrix_unit_and_own_masks_for_the_others() -> None:
    patterns = ["16:64", "64:128@64"]
    assert openwork.predict(LAYERS, patterns, "amx").best == "64:128@64"
    assert openwork.predict(LAYERS, patterns, "avx512vnni").best == "16:64"
    assert openwork.predict(LAYERS, ["2:4"], "amx").best == "dense"


def test_a_layer_that_cannot_hold_a_pattern_stays_dense_with_a_reason() -> None:
    layers = (*LAYERS, ProductLayer("narrow", MatrixProduct(64, 48), 8))
    layers += (ProductLayer("grouped", Convolution(64, 4, (3, 3), 16), 100),)
    found = openwork.predict(layers, ["16:64"])
    assert found.layers[2].reasons == {"16:64": "16:64 reaches over 64 input channels, and a tap has 48."}
    assert found.layers[3].dense is None
    assert (found.layers[2].best, found.layers[3].best) == ("dense", "dense")
    assert "a convolution in groups" in found.table()
    json.dumps(found.to_json())


def test_what_is_printed_says_that_it_is_predicted() -> None:
    found = openwork.predict(LAYERS, ["2:4"], "neon")
    assert "Predicted for neon" in found.table()
    assert "nothing here was measured" in found.table()
    assert found.to_json()["predicted"] is True
    assert found.to_json()["machine"]["basis"] == "counted"


def kinds(document: dict[str, Any]) -> list[tuple[int, int, int]]:
    return [(layer["n"], layer["k"], layer["rows"]) for layer in document["layers"]]


def test_a_model_and_its_engine_have_the_same_products(folder: Path) -> None:
    run("build", folder / "m.onnx", "-o", folder / "m.engine", "--shapes", "8")
    documents = []
    for name in ("m.onnx", "m.engine"):
        out = folder / f"{name}.json"
        text = run("predict", folder / name, "--patterns", "2:4, 4:16", "--shape", "8", "--json", out)
        assert "all products" in text
        documents.append(json.loads(out.read_text()))
    assert kinds(documents[0]) == kinds(documents[1])
    assert len(documents[0]["layers"]) == 2
    assert documents[0]["layers"] == documents[1]["layers"]
    assert set(documents[0]["products"]["gains"]) == {"2:4", "4:16"}
    assert {rows for *_, rows in kinds(documents[0])} == {8}


def test_wrong_requests_end_in_a_sentence(folder: Path) -> None:
    model = folder / "m.onnx"
    patterns = ("--patterns", "2:4")
    assert "There is no cost model of the machine 'vax'; those that there are: amx," in run(
        "predict", model, *patterns, "--machine", "vax", code=2
    )
    assert "'4of8' is not a sparsity pattern" in run("predict", model, "--patterns", "4of8", code=2)
    assert "There is no pattern to predict" in run("predict", model, "--patterns", ",", code=2)
    assert "A prediction is for one shape" in run("predict", model, *patterns, "--shape", "8,9", code=2)
    assert "No such file" in run("predict", folder / "none.engine", *patterns, code=2)
    with pytest.raises(ValueError, match=r"^Layers that are given have their own rows: give no shape"):
        openwork.predict(LAYERS, ["2:4"], shape=(1, 2))
    with pytest.raises(ValueError, match=r"^There is no layer to predict"):
        openwork.predict([], ["2:4"])
    with pytest.raises(ValueError, match=r"^The rows of the layer 'x' is at least 1"):
        ProductLayer("x", MatrixProduct(8, 8), 0)
    with pytest.raises(ValueError, match=r"^The number of threads is at least 1"):
        openwork.predict(LAYERS, ["2:4"], threads=0)


def _free_image() -> onnx.ModelProto:
    """Free height and width: a pool and a stride stand before the last convolution."""
    floats = onnx.TensorProto.FLOAT
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = [
        onnx.numpy_helper.from_array(np.full(shape, 0.1, np.float32), name)
        for name, shape in (("a", (8, 3, 3, 3)), ("b", (64, 8, 3, 3)))
    ]
    nodes = [
        node("Conv", ["x", "a"], ["c"], "first", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("MaxPool", ["c"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "b"], ["y"], "last", pads=[1, 1, 1, 1]),
    ]
    ports = (
        [info("x", floats, ["n", 3, "h", "w"])],
        [info("y", floats, ["n", 64, "oh", "ow"])],
    )
    graph = onnx.helper.make_graph(nodes, "net", *ports, weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


def test_rows_follow_from_what_the_steps_before_make(folder: Path) -> None:
    onnx.save(_free_image(), folder / "image.onnx")
    found = openwork.predict(folder / "image.onnx", ["2:4"], shape=(2, 64, 32))
    assert [layer.layer.rows for layer in found.layers] == [2 * 32 * 16, 2 * 16 * 8]
    assert not found.unsized


def test_masks_wider_than_a_layer_are_not_recommended() -> None:
    narrow = ProductLayer("head", MatrixProduct(32, 256), 64)
    found = openwork.predict([narrow], ["2:4@64"])
    assert found.best == "dense"
    assert found.layers[0].reasons == {
        "2:4@64": "2:4@64 treats 64 output channels alike, and the layer has 32."
    }


def test_a_total_says_how_many_products_it_holds() -> None:
    grouped = ProductLayer("grouped", Convolution(64, 4, (3, 3), 16), 100)
    assert "1 of 2 products" in openwork.predict([LAYERS[0], grouped], ["2:4"]).table()
    (row,) = [line for line in openwork.predict([grouped], ["2:4"]).table().splitlines() if "0 of 1" in line]
    assert row.split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("model", "patterns", "sentence"),
    [
        (None, ["2:4"], "A prediction is for the path of a model or for ProductLayers, but one is None"),
        ([1], ["2:4"], "but one is 1, of the type int"),
        (LAYERS, None, "Patterns are a list of texts"),
    ],
)
def test_what_is_no_model_and_no_list_is_refused(model: Any, patterns: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        openwork.predict(model, patterns)


def test_a_path_without_a_model_is_not_called_a_defect(folder: Path) -> None:
    error = run("predict", folder / "none.onnx", "--patterns", "2:4", code=2)
    assert "is not a file; give the path of an ONNX model" in error
    assert "report" not in error
