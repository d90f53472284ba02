"""Group norms as the exporters write them, and what stands around them, against ONNX Runtime and torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import openwork
from graph_models import Builder, runtime
from openwork.graph import read, reduce

EPSILON = 2.0**-23


def bound(pixels: int, group: int) -> float:
    """What a normalized number may be off by: sums of n numbers in another order, of about 1 each, and a
    dozen roundings of numbers of a few units; the numbers of a group move together."""
    return float((2 * np.sqrt(pixels * group) + 64) * EPSILON)


def operators(model: onnx.ModelProto | Path) -> list[str]:
    reduced, _, _ = reduce(read(model))
    return [node.op_type for node in reduced.graph]


def check(
    model: onnx.ModelProto, feeds: dict[str, Any], path: Path, allowed: float, native: bool = True
) -> None:
    report = openwork.build(model, path, native="force", threads=1, progress=False)
    found = openwork.load(path, threads=1).run(feeds)
    for name, wanted in runtime(model, feeds).items():
        assert np.abs(found[name] - wanted).max() <= allowed
    assert bool(report.fallbacks) != native


def stated(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The model with the shape of its output, which onnx infers for this operator from opset 21 on alone."""
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape))
    return model


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 6, 5, 3), 1),
        ((2, 6, 5, 3), 6),
        ((1, 6, 5, 7), 2),
        ((3, 20, 1, 1), 4),
        ((1, 48, 17, 19), 3),
        ((2, 33, 9, 2), 11),
        ((2, 12, 31), 4),
    ],
)
def test_the_operator(shape: tuple[int, ...], groups: int, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0), opset=21)
    x = b.input("x", list(shape))
    given = b.normal(shape[1]), b.normal(shape[1])
    norm = b.add("GroupNormalization", x, *given, num_groups=groups, epsilon=1e-5)
    model = stated(b.model(y=norm), shape)
    feeds = {"x": (3 + 2 * b.rng.standard_normal(shape)).astype(np.float32)}
    check(model, feeds, tmp_path / "m.engine", 8 * bound(int(np.prod(shape[2:])), shape[1] // groups))


@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (2, 5, 9)])
def test_instances(shape: tuple[int, ...], tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(2))
    x = b.input("x", list(shape))
    model = b.model(y=b.add("InstanceNormalization", x, b.normal(5), b.normal(5), epsilon=1e-4))
    feeds = {"x": b.rng.standard_normal(shape).astype(np.float32)}
    check(model, feeds, tmp_path / "m.engine", 8 * bound(28, 1))


def test_a_norm_by_computed_numbers_stays_with_its_reason(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(3))
    x, scale = b.input("x", [2, 4, 3, 3]), b.input("scale", [4])
    model = b.model(y=b.add("InstanceNormalization", x, scale, b.normal(4)))
    _, _, refusals = reduce(read(model))
    assert any("its scale and shift are not constants" in refusal.reason for refusal in refusals)


class Block(nn.Module):
    """A convolution, a number of each channel, a norm, an activation and another convolution."""

    def __init__(self, groups: int, channels: int = 12) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, channels, 3, padding=1), nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.GroupNorm(groups, channels)
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 2)
            self.norm.bias.uniform_(-1, 1)

    def forward(self, images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        states = self.first(images) + shift[:, :, None, None]
        made: torch.Tensor = self.second(functional.silu(self.norm(states)))
        return made


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 17), (True, 18), (True, 21)])
def test_a_block_of_both_exporters_is_three_steps(
    groups: int, dynamo: bool, opset: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, path = Block(groups).eval(), tmp_path / "m.onnx"
    feeds = {"images": torch.randn(2, 4, 7, 5), "shift": torch.randn(2, 12)}
    free: dict[str, Any] = {"dynamic_axes": {name: {0: "batch"} for name in feeds}}
    if dynamo:
        free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},) * 2, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(feeds.values()),
            str(path),
            dynamo=dynamo,
            opset_version=opset,
            input_names=list(feeds),
            **free,
        )
    found = [name for name in operators(path) if name not in ("Reshape", "ToChannelsLast", "ToChannelsFirst")]
    assert found == ["Conv", "GroupNorm", "Conv"]
    report = openwork.build(
        path, tmp_path / "m.engine", native="force", threads=1, progress=False, strict=True
    )
    assert not report.fallbacks
    made = openwork.load(tmp_path / "m.engine", threads=1).run({n: v.numpy() for n, v in feeds.items()})
    with torch.no_grad():
        wanted = module(**feeds).numpy()
    assert np.abs(next(iter(made.values())) - wanted).max() <= 108 * bound(35, 12 // groups)


def test_a_norm_that_others_read_keeps_its_activation_behind() -> None:
    b = Builder(np.random.default_rng(4))
    norm = b.add("InstanceNormalization", b.input("x", [1, 4, 3, 3]), b.normal(4), b.normal(4))
    model = b.model(y=b.add("Relu", norm), z=norm)
    assert {"GroupNorm", "Relu"} <= set(operators(model))


def test_a_quantizer_goes_into_the_norm() -> None:
    b = Builder(np.random.default_rng(5))
    norm = b.add("InstanceNormalization", b.input("x", [1, 4, 3, 3]), b.normal(4), b.normal(4))
    y = b.add("QuantizeLinear", b.add("Relu", norm), *b.quantizer(0.02, 3))
    names = operators(b.model(y=y))
    assert "GroupNorm" in names
    assert not {"Quantize", "Relu"} & set(names)
