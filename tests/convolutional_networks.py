"""The convolutional families, with few channels and blocks, and weights that are the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import nn

from openwork.models import (
    ConvNeXt,
    ConvNeXtConfig,
    DenseNet,
    DenseNetConfig,
    EfficientNet,
    EfficientNetConfig,
    MobileNetV2,
    MobileNetV2Config,
    MobileNetV3,
    MobileNetV3Config,
    ResNet,
    ResNetConfig,
    Xception,
    XceptionConfig,
)

CLASSES = 10

SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(ResNetConfig("basic", (2, 1), (32, 64), classes=CLASSES)),
    "resnext": lambda: ResNet(
        ResNetConfig("bottleneck", (1, 1), (16, 32), classes=CLASSES, groups=4, width_per_group=16)
    ),
    "xception": lambda: Xception(XceptionConfig((16, 32), (32, 64), 1, (64, 64, 128), classes=CLASSES)),
    "mobilenet_v2": lambda: MobileNetV2(
        MobileNetV2Config(((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 1, 2)), stem=16, last=128, classes=CLASSES)
    ),
    "mobilenet_v3": lambda: MobileNetV3(
        MobileNetV3Config(
            ((3, 16, 16, False, False, 1), (3, 64, 24, True, False, 2), (5, 64, 24, True, True, 1)),
            hidden=64,
            classes=CLASSES,
        )
    ),
    "efficientnet": lambda: EfficientNet(
        EfficientNetConfig(((1, 3, 1, 16, 1), (4, 3, 2, 24, 2), (4, 5, 2, 32, 1)), 16, 128, classes=CLASSES)
    ),
    "densenet": lambda: DenseNet(DenseNetConfig((2, 3), growth=16, stem=32, classes=CLASSES)),
    "convnext": lambda: ConvNeXt(ConvNeXtConfig((1, 2), (32, 64), classes=CLASSES, layer_scale=0.5)),
}
"""Of each family one that takes images of 32x32 pixels and more."""


def fill(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every tensor drawn at random, by its name alone, in evaluation mode.

    The generator is one whose numbers are the same in every version of NumPy.
    """
    random = np.random.RandomState(seed)
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            drawn = random.standard_normal(tuple(tensor.shape)).astype(np.float32)
            tensor.copy_(torch.from_numpy(_values(name, drawn)))
    return model.eval()


def _values(name: str, drawn: np.ndarray) -> np.ndarray:
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(drawn)
    if name.endswith("layer_scale"):
        return 0.5 * drawn
    if drawn.ndim > 1:
        return drawn * np.float32((2 / prod(drawn.shape[1:])) ** 0.5)
    return 0.1 * drawn + (1 if name.endswith("weight") else 0)


def image(*sizes: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Random images, f32 [batch, 3, H, W]."""
    drawn = np.random.RandomState(seed).standard_normal((batch, 3, *sizes))
    return torch.from_numpy(drawn.astype(np.float32))
