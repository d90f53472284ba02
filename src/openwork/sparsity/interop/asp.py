"""The calls of NVIDIA's ASP (apex.contrib.sparsity), on this package's pruner.

    from openwork.sparsity.interop.asp import ASP
    ASP.prune_trained_model(model, optimizer)

The calls have ASP's names, arguments and meaning; docs/coming_from_asp.md says where they differ. What ASP
does is one case of `Pruner`, which `ASP.pruner` hands out. Source: apex/contrib/sparsity, README.md and the
docstrings of asp.py.
"""

from __future__ import annotations

import glob
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.sparsity.interop.asp_checkpoint import read_asp_buffers
from openwork.sparsity.interop.asp_rules import (
    TRAINED_WHITELIST,
    WHITELIST,
    Choice,
    MaskCalculator,
    check_custom,
    module_name,
    pattern_of,
)
from openwork.sparsity.masks.faults import faults
from openwork.sparsity.masks.masked_tensors import clear_states, hold, mask_of
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.sharded_tensors import full, like
from openwork.sparsity.masks.view import weights_of
from openwork.sparsity.pruner.pruner import Pruner
from openwork.sparsity.pruner.schedule import Schedule

if TYPE_CHECKING:
    from openwork.sparsity.permutation import PermutationReport

logger = logging.getLogger(__name__)

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass(frozen=True)
class OnCall(Schedule):
    """Masks that change when somebody calls for it, never by themselves: ASP's `compute_sparse_masks`."""

    def __str__(self) -> str:
        return "on-call"

    @property
    def final_step(self) -> int:
        return sys.maxsize

    def updates_at(self, step: int) -> bool:
        """Never."""
        return False

    def _at(self, step: int) -> float:
        return 0.0


class AutomaticSparsity:
    """What ASP keeps in its class: one model that is pruned, and how. `ASP` is the one that ASP's users know.

    Make another for a second model in the same process.
    """

    def __init__(self) -> None:
        self._pruner: Pruner | None = None
        self._calculator: MaskCalculator | None = None
        self._optimizers: list[torch.optim.Optimizer] = []
        self._restorable = False
        self._permutable = False
        self._example_inputs: ExampleInputs | None = None
        self._verbosity = 3
        self.permutation: PermutationReport | None = None

    @property
    def pruner(self) -> Pruner:
        """The pruner behind the calls; raises RuntimeError before `init_model_for_pruning`."""
        if self._pruner is None:
            raise RuntimeError("No model is set; call init_model_for_pruning(model) first.")
        return self._pruner

    def init_model_for_pruning(
        self,
        model: nn.Module,
        mask_calculator: str | Pattern | MaskCalculator = "m4n2_1d",
        verbosity: int = 3,
        whitelist: Sequence[type[nn.Module]] = WHITELIST,
        allowed_layer_names: Collection[str] | None = None,
        disallowed_layer_names: Collection[str] = (),
        allow_recompute_mask: bool = False,
        custom_layer_dict: Mapping[type[nn.Module], Sequence[str]] | None = None,
        allow_permutation: bool = True,
        example_inputs: ExampleInputs | None = None,
    ) -> None:
        """Give each eligible weight of `model` a mask that keeps everything.

        mask_calculator: one of ASP's names ("m4n2_1d"; "m4n2_2d_best" and "m4n2_2d_greedy" are 2:4t), a
        pattern of this package ("4:16", "2:4@2"), or a function from a weight to its mask, which must keep
        2:4. verbosity: 0 errors, 1 warnings, 2 information, 3 details, all by `logging`. whitelist: types of
        modules. allowed_layer_names, disallowed_layer_names: exact names. allow_recompute_mask: keep what is
        pruned, in a buffer on the CPU, so that `restore_pruned_weights` can bring it back. custom_layer_dict:
        {type: names of its weights}, of types derived from those of `WHITELIST`. allow_permutation: let
        the first `compute_sparse_masks` put channels into a better order before, for which it traces the
        model on `example_inputs` (a tensor, a tuple, or inputs by name); without them the order stays. Raises
        RuntimeError if a model is set already, ValueError if no layer is eligible.
        """
        if self._pruner is not None:
            raise RuntimeError(
                "A model is set already; call reset() to let go of it, or make another AutomaticSparsity() "
                "for a second model."
            )
        self._verbosity = verbosity
        custom = dict(custom_layer_dict or {})
        kinds = (*whitelist, *custom)
        check_custom(custom)
        choice = Choice(kinds, custom, allowed_layer_names, disallowed_layer_names)
        pattern, self._calculator = pattern_of(mask_calculator)
        self._pruner = Pruner(model, self._rules(model, choice, pattern), schedule=OnCall())
        self._restorable = allow_recompute_mask
        self._permutable, self._example_inputs = allow_permutation, example_inputs
        self.permutation = None
        if allow_recompute_mask:
            for prunable in self._pruner.prunables.values():
                prunable.module.register_buffer(pruned_name(prunable), _zeros(prunable))
        model.register_load_state_dict_pre_hook(read_asp_buffers)  # type: ignore[no-untyped-call]

    def init_optimizer_for_pruning(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold the masks in each step of `optimizer`.

        May be called before or after the masks are computed or loaded, and for several optimizers. Raises
        RuntimeError before `init_model_for_pruning`, ValueError if the optimizer trains none of the weights.
        """
        self.pruner.attach(optimizer)
        self._optimizers.append(optimizer)

    def compute_sparse_masks(self) -> None:
        """Compute the masks and zero what they drop: from here on the model is sparse.

        Called again, it brings back what was pruned first, which needs allow_recompute_mask=True. Raises
        ValueError otherwise, for a weight that is not finite, or for a mask function's result that is no
        mask.
        """
        if self.is_sparsity_enabled():
            self._bring_back("compute the masks anew")
        self._permute()
        before = {name: full(p.weight).clone() for name, p in self.pruner.prunables.items()}
        if self._calculator is None:
            self.pruner.prune("magnitude")
        else:
            self._set_masks(self._calculator)
        for name, prunable in self.pruner.prunables.items():
            mask = full(mask_of(prunable))
            if self._restorable:
                prunable.module.get_buffer(pruned_name(prunable)).copy_(before[name].masked_fill(mask, 0.0))
            zeros = 1.0 - float(mask.float().mean())
            self._tell(2, "%s: %.2f%% of %s are zero.", name, 100 * zeros, list(mask.shape))

    def restore_pruned_weights(self) -> None:
        """Bring back what was pruned and keep everything again.

        Raises ValueError unless the model was set with allow_recompute_mask=True.
        """
        if self.is_sparsity_enabled():
            self._bring_back("restore the pruned weights")

    def is_sparsity_enabled(self) -> bool:
        """Whether the masks drop anything, as after `compute_sparse_masks` or from a loaded checkpoint.

        Raises ValueError if some masks do and others do not.
        """
        keeping = [name for name, p in self.pruner.prunables.items() if bool(full(mask_of(p)).all())]
        if keeping and len(keeping) < len(self.pruner.prunables):
            raise ValueError(
                f"{len(keeping)} of {len(self.pruner.prunables)} masks keep everything, such as that of "
                f"{keeping[0]}, and the others do not; the checkpoint that was loaded is of another model or "
                "of a run with other layers."
            )
        return not keeping

    def prune_trained_model(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        example_inputs: ExampleInputs | None = None,
    ) -> None:
        """The whole of it for a trained model: set the model, hold its masks in `optimizer`, compute them.

        example_inputs: as for `init_model_for_pruning`.
        """
        self.init_model_for_pruning(
            model, verbosity=2, whitelist=TRAINED_WHITELIST, example_inputs=example_inputs
        )
        self.init_optimizer_for_pruning(optimizer)
        self.compute_sparse_masks()

    def already_init_asp_model(self) -> bool:
        """Whether a model is set."""
        return self._pruner is not None

    def verify(self) -> None:
        """Raise ValueError, naming layer, row and group, unless masks and weights keep to the pattern."""
        found = faults(self.pruner.prunables.values(), self.is_sparsity_enabled(), global_scope=False)
        if found:
            raise ValueError(" ".join(found))

    def reset(self) -> None:
        """Let go of the model and its optimizers, so that another one can be set. The masks stay in it."""
        if self._pruner is not None:
            self._pruner.detach()
        self._pruner = None
        self._optimizers.clear()

    def _rules(self, model: nn.Module, choice: Choice, pattern: Pattern) -> dict[str, Pattern]:
        names, refused = [], []
        for name, module, parameter in weights_of(model):
            reason = choice.reason(module_name(name, parameter), module, parameter)
            if reason:
                refused.append(f"{name}: {reason}")
                self._tell(3, "Not pruning %s: %s", name, reason)
            else:
                names.append(name)
        if not names:
            raise ValueError(
                "ASP's rules leave no layer of this model to prune. "
                + (" ".join(refused[:3]) or "It has no layer with a weight matrix.")
            )
        return {glob.escape(name): pattern for name in names}

    @torch.no_grad()
    def _set_masks(self, calculator: MaskCalculator) -> None:
        for name, prunable in self.pruner.prunables.items():
            weight = full(prunable.weight)
            mask = calculator(weight)
            if mask.shape != weight.shape:
                raise ValueError(
                    f"The mask function gave a mask of shape {list(mask.shape)} for {name}, whose weight has "
                    f"{list(weight.shape)}."
                )
            broken = prunable.pattern.violations(prunable.view.matrices(mask).cpu().numpy(), limit=1)
            if broken:
                raise ValueError(
                    f"The mask function's mask of {name} is not {prunable.pattern}: {broken[0]}."
                )
            mask_of(prunable).copy_(like(mask.bool(), prunable.weight))
            prunable.state_pattern()
        for prunable in self.pruner.prunables.values():
            hold(prunable)
            clear_states(prunable, self._optimizers)

    @torch.no_grad()
    def _bring_back(self, what: str) -> None:
        if not self._restorable:
            raise ValueError(
                f"To {what}, the model must be set with init_model_for_pruning(..., "
                "allow_recompute_mask=True): what was pruned is lost otherwise."
            )
        for prunable in self.pruner.prunables.values():
            kept = prunable.module.get_buffer(pruned_name(prunable))
            prunable.weight.add_(like(kept.to(prunable.weight.device), prunable.weight))
            mask_of(prunable).fill_(True)
            kept.zero_()

    def _permute(self) -> None:
        """Put channels into a better order, once: later masks follow the order that there is."""
        if not self._permutable:
            return
        self._permutable = False
        reason = self._reason_for_this_order()
        if reason:
            self._tell(2, "The channels keep their order: %s", reason)
            return
        from openwork.sparsity.permutation import permute

        assert self._example_inputs is not None
        modules = {id(module): name for name, module in self.pruner.model.named_modules()}
        self.permutation = permute(
            self.pruner.model,
            self._example_inputs,
            self._patterns[0],
            optimizer=self._optimizers[0] if self._optimizers else None,
            include=[glob.escape(modules[id(p.module)]) for p in self.pruner.prunables.values()],
        )
        self._tell(2, "%s", self.permutation)

    def _reason_for_this_order(self) -> str:
        """Why no other order is looked for; empty where one is."""
        pattern = self._patterns[0]
        if self._example_inputs is None:
            return "pass example_inputs to have the model traced and its channels permuted."
        if not isinstance(pattern, GroupPattern) or pattern.transposable:
            return f"a permutation of the inputs does nothing for {pattern}."
        if len(self._optimizers) > 1:
            return "several optimizers hold states that would have to move with the weights."
        return ""

    @property
    def _patterns(self) -> list[Pattern]:
        return [prunable.pattern for prunable in self.pruner.prunables.values()]

    def _tell(self, verbosity: int, message: str, *words: Any) -> None:
        if self._verbosity >= verbosity:
            logger.log(_LEVELS[verbosity], message, *words)


ASP = AutomaticSparsity()
"""The one that ASP's calls are made on, as ASP keeps its state in its class."""


def pruned_name(prunable: Prunable) -> str:
    """The name of the buffer that holds what was pruned, where that is to be kept."""
    return f"{prunable.parameter}_pruned"


def _zeros(prunable: Prunable) -> Tensor:
    return torch.zeros(prunable.weight.shape, dtype=prunable.weight.dtype)
