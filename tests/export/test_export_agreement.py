"""The comparison of exported models, on networks small enough for a test, and that it can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from benchmarks.export_agreement.__main__ import _arguments as arguments
from benchmarks.export_agreement.__main__ import lines, plans
from benchmarks.export_agreement.cases import Case
from benchmarks.export_agreement.measure import Plan, Result, agreement, compare, residual_sums, violations

from openwork.models.resnet import small_resnet


def case() -> Case:
    torch.manual_seed(0)
    model = small_resnet(widths=(16, 32)).eval()
    batches = tuple({"images": torch.randn(4, 1, 8, 8)} for _ in range(3))
    return Case("small", model, batches[:2], batches[2:], "layer?.*")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("agreement")
    plan = Plan(exporter="legacy", pattern="2:4", exact_grid=True)
    return compare(case(), plan, folder), folder / "model.onnx"


def test_a_pruned_residual_network_agrees_to_the_bit(result: tuple[Result, Path]) -> None:
    """The mean over the image too: a sum of few integers, and a division by a power of two."""
    found, _ = result
    assert {name: one.largest for name, one in found.agreement.items()} == {"off": 0.0, "on": 0.0}
    assert found.blocks.largest == 0.0
    assert (found.sums, found.integer_sums) == (2, 2)
    assert found.weights == 6
    assert found.violations == 0
    assert 0.9 < found.noise.least < 0.99999
    text = "\n".join(lines(found))
    assert "residual additions in INT8 on both inputs: 2 of 2" in text
    assert "6 integer weights keep 2:4; violations: 0" in text


def test_a_float_sum_and_a_broken_weight_are_counted(result: tuple[Result, Path]) -> None:
    proto = onnx.load(result[1])
    made = {output: node for node in proto.graph.node for output in node.output}
    residual = next(
        node
        for node in proto.graph.node
        if node.op_type == "Add" and all(made.get(name) is not None for name in node.input)
    )
    residual.input[0] = made[made[residual.input[0]].input[0]].input[0]
    assert residual_sums(proto) == (2, 1)
    model = case().model
    name = "layer1.0.conv1"
    stored = next(t for t in proto.graph.initializer if t.name == f"{name}.weight")
    weight = onnx.numpy_helper.to_array(stored).copy()
    mask = torch.from_numpy(weight != 0)
    weight[~mask.numpy()] = 1
    stored.CopyFrom(onnx.numpy_helper.from_array(weight, stored.name))
    model.get_submodule(name).register_buffer("weight_mask", mask)
    found, broken = violations(proto, model)
    assert found == 1
    assert broken >= int((~mask).sum())


def test_rows_below_are_counted() -> None:
    found = agreement([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])], [torch.tensor([1.0, 0.0])] * 2)
    assert (found.below, found.rows, found.largest) == (1, 2, 1.0)
    assert found.least == pytest.approx(2**-0.5)


def test_every_combination_is_planned() -> None:
    given = arguments(["--exporters", "legacy", "--patterns", "dense", "2:4", "--observer", "max"])
    assert list(plans(given)) == [
        replace(Plan(observer="max", exporter="legacy"), style=style, pattern=pattern)
        for style in ("tensorrt", "onnxruntime")
        for pattern in (None, "2:4")
    ]
