"""Finding torch's optimizer inside the wrappers that training packages put around it."""

from __future__ import annotations

from typing import Any

import torch


def torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer whose own `step` runs the hooks: `optimizer`, or the one that it wraps as `.optimizer`.

    Accelerate's and Lightning's wrappers call themselves optimizers but have no hooks of their own. Raises
    TypeError where there is none.
    """
    inner = optimizer
    while not hasattr(inner, "_optimizer_step_pre_hooks") and hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        raise TypeError(
            f"A torch.optim.Optimizer, or a wrapper that holds one as .optimizer, was expected, but this is "
            f"{type(optimizer).__name__}."
        )
    return inner
