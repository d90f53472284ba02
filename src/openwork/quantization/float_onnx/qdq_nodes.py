"""Q/DQ put into the graph: around activations as pairs, behind weights as stored INT8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.patterns.detection import detect
from openwork.patterns.metadata import PATTERN_KEY
from openwork.patterns.pattern import Pattern
from openwork.qdq.affine import quantize_weight, weight_scales
from openwork.qdq.dialect import TYPES, store
from openwork.quantization.float_onnx.layers import Layer
from openwork.quantization.float_onnx.placement import Placement, Site, node_name, weights_shared
from openwork.quantization.scales.cache import CacheEntry

Array = NDArray[Any]


def rewrite(model: ir.Model, placement: Placement, entries: Mapping[str, CacheEntry]) -> None:
    """Insert the quantizers, in place, and record the patterns of the weights in the model's metadata.

    Raises ValueError where a weight holds NaN or infinity, or a pattern that the file names does not hold in
    the integers.
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
    drop_unused(model.graph)


def _quantize(graph: ir.Graph, site: Site, entry: CacheEntry) -> None:
    """Let the readers of a site's tensor read it through Q and DQ."""
    value = site.value
    readers = [(use.node, use.idx) for use in value.uses()] if site.output else site.readers
    integer, numpy_type = TYPES[site.activation]
    scale = store(graph, f"{site.name}:scale", np.asarray(entry.scale, np.float32))
    zero = store(graph, f"{site.name}:zero_point", np.asarray(entry.zero_point, numpy_type))
    source, nodes = value, []
    if entry.multiplier is not None:
        by = store(graph, f"{site.name}:multiplier", np.asarray(entry.multiplier, np.float32))
        nodes.append(_node("Mul", (value, by), f"{site.name}/Mul", ir.DataType.FLOAT))
        source = nodes[-1].outputs[0]
    nodes.append(_node("QuantizeLinear", (source, scale, zero), f"{site.name}/QuantizeLinear", integer))
    nodes.append(
        _node(
            "DequantizeLinear",
            (nodes[-1].outputs[0], scale, zero),
            f"{site.name}/DequantizeLinear",
            ir.DataType.FLOAT,
        )
    )
    for node in nodes:
        node.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    else:
        graph.insert_before(graph[0], nodes)
    for node, place in readers:
        node.replace_input_with(place, nodes[-1].outputs[0])


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
    stored = store(graph, title, integers)
    scale = store(graph, f"{title}:scale", scales)
    dequantize = _node(
        "DequantizeLinear", (stored, scale), f"{title}/DequantizeLinear", ir.DataType.FLOAT, axis=first.axis
    )
    dequantize.outputs[0].shape = ir.Shape(integers.shape)
    graph.insert_before(graph[0], dequantize)
    for layer in layers:
        layer.node.replace_input_with(layer.weight, dequantize.outputs[0])


def _record(model: ir.Model, name: str, title: str, layer: Layer, integers: Array) -> None:
    """Write the weight's pattern into the metadata: the one that stands there, or what its zeros show."""
    stack = layer.stack(integers)
    promised = model.metadata_props.pop(PATTERN_KEY + name, None)
    if promised is not None:
        pattern = Pattern.parse(promised)
        broken = pattern.violations(stack[0] if len(stack) == 1 else stack, limit=1)
        if broken:
            raise ValueError(
                f"The model says that {name} keeps to {promised}, but it does not: {broken[0]}. Prune it "
                "again, or export it without the pattern."
            )
        model.metadata_props[PATTERN_KEY + title] = promised
        return
    # Small weights round to zero as well, so it is the float weight's zeros that show a pattern.
    float_stack = layer.stack(layer.array())
    shown = detect(float_stack.reshape(-1, float_stack.shape[2]))
    if shown is not None and shown.holds(stack):
        model.metadata_props[PATTERN_KEY + title] = str(shown)


def _node(
    op_type: str, inputs: tuple[ir.Value, ...], name: str, dtype: ir.DataType, **attributes: int
) -> ir.Node:
    node = ir.node(op_type, inputs, {**attributes}, name=name)
    node.outputs[0].name = f"{name}:0"
    node.outputs[0].type = ir.TensorType(dtype)
    return node


def drop_unused(graph: ir.Graph) -> None:
    """Forget the stored tensors that nobody reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)
