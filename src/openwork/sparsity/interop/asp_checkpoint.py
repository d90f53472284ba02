"""Reading the masks of checkpoints that ASP wrote.

ASP keeps a weight's mask in the buffer `__weight_mma_mask` beside it and, with allow_recompute_mask, what was
pruned in `__weight_mma_pruned_p`; the weight itself is stored masked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn

_ASP = re.compile(r"(?:(?P<module>.*)\.)?__(?P<parameter>\w+?)_mma_(?P<kind>mask|pruned_p)")
_SUFFIX = {"mask": "mask", "pruned_p": "pruned"}


def from_asp(state: Mapping[str, Any]) -> dict[str, Any]:
    """A model's state with ASP's buffers under this package's names: `weight_mask` and `weight_pruned`.

    state: of a model that ASP pruned; masks may be bool, bytes or floats. Whatever is not ASP's stays as it
    is. Raises ValueError if a mask's shape is not its weight's, or if the weight is not zero where its mask
    drops it.
    """
    renamed = {}
    for key, value in state.items():
        match = _ASP.fullmatch(key)
        if match is None:
            renamed[key] = value
            continue
        stem = f"{match['module']}.{match['parameter']}" if match["module"] else match["parameter"]
        if match["kind"] == "mask":
            value = value.bool()
            _check(stem, value, state.get(stem))
        renamed[f"{stem}_{_SUFFIX[match['kind']]}"] = value
    return renamed


def read_asp_buffers(module: nn.Module, state_dict: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
    """Hook before `load_state_dict`: gives ASP's buffers in `state_dict` the names that the model knows."""
    renamed = from_asp(state_dict)
    if renamed.keys() != state_dict.keys():
        state_dict.clear()
        state_dict.update(renamed)


def _check(name: str, mask: Tensor, weight: Tensor | None) -> None:
    if weight is None:
        return
    if mask.shape != weight.shape:
        raise ValueError(
            f"The checkpoint's mask of {name} has the shape {list(mask.shape)}, but its weight has "
            f"{list(weight.shape)}; a mask has its weight's shape."
        )
    lost = int(((weight != 0) & ~mask).sum())
    if lost:
        raise ValueError(
            f"{lost} weights of {name} in the checkpoint are not zero where ASP's mask drops them; it was "
            "saved in the middle of a step or changed afterwards."
        )
