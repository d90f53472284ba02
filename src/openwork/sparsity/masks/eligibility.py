"""Which weights of a torch module may carry a pattern, and why the others may not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.view import WeightView, weights_of

Rules = Mapping[str, Pattern | None]
"""Shell-style patterns of layer names and what each such layer carries; None leaves it dense. The first
that fits decides.
"""


@dataclass(frozen=True)
class LayerEligibility:
    """Whether one layer may be pruned. shape: of its weight. reason: a sentence, empty if it is eligible.

    pattern: what it is to carry, as text; empty where no rule gives it one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str = ""
    pattern: str = ""

    @property
    def eligible(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        return f"{self.name} ({self.kind} {list(self.shape)}): {self.reason or 'eligible'}"


def parse_rules(pattern: Pattern | str | Mapping[str, Pattern | str | None]) -> dict[str, Pattern | None]:
    """The rules that a pattern, its text, or a mapping of globs to them states.

    Raises ValueError for a text that is no pattern and for an empty mapping.
    """
    if not isinstance(pattern, Mapping):
        return {"*": _parsed(pattern)}
    if not pattern:
        raise ValueError('The patterns by layer name are empty; give at least one, such as {"*": "2:4"}.')
    return {glob: None if value is None else _parsed(value) for glob, value in pattern.items()}


def layer_table(
    model: nn.Module,
    pattern: Pattern | str | Mapping[str, Pattern | str | None],
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> list[LayerEligibility]:
    """One row for each weight of `model` of two or more dimensions, in the model's order.

    pattern: one for all layers, or {glob: pattern or None} by layer name, the first glob that fits. include,
    exclude: shell-style patterns of layer names; exclude wins. Raises ValueError for a glob of `pattern` that
    fits no layer.
    """
    rules, owners = parse_rules(pattern), _owners(model)
    weights = list(weights_of(model))
    _refuse_idle_rules(rules, [name for name, _, _ in weights])
    rows = []
    for name, module, parameter in weights:
        shape = tuple(module.get_parameter(parameter).shape)
        chosen = next((rules[glob] for glob in rules if fnmatchcase(name, glob)), None)
        reason = (
            _name_reason(name, include, exclude)
            or ("" if chosen else "No pattern is given for this layer.")
            or _kind_reason(module, parameter)
            or _shared_reason(name, parameter, owners[id(module.get_parameter(parameter))])
            or (_shape_reason(module, parameter, chosen) if chosen else "")
        )
        rows.append(LayerEligibility(name, type(module).__name__, shape, reason, str(chosen or "")))
    return rows


def text_table(rows: Sequence[LayerEligibility], zeros: Mapping[str, float] | None = None) -> str:
    """The rows as aligned lines: layer, kind, shape, pattern, zeros (where known), eligible or the reason."""
    cells = [("layer", "kind", "weight", "pattern", "zeros", "")]
    for row in rows:
        zero = "" if zeros is None or row.name not in zeros else f"{zeros[row.name]:.1%}"
        shape = "x".join(map(str, row.shape))
        carried = row.pattern if row.eligible else "-"
        cells.append((row.name or "(the model)", row.kind, shape, carried, zero, row.reason or "eligible"))
    widths = [max(len(cell[i]) for cell in cells) for i in range(5)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(cell[:5], widths, strict=True)), cell[5]]) for cell in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def json_table(rows: Sequence[LayerEligibility], zeros: Mapping[str, float] | None = None) -> str:
    """The rows as a JSON list of objects: name, kind, shape, pattern, eligible, reason,
    zeros (null if unknown).
    """
    known = zeros or {}
    return json.dumps(
        [
            {
                "name": row.name,
                "kind": row.kind,
                "shape": list(row.shape),
                "pattern": row.pattern or None,
                "eligible": row.eligible,
                "reason": row.reason,
                "zeros": known.get(row.name),
            }
            for row in rows
        ],
        indent=1,
    )


def _parsed(pattern: Pattern | str) -> Pattern:
    return pattern if isinstance(pattern, Pattern) else Pattern.parse(pattern)


def _refuse_idle_rules(rules: Rules, names: Sequence[str]) -> None:
    idle = [glob for glob in rules if glob != "*" and not any(fnmatchcase(name, glob) for name in names)]
    if idle:
        raise ValueError(
            f"A pattern is given for {', '.join(repr(glob) for glob in idle)}, but no layer is named so; the "
            f"layers are: {', '.join(names) or 'none'}."
        )


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


def _kind_reason(module: nn.Module, parameter: str) -> str:
    if WeightView.of(module, parameter) is not None:
        return ""
    kind = type(module).__name__
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return f"{kind} is looked up, not multiplied, so zeros in it save no work."
    return f"Linear, convolution and attention weights are pruned; this is {kind}."


def _shared_reason(name: str, parameter: str, owners: Sequence[str]) -> str:
    own = name if parameter != "weight" else ".".join(part for part in (name, "weight") if part)
    others = [owner for owner in owners if owner != own]
    return f"The weight is shared with {', '.join(others)}." if others else ""


def _shape_reason(module: nn.Module, parameter: str, pattern: Pattern) -> str:
    view = WeightView.of(module, parameter)
    assert view is not None
    _, rows, columns = view.stacked
    if isinstance(pattern, GroupPattern):
        high, wide = (pattern.group if pattern.transposable else pattern.shared), pattern.group
    elif isinstance(pattern, BlockPattern):
        high, wide = pattern.rows, pattern.columns
    else:
        return f"{type(pattern).__name__} is not a pattern of weights."
    of = " in each group" if view.groups > 1 else ""
    if columns < wide:
        return f"The layer has {columns} input channels{of}, fewer than the {wide} that {pattern} groups."
    if rows < high:
        return f"The layer has {rows} output channels{of}, fewer than the {high} that {pattern} treats alike."
    return ""
