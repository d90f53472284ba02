"""The benchmark of whole networks: what is asked for, and one small network the whole road."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from benchmarks.networks import __main__ as command
from benchmarks.networks import plans, runners, table
from benchmarks.networks.agreement import agreement, float_tolerance, int8_step
from benchmarks.networks.files import FileError, Files
from benchmarks.networks.inputs import feed, images
from benchmarks.networks.lively import settle
from benchmarks.networks.measure import Cell
from benchmarks.networks.plans import Shape, Sweep

from convolutional_networks import SMALL, image
from openwork.models import DLRM, DLRMConfig


def test_batches_sizes_and_sweeps_are_read() -> None:
    assert plans.counts("1,8") == (1, 8)
    assert plans.counts("1..64") == (1, 2, 4, 8, 16, 32, 64)
    assert plans.counts("3..20") == (3, 6, 12, 20)
    assert plans.image("2048x1024") == (2048, 1024)
    assert plans.sweep("batch=1..4") == Sweep("batch", batches=(1, 2, 4))
    assert plans.sweep("size=64x64,96x32").images == ((64, 64), (96, 32))
    assert plans.sweep("batch=1,2").shapes(9, (32, 64)) == [Shape(1, 32, 64), Shape(2, 32, 64)]
    assert plans.sweep("size=64x64,96x32").shapes(9, (1, 1)) == [Shape(9, 64, 64), Shape(9, 96, 32)]


def test_a_sweep_of_sizes_grows_evenly_to_its_end() -> None:
    sizes = plans.sweep("size=224x224..2048x1024").images
    assert (sizes[0], sizes[-1]) == ((224, 224), (2048, 1024))
    pixels = [height * width for height, width in sizes]
    steps = [late / early for early, late in pairwise(pixels)]
    assert len(sizes) >= 5
    assert all(1.5 < step < 3.5 for step in steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "alexnet"], "Expected networks of resnet18"),
        (["--patterns", "banana"], "'banana' is not a sparsity pattern"),
        (["--types", "int4"], "Expected types of int8, fp32, found int4"),
        (["--batch", "0"], 'Expected batches such as "1,8"'),
        (["--size", "224"], 'Expected a size such as "224x224"'),
        (["--sweep", "depth=1..3"], 'Expected a sweep such as "batch=1..64"'),
    ],
)
def test_what_is_none_of_these_is_refused_in_a_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_dense_is_always_measured_first() -> None:
    assert plans.patterns("2:4,dense,2:4") == ["dense", "2:4"]


def test_a_residual_block_adds_a_part_of_its_input() -> None:
    torch.manual_seed(0)
    model = settle(SMALL["resnet"](), image(32, 32, batch=4))
    block = model.get_submodule("layer1.1")
    sizes = {}
    block.bn2.register_forward_hook(lambda _module, _in, made: sizes.update(branch=made.std()))
    block.register_forward_hook(lambda _module, given, _made: sizes.update(input=given[0].std()))
    with torch.no_grad():
        model(image(32, 32, batch=4, seed=1))
    assert 0.1 < float(sizes["branch"] / sizes["input"]) < 1


def test_agreement_counts_steps_and_best_classes() -> None:
    expected = [np.array([[0.0, 1.0], [3.0, 2.0]], np.float32)]
    found = [np.array([[0.1, 1.0], [1.9, 2.0]], np.float32)]
    one = agreement(found, expected, step=0.1)
    assert (one.within, one.top1, one.images) == (0.75, 0.5, 2)
    assert one.largest == pytest.approx(1.1 / 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    patched = pytest.MonkeyPatch()
    patched.setitem(plans.NETWORKS, "small", SMALL["mobilenet_v3"])
    yield Files("small", (32, 32), tmp_path_factory.mktemp("files"))
    patched.undo()


def test_a_file_has_its_shape_pattern_and_dialect(files: Files) -> None:
    graph = onnx.load(files.path("2:4", "int8", "onnxruntime", Shape(2, 32, 48))).graph
    sizes = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [2, 3, 32, 48]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pruned, stem = stored["features.2.block.0.0.weight"], stored["features.0.0.weight"]
    assert pruned.dtype == np.int8
    # Half of them by the pattern; of the others a few round to zero.
    assert 0.5 <= np.mean(pruned == 0) < 0.6
    assert np.mean(stem == 0) < 0.1
    assert {node.op_type for node in graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}


def test_a_pattern_that_fits_no_layer_is_a_reason(files: Files) -> None:
    with pytest.raises(FileError, match=r"No layer of this model can carry 4:1024"):
        files.path("4:1024", "int8", "openwork", Shape(1, 32, 32))


def test_a_step_is_the_last_quantizers_or_a_part_of_the_range(files: Files) -> None:
    scores = [np.array([[0.0, 51.0]], np.float32)]
    rounded = files.path("dense", "int8", "onnxruntime", Shape(1, 32, 32))
    graph = onnx.load(rounded).graph
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    scale = next(tensor for tensor in graph.initializer if tensor.name == last.input[1])
    assert int8_step(rounded, scores) == pytest.approx(float(onnx.numpy_helper.to_array(scale)))
    plain = files.path("dense", "fp32", "", Shape(1, 32, 32))
    assert int8_step(plain, scores) == pytest.approx(0.2)
    assert 0 < float_tolerance(plain, scores) < 0.01 * 51


def test_images_are_lively_and_the_same_for_a_seed() -> None:
    one, other = images(Shape(2, 20, 33), 1), images(Shape(2, 20, 33), 1)
    assert one.shape == (2, 3, 20, 33)
    assert np.array_equal(one, other)
    assert 0.7 < one.std() < 1.3


def test_a_network_is_built_compared_timed_written_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(plans.NETWORKS, "small", SMALL["resnet"])
    written, drawn = tmp_path / "run.json", tmp_path / "run.png"
    given = ["--set", "small", "--size", "32x32", "--sweep", "batch=1,2", "--patterns", "2:4,4:1024"]
    given += ["--threads", "1", "--seconds", "0.01", "--rounds", "2", "--compared", "4", "--native", "off"]
    code = command.main([*given, "--one-style", "--json", str(written), "--plot", str(drawn)])
    record = json.loads(written.read_text())
    assert code == 0
    assert [cell["pattern"] for cell in record["cells"]] == ["dense", "2:4", "4:1024"] * 2
    dense, sparse, refused = record["cells"][:3]
    assert dense["dense"] == 1
    assert min(sparse["best"], sparse["dense"], *sparse["ratios"].values()) > 0
    assert sparse["agreement"]["top1"] == 1
    assert sparse["agrees"]
    assert "No layer of this model can carry 4:1024" in refused["refusal"]
    assert drawn.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "onnxruntime: " in printed
    assert "1 x 32x32" in printed


def test_a_cell_that_is_worse_than_onnx_runtime_itself_does_not_agree() -> None:
    good = agreement([np.eye(2)], [np.eye(2)], 0.1)
    bad = agreement([np.eye(2)[::-1]], [np.eye(2)], 0.1)
    cell = Cell("small", "int8", 1, "32x32", "2:4", agreement=bad, exact=good, noise=good)
    assert cell.agrees
    other = Cell("small", "int8", 1, "32x32", "2:4", agreement=bad, exact=bad, noise=good)
    assert not other.agrees
    assert table.table([other]).row_count == 1


def test_recommendations_are_fed_ids_and_scores_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = DLRMConfig(bottom=(13, 32, 16), tables=(plans.DLRM_ROWS,) + (30_000,) * 25, top=(32, 16, 1))
    monkeypatch.setitem(plans.NETWORKS, "dlrm", lambda: DLRM(small))
    made = Files("dlrm", (224, 224), tmp_path)
    path = made.path("2:4", "int8", "openwork", Shape(64, 224, 224))
    graph = onnx.load(path).graph
    sizes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input]
    assert sizes == [[64, 13], [64, 26]]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # The top is pruned and the bottom is not.
    assert np.mean(stored["top_l.2.weight"] == 0) >= 0.5
    assert np.mean(stored["bot_l.2.weight"] == 0) < 0.1
    scores = runners.exact(path, given := feed("dlrm", Shape(64, 224, 224), 1)).scores(given)
    assert scores.shape == (64, 1)
    assert scores.std() > 0.05
