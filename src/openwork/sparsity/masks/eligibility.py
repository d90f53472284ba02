"""Which weights of a torch module may carry a pattern, and why the others may not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils import parametrize

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.ends import ends, names
from openwork.sparsity.masks.view import (
    NORMED,
    WeightView,
    full_name,
    parameter_of,
    stands_for,
    weights_of,
)

NORMED_LENGTHS = ("parametrizations.weight.original0", "weight_g")
"""Where weight_norm keeps the lengths that belong to `NORMED`."""

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
    spare_ends: bool = True,
) -> list[LayerEligibility]:
    """One row for each weight of `model` of two or more dimensions, in the model's order.

    pattern: one for all layers, or {glob: pattern or None} by layer name, the first glob that fits. include,
    exclude: shell-style patterns of layer names; exclude wins. spare_ends: whether the ends of a network that
    reads images (`ends.py`) are eligible only where a glob other than "*", of `pattern` or of `include`, fits
    them. Raises ValueError for a glob of `pattern` that fits no layer.
    """
    rules, owners = parse_rules(pattern), _owners(model)
    weights = list(weights_of(model))
    _refuse_idle_rules(rules, [name for name, _, _ in weights])
    rows, spared = [], ends(model) if spare_ends else {}
    for name, module, parameter in weights:
        shape = tuple(module.get_parameter(parameter).shape)
        glob = next((glob for glob in rules if fnmatchcase(name, glob)), "")
        chosen = rules.get(glob)
        reason = (
            _name_reason(name, include, exclude)
            or ("" if chosen else "No pattern is given for this layer.")
            or ("" if names(name, (glob, *include)) else spared.get(name, ""))
            or _kind_reason(module, parameter)
            or _shared_reason(name, parameter, owners[id(module.get_parameter(parameter))])
            or _norm_reason(module, parameter, chosen)
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
    if isinstance(module, nn.Bilinear):
        return f"{kind} multiplies two inputs with each other, which no sparse kernel does."
    if isinstance(module, parametrize.ParametrizationList):
        return _parametrized_reason(module, parameter)
    if parameter.endswith("_orig") and parameter.removesuffix("orig") + "mask" in module._buffers:
        return "torch.nn.utils.prune holds a mask of its own on it; end that with its `remove` first."
    if parameter == "weight_g":
        return LENGTHS
    if parameter != "weight":
        return f"It is a parameter of its own of {kind}, of which no layer says how it is multiplied."
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return f"{kind} is looked up, not multiplied, so zeros in it save no work."
    return f"Linear, convolution and attention weights are pruned; this is {kind}."


LENGTHS = "It holds the lengths of weight_norm, one number for each output."


def _parametrized_reason(module: parametrize.ParametrizationList, parameter: str) -> str:
    names = [type(one).__name__.removeprefix("_") for one in module]
    if names == ["WeightNorm"]:
        return LENGTHS
    return f"The weight is computed from it by {', '.join(names)}, which does not keep zeros."


def _norm_reason(module: nn.Module, parameter: str, pattern: Pattern | None) -> str:
    """Why weight_norm stands in a pattern's way: it divides by a length that must not become zero."""
    view = WeightView.of(module, parameter)
    if parameter not in NORMED or view is None or pattern is None:
        return ""
    lengths = parameter_of(module, NORMED_LENGTHS[NORMED.index(parameter)])
    rows = (view.shape[0], *[1] * (len(view.shape) - 1))
    by_output = lengths is not None and (tuple(lengths.shape) == rows or lengths.numel() == 1)
    if isinstance(pattern, GroupPattern) and view.kind != "conv_transpose" and by_output:
        return ""
    return (
        f"Its weight_norm divides by the length of each row, which {pattern} may leave zero; take an N:M "
        "pattern along the inputs, or remove the weight_norm."
    )


def vector_rows(model: nn.Module) -> list[LayerEligibility]:
    """A row for each parameter of fewer than two dimensions, for a report on all of them."""
    owners = dict(model.named_modules())
    return [
        LayerEligibility(name, type(owners[name.rpartition(".")[0]]).__name__, tuple(parameter.shape), VECTOR)
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2
    ]


VECTOR = "A pattern is one of matrices; this is a vector or a number."


def _shared_reason(name: str, parameter: str, owners: Sequence[str]) -> str:
    own = full_name(name, parameter) if stands_for(parameter) == "weight" else name
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
