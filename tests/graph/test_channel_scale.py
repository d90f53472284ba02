"""What scales and shifts each channel of an image: into the convolution before it, or a step of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_models import Builder, reduced
from image_models import agrees, fed, quantized, quantized_weight

CHANNELS = 8


def builder(opset: int = 20) -> Builder:
    return Builder(np.random.default_rng(2), opset)


def normal(b: Builder, *shape: int) -> dict[str, np.ndarray]:
    b.input("x", ["n", *shape[1:]])
    return {"x": b.rng.standard_normal(shape).astype(np.float32)}


def positive(b: Builder, *shape: int) -> str:
    return b.constant(b.rng.uniform(0.5, 1.5, shape).astype(np.float32))


def batch_norm(b: Builder, x: str, channels: int = CHANNELS) -> str:
    given = positive(b, channels), b.normal(channels), b.normal(channels), positive(b, channels)
    return b.add("BatchNormalization", x, *given, epsilon=1e-3)


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_goes_into_the_convolution(
    bias: bool, integers: bool, opset: int, tmp_path: Path
) -> None:
    b = builder(opset if not integers else 20)
    if integers:
        x, feeds = fed(b, 2, CHANNELS, 6, 6)
        weight, _ = quantized_weight(b, (CHANNELS, CHANNELS, 3, 3))
    else:
        x, feeds = "x", normal(b, 2, CHANNELS, 6, 6)
        weight = b.normal(CHANNELS, CHANNELS, 3, 3, scale=0.2)
    y = b.add("Conv", x, weight, *([b.normal(CHANNELS)] if bias else []), pads=[1] * 4)
    found = agrees(b.model(y=b.add("Relu", batch_norm(b, y))), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]


def test_a_norm_whose_factors_are_negative_goes_into_integers_too(tmp_path: Path) -> None:
    """Weights have positive scales: the integers of these channels change their sign."""
    b = builder()
    x, feeds = fed(b, 2, CHANNELS, 6, 6)
    weight, _ = quantized_weight(b, (CHANNELS, CHANNELS, 3, 3))
    y = b.add("Conv", x, weight)
    gamma = b.constant(np.array([1, -1, 0.5, -0.5, 0, 2, -2, 1], np.float32))
    y = b.add("BatchNormalization", y, gamma, b.normal(8), b.normal(8), positive(b, 8))
    found = agrees(b.model(y=quantized(b, y)), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]


@pytest.mark.parametrize("opset", [11, 20])
def test_a_batch_norm_of_what_is_fed_is_a_convolution_of_its_own(opset: int, tmp_path: Path) -> None:
    b = builder(opset)
    feeds = normal(b, 2, CHANNELS, 5, 6)
    found = agrees(b.model(y=batch_norm(b, "x")), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]


def test_a_norm_behind_a_convolution_that_others_read_stands_alone(tmp_path: Path) -> None:
    b = builder()
    feeds = normal(b, 2, CHANNELS, 5, 6)
    z = b.add("Conv", "x", b.normal(CHANNELS, CHANNELS, 1, 1, scale=0.3))
    found = agrees(b.model(y=batch_norm(b, z), z=z), feeds, tmp_path)
    assert found.steps.count("conv") == 2


def test_a_norm_between_a_relu_and_a_convolution(tmp_path: Path) -> None:
    """As DenseNet has it: nothing but a step of its own may take it."""
    b = builder()
    feeds = normal(b, 2, CHANNELS, 5, 6)
    y = b.add("Relu", b.add("Conv", "x", b.normal(CHANNELS, CHANNELS, 3, 3, scale=0.2)))
    y = b.add("Conv", b.add("Relu", batch_norm(b, y)), b.normal(4, CHANNELS, 1, 1, scale=0.3))
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "conv", "conv", "to_channels_first"]


@pytest.mark.parametrize("shape", [(CHANNELS, 1, 1), (1, CHANNELS, 1, 1)])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_constant_for_each_channel(op: str, shape: tuple[int, ...], behind: bool, tmp_path: Path) -> None:
    b = builder()
    feeds = normal(b, 2, CHANNELS, 5, 6)
    x = b.add("Conv", "x", b.normal(CHANNELS, CHANNELS, 3, 3, scale=0.2)) if behind else "x"
    found = agrees(b.model(y=b.add(op, x, positive(b, *shape))), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]


@pytest.mark.parametrize("behind", [False, True])
def test_a_constant_from_which_an_image_is_subtracted(behind: bool, tmp_path: Path) -> None:
    b = builder()
    feeds = normal(b, 2, CHANNELS, 5, 6)
    x = b.add("Conv", "x", b.normal(CHANNELS, CHANNELS, 3, 3, scale=0.2)) if behind else "x"
    found = agrees(b.model(y=b.add("Sub", positive(b, CHANNELS, 1, 1), x)), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]


def test_a_constant_of_as_many_columns_as_channels_is_none_of_channels(tmp_path: Path) -> None:
    b = builder()
    feeds = normal(b, 2, CHANNELS, 5, CHANNELS)
    found = agrees(b.model(y=b.add("Mul", "x", positive(b, CHANNELS))), feeds, tmp_path)
    assert found.steps == ["multiply"]


def test_numbers_that_a_product_of_scales_loses_stay() -> None:
    b = builder()
    feeds = normal(b, 1, 2, 3, 3)
    tiny = b.constant(np.array([1.0, 0.0], np.float32).reshape(2, 1, 1))
    found = reduced(b.model(y=b.add("Div", "x", tiny)), feeds)
    assert found.operators == ["onnx.Div"]
    assert "what it scales or shifts a channel by is not finite" in found.left[0]


@pytest.mark.parametrize("kind", ["training", "computed"])
def test_norms_by_what_is_not_constant_stay(kind: str) -> None:
    b = builder()
    feeds = normal(b, 2, 2, 3, 3)
    mean = b.normal(2)
    if kind == "computed":
        mean = b.input("mean", [2])
        feeds["mean"] = np.zeros(2, np.float32)
    given = positive(b, 2), b.normal(2), mean, positive(b, 2)
    y = b.add("BatchNormalization", "x", *given, training_mode=int(kind == "training"))
    if kind == "training":
        b.nodes[-1].output.extend(["running_mean", "running_variance"])
    found = reduced(b.model(y=y), feeds)
    assert found.operators == ["onnx.BatchNormalization"]
    reason = "by the batch that it sees" if kind == "training" else "its numbers are not constants"
    assert reason in found.left[0]


@pytest.mark.parametrize("op", ["Mul", "Add"])
@pytest.mark.parametrize("first", [False, True])
def test_one_pixel_of_each_image(op: str, first: bool, tmp_path: Path) -> None:
    """Squeeze and excitation: a number for each channel that the network computes."""
    b = builder()
    x, feeds = fed(b, 2, CHANNELS, 5, 6)
    squeeze, _ = quantized_weight(b, (4, CHANNELS, 1, 1), name="squeeze.weight")
    excite, _ = quantized_weight(b, (CHANNELS, 4, 1, 1), name="excite.weight")
    pixel = b.round_trip(b.add("GlobalAveragePool", x), 0.01, 128)
    pixel = b.round_trip(b.add("Relu", b.add("Conv", pixel, squeeze, b.normal(4))), 0.01, 0)
    pixel = b.add("Sigmoid", b.round_trip(b.add("Conv", pixel, excite, b.normal(CHANNELS)), 0.03, 128))
    pixel = b.round_trip(pixel, 1 / 255, 0)
    y = b.add(op, *((pixel, x) if first else (x, pixel)))
    found = agrees(b.model(y=quantized(b, y, 0.0437, 118)), feeds, tmp_path)
    made = "multiply" if op == "Mul" else "add"
    # The sigmoid is a table of bytes in the convolution before it.
    inner = ["global_average_pool", "conv", "conv", made]
    assert found.steps == ["to_channels_last", *inner, "to_channels_first"]
