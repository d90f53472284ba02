"""Small ONNX graphs for the tests of the graph rules, and the comparison with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from openwork.graph import lowerable, read, reduce, run
from openwork.graph.slots import row_of

Array = np.ndarray[Any, Any]
TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


@dataclass
class Builder:
    """Nodes and initializers of a graph, in the order in which they are added."""

    rng: np.random.Generator
    opset: int = 20
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    domains: tuple[str, ...] = ()
    """Whose first version the model imports beside ONNX's own."""

    def input(self, name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def constant(self, array: Array, name: str = "") -> str:
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def normal(self, *shape: int, scale: float = 1.0, name: str = "") -> str:
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32), name)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def quantizer(self, scale: float, zero_point: int, dtype: type = np.uint8) -> tuple[str, str]:
        return self.number(scale), self.constant(np.array(zero_point, dtype))

    def round_trip(self, value: str, scale: float, zero_point: int, dtype: type = np.uint8) -> str:
        pair = self.quantizer(scale, zero_point, dtype)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", value, *pair), *pair)

    def model(self, **outputs: str) -> onnx.ModelProto:
        """The finished model; outputs: the graph's output name -> the value that it is."""
        for name, value in outputs.items():
            for node in self.nodes:
                node.output[:] = [name if entry == value else entry for entry in node.output]
                node.input[:] = [name if entry == value else entry for entry in node.input]
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, infos, self.initializers)
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in self.domains)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for info, found in zip(model.graph.output, inferred.graph.output, strict=True):
            info.CopyFrom(found)
            if not info.type.HasField("tensor_type"):
                info.type.tensor_type.elem_type = TensorProto.FLOAT
        return model


def runtime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs that ONNX Runtime gives, without its own optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def operator_name(node: ir.Node) -> str:
    """A node's operator; "onnx." before one that stayed, " f32" behind a product with float weights."""
    if not node.domain:
        return f"onnx.{node.op_type}"
    either = row_of(node).weighted and row_of(node).attribute("x_scale") is not None
    return node.op_type + (" f32" if either and "x_scale" not in node.attributes else "")


@dataclass(frozen=True)
class Reduced:
    """What became of a model: its operators, changes and refusals, and both runs' outputs."""

    operators: list[str]
    rules: list[str]
    reasons: list[str]
    left: list[str]
    before: dict[str, Array]
    after: dict[str, Array]
    nodes: list[Any]
    notes: list[str]

    def node(self, op_type: str) -> Any:
        """The one node of this type."""
        (found,) = [node for node in self.nodes if node.op_type == op_type]
        return found


def reduced(model: onnx.ModelProto, feeds: Mapping[str, Array], rounding: str = "exact") -> Reduced:
    """Reduce a model and run it before (ONNX Runtime) and after (the NumPy reference)."""
    graph, changes, refusals = reduce(read(model), rounding=rounding, thorough=True)
    return Reduced(
        operators=[operator_name(node) for node in graph.graph],
        rules=[change.rule for change in changes],
        reasons=[refusal.reason for refusal in refusals],
        left=[f"{node.op_type}: {reason}" for node, reason in lowerable(graph)],
        before=runtime(model, feeds),
        after=run(graph, feeds),
        nodes=list(graph.graph),
        notes=[change.note for change in changes if change.note],
    )


def assert_close(found: Reduced, tolerance: float) -> None:
    """Compare both runs: |before - after| <= tolerance * max(1, max |before|), for every output."""
    assert set(found.before) == set(found.after)
    for name, before in found.before.items():
        after = found.after[name]
        assert after.shape == before.shape, name
        bound = tolerance * max(1.0, float(np.abs(before).max(initial=0)))
        error = float(np.abs(after.astype(np.float64) - before.astype(np.float64)).max(initial=0))
        assert error <= bound, f"{name}: the largest error is {error}, but {bound} is allowed"


def assert_steps(found: Reduced, max_steps: int, scale: float) -> None:
    """Compare quantized results: at most 1 in 200 values differs by up to max_steps quantization steps, the
    rest by none.

    ONNX divides by a scale where docs/arithmetic.md multiplies by its reciprocal; they differ only at ties.
    """
    for name, before in found.before.items():
        steps = np.abs(found.after[name].astype(np.float64) - before.astype(np.float64)) / scale
        assert steps.max(initial=0) <= max_steps + 1e-3, name
        assert (steps > 0.5).mean() <= 1 / 200, name
