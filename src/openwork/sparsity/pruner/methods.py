"""Ways to choose masks at once: by the pruner's criterion, by magnitude, or by calibration inputs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from openwork.sparsity.calibrated.layer_inputs import input_hidden
from openwork.sparsity.calibrated.oneshot import Calibration, reconstruct_model
from openwork.sparsity.calibrated.wanda import wanda_model
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.pruner.mask_choice import choose_masks, error_of
from openwork.sparsity.pruner.state import PrunerState
from openwork.support.progress import Advance

logger = logging.getLogger(__name__)

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
    if calibration is None or method not in CALIBRATED:
        masks = choose_masks(pruner, 1.0, by_magnitude=method == "magnitude", advance=advance)
        return masks, {n: error_of(pruner.prunables[n], mask) for n, mask in masks.items()}
    hidden = [name for name, prunable in pruner.prunables.items() if input_hidden(prunable)]
    masks, errors = _by_magnitude(pruner, hidden)
    seen = {name: prunable for name, prunable in pruner.prunables.items() if name not in hidden}
    results = CALIBRATED[method](pruner.model, seen, calibration, advance) if seen else {}
    masks |= {n: r.mask for n, r in results.items()}
    return masks, errors | {n: r.error for n, r in results.items()}


def _by_magnitude(pruner: PrunerState, names: list[str]) -> Chosen:
    """Masks of weights whose inputs calibration cannot see; a warning names them."""
    if not names:
        return {}, {}
    logger.warning(
        "Calibration cannot see what %s multiplies (recurrent layers and weight norm), so magnitude decides.",
        ", ".join(names),
    )
    masks = choose_masks(pruner, 1.0, by_magnitude=True)
    return {n: masks[n] for n in names}, {n: error_of(pruner.prunables[n], masks[n]) for n in names}


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
