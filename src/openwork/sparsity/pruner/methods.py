"""Ways to choose masks at once: by the pruner's criterion, by magnitude, or by calibration inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from openwork.sparsity.calibrated.oneshot import Calibration, reconstruct_model
from openwork.sparsity.calibrated.wanda import wanda_model
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.pruner.mask_choice import choose_masks, error_of
from openwork.sparsity.pruner.state import PrunerState
from openwork.support.progress import Advance

Method = Literal["magnitude", "wanda", "sparsegpt"]
CALIBRATED = {"wanda": wanda_model, "sparsegpt": reconstruct_model}

Chosen = tuple[dict[str, Tensor], dict[str, float]]
"""Masks and errors by the weights' names."""


def check_method(method: str | None, calibration: Calibration | None) -> None:
    """Raise ValueError for an unknown method, and for one that lacks its calibration inputs."""
    if method not in (None, "magnitude", *CALIBRATED):
        raise ValueError(
            'The pruning method must be "magnitude", "wanda" or "sparsegpt", or None for the pruner\'s '
            f"criterion, but it is {method!r}."
        )
    if method in CALIBRATED and calibration is None:
        raise ValueError(
            f'The method "{method}" needs calibration inputs; pass calibration=Calibration(...).'
        )


def choose_by(
    pruner: PrunerState, method: Method | None, calibration: Calibration | None, advance: Advance
) -> Chosen:
    """The masks of a method that `check_method` let pass, and each layer's error.

    "sparsegpt" adapts the weights that it keeps.
    """
    if calibration is not None and method in CALIBRATED:
        results = CALIBRATED[method](pruner.model, pruner.prunables, calibration, advance)
        return {n: r.mask for n, r in results.items()}, {n: r.error for n, r in results.items()}
    masks = choose_masks(pruner, 1.0, by_magnitude=method == "magnitude", advance=advance)
    return masks, {n: error_of(pruner.prunables[n], mask) for n, mask in masks.items()}


@contextmanager
def put_back_on_failure(prunables: Mapping[str, Prunable], method: Method | None) -> Iterator[None]:
    """Where the block raises, every weight is what it was before; only calibrated methods change weights."""
    changed = prunables.values() if method in CALIBRATED else ()
    before = [(prunable.weight, prunable.weight.detach().clone()) for prunable in changed]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for weight, values in before:
                weight.copy_(values)
        raise
