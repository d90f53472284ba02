"""Cross-layer equalization of a float ONNX graph, by its weights (see `corrections/channel_scaling.py`).

The factors move through operators whose f(s x) = s f(x) the standard states, so no data are needed, and a
cache that was made with the factors fits the same graph again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from openwork.graph.edit import set_tensor
from openwork.graph.model import attributes, constant, consumers, is_onnx, only_consumer, operand
from openwork.quantization.corrections.channel_scaling import (
    Form,
    Link,
    balance,
    grouped,
    scale_inputs,
    scale_outputs,
    ungrouped,
)
from openwork.quantization.corrections.equalization import Equalized, row
from openwork.quantization.float_onnx.batch_norm import folded_name
from openwork.quantization.float_onnx.layers import CONVOLUTIONS, Layer, layer, torch_tensor
from openwork.quantization.float_onnx.placement import node_name

Array = NDArray[Any]

ELEMENTWISE = ("Relu", "LeakyRelu", "Identity")
POOLING = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")


@dataclass(frozen=True)
class _Way:
    """The layer at the end of a tensor's way, or the reason why a factor does not get there."""

    layer: Layer | None
    reason: str = ""
    flattened: bool = False


def equalize(graph: ir.Graph) -> tuple[Equalized, ...]:
    """Equalize the channels between every two Conv, ConvTranspose or Gemm that allow it, in place.

    Those allow it where the second alone reads what the first gives, through Relu, LeakyRelu, PRelu, pooling
    and flattening. Returns a row for each layer that another one follows.
    """
    layers = {node: found for node in graph if isinstance(found := layer(node), Layer) and _fit(found)}
    rows: list[Equalized] = []
    links: list[Link] = []
    for node, one in layers.items():
        way = _follow(node, layers)
        if way.layer is None:
            continue
        link = way.reason or _link(one, way)
        if isinstance(link, Link):
            links.append(link)
        else:
            rows.append(Equalized(node_name(node), node_name(way.layer.node), False, link))
    named = {node_name(node): one for node, one in layers.items()}
    factors = balance({name: _grouped(one) for name, one in named.items()}, links, [None] * len(links))
    _apply(named, links, factors)
    return (*rows, *(row(link, factor) for link, factor in zip(links, factors, strict=True)))


def _fit(one: Layer) -> bool:
    """Whether a layer's numbers are its own and stored: MatMul's bias is another node, and is left out."""
    if not is_onnx(one.node, *CONVOLUTIONS, "Gemm"):
        return False
    stored = [value for value in one.node.inputs[1:] if value is not None]
    return all(constant(value) is not None and len(list(value.uses())) == 1 for value in stored)


def _follow(node: ir.Node, layers: dict[ir.Node, Layer]) -> _Way:
    reason, flattened = "", False
    value = node.outputs[0]
    while True:
        readers = consumers(value)
        reader = only_consumer(value)
        if reader is None or value.is_graph_output():
            ends = [layers[reader] for reader in readers if reader in layers]
            return _Way(ends[0] if ends else None, "others read what lies between as well", flattened)
        if reader in layers:
            return _Way(layers[reader], reason, flattened)
        reason = reason or _refusal(reader, value, node.op_type in CONVOLUTIONS)
        flattened |= reader.op_type == "Flatten"
        if len(reader.outputs) != 1 or reader.op_type in ("Add", "Concat", "MatMul"):
            return _Way(None)
        value = reader.outputs[0]


def _refusal(node: ir.Node, value: ir.Value, pools: bool) -> str:
    if is_onnx(node, *ELEMENTWISE) or (pools and is_onnx(node, *POOLING)):
        return ""
    if is_onnx(node, "PRelu") and node.inputs[0] is value and constant(operand(node, 1)) is not None:
        return ""
    if is_onnx(node, "Flatten") and attributes(node).get("axis", 1) == 1:
        return ""
    if is_onnx(node, "Clip"):
        return "Clip clips at a fixed number, which the factors would move"
    return f"{node.op_type} lies between, for which f(s x) = s f(x) is not known to hold for each channel"


def _link(one: Layer, way: _Way) -> Link | str:
    assert way.layer is not None
    first, second = _grouped(one), _grouped(way.layer)
    channels, inputs = first.shape[0] * first.shape[1], second.shape[0] * second.shape[2]
    repeat, rest = divmod(inputs, channels)
    if rest or (repeat != 1 and not way.flattened):
        return f"{channels} channels do not become {inputs} inputs one by one"
    return Link(node_name(one.node), node_name(way.layer.node), repeat)


def _form(one: Layer) -> tuple[Form, int]:
    kind: Form = "conv_transpose" if one.node.op_type == "ConvTranspose" else "conv"
    linear = one.node.op_type not in CONVOLUTIONS
    return ("linear", 1) if linear else (kind, int(attributes(one.node).get("group", 1)))


def _grouped(one: Layer) -> Tensor:
    weight = one.matrix() if one.linear else one.array()
    return grouped(torch_tensor(weight).double(), *_form(one))


def _apply(named: dict[str, Layer], links: list[Link], factors: list[Tensor]) -> None:
    outputs = {link.first: factor for link, factor in zip(links, factors, strict=True)}
    inputs = {link.second: (factor, link.repeat) for link, factor in zip(links, factors, strict=True)}
    for name in dict.fromkeys((*outputs, *inputs)):
        one, weight = named[name], _grouped(named[name])
        weight = scale_outputs(weight, 1 / outputs[name]) if name in outputs else weight
        weight = scale_inputs(weight, *inputs[name]) if name in inputs else weight
        _store(one, weight)
        bias = constant(operand(one.node, 2))
        if bias is not None and name in outputs:
            scaled = bias.astype(np.float64) / outputs[name].numpy()
            set_tensor(one.node, 2, scaled.astype(np.float32), folded_name(one.node, "bias"))


def _store(one: Layer, weight: Tensor) -> None:
    shape = one.matrix().shape if one.linear else one.array().shape
    array = ungrouped(weight, _form(one)[0], shape).numpy().astype(np.float32)
    array = array if not one.linear or one.axis == 0 else array.T
    set_tensor(one.node, one.weight, array, folded_name(one.node, "weight"))
