"""A module that one forward calls several times: a quantizer for each call, one weight quantizer for all."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from openwork.export import ExportOptions, export
from openwork.quantization import (
    QuantizationAwareTraining,
    QuantizationOptions,
    calibrate,
    measure_errors,
    prepare,
    quantize,
)
from openwork.quantization.fake_quantization.calls import CallQuantizers
from openwork.quantization.float_onnx import quantize_onnx

STYLES = ("tensorrt", "onnxruntime", "openwork")
EXPORTERS = ("dynamo", "legacy")
LARGE, SMALL = 100.0, 0.1


class Head(nn.Module):
    """One convolution for two levels, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(a), self.head(b)


class Block(nn.Module):
    """Layers, a residual sum and one ReLU for all."""

    def __init__(self, relu: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(8, 8), nn.Linear(8, 8), relu

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.second(self.relu(self.first(x))))


class Twice(nn.Module):
    """A block called for each of two inputs, and products of functions within."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.block, self.relu = Block(relu), relu
        self.table = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.block(a), self.block(b)
        return functional.linear(self.relu(a), self.table), functional.linear(self.relu(b), self.table)


class Attended(nn.Module):
    """One attention for two sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(self.attention(x, x, x, need_weights=False)[0] for x in (a, b))  # type: ignore[return-value]


class Functional(nn.Module):
    """A module without layers of its own, whose forward calls functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3) / 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel, padding=1)


class Levels(nn.Module):
    """A module of functions called in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.level = Functional()

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return [self.level(x) for x in (a, b)]


def case(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model: nn.Module = {"head": Head, "block": Twice, "attention": Attended, "functions": Levels}[name]()
    shape = {"head": (4, 4, 8, 8), "block": (16, 8), "attention": (4, 6, 16), "functions": (4, 4, 8, 8)}[name]
    return model.eval(), (torch.rand(shape) * LARGE, torch.rand(shape) * SMALL)


CASES = ("head", "block", "attention", "functions")
# Style "openwork" leaves `nn.MultiheadAttention` in float.
COMBINATIONS = [
    (name, style) for name in CASES for style in STYLES if (name, style) != ("attention", "openwork")
]


def varying(x: Tensor) -> Tensor:
    """What is not the same for all positions: a bias says nothing about a quantizer."""
    return (x - x.mean(0, keepdim=True)).flatten()


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(varying(one), varying(other), dim=0))


def run(path: Path, feed: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]).run(None, feed))


@pytest.mark.parametrize(("name", "style"), COMBINATIONS)
def test_calls_of_other_ranges_are_as_accurate_as_the_modules_apart(name: str, style: Any) -> None:
    model, batch = case(name)
    options = QuantizationOptions(style=style)
    with torch.no_grad():
        both = quantize(model, [batch], options)(*batch)
        # The witness: the model quantized for each of the two inputs by itself, which has one range.
        alone = [quantize(model, [(x, x)], options)(x, x) for x in batch]
        exact = model(*batch)
    for i in range(2):
        assert cosine(both[i], exact[i]) > 0.995, "four layers of 8 bits at most"
        assert cosine(both[i], exact[i]) >= cosine(alone[i][i], exact[i]) - 1e-4


def test_each_call_has_the_onnx_roads_accuracy(tmp_path: Path) -> None:
    model, (a, b) = case("head")
    export(model, {"a": a, "b": b}, tmp_path / "float.onnx", ExportOptions(output_names=("ya", "yb")))
    feed = {"a": a.numpy(), "b": b.numpy()}
    quantize_onnx(tmp_path / "float.onnx", [feed]).write(tmp_path / "int8.onnx")
    onnx_road = torch.from_numpy(run(tmp_path / "int8.onnx", feed)[1])
    with torch.no_grad():
        torch_road = quantize(model, [(a, b)])(a, b)[1]
        exact = model(a, b)[1]
    assert round(cosine(torch_road, exact), 3) == round(cosine(onnx_road, exact), 3) == 1.0


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(("name", "style"), COMBINATIONS)
def test_both_exporters_write_every_call(name: str, style: Any, exporter: Any, tmp_path: Path) -> None:
    model, (a, b) = case(name)
    quantized = quantize(model, [(a, b)], QuantizationOptions(style=style))
    path = export(quantized, {"a": a, "b": b}, tmp_path / "m.onnx", ExportOptions(exporter=exporter))
    with torch.no_grad():
        expected = quantized(a, b)
    for found, wanted in zip(run(path, {"a": a.numpy(), "b": b.numpy()}), expected, strict=True):
        # A sum in another order may move a number across a rounding border: by one step of its quantizer.
        assert cosine(torch.from_numpy(found), wanted) > 0.9999
        assert abs(found - wanted.numpy()).max() < 0.02 * wanted.abs().max()


def test_one_quantizer_stands_where_calls_see_one_tensor() -> None:
    model, (a, b) = case("head")
    prepared = prepare(model, (a, b))
    head: Any = prepared.model.head
    assert isinstance(head.input_quantizer, CallQuantizers)
    assert list(prepared.quantizers) == ["head.input_quantizer.0", "head.input_quantizer.1"]
    assert len([key for key in prepared.model.state_dict() if "weight_quantizer.scale" in key]) == 1
    assert "for each of its 2 calls" in prepared.table()
    same: Any = prepare(model, (a, a)).model
    assert not isinstance(same.head.input_quantizer, CallQuantizers)
    assert "head.input_quantizer.scale" in same.state_dict()


def test_state_copies_and_caches_hold_every_call(tmp_path: Path) -> None:
    model, batch = case("block")
    quantized = calibrate(prepare(model, batch), [batch], cache=tmp_path / "cache.json")
    expected = quantized(*batch)
    other = prepare(copy.deepcopy(model), batch).model
    other.load_state_dict(quantized.state_dict())
    cached = calibrate(prepare(model, batch), None, cache=tmp_path / "cache.json")
    for again in (other, cached, copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        for _ in range(2):
            for found, wanted in zip(again(*batch), expected, strict=True):
                assert torch.equal(found, wanted)


def test_quantized_calls_compile_whole() -> None:
    model, batch = case("block")
    quantized = quantize(model, [batch])
    compiled = torch.compile(quantized, backend="eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            for found, wanted in zip(compiled(*batch), quantized(*batch), strict=True):
                assert torch.equal(found, wanted)


def test_errors_and_biases_are_measured_call_by_call() -> None:
    model, batch = case("block")
    report = measure_errors(quantize(model, [batch]), [batch])
    rows = {row.name: row for row in report.layers}
    assert {"block.first", "block.add0_right_quantizer.0", "block.add0_right_quantizer.1"} <= set(rows)
    assert all(row.alone.snr > 25 for row in report.layers), "the second run takes the quantizers of its call"
    corrected = calibrate(prepare(model, batch, QuantizationOptions(correct_bias=True)), [batch] * 2)
    with torch.no_grad():
        assert cosine(corrected(*batch)[1], model(*batch)[1]) > 0.995


@pytest.mark.parametrize("learned", ["no", "step", "amax"])
def test_training_moves_the_quantizers_of_all_calls(learned: Any) -> None:
    model, batch = case("head")
    quantized: Any = quantize(model, [batch], QuantizationOptions(learned=learned))
    training = QuantizationAwareTraining(quantized)
    optimizer = torch.optim.Adam(training.parameter_groups(), lr=1e-4)
    training.attach(optimizer)
    before = copy.deepcopy(quantized.state_dict())
    for _ in range(2):
        optimizer.zero_grad()
        sum(y.square().mean() for y in quantized(*batch)).backward()
        optimizer.step()
    after = quantized.state_dict()
    key = "amax" if learned == "amax" else "scale"
    for call in range(2):
        name = f"head.input_quantizer.{call}.{key}"
        assert torch.equal(before[name], after[name]) == (learned == "no")
    training.finish(batch)
    assert all(q.mode == "frozen" for q in quantized.head.input_quantizer.each)


class Steps(nn.Module):
    """As many calls as the first dimension is long."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x[0])
        for one in x:
            y = torch.maximum(self.step(one), y)
        return y


def test_other_numbers_of_calls_are_fewer_or_refused() -> None:
    torch.manual_seed(0)
    model, x = Steps().eval(), torch.randn(3, 5, 4)
    quantized: Any = quantize(model, [x])
    assert len(quantized.step.input_quantizer.each) == 3
    # Fewer calls take the quantizers of the first ones.
    two = quantized(x[:2])
    first, second = quantized.step.input_quantizer.each[:2]
    weight = quantized.step.weight_quantizer(quantized.step.weight)
    wanted = [
        functional.linear(q(y), weight, quantized.step.bias)
        for q, y in zip((first, second), x[:2], strict=True)
    ]
    assert torch.equal(two, torch.maximum(wanted[1], wanted[0].relu()))
    sentence = r"step is called 4 times in one forward, but .* each of the 3 calls .* calls='together'"
    with pytest.raises(ValueError, match=sentence):
        quantized(torch.cat([x, x]))
    assert torch.equal(quantized(x[:2]), two), "the next forward begins anew"
    with pytest.raises(ValueError, match="step is called outside of the model's forward, but"):
        quantized.step(x[0])
    together: Any = quantize(model, [x], QuantizationOptions(calls="together"))
    assert not isinstance(together.step.input_quantizer, CallQuantizers)
    assert together(torch.cat([x, x])).shape == (5, 4)
    assert together.step(x[0]).shape == (5, 4)


class Checkpointed(nn.Module):
    """Two calls that are run once more in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = checkpoint(self.layer, x, use_reentrant=False)
        return x


def test_checkpointed_activations_are_refused_in_a_sentence() -> None:
    x = torch.randn(3, 4)
    quantized = quantize(Checkpointed().eval(), [x])
    with pytest.raises(ValueError, match=r"outside of the model's forward.*checkpointed activations need"):
        quantized(x.requires_grad_()).sum().backward()
    quantize(Checkpointed().eval(), [x], QuantizationOptions(calls="together"))(x).sum().backward()


def test_calls_that_share_a_quantizer_are_named_where_their_ranges_differ(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, (a, b) = case("head")
    options = QuantizationOptions(calls="together")
    with caplog.at_level(logging.WARNING):
        quantize(model, [(a, b)], options)
    assert (
        "The calls of head share one quantizer, but call 1 reaches 0.0999 and call 0 100, so" in caplog.text
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        quantize(model, [(a, a / 2)], options)
    assert "share one quantizer" not in caplog.text


def test_threads_count_their_own_calls() -> None:
    model, batch = case("head")
    quantized = quantize(model, [batch])
    expected, wrong = quantized(*batch), []

    def work() -> None:
        for _ in range(20):
            found = quantized(*batch)
            wrong.extend(1 for one, other in zip(found, expected, strict=True) if not torch.equal(one, other))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_rows_of_one_table_share_one_quantizer_over_all_calls() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 4)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(self.table(a)) + self.head(self.table(b))

    ids = torch.tensor([[1, 2]]), torch.tensor([[3, 4]])
    quantized: Any = quantize(Pairs().eval(), [ids])
    assert quantized.table.output_quantizer is quantized.head.input_quantizer
    assert np.isfinite(quantized(*ids).detach().numpy()).all()
