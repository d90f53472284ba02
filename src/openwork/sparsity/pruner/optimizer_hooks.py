"""What happens around each step of an optimizer: the only moments at which a pruner acts on a training loop.

Nothing is added to the forward pass. Before a step the gradients are observed and masked, after it the
weights are; while masks move (SR-STE) the dense weights are put back before the step and hidden after it, so
that the model is sparse whenever somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from openwork.sparsity.masks.masked_tensors import hold, mask_of, multiply
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.sharded_tensors import full, like
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.state import PrunerState


class Steered(PrunerState, Protocol):
    """What the hooks need of a pruner."""

    @property
    def due(self) -> bool:
        """Whether the masks wait for a gradient to be set by."""
        ...

    def renew(self) -> None:
        """Set the masks that the schedule wants now."""
        ...

    def advance(self) -> None:
        """Count one step and renew the masks where the schedule says so."""
        ...


class Attachment:
    """The hooks of one pruner on one optimizer; `remove()` lets go of it.

    clock: whether this optimizer's steps are the schedule's; with several optimizers one of them is.
    """

    def __init__(self, pruner: Steered, optimizer: torch.optim.Optimizer, clock: bool) -> None:
        self.optimizer, self.clock = optimizer, clock
        self._pruner = pruner
        self._skipped = False
        self._hidden = True
        # A compiled step would trace the hooks along, and once more for each change of theirs.
        hidden: Callable[..., Any] = torch.compiler.disable
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(hidden(self._before)),
            optimizer.register_step_post_hook(hidden(self._after)),
        ]

    def remove(self) -> None:
        """Take the hooks off the optimizer; the masks stay as they are and are no longer held."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def removed(self) -> bool:
        """Whether the hooks are off."""
        return not self._handles

    def _before(
        self, _: torch.optim.Optimizer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # A fused optimizer is stepped by GradScaler even where the gradients overflowed, and does nothing
        # then; a step that does not happen is neither observed nor counted.
        self._skipped = _overflowed(self.optimizer) or self._idle()
        if self._skipped:
            return None
        self._hidden = True
        closure = options.get("closure", arguments[1] if len(arguments) > 1 else None)
        if closure is None:
            self._prepare_all()
            return None
        # Whoever steps with a closure (Lightning, LBFGS) makes the gradients inside the step.
        followed = self._followed(closure)
        if len(arguments) > 1:
            return (arguments[0], followed, *arguments[2:]), options
        return arguments, {**options, "closure": followed}

    def _followed(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, and after it what is to be done between the gradients and the step."""

        def evaluate() -> Any:
            loss = closure()
            self._prepare_all()
            return loss

        return evaluate

    @torch.no_grad()
    def _prepare_all(self) -> None:
        scale = getattr(self.optimizer, "grad_scale", None)
        held = self._held()
        for prunable in held:
            self._prepare(prunable, scale)
        self._hidden = False
        if self._pruner.due:
            self._pruner.renew()
        if self._pruner.options.mask_gradients and not self._pruner.dense:
            for prunable in held:
                if prunable.weight.grad is not None:
                    multiply(prunable.weight.grad, mask_of(prunable))

    def _prepare(self, prunable: Prunable, scale: Tensor | None) -> None:
        pruner, weight = self._pruner, prunable.weight
        dense = pruner.dense.get(prunable.name)
        # An optimizer that evaluates its closure again within a step (LBFGS)
        # has moved the dense weights by then.
        if dense is not None and self._hidden:
            weight.copy_(dense)
        if weight.grad is None:
            return
        if pruner.criterion.needs_gradient:
            gradient = weight.grad if scale is None else weight.grad / scale
            pruner.criterion.observe(pruner.scores.setdefault(prunable.name, {}), weight, gradient)
        if dense is not None:
            _regrow(weight, mask_of(prunable), pruner.schedule.regrowth, scale)
        if pruner.options.regularizers:
            _regularize(prunable, pruner.options, scale)

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        if self._skipped:
            return
        held = self._held()
        for prunable in held:
            dense = self._pruner.dense.get(prunable.name)
            if dense is not None:
                dense.copy_(prunable.weight)
        if self.clock:
            self._pruner.advance()
        for prunable in held:
            hold(prunable)

    def _idle(self) -> bool:
        """Whether this is no step of training: torch.distributed.checkpoint makes an optimizer's states by a
        step on gradients of zero at a learning rate of zero.
        """
        if not all(_at_rest(group.get("lr", 1.0)) for group in self.optimizer.param_groups):
            return False
        gradients = [prunable.weight.grad for prunable in self._held() if prunable.weight.grad is not None]
        return bool(gradients) and not any(bool(full(gradient).any()) for gradient in gradients)

    def _held(self) -> list[Prunable]:
        """The pruned weights that this optimizer trains; looked up anew,
        as a wrapper may replace parameters.
        """
        trained = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        return [p for p in self._pruner.prunables.values() if id(p.weight) in trained]


def _at_rest(rate: float | Tensor) -> bool:
    # A rate on an accelerator is not waited for; the rates of such a step are on the CPU.
    return (not isinstance(rate, Tensor) or rate.device.type == "cpu") and float(rate) == 0.0


def _overflowed(optimizer: torch.optim.Optimizer) -> bool:
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _regrow(weight: Tensor, mask: Tensor, strength: float, scale: Tensor | None) -> None:
    """Add strength * (1 - mask) * w to the gradient (Zhou et al. 2021, equation 9)."""
    pull = weight.detach() * strength
    multiply(pull, ~mask)
    assert weight.grad is not None
    weight.grad.add_(pull if scale is None else pull * scale)


def _regularize(prunable: Prunable, options: PrunerOptions, scale: Tensor | None) -> None:
    """Let the regularizers change the gradient; they see whole weights, since a pattern spans them."""
    weight, view = prunable.weight, prunable.view
    assert weight.grad is not None
    gradient = full(weight.grad)
    stack = view.matrices(gradient if scale is None else gradient / scale)
    for regularizer in options.regularizers:
        stack = regularizer(
            view.matrices(full(weight)), stack, prunable.pattern, view.matrices(full(mask_of(prunable)))
        )
    changed = view.restore(stack)
    weight.grad.copy_(like(changed if scale is None else changed * scale, weight))
