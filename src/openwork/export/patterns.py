"""The invariant of the mask at the border: what was pruned is zero in the integers that are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from openwork.export.layers import THIRDS
from openwork.patterns.metadata import PATTERN_KEY
from openwork.patterns.pattern import Pattern
from openwork.patterns.stacks import detect_stack, first_violation
from openwork.sparsity.masks.prunable import stated_pattern
from openwork.sparsity.masks.view import (
    NORMED,
    RECURRENT,
    WeightView,
    effective,
    full_name,
    stands_for,
    weights_of,
)

MASK = "_mask"


@dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A pruned parameter: its layer and full name, how it is read as matrices, and its values.

    mask: bool of the parameter's shape, or None. stated: the pattern that its pruner left with the mask.
    remade: the graph may hold the values in another form only: a recurrent layer's gates in ONNX's order,
    what weight_norm computes. They are checked as the module has them then, and no tensor is named.
    """

    layer: str
    name: str
    view: WeightView
    weight: np.ndarray
    mask: np.ndarray | None
    stated: Pattern | None
    remade: bool = False

    def matrices(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor of the parameter's shape as a stack [stack, out, in]."""
        return self.view.matrices(torch.from_numpy(np.array(tensor, order="C"))).numpy()


def pruned_weights(model: nn.Module, patterns: Mapping[str, str]) -> tuple[PrunedWeight, ...]:
    """The parameters of `model` with a mask that drops something, and those that `patterns` names.

    patterns: by layer, or by the parameter's full name where that is not the layer's `weight`.
    Raises ValueError for a name that is no such parameter.
    """
    found = {_key(weight): weight for weight in _weights(model)}
    for name in patterns:
        if name not in found:
            raise ValueError(f"The pruned layer {name} has no weight {name}.weight in the exported graph.")
    return tuple(w for name, w in found.items() if w.mask is not None or name in patterns)


def record_patterns(
    model: ir.Model,
    pruned: tuple[PrunedWeight, ...],
    patterns: Mapping[str, str],
    transposed: Set[str],
) -> None:
    """Check masks and patterns on the tensors of the graph, and write the patterns into its metadata.

    transposed: the tensors that the graph holds as [in, out].
    Raises ValueError where a dropped weight is not zero there, or a pattern does not hold.
    """
    tensors = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    found: dict[str, str] = {}
    for weight in pruned:
        parts = _find(tensors, weight)
        stored = _stored(weight, parts, transposed)
        if weight.mask is not None:
            _check_mask(weight, stored)
        pattern = _pattern(weight, patterns)
        if pattern is not None:
            _check_pattern(weight, weight.matrices(stored), pattern)
            found |= {PATTERN_KEY + title: str(pattern) for title in _keeping(parts, transposed, pattern)}
    model.metadata_props.update(found)


def _stored(weight: PrunedWeight, parts: Mapping[str, np.ndarray], transposed: Set[str]) -> np.ndarray:
    if not parts:
        return weight.weight
    return np.concatenate([part.T if title in transposed else part for title, part in parts.items()])


def _keeping(parts: Mapping[str, np.ndarray], transposed: Set[str], pattern: Pattern) -> list[str]:
    """The tensors of a weight that keep to its pattern, each by itself.

    A fraction of zeros is counted over a whole parameter, so one of an attention's three projections may have
    less of them than its share.
    """
    if len(parts) == 1:
        return list(parts)
    return [title for title, part in parts.items() if pattern.holds(part.T if title in transposed else part)]


def _key(weight: PrunedWeight) -> str:
    return weight.layer if weight.name == full_name(weight.layer, "weight") else weight.name


def _weights(model: nn.Module) -> Iterator[PrunedWeight]:
    names = {id(module): name for name, module in model.named_modules()}
    for _, module, parameter in weights_of(model):
        view = WeightView.of(module, parameter)
        if view is not None:
            own, layer = stands_for(parameter), names[id(module)]
            values, mask = effective(module, parameter).cpu().numpy(), _mask(module, own)
            remade = parameter in NORMED or isinstance(module, RECURRENT)
            stated = stated_pattern(module, parameter)
            yield PrunedWeight(layer, full_name(layer, own), view, values, mask, stated, remade)


def _mask(module: nn.Module, parameter: str) -> np.ndarray | None:
    """The mask of a parameter; one that keeps everything is none."""
    mask = dict(module.named_buffers(recurse=False)).get(parameter + MASK)
    return None if mask is None or bool(mask.all()) else mask.cpu().numpy()


def _find(tensors: Mapping[str, ir.TensorProtocol], weight: PrunedWeight) -> dict[str, np.ndarray]:
    """The graph's tensors of a parameter: of its name, or its numbered parts, or else of its values."""
    for names in ([weight.name], [f"{weight.name}.{i}" for i in range(THIRDS)]):
        if all(name in tensors for name in names):
            return {name: tensors[name].numpy() for name in names}
    for name, tensor in tensors.items():
        for wanted in (weight.weight, weight.weight.T):
            if tensor.shape == wanted.shape and np.array_equal(tensor.numpy(), wanted):
                return {name: weight.weight}
    if weight.remade:
        return {}
    raise ValueError(f"The pruned layer {weight.layer} has no weight {weight.name} in the exported graph.")


def _pattern(weight: PrunedWeight, patterns: Mapping[str, str]) -> Pattern | None:
    """The pattern that the caller names, else the module's own, else what the zeros of the mask show."""
    named = patterns.get(_key(weight))
    if named is not None:
        return Pattern.parse(named)
    assert weight.mask is not None
    kept = weight.matrices(weight.mask)
    # Zeros show some pattern, but seldom the one that was asked for: 2:4t looks like 2:4, 5:7 like 25:32.
    # What the mask does not keep to, as on the way of a schedule, was not pruned to it either.
    if weight.stated is not None and weight.stated.holds(kept):
        return weight.stated
    return detect_stack(kept)


def _check_mask(weight: PrunedWeight, stored: np.ndarray) -> None:
    assert weight.mask is not None
    alive = np.argwhere((stored != 0) & ~weight.mask)
    if len(alive):
        place = ", ".join(
            f"{axis} {i}" for axis, i in zip(("row", "column", *["tap"] * 3), alive[0], strict=False)
        )
        raise ValueError(
            f"{weight.layer}: the weight at {place} is not zero though its mask drops it ({len(alive)} such "
            "weights); apply the masks, with `Pruner.apply`, before exporting."
        )


def _check_pattern(weight: PrunedWeight, stack: np.ndarray, pattern: Pattern) -> None:
    broken = first_violation(pattern, stack)
    if broken is not None:
        raise ValueError(
            f"{weight.layer}: the exported weight breaks its pattern {pattern}: {broken}. Prune the layer "
            "again, or export it without the pattern."
        )
