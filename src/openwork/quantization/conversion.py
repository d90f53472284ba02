"""Which layers are quantized and why the rest are not; float layers replaced by fake-quantized ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from openwork.quantization.modules import QuantLinear
from openwork.quantization.search import InputQuantization

# 255 * 127 * k must stay below 2^31 for the exact INT32 sum (docs/arithmetic.md).
LONGEST_REDUCTION = 66_000

WEIGHTED = (
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.MultiheadAttention,
)


@dataclass(frozen=True)
class LayerChoice:
    """Whether one weighted layer is quantized, and the reason in words."""

    name: str
    kind: str
    quantized: bool
    reason: str


def choose_layers(
    model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> tuple[LayerChoice, ...]:
    """One choice for every weighted layer of the model, in the order of its modules.

    include, exclude: globs over module names; exclude wins.
    Raises ValueError for a glob that names no weighted layer, and if nothing is left to quantize.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, (*WEIGHTED, QuantLinear))
    }
    for glob in (*(g for g in include if g != "*"), *exclude):
        if not _matches(layers, glob):
            raise ValueError(
                f"The glob {glob!r} names no weighted layer; the layers are: {', '.join(layers) or 'none'}."
            )
    choices = tuple(_choose(name, module, include, exclude) for name, module in layers.items())
    if not any(choice.quantized for choice in choices):
        raise ValueError("No layer is left to quantize:\n" + table(choices))
    return choices


def table(choices: Iterable[LayerChoice]) -> str:
    """The choices as aligned lines of text: name, kind, INT8 or float, reason."""
    rows = [(c.name or "(the model)", c.kind, "INT8" if c.quantized else "float", c.reason) for c in choices]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def convert(model: nn.Module, scales: Mapping[str, InputQuantization]) -> nn.Module:
    """A copy of the model in which each layer of `scales` is a QuantLinear with its input quantized so.

    The float model is left as it was. Raises ValueError for a name that is no Linear of the model, or a
    weight that holds NaN or infinity.
    """
    converted = copy.deepcopy(model)
    for name, inputs in scales.items():
        layer = dict(converted.named_modules()).get(name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(
                f"{name!r} must be a Linear of the model to be quantized, but it is {type(layer).__name__}."
            )
        replacement = QuantLinear(layer, inputs, name)
        if not name:
            return replacement
        converted.set_submodule(name, replacement)
    return converted


def _matches(names: Iterable[str], glob: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, glob)]


def _choose(name: str, module: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> LayerChoice:
    reason = _refusal(name, module, include, exclude)
    return LayerChoice(
        name, type(module).__name__, reason is None, reason or "weight per channel, input per tensor"
    )


def _refusal(name: str, module: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    if isinstance(module, QuantLinear):
        return "is quantized already"
    if not isinstance(module, nn.Linear):
        return f"{type(module).__name__} has no INT8 kernel; only Linear layers are quantized"
    if glob := next((g for g in exclude if fnmatchcase(name, g)), None):
        return f"excluded by {glob!r}"
    if not any(fnmatchcase(name, g) for g in include):
        return f"not included by {', '.join(map(repr, include))}"
    if module.in_features > LONGEST_REDUCTION:
        return f"{module.in_features} input channels overflow an INT32 sum; at most {LONGEST_REDUCTION} fit"
    return None
