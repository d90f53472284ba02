"""Where quantizers go in a float ONNX graph, by the rules of a style, and why the rest stays in float."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from openwork.graph.model import constant, dims, is_onnx, needed, only_consumer
from openwork.qdq.affine import Activation
from openwork.quantization.float_onnx.layers import (
    Layer,
    is_embedding,
    is_mean,
    is_product,
    layer,
    residual_reason,
    scales_channels,
    weighted_values,
)
from openwork.quantization.observers.observer import ObserverKind
from openwork.quantization.placement import LayerChoice, QuantizationOptions


@dataclass(eq=False)
class Site:
    """One tensor that gets a quantizer, and who reads it through that.

    readers: (node, input) pairs; all readers where `output` is set. layers: those of the readers that are
    layers with a weight. options: of the first reader.
    """

    value: ir.Value
    options: QuantizationOptions
    readers: list[tuple[ir.Node, int]] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    output: bool = False

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.value.name or ""

    @property
    def activation(self) -> Activation:
        """The integer type."""
        return self.options.activation or self.options.rules.activation

    @property
    def searched(self) -> bool:
        """Whether all who read the tensor are products over its last axis,
        so that their output can be searched.
        """
        return (
            bool(self.layers) and len(self.layers) == len(self.readers) and all(x.linear for x in self.layers)
        )

    @property
    def observer(self) -> ObserverKind:
        """The kind of observer; "output" needs layers to look at,
        and is "mse" where there are none.
        """
        kind = self.options.observer or self.options.rules.observer
        return "mse" if kind == "output" and not self.searched else kind


@dataclass(frozen=True)
class Placement:
    """sites: tensors to quantize, in the graph's order. layers: whose weights become INT8. choices:
    the table.
    """

    sites: tuple[Site, ...]
    layers: tuple[Layer, ...]
    choices: tuple[LayerChoice, ...]


def place(graph: ir.Graph, options: QuantizationOptions) -> Placement:
    """Decide what is quantized; the graph is not changed.

    Raises ValueError for a glob that names nothing, and if nothing is left to quantize.
    """
    plan = _Plan(graph, options)
    for node in graph:
        plan.consider(node)
    plan.check()
    return Placement(tuple(plan.sites.values()), tuple(plan.layers), tuple(plan.choices))


def node_name(node: ir.Node) -> str:
    """The name of a node in the table and for globs."""
    return node.name or node.outputs[0].name or node.op_type


class _Plan:
    def __init__(self, graph: ir.Graph, options: QuantizationOptions) -> None:
        self.options = options
        self.weighted = weighted_values(graph)
        self.sites: dict[ir.Value, Site] = {}
        self.layers: list[Layer] = []
        self.choices: list[LayerChoice] = []

    def consider(self, node: ir.Node) -> None:
        """Put a node's tensors among the sites, or the reason why not into the table."""
        found = layer(node)
        if found is None and is_product(node, self.weighted):
            self._operands(
                node, self.options.rules.products, "attention products", "both operands per tensor"
            )
        elif scales_channels(node, self.weighted):
            self._scaling(node)
        elif is_embedding(node):
            self._embedding(node)
        elif (reason := residual_reason(node, self.weighted)) != "":
            self._residual(node, reason)
        elif isinstance(found, str):
            self._refuse(node, found)
        elif found is not None:
            self._layer(node, found)
        elif any(True for _ in _subgraphs(node)):
            self._refuse(node, "What runs inside its subgraphs is not looked at.")

    def check(self) -> None:
        """Raise ValueError for globs that name nothing, and if nothing is quantized."""
        for glob in self.options.globs():
            if not any(fnmatchcase(choice.name, glob) for choice in self.choices):
                names = ", ".join(choice.name for choice in self.choices[:20]) or "nothing"
                raise ValueError(f"The glob {glob!r} names nothing to quantize; there is: {names}.")
        if not self.sites:
            reasons = " ".join(f"{c.name}: {c.reason}" for c in self.choices[:5])
            raise ValueError(f"Nothing is left to quantize in this model. {reasons}".rstrip())

    def _layer(self, node: ir.Node, found: Layer) -> None:
        chosen = self._chosen(node)
        if chosen is None:
            return
        self.layers.append(found)
        site = self._site(needed(node, found.activation), chosen)
        site.readers.append((node, found.activation))
        site.layers.append(found)
        self._accept(node, "weight per channel, input per tensor")
        if self.options.rules.outputs:
            self._output(node, chosen)

    def _operands(self, node: ir.Node, wanted: bool, what: str, how: str) -> None:
        if not wanted:
            self._refuse(node, f"This style leaves {what} in float.")
            return
        chosen = self._chosen(node)
        if chosen is None:
            return
        for i, value in enumerate(node.inputs):
            assert value is not None
            self._site(value, chosen).readers.append((node, i))
        self._accept(node, how)
        if self.options.rules.outputs and node.op_type == "MatMul":
            self._output(node, chosen)

    def _scaling(self, node: ir.Node) -> None:
        """A product of channels with factors; the mean that the factors come from reads the same integers."""
        self._operands(node, True, "products of channels", "both inputs per tensor")
        if not self.choices[-1].quantized:
            return
        for value in (needed(node, i) for i in range(len(node.inputs))):
            for use in value.uses():
                if is_mean(use.node):
                    self.sites[value].readers.append((use.node, use.idx))
                    self._accept(use.node, "input per tensor, the one that a product scales")

    def _residual(self, node: ir.Node, reason: str | None) -> None:
        if reason is not None:
            self._refuse(node, reason)
        else:
            wanted = self.options.rules.adds(len(dims(node.outputs[0]) or dims(node.inputs[0]) or ()))
            self._operands(node, wanted, "residual additions", "both inputs per tensor")

    def _embedding(self, node: ir.Node) -> None:
        if not self.options.rules.embeddings:
            self._refuse(node, "This style leaves embeddings in float.")
            return
        chosen = self._chosen(node)
        if chosen is not None:
            self._site(node.outputs[0], chosen).output = True
            self._accept(node, "output per tensor")

    def _output(self, node: ir.Node, chosen: QuantizationOptions) -> None:
        """Quantize what a layer gives, after the activation function that is fused into it."""
        value = node.outputs[0]
        follower = only_consumer(value)
        if is_onnx(follower, "Relu", "Clip") and follower is not None:
            value = follower.outputs[0]
        if not value.is_graph_output() and value.uses():
            self._site(value, chosen).output = True

    def _site(self, value: ir.Value, chosen: QuantizationOptions) -> Site:
        return self.sites.setdefault(value, Site(value, chosen))

    def _chosen(self, node: ir.Node) -> QuantizationOptions | None:
        chosen = self.options.of(node_name(node))
        if isinstance(chosen, str):
            self._refuse(node, chosen)
            return None
        return chosen

    def _accept(self, node: ir.Node, how: str) -> None:
        self.choices.append(LayerChoice(node_name(node), node.op_type, True, how))

    def _refuse(self, node: ir.Node, reason: str) -> None:
        self.choices.append(LayerChoice(node_name(node), node.op_type, False, reason))


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def weights_shared(layers: tuple[Layer, ...]) -> dict[ir.Value, list[Layer]]:
    """The layers by the stored weight that they read."""
    found: dict[ir.Value, list[Layer]] = {}
    for one in layers:
        assert constant(one.value) is not None
        found.setdefault(one.value, []).append(one)
    return found
