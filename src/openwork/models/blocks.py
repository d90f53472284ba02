"""What several families of convolutional networks are made of.

Names of submodules follow the published checkpoints: a convolution with its norm and activation is a
Sequential of the members "0", "1", "2"; squeeze-and-excitation has `fc1` and `fc2`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` next to `channels`, and one more where that would lose over a tenth."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@dataclass(frozen=True)
class Norm:
    """The constants of a network's batch norms."""

    epsilon: float = 1e-5
    momentum: float = 0.1

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, self.epsilon, self.momentum)


@dataclass(frozen=True)
class Window:
    """What a convolution slides: odd kernel, stride, groups; the padding keeps sizes at stride 1."""

    kernel: int = 1
    stride: int = 1
    groups: int = 1

    def convolution(self, inputs: int, outputs: int) -> nn.Conv2d:
        """The convolution of this window, without bias."""
        return nn.Conv2d(
            inputs, outputs, self.kernel, self.stride, self.kernel // 2, groups=self.groups, bias=False
        )


def normed_convolution(
    inputs: int, outputs: int, window: Window, norm: Norm, activation: Activation | None
) -> nn.Sequential:
    """A convolution, its batch norm, and the activation where there is one."""
    ends = [] if activation is None else [activation()]
    return nn.Sequential(window.convolution(inputs, outputs), norm(outputs), *ends)


class SqueezeExcitation(nn.Module):
    """x * gate(fc2(activation(fc1(mean of x over height and width)))). Source: Hu et al. 2018.

    Args:
        channels: Of x.
        squeezed: Channels between `fc1` and `fc2`.
        activation: Behind `fc1`.
        gate: Behind `fc2`; gives a factor for each channel.
    """

    def __init__(self, channels: int, squeezed: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation()
        self.scale_activation = gate()

    def forward(self, states: Tensor) -> Tensor:
        factors = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(states)))))
        scaled: Tensor = factors * states
        return scaled


class StochasticDepth(nn.Module):
    """Gives zeros in the place of whole samples, in training alone. Source: Huang et al. 2016.

    Args:
        probability: That a sample of a batch is dropped; the others grow by 1 / (1 - probability).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return states
        kept = 1 - self.probability
        shape = (states.shape[0], *(1 for _ in states.shape[1:]))
        return states * (torch.empty(shape, dtype=states.dtype, device=states.device).bernoulli_(kept) / kept)


@dataclass(frozen=True)
class Bottleneck:
    """The sizes of an inverted bottleneck.

    inputs, expanded, outputs: channels, in the order in which the states pass; no first convolution where
    `expanded` is `inputs`. squeezed: channels inside of the squeeze-and-excitation; 0 for none. dropped: the
    probability of its stochastic depth.
    """

    inputs: int
    expanded: int
    outputs: int
    kernel: int
    stride: int
    squeezed: int = 0
    dropped: float = 0.0


@dataclass(frozen=True)
class Kinds:
    """The activations and norms of a network's inverted bottlenecks."""

    activation: Activation
    squeeze_activation: Activation
    gate: Activation
    norm: Norm


class InvertedBottleneck(nn.Module):
    """Expands by 1x1, filters each channel by itself, weighs the channels, projects by 1x1; adds its input.

    The sum is there where stride is 1 and as many channels come out as go in. Sources: Howard et al. 2019
    (MobileNetV3); Tan & Le 2019 (EfficientNet).
    """

    def __init__(self, sizes: Bottleneck, kinds: Kinds, activation: Activation | None = None) -> None:
        super().__init__()
        self.adds = sizes.stride == 1 and sizes.inputs == sizes.outputs
        active, inner = activation or kinds.activation, sizes.expanded
        depthwise = Window(sizes.kernel, sizes.stride, inner)
        parts: list[nn.Module] = []
        if inner != sizes.inputs:
            parts.append(normed_convolution(sizes.inputs, inner, Window(), kinds.norm, active))
        parts.append(normed_convolution(inner, inner, depthwise, kinds.norm, active))
        if sizes.squeezed:
            parts.append(SqueezeExcitation(inner, sizes.squeezed, kinds.squeeze_activation, kinds.gate))
        parts.append(normed_convolution(inner, sizes.outputs, Window(), kinds.norm, None))
        self.block = nn.Sequential(*parts)
        self.stochastic_depth = StochasticDepth(sizes.dropped) if sizes.dropped and self.adds else None

    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = self.block(states)
        if not self.adds:
            return made
        return (made if self.stochastic_depth is None else self.stochastic_depth(made)) + states


def initialize(model: nn.Module, linear: Callable[[nn.Linear], object]) -> None:
    """Kaiming-normal convolutions by their outputs, no bias; linears by `linear`, no bias."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if isinstance(module, nn.Linear):
            linear(module)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def small_normal(layer: nn.Linear) -> None:
    """A Linear's weights with a deviation of 0.01."""
    nn.init.normal_(layer.weight, 0, 0.01)
