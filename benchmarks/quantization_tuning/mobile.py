"""A depthwise net on the digits, as it was trained and with channels of very unequal ranges."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.training.classifier import Recipe, accuracy, train
from benchmarks.training.digits import Digits, load
from openwork.quantization import QuantizationOptions, quantize

from .gain import Gain, error

CALIBRATION_IMAGES, BATCH = 512, 64
TRAINED, SPREAD = "as trained", "channels spread"

LINEUP = {
    "nothing": QuantizationOptions(observer="max"),
    "equalize by weights": QuantizationOptions(observer="max", equalize="weights"),
    "equalize by activations": QuantizationOptions(observer="max", equalize="activations"),
    "correct biases": QuantizationOptions(observer="max", correct_bias=True),
    "equalize by activations, correct biases": QuantizationOptions(
        observer="max", equalize="activations", correct_bias=True
    ),
}
"""What is tuned, on the largest value as the range, whose step the widest channel sets."""


@dataclass(frozen=True)
class Plan:
    """seeds: of the nets. steps: of each one's training. spread: the channels' factors are 10 to a power of
    up to this, either way.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    spread: float = 1.0


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """MobileNet's: a depthwise convolution and a pointwise one, each with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


def net(seed: int) -> nn.Sequential:
    """For images [N, 1, 8, 8] of ten classes."""
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = [block(16, 32), block(32, 48, stride=2), block(48, 48)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


@torch.no_grad()
def spread(model: nn.Sequential, decades: float, seed: int) -> nn.Sequential:
    """The same function with channel ranges that differ: BatchNorm gives each channel times a factor, and
    what reads it divides by that. The last channels, which a pool reads, keep theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    pairs = zip(layers[1::2], layers[2::2], strict=False)
    for norm, reader in pairs:
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(reader, nn.Conv2d)
        by = 10 ** ((torch.rand(norm.num_features, generator=generator) * 2 - 1) * decades)
        norm.weight.mul_(by)
        norm.bias.mul_(by)
        shape = (-1, 1, 1, 1) if reader.groups > 1 else (1, -1, 1, 1)
        reader.weight.div_(by.reshape(shape))
    return model


def run(plan: Plan) -> Iterator[Gain]:
    """Every way of tuning on every net, one after the other."""
    digits = load()
    for seed in plan.seeds:
        trained = net(seed)
        train(trained, digits, Recipe(plan.steps), seed)
        nets = {TRAINED: trained.eval(), SPREAD: spread(trained, plan.spread, seed).eval()}
        for title, model in nets.items():
            for tuned, options in LINEUP.items():
                yield _gain(model, digits, options, f"depthwise net, {title}", tuned)


@torch.no_grad()
def _gain(model: nn.Module, digits: Digits, options: QuantizationOptions, case: str, tuned: str) -> Gain:
    data: list[Tensor] = list(digits.train.images[:CALIBRATION_IMAGES].split(BATCH))
    quantized = quantize(model, data, options)
    found = error(quantized(digits.test.images), model(digits.test.images))
    return Gain(case, tuned, found, accuracy(quantized, digits.test), accuracy(model, digits.test))
