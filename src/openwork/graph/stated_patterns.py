"""The patterns that a model's metadata names for its weights, carried along while the graph changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx_ir as ir

from openwork.patterns.metadata import PATTERN_KEY
from openwork.patterns.pattern import Pattern

log = logging.getLogger(__name__)

_MEMO = "openwork.pattern"


def attach_patterns(model: ir.Model) -> None:
    """Note at each initializer the pattern that the metadata names for it; what names none is logged."""
    for name, value in model.graph.initializers.items():
        text = model.metadata_props.get(PATTERN_KEY + name)
        if text is None:
            continue
        try:
            value.meta[_MEMO] = Pattern.parse(text)
        except ValueError as error:
            log.warning("The model's metadata say nothing about the weight '%s': %s", name, error)


def carry_pattern(sources: Sequence[ir.Value | None], made: ir.Value) -> ir.Value:
    """Note at a weight that was made of others, and return, the pattern that is named for all of them."""
    stated = {None if source is None else source.meta.get(_MEMO) for source in sources}
    if len(stated) == 1 and None not in stated:
        made.meta[_MEMO] = stated.pop()
    return made


def stated_patterns(graph: ir.Graph) -> dict[str, Pattern]:
    """The patterns that are noted at initializers, by their names."""
    found = {name: value.meta.get(_MEMO) for name, value in graph.initializers.items()}
    return {name: pattern for name, pattern in found.items() if pattern is not None}
