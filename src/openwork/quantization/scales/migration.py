"""Scale migration: channels of very different ranges brought to one,
the next layer's weights taking the inverse.

y = x @ W.T = (x * m) @ (W / m).T for any positive m [K]. In transformers a few input channels are tens of
times larger than the rest, and one INT8 scale for all of them leaves the rest a few levels; with m chosen
well it leaves all of them many. Zeros of W stay zeros, so a sparsity pattern holds. Source: Xiao et al. 2023,
"SmoothQuant", equation 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

# How much of the difference between the channels moves into the weights; tried in turn, see `search`.
STRENGTHS = (0.5, 0.7, 0.85)


def multiplier(input_max: Tensor, weight_max: Tensor, strength: float) -> Tensor:
    """m = weight_max^(1 - strength) / input_max^strength, each relative to its median: f32 [K], positive.

    input_max, weight_max: the largest |x| and |W| of each input channel, f32 [K]; a channel that is zero
    throughout in either counts as the median one.
    """
    return 1 / (_relative(input_max) ** strength / _relative(weight_max) ** (1 - strength))


def _relative(values: Tensor) -> Tensor:
    positive = values > 0
    if not positive.any():
        return torch.ones_like(values)
    middle = values[positive].median()
    # A hundredth of the median: a channel that is all but silent must not be blown up without bound.
    return torch.where(positive, (values / middle).clamp(min=1e-2), 1.0)
