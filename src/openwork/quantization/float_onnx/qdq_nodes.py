"""Q/DQ put into the graph: around activations as pairs, behind weights as stored INT8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.graph.edit import add_initializer, insert_behind, onnx_node, set_input
from openwork.graph.quantizers.nodes import dequantizer, quantizer
from openwork.patterns.metadata import PATTERN_KEY
from openwork.patterns.pattern import Pattern
from openwork.patterns.stacks import detect_stack, first_violation
from openwork.qdq.affine import quantize_weight, weight_scales
from openwork.qdq.dialect import NUMPY_TYPES
from openwork.quantization.float_onnx.layers import Layer
from openwork.quantization.float_onnx.placement import Placement, Site, node_name, weights_shared
from openwork.quantization.scales.cache import CacheEntry

Array = NDArray[Any]


def rewrite(model: ir.Model, placement: Placement, entries: Mapping[str, CacheEntry]) -> None:
    """Insert the quantizers, in place, and record the patterns of the weights in the model's metadata.

    Raises ValueError where a weight holds NaN or infinity,
    or a pattern that the file names does not hold in the integers.
    """
    multipliers = {
        layer: np.asarray(entries[site.name].multiplier, np.float32)
        for site in placement.sites
        for layer in site.layers
        if entries[site.name].multiplier is not None
    }
    for value, layers in weights_shared(placement.layers).items():
        for group in _alike(layers, multipliers):
            _store_weight(model, value, group, multipliers.get(group[0]))
    for site in placement.sites:
        _quantize(model.graph, site, entries[site.name])


def _quantize(graph: ir.Graph, site: Site, entry: CacheEntry) -> None:
    """Let the readers of a site's tensor read it through Q and DQ."""
    readers = [(use.node, use.idx) for use in site.value.uses()] if site.output else site.readers
    integers = NUMPY_TYPES[site.activation]
    scale = add_initializer(graph, f"{site.name}:scale", np.asarray(entry.scale, np.float32))
    zero = add_initializer(graph, f"{site.name}:zero_point", np.asarray(entry.zero_point, integers))
    multiply = _multiplier(graph, site, entry)
    source = multiply[-1].outputs[0] if multiply else site.value
    nodes = (*multiply, *quantizer(source, scale, zero, site.activation, site.name))
    insert_behind(graph, site.value, nodes)
    for node, place in readers:
        set_input(node, place, nodes[-1].outputs[0])


def _multiplier(graph: ir.Graph, site: Site, entry: CacheEntry) -> tuple[ir.Node, ...]:
    """The Mul in front of a quantizer whose weights took the inverse, if there is one."""
    if entry.multiplier is None:
        return ()
    by = add_initializer(graph, f"{site.name}:multiplier", np.asarray(entry.multiplier, np.float32))
    return (onnx_node("Mul", (site.value, by), f"{site.name}/Mul", like=site.value),)


def _alike(layers: list[Layer], multipliers: Mapping[Layer, Array]) -> list[list[Layer]]:
    """The readers of one weight, parted by how they read it: one copy of the integers for each way."""
    parts: dict[tuple[int, bytes], list[Layer]] = {}
    for layer in layers:
        by = multipliers.get(layer)
        parts.setdefault((layer.axis, b"" if by is None else by.tobytes()), []).append(layer)
    return list(parts.values())


def _store_weight(model: ir.Model, value: ir.Value, layers: list[Layer], by: Array | None) -> None:
    first, graph = layers[0], model.graph
    weight = first.array()
    if by is not None:
        weight = weight / (by[None, :] if first.axis == 0 else by[:, None])
    scales = weight_scales(weight, node_name(first.node), first.axis)
    integers = quantize_weight(weight, scales, first.axis)
    name = value.name or node_name(first.node)
    others = any((use.node, use.idx) not in {(x.node, x.weight) for x in layers} for use in value.uses())
    title = f"{name}.{node_name(first.node)}" if others else name
    _record(model, name, title, first, integers)
    if not others:
        graph.initializers.pop(name)
    stored = add_initializer(graph, title, integers)
    scale = add_initializer(graph, f"{title}:scale", scales)
    dequantize = dequantizer(stored, scale, first.axis, title)
    insert_behind(graph, stored, [dequantize])
    for layer in layers:
        set_input(layer.node, layer.weight, dequantize.outputs[0])


def _record(model: ir.Model, name: str, title: str, layer: Layer, integers: Array) -> None:
    """Write the weight's pattern into the metadata: the one that stands there, or what its zeros show."""
    stack = layer.stack(integers)
    promised = model.metadata_props.pop(PATTERN_KEY + name, None)
    if promised is not None:
        pattern = Pattern.parse(promised)
        broken = first_violation(pattern, stack)
        if broken is not None:
            raise ValueError(
                f"The model says that {name} keeps to {promised}, but it does not: {broken}. Prune it "
                "again, or export it without the pattern."
            )
        model.metadata_props[PATTERN_KEY + title] = promised
        return
    # Small weights round to zero as well, so it is the float weight's zeros that show a pattern.
    shown = detect_stack(layer.stack(layer.array()), stack)
    if shown is not None:
        model.metadata_props[PATTERN_KEY + title] = str(shown)
