"""Random networks whose activations neither die nor explode."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from openwork.models.blocks import InvertedBottleneck
from openwork.models.mobilenet import InvertedResidual
from openwork.models.resnet import BasicBlock, Bottleneck
from openwork.models.xception import Block as XceptionBlock

_LAYER_SCALE, _BRANCH = 0.5, 0.3


def settle(model: nn.Module, images: Tensor, batches: int = 3) -> nn.Module:
    """Give a fresh model the statistics that training would: BatchNorm's of random batches, in place.

    images: [N, C, H, W], N >= 2, as the model will see them; every batch adds noise of its own. A residual
    block adds a part of its input's size, as in trained networks: where it adds as much as there is, a
    difference of one rounding grows from block to block. The model comes back in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # Without a momentum, the plain mean over the batches.
        norm.momentum = None
    generator = torch.Generator().manual_seed(0)
    # Dropout and stochastic depth stay off: only what has statistics is in training mode.
    model.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                parameter.normal_(0, _LAYER_SCALE, generator=generator)
        for norm in _last_norms(model):
            norm.weight.fill_(_BRANCH)
        for _ in range(batches if norms else 0):
            model(images + 0.3 * torch.randn(images.shape, generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def spread(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a fresh DLRM numbers as large as training makes them, in place: as it begins its products are next
    to nothing, and all scores one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.EmbeddingBag):
                module.weight.normal_(0, module.embedding_dim**-0.5, generator=generator)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, (2 / module.in_features) ** 0.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return model


def _last_norms(model: nn.Module) -> Iterator[nn.BatchNorm2d]:
    """The norms whose outputs are added to their block's own input."""
    for block in model.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            adds = block.downsample is None
        elif isinstance(block, XceptionBlock):
            adds = block.skip is None
        else:
            adds = isinstance(block, InvertedBottleneck | InvertedResidual) and block.adds
        if adds:
            yield [norm for norm in block.modules() if isinstance(norm, nn.BatchNorm2d)][-1]
