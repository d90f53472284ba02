"""Copies of models."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def copied(model: nn.Module, way_out: str) -> nn.Module:
    """A copy of the model, without the graph of gradients that a tensor it keeps may hang on.

    way_out: what to do else, for the message. Raises ValueError where something in the model cannot be
    copied.
    """
    # torch copies no tensor that was computed; the older weight_norm keeps such a one.
    kept = (x for module in model.modules() for x in vars(module).values() if isinstance(x, Tensor))
    memo: dict[int, object] = {id(x): x.detach().clone() for x in kept if not x.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"The model cannot be copied ({reason}); {way_out}, or take out what cannot be copied."
        ) from error
