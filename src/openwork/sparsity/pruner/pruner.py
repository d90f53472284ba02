"""The pruner: sets a model's masks and holds them while the model is trained.

    pruner = Pruner(model, "2:4")
    pruner.attach(optimizer)

and the training loop stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.calibrated.oneshot import Calibration
from openwork.sparsity.masks.eligibility import LayerEligibility, layer_table, vector_rows
from openwork.sparsity.masks.faults import faults
from openwork.sparsity.masks.mask import check_weight
from openwork.sparsity.masks.masked_tensors import clear_states, hold, mask_of, whole_mask
from openwork.sparsity.masks.prunable import Prunable, prunables_of
from openwork.sparsity.masks.sharded_tensors import full, like
from openwork.sparsity.pruner import checkpoint
from openwork.sparsity.pruner.criterion import Criterion
from openwork.sparsity.pruner.mask_choice import choose_masks
from openwork.sparsity.pruner.methods import Method, check_method, choose_by, put_back_on_failure
from openwork.sparsity.pruner.optimizer_hooks import Attachment
from openwork.sparsity.pruner.optimizers import torch_optimizer
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.ownership import claim, release
from openwork.sparsity.pruner.report import PruningReport
from openwork.sparsity.pruner.schedule import Schedule
from openwork.sparsity.pruner.twins import twins_of
from openwork.support.progress import progress_bar


class Pruner:
    """Prunes the eligible layers of a model and holds their masks.

    Each pruned weight gets a boolean buffer beside it, `weight_mask` (true = kept, at first all true), that
    travels in the model's `state_dict`; the forward pass is not touched. The pattern's text stands beside it
    as a plain attribute, `weight_pattern`, which export reads. To go on with a pruned model, make
    the pruner on the same architecture and load the state: weights and masks come back, and `verify` tells
    whether they fit each other and the pattern.

    model: changed in place. pattern: a `Pattern`, its text, or {glob over layer names: pattern or None}, the
    first glob that fits deciding. include, exclude: globs over layer names; exclude wins. The stem and the
    classifier of a network that reads images stay dense unless a glob other than "*" fits them. schedule:
    when the zeros come, counted in optimizer steps (`schedule.py`). criterion: which weights go first
    (`criterion.py`). table: one row per layer with its eligibility and, where it is not eligible, the reason.
    Raises ValueError for an odd pattern, schedule or criterion, if no layer is eligible, or if another pruner
    holds one of the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        pattern: Pattern | str | Mapping[str, Pattern | str | None],
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        schedule: Schedule | str = "one-shot",
        criterion: Criterion | str = "magnitude",
        options: PrunerOptions | None = None,
    ) -> None:
        self.model = model
        self.schedule = Schedule.of(schedule)
        self.criterion = Criterion.of(criterion)
        self.options = _options(options)
        self.pattern = _text(pattern)
        self.table: list[LayerEligibility] = layer_table(model, pattern, include, exclude)
        self.prunables: dict[str, Prunable] = prunables_of(model, self.table)
        self.steps = 0
        self.scores: dict[str, dict[str, Tensor]] = {}
        self.dense: dict[str, Tensor] = {}
        self._attachments: list[Attachment] = []
        self._due = False
        _refuse_none(self)
        claim(self.prunables.values(), self)
        for prunable in self.prunables.values():
            prunable.add_mask()

    def __str__(self) -> str:
        return f"{self.pattern}, {self.schedule}, by {self.criterion}, {len(self.prunables)} weights"

    def __getstate__(self) -> dict[str, Any]:
        # Hooks live in the optimizer and do not travel; attach again after unpickling or copying.
        return {**self.__dict__, "_attachments": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        claim(self.prunables.values(), self)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules that hold the pruned weights, by the weights' names."""
        return {name: prunable.module for name, prunable in self.prunables.items()}

    @property
    def masks(self) -> dict[str, Tensor]:
        """Each pruned weight's mask, bool, of the weight's shape, by the layer's name."""
        return {name: prunable.mask for name, prunable in self.prunables.items()}

    @property
    def zeros(self) -> float:
        """The fraction of the pruned weights' elements that the masks drop now."""
        kept = sum(int(whole_mask(prunable).sum()) for prunable in self.prunables.values())
        return 1.0 - kept / sum(prunable.weight.numel() for prunable in self.prunables.values())

    @property
    def finished(self) -> bool:
        """Whether the schedule has set its last masks, after which they stay."""
        return self.steps >= self.schedule.final_step

    @property
    def due(self) -> bool:
        """Whether the masks wait for a first gradient, which the criterion needs to choose them."""
        return self._due

    def prune(
        self,
        method: Method | None = None,
        calibration: Calibration | None = None,
        progress: bool = False,
    ) -> dict[str, float]:
        """Choose the pattern's masks now, zero what they drop, and return each layer's error.

        method: None takes the pruner's criterion. "magnitude" keeps the largest weights. "wanda" weighs
        them by the inputs seen in `calibration`; "sparsegpt" keeps and adapts those that best rebuild each
        layer's output on it. progress: show a bar on the standard error stream. The error is the lost
        fraction of the layer's output energy on the calibration inputs, or of the weight's energy without
        them. Where anything fails, the model is left as it was. Raises ValueError for weights that are NaN
        or infinite, a missing calibration, an unknown method, or a criterion that has seen no gradient yet.
        """
        check_method(method, calibration)
        self._check_weights()
        title = f"pruning to {self.pattern}"
        with (
            progress_bar(title, len(self.prunables), progress) as advance,
            put_back_on_failure(self.prunables, method),
        ):
            masks, errors = choose_by(self, method, calibration, advance)
        self._set_masks(masks)
        self._let_go()
        return errors

    def observe(self) -> None:
        """Let the criterion see the gradients that the weights hold now, without an optimizer step.

        For pruning before training, as SNIP does: one backward pass, `observe()`, `prune()`. Raises
        ValueError if no pruned weight has a gradient.
        """
        seen = [p for p in self.prunables.values() if p.weight.grad is not None]
        if not seen:
            raise ValueError("No pruned weight has a gradient; run a backward pass before observe().")
        for prunable in seen:
            gradient = prunable.weight.grad
            assert gradient is not None
            self.criterion.observe(self.scores.setdefault(prunable.name, {}), prunable.weight, gradient)

    @torch.no_grad()
    def apply(self, to: nn.Module | None = None) -> None:
        """Zero every weight that its mask drops.

        to: another module of the same structure that takes the masks and is zeroed by them instead: an
        average of the model over its steps (EMA), whose weights still hold what was dropped lately. Raises
        ValueError if it lacks one of the weights.
        """
        if to is None:
            for prunable in self.prunables.values():
                hold(prunable)
            return
        twins = twins_of(self.prunables, self.model, to)
        for prunable, twin in zip(self.prunables.values(), twins, strict=True):
            twin.set_mask(like(whole_mask(prunable).clone(), twin.weight))
            twin.state_pattern()
            hold(twin)

    def attach(self, optimizer: torch.optim.Optimizer) -> Attachment:
        """Follow the schedule and hold the masks in each step of `optimizer`; `.remove()` lets go.

        The schedule's masks for the current step are set at once: a "one-shot" pruner that has pruned nothing
        yet prunes here. With several optimizers, the first one's steps are the schedule's. Raises ValueError
        if the optimizer trains none of the pruned weights, which is most often another model's, or if a
        weight is NaN or infinite.
        """
        optimizer = torch_optimizer(optimizer)
        trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        idle = [p.name for p in self.prunables.values() if id(p.weight) not in trained]
        if len(idle) == len(self.prunables):
            raise ValueError(
                "The optimizer trains none of the pruned weights; build it from the parameters "
                "of the pruner's model."
            )
        self._attachments = [attachment for attachment in self._attachments if not attachment.removed]
        if any(attachment.optimizer is optimizer for attachment in self._attachments):
            raise ValueError(
                "The pruner is attached to this optimizer already; remove() that attachment first."
            )
        self._start()
        clock = not any(attachment.clock for attachment in self._attachments)
        self._attachments.append(Attachment(self, optimizer, clock))
        return self._attachments[-1]

    def detach(self) -> None:
        """Let go of every optimizer and of the weights;
        the masks stay in the model but are no longer held.
        """
        for attachment in self._attachments:
            attachment.remove()
        self._attachments.clear()
        release(self.prunables.values(), self)

    def renew(self) -> None:
        """Choose the masks that the schedule wants at the present step, and apply them."""
        self._due = False
        masks = choose_masks(self, self.schedule(self.steps))
        self._set_masks(masks)
        if not self.dense:
            self._let_go()

    def advance(self) -> None:
        """Count one optimizer step and follow the schedule; `attach` does this after each step."""
        self.steps += 1
        if self.schedule.updates_at(self.steps):
            self._check_weights()
            self.renew()
        if self.finished and self.dense:
            self.dense.clear()
            self._let_go()

    def recover(self) -> None:
        """Take the masks from the zeros of the weights, for a checkpoint that was pruned without masks.

        Raises ValueError, and changes nothing, if a weight does not keep to its pattern.
        """
        masks = choose_masks(self, 1.0, by_magnitude=True)
        for name, mask in masks.items():
            lost = int(((full(self.prunables[name].weight) != 0) & ~mask).sum())
            if lost:
                raise ValueError(
                    f"The weight of {name} does not keep to {self.prunables[name].pattern}: {lost} weights "
                    "that are not zero would be dropped. Prune it, or give the pattern it was pruned to."
                )
        self._set_masks(masks)
        self.steps = max(self.steps, self.schedule.final_step)

    def report(self) -> PruningReport:
        """Every parameter with its pattern and zeros, or the reason why it has none: a table, and JSON."""
        zeros = {n: 1.0 - float(whole_mask(p).float().mean()) for n, p in self.prunables.items()}
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return PruningReport((*self.table, *vector_rows(self.model)), zeros, total)

    def faults(self) -> list[str]:
        """Every place where a mask or a weight breaks its rule, as sentences; empty if all holds.

        A weight must be finite, and zero where its mask drops it; once the schedule has reached its end, a
        mask must keep to the pattern.
        """
        at_target = self.schedule(self.steps) >= 1.0
        return faults(self.prunables.values(), at_target, self.options.scope == "global")

    def verify(self) -> None:
        """Raise ValueError, naming layer, row and group,
        unless every mask and every weight keeps its rule.
        """
        found = self.faults()
        if found:
            more = f" And {len(found) - 5} more." if len(found) > 5 else ""
            raise ValueError(" ".join(found[:5]) + more)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is and what the criterion has seen; the masks are in the model's `state_dict`.

        Tensors are whole and on the CPU. With sharded weights this is a collective.
        """
        return checkpoint.save(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken; load the model's and the optimizer's state as well.

        Raises ValueError, and changes nothing, if the state belongs to other patterns,
        another schedule or another criterion.
        """
        checkpoint.load(self, state)

    def _start(self) -> None:
        untouched = all(bool(full(mask_of(p)).all()) for p in self.prunables.values())
        if self.schedule.moving and not self.finished and not self.dense:
            self._check_weights()
            self.dense = {n: p.weight.detach().clone() for n, p in self.prunables.items()}
        if untouched and self.schedule(self.steps) > 0.0:
            self._check_weights()
            if not all(self.criterion.observed(self.scores.get(name, {})) for name in self.prunables):
                self._due = True
            else:
                self.renew()
        self.apply()

    def _set_masks(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            prunable = self.prunables[name]
            mask_of(prunable).copy_(like(mask, prunable.weight))
            prunable.state_pattern()

    def _let_go(self) -> None:
        """Zero what the masks drop: weights, and what the optimizers remember of them."""
        self.apply()
        optimizers = [attachment.optimizer for attachment in self._attachments]
        for prunable in self.prunables.values():
            clear_states(prunable, optimizers)

    def _check_weights(self) -> None:
        for name, prunable in self.prunables.items():
            check_weight(full(self.dense.get(name, prunable.weight)), f"The weight of {name}")


def _options(given: PrunerOptions | None) -> PrunerOptions:
    if given is not None and not isinstance(given, PrunerOptions):
        raise ValueError(
            f"The options of a pruner are PrunerOptions, but {given!r} came; write "
            'PrunerOptions(scope="global") and the like, or leave them out.'
        )
    return given or PrunerOptions()


def _text(pattern: Pattern | str | Mapping[str, Pattern | str | None]) -> str:
    if isinstance(pattern, Mapping):
        return ", ".join(f"{glob}={value or 'dense'}" for glob, value in pattern.items())
    return str(pattern if isinstance(pattern, Pattern) else Pattern.parse(pattern))


def _refuse_none(pruner: Pruner) -> None:
    if pruner.prunables:
        return
    reasons = " ".join(str(row) for row in pruner.table[:3]) or "The model has no layer with a weight matrix."
    raise ValueError(f"No layer of this model can carry {pruner.pattern}. {reasons}")
