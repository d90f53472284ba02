"""ASP's rules: which weights it prunes, and what its mask calculators are called here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.masks.view import NORMED, WeightView

MaskCalculator = Callable[[Tensor], Tensor]

WHITELIST: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.MultiheadAttention,
)
"""The types that ASP prunes unless told otherwise."""

TRAINED_WHITELIST = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
"""The types that `prune_trained_model` prunes."""

_ROWS, _COLUMNS = 8, 16
_CALCULATORS = re.compile(r"m(\d+)n(\d+)_(1d|1d_best|2d_best|2d_greedy)")


@dataclass(frozen=True)
class Choice:
    """ASP's rules for which weights are pruned."""

    kinds: tuple[type[nn.Module], ...]
    custom: Mapping[type[nn.Module], Sequence[str]]
    allowed: Collection[str] | None
    disallowed: Collection[str]

    def reason(self, name: str, module: nn.Module, parameter: str) -> str:
        """Why the weight is left alone, a sentence; empty if it is pruned."""
        weight = module.get_parameter(parameter)
        known = WeightView.of(module, parameter) is not None and parameter not in NORMED
        if not isinstance(module, self.kinds) or not known:
            return f"{type(module).__name__} is not among the types to prune."
        if parameter not in self.custom.get(type(module), (parameter,)):
            return f"custom_layer_dict does not name its {parameter}."
        if name in self.disallowed:
            return "It is among disallowed_layer_names."
        if self.allowed is not None and name not in self.allowed:
            return "It is not among allowed_layer_names."
        if not weight.requires_grad:
            return "It is not trained (requires_grad is False)."
        rows, columns = weight.shape[:2]
        if rows % _ROWS or columns % _COLUMNS:
            return (
                f"Its {rows} outputs and {columns} inputs are not multiples of {_ROWS} and {_COLUMNS}, which "
                "sparse tensor cores need."
            )
        return ""


def check_custom(custom: Mapping[type[nn.Module], Sequence[str]]) -> None:
    for kind in custom:
        if not issubclass(kind, WHITELIST):
            raise ValueError(
                f"custom_layer_dict names {kind.__name__}, of which it is not known along which axis its "
                "weights are summed; derive it from nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d."
            )


def pattern_of(calculator: str | Pattern | MaskCalculator) -> tuple[Pattern, MaskCalculator | None]:
    if isinstance(calculator, Pattern):
        return calculator, None
    if not isinstance(calculator, str):
        return Pattern.parse("2:4"), calculator
    match = _CALCULATORS.fullmatch(calculator)
    if match is None:
        return Pattern.parse(calculator), None
    # ASP's m4n2 is "N of M" the other way round: 2 kept of every 4.
    across = "t" if match[3].startswith("2d") else ""
    return Pattern.parse(f"{match[2]}:{match[1]}{across}"), None


def module_name(name: str, parameter: str) -> str:
    return name if parameter == "weight" else name.removesuffix(parameter).removesuffix(".")
