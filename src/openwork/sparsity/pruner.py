"""The pruner: sets a model's masks and holds them while the model is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from openwork.progress import progress_bar
from openwork.sparsity.eligibility import LayerEligibility, layer_table
from openwork.sparsity.mask import check_weight, magnitude_mask
from openwork.sparsity.oneshot import Calibration, reconstruct_model
from openwork.sparsity.pattern import Pattern
from openwork.sparsity.reconstruction import output_error

Method = Literal["magnitude", "sparsegpt"]
MASK = "weight_mask"


class Pruner:
    """Prunes the eligible linear layers of a model to one pattern.

    Each eligible layer gets a boolean buffer `weight_mask` (true = kept, at first all true) that travels in
    the model's `state_dict`. To go on with a pruned model, make the pruner on the same architecture and load
    the state: weights and masks come back, and `verify` tells whether they fit each other and the pattern.

    model: changed in place. pattern: a `Pattern` or its text. include, exclude: shell-style patterns of
    module names. table: one row per layer with its eligibility and, where it is not eligible, the reason.
    Raises ValueError for an odd pattern or if no layer is eligible.
    """

    def __init__(
        self,
        model: nn.Module,
        pattern: Pattern | str,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.pattern = Pattern.parse(pattern) if isinstance(pattern, str) else pattern
        self.table: list[LayerEligibility] = layer_table(model, self.pattern, include, exclude)
        self.layers: dict[str, nn.Linear] = {
            row.name: _linear(model, row.name) for row in self.table if row.eligible
        }
        if not self.layers:
            reasons = (
                " ".join(str(row) for row in self.table[:3]) or "The model has no layer with a weight matrix."
            )
            raise ValueError(f"No layer of this model can carry {self.pattern}. {reasons}")
        for layer in self.layers.values():
            if MASK not in dict(layer.named_buffers(recurse=False)):
                layer.register_buffer(MASK, torch.ones_like(layer.weight, dtype=torch.bool))

    @property
    def masks(self) -> dict[str, Tensor]:
        """Each eligible layer's mask, bool [out, in], by the layer's name."""
        return {name: layer.get_buffer(MASK) for name, layer in self.layers.items()}

    def prune(
        self,
        method: Method = "magnitude",
        calibration: Calibration | None = None,
        progress: bool = False,
    ) -> dict[str, float]:
        """Choose the masks, zero what they drop, and return each layer's error.

        method: "magnitude" keeps the largest weights. "sparsegpt" keeps and adapts those that best rebuild
        each layer's output on `calibration`. progress: show a bar on the standard error stream. The error is
        the lost fraction of the layer's output energy on the calibration inputs, or of the weight's energy
        for "magnitude". Where anything fails, the model is left as it was. Raises ValueError for weights that
        are NaN or infinite, a missing calibration, or an unknown method.
        """
        for name, layer in self.layers.items():
            check_weight(layer.weight, f"The weight of {name}")
        if method not in ("magnitude", "sparsegpt"):
            raise ValueError(f'The pruning method must be "magnitude" or "sparsegpt", but it is {method!r}.')
        if method == "sparsegpt" and calibration is None:
            raise ValueError(
                'The method "sparsegpt" needs calibration inputs; pass calibration=Calibration(...).'
            )
        before = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        try:
            masks, errors = self._chosen(calibration if method == "sparsegpt" else None, progress)
        except BaseException:
            self._restore(before)
            raise
        for name, mask in masks.items():
            self.layers[name].get_buffer(MASK).copy_(mask)
        self.apply()
        return errors

    def apply(self) -> None:
        """Zero every weight that its mask drops."""
        with torch.no_grad():
            for layer in self.layers.values():
                layer.weight.mul_(layer.get_buffer(MASK))

    def attach(self, optimizer: torch.optim.Optimizer) -> RemovableHandle:
        """Hold the masks after each step of `optimizer`; `.remove()` on what is returned lets go.

        Raises ValueError if the optimizer trains none of the pruned weights, which is most often another
        model's.
        """
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(layer.weight) in trained for layer in self.layers.values()):
            raise ValueError(
                "The optimizer trains none of the pruned weights; build it from the parameters "
                "of the pruner's model."
            )
        hold: Callable[..., None] = lambda *_: self.apply()  # noqa: E731
        return optimizer.register_step_post_hook(hold)

    def faults(self) -> list[str]:
        """Every place where a mask or a weight breaks its rule, as sentences; empty if all holds.

        A mask must keep to the pattern, and a weight must be finite, and zero where its mask drops it.
        """
        found: list[str] = []
        for name, layer in self.layers.items():
            weight, mask = layer.weight.detach(), layer.get_buffer(MASK)
            for violation in self.pattern.violations(mask.cpu().numpy(), limit=3):
                found.append(f"The mask of {name} breaks its pattern: {violation}.")
            for row, column in ((weight != 0) & ~mask).nonzero()[:3].tolist():
                found.append(
                    f"The weight of {name} is {weight[row, column].item():g} at row {row}, column {column}, "
                    f"where its mask drops it{self._group_of(column)}."
                )
            if not torch.isfinite(weight).all():
                found.append(f"The weight of {name} holds NaN or infinity.")
        return found

    def verify(self) -> None:
        """Raise ValueError, naming layer, row and group, unless every mask and every weight keeps its
        rule.
        """
        found = self.faults()
        if found:
            more = f" And {len(found) - 5} more." if len(found) > 5 else ""
            raise ValueError(" ".join(found[:5]) + more)

    def _group_of(self, column: int) -> str:
        width = getattr(self.pattern, "group", None)
        return f" (group {column // width} of {self.pattern})" if width else ""

    def _chosen(
        self, calibration: Calibration | None, progress: bool
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        with progress_bar(f"pruning to {self.pattern}", len(self.layers), progress) as advance:
            if calibration is None:
                masks = {n: magnitude_mask(layer.weight, self.pattern) for n, layer in self.layers.items()}
                return masks, {n: _weight_error(self.layers[n].weight, mask) for n, mask in masks.items()}
            results = reconstruct_model(self.model, self.layers, self.pattern, calibration, advance)
        return {n: r.mask for n, r in results.items()}, {n: r.error for n, r in results.items()}

    @torch.no_grad()
    def _restore(self, weights: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            self.layers[name].weight.copy_(weight)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _weight_error(weight: Tensor, mask: Tensor) -> float:
    weight = weight.detach().float()
    return output_error(weight, weight * mask, torch.eye(weight.shape[1], device=weight.device))
