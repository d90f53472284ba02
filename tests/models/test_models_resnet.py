"""ResNet: sizes and names as published, values as an independent implementation computes them."""

import re

import pytest
import torch
from torch import Tensor, nn

from openwork.models.resnet import (
    ResNet,
    ResNetConfig,
    resnet18,
    resnet34,
    resnet50,
    resnext50,
    small_resnet,
)

transformers = pytest.importorskip("transformers")

# The counts that the checkpoints' publishers state.
PUBLISHED_PARAMETERS = {
    resnet18: 11_689_512,
    resnet34: 21_797_672,
    resnet50: 25_557_032,
    resnext50: 25_028_904,
}


@pytest.mark.parametrize(
    ("make", "expected"),
    PUBLISHED_PARAMETERS.items(),
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_parameter_counts_are_the_published_ones(make, expected: int) -> None:
    with torch.device("meta"):
        model = make()
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        keys = set(resnet50().state_dict())
    assert len(keys) == 320
    expected = {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.0.weight",
        "layer3.5.conv3.weight",
        "layer4.2.bn2.num_batches_tracked",
        "fc.bias",
    }
    assert expected <= keys


def _peer_name(name: str, kind: str) -> str:
    """The other implementation's name of our tensor `name`."""
    last = 3 if kind == "bottleneck" else 2
    name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
    name = re.sub(r"^fc\.", "classifier.1.", name)
    name = re.sub(
        r"^layer(\d)\.(\d+)\.",
        lambda match: f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.",
        name,
    )
    name = name.replace("downsample.0.", "shortcut.convolution.")
    name = name.replace("downsample.1.", "shortcut.normalization.")
    for index in range(last):
        name = name.replace(f"conv{index + 1}.", f"layer.{index}.convolution.")
        name = name.replace(f"bn{index + 1}.", f"layer.{index}.normalization.")
    return name


def _randomize_statistics(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bn1.bias", "bn2.bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_forward_equals_an_independent_implementation(kind: str) -> None:
    torch.manual_seed(1)
    model = ResNet(ResNetConfig(kind, (2, 2), (16, 32), classes=7)).eval()
    _randomize_statistics(model)
    expansion = model.config.expansion
    peer = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16 * expansion, 32 * expansion],
            depths=[2, 2],
            layer_type=kind,
            num_labels=7,
        )
    ).eval()
    renamed = {_peer_name(name, kind): tensor for name, tensor in model.state_dict().items()}
    peer.load_state_dict(renamed, strict=True)
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        ours, theirs = model(images), peer(images).logits
    # The same torch kernels in the same order: only the order of the last mean may differ, by a few ulps.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def _grouped_witness(images: Tensor, weight: Tensor, groups: int) -> Tensor:
    parts = zip(images.chunk(groups, 1), weight.chunk(groups, 0), strict=True)
    return torch.cat([torch.nn.functional.conv2d(part, kernel, padding=1) for part, kernel in parts], 1)


def test_resnext_splits_its_middle_convolution_into_groups() -> None:
    torch.manual_seed(2)
    config = ResNetConfig("bottleneck", (1,), (64,), stem="small", inputs=8, groups=8, width_per_group=4)
    convolution = ResNet(config).get_submodule("layer1.0.conv2")
    assert tuple(convolution.weight.shape) == (32, 4, 3, 3)
    images = torch.randn(2, 32, 6, 6)
    expected = _grouped_witness(images, convolution.weight, 8)
    torch.testing.assert_close(convolution(images), expected, rtol=1e-5, atol=1e-5)


def test_the_small_one_keeps_the_size_of_a_small_image() -> None:
    model = small_resnet().eval()
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    stem = model.relu(model.bn1(model.conv1(torch.zeros(1, 1, 8, 8))))
    assert stem.shape == (1, 32, 8, 8)
    assert model.get_submodule("layer2")(stem).shape == (1, 64, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "basic", "blocks": (1,)}, "must name the same stages"),
        ({"block": "basic", "blocks": (), "widths": ()}, "must be positive"),
        ({"block": "basic", "blocks": (0,), "widths": (16,)}, "must be positive"),
        ({"block": "basic", "blocks": (1,), "widths": (16,), "groups": 2}, "belong to bottleneck blocks"),
        (
            {"block": "bottleneck", "blocks": (1,), "widths": (8,), "groups": 2, "width_per_group": 4},
            "too narrow for width_per_group 4",
        ),
        ({"block": "wide", "blocks": (1,), "widths": (16,)}, "block must be 'basic' or 'bottleneck'"),
    ],
)
def test_sizes_that_make_no_network_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNetConfig(**arguments)
