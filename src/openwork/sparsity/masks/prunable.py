"""One weight that a pattern may be put on: where it lives, how it is read, its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.masks.eligibility import LayerEligibility
from openwork.sparsity.masks.view import WeightView, parameter_of, stands_for, weights_of

PATTERN_SUFFIX = "_pattern"


@dataclass(frozen=True)
class Prunable:
    """A weight of a model with its view and the pattern that it is to keep.

    name: the module's name, followed by the parameter's where that is not `weight`. The mask is the module's
    buffer `<parameter>_mask`, boolean, true = kept, and so part of the model's `state_dict`. Beside it stands
    the pattern's text, `<parameter>_pattern`, for whoever comes after the pruner: see `stated_pattern`. Both
    are called after the weight where weight_norm computes it; the parameter is its direction then.
    """

    name: str
    module: nn.Module
    parameter: str
    view: WeightView
    pattern: Pattern

    @property
    def weight(self) -> nn.Parameter:
        """The parameter itself; raises ValueError if the module has it no more."""
        weight = parameter_of(self.module, self.parameter)
        if weight is None:
            raise ValueError(
                f"{self.name} has no parameter {self.parameter!r} any more: it was removed or parametrized "
                "(as by weight_norm) after the pruner was made. Make it on the model that is trained."
            )
        return weight

    @property
    def mask_name(self) -> str:
        """The name of the buffer that holds the mask."""
        return f"{stands_for(self.parameter)}_mask"

    @property
    def mask(self) -> Tensor:
        """The mask, bool, of the weight's shape."""
        return self.module.get_buffer(self.mask_name)

    @property
    def has_mask(self) -> bool:
        """Whether the module has a mask already."""
        return self.module._buffers.get(self.mask_name) is not None

    def set_mask(self, mask: Tensor) -> None:
        """Make `mask` the buffer; it may be another kind of tensor than before (DTensor)."""
        self.module.register_buffer(self.mask_name, mask)

    def add_mask(self) -> None:
        """Register a mask that keeps everything, unless there is one."""
        if not self.has_mask:
            self.set_mask(torch.ones_like(self.weight, dtype=torch.bool, requires_grad=False))
            self.state_pattern()

    def state_pattern(self) -> None:
        """Note at the module which pattern the mask is of; to be called where a mask is chosen."""
        # A plain attribute: it is copied, pickled and quantized with the module. In the state_dict it would
        # be one more key that checkpoints without it could not be loaded for.
        setattr(self.module, stands_for(self.parameter) + PATTERN_SUFFIX, str(self.pattern))


def stated_pattern(module: nn.Module, parameter: str) -> Pattern | None:
    """The pattern that the module names for a parameter of its own; None where it names none.

    It says what the mask was chosen for, not that the mask is there yet: a schedule may be on its way, and a
    global budget gives some layers less than the pattern's zeros.
    """
    text = getattr(module, stands_for(parameter) + PATTERN_SUFFIX, None)
    return Pattern.parse(text) if isinstance(text, str) else None


def prunables_of(model: nn.Module, rows: Sequence[LayerEligibility]) -> dict[str, Prunable]:
    """The weights of the eligible rows of `layer_table`, by their names."""
    patterns = {row.name: Pattern.parse(row.pattern) for row in rows if row.eligible}
    found = {}
    for name, module, parameter in weights_of(model):
        view = WeightView.of(module, parameter)
        if name in patterns and view is not None:
            found[name] = Prunable(name, module, parameter, view, patterns[name])
    return found
