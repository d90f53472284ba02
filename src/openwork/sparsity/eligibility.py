"""Which layers of a torch module may carry a pattern, and why the others may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from openwork.sparsity.pattern import BlockPattern, GroupPattern, Pattern


@dataclass(frozen=True)
class LayerEligibility:
    """Whether one layer may be pruned. shape: of its weight. reason: a sentence, empty if it is eligible."""

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str = ""

    @property
    def eligible(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        return f"{self.name} ({self.kind} {list(self.shape)}): {self.reason or 'eligible'}"


def layer_table(
    model: nn.Module, pattern: Pattern, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[LayerEligibility]:
    """One row for each module of `model` with a weight of two or more dimensions, in the model's order.

    include, exclude: shell-style patterns of module names; exclude wins.
    """
    owners = _owners(model)
    rows = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        reason = (
            _name_reason(name, include, exclude)
            or _kind_reason(module)
            or _shared_reason(name, owners[id(weight)])
            or _shape_reason(tuple(weight.shape), pattern)
        )
        rows.append(LayerEligibility(name, type(module).__name__, tuple(weight.shape), reason))
    return rows


def _owners(model: nn.Module) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners


def _name_reason(name: str, include: Sequence[str], exclude: Sequence[str]) -> str:
    for rule in exclude:
        if fnmatchcase(name, rule):
            return f'The name matches the exclusion "{rule}".'
    if not any(fnmatchcase(name, rule) for rule in include):
        return "The name matches none of the inclusions " + ", ".join(f'"{rule}"' for rule in include) + "."
    return ""


def _kind_reason(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return ""
    return f"Only nn.Linear layers are pruned; this is {type(module).__name__}."


def _shared_reason(name: str, owners: Sequence[str]) -> str:
    others = [owner for owner in owners if owner != f"{name}.weight"]
    return f"The weight is shared with {', '.join(others)}." if others else ""


def _shape_reason(shape: tuple[int, ...], pattern: Pattern) -> str:
    rows, columns = shape
    if isinstance(pattern, GroupPattern):
        high, wide = pattern.shared, pattern.group
    elif isinstance(pattern, BlockPattern):
        high, wide = pattern.rows, pattern.columns
    else:
        return f"{type(pattern).__name__} is not a pattern of linear layers."
    if columns < wide:
        return f"The layer has {columns} input channels, fewer than the {wide} that {pattern} groups."
    if rows < high:
        return f"The layer has {rows} output channels, fewer than the {high} that {pattern} treats alike."
    return ""
