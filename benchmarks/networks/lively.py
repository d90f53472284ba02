"""Random networks whose activations neither die nor explode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LAYER_SCALE = 0.5


def settle(model: nn.Module, images: Tensor, batches: int = 3) -> nn.Module:
    """Give a fresh model the statistics that training would: BatchNorm's of random batches, in place.

    images: [N, C, H, W], N >= 2, as the model will see them; every batch adds noise of its own. What starts a
    training nearly as nothing (ConvNeXt's `layer_scale`) becomes as large as what it is added to. The model
    comes back in evaluation mode.
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
        for _ in range(batches if norms else 0):
            model(images + 0.3 * torch.randn(images.shape, generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
