"""Convolutional families: sizes, names and values as published; every one exports and stays lively."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from benchmarks.networks.lively import settle
from torch import nn

from convolutional_networks import CLASSES, SMALL, fill, image
from openwork import models
from openwork.models import (
    ConvNeXtConfig,
    DenseNetConfig,
    EfficientNetConfig,
    MobileNetV2Config,
    MobileNetV3Config,
    XceptionConfig,
)
from openwork.models.blocks import StochasticDepth, divisible

PUBLISHED = {
    "resnext101_32x8d": 88_791_336,
    "xception": 22_855_952,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "densenet121": 7_978_856,
    "convnext_tiny": 28_589_128,
}
"""The counts that the checkpoints' publishers state."""

# Of torchvision 0.28's networks (Xception: timm 1.0's), filled by `fill` and given `image(size, size - 4)`:
# the digest of their tensors' names and shapes, the size, and the first four scores of the second image.
WITNESSES = {
    "mobilenet_v2": ("b37e2a9130e6341b", 97, (2.03471, -0.42236, 2.318, -1.43115)),
    "mobilenet_v3_large": ("48d34b4f39c83e39", 113, (-0.79487, 10.53912, 5.13379, 0.23801)),
    "mobilenet_v3_small": ("4e84a246a3fc7383", 97, (-0.08655, -0.37976, 0.24092, -0.43546)),
    "efficientnet_b0": ("c82a02375566e02a", 97, (0.20963, 0.46133, 0.02617, 0.32114)),
    "densenet121": ("d9126905d0ec5cf6", 97, (0.89854, -0.04298, 0.38342, 0.0081)),
    "convnext_tiny": ("76e6adcc617daa3f", 97, (-1.02716, 1.08615, -0.86277, 0.64209)),
    "xception": ("eb8389c8ce63b6cb", 113, (-12914.53125, 31957.125, -32066.73828, -8069.74609)),
}


def _make(name: str) -> Callable[..., nn.Module]:
    return getattr(models, name)


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(name: str, expected: int) -> None:
    with torch.device("meta"):
        model = _make(name)()
        other = _make(name)(classes=7)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert list(other.parameters())[-1].shape == (7,)


@pytest.mark.parametrize("name", WITNESSES)
def test_names_shapes_and_values_are_those_of_the_published_networks(name: str) -> None:
    digest, size, expected = WITNESSES[name]
    model = fill(_make(name)())
    rows = [f"{key} {list(tensor.shape)}" for key, tensor in sorted(model.state_dict().items())]
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == digest
    with torch.no_grad():
        scores = model(image(size, size - 4))
    # Other kernels sum in another order: some hundred layers, each with a few ulps of its largest value.
    bound = 1e-4 * float(scores.abs().max())
    torch.testing.assert_close(scores[1, :4], torch.tensor(expected), rtol=0, atol=bound)


@pytest.mark.parametrize("sizes", [(33, 47), (64, 40)])
@pytest.mark.parametrize("name", SMALL)
def test_images_of_odd_sizes_give_scores_that_depend_on_them(name: str, sizes: tuple[int, int]) -> None:
    with torch.no_grad():
        scores = fill(SMALL[name]())(image(*sizes, batch=3))
    assert scores.shape == (3, CLASSES)
    assert torch.isfinite(scores).all()
    assert not torch.allclose(scores[0], scores[1])


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
@pytest.mark.parametrize("name", SMALL)
def test_both_exporters_write_it_for_free_sizes(name: str, dynamo: bool, tmp_path: Path) -> None:
    model, path = fill(SMALL[name]()), tmp_path / "model.onnx"
    free = {0: "batch", 2: "height", 3: "width"}
    axes = (
        {"dynamic_shapes": (dict.fromkeys(free, torch.export.Dim.AUTO),), "verbose": False}
        if dynamo
        else {"dynamic_axes": {"images": free}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ports = {"input_names": ["images"], "output_names": ["scores"]}
        torch.onnx.export(model, (image(64, 64),), path, dynamo=dynamo, opset_version=18, **axes, **ports)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = image(71, 50, batch=3, seed=1)
    (scores,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    # Twenty layers in another order of sums, each with a few ulps of its largest value.
    bound = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["resnet34", "mobilenet_v3_large", "densenet121", "convnext_tiny"])
def test_a_settled_random_network_tells_images_apart(name: str) -> None:
    torch.manual_seed(0)
    model = settle(_make(name)(), image(64, 64, batch=4))
    spreads: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _in, made: spreads.append(float(made.std())))
    with torch.no_grad():
        scores = model(image(64, 64, batch=4, seed=1))
    assert not model.training
    assert min(spreads) > 1e-3
    assert max(spreads) < 1e3
    # Scores differ between images by no less than a tenth of what they differ between classes.
    assert scores.std(0).mean() > 0.1 * scores.std(1).mean()


def test_settling_keeps_the_momentum_and_drops_nothing() -> None:
    model = SMALL["efficientnet"]()
    momenta = [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    first = {name: tensor.clone() for name, tensor in settle(model, image(32, 32)).state_dict().items()}
    again = settle(model, image(32, 32)).state_dict()
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())


def test_stochastic_depth_drops_samples_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, states = StochasticDepth(0.25), torch.ones(4000, 2, 1, 1)
    assert layer.eval()(states) is states
    made = layer.train()(states)
    torch.testing.assert_close(made.unique(), torch.tensor([0.0, 4 / 3]))
    assert torch.equal(made[:, 0], made[:, 1])
    # Four standard deviations of the share among 4000 samples.
    assert float((made[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)


def test_channels_become_multiples_and_lose_no_tenth() -> None:
    assert [divisible(size) for size in (4, 18, 24, 60, 120, 29)] == [8, 24, 24, 64, 120, 32]


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (MobileNetV2Config, {"stages": ()}, "size of a MobileNetV2 must be positive"),
        (MobileNetV2Config, {"stem": 0}, "size of a MobileNetV2 must be positive"),
        (
            MobileNetV3Config,
            {"blocks": ((3, 8, 0, True, True, 1),)},
            "size of a MobileNetV3 must be positive",
        ),
        (EfficientNetConfig, {"stages": ()}, "size of an EfficientNet must be positive"),
        (DenseNetConfig, {"blocks": ()}, "size of a DenseNet must be positive"),
        (DenseNetConfig, {"growth": 0}, "size of a DenseNet must be positive"),
        (XceptionConfig, {"middle": -1}, "size of an Xception must be positive"),
        (ConvNeXtConfig, {"blocks": (), "widths": ()}, "size of a ConvNeXt must be positive"),
        (ConvNeXtConfig, {"blocks": (1,)}, "must name the same stages"),
    ],
)
def test_sizes_that_make_no_network_are_refused(config: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**arguments)
